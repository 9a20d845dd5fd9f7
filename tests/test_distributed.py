"""Two processes do what one does: the same weights from the same global batch, the same samples."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from models import CPU, POINTS, SPECS, TRAINABLE, tiny_data, tiny_settings, wake
from safetensors.torch import load_file
from torch import nn
from training import tiny_trainer

import trilemma_bench as tb
from trilemma_bench import distributed, registry
from trilemma_bench.config import model_schema
from trilemma_bench.contracts import DataSpec, Split, Trainable
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.record import read_record
from trilemma_bench.sampling import draw_samples
from trilemma_bench.seeding import seed_everything
from trilemma_bench.settings import TrainingSettings
from trilemma_bench.training.batches import Batches
from trilemma_bench.training.checkpoint import WEIGHTS_FILE
from trilemma_bench.training.step import TrainingStep

ON_IMAGES = ("stylegan2 with ada", "edm with augmentation")
# Dropout is equal in distribution only; penalties are due at once, and weigh something.
EXACT = {"dropout": 0.0, "r1_gamma": 1.0, "r1_interval": 2}
VARIANTS: dict[str, dict[str, object]] = {
    "stylegan2 with ada": {"augment": "ada", "ada_kimg": 2.0, "ada_target": -1.5},
    "edm with augmentation": {"augment": 0.5},
    "gan of wgan-gp": {"loss": "wgan-gp", "critic_steps": 1},
    "gan of r3gan": {"loss": "relativistic"},
    "siddm with labels": {"class_conditional": True},
    "flow-matching with labels": {"class_conditional": True},
}
BATCH_SIZES = {"stylegan2": 64}  # its deviation compares samples in groups of 32
CASES = [
    (name, kind) for name in (*TRAINABLE, *VARIANTS) for kind in SPECS if name not in ON_IMAGES or kind != "points"
]
SEEDS = range(3)
ROUNDING = 1e-5  # of the length of a gradient: thousands of float32 summed in another order, through two derivatives
STEPS = 10
# Of the way that the weights went. Adam moves a weight whose gradient is all rounding as far as any other, and R1's
# gradient jumps where a LeakyReLU sees a value within rounding of 0: in one process, too.
TOLERANCE = 0.02


class Probe(Trainable):
    """Draws in every way, clips, and keeps a running mean: what a process sees must be its rows of the whole."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.network = nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.seen: list[torch.Tensor] = []

    def optimizers(self):
        return {"network": torch.optim.SGD(self.network.parameters(), lr=0.1)}

    def training_step(self, batch, step, optimizers):
        size = len(batch)
        draws = [
            torch.randn_like(batch),
            torch.rand(size, 1).expand(-1, 2),
            torch.randint(5, (size,))[:, None].expand(-1, 2),
            torch.randn((2 * size, 2))[size:],
            torch.randn(size=(size // 2, 2)).repeat(2, 1),
            torch.empty(size, 2).uniform_(),
            torch.bernoulli(torch.full((size, 2), 0.3)),
            torch.rand(1).expand(size, 2),
        ]
        self.seen.append(torch.stack(draws, dim=1))
        noise = self.seen[-1].sum(1)
        loss = (self.network(batch) - noise).square().mean()
        optimizers["network"].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 0.1)
        optimizers["network"].step()
        self.mean.lerp_(batch.mean(0), 0.1)
        return {"loss": loss.detach()}

    def sample(self, count, rng):
        return torch.randn(count, 2, generator=rng)


def train(model, folder, batch_size=16):
    tiny_trainer(model, folder, STEPS, batch_size=batch_size, flip=model.data.is_image).run()


def base(name):
    return name.partition(" ")[0]


def build(name, kind):
    model_class = registry.models.get(base(name))
    spec = replace(SPECS[kind], classes=2)
    exact = {setting: value for setting, value in EXACT.items() if setting in model_schema(model_class).model_fields}
    return model_class(spec, **(tiny_settings(model_class) | exact | VARIANTS.get(name, {})))


def gradients(name, kind, seed):
    """All gradients that the optimisers of one step find, in turn; no weight moves, and LeakyReLU has no kink."""
    seed_everything(seed)
    model, size, found = build(name, kind), BATCH_SIZES.get(base(name), 16), []
    wake(model)
    if name == "stylegan2 with ada":
        model.augment_p.fill_(0.5)
    settings = TrainingSettings(batch_size=size, flip=kind == "images")
    still = {
        key: torch.optim.SGD([value for group in optimizer.param_groups for value in group["params"]], lr=0.0)
        for key, optimizer in model.optimizers().items()
    }
    for optimizer in still.values():
        optimizer.register_step_pre_hook(lambda optimizer, *_: found.append(gradient_of(optimizer)))
    samples = tiny_data(SPECS[kind])
    batch = Batches(Split(samples, torch.arange(len(samples)) % 2), settings, seed, CPU).at(0)
    with mock.patch.object(nn.functional, "leaky_relu", smooth_relu):
        TrainingStep(model, still, settings, seed, CPU)(0, batch)
    return found


def gradient_of(optimizer):
    (group,) = optimizer.param_groups
    return torch.cat([value.grad.flatten().double() for value in group["params"] if value.grad is not None])


def smooth_relu(x, negative_slope=0.01, inplace=False):
    return negative_slope * x + (1 - negative_slope) * nn.functional.softplus(x)


def work(folder):
    """All that is compared, by one process or by each of two."""
    results = {}
    for name, kind in CASES:
        results["gradients", name, kind] = [gradients(name, kind, seed) for seed in SEEDS]
        seed_everything(0)
        model = build(name, kind)
        results["start", name, kind] = {key: value.clone() for key, value in model.state_dict().items()}
        train(model, folder / f"{name}-{kind}", BATCH_SIZES.get(base(name), 16))
        results[name, kind] = model.state_dict()
        results["samples", name, kind] = draw_samples(model, 22, 0, chunk_size=4, device=CPU, progress=False)
    seed_everything(0)
    probe = Probe(POINTS)
    train(probe, folder / "probe")
    return results | {"probe": probe.state_dict(), "seen": probe.seen, "scores": scores(folder)}


def scores(folder):
    """Of the weights that one process trained (see `folder`), sampled and measured by all."""
    (weights,) = (folder.parent / "trained").rglob(WEIGHTS_FILE)
    options = {"samples": 300, "checkpoint": weights, "out": folder / "measured", "progress": False, "device": "cpu"}
    record = tb.run(model="gan", dataset="gaussians25", settings={"hidden": 16, "latent_dim": 2}, **options)
    return {name: score.value for name, score in record.scores.items()}


def process(rank, folder, world=2):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(minutes=2))
    results = work(folder / "two")
    results["masks"] = dropout_masks()
    results["errors"] = errors()
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def dropout_masks():
    """(a mask of this process, the draw after it)."""
    shared = distributed.SharedStep(nn.Linear(2, 2), 0, CPU)
    torch.manual_seed(0)
    with shared.around(3):
        mask = nn.functional.dropout(torch.ones(64), 0.5)
        return mask, torch.rand(1)


def errors():
    def fail():
        raise ValueError("only the first process sees this")

    texts = []
    for call in (lambda: distributed.on_main(fail), lambda: distributed.check_batch(15)):
        with pytest.raises(TrilemmaError) as caught:
            call()
        texts.append(str(caught.value))
    return texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("distributed")
    options = {"budget": "5kimg", "out": root / "trained", "progress": False, "device": "cpu"}
    tb.train(model="gan", dataset="gaussians25", settings={"hidden": 16, "latent_dim": 2}, **options)
    return root


@pytest.fixture(scope="module")
def one(folder):
    return work(folder / "one")


@pytest.fixture(scope="module")
def two(folder):
    torch.multiprocessing.spawn(process, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_two_processes_find_the_gradients_of_one(one, two, name, kind):
    """R1, clipped gradients, two optimisers, minibatch deviations and flips included."""
    for expected, found in zip(one["gradients", name, kind], two[0]["gradients", name, kind], strict=True):
        assert len(expected) >= len(build(name, kind).optimizers())
        for whole, averaged in zip(expected, found, strict=True):
            assert whole.norm() > 1e-3
            assert (averaged - whole).norm() <= ROUNDING * whole.norm()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_two_processes_train_the_weights_of_one(one, two, name, kind):
    """Step after step, with the model's own optimisers: buffers and what is adapted included."""
    first, last, other = (flat(state) for state in (one["start", name, kind], one[name, kind], two[0][name, kind]))
    moved = (last - first).norm()
    assert moved > 0.1
    assert (other - last).norm() <= TOLERANCE * moved


def test_the_strength_of_ada_moves_as_in_one_process(one, two):
    """Every fourth step, by the images of all processes: 64·4/2000 each time, twice in ten steps."""
    case = "stylegan2 with ada", "images"
    assert one[case]["augment_p"] == two[0][case]["augment_p"] == pytest.approx(0.256)


def flat(state):
    return torch.cat([value.flatten().double() for value in state.values()])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_all_processes_end_with_the_same_weights(two, name, kind):
    for key, value in two[0][name, kind].items():
        assert torch.equal(value, two[1][name, kind][key]), key


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_samples_do_not_depend_on_the_number_of_processes(two, name, kind):
    """The weights that two processes trained, sampled by one: bit for bit, an odd chunk at the end included."""
    model = build(name, kind)
    model.load_state_dict(two[0][name, kind])
    drawn = draw_samples(model, 22, 0, chunk_size=4, device=CPU, progress=False)
    assert torch.equal(two[0]["samples", name, kind], drawn)
    assert len(two[1]["samples", name, kind]) == 0


def test_scores_do_not_depend_on_the_number_of_processes(one, two):
    assert len(one["scores"]) > 5
    for results in two:
        assert results["scores"] == one["scores"]


def test_draws_are_those_of_one_process_and_buffers_are_averaged(one, two):
    for whole, *parts in zip(one["seen"], two[0]["seen"], two[1]["seen"], strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(part, whole[rank::2])
    for key, value in one["probe"].items():
        torch.testing.assert_close(two[0]["probe"][key], value)


def test_dropout_differs_between_processes_and_leaves_the_shared_stream(two):
    (first, after_first), (second, after_second) = two[0]["masks"], two[1]["masks"]
    assert not torch.equal(first, second)
    assert after_first == after_second == torch.rand(1, generator=torch.Generator().manual_seed(0))


def test_an_error_of_the_first_process_is_that_of_all(two):
    for results in two:
        assert results["errors"][0] == "ValueError: only the first process sees this"
        assert "batch_size = 15: choose a multiple of the 2 processes" in results["errors"][1]


def test_only_the_first_process_writes(folder, two):
    lines = (folder / "two" / "probe" / "training.jsonl").read_text().splitlines()
    assert len(lines) == 1


def test_torchrun_leaves_one_run_with_the_weights_and_samples_of_one_process(tmp_path):
    """From the shell, as README has it. A difference is a share of the way that the weights went."""
    fixed = {"model": "gan", "dataset": "gaussians25", "budget": "2kimg", "device": "cpu"}
    settings = {"hidden": 16, "latent_dim": 2, "timing_seconds": 0.05, "timing_repetitions": 3, "lr_warmup_steps": 0}
    options = [f"--{key}={value}" for key, value in {**fixed, "samples": 300, "out": tmp_path / "two"}.items()]
    overrides = [f"--set={key}={value}" for key, value in settings.items()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    ran = subprocess.run(
        [*torchrun, "-m", "trilemma_bench", "run", *options, *overrides, "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (path,) = (tmp_path / "two").rglob("record.json")
    assert ran.stdout.count(str(path.parent)) == 1

    alone = {**fixed, "settings": settings, "progress": False, "say": lambda text: None}
    weights = path.parent / WEIGHTS_FILE
    resampled = tb.run(**alone, samples=300, checkpoint=weights, out=tmp_path / "resampled")
    together = read_record(path)
    assert {name: score.value for name, score in together.scores.items()} == {
        name: score.value for name, score in resampled.scores.items()
    }
    trained = tb.train(**alone, out=tmp_path / "one")
    start = tb.train(
        **{**alone, "settings": {**settings, "lr_generator": 0.0, "lr_discriminator": 0.0}}, out=tmp_path / "start"
    )
    shared, single, start = (flat(load_file(each)) for each in (weights, trained, start))
    assert (single - start).norm() > 0.005 * start.norm()
    assert (shared - single).norm() < TOLERANCE * (single - start).norm()


def free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


@pytest.mark.parametrize("name", ["ddgan", "gan", "stylegan2"])
def test_only_the_gradients_of_the_step_at_hand_are_averaged(name, monkeypatch):
    """All of one network, and not what the other one keeps from its own step."""
    model, sent = build(name, "points"), []
    monkeypatch.setattr(distributed, "average", lambda tensors: sent.append({id(tensor) for tensor in tensors}))
    optimizers, steps = model.optimizers(), []

    def stepped(network):
        gradients = (parameter.grad for parameter in network.parameters())
        assert sent[-1] == {id(gradient) for gradient in gradients if gradient is not None}
        steps.append(network)

    for name, network in (("generator", model.network), ("discriminator", model.discriminator)):
        optimizers[name].register_step_pre_hook(lambda *_, network=network: stepped(network))
    for step in range(3):
        with distributed.SharedStep(model, 0, CPU).around(step):
            model.training_step(torch.randn(16, 2), step, optimizers)
    assert steps.count(model.network) == 3 <= steps.count(model.discriminator)


def test_gradients_that_are_added_to_are_averaged_again(monkeypatch):
    model, sent = Probe(POINTS), []
    monkeypatch.setattr(distributed, "average", sent.append)
    with distributed.SharedStep(model, 0, CPU):
        for _ in range(2):
            model.network(torch.ones(1, 2)).sum().backward()
    assert [len(tensors) for tensors in sent] == [2, 2]


def test_one_process_is_no_group(tmp_path):
    assert (distributed.rank(), distributed.world(), distributed.is_main()) == (0, 1, True)
    assert distributed.on_main(lambda: 5) == 5
    assert distributed.agreed([1.5, True]) == [1.5, True]
    distributed.check_batch(1)
