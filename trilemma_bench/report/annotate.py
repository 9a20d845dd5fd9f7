"""Names beside the points of a plot, without overlap, and numbers where there are too many for names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.patheffects
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from trilemma_bench.report import format as fmt
from trilemma_bench.report.axes import INK, SOFT, literal
from trilemma_bench.report.columns import Column
from trilemma_bench.report.goals import Floats, values
from trilemma_bench.report.labels import place
from trilemma_bench.report.table import Row

# beyond this many rows only the front is named, and of that so many, and the others have their numbers in the table;
# beyond that many all look alike, without intervals and numbers
NAMED_ROWS, NAMED_OF_MANY, TOLD_APART = 12, 12, 40
LABEL_WIDTH = 28  # characters, before a label is broken into two lines
LEADER = 4  # the zorder of the line from a point to its label: above all marks


def names_of(rows: Sequence[Row], front: NDArray[np.bool_]) -> list[str]:
    """What is written beside the points: names; of too many rows, those of the front, evenly where it is long."""
    if len(rows) <= NAMED_ROWS:
        return [fmt.wrapped(row.name, LABEL_WIDTH) for row in rows]
    on_front = np.flatnonzero(front)  # the best quality first, which is always among them
    named = set(on_front[np.linspace(0, len(on_front) - 1, min(NAMED_OF_MANY, len(on_front))).round().astype(int)])
    return [fmt.wrapped(row.name, LABEL_WIDTH) if i in named else "" for i, row in enumerate(rows)]


def numbered(rows: Sequence[Row]) -> bool:
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
    if numbered(rows):
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
