"""Mode coverage: counts, divergences, and what perfect samples score."""

from __future__ import annotations

import math

import pytest
import torch

from trilemma_bench.contracts import Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.modes import HIGH_QUALITY, MODE_KL, MODES, mode_histogram, mode_kl, mode_kl_floor


def score(metric: Metric, modes, count, **settings):
    features = torch.zeros(max(1, len(modes)), 1)
    return metric.compute(Comparison(features, features, modes=torch.tensor(modes), mode_count=count, **settings))


def test_modes_counts_the_covered_ones():
    assert score(MODES, [0, 0, 3, -1, 3, 1], 5) == 3
    assert score(MODES, [0, 0, 3, -1, 3, 1], 5, mode_min_count=2) == 2
    assert score(MODES, [-1, -1], 5) == 0


def test_high_quality_is_the_share_that_has_a_mode():
    assert score(HIGH_QUALITY, [0, 1, -1, -1], 2) == 0.5
    assert score(HIGH_QUALITY, [-1], 2) == 0.0


def test_kl_to_uniform():
    assert score(MODE_KL, [0, 1, 2, 3], 4) == 0.0
    assert score(MODE_KL, [2, 2, 2, -1], 4) == pytest.approx(math.log(4))
    expected = 0.75 * math.log(0.75 * 2) + 0.25 * math.log(0.25 * 2)
    assert score(MODE_KL, [0, 0, 0, 1, -1], 2) == pytest.approx(expected, abs=1e-15)


def test_histogram_leaves_low_quality_out():
    assert mode_histogram(torch.tensor([1, -1, 1, 3]), 5).tolist() == [0, 2, 0, 1, 0]


@pytest.mark.parametrize("modes", [[0, 5], [-2, 0]])
def test_a_mode_out_of_range_is_refused(modes):
    with pytest.raises(TrilemmaError, match="modes must be in −1…4"):
        score(MODES, modes, 5)


def test_kl_without_samples_of_high_quality_is_an_error_not_nan():
    with pytest.raises(TrilemmaError, match="mode_kl needs at least one sample of high quality, got 0"):
        score(MODE_KL, [-1, -1], 5)


def test_unknown_modes_are_an_error():
    features = torch.zeros(3, 1)
    with pytest.raises(TrilemmaError, match="whose modes are known"):
        MODES.compute(Comparison(features, features))
    with pytest.raises(TrilemmaError, match="2 modes do not fit 3 generated samples"):
        Comparison(features, features, modes=torch.zeros(2, dtype=torch.int64), mode_count=2)


@pytest.mark.parametrize(
    ("n", "measured"), [(10_000, 0.0513), (25_600, 0.0198), (26_000, 0.0192), (50_000, 0.0101)]
)  # one draw each, whose standard deviation is √(2·999)/2n
def test_floor_for_1000_modes_is_what_perfect_samples_measured(n, measured):
    assert mode_kl_floor(n, 1000) == pytest.approx(measured, abs=math.sqrt(2 * 999) / (2 * n))


def test_floor_is_the_mean_over_many_perfect_draws():
    rng = torch.Generator().manual_seed(0)
    draws = [mode_kl(mode_histogram(torch.randint(25, (500,), generator=rng), 25)) for _ in range(2000)]
    assert mode_kl_floor(500, 25) == pytest.approx(sum(draws) / 2000, rel=0.02)


def test_floor_of_small_cases_by_hand():
    assert mode_kl_floor(1, 10) == pytest.approx(math.log(10))
    assert mode_kl_floor(2, 2) == pytest.approx(math.log(2) / 2)  # both in one mode half of the time, else balanced
    assert mode_kl_floor(7, 1) == 0.0
    assert mode_kl_floor(10**6, 10) == pytest.approx(9 / 2e6, rel=1e-3)  # (modes − 1) / 2n for many samples
