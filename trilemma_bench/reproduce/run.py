"""A reproduction from end to end: the suite's runs, the timed systems, the figures, the verdicts, the page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trilemma_bench import api
from trilemma_bench.config import configs_dir
from trilemma_bench.datasets import open_dataset
from trilemma_bench.environment import device_name, resolve_device
from trilemma_bench.errors import TrilemmaError, unknown_name
from trilemma_bench.record import Speed
from trilemma_bench.report import check_ours, write_report
from trilemma_bench.reproduce import ddgan_paper, figures, page
from trilemma_bench.reproduce.claims import Findings, judge
from trilemma_bench.reproduce.timing import System, TimedSystem, untrained_speed
from trilemma_bench.results import RECORD_NAME
from trilemma_bench.runs import Runs
from trilemma_bench.suite import Suite, SuiteRun, read_suite, run_suite

PAPERS = {"ddgan-paper": ddgan_paper}
SCATTERED = 2000  # points of each method in figure 6


@dataclass(frozen=True)
class Scale:
    """dataset: whose recipes the timed systems follow. more: settings of the clock."""

    dataset: str
    systems: dict[str, System]
    more: Mapping[str, Any] = field(default_factory=dict)


SMALL = {"channels": 16, "channel_multipliers": [1, 2]}
SCALES = {
    "cpu": Scale(
        "stacked_digits",
        {
            "ddgan": System("ddgan", {**SMALL, "res_blocks": 2}),
            "stylegan2": System("stylegan2"),
            "ddim": System("ddim", {**SMALL, "res_blocks": 2, "sampling_steps": 50}),
            "ddpm": System("ddpm", {**SMALL, "res_blocks": 2, "sampling_steps": 1000}),
            "score-sde-ve": System("score-sde-ve", {**SMALL, "res_blocks": 8}),
        },
        {"timing_batch": 10, "timing_seconds": 5.0},
    ),
    "gpu": Scale(
        "cifar10",
        {
            "ddgan": System("ddgan"),
            "stylegan2": System("stylegan2"),
            "ddim": System("ddim", {"sampling_steps": 50}),
            "ddpm": System("ddpm"),
            "score-sde-ve": System("score-sde-ve", {"res_blocks": 8}),  # deep: the paper's row has that one's FID
        },
    ),
}
FIGURE_2 = (
    "Figure 2: the exact denoising distribution q(x_{t−1} | x_t) of a mixture in one dimension, in the step that is "
    "multimodal for most x_t; grey: q(x_{t−1})"
)
FIGURE_6 = "Figure 6: samples of each method on the 25 Gaussians, with equal budgets"


def reproduce(
    paper: str,
    scale: str,
    out: Path,
    device: str,
    progress: bool,
    say: Callable[[str], None],
    seeds: Sequence[int],
) -> Path:
    """Checks every claim and writes records, figures and pages into `out`; returns the page of verdicts.

    Everything is trained and timed once with each of `seeds`. What was trained there before is not trained again.
    Raises UsageError for an unknown paper or scale, and where the report would replace another's files.
    """
    chosen, known = _known(paper, scale)
    check_ours(out / "report")  # half an hour before it is written
    suite = read_suite(configs_dir() / "suites" / f"{paper}-{scale}.toml").with_seeds(seeds)
    result = run_suite(suite, say, device=device, out=out, progress=progress)
    times = _timed(known, resolve_device(device), seeds, say)
    shares = figures.figure_2(chosen.SCHEDULES, out / "figure-2.png")
    figures.figure_6(_scattered(suite, result.named, out, device, say), out / "figure-6.png")
    runs = {name: Runs(tuple(records)) for name, records in result.named.items()}
    findings = Findings(runs, {name: system.speeds for name, system in times.items()}, shares)
    outcome = page.Outcome(
        title=chosen.TITLE,
        scale=scale,
        machine=device_name(resolve_device(device)),
        seeds=seeds,
        verdicts=[judge(claim, findings, scale) for claim in chosen.CLAIMS],
        times={name: system.facts() for name, system in times.items()},
        figures={"figure-2.png": FIGURE_2, "figure-6.png": FIGURE_6},
    )
    verdicts = page.write(outcome, out)
    write_report(result.records, out / "report", paths=[out / record.place / RECORD_NAME for record in result.records])
    return verdicts


def _known(paper: str, scale: str) -> tuple[Any, Scale]:
    """The module of the paper, and the scale."""
    if paper not in PAPERS:
        raise unknown_name("paper", paper, PAPERS)
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    return PAPERS[paper], SCALES[scale]


def _timed(
    scale: Scale, device: torch.device, seeds: Sequence[int], say: Callable[[str], None]
) -> dict[str, TimedSystem]:
    """All systems with one seed, then with the next: what the machine does meanwhile is no single system's."""

    def timed(name: str, seed: int) -> tuple[Speed, int]:
        say(f"timing {name}, seed {seed}")
        return untrained_speed(scale.systems[name], scale.dataset, device, seed, scale.more)

    rounds = [{name: timed(name, seed) for name in scale.systems} for seed in seeds]
    return {
        name: TimedSystem([found[name][0] for found in rounds], parameters=rounds[0][name][1]) for name in scale.systems
    }


def _scattered(
    suite: Suite, runs: Collection[str], out: Path, device: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Points of the data, and of each run on the 25 Gaussians with the first seed, unless its checkpoint is gone."""
    points = {"data": open_dataset("gaussians25").load("train").samples[:SCATTERED].numpy()}
    for item in suite.run:
        if item.dataset == "gaussians25" and item.name in runs and item.seed == suite.run[0].seed:
            try:
                points[item.name] = _points(item, out, device)
            except TrilemmaError as error:
                say(f"figure 6 is without {item.name}: {error}")
    return points


def _points(item: SuiteRun, out: Path, device: str) -> Any:
    """Points N×2 of a run that was trained below `out`."""
    path = out / "samples.npz"
    api.sample(
        path, model=item.model, dataset=item.dataset, settings=item.set, budget=item.budget, seed=item.seed,
        samples=SCATTERED, device=device, out=out, progress=False,
    )  # fmt: skip
    points = np.load(path)["points"]
    path.unlink()
    return points
