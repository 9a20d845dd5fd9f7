"""Two rows of a table in one number: by how much B differs from A in a score or a time, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trilemma_bench.record import Score, Speed
from trilemma_bench.statistics import Z95, Runs, differences, is_reference

LEVEL = 0.05
_MANY = 1e9  # degrees of freedom of a normal distribution, where Student's t takes a number

Time = Literal["seconds_per_image", "latency_seconds"]
Floats = NDArray[np.float64]
TIMES: tuple[Time, ...] = ("seconds_per_image", "latency_seconds")


@dataclass(frozen=True)
class Contrast:
    """B against A in one number: value is B − A, or B / A for a time; None where one side has no number.

    interval (95 %) and p (two-sided) are of this number alone. method: how both were found. reason: why there are none.
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    method: str = ""
    reason: str = ""


def difference(a: Runs, b: Runs, name: str) -> Contrast:
    """B − A in the score `name`, from the standard errors of independent samples against one reference.

    √(error of A² + error of B²), with Welch and Satterthwaite's degrees of freedom where errors come from seeds. Where
    a run's own interval is not symmetric, each side's error is the one that faces the other (Newcombe 1998, method 10;
    Zou & Donner 2008), so that a share of 1 has an error too.
    """
    one, other = (runs.record.scores.get(name) for runs in (a, b))
    if one is None or other is None:
        return Contrast(reason=_why_missing(a, b, name))
    value = other.value - one.value
    unknown = [side for side, score in (("A", one), ("B", other)) if not _has_error(score)]
    if unknown:
        return Contrast(value, reason=f"no error is known of {' and '.join(unknown)}")
    below = _together(_error(one, a, up=True), a.freedom, _error(other, b, up=False), b.freedom)
    above = _together(_error(one, a, up=False), a.freedom, _error(other, b, up=True), b.freedom)
    return _student(value, below, above, "standard errors")


def _has_error(score: Score) -> bool:
    return score.standard_error is not None or score.interval is not None


def _error(score: Score, runs: Runs, up: bool) -> float:
    """The score's standard error on one side; an interval may be cut off where the score's range ends."""
    error = score.standard_error or 0.0
    if len(runs) > 1 or score.interval is None:
        return error
    end = score.interval[1 if up else 0]
    return max(error, abs(end - score.value) / Z95)


def _together(error_a: float, freedom_a: float, error_b: float, freedom_b: float) -> tuple[float, float]:
    """The error of a difference, and its degrees of freedom (Welch 1947; Satterthwaite 1946)."""
    variance = error_a**2 + error_b**2
    if variance == 0:
        return 0.0, min(freedom_a, freedom_b)
    parts = error_a**4 / freedom_a + error_b**4 / freedom_b
    return math.sqrt(variance), variance**2 / parts if parts > 0 else math.inf


def _student(value: float, below: tuple[float, float], above: tuple[float, float], method: str) -> Contrast:
    """The contrast of a value whose (error, degrees of freedom) are `below` towards less and `above` towards more."""
    error, freedom = below if value > 0 else above
    if max(below[0], above[0]) == 0:
        reason = "" if value == 0 else "the values do not vary: no error can be told from them"
        return Contrast(value, None, 1.0 if value == 0 else None, method, reason)
    p = 0.0 if error == 0 else 2 * float(special.stdtr(min(freedom, _MANY), -abs(value) / error))
    low, high = (float(special.stdtrit(min(degrees, _MANY), 1 - LEVEL / 2)) * side for side, degrees in (below, above))
    return Contrast(value, (value - low, value + high), p, method)


def _why_missing(a: Runs, b: Runs, name: str) -> str:
    sides = (("A", a), ("B", b))
    return "; ".join(
        f"{side}: {runs.record.missing.get(name, 'not measured')}"
        for side, runs in sides
        if name not in runs.record.scores
    )


def time_ratio(a: Runs, b: Runs, field: Time) -> Contrast:
    """B / A in a time: over the runs where both sides have several, else over the raw times of the single runs.

    Runs: Welch's interval on the logarithms of their medians. Raw times: the median of the ratios of all pairs and its
    rank interval (Hodges & Lehmann 1963; Moses), p by Mann and Whitney's test.
    """
    if reason := _why_not_timed(a, b):
        return Contrast(reason=reason)
    speeds_a, speeds_b = ([record.speed for record in runs.records if record.speed] for runs in (a, b))
    medians = [[float(getattr(speed, field)) for speed in speeds] for speeds in (speeds_a, speeds_b)]
    raw = [[seconds for speed in speeds for seconds in raw_times(speed, field)] for speeds in (speeds_a, speeds_b)]
    if min(seconds for times in (*medians, *raw) for seconds in times) <= 0:
        return Contrast(reason="a time is 0: the clock is too coarse for it")
    several = min(len(speeds_a), len(speeds_b)) > 1
    return _ratio_over_runs(*map(np.log, medians)) if several else _ratio_of_pairs(*map(np.log, raw))


def raw_times(speed: Speed, field: Time) -> list[float]:
    """The raw times of which `field` is the median, in its unit."""
    if field == "latency_seconds":
        return speed.raw_latency_seconds or [speed.latency_seconds]
    return [seconds / speed.batch_size for seconds in speed.raw_seconds] or [speed.seconds_per_image]


def _why_not_timed(a: Runs, b: Runs) -> str:
    sides = {side: None if is_reference(runs.record) else runs.record.speed for side, runs in (("A", a), ("B", b))}
    if untimed := [side for side, speed in sides.items() if speed is None]:
        return f"{' and '.join(untimed)}: not timed"
    timed = {side: speed for side, speed in sides.items() if speed is not None}
    if busy := [f"{side} was {speed.busy_note}" for side, speed in timed.items() if speed.busy_note]:
        return "; ".join(busy)
    facts = [{"device": speed.device, "batch": speed.batch_size} for speed in timed.values()]
    apart = differences(tuple(facts[1].items()), tuple(facts[0].items()))
    return f"timed in different ways: B has {'; '.join(apart)}" if apart else ""


def _ratio_over_runs(logs_a: Floats, logs_b: Floats) -> Contrast:
    errors = [float(logs.std(ddof=1)) / math.sqrt(len(logs)) for logs in (logs_a, logs_b)]
    together = _together(errors[0], len(logs_a) - 1, errors[1], len(logs_b) - 1)
    contrast = _student(float(logs_b.mean() - logs_a.mean()), together, together, "medians of the runs")
    return _exponential(contrast)


def _ratio_of_pairs(logs_a: Floats, logs_b: Floats) -> Contrast:
    pairs = np.sort((logs_b[:, None] - logs_a).ravel())
    m, n = len(logs_a), len(logs_b)
    # by the normal approximation of U, the number of pairs in which B is larger
    deviation = math.sqrt(m * n * (m + n + 1) / 12)
    rank = math.floor(m * n / 2 - Z95 * deviation)
    value = float(np.median(pairs))
    if rank < 1:
        return _exponential(Contrast(value, reason=f"{m} and {n} raw times are too few for an interval"))
    u = float((pairs > 0).sum() + 0.5 * (pairs == 0).sum())
    p = 2 * float(special.ndtr(-max(0.0, abs(u - m * n / 2) - 0.5) / deviation))
    return _exponential(Contrast(value, (float(pairs[rank - 1]), float(pairs[-rank])), p, "raw times of single runs"))


def _exponential(contrast: Contrast) -> Contrast:
    """A difference of logarithms as a ratio."""
    interval = None if contrast.interval is None else (_exp(contrast.interval[0]), _exp(contrast.interval[1]))
    return replace(contrast, value=_exp(contrast.value or 0.0), interval=interval)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # what a float can hold


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): all verdicts together are wrong by chance in at most 5 %."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in corrected]
