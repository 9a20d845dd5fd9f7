"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

All four count which samples lie in which balls. Distances are found fast by a matrix product in float64; wherever its
rounding could change an answer, the direct form |x − y| decides, which does not depend on the block, so neither does
the result. Only a block of the N×M distances exists at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trilemma_bench.contracts import Metric
from trilemma_bench.errors import TrilemmaError

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

BLOCK_ELEMENTS = (
    2**21
)  # float64 distances held at a time: 16 MiB; more is slower, as fresh pages cost more than they save
_DIRECT = "donot_use_mm_for_euclid_dist"


class Balls(NamedTuple):
    """per_point: int64 N, the number of balls that hold each point; per_centre: int64 M, of points in each ball."""

    per_point: Tensor
    per_centre: Tensor


def nearest_distances(features: Tensor, k: int, block: int | None = None) -> Tensor:
    """Distances of each sample to its k nearest others, ascending.

    features: N×D. Returns float64 N×k. block: samples worked on at a time; it changes memory, never the result.
    Raises TrilemmaError when there are fewer than k + 1 samples.
    """
    if len(features) < k + 1:
        raise TrilemmaError(f"the distance to neighbour k={k} needs at least k+1={k + 1} samples, got {len(features)}")
    features = features.double()
    blocks = _blocks(len(features), len(features), block)
    return torch.cat([_nearest_of_block(features, rows, k) for rows in blocks])


def ball_counts(points: Tensor, centres: Tensor, radii: Tensor, closed: bool, block: int | None = None) -> Balls:
    """How many balls hold each point, and how many points each ball holds.

    points: N×D; centres: M×D; radii: M. closed: whether a point at exactly the radius is inside (`≤`) or not (`<`).
    block: points worked on at a time; it changes memory, never the result.
    """
    points, centres, radii = points.double(), centres.double(), radii.double()
    per_centre = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
    per_point = []
    for rows in _blocks(len(points), len(centres), block):
        inside = _inside(points[rows], centres, radii, closed)
        per_point.append(inside.sum(dim=1))
        per_centre += inside.sum(dim=0)
    return Balls(torch.cat(per_point), per_centre)


def _blocks(count: int, others: int, block: int | None) -> Iterator[slice]:
    size = block or max(1, BLOCK_ELEMENTS // others)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _nearest_of_block(features: Tensor, rows: slice, k: int) -> Tensor:
    """The k smallest of each row's distances to all others: candidates by matrix product, decided directly."""
    block = features[rows]
    norms = features.square().sum(dim=1)
    squared = _shifted_squares(block, features, norms)
    squared.diagonal(rows.start).fill_(torch.inf)  # a sample is not its own neighbour
    values, candidates = squared.topk(k + 1, largest=False)
    nearest = torch.cdist(block[:, None], features[candidates[:, :k]], compute_mode=_DIRECT)[:, 0]
    doubtful = values[:, k] - values[:, k - 1] <= 2 * _rounding(block, norms)[:, 0]
    if doubtful.any():
        distances = torch.cdist(block[doubtful], features, compute_mode=_DIRECT)
        distances[torch.arange(len(distances)), doubtful.nonzero()[:, 0] + rows.start] = torch.inf
        nearest[doubtful] = distances.topk(k, largest=False).values
    return nearest.sort(dim=1).values


def _inside(points: Tensor, centres: Tensor, radii: Tensor, closed: bool) -> Tensor:
    """bool N×M: whether each point is in each ball."""
    norms = centres.square().sum(dim=1)
    margin = _shifted_squares(points, centres, norms - radii.square())
    inside = margin < 0
    doubtful = (margin.abs_() <= _rounding(points, norms)).nonzero()
    for pairs in doubtful.split(max(1, BLOCK_ELEMENTS // points.shape[1])):
        i, j = pairs.unbind(dim=1)
        distance = torch.cdist(points[i, None], centres[j, None], compute_mode=_DIRECT)[:, 0, 0]
        inside[i, j] = distance <= radii[j] if closed else distance < radii[j]
    return inside


def _shifted_squares(x: Tensor, y: Tensor, shift: Tensor) -> Tensor:
    """|x|² − 2x·y + shift, N×M: the squared distances where `shift` is |y|²."""
    return torch.addmm(shift, x, y.mT, alpha=-2).add_(x.square().sum(dim=1, keepdim=True))


def _rounding(x: Tensor, norms: Tensor) -> Tensor:
    """A bound, N×1, on the rounding error of squared distances by matrix product; generous, as it only costs time."""
    dim = x.shape[1]
    return 8 * (dim + 8) * torch.finfo(torch.float64).eps * (x.square().sum(dim=1, keepdim=True) + norms.max())


def precision(comparison: Comparison) -> float:
    """Share of generated samples in a ball around a reference sample (Kynkäänniemi et al. 2019, eq. 1–2).

    A ball's radius is the distance to the k-th nearest other. Raises TrilemmaError under k + 1 reference samples.
    """
    _require("precision", comparison.k_precision_recall, "reference", len(comparison.reference))
    return _share(comparison.precision_balls.per_point)


def recall(comparison: Comparison) -> float:
    """Share of reference samples in a ball around a generated sample (Kynkäänniemi et al. 2019, eq. 1–2).

    Raises TrilemmaError under k + 1 generated samples.
    """
    _require("recall", comparison.k_precision_recall, "generated", len(comparison.generated))
    return _share(comparison.recall_balls.per_point)


def density(comparison: Comparison) -> float:
    """Mean number of reference balls that hold a generated sample, over k; can exceed 1 (Naeem et al. 2020, eq. 3).

    Raises TrilemmaError under k + 1 reference samples.
    """
    _require("density", comparison.k_density_coverage, "reference", len(comparison.reference))
    return float(comparison.density_balls.per_point.double().mean()) / comparison.k_density_coverage


def coverage(comparison: Comparison) -> float:
    """Share of reference balls that hold a generated sample (Naeem et al. 2020, eq. 4).

    Raises TrilemmaError under k + 1 reference samples.
    """
    _require("coverage", comparison.k_density_coverage, "reference", len(comparison.reference))
    return _share(comparison.density_balls.per_centre)


def _share(counts: Tensor) -> float:
    return float((counts > 0).double().mean())


def _require(metric: str, k: int, side: str, count: int) -> None:
    if count < k + 1:
        raise TrilemmaError(f"{metric} needs at least k+1={k + 1} {side} samples, got {count}")


_KYNKAANNIEMI = "Kynkäänniemi et al. 2019, arXiv:1904.06991"
_NAEEM = "Naeem et al. 2020, arXiv:2002.09797"

PRECISION = Metric("precision", precision, "higher", "features", "share", "Precision", (0.0, 1.0), _KYNKAANNIEMI)
RECALL = Metric("recall", recall, "higher", "features", "share", "Recall", (0.0, 1.0), _KYNKAANNIEMI)
DENSITY = Metric("density", density, "higher", "features", "", "Density", (0.0, float("inf")), _NAEEM)
COVERAGE = Metric("coverage", coverage, "higher", "features", "share", "Coverage", (0.0, 1.0), _NAEEM)
