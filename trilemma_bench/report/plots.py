"""Plots of two columns of a table at the size of a paper, with the Pareto front, for eyes of every kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import matplotlib.patheffects
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import LOG_FROM, Column
from trilemma_bench.report.goals import Curve, Floats, values
from trilemma_bench.report.labels import place
from trilemma_bench.report.published import Published, published
from trilemma_bench.report.table import Row, Table, front_of, near_front

MARKERS = "osD^vPX<>"
INK, SOFT, FAINT = "#222222", "#555555", "#8a8a8a"
# the text width of ICLR's and NeurIPS's styles, in inches
WIDTH, HEIGHT = 5.5, 3.5
# beyond this many rows only the front is named, and of that so many, and the others have their numbers in the table;
# beyond that many all look alike, without intervals and numbers
NAMED_ROWS, NAMED_OF_MANY, TOLD_APART = 12, 12, 40
LABEL_WIDTH = 28  # characters, before a label is broken into two lines
MOST_CURVES = 10
LEADER = 4  # the zorder of the line from a point to its label: above all marks
REFERENCE_LINE: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (1, 2)), "zorder": 1}
_FRONT = "Pareto front: none as good in both, better in one"
NEAR_TEXT = "off it by differences not shown to be real"

_RING: dict[str, Any] = {"facecolors": "none", "edgecolors": INK, "linewidths": 0.8}

Axis = Literal["x", "y"]


@contextmanager
def style() -> Iterator[None]:
    """Our look, for this block only; SVGs come out the same each time."""
    look = {**seaborn.axes_style("whitegrid"), **seaborn.plotting_context("paper", font_scale=0.9)}
    fixed: dict[str, Any] = {
        "svg.hashsalt": "trilemma",
        "pdf.fonttype": 42,  # letters stay letters
        "axes.edgecolor": FAINT,
        "grid.color": "#e4e4e4",
        "axes.axisbelow": True,
    }
    everything: Any = {**look, **fixed, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(everything):
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """A figure of width × height inches that no global state knows of."""
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def new_axes(figure: Figure, width: float = 0.855) -> Axes:
    """Axes in a fixed place, with room for titles and the legend: to search for the best takes longer than to draw."""
    return figure.add_axes((0.125, 0.225, width, 0.645))


def literal(text: str) -> str:
    """`text` as matplotlib is to print it: a dollar sign starts no formula."""
    return text.replace("$", r"\$")


def look(number: int) -> tuple[Any, str]:
    """The colour and marker of a table's row: both differ, so that either alone tells rows apart."""
    palette = seaborn.color_palette("colorblind")
    return palette[(number - 1) % len(palette)], MARKERS[(number - 1) % len(MARKERS)]


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


def step_curves(table: Table, curves: Sequence[Curve], x: Column, y: Column) -> Figure:
    """`y` against `x` along each curve: one trained model under several settings of its sampling."""
    numbers = {row.number for row in shown_rows(table, x, y)}
    chosen = [Curve(c.model, [row for row in c.rows if row.number in numbers]) for c in curves[:MOST_CURVES]]
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
        axes.figure.legend(loc="lower center", ncols=5, frameon=False, fontsize=7, columnspacing=1.2)
    return figure


def names_of(rows: Sequence[Row], front: NDArray[np.bool_]) -> list[str]:
    """What is written beside the points: names; of too many rows, those of the front, evenly where it is long."""
    if len(rows) <= NAMED_ROWS:
        return [fmt.wrapped(row.name, LABEL_WIDTH) for row in rows]
    on_front = np.flatnonzero(front)  # the best quality first, which is always among them
    named = set(on_front[np.linspace(0, len(on_front) - 1, min(NAMED_OF_MANY, len(on_front))).round().astype(int)])
    return [fmt.wrapped(row.name, LABEL_WIDTH) if i in named else "" for i, row in enumerate(rows)]


def title(axes: Axes, table: Table, text: str) -> None:
    # at a stated height: matplotlib's own search for one takes a tenth of the time of a figure
    axes.set_title(literal(fmt.short(f"{table.title}: {text}", 80)), loc="left", fontsize=9.5, y=1.075, pad=0)
    measured = f"{table.group['samples measured']:,} samples"
    training = table.training and f"trained {table.training}"
    facts = [f"protocol {table.group['protocol']}", measured, training, table.device]
    subtitle = literal(fmt.short(" · ".join(fmt.plain(fact) for fact in facts if fact), 90))
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, fontsize=7, color=SOFT)


def set_axes(
    axes: Axes, table: Table, rows: Sequence[Row], x: Column, y: Column, papers: Sequence[Published] = ()
) -> None:
    """Scales, limits, and axis titles with unit and direction."""
    for axis, column in (("x", x), ("y", y)):
        reference = reference_value(table, column)
        beside = [] if reference is None else [reference]
        beside += [paper.values[column.key] for paper in _shown_papers(papers, x, y)]
        numbers = np.append(values(rows, column), beside)
        _scale(axes, axis, column, numbers, _interval_ends(rows, column))  # type: ignore[arg-type]
        getattr(axes, f"set_{axis}label")(literal(axis_title(column)))


def _interval_ends(rows: Sequence[Row], column: Column) -> Floats:
    """(value, end) for both ends of each interval: K×2."""
    intervals = ((column.value(row.record), column.interval(row.runs)) for row in rows)
    return np.array([(value, end) for value, ends in intervals if ends for end in ends], dtype=float).reshape(-1, 2)


def axis_title(column: Column) -> str:
    """'Time per image (lower is better)': what it is and where the good end is."""
    unit = f", {column.unit}" if column.unit else ""
    return f"{column.title}{unit} ({column.better} is better)"


def _scale(axes: Axes, axis: Axis, column: Column, numbers: Floats, ends: Floats) -> None:
    """Logarithmic for times, and for what may and does span more than LOG_FROM; a zero makes it linear near zero.

    ends: K×2, a value and an end of its interval. They widen the limits, unless one is far wider than the others.
    """
    positive = numbers[numbers > 0]
    wide = len(positive) > 0 and (column.is_time or (column.log and positive.max() > LOG_FROM * positive.min()))
    ticks = getattr(axes, f"{axis}axis")
    set_scale = getattr(axes, f"set_{axis}scale")
    least = 0.02 * float(np.abs(numbers).max()) or 0.05
    if wide and len(positive) == len(numbers):
        set_scale("log")
        least = 0.35
        ends = ends[ends[:, 1] > 0]
    elif wide:
        set_scale("symlog", linthresh=positive.min())
        least = 0.35 * positive.min()
    transform = ticks.get_transform()
    low, high = _padded(transform.transform(numbers), transform.transform(ends.ravel()).reshape(-1, 2), least)
    if ticks.get_scale() == "log":
        low, high = np.clip((low, high), -307, 308)  # what a float can hold
    getattr(axes, f"set_{axis}lim")(*transform.inverted().transform(np.array([low, high])))
    if wide:
        _wide_ticks(ticks, column, dense=ticks.get_scale() == "log" and high - low < 2.5)


def _wide_ticks(ticks: Any, column: Column, dense: bool) -> None:
    if dense:
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ticks.set_minor_formatter(NullFormatter())
    text = fmt.brief_seconds if column.is_time else (lambda value: f"{value:.6g}")
    ticks.set_major_formatter(FuncFormatter(lambda value, _: "" if value < 0 else text(value)))


def _padded(numbers: Floats, ends: Floats, least: float) -> tuple[float, float]:
    low, high = float(numbers.min()), float(numbers.max())
    if len(ends):
        usual = float(np.median(np.abs(ends[:, 1] - ends[:, 0])))
        room = max(high - low, 3 * usual)
        reached = np.append(ends[:, 1].clip(low - room, high + room), numbers)
        low, high = float(reached.min()), float(reached.max())
    pad = max(0.14 * (high - low), least)
    return low - pad, high + pad


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
    if _numbered(rows):
        axes.plot([], [], linestyle="none", marker="$1$", markersize=4, color=SOFT, label="row of the table")
    if len(rows) <= TOLD_APART and any(column.interval(row.runs) for row in rows for column in (x, y)):
        axes.plot([], [], color=SOFT, linewidth=0.9, marker="|", markersize=5, label="95 % interval")
    if _shown_papers(papers, x, y):
        hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": FAINT, "markersize": 4}
        axes.plot([], [], "s", label="published, on the hardware of the time: not ranked", **hollow)
    # the two long texts stand below one another
    columns = 2 if near and len(axes.get_legend_handles_labels()[0]) < 5 else 3
    axes.figure.legend(loc="lower center", ncols=columns, frameon=False, fontsize=7, columnspacing=1.2)


def _numbered(rows: Sequence[Row]) -> bool:
    """Whether rows without a name are told apart by their numbers."""
    return NAMED_ROWS < len(rows) <= TOLD_APART


def label_points(
    axes: Axes, rows: Sequence[Row], names: Sequence[str], x: Column, y: Column, radii: Floats, front: NDArray[np.bool_]
) -> None:
    """Writes `names` beside the points without overlap, then the numbers of the others where rows are told apart by
    them; a thin line leads to what is not right beside its point. radii: of the marks, in points.
    """
    points = np.stack([values(rows, x), values(rows, y)], axis=1).reshape(-1, 2)
    taken = _write(axes, names, points, radii, front, np.empty((0, 4)), inside=len(rows) > NAMED_ROWS)
    if _numbered(rows):
        numbers = ["" if box.any() else str(row.number) for row, box in zip(rows, taken, strict=True)]
        _write(axes, numbers, points, radii, np.zeros_like(front), taken[taken.any(axis=1)], inside=True)


def _write(
    axes: Axes,
    texts: Sequence[str],
    points: Floats,
    radii: Floats,
    strong: NDArray[np.bool_],
    taken: Floats,
    inside: bool,
) -> Floats:
    """Writes `texts` beside `points`; returns their boxes in pixels: N×4, zeros where nothing was written.

    taken: boxes that are to be kept free. inside: what does not fit into the axes is left out.
    """
    figure: Any = axes.figure
    scale = figure.dpi / 72
    pixels, radii = axes.transData.transform(points), radii * scale
    named = np.array([bool(text) for text in texts], dtype=bool)
    drawn = [_text_at(axes, text, at, on) for text, at, on in zip(texts, points, strong, strict=True) if text]
    sizes = np.array([text.get_window_extent().size for text in drawn]).reshape(-1, 2) + np.array([4, 2])
    frame = np.array(axes.get_window_extent().extents)
    marks = np.concatenate([pixels - radii[:, None], pixels + radii[:, None]], axis=1)[~named]
    centres = place(pixels[named], sizes, radii[named], frame, np.concatenate([_obstacles(axes), marks, taken]))
    boxes = np.zeros((len(points), 4))
    boxes[named] = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    for i, text, centre, size in zip(np.flatnonzero(named), drawn, centres, sizes, strict=True):
        if inside and not ((boxes[i, :2] >= frame[:2]) & (boxes[i, 2:] <= frame[2:])).all():
            text.remove()
            boxes[i] = 0
            continue
        text.set_position((centre - pixels[i]) / scale)
        _leader(axes, pixels, pixels[i], centre, size, radii[i])
    return boxes


def _text_at(axes: Axes, name: str, at: Floats, strong: bool) -> Any:
    return axes.annotate(
        literal(name), (at[0], at[1]), (0, 0), textcoords="offset points", ha="center", va="center",
        fontsize=5.5 if name.isdecimal() else 7, linespacing=1.0, color=INK if strong else SOFT, zorder=5,
        annotation_clip=False, path_effects=[matplotlib.patheffects.withStroke(linewidth=1.5, foreground="white")],
    )  # fmt: skip


def _obstacles(axes: Axes) -> Floats:
    """Boxes in pixels around the lines that are drawn, so that labels keep off them; all run along one of the axes."""
    boxes = [np.empty((0, 4))]
    for line in axes.lines:
        points = np.asarray(line.get_path().transformed(line.get_transform()).vertices)
        low, high = np.minimum(points[:-1], points[1:]), np.maximum(points[:-1], points[1:])
        boxes.append(np.concatenate([low - 1, high + 1], axis=1))
    return np.concatenate(boxes)


def _leader(axes: Axes, points: Floats, anchor: Floats, centre: Floats, size: Floats, radius: float) -> None:
    """A line from the point at `anchor` to its label, unless that is right beside it and beside no other point."""
    nearest = np.clip(points, centre - size / 2, centre + size / 2)
    gaps = np.hypot(*(nearest - points).T)
    own = np.clip(anchor, centre - size / 2, centre + size / 2)
    gap = float(np.hypot(*(own - anchor)))
    if gap < radius + 4 and (gaps < gap + 10).sum() < 2:
        return
    # in many pieces, so that what is written later keeps off each of them
    line = axes.transData.inverted().transform(anchor + np.linspace(0, 1, 20)[:, None] * (own - anchor))
    axes.plot(*line.T, color=INK, linewidth=0.5, zorder=LEADER)
