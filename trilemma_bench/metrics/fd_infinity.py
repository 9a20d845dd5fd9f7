"""The Fréchet distance of infinitely many generated samples, by extrapolation (Chong & Forsyth 2020).

The distance of n samples is biased upwards by a/n + O(1/n²). It is measured for 15 sizes n and fitted by a line in 1/n,
whose value at 0 is the estimate. That is less biased, not unbiased: what the line leaves of the second order makes it
too low by O((D/n)²), for few samples of each feature by more than its error. It may be negative where the true
distance is near 0. The bias by the reference's own sampling stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.frechet import Moments, add_gram, distance, mean_of, name_on, root_of, symmetric
from trilemma_bench.metrics.frechet_jackknife import CHUNK, Jackknife
from trilemma_bench.seeding import permutation

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

SIZES = 15  # as in the paper
ENOUGH = 20  # samples for each feature: with fewer, the value of a model like the data is too low by an error or so


def fd_infinity(comparison: Comparison) -> Estimate:
    """The extrapolated distance, with its error in closed form. Raises TrilemmaError for too few samples."""
    features, reference = comparison.generated, comparison.reference.moments
    reference = Moments(*(part.to(features.device, torch.float64) for part in reference))
    sizes = subset_sizes(*features.shape)
    root = root_of(reference.covariance)
    distances = [distance(subset, reference, root) for subset in nested_moments(features, sizes)]
    weights = intercept_weights(sizes)
    value = float(weights @ torch.tensor(distances, dtype=torch.float64))
    error = _standard_error(comparison.frechet, sizes, weights)
    return Estimate(value, error, f"{comparison.frechet.method}, through the fit", note=_doubt(*features.shape))


def _doubt(count: int, dim: int) -> str:
    if count >= ENOUGH * dim:
        return ""
    few = f"{count:,} samples are fewer than {ENOUGH} for each of {dim:,} features"
    return f"perhaps too low by more than its error: {few}"


def subset_sizes(count: int, dim: int) -> list[int]:
    """15 sizes at regular intervals, from N/10 or 2D, whichever is more, to N: below, the bias is no line in 1/n.

    Raises TrilemmaError for N < 4D and N < 40: a shorter interval would say little about 1/n = 0.
    """
    if count < (least := _least(dim)):
        raise TrilemmaError(
            f"fd_infinity needs at least {least} samples for {dim} features (4 for each, and 40), got {count}"
        )
    return torch.linspace(max(count // 10, 2 * dim), count, SIZES, dtype=torch.float64).round().long().tolist()


def _least(dim: int) -> int:
    return max(4 * dim, 40)


def intercept_weights(sizes: list[int]) -> Tensor:
    """w with Σ w FD(n) = the least-squares line's value at 1/n = 0: float64."""
    inverse = 1 / torch.tensor(sizes, dtype=torch.float64)
    centred = inverse - inverse.mean()
    return 1 / len(sizes) - inverse.mean() * centred / centred.square().sum()


def nested_moments(features: Tensor, sizes: list[int]) -> Iterator[Moments]:
    """Moments of the first n samples of a random order that is fixed by N, for each n of ascending `sizes`."""
    order = permutation(len(features), "fd_infinity").to(features.device)
    centre = mean_of(features)
    total, scatter = torch.zeros_like(centre), centre.new_zeros(len(centre), len(centre))
    start = 0
    for size in sizes:
        for rows in order[start:size].split(CHUNK):
            centred = features[rows].double() - centre
            total += centred.sum(dim=0)
            add_gram(scatter, centred)
        start = size
        mean = total / size
        yield Moments(centre + mean, (symmetric(scatter) - size * mean.outer(mean)) / (size - 1))


def _standard_error(jackknife: Jackknife, sizes: list[int], weights: Tensor) -> float | None:
    """Sample i of the order is in the subsets n ≥ i, so its part of first order in the value, 1/N of an influence in
    the distance of all, is Σ w/n over these; a pair's part of second order, 1/N² in that, is Σ w/n²."""
    if jackknife.first is None:
        return None
    n = torch.tensor(sizes, dtype=torch.float64)
    since = torch.diff(n, prepend=n.new_zeros(1))  # samples that are in this subset and in no smaller one
    pairs = torch.diff(n * (n - 1) / 2, prepend=n.new_zeros(1))
    once = (weights / n).flip(0).cumsum(0).flip(0)
    twice = (weights / n**2).flip(0).cumsum(0).flip(0)
    first = n[-1] * (since @ once.square()) * jackknife.first
    second = 2 * n[-1] ** 2 * (pairs @ twice.square()) * jackknife.second
    return math.sqrt(float(first + second))


FD_INFINITY = Metric(
    "fd_infinity", fd_infinity, "lower", "moments", "", "Fréchet distance at infinitely many samples",
    (-math.inf, math.inf), "Chong & Forsyth 2020, arXiv:1911.07023",
    convention=f"{SIZES} nested sizes n from max(N/10, 2D) to N, a line in 1/n at 0",
    least=lambda protocol, dim: (_least(dim), 2), named=name_on("fd_infinity"),
)  # fmt: skip
