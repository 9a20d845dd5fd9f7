"""DDGAN: schedule, posterior and pairs against the paper's numbers; networks and step against their contracts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ddgan.diffusion import Diffusion
from ddgan.model import DDGAN, gradient_penalty
from trilemma_bench.contracts import DataSpec

POINTS = DataSpec((2,), 25, 2.83)
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "style_dim": 8, "discriminator_channels": 8, "time_dim": 8}


def test_posterior_coefficients_at_four_steps_are_the_published_ones():
    diffusion = Diffusion(4)
    torch.testing.assert_close(diffusion.posterior_x0, torch.tensor([1, 0.66577836, 0.26919089, 0.05782154]))
    torch.testing.assert_close(diffusion.posterior_xt, torch.tensor([0, 0.20157628, 0.19300081, 0.11185234]))
    variance = torch.tensor([0, 0.44081915, 0.88420244, 0.98406071])
    torch.testing.assert_close(diffusion.posterior_noise**2, variance)


def test_the_last_step_returns_the_generators_output():
    x0, noise = torch.randn(2, 5, 3)
    sample = Diffusion(4).posterior_sample(x0, torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), noise)
    torch.testing.assert_close(sample, x0)


@pytest.mark.parametrize("t", [0, 1, 3])
def test_pairs_have_the_marginals_of_the_diffusion(t):
    torch.manual_seed(0)
    diffusion = Diffusion(4)
    x0 = torch.full((200_000, 1), 2.0)
    x_t, x_next = diffusion.pair(x0, torch.full((len(x0),), t))
    for x, step in ((x_t, t), (x_next, t + 1)):
        assert x.mean().item() == pytest.approx(2 * diffusion.signal[step].item(), abs=0.01)
        assert x.std().item() == pytest.approx(diffusion.noise[step].item(), abs=0.01)


class ExactGaussian(nn.Module):
    """Samples x_0 ~ p(x_0 | x_{t+1}) exactly, for data N(mean, std²): what a perfect generator does."""

    def __init__(self, diffusion: Diffusion, mean: float, std: float) -> None:
        super().__init__()
        self.diffusion, self.mean, self.std = diffusion, mean, std

    def forward(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        signal, noise = self.diffusion.signal[t + 1][:, None], self.diffusion.noise[t + 1][:, None]
        variance = 1 / (1 / self.std**2 + (signal / noise) ** 2)
        mean = variance * (self.mean / self.std**2 + signal * x / noise**2)
        return mean + variance.sqrt() * z


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_perfect_generator_gives_the_data_distribution(steps):
    model = DDGAN(DataSpec((1,)), steps=steps, latent_dim=1)
    model.network = ExactGaussian(model.diffusion, mean=1.5, std=0.3)
    x = model.sample(100_000, torch.Generator().manual_seed(0))
    assert x.mean().item() == pytest.approx(1.5, abs=0.01)
    assert x.std().item() == pytest.approx(0.3, abs=0.01)


def test_gradient_penalty_of_a_linear_function_is_its_squared_norm():
    weights = torch.tensor([3.0, 4.0])
    x = torch.randn(7, 2, requires_grad=True)
    assert gradient_penalty(x @ weights, x).item() == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (POINTS, {"hidden": 8}),
        (DataSpec((1, 8, 8)), SMALL),
        (DataSpec((1, 28, 28)), SMALL),
        (DataSpec((3, 32, 32)), {**SMALL, "multipliers": (1, 2, 2, 2)}),
        (DataSpec((3, 64, 64)), {**SMALL, "multipliers": (1, 1, 2, 2)}),
    ],
)
def test_a_step_updates_both_networks_and_samples_have_the_datas_shape(spec, settings):
    torch.manual_seed(0)
    model = DDGAN(spec, latent_dim=4, r1_every=1, **settings)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizers = model.optimizers()
    for step in range(2):
        losses = model.training_step(torch.randn(4, *spec.shape), step, optimizers)
    assert all(torch.isfinite(loss) for loss in losses.values())
    changed = {
        name.partition(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    assert changed == {"network", "discriminator"}
    samples = model.eval().sample(3, torch.Generator().manual_seed(0))
    assert samples.shape == (3, *spec.shape)


def test_the_discriminators_step_leaves_no_gradient_in_the_generator():
    model = DDGAN(POINTS, hidden=8)
    model._update_discriminator(torch.randn(8, 2), model.optimizers()["discriminator"], penalise=True)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_without_latent_the_generator_is_a_function_of_its_input():
    model = DDGAN(DataSpec((1, 8, 8)), latent_dim=0, **SMALL).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    torch.testing.assert_close(model.network(x, torch.empty(2, 0), t), model.network(x, torch.empty(2, 0), t))
    assert model.describe() == "T=4, no z"
