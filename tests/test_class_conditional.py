"""Labels: what the networks make of them, how a guided sample is made, and that a model learns which is which."""

from __future__ import annotations

import json

import pytest
import torch
from commands import succeeds
from models import wake
from torch import nn

from baselines.ddpm import DDIM, DDPM
from baselines.edm import EDM
from baselines.flow_matching import FlowMatching
from baselines.gan import GAN
from baselines.meanflow import MeanFlow
from baselines.score_sde import ScoreVP
from baselines.stylegan2 import StyleGAN2
from ddgan.model import DDGAN, SIDDM
from trilemma_bench.contracts import DataSpec, Split
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.mlp import MLP
from trilemma_bench.nn.ncsnpp import NCSNpp
from trilemma_bench.nn.unet import UNet
from trilemma_bench.settings import TrainingSettings
from trilemma_bench.training.batches import Batches

CLASSES = 4
POINTS, IMAGES = DataSpec((1,), CLASSES, 1.0), DataSpec((1, 8, 8), CLASSES)
SMALL = {"channels": 8, "multipliers": (1, 2), "res_blocks": 1, "classes": CLASSES}
NETWORKS = {
    "unet": lambda: UNet(1, 8, **SMALL),
    "ncsn++": lambda: NCSNpp(1, 8, **SMALL, fourier_scale=1.0),
    "ddpm++": lambda: NCSNpp(1, 8, **SMALL, fir=False),
    "mlp": lambda: MLP(1, 1, hidden=8, time_dim=8, classes=CLASSES),
}

TINY_DDGAN = {
    "steps": 2, "latent_dim": 4, "hidden": 64, "fourier_features": 8, "channels": 8, "channel_multipliers": (1,),
    "res_blocks": 1, "attention_resolutions": (), "style_dim": 8, "mapping_layers": 1, "discriminator_channels": 16,
    "time_dim": 128, "pooling": "flatten", "r1_interval": 4,
}  # fmt: skip
ADVERSARIAL = {
    DDGAN: TINY_DDGAN,
    SIDDM: TINY_DDGAN,
    GAN: {
        "latent_dim": 8, "hidden": 64, "channels": 8, "r1_interval": 4, "lr_generator": 1e-3, "lr_discriminator": 1e-3,
    },
    StyleGAN2: {
        "latent_dim": 16, "style_dim": 16, "hidden": 64, "channels": 16, "channel_base": 128, "r1_interval": 4,
        "r1_gamma": 0.1,
    },
}  # fmt: skip


class LabelAsOutput(nn.Module):
    """A 'network' whose prediction is the label, and 10 for a hidden one; it keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, x, time, labels=None):
        self.seen.append(labels)
        values = torch.full((len(x),), 10) if labels is None else labels.where(labels < CLASSES, 10)
        return values.view(-1, *[1] * (x.ndim - 1)) + self.weight + torch.zeros_like(x)


def model(model_class=FlowMatching, data=POINTS, **settings):
    built = model_class(data, class_conditional=True, hidden=16, **settings)
    built.network = LabelAsOutput()
    return built.eval()


def drawn(built, count=50):
    """Samples with the noise and the labels that they were made from: what the sampler draws first."""
    noise = torch.randn(count, *built.data.shape, generator=torch.Generator().manual_seed(3))
    rng = torch.Generator().manual_seed(3)
    torch.randn(noise.shape, generator=rng)
    labels = torch.randint(CLASSES, (count,), generator=rng)
    with torch.no_grad():
        return built.sample(count, torch.Generator().manual_seed(3)), noise, labels


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
class TestNetworks:
    def awake(self, make):
        torch.manual_seed(0)
        return wake(make(), by=0.3).eval()

    def inputs(self, network):
        shape = (3, 1) if isinstance(network, MLP) else (3, 1, 8, 8)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1)), torch.tensor([1.0, 2.0, 3.0])

    def test_a_label_changes_its_own_sample_only(self, make):
        network = self.awake(make)
        x, time = self.inputs(network)
        plain, other = (network(x, time, torch.tensor(labels)) for labels in ([0, 1, 2], [0, 3, 2]))
        changed = (plain - other).abs().flatten(1).amax(dim=1)
        assert changed[1] > 1e-3
        assert changed[[0, 2]].max() == 0

    def test_no_labels_are_hidden_ones(self, make):
        network = self.awake(make)
        x, time = self.inputs(network)
        torch.testing.assert_close(network(x, time), network(x, time, torch.full((3,), CLASSES)))

    def test_labels_add_nothing_at_the_start(self, make):
        torch.manual_seed(0)
        network = make().eval()
        (labels,) = (each for each in network.modules() if isinstance(each, nn.Embedding))
        assert labels.weight.shape[0] == CLASSES + 1
        assert not labels.weight.any()


class TestSampling:
    @pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
    def test_guidance_is_the_papers_formula(self, guidance):
        """One Euler step of a constant velocity: the sample is the noise and (1 + w)·label − w·10."""
        samples, noise, labels = drawn(model(guidance=guidance, sampling_steps=1))
        expected = noise + (1 + guidance) * labels[:, None] - guidance * 10
        torch.testing.assert_close(samples, expected)

    def test_labels_are_drawn_evenly(self):
        _, _, labels = drawn(model(), 4000)
        shares = torch.bincount(labels, minlength=CLASSES) / 4000
        assert (shares - 1 / CLASSES).abs().max() < 0.04

    @pytest.mark.parametrize("model_class", [DDPM, DDIM, EDM, FlowMatching, ScoreVP])
    def test_guidance_doubles_the_evaluations(self, model_class):
        counts = []
        for guidance in (0.0, 1.0):
            built = model(model_class, guidance=guidance, sampling_steps=3)
            drawn(built)
            assert len(built.network.seen) == built.evaluations()
            counts.append(built.evaluations())
        assert counts[1] == 2 * counts[0]

    def test_the_row_says_it(self):
        assert model(sampling_steps=3).describe() == "euler, 3 steps, class-conditional"
        assert model(sampling_steps=3, guidance=1.5).describe() == "euler, 3 steps, guidance 1.5"


class TestTraining:
    @pytest.mark.parametrize(("dropout", "hidden"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
    def test_labels_are_hidden_as_often_as_said(self, dropout, hidden):
        built = model(label_dropout=dropout).train()
        labels = torch.arange(2000) % CLASSES
        torch.manual_seed(0)
        built.training_step(torch.zeros(2000, 1), 0, built.optimizers(), labels=labels)
        (seen,) = built.network.seen
        assert (seen == CLASSES).double().mean().item() == pytest.approx(hidden, abs=0.04)
        assert torch.equal(seen[seen < CLASSES], labels[seen < CLASSES])

    @pytest.mark.parametrize("model_class", [DDIM, EDM, FlowMatching, ScoreVP, MeanFlow])
    def test_it_learns_which_is_which(self, model_class):
        """Four classes at −1.5, −0.5, 0.5 and 1.5: a sample is nearest to its own."""
        torch.manual_seed(0)
        built = model_class(POINTS, class_conditional=True, hidden=64, lr=3e-3, **few_steps(model_class))
        optimizers = built.optimizers()
        for step in range(400):
            labels = torch.randint(CLASSES, (256,))
            batch = (labels[:, None] - 1.5) + 0.05 * torch.randn(256, 1)
            built.training_step(batch, step, optimizers, labels=labels)
        samples, _, labels = drawn(built.eval(), 400)
        nearest = (samples - torch.arange(CLASSES) + 1.5).abs().argmin(dim=1)
        assert (nearest == labels).double().mean() > 0.9

    def test_batches_keep_samples_and_labels_together(self):
        values = torch.arange(30)
        batches = Batches(
            Split(values.float()[:, None], values), TrainingSettings(batch_size=7), 0, torch.device("cpu")
        )
        for position in (0, 7, 28):
            batch = batches.at(position)
            assert batch.samples.flatten().tolist() == batch.labels.tolist()


def adversarial(model_class, data, **settings):
    """A tiny labelled model, and the positional arguments of all calls of its networks: (network's name, arguments)."""
    torch.manual_seed(0)
    built, calls = model_class(data, class_conditional=True, **ADVERSARIAL[model_class], **settings), []

    def watch(name):
        def note(module, arguments, options):
            assert not options, "only what is positional can be replayed"
            calls.append((name, arguments))

        return note

    for name in ("network", "discriminator"):
        getattr(built, name).register_forward_pre_hook(watch(name), with_kwargs=True)
    return built, calls


@pytest.mark.parametrize("data", [POINTS, IMAGES], ids=["points", "images"])
@pytest.mark.parametrize("model_class", ADVERSARIAL)
class TestAdversarial:
    def test_every_call_of_a_step_is_of_the_batchs_labels(self, model_class, data):
        """The discriminator's and the generator's updates, and R1, which is due in the first step."""
        built, calls = adversarial(model_class, data)
        labels = torch.arange(8) % CLASSES
        built.training_step(torch.randn(8, *data.shape), 0, built.optimizers(), labels=labels)
        assert {name for name, _ in calls} == {"network", "discriminator"}
        assert all(torch.equal(arguments[-1], labels) for _, arguments in calls)

    def test_both_networks_learn_from_labels(self, model_class, data):
        built, _ = adversarial(model_class, data)
        vectors = {name: value for name, value in built.named_parameters() if ".labels." in name}
        before = {name: value.detach().clone() for name, value in vectors.items()}
        optimizers = built.optimizers()
        for step in range(3):
            labels = torch.arange(8) % CLASSES
            built.training_step(torch.randn(8, *data.shape), step, optimizers, labels=labels)
        assert {name.partition(".")[0] for name in vectors} == {"network", "discriminator"}
        for name, value in vectors.items():
            assert (value[:CLASSES] != before[name][:CLASSES]).any(dim=1).all(), name

    def test_a_label_changes_its_own_sample_only(self, model_class, data):
        built, calls = adversarial(model_class, data)
        wake(built.eval(), by=0.1)
        with torch.no_grad():
            built.sample(3, torch.Generator().manual_seed(0))
            *inputs, labels = calls[0][1]
            plain, other = (built.network(*inputs, each) for each in (labels, (labels + torch.tensor([0, 1, 0])) % 4))
        changed = (plain - other).abs().flatten(1).amax(dim=1)
        assert changed[1] > 1e-4
        assert changed[[0, 2]].max() == 0

    def test_a_label_changes_what_the_discriminator_says(self, model_class, data):
        built, calls = adversarial(model_class, data)
        wake(built.train(), by=0.1)
        labels = torch.arange(8) % CLASSES
        built.training_step(torch.randn(8, *data.shape), 1, built.optimizers(), labels=labels)
        *inputs, _ = next(arguments for name, arguments in calls if name == "discriminator")
        assert (built.discriminator(*inputs, labels) != built.discriminator(*inputs, labels.flip(0))).all()

    def test_samples_get_their_labels_evenly_and_keep_them(self, model_class, data):
        built, calls = adversarial(model_class, data)
        with torch.no_grad():
            built.eval().sample(400, torch.Generator().manual_seed(0))
        labels = [arguments[-1] for _, arguments in calls]
        assert len(labels) == built.evaluations()
        assert all(torch.equal(each, labels[0]) for each in labels)
        assert (torch.bincount(labels[0], minlength=CLASSES) / 400 - 1 / CLASSES).abs().max() < 0.08

    def test_without_them_nothing_is_added(self, model_class, data):
        """A dataset's labels alone change no parameter."""
        states = []
        for spec in (data, DataSpec(data.shape, None, data.scale)):
            torch.manual_seed(0)
            states.append(model_class(spec, **ADVERSARIAL[model_class]).state_dict())
        assert list(states[0]) == list(states[1])
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert not any("labels" in name for name in states[0])

    def test_the_row_says_it(self, model_class, data):
        assert adversarial(model_class, data)[0].describe().endswith("class-conditional")


@pytest.mark.parametrize(
    ("model_class", "rates"),
    [
        (DDGAN, {"lr_generator": 2e-3, "lr_discriminator": 2e-3}),
        (SIDDM, {"lr_generator": 2e-3, "lr_discriminator": 2e-3}),
        (GAN, {}),
        (StyleGAN2, {}),
        (StyleGAN2, {"label_layers": 8}),
    ],
)
def test_a_gan_learns_which_point_is_which(model_class, rates):
    """Four classes at −1.5, −0.5, 0.5 and 1.5: a sample is nearest to its own."""
    built, calls = adversarial(model_class, POINTS, **rates)
    centres = torch.arange(CLASSES)[:, None] - 1.5
    fit(built, centres, noise=0.05, steps=400, batch=128)
    assert share_nearest_to_their_own(built, calls, centres) > 0.9


@pytest.mark.parametrize(
    ("model_class", "settings", "steps"),
    [
        (DDGAN, {"lr_generator": 5e-3, "lr_discriminator": 1e-3, "r1_gamma": 5.0}, 200),
        (GAN, {}, 100),
        (StyleGAN2, {}, 150),
    ],
)
def test_a_gan_learns_which_image_is_which(model_class, settings, steps):
    """Images that brighten to the right, and to the left: a sample is nearest to its own class's mean."""
    built, calls = adversarial(model_class, DataSpec((1, 8, 8), 2), **settings)
    ramp = torch.linspace(-0.8, 0.8, 8).expand(1, 8, 8)
    means = torch.stack([ramp, -ramp])
    fit(built, means, noise=0.1, steps=steps, batch=16)
    assert share_nearest_to_their_own(built, calls, means) > 0.9


def fit(built, means, *, noise, steps, batch):
    """Trains on samples that lie around their class's mean."""
    optimizers = built.optimizers()
    for step in range(steps):
        labels = torch.randint(len(means), (batch,))
        samples = means[labels] + noise * torch.randn(batch, *means.shape[1:])
        built.training_step(samples, step, optimizers, labels=labels)


@torch.no_grad()
def share_nearest_to_their_own(built, calls, means):
    samples = built.eval().sample(200, torch.Generator().manual_seed(0))
    nearest = torch.cdist(samples.flatten(1), means.flatten(1)).argmin(dim=1)
    return (nearest == calls[-1][1][-1]).double().mean().item()


@pytest.mark.parametrize("loss", ["wgan-gp", "relativistic"])
def test_a_gans_other_losses_take_labels(loss):
    built, calls = adversarial(GAN, IMAGES, loss=loss)
    labels = torch.arange(8) % CLASSES
    losses = built.training_step(torch.randn(8, 1, 8, 8), 0, built.optimizers(), labels=labels)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(torch.equal(arguments[-1], labels) for _, arguments in calls)


def few_steps(model_class):
    return (
        {} if model_class is MeanFlow else {"sampling_steps": 100} if model_class is ScoreVP else {"sampling_steps": 20}
    )


def test_a_guidance_curve_comes_from_one_training_run(tmp_path):
    arguments = [
        "sweep", "--model", "flow-matching", "--dataset", "digits", "--vary", "guidance=0,2", "--budget", "0.3kimg",
        "--samples", "30", "--quiet", "--device", "cpu", "--out", str(tmp_path), "--set", "class_conditional=true",
        "--set", "channels=8", "--set", "res_blocks=1", "--set", "channel_multipliers=[1, 1]", "--set", "batch_size=30",
        "--set", "sampling_steps=2", "--set", "timing_repetitions=3", "--set", "timing_batch=4",
    ]  # fmt: skip
    succeeds(*arguments)
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert sorted(record["speed"]["nfe"] for record in records) == [2, 4]
    assert len({record["training"]["run_id"] for record in records}) == 1


@pytest.mark.parametrize(
    ("model_class", "data", "settings", "message"),
    [
        (DDPM, DataSpec((2,)), {"class_conditional": True}, "no labels"),
        (DDPM, POINTS, {"guidance": 1.0}, "class_conditional"),
        (DDPM, POINTS, {"class_conditional": True, "label_dropout": 0.0, "guidance": 1.0}, "label_dropout"),
        (MeanFlow, POINTS, {"class_conditional": True, "guidance": 1.0}, "mean velocity"),
        *((each, DataSpec((1, 8, 8)), {"class_conditional": True}, "no labels") for each in ADVERSARIAL),
    ],
)
def test_what_cannot_be_is_said(model_class, data, settings, message):
    with pytest.raises(UsageError, match=message):
        model_class(data, **settings)
