"""The intervals of times, and the errors of medians."""

from __future__ import annotations

import math

import numpy as np
import pytest
from records import make_speed
from scipy import stats

from trilemma_bench.statistics import RUNS_FREEDOM, RUNS_SD, geometric_mean, median_error, raw_times, time_interval


def speeds_of(medians, raw=(1.0, 1.0, 1.0)):
    """Runs with these times for a batch of one; raw: what their raw times are of the median."""
    return [
        make_speed(m, 4, batch_size=1, raw_seconds=[m * r for r in raw], latency_seconds=m, raw_latency_seconds=[])
        for m in medians
    ]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_interval_of_a_time_is_of_the_moderated_variance(count):
    medians = [1.0, 1.1, 1.3, 0.7, 1.2][:count]
    logs, freedom = np.log(medians), RUNS_FREEDOM + count - 1
    variance = (RUNS_FREEDOM * RUNS_SD**2 + count * logs.var()) / freedom  # Smyth 2004
    oracle = stats.t.interval(0.95, freedom, logs.mean(), np.sqrt(variance / count))
    for field in ("seconds_per_image", "latency_seconds"):
        assert time_interval(speeds_of(medians), field) == pytest.approx(tuple(np.exp(oracle)))


def test_with_many_runs_nothing_but_their_spread_counts():
    medians = np.random.default_rng(0).lognormal(0, 0.02, 3000)
    oracle = stats.t.interval(0.95, 2999, np.mean(np.log(medians)), stats.sem(np.log(medians)))
    found = np.log(time_interval(speeds_of(medians), "latency_seconds"))
    assert found.mean() == pytest.approx(np.mean(oracle))
    assert np.ptp(found) == pytest.approx(np.ptp(oracle), rel=0.05)


@pytest.mark.parametrize("count", [1, 4])
def test_runs_whose_raw_times_scatter_are_no_surer_than_they_are(count):
    """Of the mean over four runs half the error of one."""
    raw = [1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4]  # ranks 3 and 10 hold the median but for 2 · 79 / 4096
    half = 1.96 * math.log(4) / (2 * stats.norm.isf(79 / 4096)) / math.sqrt(count)
    assert half > stats.t.ppf(0.975, RUNS_FREEDOM) * RUNS_SD / math.sqrt(count)
    low, high = time_interval(speeds_of([1.0] * count, raw), "seconds_per_image")
    assert (math.log(low), math.log(high)) == pytest.approx((-half, half), rel=1e-4)


def test_without_a_time_or_with_one_of_0_there_is_no_interval():
    assert time_interval([], "seconds_per_image") is None
    assert time_interval(speeds_of([1.0, 0.0]), "seconds_per_image") is None
    assert time_interval(speeds_of([1.0], (0.0, 1.0, 1.0)), "seconds_per_image") is None


@pytest.mark.parametrize("count", [3, 8, 20, 101])
def test_the_error_of_a_median_is_the_spread_over_draws(count):
    """Of few it errs on the wide side."""
    draws = np.random.default_rng(0).normal(size=(2000, count))
    errors = [median_error(draw) for draw in draws]
    assert 0.95 < np.sqrt(np.mean(np.square(errors))) / np.median(draws, axis=1).std() < 1.3


def test_the_error_of_a_median_with_known_answers():
    assert median_error([3.0, 1.0]) == pytest.approx(2 / (2 * stats.norm.isf(0.25)))
    assert median_error(range(1, 7)) == pytest.approx(5 / (2 * stats.norm.isf(1 / 64)))
    assert median_error([7.0]) == 0


def test_raw_times_are_those_of_one_image_or_of_one_call():
    speed = make_speed(0.1, 4, batch_size=20, raw_seconds=[2.0, 3.0], raw_latency_seconds=[0.5, 0.7])
    assert raw_times(speed, "seconds_per_image") == pytest.approx([0.1, 0.15])
    assert raw_times(speed, "latency_seconds") == [0.5, 0.7]
    bare = speed.model_copy(update={"raw_seconds": [], "raw_latency_seconds": []})
    assert raw_times(bare, "seconds_per_image") == [speed.seconds_per_image]
    assert raw_times(bare, "latency_seconds") == [speed.latency_seconds]


def test_a_time_of_nothing_makes_the_mean_nothing():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4)
    assert geometric_mean([2.0, 0.0]) == 0
