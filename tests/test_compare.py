"""Two runs compared: which folders are sides, what must not be compared, and what the command says."""

from __future__ import annotations

import json

import pytest
from commands import call, succeeds
from inputs import fails
from records import make_record, make_speed, make_training, of_code, scored, seeds

import trilemma_bench as tb
from trilemma_bench.comparing import compare_runs
from trilemma_bench.errors import UsageError
from trilemma_bench.limits import Limit
from trilemma_bench.runs import Runs


@pytest.fixture
def write(tmp_path):
    def write(name, *records):
        for i, record in enumerate(records):
            folder = tmp_path / name / f"{i}"
            folder.mkdir(parents=True)
            (folder / "record.json").write_text(record.to_json())
        return tmp_path / name

    return write


def test_a_folder_a_record_and_a_folder_of_seeds(write):
    a, b = write("a", scored()), write("b", *seeds([9.0, 9.1, 9.2]).records)
    finding = tb.compare(a / "0" / "record.json", str(b))["fid"]
    assert (finding.a, finding.b, finding.verdict) == (5.0, pytest.approx(9.1), "A is better")
    assert repr(tb.compare(a, b)) == str(tb.compare(a, b))  # what a notebook shows


def test_one_value_of_a_sweep_is_chosen_by_its_setting(write):
    def at(temperature, **changes):
        record = scored(**changes)
        return record.model_copy(update={"model": record.model.model_copy(update={"settings": {"t": temperature}})})

    a = write("a", at(0.5, scores={"fid": (9.0, 0.3)}), at(1.0))
    b = write("b", scored("b", {"fid": (7.0, 0.3)}))  # whose model has no such setting
    with fails("differ in more than the seed", "settings · t", "--set KEY=VALUE", kind=UsageError):
        tb.compare(a, b)
    assert (tb.compare(a, b, {"t": 1})["fid"].a, tb.compare(a, b, {"t": 0.5})["fid"].a) == (5.0, 9.0)
    assert "no complete run with t = 2" in call("compare", a, b, "--set", "t=2").stderr
    assert "unknown setting 'u'" in call("compare", a / "0", b, "--set", "u=2").stderr
    assert succeeds("compare", a, b, "--set", "t=0.5").stdout == succeeds("compare", a / "0", b).stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": {"samples": 500}}, ["samples: 500, not 10000"]),
        ({"protocol": {"name": "adm", "samples": 500}}, ["B has protocol: adm, not points"]),
        ({"protocol": {"reference_sha256": "e" * 64}}, ["reference_sha256: eeee"]),
        ({"dataset": "digits"}, ["dataset: digits, not gaussians25"]),
    ],
)
def test_what_was_measured_differently_is_refused_and_named(write, changes, words):
    with fails("cannot be compared", "B has", *words, kind=UsageError):
        tb.compare(write("a", scored()), write("b", scored(**changes)))


def test_another_protocol_is_all_that_is_said_of_it(write):
    """All its fields follow from it."""
    with pytest.raises(UsageError, match=r"B has protocol: adm, not points$"):
        tb.compare(
            write("a", scored()),
            write("b", scored(protocol={"name": "adm", "samples": 500, "mode_rule": "x"})),
        )


def test_runs_that_nobody_timed_have_no_table_of_times(write):
    a, b = write("a", scored()), write("b", scored("b", {"fid": (9.0, 0.3)}))
    assert "B / A" not in call("compare", a, b).output


def test_a_folder_that_is_no_side_is_refused(write, tmp_path):
    good = write("good", scored())
    (tmp_path / "empty").mkdir()
    with fails("no complete run", "no record.json", kind=UsageError):
        tb.compare(good, tmp_path / "empty")
    with fails("no such folder", kind=UsageError):
        tb.compare(tmp_path / "nowhere", good)
    with fails("failed", kind=UsageError):
        tb.compare(good, write("bad", make_record(status="failed", scores={}, protocol=None)))
    with fails("more than the seed", "model · name: b, not a", kind=UsageError):
        tb.compare(good, write("two", scored("a"), scored("b")))
    with fails("more than the seed (code: bbbb", "not aaaa", kind=UsageError):
        tb.compare(
            good, write("edited", *(of_code(scored(seed=i, id=f"{i}"), 64 * code) for i, code in enumerate("ab")))
        )
    chunks = [scored(seed=i, id=f"{i}", sampling={"chunk_size": 10**i}) for i in range(2)]
    with fails("more than the seed (sampling · chunk_size: 10, not 1)", kind=UsageError):
        tb.compare(good, write("chunks", *chunks))
    with fails("a seed is there twice", kind=UsageError):
        again = make_training(checkpoint_sha256="cd" * 32)
        tb.compare(good, write("twice", scored(id="1"), scored(id="2", training=again)))


def test_measured_again_by_other_code_it_is_no_repetition(write):
    old, new = (
        of_code(scored(id=code, created=f"2026-11-0{day}T12:00:00+00:00"), 64 * code)
        for day, code in ((1, "a"), (2, "b"))
    )
    with fails("(code: bbbb", kind=UsageError):
        tb.compare(write("good", scored()), write("edited", old, new))
    unknown = old.model_copy(update={"model": scored().model})
    found = tb.compare(write("other", scored()), write("repeated", unknown, new))
    assert [record.id for record in found.b.records] == ["b"]


def test_of_a_run_that_was_repeated_the_newest_counts(write):
    """The same seed of the same weights, measured again: what the same command does when it finds the checkpoint."""
    old, new = (scored(id=f"{day}", created=f"2026-11-0{day}T12:00:00+00:00") for day in (1, 2))
    found = tb.compare(write("good", scored()), write("repeated", old, new))
    assert [record.id for record in found.b.records] == ["2"]


def test_runs_on_other_data_differ_in_that_alone(write):
    with pytest.raises(UsageError, match=r"B has dataset: digits, not gaussians25$"):
        tb.compare(write("a", scored()), write("b", scored(dataset="digits", protocol={"extractor": "digits-cnn"})))


# the command


def test_the_command_says_what_it_found_and_what_it_covers(write):
    a, b = write("a", scored(speed=make_speed(1.0, 4))), write("b", *seeds([9.0, 9.1, 9.2]).records)
    done = succeeds("compare", a, b)
    for words in ("FID ↓", "+4.10", "A is better", "Holm", "sampling only", "training and sampling (3 seeds)"):
        assert words in done.output, words
    assert "no verdict: B: not timed" in done.output
    assert done.output == f"{tb.compare(a, b)}\n"


def test_a_verdict_on_one_training_each_says_nothing_of_another(write):
    single, other = write("a", scored()), write("b", scored("b", {"fid": (9.0, 0.3)}))
    several = write("c", *seeds([9.0, 8.0]).records)
    words = ("one training each", "verdict on these samples", "give several seeds")
    assert all(word in call("compare", single, other).output for word in words)
    assert not any(word in call("compare", several, several).output for word in words)
    assert "prediction interval" in call("compare", single, several).output
    real = write("real", scored("real-data"))
    assert "one training of A" in call("compare", single, real).output
    caveats = [json.loads(call("compare", single, b, "--json").output)["caveat"] for b in (other, several)]
    assert [caveat[:17] for caveat in caveats] == ["one training each", ""]


def test_two_seeds_are_said_to_show_little(write):
    sides = [
        write(f"{n}-{name}", *seeds(fids).records)
        for n, fids in ((2, [9.0, 8.0]), (3, [9.0, 8.0, 8.5]))
        for name in "ab"
    ]
    hint = "two seeds say little of how trainings differ"
    said = {n: hint in call("compare", *pair).output for n, pair in ((2, sides[:2]), (3, sides[2:]), (23, sides[1:3]))}
    assert said == {2: True, 3: False, 23: False}


def test_json_is_the_same_for_machines(write):
    a, b = write("a", scored()), write("b", scored("b", {"fid": (9.0, 0.3)}))
    found = json.loads(succeeds("compare", a, b, "--json").output)
    (score,) = found["scores"]
    assert (score["name"], score["difference"], score["verdict"]) == ("fid", 4.0, "A is better")
    assert found["correction"] == "Holm"
    assert [time["verdict"] for time in found["times"]] == [None, None]


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("fid>+0.5", 1),
        ("fid>4.5", 0),
        ("fid < 5", 1),
        ("fid<-1e0", 0),
        ("fid>x", 2),
        ("fod>1", 2),
        ("latency_seconds>1", 2),
    ],
)
def test_fail_if(write, limit, code):
    a, b = write("a", scored()), write("b", scored("b", {"fid": (9.0, 0.3)}))
    done = call("compare", a, b, "--fail-if", "fid>100", "--fail-if", limit)
    assert done.exit_code == code
    assert ("error: " in done.output) == (code > 0)


def test_noise_beyond_a_limit_breaks_it_only_where_the_value_alone_counts(write):
    a, b = write("a", scored()), write("b", scored("b", {"fid": (5.9, 0.3)}))  # B − A is 0.9 ± 0.83
    for limit, on, code in (("fid>0.5", "interval", 0), ("fid>0.5", "value", 1), ("fid>0.05", "interval", 1)):
        done = call("compare", a, b, "--fail-if", limit, "--fail-on", on)
        assert done.exit_code == code, limit
        assert ("less than its error" in done.stderr) == (code == 0)


def test_a_difference_without_an_interval_is_judged_by_its_value_only_where_that_is_asked_for(write):
    a, b = write("a", scored()), write("b", make_record("b", scores={"fid": 6.0}))
    done = call("compare", a, b, "--fail-if", "fid>1.5")
    assert done.exit_code == 2
    for words in ("fid>1.5", "without an interval", "no error is known of B", "--fail-on value"):
        assert words in done.stderr
    assert "no verdict" in done.stdout
    for limit, code in (("fid>0.5", 1), ("fid>1.5", 0)):
        assert call("compare", a, b, "--fail-if", limit, "--fail-on", "value").exit_code == code


@pytest.mark.parametrize("text", ["fid", "fid>", ">1", "fid>1>2", "fid=1", "fid>1.2.3", "fid>nan", ""])
def test_a_limit_that_cannot_be_read_is_refused(text):
    with fails("--fail-if", kind=UsageError):
        Limit.parse(text)


def test_nothing_in_a_record_steers_the_terminal():
    hostile = "\x1b[31m\nfid"
    records = [scored(f"{hostile}{i}", {hostile: (1.0, 0.1)}, missing={hostile: hostile}) for i in range(2)]
    text = str(compare_runs(*(Runs((record,)) for record in records)))
    assert "\x1b" not in text
