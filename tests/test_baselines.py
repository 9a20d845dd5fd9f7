"""The baselines: samplers against exact denoisers and formulas, models against their contracts."""

from __future__ import annotations

import math
from typing import Literal, get_origin

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from baselines.ddpm import DDIM, DDPM, DPMSolver
from baselines.flow_matching import FlowMatching
from baselines.gan import GAN
from baselines.real_data import RealData
from baselines.samplers import ancestral, ddim, dpm_solver, even_steps, predicted_x0, quadratic_steps, uniform_steps
from baselines.score_sde import ScoreVP
from baselines.vae import VAE
from trilemma_bench.config import model_schema
from trilemma_bench.contracts import DataSpec, FiniteSource, GenerativeModel, Split
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.nn.schedules import alphas_cumprod, gaussian_posterior, linear_betas

BAR = alphas_cumprod(linear_betas())
POINTS = DataSpec((2,), scale=2.8)
DIGITS = DataSpec((1, 8, 8))
TINY = {
    DDPM: {"hidden": 16, "layers": 2, "channels": 8, "res_blocks": 1, "diffusion_steps": 6, "lr": 3e-3},
    DDIM: {"hidden": 16, "layers": 2, "channels": 8, "res_blocks": 1, "diffusion_steps": 6, "sampling_steps": 3},
    GAN: {"hidden": 16, "layers": 2, "channels": 8, "latent_dim": 4},
    VAE: {"hidden": 16, "layers": 2, "channels": 8, "latent_dim": 4},
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_predictor(means: Tensor, std: float):
    """E[ε | x_t] for data from an even mixture of N(mean, std²) in one dimension."""

    def predict(x: Tensor, step: Tensor) -> Tensor:
        bar = BAR[step].to(x.dtype)
        variance = bar * std**2 + 1 - bar
        offset = x - bar.sqrt() * means
        weight = torch.softmax(-0.5 * offset**2 / variance, dim=1)
        return (1 - bar).sqrt() / variance * (weight * offset).sum(dim=1, keepdim=True)

    return predict


def noise(count: int, seed: int = 1) -> Tensor:
    return torch.randn((count, 1), generator=rng(seed), dtype=torch.float64)


class TestSamplersOnExactPredictors:
    """With the true noise predictor, a sampler must return the data's distribution."""

    @pytest.mark.parametrize("variance", ["large", "small"])
    def test_ancestral_recovers_a_gaussian(self, variance):
        predict = exact_predictor(torch.tensor([0.7]), 0.3)
        x = ancestral(predict, noise(8000), BAR, even_steps(1000, 1000), rng(), variance=variance)
        assert x.mean().item() == pytest.approx(0.7, abs=0.015)
        assert x.std().item() == pytest.approx(0.3, abs=0.015)

    @pytest.mark.parametrize(("eta", "spacing"), [(0.0, uniform_steps), (0.0, quadratic_steps), (1.0, uniform_steps)])
    def test_ddim_recovers_a_gaussian(self, eta, spacing):
        predict = exact_predictor(torch.tensor([0.7]), 0.3)
        x = ddim(predict, noise(8000), BAR, spacing(1000, 200), rng(), eta=eta)
        assert x.mean().item() == pytest.approx(0.7, abs=0.015)
        assert x.std().item() == pytest.approx(0.3, abs=0.015)

    @pytest.mark.parametrize("sampler", [ancestral, ddim])
    def test_both_recover_a_mixture(self, sampler):
        predict = exact_predictor(torch.tensor([-1.0, 0.5]), 0.05)
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
        predict = exact_predictor(torch.tensor([mean]), std)

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
        predict = exact_predictor(torch.tensor([-1.0, 0.5]), 0.05)
        x = dpm_solver(predict, noise(10_000), BAR, quadratic_steps(1000, 100))
        left = x < -0.25
        assert left.double().mean().item() == pytest.approx(0.5, abs=0.03)
        assert x[left].mean().item() == pytest.approx(-1.0, abs=0.01)
        assert x[~left].std().item() == pytest.approx(0.05, abs=0.01)

    def test_four_ancestral_steps_miss_the_modes_that_a_thousand_find(self):
        """Figure 6 of the paper: a Gaussian step cannot stand for a denoising distribution of several modes."""
        means = torch.tensor([-1.0, 0.0, 1.0])
        predict = exact_predictor(means, 0.02)

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


SHAPES = [(2,), (1, 8, 8), (3, 28, 28), (3, 32, 32), (1, 64, 64)]


@pytest.mark.parametrize("model_class", [DDPM, DDIM, GAN, VAE])
class TestEveryModel:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_samples_have_the_shape_type_and_range_of_the_contract(self, model_class, shape):
        samples = sampled(model_class(DataSpec(shape), **TINY[model_class]))
        assert samples.shape == (5, *shape)
        assert samples.dtype == torch.float32
        assert samples.isfinite().all()
        assert len(shape) == 1 or samples.abs().max() <= 1

    @pytest.mark.parametrize("data", [POINTS, DIGITS], ids=["points", "images"])
    def test_the_generator_decides_the_samples(self, model_class, data):
        model = model_class(data, **TINY[model_class])
        first = sampled(model, seed=3)
        torch.manual_seed(99)
        assert torch.equal(first, sampled(model, seed=3))
        assert not torch.equal(first, sampled(model, seed=4))

    @pytest.mark.parametrize("data", [POINTS, DIGITS], ids=["points", "images"])
    def test_a_step_changes_the_network_and_returns_detached_losses(self, model_class, data):
        torch.manual_seed(0)
        model = model_class(data, **TINY[model_class])
        before = [each.clone() for each in model.network.parameters()]
        losses = model.training_step(batch_of(data), 0, model.optimizers())
        assert losses
        for loss in losses.values():
            assert loss.ndim == 0
            assert loss.isfinite()
            assert not loss.requires_grad
        assert any(not torch.equal(old, new) for old, new in zip(before, model.network.parameters(), strict=True))
        assert all(each.requires_grad for each in model.parameters())

    def test_points_are_in_the_datas_unit(self, model_class):
        """The same network on data ten times as wide gives samples ten times as wide."""
        small, large = (model_class(DataSpec((2,), scale=scale), **TINY[model_class]) for scale in (1.0, 10.0))
        large.load_state_dict(small.state_dict())
        assert torch.allclose(sampled(large), 10 * sampled(small), rtol=1e-5)

    def test_settings_are_annotated_keywords_with_defaults(self, model_class):
        known = (int, float, bool, tuple[int, ...], int | None, float | None)
        for setting in model_schema(model_class).model_fields.values():
            assert setting.annotation in known or get_origin(setting.annotation) is Literal
            assert not setting.is_required()


def sampled(model: GenerativeModel, seed: int = 0, count: int = 5) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model.sample(count, rng(seed))


def batch_of(data: DataSpec, count: int = 16) -> Tensor:
    batch = torch.randn(count, *data.shape)
    return batch.clamp(-1, 1) if data.is_image else batch * data.scale


def losses_of(model, data: Tensor, steps: int) -> list[float]:
    torch.manual_seed(0)
    optimizers = model.optimizers()
    return [model.training_step(data, step, optimizers)["loss"].item() for step in range(steps)]


class TestLearning:
    @pytest.mark.parametrize(
        ("model_class", "data"), [(DDPM, POINTS), (DDPM, DIGITS), (VAE, POINTS), (VAE, DIGITS)], ids=str
    )
    def test_training_lowers_the_loss(self, model_class, data):
        torch.manual_seed(1)
        losses = losses_of(model_class(data, **TINY[model_class]), 0.2 * batch_of(data), 60)
        assert sum(losses[-10:]) < 0.8 * sum(losses[:10])

    def test_ddpm_learns_where_the_data_is(self):
        torch.manual_seed(0)
        model = DDPM(DataSpec((2,), scale=1.0), hidden=32, layers=2, fourier_features=0, diffusion_steps=100, lr=5e-3)
        data = torch.tensor([3.0, -2.0]) + 0.1 * torch.randn(128, 2)
        losses_of(model, data, 300)
        model.eval()
        with torch.no_grad():
            samples = model.sample(200, rng())
        assert samples.mean(dim=0).tolist() == pytest.approx([3.0, -2.0], abs=0.3)

    def test_gan_moves_to_the_data(self):
        torch.manual_seed(0)
        model = GAN(
            DataSpec((2,), scale=1.0), latent_dim=2, hidden=32, layers=2, lr_generator=2e-3, lr_discriminator=2e-3
        )
        optimizers = model.optimizers()
        for step in range(300):
            model.training_step(torch.tensor([2.0, -1.0]) + 0.2 * torch.randn(64, 2), step, optimizers)
        assert sampled(model).mean(dim=0).tolist() == pytest.approx([2.0, -1.0], abs=0.5)

    def test_the_r1_penalty_is_that_of_a_known_slope(self):
        """On D(x) = w·x the penalty is γ/2 |w|²; lazily, every k-th step and k times as strong."""
        model = GAN(DataSpec((2,), scale=1.0), r1_gamma=0.3, r1_interval=4)
        model.discriminator = torch.nn.Linear(2, 1)
        with torch.no_grad():
            model.discriminator.weight.copy_(torch.tensor([[3.0, 4.0]]))
        real = torch.randn(8, 2)
        for step, strength in ((0, 4), (1, 0), (4, 4)):
            _, penalty = model._discriminator_losses(real, step)
            assert penalty.item() == pytest.approx(strength * 0.3 / 2 * 25, rel=1e-5)

    def test_the_relativistic_loss_penalises_fakes_too_and_the_critics_slope_is_drawn_to_one(self):
        """On D(x) = w·x R1 and R2 are alike; WGAN-GP's penalty is (|w| − 1)², at every step."""
        for loss, expected in (("relativistic", 2 * 4 * 0.3 / 2 * 25), ("wgan-gp", 10 * (5 - 1) ** 2)):
            model = GAN(DataSpec((2,), scale=1.0), loss=loss, r1_gamma=0.3, r1_interval=4)
            model.discriminator = torch.nn.Linear(2, 1)
            with torch.no_grad():
                model.discriminator.weight.copy_(torch.tensor([[3.0, 4.0]]))
            _, penalty = model._discriminator_losses(torch.randn(8, 2), 0)
            assert penalty.item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("loss", ["wgan-gp", "relativistic"])
    def test_every_gan_loss_finds_the_mean(self, loss):
        model = GAN(
            DataSpec((2,), scale=1.0),
            hidden=32,
            latent_dim=2,
            layers=2,
            loss=loss,
            critic_steps=2,
            beta1=0.5,
            lr_generator=2e-3,
            lr_discriminator=2e-3,
        )
        optimizers = model.optimizers()
        names = set()
        for step in range(400):
            losses = model.training_step(torch.tensor([2.0, -1.0]) + 0.2 * torch.randn(64, 2), step, optimizers)
            names |= {(step % 2, name) for name in losses}
        assert names == {(0, "discriminator"), (1, "discriminator"), (1, "generator")}
        assert sampled(model).mean(dim=0).tolist() == pytest.approx([2.0, -1.0], abs=0.5)

    def test_what_is_not_given_is_the_losss_papers(self):
        plain, wgan, relativistic = (
            GAN(POINTS, loss=loss, hidden=8) for loss in ("non-saturating", "wgan-gp", "relativistic")
        )
        assert [(each.r1_interval, each.betas[0]) for each in (plain, relativistic)] == [(16, 0.5), (1, 0.0)]
        assert (plain.critic_steps, wgan.critic_steps, wgan.betas) == (1, 5, (0.0, 0.9))
        assert GAN(POINTS, loss="wgan-gp", hidden=8, critic_steps=2, beta1=0.5).betas[0] == 0.5

    @pytest.mark.parametrize("settings", [{"r1_interval": 0}, {"critic_steps": 0}])
    def test_a_wrong_setting_of_the_gan_is_named(self, settings):
        with pytest.raises(UsageError, match=next(iter(settings))):
            GAN(DataSpec((2,)), **settings)

    @pytest.mark.parametrize("scale", [1.0, 3.0])
    def test_vae_divergence_is_the_closed_form_on_average(self, scale):
        """Against a prior N(0, 1) in the one coordinate and N(0, scale²) in the other."""
        model = VAE(POINTS, latent_dim=2, couplings=1)
        out = model.network.prior.layers[0].out
        out.bias.data[0] = 2 * math.atanh(math.log(scale) / 2)  # of the second coordinate, which is then the first
        mean, log_std = torch.tensor([[0.3, -1.0]]), torch.tensor([[0.2, -0.7]])
        prior = torch.distributions.Normal(0.0, torch.tensor([scale, 1.0]))
        expected = torch.distributions.kl_divergence(torch.distributions.Normal(mean, log_std.exp()), prior).sum()
        drawn = torch.randn(200_000, 2, generator=rng())
        with torch.no_grad():
            found = model.network.divergence(mean + log_std.exp() * drawn, drawn, log_std)
        assert float(found.mean()) == pytest.approx(float(expected), abs=5 * float(found.std()) / 200_000**0.5)

    def test_vae_finds_a_prior_where_its_data_are(self):
        """Two clusters, whose latents a Gaussian does not hold: hardly a sample falls between them."""
        data = torch.tensor([1.0, -1.0])[torch.arange(256) % 2, None].expand(-1, 2) + 0.05 * torch.randn(
            256, 2, generator=rng()
        )
        between = {}
        for couplings in (0, 6):
            torch.manual_seed(0)
            model = VAE(DataSpec((2,), scale=1.0), hidden=64, latent_dim=2, lr=3e-3, noise_std=0.1, couplings=couplings)
            losses_of(model, data, 800)
            between[couplings] = float((sampled(model, count=2000).abs().amin(dim=1) < 0.7).double().mean())
        assert between[6] < 0.3 * between[0]

    def test_vae_of_one_latent_has_no_halves_to_couple(self):
        with pytest.raises(UsageError, match="latent_dim"):
            VAE(POINTS, latent_dim=1)
        assert sampled(VAE(POINTS, latent_dim=1, couplings=0)).shape[1] == 2

    def test_vae_learns_the_noise_of_its_data_unless_it_is_fixed(self):
        data = DataSpec((2,), scale=1.0)
        learned, fixed = (
            VAE(data, hidden=16, latent_dim=2, lr=1e-2, noise_std=1.0, learn_noise=on) for on in (True, False)
        )
        for model in (learned, fixed):
            losses_of(model, 0.1 * torch.randn(64, 2), 150)
        assert learned.network.log_std.exp() < 0.3
        assert fixed.network.log_std.exp() == 1.0


class TestDDPMSettings:
    def test_ddim_samples_the_network_that_ddpm_trained(self):
        ddpm, trained = DDPM(DIGITS, **TINY[DDPM]), dict(TINY[DDPM], sampling_steps=3)
        ddim_model = DDIM(DIGITS, **trained)
        ddim_model.load_state_dict(ddpm.state_dict())
        assert DDIM.trained_as == "ddpm"
        shared = set(model_schema(DDPM).model_fields) - DDPM.sampling_settings
        assert shared == set(model_schema(DDIM).model_fields) - DDIM.sampling_settings

    @pytest.mark.parametrize(("settings", "calls"), [({}, 6), ({"sampling_steps": 2}, 2)])
    def test_one_evaluation_of_the_network_a_step(self, settings, calls):
        model = DDPM(POINTS, **TINY[DDPM], **settings)
        seen = []
        model.network.register_forward_hook(lambda *_: seen.append(1))
        sampled(model)
        assert len(seen) == calls
        assert model.describe() == f"{calls} steps"

    @pytest.mark.parametrize(
        ("model_class", "data", "settings", "message"),
        [
            (
                DDPM,
                POINTS,
                {"sampling_steps": 1001},
                "sampling_steps = 1001: choose 1 to 1000 (diffusion_steps = 1000)",
            ),
            (DPMSolver, POINTS, {"diffusion_steps": 9, "sampling_steps": 9}, "choose 2 to 8 (diffusion_steps = 9)"),
            (DDIM, POINTS, {"sampling_steps": 1}, "sampling_steps = 1: choose 2 to"),
            (DDIM, POINTS, {"eta": 2.0}, "eta = 2.0"),
            (DDPM, DataSpec((1, 28, 28)), {"channel_multipliers": (1, 2, 2, 2)}, "too many to halve 28 pixels"),
        ],
    )
    def test_a_wrong_setting_gets_one_line(self, model_class, data, settings, message):
        with pytest.raises(UsageError) as error:
            model_class(data, **settings)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_dpm_solver_takes_as_many_steps_as_the_chain_has_to_give(self):
        for spacing, most in (("even", 8), ("quadratic", 9)):
            model = DPMSolver(POINTS, hidden=8, diffusion_steps=9, sampling_steps=most, spacing=spacing)
            assert sampled(model).isfinite().all()

    @pytest.mark.parametrize(
        ("model_class", "setting", "choices"),
        [
            (DDPM, "variance", "'large' or 'small'"),
            (DDIM, "spacing", "'uniform' or 'quadratic'"),
            (DDPM, "architecture", r"'ddpm', 'ddpm\+\+' or 'ncsn\+\+'"),
            (FlowMatching, "coupling", "'ot' or 'independent'"),
            (ScoreVP, "sampler", "'pc' or 'ode'"),
            (GAN, "loss", "'non-saturating', 'wgan-gp' or 'relativistic'"),
        ],
    )
    def test_a_wrong_choice_is_told_the_right_ones(self, model_class, setting, choices):
        with pytest.raises(ValidationError, match=choices):
            model_schema(model_class)(**{setting: "best"})


class TestRealData:
    def test_takes_what_it_was_given(self):
        images = torch.randint(256, (10, 1, 8, 8), dtype=torch.uint8)
        model = RealData(DIGITS)
        model.prepare(Split(images), "test")
        assert isinstance(model, FiniteSource)
        assert model.size() == 10
        assert model.network is None
        assert torch.equal(model.take(torch.tensor([3, 0])), images[[3, 0]])

    def test_draws_from_its_samples(self):
        points = torch.arange(10.0).view(5, 2)
        model = RealData(POINTS)
        model.prepare(Split(points), "test")
        drawn = model.sample(100, rng())
        assert set(map(tuple, drawn.tolist())) == set(map(tuple, points.tolist()))

    def test_without_samples(self):
        with pytest.raises(TrilemmaError, match="no samples yet"):
            RealData(POINTS).size()
