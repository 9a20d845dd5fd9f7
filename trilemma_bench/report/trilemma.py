"""The trilemma at a glance: quality against speed, coverage as colour and size, and a triangle for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from trilemma_bench.report.columns import Column
from trilemma_bench.report.plots import (
    FAINT,
    INK,
    NAMED_ROWS,
    SOFT,
    Floats,
    axis_title,
    draw_intervals,
    draw_reference,
    label_points,
    legend,
    literal,
    names_of,
    new_figure,
    set_axes,
    short,
    shown_rows,
    style,
    title,
    values,
)
from trilemma_bench.report.table import Row, Table

# as many as can be read at a glance; the front and the best quality come first
TRIANGLES = 8
_CORNERS = np.deg2rad([90, 210, 330])  # quality, coverage, speed
_COLOURS = colormaps["cividis"]


def trilemma(table: Table, quality: Column, coverage: Column) -> Figure:
    """Quality (y) against time per image (x), coverage as colour and size; beside it a triangle for each row."""
    rows = shown_rows(table, table.speed, quality)
    compared = [row for row in rows if coverage.value(row.record) is not None]
    with style():
        figure = new_figure(12.5 if len(compared) > 1 else 7.8, 6.2)
        grid = figure.add_gridspec(1, 2, width_ratios=(8, 4)) if len(compared) > 1 else figure.add_gridspec(1, 1)
        if len(compared) > 1:
            front_first = sorted(compared, key=lambda row: not row.front)
            _triangles(figure, grid[1], front_first, (quality, coverage, table.speed))
        axes = figure.add_subplot(grid[0])
        title(axes, table, "the trilemma")
        _bubbles(axes, table, rows, quality, coverage)
    return figure


def _bubbles(axes: Axes, table: Table, rows: list[Row], quality: Column, coverage: Column) -> None:
    set_axes(axes, table, rows, table.speed, quality)
    xs, ys, covered = (values(rows, column) for column in (table.speed, quality, coverage))
    norm = _coverage_scale(covered)
    areas = 70 + 380 * np.nan_to_num(norm(covered).filled(0.0))
    front = np.array([row.front for row in rows], dtype=bool)
    for i, row in enumerate(rows):
        draw_intervals(axes, row, table.speed, quality, SOFT)
        known = not np.isnan(covered[i])
        face = _COLOURS(norm(covered[i])) if known else "white"
        edge, width = (INK, 2.4) if row.front else (FAINT, 0.8)
        marker = "o" if known else "D"
        axes.scatter(xs[i], ys[i], areas[i], color=face, marker=marker, edgecolors=edge, linewidths=width, zorder=3)
    draw_reference(axes, table, table.speed, quality)
    axes.get_figure().colorbar(  # type: ignore[union-attr]
        ScalarMappable(norm, _COLOURS), ax=axes, pad=0.02, aspect=32, label=literal(axis_title(coverage, "y"))
    )
    legend(axes, table, table.speed, quality, "Pareto front: no row is better in all three", line="none")
    label_points(axes, _labels(rows, coverage), xs, ys, np.sqrt(areas / np.pi), front)


def _coverage_scale(covered: Floats) -> Normalize:
    """From 0 to 1 for shares, else to the highest value."""
    return Normalize(0, max(1.0, float(np.nanmax(covered))) if not np.isnan(covered).all() else 1.0)


def _labels(rows: list[Row], coverage: Column) -> list[str]:
    if len(rows) > NAMED_ROWS:
        return names_of(rows, np.array([row.front for row in rows]))
    return [f"{row.name}\n{_coverage_text(row, coverage)}" for row in rows]


def _coverage_text(row: Row, coverage: Column) -> str:
    value = coverage.value(row.record)
    return f"no {coverage.short}" if value is None else f"{coverage.short} {coverage.text(value, row.record)}"


def goodness(column: Column, numbers: Floats) -> Floats:
    """How near each value comes to the best: 1 for it, 0 for the worst or what is ten times worse, if that is farther.

    Times and Fréchet distances on a logarithmic scale; where more is better, the share of the best.
    """
    if column.better == "higher":
        return np.clip(numbers / (numbers.max() or 1.0), 0, 1)
    if (numbers > 0).all():
        decades = np.log10(numbers / numbers.min())
        return 1 - decades / max(1.0, decades.max())
    return 1 - (numbers - numbers.min()) / (np.ptp(numbers) or 1.0)


def _triangles(figure: Figure, place: SubplotSpec, rows: list[Row], columns: tuple[Column, ...]) -> None:
    reached = np.stack([goodness(column, values(rows, column)) for column in columns], axis=1)
    covered = values(rows, columns[1])
    norm = _coverage_scale(covered)
    shown = rows[:TRIANGLES]
    across = 1 if len(shown) < 4 else 2
    down = -(-len(shown) // across)
    grid = place.subgridspec(down + 1, across, height_ratios=[*[1] * down, 0.12])
    more = f"\n{len(rows) - len(shown)} more in the table" if len(rows) > len(shown) else ""
    caption = figure.add_subplot(grid[-1, :])
    caption.text(0.5, 0.5, f"corner: best of these rows · centre: worst{more}", ha="center", fontsize=9, color=SOFT)
    caption.axis("off")
    for i, row in enumerate(shown):
        axes = figure.add_subplot(grid[i // across, i % across])
        _triangle(axes, row, reached[i], _COLOURS(norm(covered[i])))


def _triangle(axes: Axes, row: Row, reached: Floats, color: Any) -> None:
    """One row: a corner for each goal; the better in it, the nearer to the corner."""
    corners = np.stack([np.cos(_CORNERS), np.sin(_CORNERS)], axis=1)
    for ring in (1.0, 0.5):
        axes.fill(*(ring * corners).T, facecolor="none", edgecolor="#c8c8c8", linewidth=0.9, zorder=1)
    for corner in corners:
        axes.plot(*np.stack([np.zeros(2), corner]).T, color="#e0e0e0", linewidth=0.9, zorder=1)
    # a row that is worst in a goal still shows as a thin shape
    shape = corners * np.maximum(reached, 0.05)[:, None]
    axes.fill(*shape.T, facecolor=color, edgecolor=INK, linewidth=2.0 if row.front else 0.7, zorder=2)
    for (x, y), name, side in zip(corners, ("quality", "coverage", "speed"), ("left", "center", "center"), strict=True):
        at = (x + 0.1, y - 0.06) if name == "quality" else (x, y - 0.12)
        axes.text(*at, name, fontsize=8, color=SOFT, ha=side, va="center" if name == "quality" else "top")
    axes.set_title(literal(short(row.name, 26)), fontsize=9.5, weight="bold" if row.front else "normal", pad=3)
    axes.set(xlim=(-1.15, 1.15), ylim=(-0.95, 1.1), aspect="equal")
    axes.axis("off")
