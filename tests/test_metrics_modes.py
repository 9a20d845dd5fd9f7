"""Mode coverage: counts, divergences, and what perfect samples score."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.intervals import standard_error_of, wilson_interval
from trilemma_bench.metrics.modes import HIGH_QUALITY, MODE_KL, MODES, mode_histogram, mode_kl, mode_kl_floor
from trilemma_bench.statistics import Z95


def estimate(metric: Metric, modes, count, **settings) -> Estimate:
    features = torch.zeros(max(1, len(modes)), 1)
    return metric.estimate(Comparison(features, features, modes=torch.as_tensor(modes), mode_count=count, **settings))


def score(metric: Metric, modes, count, **settings) -> float:
    return estimate(metric, modes, count, **settings).value


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


def falling(count: int, power: float) -> np.ndarray:
    """Shares of modes that fall with their rank."""
    shares = np.arange(1, count + 1.0) ** -power
    return shares / shares.sum()


EQUAL = falling(1000, 0.0)
TAIL = falling(1000, 1.0)
HALF_DEAD = np.concatenate([falling(100, 0.5), np.zeros(900)])


@pytest.mark.parametrize(
    ("metric", "shares", "samples", "least"),
    [
        (MODES, EQUAL, 1000, 1), (MODES, EQUAL, 2600, 1), (MODES, TAIL, 2600, 1), (MODES, HALF_DEAD, 500, 1),
        (MODES, falling(25, 1.0), 1000, 20), (MODES, falling(25, 0.0), 1000, 40),
        (MODE_KL, EQUAL, 2600, 1), (MODE_KL, TAIL, 2600, 1), (MODE_KL, falling(25, 0.0), 1000, 1),
        (MODE_KL, falling(10, 1.0), 500, 1), (HIGH_QUALITY, falling(10, 1.0), 500, 1),
    ],
)  # fmt: skip
def test_standard_errors_are_the_spread_over_draws(metric, shares, samples, least):
    rng = np.random.default_rng(0)
    shares = np.append(0.8 * shares, 0.2)  # the last is low quality
    draws = []
    for _ in range(150):
        modes = rng.choice(len(shares), samples, p=shares)
        modes[modes == len(shares) - 1] = -1
        draws.append(estimate(metric, modes, len(shares) - 1, mode_min_count=least))
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert 0.8 < np.mean([draw.standard_error for draw in draws]) / spread < 1.25


COLLAPSED = np.array([0.999] + 9 * [0.001 / 9])
GEOMETRIC = 0.5 ** np.arange(1, 26)
UNEVEN = np.exp(3 * np.random.default_rng(0).normal(size=10))


@pytest.mark.parametrize(
    ("shares", "samples", "least"),
    [
        (GEOMETRIC, 500, 1), (COLLAPSED, 500, 1), (UNEVEN, 500, 1), (EQUAL, 2600, 1), (EQUAL, 10_000, 1),
        (TAIL, 2600, 1), (HALF_DEAD, 500, 1), (np.repeat([1.0, 0.0], [10, 15]), 500, 1),
        (GEOMETRIC, 10_000, 20), (falling(25, 1.0), 1000, 20),
    ],
)  # fmt: skip
def test_intervals_hold_the_mean_of_all_draws_in_95_percent(shares, samples, least):
    """For long tails and collapsed models too; less 2.5 standard deviations of so few draws. And two draws of a model
    differ by more than the errors that face each other in 5 %; in 10 % where one draw in 20 misses the same mode."""
    rng, repeats, shares = np.random.default_rng(1), 100, shares / shares.sum()
    draws = [np.repeat(np.arange(len(shares)), rng.multinomial(samples, shares)) for _ in range(repeats)]
    covered = [estimate(MODES, modes, len(shares), mode_min_count=least) for modes in draws]
    divergences = [estimate(MODE_KL, modes, len(shares)) for modes in draws]
    mean = float(stats.binom.sf(least - 1, samples, shares).sum())
    chance = 2.5 * math.sqrt(0.05 * 0.95 / repeats)
    for found, middle in ((covered, mean), (divergences, np.mean([each.value for each in divergences]))):
        held = [each.interval[0] - 1e-4 <= middle <= each.interval[1] + 1e-4 for each in found]
        assert np.mean(held) >= 0.95 - chance
        assert np.mean([differ(*pair) for pair in itertools.combinations(found, 2)]) <= 0.1 + chance


def differ(one: Estimate, other: Estimate) -> bool:
    low, high = sorted((one, other), key=lambda each: each.value)
    return high.value - low.value > math.hypot(low.interval[1] - low.value, high.value - high.interval[0]) + 1e-4


def test_modes_that_all_have_many_samples_are_sure():
    found = estimate(MODES, list(range(5)) * 100, 5)
    assert found.value == 5.0
    assert (found.standard_error, *found.interval) == pytest.approx((0.0, 5.0, 5.0), abs=1e-6)


def test_a_mode_far_from_its_minimum_count_will_not_reach_it():
    found = estimate(MODES, [0] * 100 + [1] * 100 + [2] * 6, 5, mode_min_count=20)
    assert (found.value, *found.interval) == pytest.approx((2.0, 2.0, 2.0), abs=0.05)
    assert estimate(MODES, [0] * 100 + [1] * 100 + [2] * 15, 5, mode_min_count=20).interval[1] > 2.5


def test_a_mode_without_a_sample_may_have_one_the_next_time():
    """Of very many such modes, up to Z95² on average, as Wilson's interval has it of samples."""
    assert estimate(MODES, [0] * 500, 10**4).interval[1] == pytest.approx(1 + Z95**2, rel=0.05)
    assert estimate(MODES, [0] * 500, 2).interval[1] == pytest.approx(1 + Z95**2 / (1 + Z95**2), rel=1e-4)


def test_an_interval_of_modes_stays_within_their_number():
    found = estimate(MODES, [*range(10), *range(10, 19), *range(10, 19), *range(10, 19)], 20)
    assert found.standard_error > 1
    assert found.interval[1] == 20.0
    assert estimate(MODES, [0] + 9 * [-1], 20).interval[0] == 0.0


def test_nothing_of_high_quality_has_an_interval():
    low, high = estimate(MODES, [-1] * 500, 5).interval
    assert low == 0.0
    assert 2 < high < 3
    low, high = estimate(HIGH_QUALITY, [-1, -1], 5).interval
    assert low == 0.0
    assert high == pytest.approx(0.6576, abs=1e-4)  # Wilson's z² / (n + z²)


def test_an_interval_of_the_kl_stays_within_its_values():
    low, high = estimate(MODE_KL, [3, 3], 10).interval
    assert 0.0 <= low < 1.0
    assert high == math.log(10)
    assert estimate(MODE_KL, [0, 0, 1, 1], 2).interval[0] == 0.0


def test_the_kl_of_samples_that_are_all_of_different_modes_has_no_error():
    found = estimate(MODE_KL, [0, 3, 7], 10)
    assert (found.standard_error, found.interval) == (None, None)


def test_the_error_of_the_kl_is_the_jackknifes_to_second_order():
    """Sample by sample and pair by pair, where n times the KL is Σ c ln c but for a constant."""
    drawn = [0] * 9 + [1] * 4 + [2] * 2 + [3]

    def term(left_out):
        counts = np.bincount(np.delete(drawn, left_out), minlength=4)
        return float((counts * np.log(np.maximum(counts, 1))).sum())

    n = len(drawn)
    alone = [term([]) - term([i]) for i in range(n)]
    together = [alone[i] + alone[j] - term([]) + term([i, j]) for i, j in itertools.combinations(range(n), 2)]
    pairs = np.square(together).sum() / n**2
    expected = math.sqrt(max(np.var(alone) / n - pairs, pairs))
    assert estimate(MODE_KL, drawn, 5).standard_error == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_the_kl_reaches_to_where_missed_modes_have_what_wilson_allows():
    found, missed = estimate(MODE_KL, [0] * 500, 4), wilson_interval(0.0, 500)[1]
    least = (1 - missed) * math.log(4 * (1 - missed)) + missed * math.log(4 * missed / 3)
    reach = math.hypot(Z95 * found.standard_error, math.log(4) - least)
    assert found.interval == pytest.approx((math.log(4) - reach, math.log(4)), rel=1e-12)


def test_ranges_hold_what_can_be():
    """No mode and no sample of high quality; equal shares."""
    for metric, found in ((MODES, [-1]), (HIGH_QUALITY, [-1]), (MODE_KL, [0, 1])):
        assert metric.range[0] == score(metric, found, 2) == 0.0


def test_wilson_interval_by_its_equation():
    for share, n in ((0.3, 10), (0.0, 7), (1.0, 7), (0.999, 5000)):
        for bound in wilson_interval(share, n):
            assert (share - bound) ** 2 * n == pytest.approx(Z95**2 * bound * (1 - bound), abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 10**6), st.floats(0, 1))
def test_wilson_interval_holds_its_share_exactly(n, part):
    hits = round(part * n)
    low, high = wilson_interval(hits / n, n)
    assert 0.0 <= low <= hits / n <= high <= 1.0
    assert low < high
    assert wilson_interval(0.0, n)[0] == 0.0
    assert wilson_interval(1.0, n)[1] == 1.0


def test_one_sample_has_no_standard_error():
    assert standard_error_of(torch.tensor([3.0])) is None
    assert standard_error_of(torch.tensor([1.0, 3.0])) == 1.0
