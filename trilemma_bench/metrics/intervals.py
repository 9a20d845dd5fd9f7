"""How sure a value is: standard errors from influence values, intervals of shares."""

from __future__ import annotations

import math

from scipy import special
from torch import Tensor

from trilemma_bench.contracts import Estimate
from trilemma_bench.statistics import Z95


def standard_error_of(influence: Tensor) -> float | None:
    """sd(influence)/√N: the standard error of a statistic from the influence value of each sample, N, in its unit.

    The infinitesimal jackknife (Jaeckel 1972; Efron 1982, ch. 6), which is first order. None for a single sample.
    """
    if len(influence) < 2:
        return None
    return float(influence.double().std() / math.sqrt(len(influence)))


def normal_interval(value: float, error: float, limits: tuple[float, float]) -> tuple[float, float]:
    """95 % interval of a value with a normal error, inside the values that it can take."""
    return max(limits[0], value - Z95 * error), min(limits[1], value + Z95 * error)


def ratio_interval(value: float, error: float) -> tuple[float, float]:
    """95 % interval of a squared distance, whose error grows with it: value · exp(±1.96 error/value) (delta method).

    Where the distributions are alike it is a sum of squares, as skewed as few features make it; no sum of squares of
    normal variables has an error of more than √2 of its mean.
    """
    factor = math.exp(Z95 * min(error / value, math.sqrt(2))) if value else 1.0
    return value / factor, max(value * factor, value + Z95 * error)


def student_interval(value: float, error: float, freedom: int, limits: tuple[float, float]) -> tuple[float, float]:
    """95 % interval of a mean whose error was found from freedom + 1 values, inside the values that it can take."""
    half = float(special.stdtrit(freedom, 0.975)) * error
    return max(limits[0], value - half), min(limits[1], value + half)


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n independent samples (Wilson 1927): in 0…1, holds the share, never a point."""
    scale = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    low, high = min(share, centre - half), max(share, centre + half)  # rounding must not exclude a share of 0 or 1
    return max(0.0, low), min(1.0, high)


def share_estimate(share: float, n: int, note: str = "") -> Estimate:
    """A share of n independent samples: its binomial standard error, its Wilson interval."""
    return Estimate(
        share, math.sqrt(share * (1 - share) / n), "binomial, Wilson interval", wilson_interval(share, n), note
    )
