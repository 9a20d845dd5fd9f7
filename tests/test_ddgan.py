"""DDGAN: each parametrisation with its perfect generator, its steps, its losses and its settings."""

from __future__ import annotations

import math

import pytest
import torch
from exact import Mixture, rng
from models import wake
from torch import Tensor, nn

from ddgan.model import DDGAN, SIDDM
from trilemma_bench.config import resolve
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.ncsnpp import AdaGN

POINTS = DataSpec((2,), 25, 2.83)
DIGITS = DataSpec((1, 8, 8))
SMALL = {
    "channels": 8,
    "channel_multipliers": (1, 2),
    "res_blocks": 1,
    "style_dim": 8,
    "discriminator_channels": 8,
    "time_dim": 8,
}


def test_the_mapping_of_z_and_the_styles_start_with_the_programs_variances():
    """1/fan_out, where the rest of the U-Net has Glorot's; styles with a gain of 1 and no bias for a w of 0."""
    network = DDGAN(DataSpec((3, 16, 16)), channels=32, channel_multipliers=(1, 2), res_blocks=1).network
    dense = [layer for layer in network.mapping.modules() if isinstance(layer, nn.Linear)]
    styles = [module.style for module in network.unet.modules() if isinstance(module, AdaGN)]
    for layer in (*dense, *styles):
        assert layer.weight.var().item() == pytest.approx(1 / layer.out_features, rel=0.1)
    assert len(dense) == 5
    assert {layer.in_features == layer.out_features for layer in (*dense, *styles)} == {True, False}
    for style in styles:
        gain, bias = style.bias.chunk(2)
        assert bool((gain == 1).all())
        assert not bias.any()
    time = network.unet.middle[0].time
    assert time.weight.var().item() == pytest.approx(2 / (time.in_features + time.out_features), rel=0.1)


class Perfect(nn.Module):
    """The generator that gives exactly what each parametrisation asks for, for data of a mixture.

    x_0 given x_{t+1} is a mixture, too: z[2] chooses the component, z[0] the place in it.
    """

    def __init__(self, model: DDGAN, mixture: Mixture) -> None:
        super().__init__()
        self.diffusion, self.prediction, self.mixture = model.diffusion, model.prediction, mixture

    def forward(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        means, std, chosen = self.mixture.means.float(), self.mixture.std, torch.special.ndtr(z[:, 2:])
        if self.prediction == "one-shot":
            return means[(chosen[:, 0] * len(means)).long()][:, None] + std * x
        signal, noise = self.diffusion.signal[t + 1][:, None], self.diffusion.noise[t + 1][:, None]
        weights = self.mixture.weights(x, signal, noise).cumsum(dim=1)
        mean = means[(weights[:, :-1] < chosen).sum(dim=1)][:, None]
        variance = 1 / (1 / std**2 + (signal / noise) ** 2)
        x0 = variance * (mean / std**2 + signal * x / noise**2) + variance.sqrt() * z[:, :1]
        if self.prediction == "noise":
            return (x - signal * x0) / noise
        return self.diffusion.posterior_sample(x0, x, t, z[:, 1:2]) if self.prediction == "direct" else x0


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("prediction", ["x0", "direct", "noise", "one-shot"])
def test_a_perfect_generator_gives_the_data_distribution(prediction, steps):
    model = DDGAN(DataSpec((1,)), steps=steps, prediction=prediction, latent_dim=3, hidden=4)
    for mixture in (Mixture([1.5], 0.3), Mixture([-1.0, 0.5], 0.1)):
        model.network = Perfect(model, mixture)
        assert mixture.recovered(model.sample(100_000, rng()), tolerance=0.02)


@pytest.mark.parametrize("prediction", ["x0", "direct", "noise", "one-shot"])
def test_fakes_of_a_perfect_generator_are_distributed_as_the_real_ones(prediction):
    """What the discriminator compares: x_t, and its covariance with x_{t+1} where it sees that."""
    torch.manual_seed(0)
    model = DDGAN(DataSpec((1,)), prediction=prediction, latent_dim=3, hidden=4)
    model.network = Perfect(model, Mixture([0.5], 0.3))
    t, x_t, x_next = model._pair(0.5 + 0.3 * torch.randn(400_000, 1))
    fake = model._fake(x_next, t)
    for step in range(4):
        real, made, given = (x[t == step] for x in (x_t, fake, x_next))
        assert made.mean().item() == pytest.approx(real.mean().item(), abs=0.02)
        assert made.var().item() == pytest.approx(real.var().item(), abs=0.02)
        if model.given:
            assert covariance(made, given) == pytest.approx(covariance(real, given), abs=0.02)


def covariance(x, y):
    return ((x - x.mean()) * (y - y.mean())).mean().item()


CASES = [
    (POINTS, {"hidden": 8}),
    (DIGITS, SMALL),
    (DIGITS, {**SMALL, "pooling": "flatten"}),
    (DIGITS, {**SMALL, "discriminator": "large"}),
    (DataSpec((1, 28, 28)), SMALL),
    (DataSpec((1, 28, 28)), {**SMALL, "padding": 2, "channel_multipliers": (1, 1, 1, 2)}),
    (DataSpec((3, 32, 32)), {**SMALL, "channel_multipliers": (1, 2, 2, 2)}),
    (DataSpec((3, 64, 64)), {**SMALL, "channel_multipliers": (1, 1, 2, 2)}),
    *((spec, {**SMALL, "hidden": 8, "prediction": each}) for spec in (POINTS, DIGITS) for each in ("direct", "noise")),
    *((spec, {**SMALL, "hidden": 8, "prediction": "one-shot"}) for spec in (POINTS, DIGITS)),
    *((spec, {**SMALL, "hidden": 8, "siddm": 1.0}) for spec in (POINTS, DIGITS)),
    *((spec, {**SMALL, "hidden": 8, "latent_dim": 0}) for spec in (POINTS, DIGITS)),
]


@pytest.mark.parametrize(("spec", "settings"), CASES)
def test_a_step_updates_both_networks_and_samples_have_the_datas_shape(spec, settings):
    torch.manual_seed(0)
    model = DDGAN(spec, **{"latent_dim": 4, "r1_interval": 1, **settings})
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizers = model.optimizers()
    for step in range(2):
        losses = model.training_step(torch.randn(4, *spec.shape), step, optimizers)
    assert all(torch.isfinite(loss) for loss in losses.values())
    changed = {
        name.partition(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    assert changed == {"network", "discriminator"}
    samples = model.eval().sample(3, rng())
    assert samples.shape == (3, *spec.shape)
    assert samples.isfinite().all()


def test_the_discriminators_step_leaves_no_gradient_in_the_generator():
    model = DDGAN(POINTS, hidden=8)
    model._update_discriminator(torch.randn(8, 2), model.optimizers()["discriminator"], penalise=True)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_the_generators_step_leaves_no_gradient_in_the_discriminator():
    model = DDGAN(POINTS, hidden=8)
    model._update_generator(torch.randn(8, 2), model.optimizers()["generator"])
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in model.discriminator.parameters())


class Linear(nn.Module):
    """D(x_t, x_{t+1}, t) = w·x_t, of which everything is known."""

    def __init__(self, *weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, given: Tensor, t: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.parametrize(("r1_gamma", "penalise"), [(0.0, True), (0.5, True), (0.5, False)])
def test_r1_adds_half_gamma_times_the_squared_slope_to_the_discriminators_gradient(r1_gamma, penalise):
    """∂(γ/2 |w|²)/∂w = γ w, on top of the loss's gradient, which is that without a penalty."""
    gradients = []
    for gamma in (0.0, r1_gamma):
        torch.manual_seed(0)
        model = DDGAN(POINTS, hidden=8, r1_gamma=gamma)
        model.discriminator = Linear(3.0, 4.0)
        optimizer = torch.optim.SGD(model.discriminator.parameters(), lr=0.0)
        model._update_discriminator(torch.randn(64, 2), optimizer, penalise)
        gradients.append(model.discriminator.weight.grad)
    expected = r1_gamma * torch.tensor([3.0, 4.0]) if penalise else torch.zeros(2)
    torch.testing.assert_close(gradients[1] - gradients[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("every", "gamma", "expected"), [(3, 1.0, [0, 3, 6]), (1, 1.0, list(range(7))), (3, 0.0, [])])
def test_the_penalty_is_lazy(every, gamma, expected):
    model, seen = DDGAN(POINTS, hidden=8, r1_interval=every, r1_gamma=gamma), []
    model._update_discriminator = lambda batch, optimizer, penalise: seen.append(penalise) or {}
    for step in range(7):
        model.training_step(torch.randn(4, 2), step, model.optimizers())
    assert [step for step, penalised in enumerate(seen) if penalised] == expected


@pytest.mark.parametrize(
    ("settings", "blind"), [({}, False), ({"siddm": 1.0}, True), ({"prediction": "one-shot"}, True)]
)
@pytest.mark.parametrize("spec", [POINTS, DIGITS], ids=["points", "images"])
def test_the_discriminator_sees_the_next_step_unless_told_otherwise(spec, settings, blind):
    torch.manual_seed(0)
    model = DDGAN(spec, latent_dim=4, hidden=8, **SMALL, **settings)
    for weight in model.discriminator.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # a new one sees nothing
    x, one, other = torch.randn(3, 4, *spec.shape)
    t = torch.arange(4)
    logits = model._judge(x, one, t)
    assert logits.shape == (4,)
    assert torch.equal(logits, model._judge(x, other, t)) == blind


def test_siddm_matches_the_forward_step_of_what_is_generated():
    """If x_t = c always, for data N(0, 1): E(√(1−β) c − x_{t+1})² = (1−β) c² + 1, averaged over the steps."""
    torch.manual_seed(0)
    model = SIDDM(DataSpec((1,)), prediction="direct", latent_dim=1, hidden=4, siddm=2.0)
    model.network = Constant(3.0)
    data = torch.randn(400_000, 1)
    losses = model._update_generator(data, torch.optim.SGD(model.network.parameters(), lr=0.0))
    kept = float((1 - model.diffusion.step_noise[1:] ** 2).mean())
    assert losses["loss_forward"].item() == pytest.approx(2 * (kept * 9 + 1), abs=0.03)


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return self.value.expand_as(x)


def test_siddm_is_ddgan_with_its_weight():
    assert SIDDM(POINTS, hidden=8).siddm == 1.0
    assert SIDDM(POINTS, hidden=8, steps=2).describe() == "T=2, SIDDM 1"
    with pytest.raises(UsageError, match=r"'siddm' = 0\.0: must be more than 0"):
        resolve(SIDDM, model="siddm", dataset="digits", overrides={"siddm": 0.0})


@pytest.mark.parametrize("prediction", ["x0", "direct", "noise", "one-shot"])
def test_only_predictions_of_x0_are_bounded(prediction):
    model = DDGAN(DIGITS, prediction=prediction, **SMALL)
    with torch.no_grad():
        model.network.unet.last.bias.fill_(5.0)
    output = model.network(torch.randn(2, 1, 8, 8), torch.randn(2, 100), torch.zeros(2, dtype=torch.int64))
    expected = math.tanh(5.0) if prediction in ("x0", "one-shot") else 5.0
    torch.testing.assert_close(output, torch.full_like(output, expected))


def test_padding_is_black_and_cut_away_again():
    torch.manual_seed(0)
    model, seen = DDGAN(DIGITS, padding=4, latent_dim=4, **SMALL), []
    pairs = model._pair
    model._pair = lambda batch: seen.append(batch) or pairs(batch)
    batch = torch.rand(4, 1, 8, 8)
    model.training_step(batch, 0, model.optimizers())
    assert seen[0].shape == (4, 1, 16, 16)
    assert torch.equal(seen[0][..., 4:12, 4:12], batch)
    assert seen[0].sum().item() == pytest.approx(batch.sum().item() - 4 * (256 - 64), rel=1e-5)
    whole = torch.arange(256.0).reshape(1, 1, 16, 16)
    assert torch.equal(model._cropped(whole), whole[..., 4:12, 4:12])


@pytest.mark.parametrize(("latent_dim", "decided"), [(0, True), (4, False)])
def test_without_latent_the_last_step_is_decided_by_its_input(latent_dim, decided):
    """Where the posterior adds no noise, whatever is drawn."""
    model = wake(DDGAN(DIGITS, latent_dim=latent_dim, **SMALL)).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    assert torch.equal(model._fake(x, t), model._fake(x, t)) == decided


def test_one_shot_takes_one_evaluation():
    model = DDGAN(POINTS, prediction="one-shot", hidden=8)
    assert model.evaluations() == 1
    assert model.describe() == "T=4, one-shot"


def test_one_shot_has_nothing_to_come_back_to():
    with pytest.raises(UsageError, match=r"one-shot.*set siddm = 0"):
        DDGAN(POINTS, siddm=1.0, prediction="one-shot")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("prediction", "eps", "prediction.*eps"), ("pooling", "mean", "pooling"), ("discriminator", "big", "big")],
)
def test_a_choice_that_is_none_is_named(name, value, message):
    with pytest.raises(UsageError, match=message):
        resolve(DDGAN, model="ddgan", dataset="digits", overrides={name: value})
