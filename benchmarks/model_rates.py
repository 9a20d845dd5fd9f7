"""Training and sampling of every model: images a second, FLOPs, and the share of the machine's measured matrix peak.

    python benchmarks/model_rates.py [--dataset cifar10] [--models ddgan ddpm] [--seconds 20] [--device cuda]
    python benchmarks/model_rates.py --only training --set batch_size=4     # full size on a CPU

Each model as its recipe for the dataset has it (configs/<dataset>/<model>.toml), on random images: the clock does not
see what they show. 'plain' is eager float32; 'uncompiled' is what `trilemma-bench run` does on this device within a
short budget (on CUDA: bf16, replayed as CUDA graphs); 'default' what it does for the whole recipe.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from common import machine
from torch.utils.flop_counter import FlopCounterMode

from trilemma_bench import config, registry
from trilemma_bench.contracts import DataSpec, Split, Trainable
from trilemma_bench.datasets import open_dataset
from trilemma_bench.environment import resolve_device
from trilemma_bench.images import to_float
from trilemma_bench.precision import arithmetic, in_fast_format, matmul_precision
from trilemma_bench.seeding import seed_everything
from trilemma_bench.settings import Settings, TrainingSettings
from trilemma_bench.timing import measure_speed, synchronize
from trilemma_bench.trained import placed
from trilemma_bench.training.checkpoint import Header
from trilemma_bench.training.log import LOG_FILE
from trilemma_bench.training.trainer import Place, Trainer

IMAGES = 4096  # random images that are trained on
COUNTED = 16  # samples at most in a step whose FLOPs are counted: those of one hardly depend on it
WARM_UP = 2  # steps before the clock starts, in which libraries choose their algorithms; the first has lazy penalties
Overrides = Mapping[str, Any]
NONE: Overrides = MappingProxyType({})
WAYS: dict[str, Overrides] = {
    "plain": {"training.precision": "float32", "training.compile": False, "training.cuda_graphs": False},
    "uncompiled": {"training.compile": False},
    "default": {},
}


@dataclass(frozen=True)
class Rate:
    """How fast a model trains. flops: of a training step, an image; share: of the measured matrix peak; said: by the
    training loop, such as what does not work here.
    """

    images_per_second: float
    precision: str
    compiled: bool
    replayed: bool
    batch_size: int
    flops: float
    share: float
    said: list[str]


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """FLOP/s of large square matrix products, the median over about `seconds`."""
    size, together = (8192, 10) if device.type == "cuda" else (1024, 1)  # a GPU is waited for after ten, not each
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(together):
            a @ b
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * together * size**3 / statistics.median(times[2:])


def build(name: str, dataset: str, device: torch.device, overrides: Overrides = NONE) -> tuple[Any, Settings]:
    """The model as its recipe has it, with fresh weights, and its settings on this device."""
    model_class = registry.models.get(name)
    spec, resolved = spec_of(dataset), config.resolve(model_class, model=name, dataset=dataset, overrides=overrides)
    settings = resolved.on(device, spec.is_image)
    seed_everything(0)
    return placed(model_class(spec, **settings.model), device), settings


def spec_of(dataset: str) -> DataSpec:
    return open_dataset(dataset).spec


def random_images(spec: DataSpec) -> torch.Tensor:
    return torch.randint(256, (IMAGES, *spec.shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def training_rate(
    name: str,
    dataset: str,
    device: torch.device,
    seconds: float,
    flops: float,
    overrides: Overrides = NONE,
) -> Rate:
    """The rate of the harness's own loop over `seconds`: data, step, gradients' check and EMA are all in it.

    flops: of a step, an image.
    """
    model, settings = build(name, dataset, device, overrides)
    training = settings.training.model_copy(
        update={"budget": f"{seconds}s", "preview_seconds": 0.0, "checkpoint_seconds": 1e9}
    )
    warm_up(model, training, spec_of(dataset), device)
    with tempfile.TemporaryDirectory() as folder:
        header, said = Header(name, {}, spec_of(dataset).shape, dataset, "", "", ""), list[str]()
        place = Place(Path(folder), device, say=said.append, progress=False)
        trained = Trainer(model, Split(random_images(spec_of(dataset))), training, 0, header, place).run()
        lines = [json.loads(line) for line in (Path(folder) / LOG_FILE).read_text().splitlines()]
    rate = statistics.median(line["images_per_second"] for line in lines)
    way = _way(settings, device) | {"replayed": trained.cuda_graphs}
    return Rate(
        rate, **way, batch_size=training.batch_size, flops=flops,
        share=rate * flops / peaks_of(device)[training.precision], said=said,
    )  # fmt: skip


def _way(settings: Settings, device: torch.device) -> dict[str, Any]:
    """How it trains with these settings."""
    training = settings.training
    replayed = bool(training.cuda_graphs) and device.type == "cuda"
    return {"precision": training.precision, "compiled": training.compile, "replayed": replayed}


def warm_up(model: Trainable, training: TrainingSettings, spec: DataSpec, device: torch.device) -> None:
    """Steps that nobody times."""
    optimizers = model.optimizers()
    batch = in_fast_format(to_float(random_images(spec)[: training.batch_size]).to(device))
    with arithmetic(training.precision, device):
        for step in range(WARM_UP):
            model.training_step(batch, step, optimizers)


class _OneModule(AbstractContextManager):
    """In place of the counter's tracker of modules, whose hooks fail in `autograd.grad` and after `no_grad`."""

    parents = frozenset({"Global"})

    def __exit__(self, *error: object) -> None:
        return None


def step_flops(model: Trainable, batch_size: int, spec: DataSpec, device: torch.device) -> float:
    """FLOPs of a training step, an image: the mean over steps 1 to 4, without what is done every 15 or 16 steps."""
    optimizers, steps = model.optimizers(), 4
    batch = to_float(random_images(spec)[:batch_size]).to(device)
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _OneModule()  # type: ignore[assignment]
    with counter:
        for step in range(1, steps + 1):
            model.training_step(batch, step, optimizers)
    return counter.get_total_flops() / steps / len(batch)


def sampling_speed(
    name: str, dataset: str, device: torch.device, overrides: Overrides = NONE, seconds: float = 10.0
) -> dict[str, Any]:
    """What a record says of the speed: batches of 100 and of one, with weights that nobody trained."""
    model, settings = build(name, dataset, device, overrides)
    timing = settings.sampling.model_copy(update={"timing_seconds": seconds})
    facts = measure_speed(model, timing, device, seed=0).model_dump()
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    return {"model": name, "variant": model.describe(), "parameters": parameters, **facts}


@lru_cache
def peaks_of(device: torch.device) -> dict[str, float]:
    """The measured matrix peak of each precision, FLOP/s."""
    with matmul_precision("highest"):
        return {"float32": matrix_peak(device, torch.float32), "bf16": matrix_peak(device, torch.bfloat16)}


def trainable_models() -> list[str]:
    """Models with a training of their own: samplers of another's network train nothing."""
    classes = {name: registry.models.get(name) for name in registry.models.names()}
    return [name for name, each in classes.items() if issubclass(each, Trainable) and each.trained_as in (None, name)]


def throughput(
    name: str,
    dataset: str,
    device: torch.device,
    seconds: float,
    overrides: Overrides = NONE,
    ways: Sequence[str] = tuple(WAYS),
) -> dict[str, Any]:
    """The rates of one model in these WAYS; where two are the same on this device, measured once.

    A way whose steps the device's memory does not hold is said to have `failed`.
    """
    model, plain = build(name, dataset, device, {**WAYS["plain"], **overrides})
    counted = min(plain.training.batch_size, COUNTED)
    flops, rates = step_flops(model, counted, spec_of(dataset), device), dict[str, Any]()
    for way in ways:
        settings = WAYS[way]
        chosen = config.resolve(
            registry.models.get(name), model=name, dataset=dataset, overrides={**settings, **overrides}
        ).on(device, spec_of(dataset).is_image)
        facts = _way(chosen, device)
        same = [each for each in rates.values() if facts.items() <= each.items()]
        try:
            rates[way] = same[0] if same else asdict(
                training_rate(name, dataset, device, seconds, flops, {**settings, **overrides})
            )  # fmt: skip
        except torch.OutOfMemoryError:
            rates[way] = {"failed": f"out of memory at batches of {chosen.training.batch_size}"}
    return {"model": name, **rates, "peaks": peaks_of(device)}


def throughput_table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| model | GFLOP an image | " + " | ".join(f"{way} images/s" for way in WAYS) + " | the last is | times |"]
    lines.append("| --- | ---: |" + " ---: |" * len(WAYS) + " --- | ---: |")
    for row in rows:
        measured = [row[way] for way in WAYS if "flops" in row.get(way, {})]
        if not measured:
            continue
        first, last = measured[0], measured[-1]
        rates = " | ".join(_rate_cell(row[way]) if way in row else "" for way in WAYS)
        how = f"{last['precision']}{', compiled' * last['compiled']}{', replayed' * last['replayed']}"
        times = "" if first is last else f"{last['images_per_second'] / first['images_per_second']:.2f}"
        lines.append(f"| {row['model']} | {first['flops'] / 1e9:.3g} | {rates} | {how} | {times} |")
    return "\n".join(["Images a second, and of the machine's matrix peak in that precision:", "", *lines])


def _rate_cell(rate: dict[str, Any]) -> str:
    return rate["failed"] if "failed" in rate else f"{rate['images_per_second']:,.1f} ({rate['share']:.1%})"


def speed_table(rows: Sequence[dict[str, Any]], first: str = "ddgan") -> str:
    """Seconds for 100 images, and how many times those of the first row of model `first`."""
    base = next((row["seconds_per_image"] for row in rows if row["model"] == first), float("nan"))
    lines = ["| model | parameters | NFE | s / 100 images | times ddgan | latency of one, s | precision |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    lines += [_speed_line(row, base) for row in rows]
    return "\n".join(lines)


def _speed_line(row: dict[str, Any], base: float) -> str:
    seconds, timed = row["seconds_per_image"], row.get("timed_nfe", row["nfe"])
    evaluations = f"{row['nfe']:g}" + (f" ({timed:g} timed)" if timed != row["nfe"] else "")
    return (
        f"| {row['model']} {row['variant']} | {row['parameters'] / 1e6:.2f} M | {evaluations} | {100 * seconds:.4g} | "
        f"{seconds / base:.4g} | {row['latency_seconds']:.4g} | "
        f"{row['precision']}{', compiled' * row['compiled']}{', CUDA graphs' * row['cuda_graphs']} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--models", nargs="+", default=trainable_models())
    parser.add_argument("--seconds", type=float, default=20.0, help="of training, for each of the rates")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=["training", "sampling"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    device, overrides = resolve_device(options.device), config.parse_overrides(options.overrides)
    peaks = peaks_of(device)
    print(f"{machine()}; matrix peak " + ", ".join(f"{name} {peak / 1e12:.3g} TFLOP/s" for name, peak in peaks.items()))
    common = options.dataset, device
    if options.only != "sampling":
        rows = [throughput(name, *common, options.seconds, overrides) for name in options.models]
        print(f"\n{throughput_table(rows)}")
    if options.only != "training":
        speeds = [sampling_speed(name, *common, overrides, options.seconds) for name in options.models]
        print(f"\n{speed_table(speeds)}")


if __name__ == "__main__":
    main()
