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
# the times of two runs of the same network: how it was found is in docs/metrics.md, "Intervals"
RUNS_DIFFER = 1.3
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
    """B − A in the score `name`: by the spread over seeds, and no surer than by the samples' own errors.

    Of the samples' errors √(error of A² + error of B²), each side's the one that faces the other where its interval is
    not symmetric (Newcombe 1998, method 10; Zou & Donner 2008). Over seeds Welch's t. Where both sides are the same
    trained models: the paired t. Where only one side has seeds, the other's training is taken to vary as much: the
    prediction interval of one more training, s·√(1 + 1/n).
    """
    one, other = (runs.record.scores.get(name) for runs in (a, b))
    if one is None or other is None:
        return Contrast(reason=_why_missing(a, b, name))
    value = other.value - one.value
    design = _design(a, b)
    unknown = [side for side, runs, score in (("A", a, one), ("B", b, other)) if _unknown(runs, score)]
    if unknown and design != "one more training":
        return Contrast(value, reason=f"no error is known of {' and '.join(unknown)}")
    below, above = (_errors(a, b, name, design, up) for up in (True, False))
    return _student(value, below, above, _METHODS[design])


Design = Literal["single runs", "seeds", "one more training", "same trainings"]
_METHODS: dict[Design, str] = {
    "single runs": "standard errors of the samples",
    "seeds": "Welch's t over the seeds, no surer than by the samples alone",
    "one more training": "prediction interval: the one training is taken to vary as the seeds of the other side do, no "
    "surer than by the samples alone",
    "same trainings": "paired t over the trained models, the same on both sides, no surer than by the samples alone",
}


def _design(a: Runs, b: Runs) -> Design:
    if max(len(a), len(b)) == 1:
        return "single runs"
    weights = [[run.training.checkpoint_sha256 if run.training else "" for run in runs.records] for runs in (a, b)]
    if all(map(all, weights)) and sorted(weights[0]) == sorted(weights[1]):
        return "same trainings"
    trained = all(run.training for runs in (a, b) for run in runs.records)
    return "one more training" if trained and min(len(a), len(b)) == 1 else "seeds"


def _unknown(runs: Runs, score: Score) -> bool:
    return len(runs) == 1 and score.standard_error is None and score.interval is None


_Error = tuple[float, float]  # a standard error and its degrees of freedom


def _errors(a: Runs, b: Runs, name: str, design: Design, up: bool) -> list[_Error]:
    """Of B − A: by sampling and by the spread over seeds, where A errs upwards (up) and B down, or the other way."""
    sides = ((a, up), (b, not up))
    sampling = [runs.sampling_error(name, side) for runs, side in sides]
    values = [_values(runs, name) for runs in (a, b)]
    if design == "same trainings":
        spread = _mean_error(values[1] - values[0])
    elif design == "one more training":
        spread = _next_error(max(values, key=len))
    else:
        spread = _together(
            *(_mean_error(v) if len(v) > 1 else (error, math.inf) for v, error in zip(values, sampling, strict=True))
        )
    return [spread, (math.hypot(*sampling), math.inf)]


def _values(runs: Runs, name: str) -> Floats:
    """Of each run, those of one trained model in its place on whichever side it is."""
    records = sorted(runs.records, key=lambda run: run.training.checkpoint_sha256 if run.training else "")
    return np.array([record.scores[name].value for record in records])


def _mean_error(values: Floats) -> _Error:
    return float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1


def _next_error(values: Floats) -> _Error:
    """Of the difference between one more value and the mean of these."""
    return float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(values)), len(values) - 1


def _together(one: _Error, other: _Error) -> _Error:
    """The error of a difference (Welch 1947), and its degrees of freedom (Satterthwaite 1946)."""
    variance = one[0] ** 2 + other[0] ** 2
    parts = one[0] ** 4 / one[1] + other[0] ** 4 / other[1]
    return math.sqrt(variance), variance**2 / parts if parts > 0 else math.inf


def _student(value: float, below: Sequence[_Error], above: Sequence[_Error], method: str) -> Contrast:
    """The contrast of a value with errors towards less and more; of several, what says the least."""
    facing = below if value > 0 else above if value < 0 else [*below, *above]
    if max(error for error, _ in facing) == 0:
        reason = "the values do not vary, and no error can be told from them"
        return Contrast(value, None, 1.0 if value == 0 else None, method, reason)
    p = max(_tails(value, *error) for error in facing)
    low, high = (max(map(_half_width, errors)) for errors in (below, above))
    return Contrast(value, (value - low, value + high), p, method)


def _tails(value: float, error: float, freedom: float) -> float:
    """The chance of a value as far from 0, on either side, where its mean is 0."""
    if value == 0 or error == 0:
        return float(value == 0)
    return 2 * float(special.stdtr(min(freedom, _MANY), -abs(value) / error))


def _half_width(error: _Error) -> float:
    return float(special.stdtrit(min(error[1], _MANY), 1 - LEVEL / 2)) * error[0]


def _why_missing(a: Runs, b: Runs, name: str) -> str:
    sides = (("A", a), ("B", b))
    return "; ".join(
        f"{side}: {runs.record.missing.get(name, 'not measured')}"
        for side, runs in sides
        if name not in runs.record.scores
    )


def time_ratio(a: Runs, b: Runs, field: Time) -> Contrast:
    """B / A in a time, from the logarithms of the runs' medians; of a run each, of the raw times.

    Several runs a side: Welch's interval. One against several: the prediction interval of one more run. A run each: the
    median of the ratios of all pairs and its rank interval (Hodges & Lehmann 1963; Moses), p by
    Mann and Whitney's test, both about a difference of more than RUNS_DIFFER.
    """
    if reason := _why_not_timed(a, b):
        return Contrast(reason=reason)
    speeds = [[record.speed for record in runs.records if record.speed] for runs in (a, b)]
    single = max(map(len, speeds)) == 1
    times = [raw_times(side[0], field) if single else [getattr(speed, field) for speed in side] for side in speeds]
    if min(map(min, times)) <= 0:
        return Contrast(reason="a time is 0: the clock is too coarse for it")
    logs_a, logs_b = map(np.log, times)
    return _ratio_of_pairs(logs_a, logs_b) if single else _ratio_over_runs(logs_a, logs_b)


_OF_PAIRS = (
    "rank interval of the ratios of all pairs of raw times, widened by "
    f"{100 * (RUNS_DIFFER - 1):.0f} %, by which runs of one network differ; give several runs a side"
)


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
    if min(len(logs_a), len(logs_b)) > 1:
        error, method = _together(_mean_error(logs_a), _mean_error(logs_b)), "Welch's t on the logarithms of medians"
    else:
        error = _next_error(max(logs_a, logs_b, key=len))
        method = "prediction interval of one more run, from the logarithms of the medians of the side with several"
    return _exponential(_student(float(logs_b.mean() - logs_a.mean()), [error], [error], method))


def _ratio_of_pairs(logs_a: Floats, logs_b: Floats) -> Contrast:
    pairs = np.sort((logs_b[:, None] - logs_a).ravel())
    m, n = len(logs_a), len(logs_b)
    # by the normal approximation of U, the number of pairs in which B is larger
    deviation = math.sqrt(m * n * (m + n + 1) / 12)
    rank = math.floor(m * n / 2 - Z95 * deviation)
    value, margin = float(np.median(pairs)), math.log(RUNS_DIFFER)
    if rank < 1:
        return _exponential(Contrast(value, reason=f"{m} and {n} raw times are too few for an interval"))
    beyond = pairs - min(max(value, -margin), margin)
    u = float((beyond > 0).sum() + 0.5 * (beyond == 0).sum())
    p = 2 * float(special.ndtr(-max(0.0, abs(u - m * n / 2) - 0.5) / deviation))
    return _exponential(Contrast(value, (float(pairs[rank - 1]) - margin, float(pairs[-rank]) + margin), p, _OF_PAIRS))


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
