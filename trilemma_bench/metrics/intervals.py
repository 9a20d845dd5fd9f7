"""How sure a value is: standard errors from influence values, intervals of shares."""

from __future__ import annotations

import math

from torch import Tensor

from trilemma_bench.contracts import Estimate

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def standard_error_of(influence: Tensor) -> float | None:
    """sd(influence)/√N: the standard error of a statistic from the influence value of each sample, N, in its unit.

    The infinitesimal jackknife (Jaeckel 1972; Efron 1982, ch. 6), which is first order. None for a single sample.
    """
    if len(influence) < 2:
        return None
    return float(influence.double().std() / math.sqrt(len(influence)))


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n independent samples (Wilson 1927): inside 0…1, wider than a point at 0 and at 1."""
    scale = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def share_estimate(share: float, n: int, note: str = "") -> Estimate:
    """A share of n independent samples: its binomial standard error, its Wilson interval."""
    return Estimate(
        share, math.sqrt(share * (1 - share) / n), "binomial, Wilson interval", wilson_interval(share, n), note
    )
