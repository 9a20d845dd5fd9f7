"""What may be ranked together, and which runs make one row."""

from __future__ import annotations

import pytest
from records import made_elsewhere, make_protocol, make_record, make_speed, of_code, trained

from trilemma_bench.grouping import comparable, is_reference, over_seeds, repeats

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


def test_what_differs_at_the_end_of_a_long_text_is_shown():
    kid = "100 subsets of {}, NumPy's choice with seed 2020"
    one, other = comparable(
        [make_record(protocol={"kid": kid.format(size), "reference_sha256": digit * 64}) for size, digit in
         ((1000, "d"), (500, "e"))]
    )  # fmt: skip
    assert other.differences(one) == [
        "reference_sha256: eeeeeeeeeeee…, not dddddddddddd…",
        f"kid: {kid.format(500)}, not {kid.format(1000)}",
    ]


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


def test_a_model_with_other_settings_is_another_row():
    one, other = trained(0), trained(1)
    wider = other.model_copy(update={"model": other.model.model_copy(update={"settings": {"hidden": 512}})})
    assert [len(runs) for runs in over_seeds([one, wider])] == [1, 1]


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


def test_sets_of_samples_made_elsewhere_are_seeds_of_one_row():
    (runs,) = over_seeds([made_elsewhere("a.npz", 0), made_elsewhere("b.npz", 1), made_elsewhere("c.npz", 2)])
    assert len(runs) == 3
    assert runs.record.scores["recall"].interval_method.startswith("Student's t over seeds of the samples' making")


@pytest.mark.parametrize(
    "second",
    [made_elsewhere("b.npz", 0), made_elsewhere("b.npz", 1, content="a.npz"), made_elsewhere("a.npz", 1)],
    ids=["one seed twice", "the same samples in another file", "one file twice"],
)
def test_the_same_seed_or_samples_made_elsewhere_count_once(second):
    assert [len(runs) for runs in over_seeds([made_elsewhere("a.npz", 0), second])] == [1, 1]


def test_the_same_samples_measured_again_are_a_repetition():
    again, other = made_elsewhere("copy.npz", content="a.npz"), made_elsewhere("b.npz")
    assert [len(same) for same in repeats([made_elsewhere("a.npz"), again, other])] == [2, 1]
