"""Memorisation: how near generated samples are to the training samples (Alaa et al. 2022).

Candidates for the nearest are found by a matrix product in float64, a tile of the N×M distances at a time; wherever its
rounding could change the answer, single pairs are measured, so that the answer does not depend on the tile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.distances import SINGLE, direct_distances, in_single
from trilemma_bench.metrics.intervals import share_estimate

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
    nearest = [_nearest(part.double(), training, block) for part in generated.split(block)]
    indices, distances = (torch.cat(column) for column in zip(*nearest, strict=True))
    return Pairs(torch.arange(len(generated), device=generated.device), indices, distances)


def _nearest(points: Tensor, training: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Index of and distance to the nearest training sample of each of a block of points."""
    distances = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    indices = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for start in range(0, len(training), block):
        others = training[start : start + block].double()
        i, j, found = _candidates(points, others, distances)
        nearer = distances.scatter_reduce(0, i, found, "amin")
        best = found == nearer[i]
        first = torch.full_like(indices, len(others)).scatter_reduce(0, i[best], j[best], "amin")
        indices = torch.where(nearer < distances, start + first, indices)
        distances = nearer
    return indices, distances


def _candidates(points: Tensor, others: Tensor, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (i, j) that may be nearer than `distances` and be the nearest of point i among these, and how far apart."""
    own, norms = points.square().sum(dim=1, keepdim=True), others.square().sum(dim=1)
    squared = torch.addmm(norms, points, others.mT, alpha=-2).add_(own)
    relative = 16 * (points.shape[1] + 16) * torch.finfo(torch.float64).eps  # of this sum and of the direct one
    error = relative * (own[:, 0] + norms.max()) + 1e-290  # squares may underflow
    nearest = torch.minimum((squared.amin(dim=1) + error).clamp_(min=0).sqrt_(), distances) * (1 + 2 * SINGLE)
    i, j = (squared <= (nearest.square() + error)[:, None]).nonzero().unbind(dim=1)
    lower, upper = (in_single((squared[i, j] + sign * error[i]).clamp_(min=0).sqrt_()) for sign in (-1, 1))
    unsure = lower < upper
    upper[unsure] = direct_distances(points, others, i[unsure], j[unsure])
    return i, j, upper


AUTHENTICITY = Metric(
    "authenticity", authenticity, "higher", "features", "share", "Authenticity", (0.0, 1.0),
    "Alaa et al. 2022, arXiv:2102.08921",
)  # fmt: skip
