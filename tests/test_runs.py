"""Runs of several seeds as one row, with the errors of both."""

from __future__ import annotations

import numpy as np
import pytest
from records import make_record, make_speed, trained
from scipy import stats

from trilemma_bench.grouping import over_seeds
from trilemma_bench.record import Score
from trilemma_bench.runs import Runs


def test_seeds_make_one_row_with_the_interval_of_students_t():
    values = [0.5, 0.6, 0.65, 0.55]
    (runs,) = over_seeds([trained(seed, value) for seed, value in enumerate(values)])
    score = runs.record.scores["recall"]
    oracle = stats.ttest_1samp(values, 0)
    assert len(runs) == 4
    assert score.value == pytest.approx(np.mean(values))
    assert score.standard_error == pytest.approx(stats.sem(values))
    assert score.interval == pytest.approx(tuple(oracle.confidence_interval()))
    assert score.interval_method.startswith("Student's t over seeds of training and sampling")


def test_seeds_that_agree_are_no_surer_than_their_samples():
    perfect = Score(
        value=1.0, better="higher", unit="share", standard_error=0.0, interval=(1 - 0.02 * 1.96, 1.0), ideal=1.0
    )
    (runs,) = over_seeds([trained(seed).model_copy(update={"scores": {"recall": perfect}}) for seed in range(4)])
    assert runs.record.scores["recall"].interval == pytest.approx((1 - 0.01 * 1.96, 1.0))
    unsure = perfect.model_copy(update={"value": 0.5, "standard_error": 0.03, "interval": (0.4412, 0.5588)})
    (runs,) = over_seeds([trained(seed).model_copy(update={"scores": {"recall": unsure}}) for seed in range(9)])
    score = runs.record.scores["recall"]
    assert score.standard_error == pytest.approx(0.01)
    assert score.interval == pytest.approx((0.5 - 0.0196, 0.5 + 0.0196), rel=1e-4)


def test_seeds_that_agree_on_nothing_may_have_more_than_that():
    none = Score(value=0.0, better="higher", unit="share", standard_error=0.0, interval=(0.0, 0.02 * 1.96), ideal=1.0)
    (runs,) = over_seeds([trained(seed).model_copy(update={"scores": {"recall": none}}) for seed in range(4)])
    assert runs.record.scores["recall"].interval == pytest.approx((0.0, 0.01 * 1.96), rel=1e-4)


def test_the_interval_of_a_share_stays_between_0_and_1():
    (runs,) = over_seeds([trained(0, 0.7), trained(1, 0.9)])
    low, high = runs.record.scores["recall"].interval
    assert (low, high) == (0.0, 1.0)
    assert runs.record.scores["modes"].interval[1] > 25


def test_an_interval_over_seeds_stays_among_the_values_that_a_score_can_take():
    """0.1 ± 12.7 · 0.1; a record that does not say which they are narrows nothing."""
    facts = {"better": "lower", "unit": "", "title": "Fréchet distance"}
    for ranges, expected in [
        ([(0.0, None), (0.0, None)], (0.0, 1.3706)),
        ([None, (0.0, None)], (0.0, 1.3706)),
        ([None, (None, 1.0)], (-1.1706, 1.0)),
        ([None, None], (-1.1706, 1.3706)),
    ]:
        scores = [Score(value=value, range=limits, **facts) for value, limits in zip((0.0, 0.2), ranges, strict=True)]
        records = [trained(seed).model_copy(update={"scores": {"fid": score}}) for seed, score in enumerate(scores)]
        (runs,) = over_seeds(records)
        assert runs.record.scores["fid"].interval == pytest.approx(expected, abs=1e-4)


def test_a_single_run_is_itself():
    (runs,) = over_seeds([trained(3)])
    assert runs.record is runs.records[0]
    assert runs.freedom == np.inf


def test_a_single_run_covers_its_sampling_and_names_a_trained_model_where_there_is_one():
    assert Runs((trained(0),)).covers == "sampling only: the same trained model"
    assert Runs((make_record(training=None),)).covers == "sampling only"


def test_untrained_runs_vary_in_sampling_only():
    (runs,) = over_seeds([make_record(seed=seed, training=None) for seed in range(2)])
    assert runs.covers == "sampling (2 seeds)"


def test_runs_of_which_one_is_untrained_do_not_vary_in_training():
    assert Runs((trained(0), make_record(seed=1, training=None))).covers == "sampling (2 seeds)"


def test_mode_histograms_add_up_where_every_seed_has_one():
    first, second, without = (
        trained(seed, mode_histogram=counts) for seed, counts in enumerate(([1, 2], [3, 0], None))
    )
    assert Runs((first, second)).record.mode_histogram == [4, 2]
    assert Runs((first, second, without)).record.mode_histogram is None


def test_a_score_that_one_seed_lacks_is_missing():
    lacking = trained(1).model_copy(update={"scores": {}, "missing": {"recall": "NaN"}})
    (runs,) = over_seeds([trained(0), lacking])
    assert "recall" not in runs.record.scores
    assert runs.record.missing["recall"] == "seed 1: NaN"


def test_the_speed_of_seeds_is_the_geometric_mean_of_their_medians():
    speeds = [make_speed(s, 4, raw_seconds=[1000 * s] * 3, peak_memory_bytes=int(1e9 * s)) for s in (1.0, 2.0, 32.0)]
    (runs,) = over_seeds([trained(seed, speed=speed) for seed, speed in enumerate(speeds)])
    speed = runs.record.speed
    assert (speed.seconds_per_image, speed.images_per_second) == pytest.approx((4.0, 0.25))
    assert speed.peak_memory_bytes == 32_000_000_000
    assert len(speed.raw_seconds) == 9
