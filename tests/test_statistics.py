"""What may be ranked together, which runs make one row, and the errors of both."""

from __future__ import annotations

import math

import numpy as np
import pytest
from records import make_protocol, make_record, make_speed, make_training, of_code
from scipy import stats

from trilemma_bench.grouping import comparable, is_reference, over_seeds
from trilemma_bench.record import Score
from trilemma_bench.statistics import RUNS_FREEDOM, RUNS_SD, median_error, time_interval

CPU, GPU = make_speed(1e-3, 4, device="cpu"), make_speed(1e-4, 4, device="cuda")


def test_equal_conditions_share_a_group():
    groups = comparable([make_record("a", speed=CPU), make_record("b", speed=CPU)])
    assert [[record.model.name for record in group.records] for group in groups] == [["a", "b"]]


GIVEN = {"dataset": "gaussians25", "fingerprint": "unknown", "split": "test", "samples": 10_000, "sha256": "f" * 64}
BASE = {"references": {"points": GIVEN}}
FIELDS = {
    "name": "other",
    "extractor": "pixels",
    "extractors": {"points": {"weights_sha256": None, "resize": "clean"}},
    "metrics": {"fd_points": "points", "precision": "points, 500 samples"},
    "reference_sha256": "e" * 64,
    "reference_subset": "the first M",
    "references": {"points": {**GIVEN, "source": "stats.npz"}},
    "kid": "100 subsets of 1000",
    "quantisation": "floor",
    "reference_split": "train",
    "reference_samples": 5_000,
    "samples": 5_000,
    "k_precision_recall": 5,
    "k_density_coverage": 3,
    "mode_rule": "3 standard deviations",
}


NESTED = {
    "extractors": "extractors · points · resize",
    "metrics": "metrics · precision",
    "references": "references · points · source",
}


def test_every_field_of_the_protocol_is_tried_below():
    assert set(FIELDS) == set(make_protocol().model_dump())


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_of_the_protocol_separates_and_is_named(field):
    one, other = comparable(
        [make_record(speed=CPU, protocol=changes, samples=10_000) for changes in (BASE, {**BASE, field: FIELDS[field]})]
    )
    value, name = FIELDS[field], {"name": "protocol", **NESTED}.get(field, field)
    while isinstance(value, dict):
        value = list(value.values())[-1]
    assert len(other.differences(one)) == 1
    assert other.differences(one)[0].startswith(f"{name}: {str(value)[:12]}")


def test_dataset_content_samples_and_device_separate():
    base = make_record(speed=CPU)
    other_data = base.model_copy(update={"dataset": base.dataset.model_copy(update={"fingerprint": "e" * 64})})
    variants = [make_record(dataset="digits", speed=CPU), other_data, make_record(speed=GPU)]
    variants.append(base.model_copy(update={"samples": 77}))
    for variant in variants:
        assert len(comparable([base, variant])) == 2
    assert comparable([base, variants[2]])[1].differences(comparable([base])[0]) == ["device: cuda, not cpu"]


def test_what_no_device_decided_belongs_to_every_device():
    real, uploaded = make_record("real-data", speed=GPU), make_record("uploaded")
    groups = comparable([real, make_record("a", speed=CPU), make_record("b", speed=GPU), uploaded])
    names = [[record.model.name for record in group.records] for group in groups]
    assert [group["device"] for group in groups] == ["cpu", "cuda"]
    assert names == [["a", "real-data", "uploaded"], ["b", "real-data", "uploaded"]]


def test_untimed_rows_alone_form_a_group_without_device():
    (group,) = comparable([make_record("real-data"), make_record("uploaded")])
    assert group["device"] is None
    assert is_reference(group.records[0])
    assert not is_reference(group.records[1])


def test_what_is_real_data_is_said_by_the_record_not_by_a_name():
    named, other = make_record("real-data").model, make_record("my-held-out").model
    told = [part.model_copy(update={"reference": told}) for part, told in ((named, False), (other, True))]
    assert [is_reference(make_record().model_copy(update={"model": part})) for part in told] == [False, True]


def test_failed_runs_are_in_no_group():
    assert comparable([make_record(status="failed", error="x"), make_record(status="interrupted")]) == []


# seeds


def trained(seed, value=0.5, weights=None, **changes):
    training = make_training(checkpoint_sha256=weights or f"{seed:064}", **changes.pop("training", {}))
    scores = {"recall": value, "modes": 20 + seed}
    return make_record(scores=scores, seed=seed, id=f"{seed}", training=training, **changes)


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


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"variant": "8 steps"},
        {"dataset": "digits"},
        {"protocol": {"kid": "100 subsets of 1000"}},
        {"training": {"budget": "4m"}},
        {"training": {"settings": {"lr": 1}}},
        {"training": {"device": "cuda"}},
        {"speed": GPU},
    ],
)
def test_what_differs_in_more_than_the_seed_stays_apart(changes):
    assert [len(runs) for runs in over_seeds([trained(0), trained(1, **changes)])] == [1, 1]


@pytest.mark.parametrize(
    ("codes", "sizes"),
    [
        (["a", "b"], [1, 1]),
        (["a", "a"], [2]),
        (["", "a", "a"], [3]),  # a record from before code was recorded
        (["", "a", "b"], [1, 1, 1]),  # which of the two it is of cannot be told
        (["a", "", "b", "a"], [2, 1, 1]),
    ],
)
def test_edited_code_is_another_model(codes, sizes):
    records = [of_code(trained(seed), code * 64) for seed, code in enumerate(codes)]
    assert [len(runs) for runs in over_seeds(records)] == sizes


@pytest.mark.parametrize(
    ("sampling", "sizes"),
    [
        ([{"chunk_size": 100}, {"chunk_size": 1000}], [1, 1]),
        ([{"chunk_size": 100}, {"chunk_size": 100}], [2]),
        ([{"chunk_size": 100}, {}], [2]),  # a record from before it was recorded
        ([{"chunk_size": 100, "timing_batch": 1}, {"chunk_size": 100, "timing_batch": 2}], [2]),  # no part in samples
    ],
)
def test_other_chunks_are_other_samples(sampling, sizes):
    records = [trained(seed).model_copy(update={"sampling": facts}) for seed, facts in enumerate(sampling)]
    assert [len(runs) for runs in over_seeds(records)] == sizes


def test_time_and_cost_of_training_do_not_keep_seeds_apart():
    (runs,) = over_seeds([trained(0), trained(1, training={"seconds": 200.0, "images": 7, "digest": "1"})])
    assert runs.record.training.seconds == 157.5


def test_a_repeated_seed_or_trained_model_is_no_other_training():
    assert [len(runs) for runs in over_seeds([trained(0), trained(1), trained(0)])] == [2, 1]
    assert [len(runs) for runs in over_seeds([trained(0, weights="w"), trained(1, weights="w")])] == [1, 1]


def test_untrained_runs_vary_in_sampling_only():
    (runs,) = over_seeds([make_record(seed=seed, training=None) for seed in range(2)])
    assert runs.covers == "sampling (2 seeds)"


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


def test_a_run_whose_raw_times_scatter_is_no_surer_than_they_are():
    raw = [1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4]  # ranks 3 and 10 hold the median but for 2 · 79 / 4096
    half = 1.96 * math.log(4) / (2 * stats.norm.isf(79 / 4096))
    assert half > stats.t.ppf(0.975, RUNS_FREEDOM) * RUNS_SD
    low, high = time_interval(speeds_of([1.0], raw), "seconds_per_image")
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
