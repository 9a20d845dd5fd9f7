"""How the times of runs that differ only in the seed scatter: what `RUNS_SD` and `RUNS_FREEDOM` are rounded from.

    python scripts/time_spread.py results

For each time: the standard deviations s of the logarithms of the runs' medians, one of each row with several seeds; the
s₀ and d₀ that fit s² ~ s₀²·F(d, d₀) (Smyth 2004); and how many pairs of one row's runs would be told apart as single
runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from trilemma_bench.contrasts import LEVEL, TIMES
from trilemma_bench.grouping import over_seeds
from trilemma_bench.results import find_records
from trilemma_bench.statistics import RUNS_FREEDOM, RUNS_SD

Floats = NDArray[np.float64]
SHARES = (0.1, 0.5, 0.9)


def by_moments(variances: Floats, freedom: Floats) -> tuple[float, float]:
    """(s₀, d₀) by the mean and variance of ln s² (Smyth 2004, section 6.2); d₀ is infinite where that is chance."""
    logs = np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, freedom / 2).mean())
    if excess <= 0:
        return float(np.exp(logs.mean() / 2)), float("inf")
    half = float(optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-3, 1e6))
    return float(np.exp((logs.mean() + special.digamma(half) - np.log(half)) / 2)), 2 * half


def describe(name: str, rows: Sequence[Floats]) -> None:
    """Prints what is found of `rows`, the logarithms of one time of each row's runs."""
    variances = np.array([row.var(ddof=1) for row in rows])
    freedom = np.array([len(row) - 1.0 for row in rows])
    quantiles = np.sqrt(np.quantile(variances, SHARES))
    expected = RUNS_SD * np.sqrt(stats.f.ppf(SHARES, np.median(freedom), RUNS_FREEDOM))
    pairs = np.array([abs(a - b) for row in rows for a, b in combinations(row, 2)])
    least = stats.t.ppf(1 - LEVEL / 2, RUNS_FREEDOM) * RUNS_SD * np.sqrt(2)
    print(f"{name}: {len(rows)} rows, {freedom.sum():.0f} degrees of freedom")
    print(f"  s: root of the mean square {np.sqrt(np.average(variances, weights=freedom)):.3f}")
    for share, found, prior in zip(SHARES, quantiles, expected, strict=True):
        print(f"  s: {100 * share:.0f} % are below {found:.3f}; by the prior {prior:.3f}")
    sd, prior_freedom = by_moments(variances, freedom)
    print(f"  by moments: s₀ = {sd:.3f}, d₀ = {prior_freedom:.1f}")
    print(f"  {(pairs > least).sum()} of {len(pairs)} pairs differ by more than {np.exp(least):.2f} times")


def main() -> None:
    records = [record for _, record in find_records([Path(sys.argv[1])]).records]
    rows = [runs for runs in over_seeds(r for r in records if r.status == "complete" and r.speed) if len(runs) > 1]
    every = {name: [np.log([getattr(run.speed, name) for run in runs.records]) for runs in rows] for name in TIMES}
    for name, logs in every.items():
        describe(name, logs)
    describe("both", [row for logs in every.values() for row in logs])


if __name__ == "__main__":
    main()
