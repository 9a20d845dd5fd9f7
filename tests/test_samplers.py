"""The samplers of noise predictors: with the exact predictor plugged in, by hand, and the steps that they visit."""

from __future__ import annotations

import pytest
import torch
from exact import Mixture, noise, rng
from torch import Tensor

from baselines.samplers import ancestral, ddim, dpm_solver, even_steps, predicted_x0, quadratic_steps, uniform_steps
from trilemma_bench.nn.schedules import alphas_cumprod, gaussian_posterior, linear_betas

BAR = alphas_cumprod(linear_betas())


def exact_predictor(means: list[float], std: float):
    """E[ε | x_t] for data from an even mixture of N(mean, std²) in one dimension."""
    mixture = Mixture(means, std)

    def predict(x: Tensor, step: Tensor) -> Tensor:
        noise = float((1 - BAR[step]).sqrt())
        return -noise * mixture.score(x, float(BAR[step].sqrt()), noise)

    return predict


class TestSamplersOnExactPredictors:
    """With the true noise predictor, a sampler must return the data's distribution."""

    @pytest.mark.parametrize("variance", ["large", "small"])
    def test_ancestral_recovers_a_gaussian(self, variance):
        predict = exact_predictor([0.7], 0.3)
        x = ancestral(predict, noise(8000), BAR, even_steps(1000, 1000), rng(), variance=variance)
        assert x.mean().item() == pytest.approx(0.7, abs=0.015)
        assert x.std().item() == pytest.approx(0.3, abs=0.015)

    @pytest.mark.parametrize(("eta", "spacing"), [(0.0, uniform_steps), (0.0, quadratic_steps), (1.0, uniform_steps)])
    def test_ddim_recovers_a_gaussian(self, eta, spacing):
        predict = exact_predictor([0.7], 0.3)
        x = ddim(predict, noise(8000), BAR, spacing(1000, 200), rng(), eta=eta)
        assert x.mean().item() == pytest.approx(0.7, abs=0.015)
        assert x.std().item() == pytest.approx(0.3, abs=0.015)

    @pytest.mark.parametrize("sampler", [ancestral, ddim])
    def test_both_recover_a_mixture(self, sampler):
        predict = exact_predictor([-1.0, 0.5], 0.05)
        x = sampler(predict, noise(10_000), BAR, even_steps(1000, 500), rng())
        left = x < -0.25
        assert left.double().mean().item() == pytest.approx(0.5, abs=0.03)
        assert x[left].mean().item() == pytest.approx(-1.0, abs=0.01)
        assert x[left].std().item() == pytest.approx(0.05, abs=0.01)
        assert x[~left].std().item() == pytest.approx(0.05, abs=0.01)

    @pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm_solver", 2)])
    def test_the_order_of_convergence_is_the_papers(self, sampler, order):
        """A Gaussian flows along x_t = √ᾱ mean + √(ᾱ std² + 1 − ᾱ)·z; steps from the last to one of little noise."""
        mean, std = 0.7, 0.8
        predict = exact_predictor([mean], std)

        def error(count: int) -> float:
            steps = torch.linspace(20, 999, count + 1).round().long()
            if sampler == "ddim":
                x = ddim(predict, noise(50), BAR, steps, rng())
            else:
                x = dpm_solver(predict, noise(50), BAR, steps)
            return (x - reached(steps)).abs().max().item()

        def reached(steps: Tensor) -> Tensor:
            """The exact sample, but for the last step to x_0, which both samplers take at once."""
            start, end = (float(BAR[steps[k]]) for k in (-1, 0))
            z = (noise(50) - start**0.5 * mean) / (start * std**2 + 1 - start) ** 0.5
            x = end**0.5 * mean + (end * std**2 + 1 - end) ** 0.5 * z
            return predicted_x0(x, predict(x, steps[:1]), end)

        assert torch.tensor(error(30) / error(60)).log2().item() == pytest.approx(order, abs=0.35)

    def test_dpm_solver_recovers_a_mixture(self):
        predict = exact_predictor([-1.0, 0.5], 0.05)
        x = dpm_solver(predict, noise(10_000), BAR, quadratic_steps(1000, 100))
        left = x < -0.25
        assert left.double().mean().item() == pytest.approx(0.5, abs=0.03)
        assert x[left].mean().item() == pytest.approx(-1.0, abs=0.01)
        assert x[~left].std().item() == pytest.approx(0.05, abs=0.01)

    def test_four_ancestral_steps_miss_the_modes_that_a_thousand_find(self):
        """Figure 6 of the paper: a Gaussian step cannot stand for a denoising distribution of several modes."""
        means = torch.tensor([-1.0, 0.0, 1.0])
        predict = exact_predictor(means.tolist(), 0.02)

        def near_a_mode(count: int) -> float:
            x = ancestral(predict, noise(2000), BAR, even_steps(1000, count), rng())
            return ((x - means).abs().amin(dim=1) < 0.08).double().mean().item()

        assert near_a_mode(1000) > 0.99
        assert near_a_mode(4) < 0.5


def any_predictor(x: Tensor, step: Tensor) -> Tensor:
    return torch.sin(3 * x + step)


class TestSamplerFormulas:
    def test_two_ancestral_steps_by_hand(self):
        betas = torch.tensor([0.1, 0.4], dtype=torch.float64)
        bar, x2 = alphas_cumprod(betas), noise(4)
        posterior = gaussian_posterior(betas)
        x0 = predicted_x0(x2, any_predictor(x2, torch.tensor([1])), bar[1].item()).clamp(-1, 1)
        step_noise = torch.randn(x2.shape, generator=rng(), dtype=torch.float64)
        x1 = posterior.x0[1] * x0 + posterior.xt[1] * x2 + betas[1].sqrt() * step_noise
        expected = predicted_x0(x1, any_predictor(x1, torch.tensor([0])), bar[0].item()).clamp(-1, 1)
        actual = ancestral(any_predictor, x2, bar, torch.arange(2), rng(), clip=True)
        assert torch.allclose(actual, expected, rtol=0, atol=1e-12)

    def test_two_ddim_steps_by_hand(self):
        x, steps, eta = noise(4), torch.tensor([3, 600]), 0.5
        a, before = BAR[600], BAR[3]
        sigma = eta * ((1 - a / before) * (1 - before) / (1 - a)).sqrt()
        epsilon = any_predictor(x, torch.tensor([600]))
        x0 = (x - (1 - a).sqrt() * epsilon) / a.sqrt()
        x = before.sqrt() * x0 + (1 - before - sigma**2).sqrt() * epsilon
        x = x + sigma * torch.randn(x.shape, generator=rng(), dtype=torch.float64)
        epsilon = any_predictor(x, torch.tensor([3]))
        expected = (x - (1 - before).sqrt() * epsilon) / before.sqrt()  # ᾱ of step −1 is 1: nothing but x0
        actual = ddim(any_predictor, noise(4), BAR, steps, rng(), eta=eta)
        assert torch.allclose(actual, expected, rtol=0, atol=1e-10)

    def test_ddim_without_eta_draws_nothing(self):
        generator = rng()
        state = generator.get_state()
        ddim(any_predictor, noise(4), BAR, uniform_steps(1000, 1000), generator)
        assert torch.equal(generator.get_state(), state)

    def test_ddim_with_eta_one_is_ddpm_with_the_small_variance(self):
        steps = even_steps(1000, 20)
        by_ddpm = ancestral(any_predictor, noise(9), BAR, steps, rng(), variance="small")
        by_ddim = ddim(any_predictor, noise(9), BAR, steps, rng(), eta=1.0)
        assert torch.allclose(by_ddpm, by_ddim, rtol=1e-7)

    def test_the_predictor_sees_every_step_once_from_noise_to_data(self):
        seen = []
        ddim(lambda x, step: seen.append(step.item()) or x, noise(1), BAR, uniform_steps(1000, 4), rng())
        assert seen == [750, 500, 250, 0]


class TestSpacings:
    def test_even_has_both_ends(self):
        assert even_steps(1000, 4).tolist() == [0, 333, 666, 999]
        assert even_steps(1000, 1).tolist() == [999]
        assert even_steps(1000, 1000).tolist() == list(range(1000))

    def test_uniform_is_that_of_ddim(self):
        assert uniform_steps(1000, 50).tolist() == list(range(0, 1000, 20))

    def test_quadratic_is_that_of_ddim_but_for_repeated_steps(self):
        steps = quadratic_steps(1000, 50).tolist()
        reference = [int((k * 800**0.5 / 49) ** 2 + 1e-9) for k in range(50)]
        assert steps[4:] == reference[4:]
        assert steps[:4] == [0, 1, 2, 3]

    @pytest.mark.parametrize("spacing", [even_steps, uniform_steps, quadratic_steps])
    @pytest.mark.parametrize("count", [2, 7, 50, 333, 999, 1000])
    def test_exactly_as_many_steps_as_asked_for(self, spacing, count):
        steps = spacing(1000, count)
        assert len(steps) == count
        assert (steps.diff() > 0).all()
        assert steps[0] >= 0
        assert steps[-1] <= 999
