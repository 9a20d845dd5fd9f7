"""Two rows of a table in one number: by how much B differs from A, how sure that is, and which is the better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trilemma_bench.grouping import differences, is_reference
from trilemma_bench.record import Score, Speed
from trilemma_bench.runs import Runs
from trilemma_bench.statistics import MANY, RUNS_FREEDOM, RUNS_SD, Error, Time, half_width, time_errors, too_coarse

LEVEL = 0.05
Floats = NDArray[np.float64]
TIMES: tuple[Time, ...] = ("seconds_per_image", "latency_seconds")
SAME_SAMPLES = "A and B are the same samples, bit for bit"


@dataclass(frozen=True)
class Contrast:
    """B against A in one number: value is B − A, or B / A for a time; None where one side has no number.

    interval (95 %) and p (two-sided) are of this number alone. method: how both were found. reason: why there are none.
    disturbed: of times from a busy machine, of which nobody knows how far they are off.
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    method: str = ""
    reason: str = ""
    disturbed: bool = False


@dataclass(frozen=True)
class Finding:
    """One score or time of A and B. p_holm: corrected for all that is compared at once. verdict: '' where none."""

    name: str
    better: Literal["higher", "lower"] | None
    a: float | None
    b: float | None
    contrast: Contrast
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        if self.p_holm is None or self.contrast.value is None:
            return ""
        if self.p_holm >= LEVEL:
            return "no difference shown"
        if self.better is None:
            return "they differ"
        more = self.contrast.value > (1.0 if self.name in TIMES else 0.0)
        return "B is better" if more == (self.better == "higher") else "A is better"


def difference(a: Runs, b: Runs, name: str) -> Contrast:
    """B − A in the score `name`: by the spread over seeds, and no surer than by the samples' own errors.

    Of the samples' errors √(error of A² + error of B²), each side's the one that faces the other where its interval is
    not symmetric (Newcombe 1998, method 10; Zou & Donner 2008). Over seeds Welch's t. Where both sides are the same
    trained models: the paired t. Where only one side has seeds, the other's training is taken to vary as much: the
    prediction interval of one more training, s·√(1 + 1/n). 0 where both sides are the same samples, bit for bit.
    """
    one, other = (runs.record.scores.get(name) for runs in (a, b))
    if one is None or other is None:
        return Contrast(reason=_why_missing(a, b, name))
    value = other.value - one.value
    if _same_samples(a, b):
        return Contrast(value, (value, value), reason=SAME_SAMPLES)
    design = _design(a, b)
    unknown = [side for side, runs, score in (("A", a, one), ("B", b, other)) if _unknown(runs, score)]
    if unknown and design != "one more training":
        return Contrast(value, reason=f"no error is known of {' and '.join(unknown)}")
    below, above = (_errors(a, b, name, design, up) for up in (True, False))
    return _student(value, below, above, _METHODS[design])


def _same_samples(a: Runs, b: Runs) -> bool:
    one, other = ({run.samples_sha256 for run in runs.records} for runs in (a, b))
    return one == other and None not in one


Design = Literal["single runs", "seeds", "one more training", "same trainings"]
_METHODS: dict[Design, str] = {
    "single runs": "errors of the samples, by the side of each interval that faces the other",
    "seeds": "Welch's t over the seeds, no surer than by the samples alone",
    "one more training": "prediction interval: the one training is taken to vary as the seeds of the other side do, no "
    "surer than by the samples alone",
    "same trainings": "paired t over the trained models, the same on both sides, no surer than by the samples alone",
}


def _design(a: Runs, b: Runs) -> Design:
    if max(len(a), len(b)) == 1:
        return "single runs"
    weights = [sorted(run.origin_sha256 for run in runs.records) for runs in (a, b)]
    if all(map(all, weights)) and weights[0] == weights[1]:
        return "same trainings"
    trained = all(run.training for runs in (a, b) for run in runs.records)
    return "one more training" if trained and min(len(a), len(b)) == 1 else "seeds"


def _unknown(runs: Runs, score: Score) -> bool:
    return len(runs) == 1 and score.standard_error is None and score.interval is None


def _errors(a: Runs, b: Runs, name: str, design: Design, up: bool) -> list[Error]:
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
    records = sorted(runs.records, key=lambda run: run.origin_sha256)
    return np.array([record.scores[name].value for record in records])


def _mean_error(values: Floats) -> Error:
    return float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1


def _next_error(values: Floats) -> Error:
    """Of the difference between one more value and the mean of these."""
    return float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(values)), len(values) - 1


def _together(one: Error, other: Error) -> Error:
    """The error of a difference (Welch 1947), and its degrees of freedom (Satterthwaite 1946)."""
    variance = one[0] ** 2 + other[0] ** 2
    parts = one[0] ** 4 / one[1] + other[0] ** 4 / other[1]
    return math.sqrt(variance), variance**2 / parts if parts > 0 else math.inf


def _student(value: float, below: Sequence[Error], above: Sequence[Error], method: str) -> Contrast:
    """The contrast of a value with errors towards less and more; of several, what says the least."""
    facing = below if value > 0 else above if value < 0 else [*below, *above]
    if max(error for error, _ in facing) == 0:
        reason = "the values do not vary, and no error can be told from them"
        return Contrast(value, None, 1.0 if value == 0 else None, method, reason)
    p = max(_tails(value, *error) for error in facing)
    low, high = (half_width(*errors) for errors in (below, above))
    return Contrast(value, (value - low, value + high), p, method)


def _tails(value: float, error: float, freedom: float) -> float:
    """The chance of a value as far from 0, on either side, where its mean is 0."""
    if value == 0 or error == 0:
        return float(value == 0)
    return 2 * float(special.stdtr(min(freedom, MANY), -abs(value) / error))


def _why_missing(a: Runs, b: Runs, name: str) -> str:
    sides = (("A", a), ("B", b))
    return "; ".join(
        f"{side}: {runs.record.missing.get(name, 'not measured')}"
        for side, runs in sides
        if name not in runs.record.scores
    )


def time_ratio(a: Runs, b: Runs, field: Time) -> Contrast:
    """B / A in a time: moderated t on the logarithms of the runs' medians, no surer than by the raw times alone.

    Of times from a busy machine the ratio alone.
    """
    if reason := _why_not_timed(a, b):
        return Contrast(reason=reason)
    one, other = ([record.speed for record in runs.records if record.speed] for runs in (a, b))
    return ratio_of_times(one, other, field)


def ratio_of_times(a: Sequence[Speed], b: Sequence[Speed], field: Time) -> Contrast:
    """B / A as in `time_ratio`, of the times of one run or several a side."""
    if any(too_coarse(speeds, field) for speeds in (a, b)):
        return Contrast(reason="a time is 0: the clock is too coarse for it")
    mean_a, mean_b = (float(np.mean(np.log([getattr(speed, field) for speed in speeds]))) for speeds in (a, b))
    if busy := _busy(a, b):
        return Contrast(_exp(mean_b - mean_a), reason=busy, disturbed=True)
    errors = time_errors(field, a, b)
    method = f"{_MODERATED}; give several runs a side" if max(len(a), len(b)) == 1 else _MODERATED
    return _exponential(_student(mean_b - mean_a, errors, errors, method))


_MODERATED = (
    "moderated t on the logarithms of the runs' medians: their spread, pooled over both sides, with the "
    f"{100 * RUNS_SD:.0f} % by which runs of one model scatter as {RUNS_FREEDOM:.0f} more degrees of freedom; no surer "
    "than by the raw times"
)


def _why_not_timed(a: Runs, b: Runs) -> str:
    sides = {side: None if is_reference(runs.record) else runs.record.speed for side, runs in (("A", a), ("B", b))}
    if untimed := [side for side, speed in sides.items() if speed is None]:
        return f"{' and '.join(untimed)}: not timed"
    timed = {side: speed for side, speed in sides.items() if speed is not None}
    facts = [{"device": speed.device, "batch": speed.batch_size} for speed in timed.values()]
    apart = differences(tuple(facts[1].items()), tuple(facts[0].items()))
    return f"timed in different ways: B has {'; '.join(apart)}" if apart else ""


def _busy(a: Sequence[Speed], b: Sequence[Speed]) -> str:
    """Which sides were timed beside other work, of each the first time that was."""
    notes = {
        side: next(filter(None, (speed.busy_note for speed in speeds)), "") for side, speeds in (("A", a), ("B", b))
    }
    return "; ".join(f"{side} was {note}" for side, note in notes.items() if note)


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
