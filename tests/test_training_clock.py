"""The clock of training, and how times and rates are said."""

from __future__ import annotations

from types import SimpleNamespace

from trilemma_bench.training.clock import Clock, human_rate, human_time


def test_a_time_budget_ends_and_the_clock_stands_still_for_pictures(monkeypatch):
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr("trilemma_bench.training.clock.time.perf_counter", lambda: now.value)
    clock = Clock()
    clock.start(5.0)
    now.value += 2
    assert clock.read() == 7
    with clock.stopped():
        now.value += 50
    now.value += 1
    assert clock.read() == 8


def test_times_and_rates_are_said_as_people_do():
    said = [human_time(seconds) for seconds in (45, 720, 41 * 3600, 6 * 86400)]
    assert said == ["45 s", "12 min", "41 h", "6 days"]
    assert [human_rate(rate) for rate in (1234.4, 10, 9.96, 0.042)] == ["1,234", "10", "10", "0.042"]
