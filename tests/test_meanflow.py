"""MeanFlow against the exact mean velocity of a Gaussian's flow."""

from __future__ import annotations

import pytest
import torch
from exact import Mixture
from models import of_recipe
from torch import nn

from baselines.meanflow import TIME_SCALE, MeanFlow
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError
from trilemma_bench.trained import count_parameters

MEAN, STD = 2.0, 0.5


class ExactMeanVelocity(nn.Module):
    """(z_t − z_r)/(t − r) on the flow of x ~ N(MEAN, STD²): z_t = m(t) + s(t)·z with z fixed."""

    def forward(self, z, times):
        later, earlier = times[:, :1] / TIME_SCALE, (times[:, :1] - times[:, 1:]) / TIME_SCALE
        start = self.mean(later) + 0 * z
        moved = self.mean(earlier) + self.std(earlier) * (z - start) / self.std(later)
        return (z - moved) / (later - earlier)

    @staticmethod
    def mean(t):
        return (1 - t) * MEAN

    @staticmethod
    def std(t):
        return ((1 - t) ** 2 * STD**2 + t**2) ** 0.5


def model(network=None, **settings):
    built = MeanFlow(DataSpec((1,), scale=1.0), hidden=16, fourier_features=2, **settings)
    if network is not None:
        built.network = network
    return built


@pytest.mark.parametrize("steps", [1, 3])
def test_any_number_of_steps_recovers_a_gaussian_exactly(steps):
    noise = torch.randn(500, 1, dtype=torch.float64)
    x = model(ExactMeanVelocity(), sampling_steps=steps).denoise(noise, torch.Generator())
    assert torch.allclose(x, MEAN + STD * noise, atol=1e-4)


class MeanVelocityToAMixture(nn.Module):
    """The same for a mixture: in one dimension the flow keeps every point's quantile."""

    def __init__(self, mixture):
        super().__init__()
        self.mixture = mixture

    def forward(self, z, times):
        later, span = (float(each) / TIME_SCALE for each in times[0])
        earlier = later - span
        share = self.mixture.cumulative(z, 1 - later, later)
        return (z - self.mixture.quantile(share, 1 - earlier, earlier)) / span


@pytest.mark.parametrize("steps", [1, 3])
def test_any_number_of_steps_recovers_a_mixture(steps):
    mixture, noise = Mixture([-1.0, 0.5], 0.1), torch.randn(8000, 1, dtype=torch.float64)
    x = model(MeanVelocityToAMixture(mixture), sampling_steps=steps).denoise(noise, torch.Generator())
    assert mixture.recovered(x)


def test_the_exact_mean_velocity_satisfies_the_meanflow_identity():
    """u = v − (t − r) du/dt, with v the marginal velocity (Geng et al. 2025, eq. 6): so the derivative is right."""
    built = model(ExactMeanVelocity()).double()
    z = torch.randn(50, 1, dtype=torch.float64)
    earlier, later = 0.5 * torch.rand(50, dtype=torch.float64), 0.6 + 0.4 * torch.rand(50, dtype=torch.float64)
    t = later[:, None]
    std = ExactMeanVelocity.std(t)
    velocity = -MEAN + (t - (1 - t) * STD**2) / std**2 * (z - ExactMeanVelocity.mean(t))
    change = built._derivative(z, earlier, later, velocity)
    left = built._mean_velocity(z, earlier, later).double()
    assert torch.allclose(left, velocity - (later - earlier)[:, None] * change, atol=1e-4)


def test_the_derivative_of_a_network_is_the_difference_quotient():
    built = model().double()
    built._mean_velocity = lambda z, r, t: built.network.out(torch.cat([z, r[:, None], t[:, None]] * 5 + [z], 1)).sin()
    built.network.out = nn.Linear(16, 1).double()
    z, r, t, v = torch.randn(4, 1).double(), torch.rand(4).double(), torch.rand(4).double(), torch.randn(4, 1).double()
    width = 1e-6
    ahead, behind = (built._mean_velocity(z + side * width * v, r, t + side * width) for side in (1, -1))
    assert torch.allclose(built._derivative(z, r, t, v), (ahead - behind) / (2 * width), atol=1e-7)


def test_times_are_ordered_and_a_quarter_of_them_equal():
    earlier, later = model()._times(torch.zeros(20_000, 1))
    assert (earlier <= later).all()
    assert (earlier == later).double().mean().item() == pytest.approx(0.25, abs=0.02)


def test_times_are_those_of_two_laws():
    """max and min of σ(−0.6 + 1.6 n) and σ(−4 + 1.6 n): most earlier times are near 0, where one step ends."""
    torch.manual_seed(0)
    earlier, later = model(two_times=1.0)._times(torch.zeros(100_000, 1))
    means = torch.logit(torch.stack([earlier, later]).double()).mean(dim=1)
    assert float(means.sum()) == pytest.approx(-4.6, abs=0.02)
    # E max of two independent normals a distance 3.4 apart, of deviation 1.6 each
    spread = 1.6 * 2**0.5
    ratio = 3.4 / spread
    normal = torch.distributions.Normal(0.0, 1.0)
    share = float(normal.cdf(torch.tensor(ratio)))
    density = float(normal.log_prob(torch.tensor(ratio)).exp())
    assert float(means[1]) == pytest.approx(-0.6 * share - 4 * (1 - share) + spread * density, abs=0.02)


def test_with_equal_times_it_is_flow_matching():
    """Then the loss has no derivative: a network that predicts nothing has the velocity's mean square."""
    built = model(two_times=0.0)
    nn.init.zeros_(built.network.out.weight)
    nn.init.zeros_(built.network.out.bias)
    assert built.losses(torch.zeros(20_000, 1))["velocity"].item() == pytest.approx(1, abs=0.03)


def test_the_loss_weighs_each_sample_by_its_error_to_the_minus_three_quarters():
    """Of a network that predicts nothing the error is the velocity's square (Geng et al. 2025, eq. 22, p = 0.75)."""
    built, x = model(), torch.randn(100, 1)
    for parameter in built.network.out.parameters():
        nn.init.zeros_(parameter)
    torch.manual_seed(3)
    loss = built.losses(x)["loss"]
    torch.manual_seed(3)
    built._times(x)
    errors = (torch.randn_like(x) - x).square()
    assert loss.item() == pytest.approx((errors / (errors + 1e-3) ** 0.75).mean().item(), rel=1e-5)


def test_it_learns_a_gaussian_in_one_step():
    built = MeanFlow(DataSpec((2,), scale=1.0), hidden=64, layers=3, fourier_features=0, lr=1e-3)
    optimizers = built.optimizers()
    for step in range(1000):
        built.training_step(torch.tensor([2.0, -1.0]) + 0.5 * torch.randn(256, 2), step, optimizers)
    samples = built.sample(2000, torch.Generator().manual_seed(0))
    assert samples.mean(dim=0).tolist() == pytest.approx([2.0, -1.0], abs=0.2)
    assert samples.std(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.15)


@pytest.mark.parametrize("architecture", ["ddpm", "ddpm++", "ncsn++"])
def test_every_network_sees_both_times(architecture):
    made = MeanFlow(DataSpec((1, 8, 8)), architecture=architecture, channels=8, channel_multipliers=(1, 2))
    for parameter in made.network.parameters():  # the last layers start as zero, and hide all the others
        nn.init.normal_(parameter, std=0.1)
    made.eval()
    x, times = torch.randn(1, 1, 8, 8), ((0.2, 0.9), (0.2, 0.5), (0.6, 0.9))
    found = [made._mean_velocity(x, torch.tensor([earlier]), torch.tensor([later])) for earlier, later in times]
    assert all(not torch.allclose(found[0], other, rtol=1e-3) for other in found[1:])


def test_random_features_of_two_times_are_refused():
    with pytest.raises(UsageError, match="time_fourier_scale"):
        MeanFlow(DataSpec((1, 8, 8)), architecture="ncsn++", channels=8, time_fourier_scale=1.0)


def test_the_cifar10_recipe_has_its_papers_network():
    """EDM's DDPM++ of 55.73 M parameters, 65,536 more for the second time, six for each of its 256 sinusoids."""
    made, _ = of_recipe("meanflow", "cifar10")
    assert count_parameters(made.network) == 55_798_275 + 6 * 256
