"""Memorisation: how near generated samples are to the training samples (Alaa et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.intervals import share_estimate
from trilemma_bench.metrics.search import nearest_others

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison


class NearestPairs(NamedTuple):
    """Generated samples and their nearest training samples: indices int64 and distances float64, each N."""

    generated: Tensor
    training: Tensor
    distances: Tensor

    def nearest(self, count: int) -> NearestPairs:
        """The `count` pairs of the least distance, ascending."""
        chosen = self.distances.argsort(stable=True)[:count]
        return NearestPairs(*(column[chosen] for column in self))


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


def nearest_pairs(generated: Tensor, training: Tensor, block: int | None = None) -> NearestPairs:
    """Each generated sample (N×D) and its nearest training sample (M×D), the first of them where several are.

    block: samples worked on at a time; it changes memory, never the result. Raises TrilemmaError where D differs.
    """
    if generated.shape[1] != training.shape[1]:
        raise TrilemmaError(
            f"generated samples have {generated.shape[1]} features and training samples {training.shape[1]}: "
            "use one extractor for both"
        )
    index, distances = nearest_others(generated, training, block)
    return NearestPairs(torch.arange(len(generated), device=generated.device), index, distances)


AUTHENTICITY = Metric(
    "authenticity", authenticity, None, "training", "share", "Authenticity", (0.0, 1.0),
    "Alaa et al. 2022, arXiv:2102.08921", convention="distance > the training sample's to its nearest other",
    least=lambda protocol, dim: (1, 2),
)  # fmt: skip
