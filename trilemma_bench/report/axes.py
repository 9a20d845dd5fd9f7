"""The look of a plot and its axes: style, titles, and scales that suit what a column can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import LOG_FROM, Column
from trilemma_bench.report.goals import Floats
from trilemma_bench.report.table import Table

MARKERS = "osD^vPX<>"
INK, SOFT, FAINT = "#222222", "#555555", "#8a8a8a"
# the text width of ICLR's and NeurIPS's styles, in inches
WIDTH, HEIGHT = 5.5, 3.5

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


def title(axes: Axes, table: Table, text: str) -> None:
    # at a stated height: matplotlib's own search for one takes a tenth of the time of a figure
    axes.set_title(literal(fmt.short(f"{table.title}: {text}", 80)), loc="left", fontsize=9.5, y=1.075, pad=0)
    measured = f"{table.group['samples measured']:,} samples"
    training = table.training and f"trained {table.training}"
    facts = [f"protocol {table.group['protocol']}", measured, training, table.device]
    subtitle = literal(fmt.short(" · ".join(fmt.plain(fact) for fact in facts if fact), 98))
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, fontsize=7, color=SOFT)


def axis_title(column: Column) -> str:
    """'Time per image (lower is better)': what it is and where the good end is."""
    unit = f", {column.unit}" if column.unit else ""
    return f"{column.title}{unit} ({column.better} is better)"


def scale(axes: Axes, axis: Axis, column: Column, numbers: Floats, ends: Floats) -> None:
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
