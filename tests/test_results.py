"""Records on disk, read back as a frame."""

from __future__ import annotations

import math

import pytest
from records import demo_records, failed_record, make_record, make_speed, make_training, with_errors

from trilemma_bench.errors import UsageError
from trilemma_bench.record import read_record
from trilemma_bench.results import find_records, load_results, to_frame, write_record


def store(folder, *records):
    for record in records:
        place = folder / record.place
        place.mkdir(parents=True)
        write_record(record, place / "record.json")


def test_finds_records_at_any_depth_oldest_first(tmp_path):
    new = make_record("new", created="2026-11-03T00:00:00+00:00")
    old = make_record("old", created="2026-11-02T00:00:00+00:00")
    store(tmp_path, new, old)
    found = find_records([tmp_path])
    assert [record for _, record in found.records] == [old, new]
    assert all(path.name == "record.json" and path.is_file() for path, _ in found.records)
    assert found.skipped == []


def test_a_record_reached_twice_counts_once(tmp_path):
    store(tmp_path, make_record())
    assert len(find_records([tmp_path, tmp_path / "gaussians25", tmp_path]).records) == 1


def test_links_to_runs_and_folders_are_followed_and_circles_end(tmp_path):
    store(tmp_path / "elsewhere", make_record())
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "runs")
    assert [record for _, record in find_records([tmp_path / "runs"]).records] == [make_record()]


def test_a_record_can_be_named_itself(tmp_path):
    path = write_record(make_record(), tmp_path / "record.json")
    assert find_records([path]).records == [(path, make_record())]


def test_what_is_no_record_is_reported_in_a_line_each_and_loses_nothing(tmp_path):
    store(tmp_path, make_record())
    foreign = {"cut": '{"schema": "tri', "foreign": '{"schema": "other/9"}', "list": "[1]", "bytes": "\0", "empty": ""}
    foreign["wrong"] = '{"schema": "trilemma-bench/record/1", "id": 3}'
    for name, text in foreign.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(text)
    found = find_records([tmp_path, tmp_path / "nowhere"])
    assert len(found.records) == 1
    assert len(found.skipped) == len(foreign) + 1
    for name in (*foreign, "nowhere"):
        assert sum(str(tmp_path / name) in line for line in found.skipped) == 1
    assert not any("\n" in line for line in found.skipped)


def test_a_row_a_run_with_scores_and_speed_as_numbers(tmp_path):
    store(tmp_path, *demo_records())
    frame = load_results(tmp_path)
    assert len(frame) == 8
    row = frame[frame.label == "ddpm (1000 steps)"].iloc[0]
    assert (row.dataset, row.model, row.variant, row.status) == ("gaussians25", "ddpm", "1000 steps", "complete")
    assert (row.protocol, row.samples, row.seed, row.batch_size) == ("points", 10_000, 0, 1000)
    assert (row.fd_features, row.recall, row.modes) == (0.0043, 0.941, 25)
    assert (row.nfe, row.seconds_per_image, row.images_per_second) == (1000, 2.1e-3, 1 / 2.1e-3)
    assert (row.parameters, row.training_seconds, row.training_images) == (530_434, 115.0, 6_144_000)
    assert row.peak_memory_bytes == 312_000_000
    assert row.device.startswith("cpu")
    assert to_frame([make_record(speed=make_speed(0.1, 4, processor_share=0.4))]).processor_share.item() == 0.4
    assert row.path.endswith("record.json")
    # the Fréchet distance of other features is another score, and has no value in this row
    assert math.isnan(row["fd_digits-cnn"])
    assert frame["fd_digits-cnn"].dtype == frame.precision.dtype == "float64"


def test_a_run_without_scores_or_speed_has_a_row_too():
    frame = to_frame([failed_record(), make_record(speed=make_speed(0.1, None))])
    assert frame.error.tolist()[0] == "loss is NaN at step 12"
    assert frame.recall.isna().tolist() == [True, False]
    assert frame.seconds_per_image.isna().tolist() == [True, False]


def test_a_score_called_like_a_fact_replaces_nothing():
    frame = to_frame([make_record(scores={"seed": 0.25}, seed=7)])
    assert (frame.seed[0], frame.score_seed[0]) == (7, 0.25)


def test_scores_come_with_their_errors_and_intervals():
    frame = to_frame([make_record(scores=with_errors({"fid": (7.0, 0.5)})), make_record(scores={"fid": 8.0})])
    assert frame.fid_se[0] == 0.5
    assert (frame.fid_low[0], frame.fid_high[0]) == (7 - 0.98, 7 + 0.98)
    assert frame.loc[1, ["fid_se", "fid_low", "fid_high"]].isna().all()


def test_settings_budget_and_commit_have_columns(tmp_path):
    part = make_record().model.model_copy(update={"settings": {"eta": 0.5}})
    training = make_training(settings={"lr": 0.1, "budget": "2m"}, budget="2m")
    swept = make_record(id="a", environment={"commit": "abc"}, training=training).model_copy(update={"model": part})
    store(tmp_path, swept, make_record(id="b", scores={"set.eta": 3.0}))
    frame = load_results(tmp_path).set_index("id")
    names = ["budget", "commit", "set.eta", "set.lr"]
    assert frame.loc["a", names].tolist() == ["2m", "abc", 0.5, 0.1]
    assert math.isnan(frame["set.eta"]["b"])
    assert frame["score_set.eta"]["b"] == 3.0
    assert "set.budget" not in frame


def test_a_folder_that_is_not_there_is_no_empty_frame(tmp_path):
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        load_results(tmp_path / "nowhere")


def test_a_record_is_read_by_its_path_and_shown_in_one_line(tmp_path):
    record = make_record("gan", scores={"fid": 7.0, "recall": 0.5})
    store(tmp_path, record)
    (file,) = tmp_path.rglob("record.json")
    assert read_record(str(file)) == record
    line = f"<gan on {record.dataset.name}, seed 0, complete, fid 7, recall 0.5; {record.place}>"
    assert repr(record) == str(record) == line


def test_an_empty_folder_is_an_empty_frame_with_its_columns(tmp_path):
    frame = load_results(tmp_path)
    assert len(frame) == 0
    assert {"id", "label", "seconds_per_image", "path"} <= set(frame.columns)
