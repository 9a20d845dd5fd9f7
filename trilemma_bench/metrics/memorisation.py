"""Memorisation: how near generated samples are to the training samples (Alaa et al. 2022).

Candidates for the nearest are found by a matrix product in float64, a tile of the N×M distances at a time; wherever its
rounding could change the answer, the direct form |x − y| decides, so that the answer does not depend on the tile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.intervals import share_estimate
from trilemma_bench.metrics.products import exact_step, rounded_sqrt
from trilemma_bench.metrics.search import direct_distances

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

BLOCK = 1024  # samples along each side of a tile of distances: 8 MiB


class Pairs(NamedTuple):
    """Generated samples and their nearest training samples: indices int64 and distances float64, each N."""

    generated: Tensor
    training: Tensor
    distances: Tensor

    def nearest(self, count: int) -> Pairs:
        """The `count` pairs of the least distance, ascending."""
        chosen = self.distances.argsort(stable=True)[:count]
        return Pairs(*(column[chosen] for column in self))


def authenticity(comparison: Comparison) -> Estimate:
    """Share of generated samples farther from their nearest training sample than that is from the nearest other one.

    Alaa et al. 2022, arXiv:2102.08921. Copies of the training set score 0. New samples of its distribution do not score
    1, but the chance that a sample and its nearest are not each other's nearest: 1/3 in one dimension, 0.38 in two
    (Clark & Evans 1955); of Gaussians 0.5 in five, 0.83 in 64: compare with held-out data. Where the comparison has no
    training samples, its reference stands in for them.

    Raises TrilemmaError under 2 training samples, and for training features of another width.
    """
    training = comparison.training_samples
    if len(training) < 2:
        raise TrilemmaError(f"authenticity needs at least 2 training samples, got {len(training)}")
    pairs = comparison.training_pairs
    authentic = pairs.distances > training.nearest(1)[pairs.training, 0]
    return share_estimate(float(authentic.double().mean()), len(authentic))


def nearest_pairs(generated: Tensor, training: Tensor, block: int = BLOCK) -> Pairs:
    """Each generated sample (N×D) and its nearest training sample (M×D), the first of them where several are.

    block: a tile's side; it changes memory, never the result. Raises TrilemmaError where D differs.
    """
    if generated.shape[1] != training.shape[1]:
        raise TrilemmaError(
            f"generated samples have {generated.shape[1]} features and training samples {training.shape[1]}: "
            "use one extractor for both"
        )
    exact = exact_step([generated, training], torch.float64) > 0
    nearest = [_nearest(part.double(), training, block, exact) for part in generated.split(block)]
    indices, distances = (torch.cat(column) for column in zip(*nearest, strict=True))
    return Pairs(torch.arange(len(generated), device=generated.device), indices, distances)


def _nearest(points: Tensor, training: Tensor, block: int, exact: bool) -> tuple[Tensor, Tensor]:
    """Index of and distance to the nearest training sample of each of a block of points. exact: products are."""
    distances = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    indices = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for start in range(0, len(training), block):
        others = training[start : start + block].double()
        i, j, squared = _candidates(points, others, distances, exact)
        found = rounded_sqrt(squared) if exact else direct_distances(points, others, i, j)
        nearer = distances.scatter_reduce(0, i, found, "amin")
        best = found == nearer[i]
        first = torch.full_like(indices, len(others)).scatter_reduce(0, i[best], j[best], "amin")
        indices = torch.where(nearer < distances, start + first, indices)
        distances = nearer
    return indices, distances


def _candidates(points: Tensor, others: Tensor, distances: Tensor, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (i, j) that may be nearer than `distances` and be the nearest of point i among these others.

    The third are the squares of their distances, but for rounding.
    """
    own, norms = points.square().sum(dim=1, keepdim=True), others.square().sum(dim=1)
    squared = torch.addmm(norms, points, others.mT, alpha=-2).add_(own)
    relative = 0.0 if exact else 8 * (points.shape[1] + 8) * torch.finfo(torch.float64).eps  # generous
    rounding = relative * (own + norms.max())
    limit = torch.minimum(squared.amin(dim=1), distances.square())[:, None] + 2 * rounding
    i, j = (squared <= limit).nonzero().unbind(dim=1)
    return i, j, squared[i, j]


AUTHENTICITY = Metric(
    "authenticity", authenticity, "higher", "features", "share", "Authenticity", (0.0, 1.0),
    "Alaa et al. 2022, arXiv:2102.08921",
)  # fmt: skip
