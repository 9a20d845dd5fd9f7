"""DDGAN: schedule, posterior and pairs against the paper's numbers; each parametrisation with its perfect generator."""

from __future__ import annotations

import math

import pytest
import torch
from exact import Mixture
from torch import Tensor, nn
from torch.nn import functional as F

from ddgan.diffusion import Diffusion
from ddgan.discriminator import ImageDiscriminator
from ddgan.model import DDGAN, SIDDM
from trilemma_bench.config import configs_dir, resolve
from trilemma_bench.contracts import DataSpec
from trilemma_bench.datasets import open_dataset
from trilemma_bench.errors import UsageError
from trilemma_bench.training.trainer import learning_rate

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
ALPHAS_BAR = {
    1: [0.00004319],
    2: [0.07867597, 0.00004319],
    4: [0.52174470, 0.07867597, 0.00342888, 0.0000431905],
}
BETAS = {
    1: [0.99995681],
    2: [0.92132403, 0.99945103],
    4: [0.47825530, 0.84920600, 0.95641771, 0.98740390],
    8: [0.15644526, 0.38149278, 0.54650106, 0.66748765, 0.75619687, 0.82123982, 0.86893031, 0.90389770],
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def close(value, expected, atol=1e-7):
    torch.testing.assert_close(value, torch.as_tensor(expected), atol=atol, rtol=0)


class TestDiffusion:
    @pytest.mark.parametrize("steps", BETAS)
    def test_betas_are_the_published_ones(self, steps):
        close(Diffusion(steps).step_noise[1:] ** 2, BETAS[steps])

    @pytest.mark.parametrize("steps", ALPHAS_BAR)
    def test_what_is_left_of_the_data_is_as_published(self, steps):
        close(Diffusion(steps).signal[1:] ** 2, ALPHAS_BAR[steps])

    def test_posterior_coefficients_at_four_steps_are_the_published_ones(self):
        diffusion = Diffusion(4)
        close(diffusion.posterior_x0, [1, 0.66577836, 0.26919089, 0.05782154])
        close(diffusion.posterior_xt, [0, 0.20157628, 0.19300081, 0.11185234])
        close(diffusion.posterior_noise**2, [0, 0.44081915, 0.88420244, 0.98406071])

    @pytest.mark.parametrize("steps", BETAS)
    def test_the_posterior_is_bayes_rule(self, steps):
        """Precisions add: 1/var = ᾱ-noise before + one step's; the means likewise (in float64, from the betas)."""
        diffusion, bar = Diffusion(steps), 1.0
        for t, beta in enumerate(BETAS[steps]):
            before, bar = bar, bar * (1 - beta)
            if t == 0:
                continue
            precision = 1 / (1 - before) + (1 - beta) / beta
            close(diffusion.posterior_noise[t] ** 2, 1 / precision, atol=3e-7)
            close(diffusion.posterior_x0[t], math.sqrt(before) / (1 - before) / precision, atol=3e-7)
            close(diffusion.posterior_xt[t], math.sqrt(1 - beta) / beta / precision, atol=3e-7)

    def test_the_last_step_returns_the_generators_output(self):
        x0, noise = torch.randn(2, 5, 3)
        sample = Diffusion(4).posterior_sample(x0, torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), noise)
        assert torch.equal(sample, x0)

    @pytest.mark.parametrize("t", [0, 1, 3])
    def test_pairs_have_the_marginals_of_the_diffusion(self, t):
        torch.manual_seed(0)
        diffusion = Diffusion(4)
        x0 = torch.full((200_000, 1), 2.0)
        x_t, x_next = diffusion.pair(x0, torch.full((len(x0),), t))
        for x, step in ((x_t, t), (x_next, t + 1)):
            assert x.mean().item() == pytest.approx(2 * diffusion.signal[step].item(), abs=0.01)
            assert x.std().item() == pytest.approx(diffusion.noise[step].item(), abs=0.01)
        residual = x_next - diffusion.forward_mean(x_t, torch.full((len(x0),), t))
        assert residual.std().item() == pytest.approx(diffusion.step_noise[t + 1].item(), abs=0.01)
        assert (residual * x_t).mean().item() == pytest.approx(0, abs=0.02)

    @pytest.mark.parametrize("t", [0, 1, 2])
    def test_clean_undoes_the_diffusion(self, t):
        diffusion, (x0, noise) = Diffusion(4), torch.randn(2, 6, 3, generator=rng())
        steps = torch.full((6,), t)
        close(diffusion.clean(diffusion.diffuse(x0, steps + 1, noise), noise, steps), x0, atol=1e-5)


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


@pytest.mark.parametrize("large", [False, True])
def test_the_discriminator_is_the_papers_layer_by_layer(large):
    """Written out anew: 1×1, residual blocks over √2 that FIR halves, deviation of groups of 4, 3×3, sum, dense."""
    torch.manual_seed(0)
    network = ImageDiscriminator(6, 16, channels=8, time_dim=8, large=large, flatten=False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, given, t = torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16), torch.randint(4, (8,))

    def act(h):
        return F.leaky_relu(h, 0.2)

    def halved(h):
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = (torch.outer(taps, taps) / 64).expand(h.shape[1], 1, 4, 4)
        return F.conv2d(F.pad(h, (1, 1, 1, 1)), kernel, stride=2, groups=h.shape[1])

    angles = t[:, None] * torch.exp(-math.log(10_000) / 3 * torch.arange(4))
    first, _, second = network.time[0].layers
    time = act(second(act(first(torch.cat([angles.sin(), angles.cos()], dim=1)))))
    h = network.first(torch.cat([x, given], dim=1))
    for number, block in enumerate(network.blocks):
        inner, outer = act(block.conv1(act(h)) + block.time(time)[:, :, None, None]), h
        if large or number:
            inner, outer = halved(inner), halved(outer)
        h = (block.conv2(inner) + block.shortcut(outer)) / math.sqrt(2)
    assert h.shape == (8, 32, 4, 4)
    groups = h.view(4, 2, 32, 4, 4)  # samples 0, 2, 4, 6 and 1, 3, 5, 7
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    h = torch.cat([h, deviation.repeat(4).view(8, 1, 1, 1).expand(-1, -1, 4, 4)], dim=1)
    expected = network.last(act(network.conv(h)).sum(dim=(2, 3)))[:, 0]
    close(network(x, given, t), expected, atol=1e-5)
    assert expected.std() > 0.01


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
    close(gradients[1] - gradients[0], expected, atol=1e-6)


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
    assert torch.equal(model._judge(x, one, t), model._judge(x, other, t)) == blind


def test_siddm_matches_the_forward_step_of_what_is_generated():
    """If x_t = c always, for data N(0, 1): E(√(1−β) c − x_{t+1})² = (1−β) c² + 1, averaged over the steps."""
    torch.manual_seed(0)
    model = SIDDM(DataSpec((1,)), prediction="direct", latent_dim=1, hidden=4, siddm=2.0)
    model.network = Constant(3.0)
    data = torch.randn(400_000, 1)
    losses = model._update_generator(data, torch.optim.SGD(model.network.parameters(), lr=0.0))
    kept = sum(1 - beta for beta in BETAS[4]) / 4
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
    with pytest.raises(UsageError, match="siddm = 0"):
        SIDDM(POINTS, siddm=0.0)


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


def test_without_latent_the_output_is_the_same_whatever_is_drawn():
    model = DDGAN(DIGITS, latent_dim=0, **SMALL).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    assert torch.equal(model.network(x, torch.empty(2, 0), t), model.network(x, torch.empty(2, 0), t))
    assert model.describe() == "T=4, no z"


def test_one_shot_takes_one_evaluation():
    model = DDGAN(POINTS, prediction="one-shot", hidden=8)
    assert model.evaluations() == 1
    assert model.describe() == "T=4, one-shot"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps = 0: choose at least 1"),
        ({"r1_interval": 0}, "r1_interval = 0: choose at least 1"),
        ({"latent_dim": -1}, "latent_dim = -1"),
        ({"siddm": -0.5}, "siddm = -0.5"),
        ({"r1_gamma": -1.0}, "r1_gamma"),
        ({"padding": -1}, "padding = -1"),
        ({"siddm": 1.0, "prediction": "one-shot"}, "one-shot.*set siddm = 0"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(UsageError, match=message):
        DDGAN(POINTS, **settings)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("prediction", "eps", "prediction.*eps"), ("pooling", "mean", "pooling"), ("discriminator", "big", "big")],
)
def test_a_choice_that_is_none_is_named(name, value, message):
    with pytest.raises(UsageError, match=message):
        resolve(DDGAN, model="ddgan", dataset="digits", overrides={name: value})


def parameters(module):
    return round(sum(value.numel() for value in module.parameters()) / 1e6, 2)


def built(dataset, spec, config=None, model=DDGAN, name="ddgan"):
    """The model of a shipped recipe, at full size but without memory."""
    settings = resolve(model, model=name, dataset=dataset, config=config and configs_dir() / config)
    with torch.device("meta"):
        return model(spec, **settings.model), settings


@pytest.mark.parametrize("large", [False, True])
def test_a_new_discriminators_branches_are_silent(large):
    """Then a block is its shortcut, and a small discriminator knows nothing, as their initial scale of 0 has it."""
    made = ImageDiscriminator(6, 16, channels=8, time_dim=8, large=large, flatten=False)
    x, t = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    block, time = made.blocks[-1], torch.randn(4, 8)
    h = torch.randn(4, block.conv1.in_channels, 8, 8)
    torch.testing.assert_close(block(h, time), block.shortcut(block.halve(h)) * 0.5**0.5)
    assert bool((made(*x, t) == 0).all()) is not large


class TestRecipes:
    def test_cifar10_has_the_papers_networks(self):
        model, settings = built("cifar10", DataSpec((3, 32, 32)))
        assert parameters(model.network) == 48.43
        assert parameters(model.discriminator) == 12.74
        assert settings.training.batch_size == 128

    @pytest.mark.parametrize("dataset", ["celeba-hq-256", "lsun-church-256"])
    def test_256_pixels_have_the_papers_networks(self, dataset):
        model, _ = built("folder:somewhere", DataSpec((3, 256, 256)), f"{dataset}/ddgan.toml")
        assert parameters(model.network) == 39.73
        assert parameters(model.discriminator) == 27.74

    @pytest.mark.parametrize(("channels", "expected"), [(64, 3.38), (32, 0.99)])
    def test_narrower_discriminators_have_the_published_sizes(self, channels, expected):
        with torch.device("meta"):
            model = DDGAN(DataSpec((3, 32, 32)), discriminator_channels=channels)
        assert parameters(model.discriminator) == expected

    def test_both_learning_rates_end_where_the_papers_do(self):
        training = built("cifar10", DataSpec((3, 32, 32)))[1].training
        assert [learning_rate(training, full, 10**6, 1.0) for full in (1.6e-4, 1e-4)] == pytest.approx([1e-5, 1e-5])

    def test_the_defaults_are_cifar10s(self):
        _, settings = built("nothing", DataSpec((3, 32, 32)))
        recipe = built("cifar10", DataSpec((3, 32, 32)))[1].model
        assert settings.model == recipe | {"discriminator": "auto"}

    @pytest.mark.parametrize(
        ("row", "text", "nfe"),
        [
            ("t1", "T=1", 1),
            ("t2", "T=2", 2),
            ("t4", "T=4", 4),
            ("t8", "T=8", 8),
            ("direct", "T=4, direct", 4),
            ("noise", "T=4, noise", 4),
            ("no-z", "T=4, no z", 4),
            ("one-shot", "T=4, one-shot", 1),
        ],
    )
    def test_each_row_of_the_papers_ablation_is_a_config(self, row, text, nfe):
        model, settings = built("cifar10", DataSpec((3, 32, 32)), f"cifar10/ddgan-{row}.toml")
        assert model.describe() == text
        assert model.evaluations() == nfe
        assert settings.training == built("cifar10", DataSpec((3, 32, 32)))[1].training

    @pytest.mark.parametrize(
        ("dataset", "shape"),
        [
            ("gaussians25", (2,)),
            ("digits", (1, 8, 8)),
            ("stacked_digits", (3, 8, 8)),
            ("mnist", (1, 28, 28)),
            ("stackedmnist", (3, 32, 32)),
        ],
    )
    def test_recipes_build(self, dataset, shape):
        spec = open_dataset(dataset).spec
        assert spec.shape == shape
        built(dataset, spec)

    @pytest.mark.parametrize(
        ("dataset", "shape"),
        [("gaussians25", (2,)), ("digits", (1, 8, 8)), ("stacked_digits", (3, 8, 8)), ("cifar10", (3, 32, 32))],
    )
    def test_siddm_has_ddgans_networks(self, dataset, shape):
        model, settings = built(dataset, DataSpec(shape), model=SIDDM, name="siddm")
        ddgan, _ = built(dataset, DataSpec(shape))
        assert parameters(model.network) == parameters(ddgan.network)
        assert settings.model["siddm"] > 0
