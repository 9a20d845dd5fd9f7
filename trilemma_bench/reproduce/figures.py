"""The paper's figures 2 and 6, drawn from this code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg", force=False)
import numpy as np
from matplotlib.figure import Figure

from trilemma_bench.reproduce.denoising import GRID, Floats, Step, chain, denoising, marginal, multimodal_share

COLUMNS = 4  # panels in a row
FAINT = "#9aa0a6"


def figure_2(schedules: tuple[int, ...], path: Path) -> dict[int, float]:
    """The exact q(x_{t−1} | x_t) in the step that is multimodal for most x_t, for each T; returns these shares."""
    figure = Figure(figsize=(2.6 * len(schedules), 2.4), layout="constrained")
    shares = {}
    for axes, steps in zip(figure.subplots(1, len(schedules), sharex=True), schedules, strict=True):
        index, step, shares[steps] = _worst(steps)
        for x_t, line in ((-0.6, "-"), (0.05, "--"), (0.6, ":")):
            density = denoising(step, x_t)
            axes.plot(GRID, density / density.max(), line, label=f"$x_t = {x_t}$")
        before = marginal(GRID, step.alpha_bar)
        axes.fill_between(GRID, before / before.max(), color=FAINT, alpha=0.35, linewidth=0)
        axes.set(title=f"T = {steps}, t = {index + 1}", xlabel="$x_{t-1}$", xlim=(-1.8, 1.8), yticks=[])
    figure.legend(*axes.get_legend_handles_labels(), fontsize="small", frameon=False, loc="outside right center")
    figure.supylabel("density, over its maximum", fontsize="medium")
    figure.savefig(path, dpi=160)
    return shares


def _worst(steps: int) -> tuple[int, Step, float]:
    """Index, step and share: of all steps of the chain, or of 60 of a long one."""
    every = chain(steps)
    chosen = np.unique(np.linspace(0, steps - 1, min(steps, 60)).round().astype(int))
    shares = {int(index): multimodal_share(every[index]) for index in chosen}
    index = max(shares, key=lambda each: shares[each])
    return index, every[index], shares[index]


def figure_6(samples: Mapping[str, Floats], path: Path) -> None:
    """Points N×2 of each method on the 25 Gaussians."""
    rows = -(-len(samples) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for place, (name, points) in zip(axes, samples.items(), strict=False):
        place.scatter(points[:, 0], points[:, 1], s=1.5, alpha=0.5, linewidths=0, color="#1f5fa8")
        place.set(title=name, xlim=(-5, 5), ylim=(-5, 5), aspect="equal", xticks=[], yticks=[])
    for empty in axes[len(samples) :]:
        empty.set_visible(False)
    figure.savefig(path, dpi=160)
