"""How much of the processor this process got while it was ready to run: what a busy machine takes from a timing."""

from __future__ import annotations

import contextlib
from pathlib import Path

Nanoseconds = tuple[int, int]  # of a thread: running, and ready but waiting for a processor


class ProcessorShare:
    """Watches from now on. Waits are the scheduler's own count, so idle, sleeping and blocked threads do not matter."""

    def __init__(self) -> None:
        self._start = _threads()

    def read(self) -> float | None:
        """Of the time in which threads of this process were ready to run, the share in which they ran; None where the
        system does not tell: it is Linux that does.
        """
        now = _threads()
        ran, waited = (
            sum(times[i] - self._start.get(thread, (0, 0))[i] for thread, times in now.items()) for i in (0, 1)
        )
        return ran / (ran + waited) if ran > 0 else None


def _threads() -> dict[str, Nanoseconds]:
    found: dict[str, Nanoseconds] = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # a thread that has just ended
            ran, waited, _ = map(int, file.read_text().split())
            found[file.parent.name] = ran, waited
    return found
