"""Errors and intervals: Student's t, medians, and the times of few runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # not scipy.stats, which takes a second to import

from trilemma_bench.record import Speed

Z95 = float(special.ndtri(0.975))  # a normal distribution lies in mean ± Z95 standard deviations in 95 % of cases

Error = tuple[float, float]  # a standard error and its degrees of freedom
Time = Literal["seconds_per_image", "latency_seconds"]

# the logarithms of the times of runs that differ only in the seed: their standard deviation before any of these runs is
# seen, and the degrees of freedom that it counts for; how both were found is in docs/metrics.md, "Intervals"
RUNS_SD = 0.12
RUNS_FREEDOM = 3.0
MANY = 1e9  # degrees of freedom of a normal distribution, where Student's t takes a number


def half_width(*errors: Error) -> float:
    """Half of the 95 % interval of Student's t; of several errors, by what says the least."""
    return max(error * float(special.stdtrit(min(freedom, MANY), 0.975)) for error, freedom in errors)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(float(np.mean(np.log(values)))) if min(values) > 0 else 0.0


def raw_times(speed: Speed, field: Time) -> list[float]:
    """The raw times of which `field` is the median, in its unit."""
    if field == "latency_seconds":
        return speed.raw_latency_seconds or [speed.latency_seconds]
    return [seconds / speed.batch_size for seconds in speed.raw_seconds] or [speed.seconds_per_image]


def too_coarse(speeds: Iterable[Speed], field: Time) -> bool:
    """Whether a time is 0, which has no logarithm."""
    return any(min(getattr(speed, field), *raw_times(speed, field)) <= 0 for speed in speeds)


def time_interval(speeds: Sequence[Speed], field: Time) -> tuple[float, float] | None:
    """The 95 % interval of the geometric mean of the medians of one run or several; None without any, or with a 0."""
    if not speeds or too_coarse(speeds, field):
        return None
    value = geometric_mean([getattr(speed, field) for speed in speeds])
    factor = math.exp(min(half_width(*time_errors(field, speeds)), 300.0))  # what a float can hold
    return value / factor, value * factor


def time_errors(field: Time, *sides: Sequence[Speed]) -> list[Error]:
    """Of the mean over runs of the logarithm of a time, or of the difference of two such means: between runs, and by
    the raw times alone.

    Between runs by a moderated variance (Smyth 2004): that of the runs about the mean of their side, s² with d degrees
    of freedom, together with what is known of other runs, (d₀s₀² + d·s²)/(d₀ + d) with d₀ + d. Pooled over the sides,
    because it is the machine's. A run a side is the case of d = 0.
    """
    logs = [np.log([getattr(speed, field) for speed in speeds]) for speeds in sides]
    squares = sum(float(np.square(side - side.mean()).sum()) for side in logs)
    freedom = RUNS_FREEDOM + sum(len(side) - 1 for side in logs)
    sd = math.sqrt((RUNS_FREEDOM * RUNS_SD**2 + squares) / freedom)
    raw = (median_error(np.log(raw_times(speed, field))) / len(speeds) for speeds in sides for speed in speeds)
    return [(sd * math.sqrt(sum(1 / len(side) for side in logs)), freedom), (math.hypot(*raw), math.inf)]


def median_error(values: ArrayLike) -> float:
    """The standard error of a median, from two order statistics and how often they hold it (Price & Bonett 2001): up to
    a quarter too wide of few values; 0 for a single one.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    rank = max(1, round((n + 1) / 2 - math.sqrt(n)))
    beyond = float(special.bdtr(rank - 1, n, 0.5))  # the chance that the median lies below that rank
    return float(ordered[-rank] - ordered[rank - 1]) / (-2 * float(special.ndtri(beyond))) if n > 1 else 0.0
