"""Flow matching: its pairs, and its samplers with the exact velocity between two Gaussians plugged in."""

from __future__ import annotations

import math

import pytest
import torch
from exact import Mixture

from baselines.flow_matching import TIME_SCALE, FlowMatching, transport_order
from trilemma_bench.contracts import DataSpec

MEAN, SCALE = 2.0, 0.5


class ExactVelocity(torch.nn.Module):
    """E[x_1 − x_0 | x_t] for x_0 ~ N(0, 1) and x_1 ~ N(MEAN, SCALE²) drawn independently."""

    def forward(self, x, steps):
        t = (steps / TIME_SCALE).view(-1, 1)
        variance = (1 - t) ** 2 + (t * SCALE) ** 2
        slope = (t * SCALE**2 - (1 - t)) / variance
        return MEAN + slope * (x - t * MEAN)


class VelocityToAMixture(torch.nn.Module):
    """E[x_1 − x_0 | x_t] for x_1 of a mixture: x_0 is −(1 − t)·score, and x_1 the rest of x_t."""

    def __init__(self, mixture):
        super().__init__()
        self.mixture = mixture

    def forward(self, x, steps):
        t = float(steps[0]) / TIME_SCALE
        noise = -(1 - t) * self.mixture.score(x, t, 1 - t)
        weights, variance = self.mixture.weights(x, t, 1 - t), (t * self.mixture.std) ** 2 + (1 - t) ** 2
        nearer = t * self.mixture.std**2 / variance * (x - t * self.mixture.means)
        return (weights * (self.mixture.means + nearer)).sum(dim=1, keepdim=True) - noise


class Still(torch.nn.Module):
    """Predicts 1 everywhere, and keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, steps):
        self.asked = x.detach(), steps
        return self.one.expand_as(x)


def exact_model(network=None, **settings):
    model = FlowMatching(DataSpec((1,), None, 1.0), hidden=8, fourier_features=2, **settings).double()
    model.network = network or ExactVelocity()
    return model


def moments(model, count=4000):
    samples = model.sample(count, torch.Generator().manual_seed(0))
    return float(samples.mean()), float(samples.std())


def ends(model):
    """Where the sampler takes a fixed noise, against the exact map x → MEAN + SCALE·x."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn((100, 1), generator=torch.Generator().manual_seed(0))
    return float((model.sample(100, rng) - (MEAN + SCALE * noise)).abs().max())


@pytest.mark.parametrize("settings", [{"sampling_steps": 400}, {"solver": "heun"}, {"solver": "adaptive"}])
def test_every_solver_recovers_a_gaussian(settings):
    mean, deviation = moments(exact_model(**settings))
    assert mean == pytest.approx(MEAN, abs=0.03)
    assert deviation == pytest.approx(SCALE, rel=0.03)


@pytest.mark.parametrize("settings", [{"sampling_steps": 400}, {"solver": "heun"}, {"solver": "adaptive"}])
def test_every_solver_recovers_a_mixture(settings):
    mixture = Mixture([-1.0, 0.5], 0.1)
    model = exact_model(VelocityToAMixture(mixture), **settings)
    assert mixture.recovered(model.sample(8000, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_sampler_converges_at_its_solvers_order(solver, order):
    coarse, fine = (ends(exact_model(solver=solver, sampling_steps=steps)) for steps in (32, 64))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def test_transport_pairs_are_the_cheapest():
    data = torch.tensor([[0.0], [10.0], [20.0]])
    noise = torch.tensor([[19.0], [1.0], [9.0]])
    assert noise[transport_order(noise, data)].flatten().tolist() == [1.0, 9.0, 19.0]


def test_transport_keeps_inside_labels():
    """Noise 0 and 1 may change places, and noise 2 stays with the data of its label, however far."""
    noise, data = torch.tensor([[5.0], [1.0], [0.0]]), torch.tensor([[0.0], [4.0], [9.0]])
    order = transport_order(noise, data, torch.tensor([1, 1, 0]))
    assert order.tolist() == [1, 0, 2]


def test_the_loss_is_of_the_velocity_along_the_line_from_noise_to_data():
    model = FlowMatching(DataSpec((1,), None, 4.0))
    model.network = Still()
    noise, data = torch.tensor([[0.0], [2.0], [-1.0]]), torch.tensor([[3.0], [0.5], [-2.0]])
    optimizers = {"network": torch.optim.SGD(model.network.parameters(), lr=0.0)}
    loss = model.training_step(4.0 * data, 0, optimizers, noise=noise)["loss"]
    assert loss.item() == pytest.approx((2**2 + 2.5**2 + 2**2) / 3)
    asked, steps = model.network.asked
    time = steps[:, None] / 1000  # as the times of a thousand steps
    assert len(set(time.flatten().tolist())) == 3
    assert ((time > 0) & (time < 1)).all()
    torch.testing.assert_close(asked, (1 - time) * noise + time * data)


@pytest.mark.parametrize("coupling", ["ot", "independent"])
def test_noise_and_data_are_paired_as_the_coupling_says(coupling):
    """In one dimension the cheapest pairs have one order."""
    data = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).sort(dim=0).values
    noise = FlowMatching(DataSpec((1,)), coupling=coupling).before_step(data)["noise"]
    assert bool((noise.diff(dim=0) > 0).all()) == (coupling == "ot")
