"""`--fail-if`: what a comparison must not exceed."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Literal

from trilemma_bench.comparing import RunComparison
from trilemma_bench.contrasts import TIMES, Contrast
from trilemma_bench.errors import UsageError

FailOn = Literal["interval", "value"]


@dataclass(frozen=True)
class Limit:
    """What B − A in a score, or B / A in a time, must not exceed (or fall below): 'fid>+0.5'.

    on: 'interval' where all of its 95 % interval has to lie beyond, so that noise alone rarely breaks a limit; 'value'
    where the number alone counts, however unsure it is.
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
        """What lies beyond the limit, in words; '' when nothing does.

        Raises UsageError when it cannot be told, as on the interval where none is known: such a check could never fail.
        """
        contrast = self._contrast(comparison)
        if self.on == "value":
            return self._words(contrast) if self._beyond(contrast.value) else ""
        if contrast.interval is None:
            raise UsageError(f"--fail-if {self._words(contrast)}: {contrast.reason}; --fail-on value judges it so")
        return self._words(contrast) if all(map(self._beyond, contrast.interval)) else ""

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
