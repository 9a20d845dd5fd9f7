"""Places labels beside their points so that they cover neither one another nor the points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_GAPS = np.array([2.0, 8, 16, 26, 38, 52, 68, 90, 120])
_ANGLES = np.deg2rad(np.arange(0, 360, 22.5))
_OUTSIDE, _COVERED, _AMBIGUOUS = 50.0, 20.0, 6.0


def place(anchors: Array, sizes: Array, radii: Array, bounds: Array, obstacles: Array) -> Array:
    """Centres (N×2) for labels of `sizes` (N×2) near `anchors` (N×2), whose marks have `radii` (N). All in pixels.

    bounds: x0, y0, x1, y1 that the labels should stay within. obstacles: boxes (M×4) that they should not cover.
    Each label takes the cheapest of the places around its point, the most crowded points first, in two rounds.
    """
    count = len(anchors)
    marks = _boxes(anchors, 2 * radii[:, None].repeat(2, axis=1)) if count else np.empty((0, 4))
    fixed = np.concatenate([obstacles.reshape(-1, 4), marks])
    candidates = [_candidates(anchors[i], sizes[i], radii[i]) for i in range(count)]
    nearby = [_within_reach(fixed, candidates[i], sizes[i]) for i in range(count)]
    order = np.argsort([np.sort(np.abs(anchors - anchor).sum(1))[:4].sum() for anchor in anchors])
    placed: dict[int, Array] = {}
    for _ in range(2):
        for i in order:
            others = [_boxes(centre[None], sizes[j][None]) for j, centre in placed.items() if j != i]
            cost = _cost(candidates[i], sizes[i], anchors[i], bounds, np.concatenate([nearby[i], *others]))
            cost = cost + _ambiguity(candidates[i], sizes[i], anchors, i)
            placed[i] = candidates[i][cost.argmin()]
    return np.array([placed[i] for i in range(count)]).reshape(-1, 2)


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
    near = np.maximum(boxes[:, None, :2], obstacles[None, :, :2])
    far = np.minimum(boxes[:, None, 2:], obstacles[None, :, 2:])
    covered = np.clip(far - near, 0, None).prod(axis=2)
    outside = np.clip(bounds[:2] - boxes[:, :2], 0, None).sum(1) + np.clip(boxes[:, 2:] - bounds[2:], 0, None).sum(1)
    distance = np.hypot(*(np.abs(centres - anchor) - size / 2).clip(0).T)
    # to the right is where a reader looks first
    to_the_left = 3.0 * (centres[:, 0] < anchor[0])
    return distance + to_the_left + _OUTSIDE * outside + _COVERED * (covered.sum(1) + 20 * (covered > 0).sum(1))
