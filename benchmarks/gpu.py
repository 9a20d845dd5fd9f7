"""What a GPU is for: checks, the paper's speed claims, training throughput, and the trilemma under equal budgets.

    python benchmarks/gpu.py --out results/gpu [--minutes 9.5] [--parts checks speed fast throughput trilemma]

Made to be run in pieces: each finding is a file below --out, and the same command goes on with what is missing, or of
code that has changed since; no piece is begun after --minutes. `summary.md` has the tables so far. On a CPU: --dataset
stacked_digits --budget 20s.
Compiling takes minutes a model: `--ways plain uncompiled` leaves it out of the throughput, and the same command without
it measures the rest; `--set training.compile=true` brings it into the trilemma, outside of the budgets.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import machine
from model_rates import (
    WAYS,
    build,
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
from trilemma_bench.config import model_schema, parse_overrides
from trilemma_bench.contracts import GenerativeModel
from trilemma_bench.environment import resolve_device
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.images import to_float
from trilemma_bench.memory import held_by_other_programs
from trilemma_bench.precision import arithmetic, in_fast_format
from trilemma_bench.record import SHARED_FROM_BYTES
from trilemma_bench.sampling import draw_samples, drawing
from trilemma_bench.settings import SamplingSettings
from trilemma_bench.source import source_digest


@dataclass(frozen=True)
class Timed:
    """A row of the speed table. times: how many times the steps that are timed the model's own sampler takes."""

    model: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    times: int = 1


# Claims C1 to C3: the systems of the paper's table 1 whose times it quotes, DDGAN first; of Score SDE the deep ones, as
# the FIDs there are. Weights do not matter.
DEEP = {"res_blocks": 8}
SPEED_ROWS = (
    Timed("ddgan"),
    Timed("stylegan2"),
    Timed("ddim"),
    Timed("ddpm", {"sampling_steps": 100}, times=10),
    Timed("score-sde-ve", {**DEEP, "sampler": "pc", "sampling_steps": 20}, times=50),
    Timed("score-sde-vp", {**DEEP, "sampler": "pc", "sampling_steps": 20}, times=50),
    Timed("dpm-solver++"),
    Timed("edm"),
    Timed("meanflow"),
    Timed("vae"),
)
EAGER = {"sampling.cuda_graphs": False}
FAST = {"sampling.precision": "auto", "sampling.compile": True, "sampling.cuda_graphs": True}
# Equal budgets are far shorter than the recipes': so are the warm-up of the learning rate, its decay, which is the same
# for all, and the averaging of weights.
SHORT = {
    "training.lr_schedule": "cosine",
    "training.lr_final": 0.05,
    "training.lr_warmup_steps": 100,
    "training.ema_decay": 0.998,
    "sampling.precision": "auto",
    "sampling.timing_seconds": 3,
}
TRILEMMA: dict[str, dict[str, Any]] = {
    "real-data": {},
    "ddgan": {},
    "ddim": {},
    "stylegan2": {},
    "vae": {},
    "flow-matching": {"solver": "euler", "sampling_steps": 50},
}
PARTS = ("checks", "speed", "fast", "throughput", "trilemma")
STEPS, CHECKED = 3, 64  # of training, and samples in each, in a check: whether it works needs no full batch


@dataclass(frozen=True)
class Piece:
    """One finding: the file that it goes to, what finds it, and what it has to have, above what was found before.

    source: of the code that it is about; what was found of other code is found anew.
    """

    part: str
    name: str
    find: Callable[..., dict[str, Any]]
    keys: Sequence[str] = ()
    source: str = ""

    def path(self, out: Path) -> Path:
        return out / self.part / f"{self.name}.json"


def check(name: str, dataset: str, device: torch.device) -> dict[str, Any]:
    """Whether a model trains some steps as its recipe has it, and samples, replayed as not, with finite results."""
    model, settings = build(name, dataset, device, few_steps(name))
    optimizers = model.optimizers()
    count = min(settings.training.batch_size, CHECKED)
    batch = in_fast_format(to_float(random_images(spec_of(dataset))[:count]).to(device))
    with arithmetic(settings.training.precision, device):
        losses = [model.training_step(batch, step, optimizers) for step in range(STEPS)]
    numbers = [{key: float(loss) for key, loss in each.items()} for each in losses]
    if not all(math.isfinite(value) for each in numbers for value in each.values()):
        raise TrilemmaError(f"losses {numbers}")
    plain, replayed = (_sampled(model, settings.sampling, graphs, device) for graphs in (False, True))
    return {
        "model": name,
        "losses": numbers,
        "samples": list(plain.shape),
        "precision": settings.training.precision,
        "largest_difference_of_replayed_samples": int((plain.int() - replayed.int()).abs().max()),
    }


def few_steps(name: str) -> dict[str, Any]:
    """The setting that makes a sampler of many steps take few: to see whether it works."""
    return {"sampling_steps": 10} if "sampling_steps" in model_schema(registry.models.get(name)).model_fields else {}


def _sampled(model: GenerativeModel, settings: SamplingSettings, graphs: bool, device: torch.device) -> torch.Tensor:
    with drawing(model, settings.model_copy(update={"cuda_graphs": graphs}), device):
        return draw_samples(model, 4, 0, chunk_size=4, device=device, progress=False)


def timed_sampling(row: Timed, dataset: str, device: torch.device, more: Mapping[str, Any]) -> dict[str, Any]:
    """The row's speed; where fewer steps are timed than the sampler takes, for all of them, in proportion."""
    found = sampling_speed(row.model, dataset, device, {**row.overrides, **more}, seconds=3.0)
    scaled = {key: found[key] * row.times for key in ("nfe", "seconds_per_image", "latency_seconds")}
    rate = found["images_per_second"] / row.times
    return {**found, **scaled, "images_per_second": rate, "timed_nfe": found["nfe"]}


def equal_budget(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A run of the harness; its record is below --out, this only names it."""
    trained = name != "real-data"
    record = tb.run(
        model=name,
        dataset=options.dataset,
        settings=SHORT | TRILEMMA[name] | parse_overrides(options.set) if trained else {},
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
    known = [name for name in registry.models.names() if name in (options.models or [name])]
    timed = [row for row in SPEED_ROWS if row.model in known]
    finders: dict[str, dict[str, Callable[[], dict[str, Any]]]] = {
        "checks": {name: partial(check, name, dataset, device) for name in known if name != "real-data"},
        "speed": {row.model: partial(timed_sampling, row, dataset, device, EAGER) for row in timed},
        "fast": {row.model: partial(timed_sampling, row, dataset, device, FAST) for row in timed},
        "throughput": {
            name: partial(throughput, name, dataset, device, options.seconds, {})
            for name in trainable_models()
            if name in known
        },
        "trilemma": {name: partial(equal_budget, name, options) for name in TRILEMMA if name in known},
    }
    for part in options.parts:
        keys = options.ways if part == "throughput" else ()
        yield from (Piece(part, name, find, keys, source_of(name)) for name, find in finders[part].items())


def source_of(model: str) -> str:
    return source_digest(registry.models.get(model).__module__) or ""


def work(options: argparse.Namespace) -> None:
    """Does what is missing until the time is up; what fails leaves a file that says so, and is tried again."""
    end = time.monotonic() + 60 * options.minutes
    for piece in pieces(options):
        path = piece.path(options.out)
        known = json.loads(path.read_text()) if path.exists() else {}
        known = {} if "error" in known or known.get("source", "") != piece.source else known
        missing = [key for key in piece.keys if key not in known]
        if known and not missing:
            continue
        if time.monotonic() > end:
            print("time is up: the same command goes on from here", flush=True)
            break
        start = time.perf_counter()
        try:
            found = known | (piece.find(missing) if missing else piece.find())
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        path.parent.mkdir(parents=True, exist_ok=True)
        others = held_by_other_programs(resolve_device(options.device)) or 0
        facts = {"machine": machine(), "source": piece.source, "others_memory_bytes": others}
        path.write_text(json.dumps(found | facts, indent=1) + "\n")
        outcome = found.get("error", "done")
        print(f"{piece.part} {piece.name}: {outcome} ({time.perf_counter() - start:.0f} s)", flush=True)
        write_summary(options.out)


def write_summary(out: Path) -> None:
    """`summary.md`: the tables of all that has been found."""
    found = {part: _findings(out / part) for part in PARTS}
    good = {part: [facts for facts in rows.values() if "error" not in facts] for part, rows in found.items()}
    machines = sorted({facts["machine"] for rows in found.values() for facts in rows.values()})
    text = [f"# Measured on {', '.join(machines)}", ""]
    text += [f"{len(good['checks'])} models train and sample."] if good["checks"] else []
    for title, part in (("Sampling, float32, eager", "speed"), ("Sampling, compiled, bf16, CUDA graphs", "fast")):
        text += ["", f"## {title}", "", speed_table(good[part])] if good[part] else []
    text += ["", "## Training", "", throughput_table(good["throughput"])] if good["throughput"] else []
    if good["trilemma"]:
        text += ["", "## The trilemma, equal budgets (the records have the budget, times and intervals)", ""]
        text += [trilemma_table(good["trilemma"])]
    for title, tell in (
        ("Beside other programs, which held so much of the GPU: too slow", _shared),
        ("Failed", _error),
    ):
        text += ["", f"## {title}", "", *told] if (told := _lines(found, tell)) else []
    (out / "summary.md").write_text("\n".join(text) + "\n")


def _lines(found: Mapping[str, Mapping[str, Any]], tell: Callable[[dict[str, Any]], str]) -> list[str]:
    """A line for each finding of which there is something to tell."""
    return [f"- {part} {name}: {text}" for part in found for name, each in found[part].items() if (text := tell(each))]


def _error(facts: dict[str, Any]) -> str:
    return str(facts.get("error", ""))


def _shared(facts: dict[str, Any]) -> str:
    held = facts.get("others_memory_bytes", 0)
    return f"{held / 2**30:.1f} GiB" if held >= SHARED_FROM_BYTES else ""


def trilemma_table(rows: Sequence[dict[str, Any]]) -> str:
    """The scores that all of the runs have."""
    shared = [name for name in rows[0]["scores"] if all(name in row["scores"] for row in rows)]
    lines = ["| model | run | " + " | ".join(shared) + " |", "| --- | --- |" + " ---: |" * len(shared)]
    for row in rows:
        scores = " | ".join(f"{row['scores'][name]:.4g}" for name in shared)
        lines.append(f"| {row['model']} | {row['run']} | {scores} |")
    return "\n".join(lines)


def _findings(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.5, help="after which no piece is begun")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", help="only these")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--budget", default="5m", help="of each model in the trilemma")
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--protocol", default="cifar-resnet56")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="of training, for the rates")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the trilemma's runs")
    parser.add_argument("--seconds", type=float, default=15.0, help="of training, for each rate")
    parser.add_argument("--device", default="auto")
    work(parser.parse_args())


if __name__ == "__main__":
    main()
