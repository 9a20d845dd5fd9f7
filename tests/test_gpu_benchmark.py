"""The GPU command at tiny scale on the CPU: its parts, its files, and that it goes on where it stopped."""

from __future__ import annotations

import json
from argparse import Namespace

import gpu
import model_rates
import pytest
import torch
from models import CPU, TRAINABLE, of_recipe, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from trilemma_bench.api import options_of
from trilemma_bench.contracts import DataSpec
from trilemma_bench.images import to_float
from trilemma_bench.job import prepare


@pytest.fixture
def options(tmp_path):
    return Namespace(
        out=tmp_path, minutes=1.0, parts=list(gpu.PARTS), dataset="digits", budget="0.3s",
        samples=40, protocol="digits", seconds=0.5, device="cpu", models=None,
        ways=["plain"], set=["training.lr_warmup_steps=3"],
    )  # fmt: skip


@pytest.fixture
def two_models(monkeypatch):
    """Only the quick ones, and no long look for the matrix peak."""
    monkeypatch.setattr(gpu.registry.models, "names", lambda: ["gan", "vae"])
    monkeypatch.setattr(gpu, "trainable_models", lambda: ["vae"])
    monkeypatch.setattr(gpu, "SPEED_ROWS", (gpu.Timed("vae", times=3), gpu.Timed("unknown")))
    monkeypatch.setattr(gpu, "FAST", {})
    monkeypatch.setattr(gpu, "TRILEMMA", {"vae": {}})
    monkeypatch.setattr(model_rates, "peaks_of", lambda device: {"float32": 1e12, "bf16": 2e12})


@pytest.mark.parametrize("way", [gpu.EAGER, gpu.FAST], ids=["eager", "fast"])
@pytest.mark.parametrize("row", gpu.SPEED_ROWS, ids=lambda row: row.model)
def test_a_row_of_the_speed_table_times_the_models_own_sampler(row, way):
    """In proportion, where only a part of its steps is timed."""
    timed, settings = of_recipe(row.model, "cifar10", overrides={**row.overrides, **way})
    own, _ = of_recipe(row.model, "cifar10")
    assert timed.evaluations() * row.times == own.evaluations()
    assert settings.sampling.precision == ("float32" if way == gpu.EAGER else "auto")


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
@pytest.mark.parametrize("name", TRAINABLE)
def test_the_checks_build_every_model_with_few_steps(name, dataset):
    model, _ = of_recipe(name, dataset, overrides=gpu.few_steps(name))
    assert model.evaluations() is None or model.evaluations() <= 20


@pytest.mark.parametrize(("dataset", "protocol"), [("digits", "digits"), ("cifar10", "cifar-resnet56")])
@pytest.mark.parametrize("name", gpu.TRILEMMA)
def test_a_run_of_the_trilemma_has_valid_settings(name, dataset, protocol):
    settings = gpu.SHORT | gpu.TRILEMMA[name] if name != "real-data" else {}
    options = {"budget": "5m", "samples": 50_000} if name != "real-data" else {}
    job = prepare(options_of(name, dataset, settings, options | {"protocol": protocol, "device": "cpu"}))
    stated = {key.partition(".")[2] or key: value for key, value in settings.items()}
    found = job.settings.training.model_dump() | job.settings.sampling.model_dump() | job.settings.model
    on_cpu = {"precision": "float32"} if stated else {}
    assert {key: found[key] for key in stated} == stated | on_cpu


def test_every_part_leaves_its_findings_and_a_summary(options, two_models):
    gpu.work(options)
    files = {
        str(path.relative_to(options.out).with_suffix(""))
        for part in options.parts
        for path in (options.out / part).glob("*")
    }
    assert files == {
        "checks/gan", "checks/vae", "speed/vae", "fast/vae", "throughput/vae", "trilemma/vae",
    }  # fmt: skip
    found = json.loads((options.out / "throughput" / "vae.json").read_text())
    speed = json.loads((options.out / "speed" / "vae.json").read_text())
    assert (speed["nfe"], speed["timed_nfe"]) == (3, 1)
    assert speed["images_per_second"] == pytest.approx(1 / speed["seconds_per_image"])
    plain = found["plain"]
    assert plain["share"] == pytest.approx(plain["images_per_second"] * plain["flops"] / 1e12)
    record = json.loads(next(options.out.glob("digits/vae/*/record.json")).read_text())
    assert record["training"]["settings"]["lr_warmup_steps"] == 3
    summary = (options.out / "summary.md").read_text()
    assert "2 models train and sample" in summary
    assert "Failed" not in summary


def test_ways_that_are_missing_are_measured_beside_those_that_are_known(options, two_models, monkeypatch):
    options.parts = ["throughput"]
    gpu.work(options)
    path = options.out / "throughput" / "vae.json"
    first = json.loads(path.read_text())
    assert "default" not in first
    options.ways = list(model_rates.WAYS)
    gpu.work(options)
    found = json.loads(path.read_text())
    assert found["plain"] == first["plain"]
    assert found["default"]["images_per_second"] > 0
    monkeypatch.setattr(gpu, "throughput", lambda *_: pytest.fail("measured again"))
    gpu.work(options)
    assert json.loads(path.read_text()) == found


def test_a_way_that_the_memory_does_not_hold_leaves_the_others(options, two_models, monkeypatch):
    rate = model_rates.training_rate

    def little_memory(name, dataset, device, seconds, flops, overrides):
        if overrides.get("training.precision") == "float32":
            raise torch.OutOfMemoryError("of 139 GiB none is free")
        return rate(name, dataset, device, seconds, flops, overrides)

    monkeypatch.setattr(model_rates, "training_rate", little_memory)
    options.parts, options.ways, options.seconds = ["throughput"], ["plain", "default"], 0.1
    gpu.work(options)
    found = json.loads((options.out / "throughput" / "vae.json").read_text())
    assert found["plain"]["failed"].startswith("out of memory at batches of ")
    assert (
        f"| {found['plain']['failed']} |  | {found['default']['images_per_second']:,.1f} ("
        in (options.out / "summary.md").read_text()
    )


def test_what_was_found_beside_other_programs_is_said_to_be_too_slow(options, monkeypatch):
    held = iter([3 * 2**30, 2**20])
    monkeypatch.setattr(gpu, "held_by_other_programs", lambda device: next(held))
    monkeypatch.setattr(gpu, "pieces", lambda _: [gpu.Piece("checks", name, dict) for name in ("beside", "alone")])
    gpu.work(options)
    assert "too slow\n\n- checks beside: 3.0 GiB\n" in (options.out / "summary.md").read_text() + "\n"
    assert "alone" not in (options.out / "summary.md").read_text()


def test_what_was_found_is_not_looked_for_again_and_what_failed_is(options, monkeypatch):
    calls = []

    def find(name):
        calls.append(name)
        if name == "bad" and calls.count("bad") == 1:
            raise RuntimeError("out of memory")
        return {"model": name}

    monkeypatch.setattr(gpu, "pieces", lambda _: [gpu.Piece("checks", n, lambda n=n: find(n)) for n in ("good", "bad")])
    gpu.work(options)
    assert "- checks bad: RuntimeError: out of memory" in (options.out / "summary.md").read_text()
    gpu.work(options)
    assert calls == ["good", "bad", "bad"]
    assert "Failed" not in (options.out / "summary.md").read_text()


def test_what_was_found_of_other_code_is_found_anew(options, monkeypatch):
    for source in ("older", "newer", "newer"):
        found = {"code": source}
        monkeypatch.setattr(gpu, "pieces", lambda _, f=found, s=source: [gpu.Piece("checks", "one", lambda: f, (), s)])
        gpu.work(options)
        found["code"] = "never"
    assert json.loads((options.out / "checks" / "one.json").read_text())["code"] == "newer"
    assert gpu.source_of("ddgan") == gpu.source_of("siddm") != gpu.source_of("vae")


def test_nothing_is_begun_when_the_time_is_up(options, monkeypatch):
    options.minutes = 0.0
    monkeypatch.setattr(gpu, "pieces", lambda _: [gpu.Piece("checks", "one", lambda: {})])
    gpu.work(options)
    assert not list(options.out.rglob("*.json"))


def test_the_flops_of_a_step_are_those_of_its_products():
    """A perceptron on points: a forward and twice as much backward, less the input's own gradient."""
    from trilemma_bench.contracts import DataSpec, Trainable

    class Linear(Trainable):
        def __init__(self, data):
            super().__init__(data)
            self.network = torch.nn.Linear(192, 50, bias=False)

        def optimizers(self):
            return {"network": torch.optim.SGD(self.network.parameters(), lr=0.1)}

        def training_step(self, batch, step, optimizers):
            loss = self.network(batch.flatten(1)).square().mean()
            loss.backward()
            return {"loss": loss.detach()}

        def sample(self, count, rng):
            raise NotImplementedError

    spec = DataSpec((3, 8, 8))
    assert model_rates.step_flops(Linear(spec), 16, spec, CPU) == 2 * 2 * 192 * 50


def test_the_peak_is_that_of_a_product_timed_here():
    assert 1e8 < model_rates.matrix_peak(CPU, torch.float32, seconds=0.05) < 1e14


@pytest.mark.parametrize("name", model_rates.trainable_models())
def test_the_operations_of_every_models_step_are_counted(name):
    """With lazy penalties inside, whose second derivatives a counter by modules fails on."""
    spec = DataSpec((3, 16, 16))
    flops = model_rates.step_flops(tiny_model(name, spec), 8, spec, CPU)
    assert flops == model_rates.step_flops(tiny_model(name, spec), 8, spec, CPU) > 1e5


def test_counted_operations_are_those_of_torchs_own_counter():
    spec = DataSpec((1, 8, 8))
    model, batch = tiny_model("ddpm", spec), to_float(model_rates.random_images(spec)[:8])
    with FlopCounterMode(display=False) as counter:
        model.training_step(batch, 1, model.optimizers())
    assert model_rates.step_flops(model, 8, spec, CPU) == counter.get_total_flops() / 8
