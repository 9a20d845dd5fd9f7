"""Time as training counts it, and as people say it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of training: it stands still while something else is done."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = time.perf_counter()

    def start(self, seconds: float) -> None:
        self.seconds, self._last = seconds, time.perf_counter()

    def read(self) -> float:
        now = time.perf_counter()
        self.seconds, self._last = self.seconds + now - self._last, now
        return self.seconds

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.read()
        try:
            yield
        finally:
            self._last = time.perf_counter()


def human_rate(rate: float) -> str:
    """'1,234' or '0.42': so many of something a second."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def human_time(seconds: float) -> str:
    """'45 s', '12 min', '41 h' or '6 days'."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
