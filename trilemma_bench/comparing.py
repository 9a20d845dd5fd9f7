"""Which differences between two runs are real: B against A in every score and in speed, with intervals and verdicts."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from trilemma_bench.errors import UsageError, unknown_name
from trilemma_bench.record import Record, Score, Speed
from trilemma_bench.results import RECORD_NAME, find_records
from trilemma_bench.statistics import (
    Z95,
    Runs,
    differences,
    is_reference,
    measured_on,
    over_seeds,
    repeats,
    seed_conditions,
)

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


@dataclass(frozen=True)
class RunComparison:
    """Two sides and what was found. scores: differences B − A; times: ratios B / A, corrected among themselves."""

    a: Runs
    b: Runs
    scores: tuple[Finding, ...]
    times: tuple[Finding, ...]

    def __getitem__(self, name: str) -> Finding:
        """The finding on a score or time. Raises UsageError for a name that neither side has."""
        found = {finding.name: finding for finding in (*self.scores, *self.times)}
        if name not in found:
            raise unknown_name("score", name, found)
        return found[name]

    def __str__(self) -> str:
        """The table that `trilemma-bench compare` prints."""
        from trilemma_bench.report.compare import comparison_text

        return comparison_text(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, for JSON."""
        sides = {side: _side_facts(runs) for side, runs in (("a", self.a), ("b", self.b))}
        scores, times = ([_finding_facts(finding) for finding in group] for group in (self.scores, self.times))
        return {**sides, "level": LEVEL, "correction": "Holm", "scores": scores, "times": times}


def _side_facts(runs: Runs) -> dict[str, Any]:
    record = runs.record
    return {
        "label": record.label,
        "dataset": record.dataset.name,
        "samples": record.samples,
        "runs": [run.id for run in runs.records],
        "seeds": [run.seed for run in runs.records],
        "errors_cover": runs.covers,
    }


def _finding_facts(finding: Finding) -> dict[str, Any]:
    contrast = asdict(finding.contrast)
    kind = "ratio" if finding.name in TIMES else "difference"
    facts = {
        "name": finding.name,
        "better": finding.better,
        "a": finding.a,
        "b": finding.b,
        kind: contrast.pop("value"),
    }
    return {**facts, **contrast, "p_holm": finding.p_holm, "verdict": finding.verdict or None}


def compare(a: Path | str, b: Path | str) -> RunComparison:
    """B against A; each a run's folder, its record, or a folder of several runs that differ only in the seed.

    Raises UsageError when there is no such run, or the two were not measured alike; the message says what differs.
    """
    sides = runs_at(a), runs_at(b)
    one, other = (runs.record.dataset.name for runs in sides)
    if one != other:
        raise UsageError(f"{a} and {b} cannot be compared: B has dataset: {other}, not {one}")
    conditions = [measured_on(runs.record) for runs in sides]
    if apart := differences(conditions[1], conditions[0]):
        named = [field for field in apart if field.startswith("protocol: ")]  # all else follows from it
        raise UsageError(f"{a} and {b} cannot be compared: B has {'; '.join(named or apart)}")
    return compare_runs(*sides)


def compare_runs(a: Runs, b: Runs) -> RunComparison:
    """B against A, which were measured alike."""
    one, other = a.record, b.record
    facts = {**one.scores, **other.scores}
    scores = [
        Finding(name, score.better, _score(one, name), _score(other, name), difference(a, b, name))
        for name, score in facts.items()
    ]
    times = [Finding(name, "lower", _time(one, name), _time(other, name), time_ratio(a, b, name)) for name in TIMES]
    return RunComparison(a, b, _corrected(scores), _corrected(times))


def _score(record: Record, name: str) -> float | None:
    return record.scores[name].value if name in record.scores else None


def _time(record: Record, name: Time) -> float | None:
    return None if record.speed is None or is_reference(record) else float(getattr(record.speed, name))


def _corrected(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    tested = [finding.contrast.p for finding in findings if finding.contrast.p is not None]
    corrected = iter(holm(tested))
    return tuple(f if f.contrast.p is None else replace(f, p_holm=next(corrected)) for f in findings)


def runs_at(path: Path | str) -> Runs:
    """The complete runs at `path`; of a run that was repeated, the newest.

    Raises UsageError when there is none, or when they differ in more than the seed.
    """
    found = find_records([Path(path).expanduser()])
    complete = [record for _, record in found.records if record.status == "complete"]
    if not complete:
        why = [*(f"{record.label} is {record.status}" for _, record in found.records), *found.skipped]
        more = f"; and {len(why) - 2} more" if len(why) > 2 else ""
        raise UsageError(f"{path}: no complete run; {'; '.join(why[:2]) or f'no {RECORD_NAME} below it'}{more}")
    first, *others = over_seeds(same[-1] for same in repeats(complete))
    if others:
        apart = differences(seed_conditions(others[0].record), seed_conditions(first.record))
        what = "; ".join(apart[:3]) or "a seed was trained twice, or weights were sampled with two seeds"
        raise UsageError(f"{path}: its runs differ in more than the seed ({what}): name the folder of one")
    return first


FailOn = Literal["interval", "value"]


@dataclass(frozen=True)
class Limit:
    """What B − A in a score, or B / A in a time, must not exceed (or fall below): 'fid>+0.5'.

    on: 'interval' where all of its 95 % interval has to lie beyond, so that noise breaks a limit that holds in 2.5 % of
    comparisons; 'value' where the number alone counts, as it does where no interval is known.
    """

    text: str
    name: str
    above: bool
    bound: float
    on: FailOn = "interval"

    @classmethod
    def parse(cls, text: str, on: FailOn = "interval") -> Limit:
        """Raises UsageError when `text` is no 'NAME>NUMBER' or 'NAME<NUMBER'."""
        match = re.fullmatch(r"\s*([^<>]+?)\s*([<>])\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*", text)
        with contextlib.suppress(ValueError):
            if match:
                return cls(text.strip(), match[1], match[2] == ">", float(match[3]), on)
        raise UsageError(f"--fail-if '{text}': give a score, > or <, and a number, such as 'fid>+0.5'")

    def broken_by(self, comparison: RunComparison) -> str:
        """What lies beyond the limit, in words; '' when nothing does. Raises UsageError when it cannot be told."""
        contrast = self._contrast(comparison)
        ends = contrast.interval if self.on == "interval" else None
        return self._words(contrast) if all(map(self._beyond, ends or (contrast.value,))) else ""

    def undecided_by(self, comparison: RunComparison) -> str:
        """What lies beyond the limit by less than its error, in words; '' where that is not so."""
        contrast = self._contrast(comparison)
        if not self._beyond(contrast.value) or self.broken_by(comparison):
            return ""
        return f"{self._words(contrast)}, beyond the limit by less than its error: not counted; --fail-on value does"

    def _contrast(self, comparison: RunComparison) -> Contrast:
        contrast = comparison[self.name].contrast
        if contrast.value is None:
            raise UsageError(f"--fail-if '{self.text}': not compared: {contrast.reason}")
        return contrast

    def _beyond(self, value: float | None) -> bool:
        return value is not None and (value > self.bound if self.above else value < self.bound)

    def _words(self, contrast: Contrast) -> str:
        kind = "B / A" if self.name in TIMES else "B − A"
        interval = contrast.interval
        sure = f"[{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "without an interval"
        return f"{self.text}: {kind} is {contrast.value:.6g} {sure}"
