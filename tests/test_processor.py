"""The share of the processor that a process got, of what it was ready to use."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from trilemma_bench import processor
from trilemma_bench.processor import ProcessorShare


def watch(monkeypatch, before, after):
    readings = iter([before, after])
    monkeypatch.setattr(processor, "_threads", lambda: next(readings))
    return ProcessorShare().read()


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ({"1": (0, 0)}, {"1": (900, 100)}, 0.9),
        ({"1": (5000, 70)}, {"1": (5300, 770)}, 0.3),  # what was before does not count
        ({"1": (0, 0)}, {"1": (600, 0), "2": (0, 200)}, 0.75),  # a thread that began, and has only waited
        ({"1": (0, 0), "2": (9, 9)}, {"1": (100, 0)}, 1.0),  # one that ended
        ({}, {}, None),  # a system that does not tell
        ({"1": (0, 0)}, {"1": (0, 0)}, None),  # or counts nothing
    ],
)
def test_waiting_for_a_processor_is_what_was_not_got(monkeypatch, before, after, share):
    assert watch(monkeypatch, before, after) == share


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not tell")
def test_work_is_counted_as_having_run():
    """How much it waits is up to the others on the machine."""
    share, before = ProcessorShare(), processor._threads()
    start = time.thread_time()
    while time.thread_time() - start < 0.05:
        pass
    after = processor._threads()
    assert sum(ran for ran, _ in after.values()) - sum(ran for ran, _ in before.values()) >= 0.04e9
    assert 0 < share.read() <= 1
