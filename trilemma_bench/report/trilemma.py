"""The trilemma at a glance: quality against speed, coverage as colour and size; and a triangle for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from trilemma_bench.report import format as fmt
from trilemma_bench.report.annotate import NAMED_ROWS, TOLD_APART, label_points, names_of
from trilemma_bench.report.axes import FAINT, INK, SOFT, WIDTH, axis_title, literal, new_axes, new_figure, style, title
from trilemma_bench.report.columns import Column, family
from trilemma_bench.report.goals import Floats, goals_of, reached, values
from trilemma_bench.report.notes import FRONT, NEAR
from trilemma_bench.report.plots import (
    NEAR_TEXT,
    draw_intervals,
    draw_near,
    draw_papers,
    draw_reference,
    legend,
    set_axes,
    shown_rows,
)
from trilemma_bench.report.published import Published
from trilemma_bench.report.table import Row, Table

# as many as can be read at a glance, in rows of five; the front and the best quality come first
TRIANGLES, ACROSS = 10, 5
_CORNERS = np.deg2rad([90, 210, 330])  # quality, coverage, speed
_COLOURS = colormaps["cividis"]
_FRONT = "Pareto front: none as good in all, better in one"


def trilemma(table: Table, quality: Column, coverage: Column, papers: Sequence[Published] = ()) -> Figure:
    """Quality (y) against time per image (x), coverage as colour and size; `papers` are hollow squares."""
    rows = shown_rows(table, table.speed, quality)
    with style():
        figure = new_figure()
        axes = new_axes(figure, 0.73)
        title(axes, table, "the trilemma")
        set_axes(axes, table, rows, table.speed, quality, papers)
        _bubbles(axes, table, rows, quality, coverage, papers)
    return figure


def _bubbles(
    axes: Axes, table: Table, rows: list[Row], quality: Column, coverage: Column, papers: Sequence[Published]
) -> None:
    speed = table.speed
    xs, ys, covered = (values(rows, column) for column in (speed, quality, coverage))
    norm = _coverage_scale(covered)
    many = len(rows) > TOLD_APART
    areas = (10 if many else 24) + (20 if many else 110) * np.nan_to_num(norm(covered).filled(0.0))
    front = np.array([row.front for row in rows], dtype=bool)
    known = ~np.isnan(covered)
    front_last = np.argsort(front, kind="stable")
    for which, marker in ((front_last[known[front_last]], "o"), (front_last[~known[front_last]], "D")):
        faces: Any = _COLOURS(norm(covered[which])) if marker == "o" else "white"
        edges, widths = ([INK if on else FAINT for on in front[which]], [1.3 if on else 0.4 for on in front[which]])
        axes.scatter(
            xs[which], ys[which], areas[which], c=faces, marker=marker, edgecolors=edges, linewidths=widths, zorder=3
        )
    for row in [] if many else rows:
        draw_intervals(axes, row, speed, quality, SOFT)
    draw_reference(axes, table, speed, quality)
    draw_papers(axes, papers, speed, quality)
    _colour_bar(axes, norm, coverage)
    radii = np.sqrt(areas / np.pi)
    near = np.array([row.near for row in rows], dtype=bool)
    draw_near(axes, rows, near, speed, quality, radii)
    legend(axes, table, speed, quality, papers, _FRONT, line="none", near=bool(near.any()))
    label_points(axes, rows, _labels(rows, front, coverage), speed, quality, radii, front)


def _colour_bar(axes: Axes, norm: Normalize, coverage: Column) -> None:
    figure: Any = axes.figure
    place = axes.get_position()
    beside = figure.add_axes((place.x1 + 0.015, place.y0, 0.018, place.height))
    figure.colorbar(ScalarMappable(norm, _COLOURS), cax=beside, label=literal(axis_title(coverage)))


def _coverage_scale(covered: Floats) -> Normalize:
    """From 0 to 1 for shares, else to the highest value."""
    return Normalize(0, max(1.0, float(np.nanmax(covered))) if not np.isnan(covered).all() else 1.0)


def _labels(rows: list[Row], front: Any, coverage: Column) -> list[str]:
    names = names_of(rows, front)
    if len(rows) > NAMED_ROWS:
        return names
    return [f"{name}\n{_coverage_text(row, coverage)}" for name, row in zip(names, rows, strict=True)]


def _coverage_text(row: Row, coverage: Column) -> str:
    value = coverage.value(row.record)
    if value is None:
        return f"no {coverage.short}"
    counted = family(coverage.key) == "modes"
    return f"{coverage.short} {coverage.text(value, row.record) if counted else f'{value:.2f}'}"


def triangles(table: Table) -> Figure | None:
    """A triangle for each row with all three goals, the front first; None for fewer than two such rows."""
    goals = goals_of(table)
    rated = reached(table.competitors, goals) if goals else np.empty((0, 3))
    rows = [(row, shares) for row, shares in zip(table.competitors, rated, strict=False) if not np.isnan(shares).any()]
    if len(rows) < 2:
        return None
    rows = sorted(rows, key=lambda item: not item[0].front)
    shown = rows[:TRIANGLES]
    norm = _coverage_scale(values([row for row, _ in rows], goals[1]))
    down = -(-len(shown) // ACROSS)
    titles = [literal(f"{fmt.wrapped(row.name, 21)} {row.mark}".strip()) for row, _ in shown]
    above = 0.3 if any("\n" in title for title in titles) else 0.2
    height = 1.2 * down + 0.15 + above
    with style():
        figure = new_figure(WIDTH, height)
        figure.subplots_adjust(left=0.03, right=0.97, top=1 - above / height, bottom=0.35 / height, hspace=0.3)
        grid = figure.subplots(down, -(-len(shown) // down), squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.axis("off")
        for axes, title, (row, shares) in zip(grid.flat, titles, shown, strict=False):
            _triangle(axes, title, row, shares, _COLOURS(norm(values([row], goals[1])[0])))
        words = _words(table, goals[1], [row for row, _ in shown], len(rows) - len(shown))
        figure.supxlabel(literal(words), fontsize=7, color=SOFT)
    return figure


def _words(table: Table, coverage: Column, rows: Sequence[Row], left_out: int) -> str:
    """What the triangles and the marks beside their names mean."""
    more = f"; {left_out} more in the table" if left_out else ""
    meanings = {FRONT: "Pareto front", NEAR: NEAR_TEXT}
    marks = [f"{mark} {meaning}" for mark, meaning in meanings.items() if any(row.mark == mark for row in rows)]
    corners = "corner: best of these rows, centre: beyond the worst"
    first = f"{fmt.short(table.title)}: {corners}, colour: {coverage.title}{more}"
    return "\n".join([first, "   ".join(marks)])


def _triangle(axes: Axes, title: str, row: Row, reached: Floats, color: Any) -> None:
    """One row: a corner for each goal; the better in it, the nearer to the corner."""
    corners = np.stack([np.cos(_CORNERS), np.sin(_CORNERS)], axis=1)
    for ring in (1.0, 0.5):
        axes.fill(*(ring * corners).T, facecolor="none", edgecolor="#c8c8c8", linewidth=0.6, zorder=1)
    for corner in corners:
        axes.plot(*np.stack([np.zeros(2), corner]).T, color="#e0e0e0", linewidth=0.6, zorder=1)
    # a row that is worst in a goal still shows as a thin shape
    shape = corners * np.maximum(reached, 0.05)[:, None]
    axes.fill(*shape.T, facecolor=color, edgecolor=INK, linewidth=1.2 if row.front else 0.5, zorder=2)
    for (x, y), name, side in zip(corners, ("quality", "coverage", "speed"), ("left", "center", "center"), strict=True):
        at = (x + 0.1, y - 0.06) if name == "quality" else (x, y - 0.12)
        axes.text(*at, name, fontsize=5.5, color=SOFT, ha=side, va="center" if name == "quality" else "top")
    axes.set_title(title, fontsize=6, color=INK if row.front else SOFT, y=1.0, pad=3)
    axes.set(xlim=(-1.15, 1.15), ylim=(-0.95, 1.1), aspect="equal")
    axes.axis("off")
