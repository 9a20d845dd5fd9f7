"""What a GPU is for: checks, the paper's speed claims, training throughput, and the trilemma under equal budgets.

    python benchmarks/gpu.py --out results/gpu [--minutes 9.5] [--parts checks speed throughput trilemma]

Made to be run in pieces: each finding is a file below --out, and the same command goes on with what is missing; no
piece is begun after --minutes. `summary.md` has the tables so far. On a CPU: --dataset stacked_digits --budget 20s.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import machine
from model_rates import (
    build,
    peaks_of,
    random_images,
    sampling_speed,
    spec_of,
    speed_table,
    throughput,
    throughput_table,
    trainable_models,
)

import trilemma_bench as tb
from trilemma_bench import registry
from trilemma_bench.environment import resolve_device
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.images import to_float
from trilemma_bench.precision import arithmetic
from trilemma_bench.sampling import draw_samples

# Claims C1 to C3: the systems of the paper's table 1 whose times it quotes, DDGAN first. Weights do not matter.
SPEED_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ddgan", ()),
    ("stylegan2", ()),
    ("ddim", ("sampling_steps=50",)),
    ("ddpm", ()),
    ("score-sde-ve", ("sampler=pc",)),
    ("score-sde-vp", ("sampler=pc",)),
    ("score-sde-vp", ("sampler=ode",)),
    ("dpm-solver++", ()),
    ("edm", ()),
    ("flow-matching", ()),
    ("meanflow", ()),
    ("vae", ()),
)
FAST = ("sampling.precision=auto", "sampling.cuda_graphs=true")
TRILEMMA = ("real-data", "ddgan", "ddpm", "ddim", "flow-matching", "stylegan2", "vae")
STEPS = 3  # of training, in a check


@dataclass(frozen=True)
class Piece:
    """One finding: the file that it goes to, what finds it."""

    part: str
    name: str
    find: Callable[[], dict[str, Any]]

    def path(self, out: Path) -> Path:
        return out / self.part / f"{self.name}.json"


def check(name: str, dataset: str, device: torch.device) -> dict[str, Any]:
    """Whether a model trains some steps and samples on the device as its recipe has it, with finite results."""
    model, settings = build(name, dataset, device)
    optimizers = model.optimizers()
    batch = to_float(random_images(spec_of(dataset))[: settings.training.batch_size]).to(device)
    with arithmetic(settings.training.precision, device):
        losses = [model.training_step(batch, step, optimizers) for step in range(STEPS)]
    samples = draw_samples(model, 4, 0, chunk_size=4, device=device, progress=False)
    numbers = [{key: float(loss) for key, loss in each.items()} for each in losses]
    if not all(math.isfinite(value) for each in numbers for value in each.values()):
        raise TrilemmaError(f"losses {numbers}")
    return {"model": name, "losses": numbers, "samples": list(samples.shape), "precision": settings.training.precision}


def equal_budget(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A run of the harness; its record is below --out, this only names it."""
    trained = name != "real-data"
    record = tb.run(
        model=name,
        dataset=options.dataset,
        budget=options.budget if trained else None,
        samples=options.samples if trained else None,
        protocol=options.protocol,
        device=options.device,
        out=options.out,
        progress=False,
    )
    return {"model": name, "run": record.id, "scores": {key: score.value for key, score in record.scores.items()}}


def pieces(options: argparse.Namespace) -> Iterator[Piece]:
    """All pieces of the chosen parts, in the order of their worth."""
    device, dataset = resolve_device(options.device), options.dataset
    known = [name for name in registry.models.names() if name != "real-data"]
    if "checks" in options.parts:
        yield from (Piece("checks", name, lambda n=name: check(n, dataset, device)) for name in known)
    if "speed" in options.parts:
        for name, overrides in SPEED_ROWS:
            if name not in known:
                continue
            for kind, more in (("float32", ()), ("fast", FAST)):
                label = "-".join([name, *(each.partition("=")[2] for each in overrides), kind])
                call = lambda n=name, o=(*overrides, *more): sampling_speed(n, dataset, device, o)  # noqa: E731
                yield Piece("speed", label, call)
    if "throughput" in options.parts:
        peaks = peaks_of(device)
        for name in trainable_models():
            yield Piece("throughput", name, lambda n=name: throughput(n, dataset, device, options.seconds, peaks))
    if "trilemma" in options.parts:
        yield from (
            Piece("trilemma", name, lambda n=name: equal_budget(n, options))
            for name in TRILEMMA
            if name in registry.models.names()
        )


def work(options: argparse.Namespace) -> None:
    """Does what is missing until the time is up; what fails leaves a file that says so, and is tried again."""
    end = time.monotonic() + 60 * options.minutes
    for piece in pieces(options):
        path = piece.path(options.out)
        if path.exists() and "error" not in json.loads(path.read_text()):
            continue
        if time.monotonic() > end:
            print("time is up: the same command goes on from here", flush=True)
            break
        start = time.perf_counter()
        try:
            found = piece.find()
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
        outcome = found.get("error", "done")
        print(f"{piece.part} {piece.name}: {outcome} ({time.perf_counter() - start:.0f} s)", flush=True)
        write_summary(options.out)


def write_summary(out: Path) -> None:
    """`summary.md`: the tables of all that has been found."""
    found = {part: _findings(out / part) for part in ("checks", "speed", "throughput", "trilemma")}
    failed = [
        f"- {part} {name}: {facts['error']}"
        for part, rows in found.items()
        for name, facts in rows.items()
        if "error" in facts
    ]
    good = {part: [facts for facts in rows.values() if "error" not in facts] for part, rows in found.items()}
    text = [f"# Measured on {machine()}", "", f"{len(good['checks'])} models train and sample."]
    for title, kind in (("Sampling, float32", "float32"), ("Sampling, fastest settings", "fast")):
        rows = [facts for name, facts in found["speed"].items() if name.endswith(kind) and "error" not in facts]
        text += ["", f"## {title}", "", speed_table(rows)] if rows else []
    text += ["", "## Training", "", throughput_table(good["throughput"])] if good["throughput"] else []
    text += ["", "## Failed", "", *failed] if failed else []
    (out / "summary.md").write_text("\n".join(text) + "\n")


def _findings(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.5, help="after which no piece is begun")
    parser.add_argument("--parts", nargs="+", default=["checks", "speed", "throughput", "trilemma"])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--budget", default="5m", help="of each model in the trilemma")
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--protocol", default="cifar-resnet56")
    parser.add_argument("--seconds", type=float, default=15.0, help="of training, for each rate")
    parser.add_argument("--device", default="auto")
    work(parser.parse_args())


if __name__ == "__main__":
    main()
