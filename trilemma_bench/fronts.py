"""Which rows no other row beats, and how much of all goals the best of them reach together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(values: ArrayLike, directions: Sequence[Literal["higher", "lower"]]) -> NDArray[np.bool_]:
    """Which rows of `values` (N×D) no other row dominates: bool N.

    Equal rows are kept together; a row with a NaN is never on the front.
    """
    known = ~np.isnan(np.asarray(values, dtype=float).reshape(-1, len(directions))).any(axis=1)
    return known & ~dominance(values, directions).any(axis=1)


def dominance(values: ArrayLike, directions: Sequence[Literal["higher", "lower"]]) -> NDArray[np.bool_]:
    """By which rows of `values` (N×D) each is dominated: bool N×N, at [i, j] whether j dominates i.

    A row dominates another when it is at least as good in every column and better in one; `directions` says what is
    better in each of the D columns. A row with a NaN dominates nothing, and nothing dominates it.
    """
    signs = np.array([1.0 if direction == "higher" else -1.0 for direction in directions])
    gains = np.asarray(values, dtype=float).reshape(-1, len(signs)) * signs
    rows = [(gains >= row).all(axis=1) & (gains > row).any(axis=1) for row in gains]
    return np.array(rows, dtype=bool).reshape(len(gains), len(gains))


def hypervolume(gains: ArrayLike) -> NDArray[np.float64]:
    """The volume between the origin and the rows of `gains` (…×N×D, more is better): what at least one row dominates.

    Exact, by slicing (While et al. 2006), for two or three goals or a few more. Rows with a NaN, or below the origin in
    a goal, dominate nothing.
    """
    points = np.atleast_2d(np.asarray(gains, dtype=float))
    return _volume(np.where((points > 0).all(axis=-1, keepdims=True), points, 0.0))


def _volume(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slices along the last goal: each is as thick as the step to the next value, and as large as what reaches it."""
    if points.shape[-1] == 1:
        return np.asarray(points[..., 0].max(axis=-1, initial=0.0))
    order = np.argsort(-points[..., -1], axis=-1)
    points = np.take_along_axis(points, order[..., None], axis=-2)
    heights = -np.diff(points[..., -1], axis=-1, append=0.0)
    if points.shape[-1] == 2:
        return np.asarray((np.maximum.accumulate(points[..., 0], axis=-1) * heights).sum(axis=-1))
    thick = np.flatnonzero(heights.any(axis=tuple(range(heights.ndim - 1))))
    slices = [_volume(points[..., : i + 1, :-1]) * heights[..., i] for i in thick]
    return np.sum(slices, axis=0) if slices else np.zeros(points.shape[:-2])
