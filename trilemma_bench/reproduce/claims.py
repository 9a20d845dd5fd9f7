"""What a claim is, what is found out about it, and how a verdict is reached: never a pass by default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from trilemma_bench.record import Record, Score
from trilemma_bench.statistics import Z95

Outcome = Literal["reproduced", "not reproduced", "not checked at this scale"]


@dataclass(frozen=True)
class Findings:
    """runs: records by the names that the suite gives its runs. seconds: of 100 samples, by the names of the timed
    systems. multimodal: the share of places where the exact denoising distribution has several modes, by T.
    """

    runs: Mapping[str, Record] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    multimodal: Mapping[int, float] = field(default_factory=dict)

    def score(self, run: str, name: str) -> Score:
        """Raises Missing where the run or the score is not there."""
        if run not in self.runs or name not in self.runs[run].scores:
            raise Missing(f"{run}: {name}")
        return self.runs[run].scores[name]

    def value(self, run: str, name: str) -> float:
        return self.score(run, name).value

    def time(self, system: str) -> float:
        if system not in self.seconds:
            raise Missing(f"time of {system}")
        return self.seconds[system]


class Missing(Exception):
    """What a check needs was not measured."""


@dataclass(frozen=True)
class Check:
    """What one look at the findings says: whether the claim holds, and the figures in words."""

    holds: bool
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
    return Verdict(claim, "reproduced" if found.holds else "not reproduced", found.measured)


def clearly_above(a: Score, b: Score) -> bool:
    """Whether a exceeds b by more than 1.96 standard errors of the difference (sampling alone, one training run).

    Raises Missing where either error is not known.
    """
    return clearly_below(b, a)


def clearly_below(a: Score, b: Score, margin: float = 1.0) -> bool:
    """Whether a is below `margin` times b by more than 1.96 standard errors of that difference, as `clearly_above`."""
    return margin * b.value - a.value > Z95 * math.hypot(_error(a), margin * _error(b))


def _error(score: Score) -> float:
    if score.standard_error is None:
        raise Missing(f"the standard error of {score.title or 'a score'}")
    return score.standard_error
