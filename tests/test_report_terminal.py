"""Tables in plain text."""

from __future__ import annotations

from records import demo_records, failed_record, make_record, make_speed, with_errors

from trilemma_bench.report import terminal_table


def test_terminal_table():
    text = terminal_table([*demo_records(), failed_record("loss is NaN\nat step 12")])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    ddgan, more, _, _ = (line for line in lines if line.startswith("ddgan"))
    assert ddgan.split()[3:] == ["◆", "0.0131", "0.774", "0.861", "4", "8.20µs", "446µs≈", "530k", "115s"]
    assert more.split()[3:] == ["◆", "0.690", "0.742", "25/25*", "0.0180", "0.812"]
    assert not any("*" in line for line in lines if line.startswith("real-data"))
    assert "  broken on gaussians25 (failed): loss is NaN at step 12" in lines
    assert any("scikit-learn's bundled" in line for line in lines)


def test_the_front_and_what_is_near_it_are_marked_and_explained():
    def timed(name, fid, recall=0.5, seconds=1.0):
        speed = make_speed(seconds, 1, batch_size=1, raw_seconds=[seconds * (1 + i / 1000) for i in range(20)])
        return make_record(name, scores=with_errors({"fid": (fid, 0.3), "recall": (recall, 0.01)}), speed=speed)

    text = terminal_table([timed("best", 5.0), timed("near", 5.5, 0.49), timed("worse", 9.0)])
    found = {line.split()[0]: line.split()[1] for line in text.splitlines() if "±" in line and "[" not in line}
    assert (found["best"], found["near"]) == ("◆", "◇")
    assert found["worse"].startswith("9.0")
    assert "◆ Pareto front of quality, coverage and speed   ◇ off it by differences not shown to be real" in text
    assert "◇" not in terminal_table([timed("best", 5.0), timed("worse", 9.0)])


def test_missing_scores_say_why_once_a_reason():
    record = make_record("a", scores={"fid": 3.0})
    record = record.model_copy(update={"missing": {"kid": "no features", "recall": "no features", "modes": "too few"}})
    lines = terminal_table([record]).splitlines()
    assert "missing: KID, Recall: no features" in lines
    assert "missing: Modes: too few" in lines


def test_terminal_columns_are_aligned():
    lines = terminal_table(demo_records()[:7]).splitlines()
    recalls = ["0.941", "0.932", "0.861", "0.966"]
    ends = {line.index(value) + len(value) for line, value in zip(lines[2:6], recalls, strict=True)}
    assert len(ends) == 1


def test_terminal_table_keeps_its_width_with_the_longest_values():
    scores = {"fid": 1234567.0, "modes": 1000, "precision": 0.5, "recall": 0.5, "density": 1.5, "coverage": 0.5}
    name = "a-model-with-a-name-that-goes-on-and-on-and-on-for-ever"
    speed = [make_speed(123.0, 1000), make_speed(124.0, 2000)]
    records = [make_record(name, f"{i}", scores={**scores, "high_quality": i / 2}, speed=speed[i]) for i in range(2)]
    records = [record.model_copy(update={"mode_histogram": [1] * 1000}) for record in records]
    assert max(map(len, terminal_table(records).splitlines())) <= 120


def test_intervals_and_ties_stand_beside_the_values():
    sure = {"fid": (7.02, 0.16), "recall": (0.5, 0.01)}
    same = {"fid": (7.2, 0.16), "recall": (0.4, 0.01)}
    text = terminal_table([make_record(n, scores=with_errors(s)) for n, s in (("a", sure), ("b", same))])
    a, b = (line for line in text.splitlines() if line.startswith(("a ", "b ")))
    assert a.split()[1:3] == ["7.02±0.31*", "0.500±0.020*"]
    assert b.split()[1:3] == ["7.20±0.31≈", "0.400±0.020"]


def test_many_scores_are_broken_into_blocks_of_the_width():
    names = ("fid", "fid_infinity", "sfid", "kid", "inception_score", "precision", "recall", "density", "coverage")
    scores = with_errors(dict.fromkeys((*names, "authenticity", "vendi", "cmmd", *"abcdefgh"), (0.5123, 0.0123)))
    lines = terminal_table([make_record("m", scores=scores)]).splitlines()
    assert max(map(len, lines)) <= 120
    assert sum(line.count("0.512±0.024") for line in lines) == len(scores)


def test_a_run_that_failed_is_a_line_of_its_own():
    assert terminal_table([failed_record("disk full\nand so on")]).splitlines() == [
        "did not complete:",
        "  broken on gaussians25 (failed): disk full and so on",
    ]
