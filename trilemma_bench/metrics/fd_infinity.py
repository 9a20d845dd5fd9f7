"""The Fréchet distance of infinitely many generated samples, by extrapolation (Chong & Forsyth 2020).

The distance of n samples is biased upwards by a/n + b/n² + …. It is measured for 15 sizes n and fitted by a line in
1/n, whose value at 0 is the estimate. That is less biased, not unbiased: what the line leaves of b/n² makes it too low,
for few samples of each feature by several of its errors. The jackknife leaves less of it (the line through N − 1, over
all subsets, and N), so that the two together tell b: the interval reaches up to the distance without that either, and
a note says so where the plain one would not. The estimate may be negative where the true distance is near 0. The bias
by the reference's own sampling stays as it is.
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
from trilemma_bench.metrics.intervals import normal_interval
from trilemma_bench.seeding import permutation
from trilemma_bench.statistics import Z95

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

SIZES = 15  # as in the paper


def fd_infinity(comparison: Comparison) -> Estimate:
    """The extrapolated distance, with its error in closed form. Raises TrilemmaError for too few samples.

    The interval goes up to that of the distance without the bias of second order, which the value holds some of.
    """
    features, reference = comparison.generated, comparison.reference.moments
    reference = Moments(*(part.to(features.device, torch.float64) for part in reference))
    sizes = subset_sizes(*features.shape)
    root = root_of(reference.covariance)
    distances = [distance(subset, reference, root) for subset in nested_moments(features, sizes)]
    weights = intercept_weights(sizes)
    value = float(weights @ torch.tensor(distances, dtype=torch.float64))
    error = _standard_error(comparison.frechet, sizes, weights)
    low, high = normal_interval(value, error, FD_INFINITY.range)
    curved, curved_error = _without_curvature(value, comparison.frechet, sizes, weights)
    method = f"{comparison.frechet.method}, through the fit; upwards also what the line leaves of the bias"
    note = _few((curved - value) / error) if error else ""
    return Estimate(value, error, method, (low, max(high, curved + Z95 * curved_error)), note)


def _few(errors: float) -> str:
    if errors <= Z95:
        return ""
    return f"too low by about {errors:.0f} standard errors: too few samples for each feature"


def _without_curvature(value: float, jackknife: Jackknife, sizes: list[int], weights: Tensor) -> tuple[float, float]:
    """The distance without a/n and b/n², and its error.

    Of b/n², the jackknife leaves −b/N(N−1), and the line κ times as much.
    """
    n = torch.tensor(sizes, dtype=torch.float64)
    kappa = -float(weights @ n.square().reciprocal() * n[-1] * (n[-1] - 1))
    whole = (n == n[-1]).double()
    curved = (kappa * (jackknife.value - jackknife.bias) - value) / (kappa - 1)
    return curved, _standard_error(jackknife, sizes, (kappa * whole - weights) / (kappa - 1))


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


def _standard_error(jackknife: Jackknife, sizes: list[int], weights: Tensor) -> float:
    """Sample i of the order is in the subsets n ≥ i, so its part of first order in the value, 1/N of an influence in
    the distance of all, is Σ w/n over these; a pair's part of second order, 1/N² in that, is Σ w/n²."""
    assert jackknife.first is not None  # of 40 samples or more
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
