"""`choose`: which rows keep a limit, which of these is the best, and what is not sure of it."""

from __future__ import annotations

import json

import pytest
from commands import call, refuses, succeeds
from inputs import fails
from records import DIGITS_PROTOCOL, make_record, make_speed, make_training, scored, with_errors

from trilemma_bench.errors import UsageError
from trilemma_bench.report import format as fmt
from trilemma_bench.report.choice import ACROSS, Choice, Limit, choices_text, choose
from trilemma_bench.runs import Runs


def timed(model, milliseconds, fid=5.0, recall=0.8, error=0.1, share=1.0, **changes):
    """A run with this latency and this Fréchet distance."""
    seconds = milliseconds / 1000
    speed = make_speed(
        seconds / 10, 4, latency_seconds=seconds, raw_latency_seconds=[seconds] * 20, processor_share=share
    )
    scores = {"fid": (fid, error), "recall": (recall, 0.01)}
    return scored(model, scores, **{"speed": speed, "id": f"run-{model}", **changes})


def chosen(records, limit, by=""):
    found = choose(records, Limit.parse(limit), by)
    assert len(found) == 1
    return found[0]


def names(candidates):
    return [candidate.row.name for candidate in candidates]


def doubts(choice: Choice):
    return {candidate.row.name: candidate.doubt for candidate in choice.rows if candidate.doubt}


class TestAmounts:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("20ms", 0.02), ("20 ms", 0.02), ("0.02", 0.02), (" 2e-2 s ", 0.02), (".02s", 0.02), ("1.5 s", 1.5),
            ("500 µs", 5e-4), ("500\u03bcs", 5e-4), ("500us", 5e-4), ("80ns", 8e-8), ("2 min", 120), ("1h", 3600),
        ],
    )  # fmt: skip
    def test_a_time_in_any_unit(self, text, seconds):
        assert Limit.parse(text).value == pytest.approx(seconds, rel=1e-12)

    @pytest.mark.parametrize("text", ["", "ms", "20 m", "20 MS", "1,5 s", "0", "-1 ms", "nan", "inf", "1e999", "٣"])
    def test_what_is_no_time_is_refused_with_the_units(self, text):
        with fails(f"'{text}' is no limit of Latency", "(h, min, s, ms, µs, ns, us)", kind=UsageError):
            Limit.parse(text)

    def test_evaluations_have_no_unit(self):
        assert Limit.parse("10", "nfe").value == 10
        with fails("'10 ms' is no limit of NFE: give a number, more than 0", kind=UsageError):
            Limit.parse("10 ms", "nfe")

    def test_what_is_printed_is_read(self):
        for seconds in (3.2e-9, 4.56e-5, 0.0123, 1.0, 150.0, 7200.0):
            assert fmt.amount(fmt.seconds(seconds), fmt.UNITS["seconds"]) == pytest.approx(seconds, rel=1e-9)
            assert fmt.amount(fmt.size(seconds * 1e6), fmt.UNITS["bytes"]) == pytest.approx(seconds * 1e6, abs=1e8)


class TestWhoIsBest:
    def test_the_best_of_all_does_not_count_beyond_the_limit(self):
        found = chosen([timed("slow", 100, fid=2), timed("quick", 1, fid=9), timed("fair", 5, fid=6)], "20ms")
        assert names(found.best(found.columns[0])) == ["fair"]
        assert names(found.within) == ["fair", "quick"]
        assert [(each.row.name, each.within) for each in found.rows][2:] == [("slow", False)]

    def test_ties_are_with_the_best_within_the_limit(self):
        """6.1 is not shown to be worse than 6.0, by errors of 0.1; with 2.0 allowed it surely is."""
        records = [timed("slow", 100, fid=2), timed("a", 5, fid=6.0), timed("b", 5, fid=6.1), timed("c", 5, fid=9)]
        tied = {limit: names((found := chosen(records, limit)).tied(found.columns[0])) for limit in ("20ms", "1s")}
        assert tied == {"20ms": ["b"], "1s": []}

    def test_quality_and_coverage_have_their_own_best(self):
        found = chosen([timed("a", 5, fid=6, recall=0.5), timed("b", 5, fid=9, recall=0.9)], "20ms")
        assert [(column.key, *names(found.best(column))) for column in found.columns] == [("fid", "a"), ("recall", "b")]
        by = chosen([timed("a", 5, fid=6, recall=0.5), timed("b", 5, fid=9, recall=0.9)], "20ms", by="recall")
        assert [column.key for column in by.columns] == ["recall", "fid"]
        assert names(by.within) == ["b", "a"]

    def test_real_data_are_shown_last_and_never_chosen(self):
        real = make_record("real-data", scores=with_errors({"fid": (0.1, 0.1), "recall": (0.99, 0.1)}), training=None)
        found = chosen([real, timed("a", 5), timed("b", 50)], "20ms")
        assert names(found.rows) == ["a", "b", "real-data"]
        assert names(found.within) == ["a"]

    def test_a_row_that_nobody_timed_keeps_no_limit(self):
        found = chosen([timed("a", 5), scored("untimed", {"fid": (1.0, 0.1)})], "20ms")
        assert names(found.within) == ["a"]
        assert "not timed: the samples were made elsewhere" in choices_text([found])

    def test_what_is_beyond_is_in_the_order_of_its_time_with_how_far_it_is(self):
        text = choices_text([chosen([timed("a", 5), timed("b", 200), timed("c", 50)], "20ms")])
        lines = [line.split() for line in text.splitlines()]
        ratios = {line[0]: line[-2:] for line in lines if line and line[0] in ("a", "b", "c")}
        assert ratios == {"a": ["0.250×", "within"], "c": ["2.50×", "beyond"], "b": ["10.0×", "beyond"]}
        assert list(ratios) == ["a", "c", "b"]

    def test_where_nothing_keeps_the_limit_the_nearest_is_named(self):
        text = choices_text([chosen([timed("a", 50), timed("b", 30)], "1ms")])
        assert "0 of 2 rows have Latency ≤ 1.00 ms; the nearest is b\n" in text
        assert "best" not in text


class TestWhatIsNotSure:
    def test_an_interval_across_the_limit_on_either_side(self):
        """A single run's time is known to a factor of 1.5."""
        records = [timed("far", 5), timed("just", 18), timed("over", 25), timed("beyond", 100)]
        found = chosen(records, "20ms")
        assert doubts(found) == {"just": ACROSS, "over": ACROSS}
        assert "within, not surely" in (text := choices_text([found]))
        assert "beyond, not surely" in text
        assert f"not surely: {ACROSS}" in text

    def test_several_seeds_leave_less_doubt(self):
        runs = [
            timed("a", 16, seed=seed, id=f"{seed}", training=make_training(checkpoint_sha256=f"{seed:064}"))
            for seed in range(5)
        ]
        assert doubts(chosen(runs[:1], "20ms")) == {"a": ACROSS}
        assert doubts(chosen(runs, "20ms")) == {}

    def test_a_time_from_a_busy_machine_is_doubtful_however_far_it_is(self):
        found = chosen([timed("calm", 5), timed("busy", 1, share=0.5)], "1s")
        assert list(doubts(found)) == ["busy"]
        text = choices_text([found])
        assert "within, doubtful" in text
        assert "note: busy: timed on a busy machine: it got 50 % of the processor time it could use" in text

    def test_evaluations_are_counted_however_busy_the_machine(self):
        found = choose([timed("busy", 1, share=0.5)], Limit.parse("4", "nfe"))[0]
        assert doubts(found) == {}
        assert names(found.within) == ["busy"]


class TestSeveralTables:
    def records(self):
        digits = {"dataset": "digits", "protocol": DIGITS_PROTOCOL}
        return [timed("a", 5), timed("b", 50), timed("c", 5, **digits)]

    def test_nothing_is_ranked_across_them_and_what_differs_is_said(self):
        found = choose(self.records(), Limit.parse("20ms"))
        assert [names(choice.within) for choice in found] == [["a"], ["c"]]
        text = choices_text(found)
        assert "2 answers, which differ in dataset, protocol: nothing is ranked across tables." in text
        assert "answers" not in choices_text(found[:1])

    def test_other_machines_are_named_with_what_differs(self):
        speed = make_speed(1e-4, 4, device="cuda: H100")
        text = choices_text(choose([timed("a", 5), timed("b", 5, speed=speed)], Limit.parse("20ms")))
        assert "2 answers, which differ in device: " in text
        assert "note: Not ranked with the points table on cuda: H100: device: cpu: Xeon E5-2690, 2 threads" in text

    def test_a_score_that_some_tables_lack_leaves_them_out(self):
        other = scored("c", {"kid": (0.1, 0.01)}, dataset="digits", protocol=DIGITS_PROTOCOL, speed=make_speed(1e-4, 4))
        records = [*self.records()[:2], other]
        assert [choice.columns[0].key for choice in choose(records, Limit.parse("1s"), "kid")] == ["kid"]
        with fails("unknown score 'fids'", "Did you mean 'fid'?", kind=UsageError):
            choose(records, Limit.parse("1s"), "fids")

    def test_a_score_is_found_by_the_name_of_its_metric(self):
        found = choose(
            [scored("a", {"fd_cnn": (1.0, 0.1), "kid": (1.0, 0.1)}, speed=make_speed(1, 1))], Limit.parse("1h"), "fd"
        )
        assert found[0].columns[0].key == "fd_cnn"


class TestCommand:
    @pytest.fixture
    def runs(self, tmp_path):
        for record in (timed("a", 5, fid=6), timed("b", 50, fid=2)):
            folder = tmp_path / record.place
            folder.mkdir(parents=True)
            (folder / "record.json").write_text(record.to_json())
        return tmp_path

    def test_the_answer_in_words_and_as_data(self, runs):
        text = succeeds("choose", runs, "--within", "20 ms").stdout
        assert "1 of 2 rows have Latency ≤ 20.0 ms\nbest FID of these: a\n" in text
        [facts] = json.loads(succeeds("choose", runs, "--within", "20 ms", "--json").stdout)
        assert (facts["axis"], facts["limit"], facts["by"]) == ("latency_seconds", 0.02, "fid")
        rows = {row["name"]: row for row in facts["rows"]}
        assert (rows["a"]["within"], rows["b"]["within"]) == (True, False)
        assert rows["a"]["value"] == 0.005
        assert rows["a"]["scores"]["fid"]["value"] == 6
        low, high = rows["a"]["interval"]
        assert low < 0.005 < high < 0.02

    def test_another_axis(self, runs):
        assert "2 of 2 rows have NFE ≤ 4\n" in succeeds("choose", runs, "--within", "4", "--axis", "nfe").stdout
        text = succeeds("choose", runs, "--within", "1ms", "--axis", "seconds_per_image").stdout
        assert "1 of 2 rows have Time per image ≤ 1.00 ms" in text

    def test_wrong_requests_get_one_line(self, runs, tmp_path):
        assert len(refuses(2, "--within '20 m' is no limit", "choose", runs, "--within", "20 m")) == 1
        assert len(refuses(2, "unknown score 'x'", "choose", runs, "--within", "1s", "--by", "x")) == 1
        (tmp_path / "empty").mkdir()
        refuses(2, "no records below", "choose", tmp_path / "empty", "--within", "1s")
        assert "Missing option '--within'" in call("choose", runs).stderr

    def test_a_unit_apart_from_its_number_is_no_folder(self, runs):
        """It would be 20 s, of the folders that are there."""
        assert len(refuses(2, "ms: no such folder; a limit with a space", "choose", runs, "--within", "20", "ms")) == 1


def test_many_that_are_equal_are_counted():
    records = [timed(name, 5, fid=6.0) for name in "abcd"]
    assert "best FID of these: a and 3 others\n" in choices_text([chosen(records, "20ms")])


def test_a_row_alone_is_the_best_of_one():
    record = timed("a", 5)
    found = chosen([record], "20ms")
    assert names(found.best(found.columns[0])) == ["a"]
    assert found.rows[0].row.runs == Runs((record,))
