"""Plots of two columns of a table at the size of a paper, with the Pareto front, for eyes of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trilemma_bench.report import format as fmt
from trilemma_bench.report.annotate import NAMED_ROWS, TOLD_APART, label_points, names_of, numbered
from trilemma_bench.report.axes import (
    FAINT,
    INK,
    SOFT,
    axis_title,
    literal,
    look,
    new_axes,
    new_figure,
    scale,
    style,
    title,
)
from trilemma_bench.report.columns import Column
from trilemma_bench.report.curves import Curve, curves
from trilemma_bench.report.goals import Floats, values
from trilemma_bench.report.published import Published, published
from trilemma_bench.report.table import Row, Table, front_of, near_front

MOST_CURVES = 10
REFERENCE_LINE: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (1, 2)), "zorder": 1}
_FRONT = "Pareto front: none as good in both, better in one"
NEAR_TEXT = "off it by differences not shown to be real"

_RING: dict[str, Any] = {"facecolors": "none", "edgecolors": INK, "linewidths": 0.8}


def shown_rows(table: Table, x: Column, y: Column) -> list[Row]:
    """The competitors that have both values."""
    return [row for row in table.competitors if x.value(row.record) is not None and y.value(row.record) is not None]


def left_out(table: Table, x: Column, y: Column) -> list[str]:
    """A line for each competitor that the plot cannot show, with the reason."""
    lines = []
    for row in table.competitors:
        missing = [column for column in (x, y) if column.value(row.record) is None]
        lines += [
            f"{row.name} is not shown, it has no {c.title}: {fmt.plain(c.reason(row.record))}" for c in missing[:1]
        ]
    return lines


def reference_value(table: Table, column: Column) -> float | None:
    """What real data reach in this column, where the table has such a row."""
    found = (column.value(row.record) for row in table.rows if row.reference)
    return next((value for value in found if value is not None), None)


def scatter(table: Table, x: Column, y: Column, papers: Sequence[Published] = ()) -> Figure:
    """`y` against `x`, a mark for each row, with the front of the two and what real data reach; `papers` are hollow."""
    rows = shown_rows(table, x, y)
    with style():
        figure = new_figure()
        axes = new_axes(figure)
        title(axes, table, f"{y.title} and {x.title.lower() if x.is_time else x.title}")
        set_axes(axes, table, rows, x, y, papers)
        front = np.array(front_of([row.record for row in rows], [x, y]), dtype=bool)
        _draw_front(axes, rows, front, x, y)
        _draw_rows(axes, rows, front, x, y)
        near = np.array(near_front([row.runs for row in rows], [x, y]), dtype=bool)
        draw_near(axes, rows, near, x, y, np.full(len(rows), 4.0))
        draw_reference(axes, table, x, y)
        draw_papers(axes, papers, x, y)
        legend(axes, table, x, y, papers, near=bool(near.any()))
        label_points(axes, rows, names_of(rows, front), x, y, np.full(len(rows), 4.0), front)
    return figure


def shown_curves(table: Table, x: Column, y: Column) -> list[Curve]:
    """The curves with two points or more that have both values, without the others."""
    numbers = {row.number for row in shown_rows(table, x, y)}
    found = (Curve(curve.model, [row for row in curve.rows if row.number in numbers]) for curve in curves(table))
    return [curve for curve in found if len(curve.rows) > 1]


def step_curves(table: Table, found: Sequence[Curve], x: Column, y: Column) -> Figure:
    """`y` against `x` along each curve: one trained model under several settings of its sampling."""
    chosen = found[:MOST_CURVES]
    rows = [row for curve in chosen for row in curve.rows]
    with style():
        figure = new_figure()
        axes = new_axes(figure)
        title(axes, table, f"{y.title} along settings of the sampling")
        set_axes(axes, table, rows, x, y)
        for number, curve in enumerate(chosen, 1):
            color, marker = look(number)
            for row in curve.rows:
                draw_intervals(axes, row, x, y, color)
            points = values(curve.rows, x), values(curve.rows, y)
            name = literal(fmt.short(curve.model))
            axes.plot(*points, f"{marker}-", color=color, markersize=5, linewidth=1, label=name)
        draw_reference(axes, table, x, y)
        if len(rows) <= NAMED_ROWS:  # of more the lines alone are to be seen
            none = np.zeros(len(rows), dtype=bool)
            label_points(axes, rows, names_of(rows, none), x, y, np.full(len(rows), 2.5), none)
        axes.figure.legend(loc="lower center", ncols=5, frameon=False, fontsize=7, columnspacing=1.2)
    return figure


def set_axes(
    axes: Axes, table: Table, rows: Sequence[Row], x: Column, y: Column, papers: Sequence[Published] = ()
) -> None:
    """Scales, limits, and axis titles with unit and direction."""
    for axis, column in (("x", x), ("y", y)):
        reference = reference_value(table, column)
        beside = [] if reference is None else [reference]
        beside += [paper.values[column.key] for paper in _shown_papers(papers, x, y)]
        numbers = np.append(values(rows, column), beside)
        scale(axes, axis, column, numbers, _interval_ends(rows, column))  # type: ignore[arg-type]
        getattr(axes, f"set_{axis}label")(literal(axis_title(column)))


def _interval_ends(rows: Sequence[Row], column: Column) -> Floats:
    """(value, end) for both ends of each interval: K×2."""
    intervals = ((column.value(row.record), column.interval(row.runs)) for row in rows)
    return np.array([(value, end) for value, ends in intervals if ends for end in ends], dtype=float).reshape(-1, 2)


def _draw_front(axes: Axes, rows: Sequence[Row], front: NDArray[np.bool_], x: Column, y: Column) -> None:
    """The border of what is reached: to its far side no row is as good in both and better in one."""
    xs, ys = values(rows, x)[front], values(rows, y)[front]
    order = np.lexsort((ys if x.better == "lower" else -ys, xs))
    where: Any = "steps-post" if x.better == "lower" else "steps-pre"
    axes.plot(xs[order], ys[order], drawstyle=where, color=FAINT, linewidth=0.9, linestyle=(0, (5, 2)), zorder=1.5)


def _draw_rows(axes: Axes, rows: Sequence[Row], front: NDArray[np.bool_], x: Column, y: Column) -> None:
    if len(rows) > TOLD_APART:
        edges = [INK if on_front else "white" for on_front in front]
        axes.scatter(values(rows, x), values(rows, y), 14, color=look(1)[0], edgecolors=edges, linewidths=0.6, zorder=3)
        return
    for row, on_front in zip(rows, front, strict=True):
        color, marker = look(row.number)
        draw_intervals(axes, row, x, y, color)
        edge, width = (INK, 1.2) if on_front else ("white", 0.5)
        at = (values([row], column) for column in (x, y))
        axes.plot(
            *at,
            marker,
            color=color,
            markersize=6.5,
            markeredgecolor=edge,
            markeredgewidth=width,
            zorder=3 + 0.1 * on_front,
        )


def draw_near(axes: Axes, rows: Sequence[Row], near: NDArray[np.bool_], x: Column, y: Column, radii: Floats) -> None:
    """Rings around the marks of `near` rows, of `radii` in points."""
    areas = np.pi * (radii[near] + 2.5) ** 2
    if near.any():
        axes.scatter(values(rows, x)[near], values(rows, y)[near], areas, **_RING, zorder=2.8)


def papers_of(table: Table) -> tuple[Published, ...]:
    return published(table.group["dataset"])


def _shown_papers(papers: Sequence[Published], x: Column, y: Column) -> list[Published]:
    return [paper for paper in papers if x.key in paper.values and y.key in paper.values]


def draw_papers(axes: Axes, papers: Sequence[Published], x: Column, y: Column) -> None:
    """Published numbers: hollow, without a name; their table has the rest."""
    shown = _shown_papers(papers, x, y)
    xs, ys = ([paper.values[column.key] for paper in shown] for column in (x, y))
    axes.scatter(xs, ys, 16, marker="s", facecolors="none", edgecolors=FAINT, linewidths=0.8, zorder=1.2)


def draw_intervals(axes: Axes, row: Row, x: Column, y: Column, color: Any) -> None:
    """The row's 95 % intervals along both axes, as far as they are known, up to the border of the axes."""
    at = {column.key: float(values([row], column)[0]) for column in (x, y)}
    for column, limits, cap in ((x, axes.get_xlim(), "|"), (y, axes.get_ylim(), "_")):
        interval = column.interval(row.runs)
        if interval is None:
            continue
        ends = np.array(interval).clip(min(limits), max(limits))
        points = {x.key: np.full(2, at[x.key]), y.key: np.full(2, at[y.key]), column.key: ends}
        capped = [i for i in range(2) if ends[i] == interval[i]]
        axes.plot(
            points[x.key],
            points[y.key],
            color=color,
            linewidth=0.9,
            marker=cap,
            markersize=4,
            markevery=capped,
            zorder=2,
        )


def draw_reference(axes: Axes, table: Table, x: Column, y: Column) -> None:
    """Real data: a hollow star where both values are known, else a line at the one that is."""
    at_x, at_y = reference_value(table, x), reference_value(table, y)
    if at_x is not None and at_y is not None:
        axes.plot(at_x, at_y, "*", markersize=9, markerfacecolor="white", markeredgecolor=INK, zorder=2.5)
    elif at_y is not None:
        axes.axhline(at_y, **REFERENCE_LINE)
    elif at_x is not None:
        axes.axvline(at_x, **REFERENCE_LINE)


def legend(
    axes: Axes,
    table: Table,
    x: Column,
    y: Column,
    papers: Sequence[Published] = (),
    front_text: str = _FRONT,
    line: Any = (0, (5, 2)),
    near: bool = False,
) -> None:
    """What the marks mean, below the axes, where it covers nothing. near: whether a row has a ring."""
    outlined: dict[str, Any] = {"markerfacecolor": "#dddddd", "markeredgecolor": INK, "markeredgewidth": 1.2}
    axes.plot([], [], marker="o", markersize=6, linestyle=line, linewidth=1, color=FAINT, label=front_text, **outlined)
    if near:
        axes.scatter([], [], 60, label=NEAR_TEXT, **_RING)
    known = [reference_value(table, column) is not None for column in (x, y)]
    if all(known):
        axes.plot([], [], "*", color=INK, markerfacecolor="white", markersize=8, label="real data")
    elif any(known):
        axes.plot([], [], **REFERENCE_LINE, label="real data")
    rows = shown_rows(table, x, y)
    if numbered(rows):
        axes.plot([], [], linestyle="none", marker="$1$", markersize=4, color=SOFT, label="row of the table")
    if len(rows) <= TOLD_APART and any(column.interval(row.runs) for row in rows for column in (x, y)):
        axes.plot([], [], color=SOFT, linewidth=0.9, marker="|", markersize=5, label="95 % interval")
    if _shown_papers(papers, x, y):
        hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": FAINT, "markersize": 4}
        axes.plot([], [], "s", label="published, on the hardware of the time: not ranked", **hollow)
    # the two long texts stand below one another
    columns = 2 if near and len(axes.get_legend_handles_labels()[0]) < 5 else 3
    axes.figure.legend(loc="lower center", ncols=columns, frameon=False, fontsize=7, columnspacing=1.2)
