"""The repository's own results, and what `check` refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import call, refuses, succeeds
from records import make_record

from trilemma_bench import leaderboard
from trilemma_bench.leaderboard import check_records
from trilemma_bench.weights import sha256_of

RESULTS = Path(__file__).parents[1] / "results"
COMMITTED = sorted(each for each in RESULTS.glob("*") if each.is_dir() and each.name != "report")


GIVEN = {"dataset": "gaussians25", "fingerprint": "a", "split": "test", "samples": 10_000, "sha256": "b"}


def committed_row():
    """A record of the repository, on data that every machine has."""
    return next(path for path in sorted(RESULTS.glob("gaussians25/ddgan/*/record.json")))


@pytest.fixture
def row(tmp_path):
    """A copy of that row, to be spoilt."""
    folder = tmp_path.joinpath(*committed_row().parts[-4:-1])
    shutil.copytree(committed_row().parent, folder, ignore=shutil.ignore_patterns("checkpoint.safetensors"))
    return folder / "record.json"


def spoil(path, **changes):
    facts = json.loads(path.read_text())
    for place, value in changes.items():
        *parts, last = place.split("__")
        part = facts
        for each in parts:
            part = part[each]
        part[last] = value
    path.write_text(json.dumps(facts))


def test_every_row_of_the_repository_is_valid():
    count, problems = check_records(COMMITTED)
    assert count > 0
    assert problems == []


def test_no_row_of_the_repository_names_a_folder_of_its_machine():
    for path in (path for folder in COMMITTED for path in folder.rglob("record.json")):
        text = path.read_text()
        assert not any(place in text for place in ("/home/", "/root/", "/tmp/", "/Users/")), path


def test_a_whole_row_has_no_problem(row, monkeypatch):
    assert check_records([row.parents[3]]) == (1, [])
    monkeypatch.chdir(row.parents[1])
    assert check_records([Path()]) == (1, [])  # wherever it is looked at from


def test_the_size_of_a_reference_is_known_where_the_data_come_with_a_library():
    record = make_record(dataset="digits")
    sizes = [leaderboard._size_of(record, split) for split in ("train", "test")]
    assert sizes == [record.dataset.size, 500]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "failed"}, "the run is failed"),
        ({"id": "other"}, "does not lie in gaussians25/ddgan/other/"),
        ({"samples_sha256": None}, "no hash of its samples"),
        ({"samples_sha256": "abc"}, "no hash of its samples"),
        ({"protocol__k_precision_recall": 5}, "k_precision_recall = 5, but protocol 'points' has 3"),
        (
            {"protocol__reference_split": "train"},
            "against the train split, but protocol 'points' compares with the test",
        ),
        ({"protocol__reference_samples": 99}, "99 reference samples, but protocol 'points' has 10,000"),
        ({"protocol__reference_sha256": "e" * 64}, "eeeeeeeeeeee…, not the fingerprint of gaussians25"),
        (
            {"protocol__references": {"points": GIVEN}},
            "against given files, but protocol 'points' compares with the test",
        ),
        (
            {"protocol__metrics__recall": "pixels"},
            "recall: pixels, but protocol 'points' has: points, distance ≤ radius",
        ),
        ({"protocol__metrics__kid": "points"}, "kid: points, but protocol 'points' has: not measured"),
        ({"protocol__samples": 100}, "100 samples, but protocol 'points' has 10,000"),
        ({"protocol__name": "mine"}, "unknown protocol 'mine'"),
        ({"protocol__extractors__points__precision": "bf16"}, "features of 'points' in bf16"),
        (
            {"dataset__fingerprint": "0" * 64, "protocol__reference_sha256": "0" * 64},
            "fingerprint 000000000000…, not that of gaussians25",
        ),
        ({"scores__recall__interval": None, "scores__recall__standard_error": None}, "recall has no interval"),
        ({"scores__recall__interval": None}, "recall has a standard error, but no interval"),
        (
            {"scores__recall__interval": None, "scores__recall__note": "of few samples"},
            "recall has a standard error, but no interval",
        ),
        ({"scores": {}}, "no scores"),
        ({"seed": "many"}, "seed"),
    ],
)
def test_what_is_wrong_is_said_with_its_file(row, changes, message):
    spoil(row, **changes)
    _, problems = check_records([row.parents[3]])
    assert len(problems) == 1
    assert message in problems[0]
    assert str(row) in problems[0]


def test_a_score_without_error_and_interval_says_why(row):
    spoil(
        row, scores__recall__interval=None, scores__recall__standard_error=None, scores__recall__note="of few samples"
    )
    assert check_records([row.parents[3]]) == (1, [])


def test_data_that_are_not_at_hand_are_not_looked_for(row):
    place = row.parents[3] / "npz-own.npz-123456" / Path(*row.parts[-3:])
    place.parent.mkdir(parents=True)
    row.rename(place)
    spoil(place, dataset__name="npz-own.npz-123456")
    assert check_records([row.parents[3]]) == (1, [])


def test_a_checkpoint_beside_its_row_is_the_one_that_was_sampled(row):
    checkpoint = row.parent / json.loads(row.read_text())["training"]["checkpoint"]
    checkpoint.write_bytes(b"weights")
    spoil(row, training__checkpoint_sha256=sha256_of(checkpoint))
    assert check_records([row.parents[3]]) == (1, [])
    checkpoint.write_bytes(b"others")
    _, problems = check_records([row.parents[3]])
    assert len(problems) == 1
    assert "checkpoint.safetensors beside it is not the checkpoint that was sampled" in problems[0]
    assert str(row) in problems[0]


def test_the_same_samples_count_once(row):
    other = row.parents[1] / "copy"
    shutil.copytree(row.parent, other)
    spoil(other / "record.json", id="copy", seed=1, training__run_id="copy")
    _, problems = check_records([row.parents[3]])
    assert len(problems) == 1
    assert "keep one of the two" in problems[0]


def test_the_command_exits_with_1_and_a_line_for_each(row):
    assert succeeds("check", row.parents[3]).output == "1 record is valid\n"
    spoil(row, samples_sha256=None)
    bad = call("check", row.parents[3])
    assert bad.exit_code == 1
    assert "no hash of its samples" in bad.output


def test_no_record_is_no_leaderboard(tmp_path):
    refuses(1, "no records to check", "check", tmp_path)
