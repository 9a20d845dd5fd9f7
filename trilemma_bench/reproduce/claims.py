"""What a claim is, what is found out about it, and how a verdict is reached: never a pass by default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trilemma_bench.contrasts import Contrast, difference, ratio_of_times
from trilemma_bench.record import Score, Speed
from trilemma_bench.report import format as fmt
from trilemma_bench.runs import Runs

Outcome = Literal["reproduced", "not reproduced", "undecided", "not checked at this scale"]
Truth = bool | None  # None: what was measured leaves it open
_OUTCOMES: dict[Truth, Outcome] = {True: "reproduced", False: "not reproduced", None: "undecided"}


@dataclass(frozen=True)
class Findings:
    """runs: by the names that the suite gives its runs, each over its seeds. speeds: of the timed systems by their
    names, one for each seed. multimodal: the share of places where the exact denoising distribution has several modes,
    by T. Its methods raise Missing for what was not measured.
    """

    runs: Mapping[str, Runs] = field(default_factory=dict)
    speeds: Mapping[str, Sequence[Speed]] = field(default_factory=dict)
    multimodal: Mapping[int, float] = field(default_factory=dict)

    def score(self, run: str, name: str) -> Score:
        """The score `name` of a run; of several seeds their mean, with its interval over them."""
        if run not in self.runs or name not in self.runs[run].record.scores:
            raise Missing(f"{run}: {name}")
        return self.runs[run].record.scores[name]

    def text(self, run: str, name: str) -> str:
        """A score with its interval, as people read it."""
        score = self.score(run, name)
        return fmt.with_interval(score.value, score.interval)

    def excess(self, run: str, other: str, name: str, share: float = 1.0) -> Contrast:
        """By how much the score `name` of `run` exceeds `share` times that of `other`."""
        for each in (run, other):
            self.score(each, name)
        return _with_error(difference(_scaled(self.runs[other], name, share), self.runs[run], name))

    def ratio(self, slow: str, fast: str) -> Contrast:
        """The sampling time of the system `slow` over that of `fast`."""
        for system in (slow, fast):
            if not self.speeds.get(system):
                raise Missing(f"time of {system}")
        return _with_error(ratio_of_times(self.speeds[fast], self.speeds[slow], "seconds_per_image"))


class Missing(Exception):
    """What a check needs was not measured."""


@dataclass(frozen=True)
class Check:
    """What one look at the findings says: whether the claim holds, and the figures in words."""

    holds: Truth
    measured: str


@dataclass(frozen=True)
class Claim:
    """statement and published: as the paper has them. rule: what must hold, in words, fixed before anything is
    measured. check: looks at the findings. needs_gpu: there is no check at the scale of a CPU.
    """

    number: str
    statement: str
    published: str
    rule: str
    check: Callable[[Findings], Check]
    needs_gpu: bool = False


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    outcome: Outcome
    measured: str


def judge(claim: Claim, findings: Findings, scale: str) -> Verdict:
    """The verdict on `claim`; what was not measured is never a pass."""
    if claim.needs_gpu and scale != "gpu":
        return Verdict(claim, "not checked at this scale", "needs the GPU's scale")
    try:
        found = claim.check(findings)
    except Missing as missing:
        return Verdict(claim, "not checked at this scale", f"not measured: {missing}")
    return Verdict(claim, _OUTCOMES[found.holds], found.measured)


def lies(contrast: Contrast, low: float = -math.inf, high: float = math.inf) -> Truth:
    """Whether a number lies between `low` and `high`, as far as its 95 % interval tells; at an end it does not. Times
    from a busy machine leave it open.
    """
    if contrast.disturbed:
        return None
    least, most = _ends(contrast)
    if low < least and most < high:
        return True
    return False if most <= low or least >= high else None


def reaches(score: Score, target: float) -> Truth:
    """Whether a score is at least `target`: False where all of its interval is below."""
    if score.value >= target:
        return True
    return None if score.interval is None or score.interval[1] >= target else False


def every(*truths: Truth) -> Truth:
    """Whether all of them hold: False as soon as one does not, open as soon as one is."""
    return False if False in truths else None if None in truths else True


def ratio_text(ratio: Contrast) -> str:
    """A ratio of times with its interval, as people read it."""
    busy = " (on a busy machine)" if ratio.disturbed else ""
    return f"{fmt.with_interval(ratio.value or 0.0, ratio.interval)}{busy}"


def _ends(contrast: Contrast) -> tuple[float, float]:
    """The interval; of values that do not vary, such as 25 modes on both sides, the number itself."""
    value = contrast.value or 0.0
    return contrast.interval or (value, value)


def _with_error(contrast: Contrast) -> Contrast:
    """`contrast`, unless nothing is known of its error."""
    if contrast.interval is None and not (contrast.method or contrast.disturbed):
        raise Missing(contrast.reason)
    return contrast


def _scaled(runs: Runs, name: str, factor: float) -> Runs:
    """`runs` with the score `name` multiplied by `factor`."""
    return Runs(
        tuple(
            run.model_copy(update={"scores": {**run.scores, name: _multiplied(run.scores[name], factor)}})
            for run in runs.records
        )
    )


def _multiplied(score: Score, factor: float) -> Score:
    error, interval = score.standard_error, score.interval
    changes = {
        "value": factor * score.value,
        "standard_error": None if error is None else factor * error,
        "interval": None if interval is None else (factor * interval[0], factor * interval[1]),
    }
    return score.model_copy(update=changes)
