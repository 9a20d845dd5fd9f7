"""Places labels beside their points so that they cover neither one another nor the points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_GAPS = np.array([2.0, 8, 16, 26, 38, 52, 68, 90, 120])
_ANGLES = np.deg2rad(np.arange(0, 360, 22.5))
_ALONG = np.linspace(0, 1, 25)[:, None]
_OUTSIDE, _COVERED, _AMBIGUOUS, _CROSSED, _PASSED, _HIDDEN = 500.0, 20.0, 6.0, 4000.0, 300.0, 20.0
_ROUNDS = 4


def place(anchors: Array, sizes: Array, radii: Array, bounds: Array, obstacles: Array) -> Array:
    """Centres (N×2) for labels of `sizes` (N×2) near `anchors` (N×2), whose marks have `radii` (N). All in pixels.

    bounds: x0, y0, x1, y1 that the labels should stay within. obstacles: boxes (M×4) that they should not cover.
    Each label takes the cheapest of the places around its point in a few rounds, in the best of a few orders.
    """
    count = len(anchors)
    marks = _boxes(anchors, 2 * radii[:, None].repeat(2, axis=1)) if count else np.empty((0, 4))
    fixed = np.concatenate([obstacles.reshape(-1, 4), marks])
    candidates = [_candidates(anchors[i], sizes[i], radii[i]) for i in range(count)]
    lines = [_lines(candidates[i], sizes[i], anchors[i]) for i in range(count)]
    nearby = [_within_reach(fixed, candidates[i], sizes[i]) for i in range(count)]
    alone = [
        _cost(candidates[i], sizes[i], anchors[i], bounds, nearby[i])
        + _ambiguity(candidates[i], sizes[i], anchors, i)
        + _PASSED * _passed(lines[i], anchors, radii, i)
        + _HIDDEN * _hidden(lines[i], _within_reach(obstacles, candidates[i], sizes[i]))
        for i in range(count)
    ]
    crowded_first = np.argsort([np.sort(np.abs(anchors - anchor).sum(1))[:4].sum() for anchor in anchors])
    orders = (crowded_first, crowded_first[::-1], np.argsort(anchors[:, 0]))
    settled = [_settle(order, candidates, lines, alone, sizes) for order in orders]
    return min(settled, key=lambda found: found[0])[1]


def _settle(
    order: NDArray[np.int_], candidates: Sequence[Array], lines: Sequence[Array], alone: Sequence[Array], sizes: Array
) -> tuple[float, Array]:
    """What all places cost in the last round, and the centres. alone: of each candidate, without the others' labels."""
    chosen: dict[int, int] = {}
    total = 0.0
    for _ in range(_ROUNDS):
        before, total = dict(chosen), 0.0
        for i in order:
            cost = alone[i].copy()
            for j, place in chosen.items():
                if j != i:
                    centre, line = candidates[j][place], lines[j][place]
                    cost += _COVERED * _cover(candidates[i], sizes[i], _boxes(centre[None], sizes[j][None]))
                    cost += _CROSSED * _crossed(candidates[i], sizes[i], lines[i], centre, sizes[j], line)
            chosen[i] = int(cost.argmin())
            total += float(cost.min())
        if chosen == before:
            break
    return total, np.array([candidates[i][chosen[i]] for i in range(len(sizes))]).reshape(-1, 2)


def _passed(lines: Array, anchors: Array, radii: Array, own: int) -> Array:
    """Through how many other marks each of `lines` from point `own` goes: K."""
    gaps = np.hypot(*(lines[:, :, None] - anchors).transpose(3, 0, 1, 2)).min(axis=1)
    return np.asarray(np.delete(gaps < 0.7 * radii, own, axis=1).sum(axis=1), dtype=float)


def _hidden(lines: Array, obstacles: Array) -> Array:
    """How far each of `lines` runs along `obstacles`, as if it were one of them: K."""
    inside = np.all((lines[:, :, None] > obstacles[:, :2]) & (lines[:, :, None] < obstacles[:, 2:]), axis=3)
    return np.asarray(inside.any(axis=2).mean(axis=1) * np.hypot(*(lines[:, -1] - lines[:, 0]).T))


def _crossed(centres: Array, size: Array, lines: Array, other: Array, other_size: Array, line: Array) -> Array:
    """How often the label or line of each of `centres` crosses the line of another label, or its line that label: K."""
    through = _inside(lines, other, other_size).any(axis=1)
    under = _inside(line, centres[:, None], size).any(axis=1)
    return through * 1.0 + under + 0.5 * _intersect(lines[0, 0], lines[:, -1], line[0], line[-1])


def _lines(centres: Array, size: Array, anchor: Array) -> Array:
    """Points along the lines from `anchor` to the labels at `centres`: K×P×2."""
    ends = np.clip(anchor, centres - size / 2, centres + size / 2)
    return np.asarray(anchor + _ALONG * (ends - anchor)[:, None])


def _inside(points: Array, centres: Array, size: Array) -> NDArray[np.bool_]:
    return np.asarray((np.abs(points - centres) < size / 2).all(axis=-1))


def _intersect(start: Array, ends: Array, other_start: Array, other_end: Array) -> NDArray[np.bool_]:
    """Which of the lines from `start` to `ends` (K×2) cross the other line: each has its ends on both sides of it."""

    def side(a: Array, b: Array, point: Array) -> Array:
        return np.asarray((b - a)[..., 0] * (point - a)[..., 1] - (b - a)[..., 1] * (point - a)[..., 0])

    apart = side(other_start, other_end, start) * side(other_start, other_end, ends) < 0
    return np.asarray(apart & (side(start, ends, other_start) * side(start, ends, other_end) < 0))


def _within_reach(boxes: Array, centres: Array, size: Array) -> Array:
    """Those of `boxes` that a label of `size` at one of `centres` could cover."""
    low, high = centres.min(axis=0) - size / 2, centres.max(axis=0) + size / 2
    return boxes[((boxes[:, :2] < high) & (boxes[:, 2:] > low)).all(axis=1)]


def _ambiguity(centres: Array, size: Array, anchors: Array, own: int) -> Array:
    """What a place costs because another point is about as near to it as the label's own: K."""
    gaps = np.hypot(*(np.abs(centres[:, None] - anchors) - size / 2).clip(0).transpose(2, 0, 1))
    others = np.delete(gaps, own, axis=1)
    if not others.size:
        return np.zeros(len(centres))
    return _AMBIGUOUS * np.clip(gaps[:, own] + 14 - others.min(axis=1), 0, None)


def _boxes(centres: Array, sizes: Array) -> Array:
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def _candidates(anchor: Array, size: Array, radius: float) -> Array:
    """Centres at growing gaps from the mark in all directions; at each, the label's near edge touches the gap."""
    angles, gaps = np.meshgrid(_ANGLES, _GAPS)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(-1, 2)
    reach = (radius + gaps).reshape(-1, 1)
    return anchor + directions * reach + np.clip(directions * 1.5, -1, 1) * size / 2


def _cost(centres: Array, size: Array, anchor: Array, bounds: Array, obstacles: Array) -> Array:
    boxes = _boxes(centres, np.broadcast_to(size, centres.shape))
    outside = np.clip(bounds[:2] - boxes[:, :2], 0, None).sum(1) + np.clip(boxes[:, 2:] - bounds[2:], 0, None).sum(1)
    distance = np.hypot(*(np.abs(centres - anchor) - size / 2).clip(0).T)
    # to the right is where a reader looks first
    to_the_left = 3.0 * (centres[:, 0] < anchor[0])
    return distance + to_the_left + _OUTSIDE * outside + _COVERED * _cover(centres, size, obstacles)


def _cover(centres: Array, size: Array, obstacles: Array) -> Array:
    """How much of `obstacles` (M×4) a label at each of `centres` covers, and of how many: K."""
    boxes = _boxes(centres, np.broadcast_to(size, centres.shape))
    near = np.maximum(boxes[:, None, :2], obstacles[None, :, :2])
    far = np.minimum(boxes[:, None, 2:], obstacles[None, :, 2:])
    covered = np.clip(far - near, 0, None).prod(axis=2)
    return np.asarray(covered.sum(1) + 20 * (covered > 0).sum(1))
