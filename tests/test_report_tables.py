"""Tables: what is best, what is tied, what is said of how sure a number is."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from records import demo_records, make_record, make_scores, make_speed, make_training, with_errors

from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import score_columns
from trilemma_bench.report.notes import LEGEND
from trilemma_bench.report.table import Table, tables
from trilemma_bench.statistics import time_interval


def cell(table: Table, name: str, key: str):
    (row,) = [row for row in table.rows if row.name == name]
    return row.cells[[column.key for column in table.columns].index(key)]


def test_best_is_marked_among_competitors_only(toy):
    assert cell(toy, "ddpm (1000 steps)", "fd_features").best
    assert not cell(toy, "real-data", "fd_features").best  # though it is lower
    assert cell(toy, "ddpm (4 steps)", "recall").best
    assert cell(toy, "vae", "seconds_per_image").best
    assert [cell(toy, name, "nfe").best for name in ("gan", "vae", "ddgan (4 steps)")] == [True, True, False]
    assert not any(cell(toy, row.name, "parameters").best for row in toy.rows)


def test_nothing_is_best_in_authenticity_of_which_noise_has_the_most():
    table = rows_of([(0.4, 0.01), (0.99, 0.01)], "authenticity")
    cells = [cell(table, f"m{i}", "authenticity") for i in range(2)]
    assert [(c.text, c.best, c.second, c.tied) for c in cells] == [("0.400", *[False] * 3), ("0.990", *[False] * 3)]


def test_nothing_is_best_in_a_table_of_one_nor_on_a_front():
    (alone,) = tables(demo_records())[1].rows
    assert not any(cell.best for cell in alone.cells)
    assert (alone.front, alone.near, alone.mark) == (False, False, "")


def test_front_holds_the_trade_offs_never_the_dominated_nor_the_reference(toy):
    assert {row.name for row in toy.rows if not row.front} == {"gan", "real-data"}


def test_a_row_is_near_the_front_where_nothing_that_dominates_it_is_shown_to_be_better():
    def sure(name, fid, error, seconds=1.0, recall=0.5):
        speed = make_speed(seconds, 1, batch_size=1, raw_seconds=[seconds * (1 + i / 1000) for i in range(20)])
        return make_record(name, scores=with_errors({"fid": (fid, error), "recall": (recall, 0.01)}), speed=speed)

    rows = [sure("best", 5.0, 0.3), sure("near", 5.5, 0.3, recall=0.49), sure("slow", 5.5, 0.3, 5.0)]
    (table,) = tables([*rows, sure("worse", 9.0, 0.3), make_record("real-data", scores={"fid": 9.9})])
    marks = {row.name: (row.front, row.near) for row in table.rows}
    off = (False, False)
    assert marks == {"best": (True, False), "near": (False, True), "slow": off, "worse": off, "real-data": off}
    assert {row.name: row.mark for row in table.rows if row.mark} == {"best": "◆", "near": "◇"}
    assert {"◆", "◇"} < LEGEND.keys()


def test_values_without_errors_are_on_the_front_or_off_it(toy):
    assert not any(row.near for row in toy.rows)


def test_reference_comes_last_and_has_no_speed():
    timed = make_record("real-data", scores={"fd_features": 0.1, "recall": 1.0}, speed=make_speed(1e-9, 0))
    (table,) = tables([timed, make_record(speed=make_speed(1e-3, 4))])
    assert [row.reference for row in table.rows] == [False, True]
    assert cell(table, "real-data", "seconds_per_image").text == "—"
    assert "real data" in table.footnotes[cell(table, "real-data", "nfe").footnote - 1]


def test_rows_go_by_quality(toy):
    distances = [row.record.scores["fd_features"].value for row in toy.rows[:-1]]
    assert distances == sorted(distances)


def test_modes_say_how_many_there_are(toy):
    assert cell(toy, "gan", "modes").text == "9 / 25"


def test_a_mean_of_modes_is_as_exact_as_its_interval():
    (table,) = tables([make_record("a", scores=with_errors({"modes": (525.67, 74.5)}))])
    shown = cell(table, "a", "modes")
    assert (shown.text, shown.detail) == ("526", "±146")


def test_a_missing_score_is_a_dash_with_its_reason():
    lacking = make_record("a", scores={"fd_features": 1.0}, missing={"recall": "needs 4 samples, got 3"})
    (table,) = tables([lacking, make_record("b")])
    recall = cell(table, "a", "recall")
    assert (recall.text, recall.value) == ("—", None)
    assert table.footnotes[recall.footnote - 1] == "needs 4 samples, got 3"


@pytest.mark.parametrize(
    ("floors", "text"), [((0.0012, 0.0251, 0.002), "0.00120–0.0251"), ((0.0012, 0.0012), "0.00120")]
)
def test_floors_of_all_rows_are_one_line(floors, text):
    scores = with_errors({"mode_kl": (0.1, 0.01)})["mode_kl"]
    records = [
        make_record(f"m{i}", scores={"mode_kl": scores.model_copy(update={"floor": floor})})
        for i, floor in enumerate(floors)
    ]
    (table,) = tables(records)
    assert [note for note in table.notes if "perfect" in note] == [
        f"Mode KL: of as many perfect samples it would be {text}"
    ]


def test_times_of_a_busy_machine_are_noted_under_their_row():
    speeds = {"a": make_speed(1e-3, 4, processor_share=0.454), "b": make_speed(1e-3, 4, processor_share=0.99)}
    (table,) = tables([make_record(name, speed=speed) for name, speed in speeds.items()])
    assert "a: Timed on a busy machine: it got 45 % of the processor time it could use" in table.notes


def test_names_that_share_a_note_are_told_apart_though_there_are_commas_in_them():
    busy = make_speed(1e-3, 4, processor_share=0.454)
    records = [make_record("siddm", variant, speed=busy) for variant in ("T=2, SIDDM 1", "T=4, SIDDM 1")]
    (table,) = tables([*records, make_record("b", speed=make_speed(1e-3, 4))])
    text = "siddm (T=2, SIDDM 1); siddm (T=4, SIDDM 1): Timed on a busy machine: it got 45 %"
    assert any(note.startswith(text) for note in table.notes)


def test_trainings_and_times_on_a_shared_gpu_are_noted_under_their_row():
    training, speed = (make(others_memory_bytes=3 * 2**29) for make in (make_training, partial(make_speed, 1e-3, 4)))
    (table,) = tables([make_record("a", training=training, speed=speed), make_record("b")])
    held = "on a shared GPU: other programs held 1.5 GiB of it, and may have slowed it down"
    assert {f"a: Trained {held}", f"a: Timed {held}"} <= set(table.notes)


def test_unequal_training_is_noted_and_equal_training_is_not():
    def trained(*seconds):
        records = [make_record(f"m{s}", training=make_training(seconds=s)) for s in seconds]
        return tables([*records, make_record("real-data", training=None)])[0]

    assert trained(60.0, 60.4).training == "60.4 s"
    assert not any("Trained" in note for note in trained(60.0, 60.4).notes)
    assert trained(60.0, 1680.0).training == "60.0 s–28.0 min"
    assert trained(60.0, 1680.0).notes[0].startswith("Trained for 60.0 s–28.0 min")
    assert trained().training == ""


def test_notes_name_their_rows_unless_all_share_them():
    scores = make_scores({"fd_features": 1.0})
    noted = {"fd_features": scores["fd_features"].model_copy(update={"note": "N is below D"})}
    record = make_record("a", note="not the official archive")
    (table,) = tables([record.model_copy(update={"scores": noted}), make_record("b", note="not the official archive")])
    assert table.notes[:2] == ["Data: not the official archive", "a: FD (features): N is below D"]


def test_points_are_judged_by_their_modes_since_a_distance_of_moments_is_blind_to_blur():
    blurred = {"fd_points": 0.007, "high_quality": 0.05, "recall": 0.98, "modes": 12.0}
    sharp = {"fd_points": 0.008, "high_quality": 0.86, "recall": 0.96, "modes": 25.0}
    (table,) = tables([make_record("blurred", scores=blurred), make_record("sharp", scores=sharp)])
    assert (table.quality.key, table.coverage.key) == ("high_quality", "modes")
    assert [row.name for row in table.rows] == ["sharp", "blurred"]


# how sure


def rows_of(values, name="fid", **changes):
    """A table with a row for each (value, standard error)."""
    records = [make_record(f"m{i}", scores=with_errors({name: v}), **changes) for i, v in enumerate(values)]
    return tables(records)[0]


def test_ties_are_rows_whose_difference_to_the_best_is_not_shown():
    table = rows_of([(5.0, 0.2), (5.4, 0.2), (6.0, 0.2)])
    marks = [(cell(table, f"m{i}", "fid").best, cell(table, f"m{i}", "fid").tied) for i in range(3)]
    # 0.4 is 1.41 errors of the difference, 1.0 is 3.5
    assert marks == [(True, False), (False, True), (False, False)]
    assert "≈" in LEGEND


def test_the_truly_best_is_rarely_told_from_the_luckiest():
    """Of ten equal rows each is the best: a given one looks worse than the luckiest by chance."""
    rng = np.random.default_rng(0)
    lacking = 0
    for _ in range(200):
        first = cell(rows_of([(value, 1.0) for value in rng.normal(50, 1, 10)]), "m0", "fid")
        lacking += not (first.best or first.tied)
    assert lacking <= 16  # 10 of 200 at most, with a standard deviation of 3; each pair tested at 5 % it was 27


def test_what_is_far_off_is_not_called_tied_in_a_long_table():
    table = rows_of([(50.0, 1.0)] * 14 + [(56.0, 1.0)])
    assert [cell(table, f"m{i}", "fid").tied for i in range(15)] == [False] * 15
    table = rows_of([(50.0 + i / 100, 1.0) for i in range(14)] + [(56.0, 1.0)])
    assert [cell(table, f"m{i}", "fid").tied for i in range(15)] == [False, *[True] * 13, False]


def test_without_errors_nothing_is_called_tied():
    table = tables([make_record(f"m{i}", scores={"fid": 5 + i / 100}) for i in range(2)])[0]
    assert not any(cell.tied for row in table.rows for cell in row.cells)


def test_times_from_a_busy_machine_put_nobody_behind():
    def timed(name, seconds, share=None, recall=0.5):
        speed = make_speed(seconds, 1, processor_share=share)
        return make_record(name, scores=with_errors({"fid": (5.0, 0.1), "recall": (recall, 0.01)}), speed=speed)

    def found(share):
        (table,) = tables([timed("fast", 1e-3, recall=0.51), timed("slow", 0.1, share)])
        (slow,) = (row for row in table.rows if row.name == "slow")
        return cell(table, "slow", "seconds_per_image").tied, slow.near

    assert found(0.95) == (False, False)
    assert found(0.45) == (True, True)


def test_the_reference_is_never_tied():
    records = [
        make_record(m, scores=with_errors({"fid": (5.0 + i, 3.0)})) for i, m in enumerate(["a", "b", "real-data"])
    ]
    table = tables(records)[0]
    assert [cell(table, m, "fid").tied for m in ("a", "b", "real-data")] == [False, True, False]


def test_times_are_tied_by_their_raw_times():
    times = [1.0, 1.1, 0.9, 1.2, 1.05, 0.95]
    speeds = [make_speed(f, 1, batch_size=1, raw_seconds=[f * t for t in times]) for f in (1, 1.02, 3)]
    table = tables([make_record(f"m{i}", speed=speed) for i, speed in enumerate(speeds)])[0]
    assert [cell(table, f"m{i}", "seconds_per_image").tied for i in range(3)] == [False, True, False]


def test_times_carry_their_intervals():
    times = [1.0, 1.1, 0.9, 1.2, 1.05, 0.95]
    speed = make_speed(1.025, 1, batch_size=1, raw_seconds=times)
    shown = cell(tables([make_record("a", speed=speed)])[0], "a", "seconds_per_image")
    low, high = time_interval([speed], "seconds_per_image")
    assert (shown.text, shown.detail) == ("1.02 s", f"[{fmt.figure(low)}, {fmt.figure(high)}]")


def test_the_95th_percentile_of_latency_needs_twenty_raw_times():
    twenty = make_speed(1.0, 1, raw_latency_seconds=[i / 19 for i in range(20)])
    table = tables([make_record("many", speed=twenty), make_record("few", speed=make_speed(1.0, 1))])[0]
    assert cell(table, "many", "latency_p95_seconds").value == pytest.approx(0.95)
    few = cell(table, "few", "latency_p95_seconds")
    assert table.footnotes[few.footnote - 1] == "fewer than 20 raw times"


def test_seeds_are_one_row_and_say_so():
    records = [
        make_record(scores={"fid": v}, seed=i, id=str(i), training=make_training(checkpoint_sha256=str(i)))
        for i, v in enumerate([7.0, 7.2, 7.4])
    ]
    (table,) = tables([*records, make_record("other", scores={"fid": 9.0})])
    shown = cell(table, "ddgan, 3 seeds", "fid")
    # 0.2/√3 times Student's 4.303
    assert (shown.text, shown.detail) == ("7.2", "±0.5")
    assert len(table.rows) == 2
    method = "Student's t over seeds of training and sampling, no narrower than by sampling alone"
    assert f"95 % interval by {method}: FID" in table.notes


def test_of_a_repeated_run_the_newest_counts_and_a_note_says_so():
    runs = [
        make_record(scores={"fid": fid}, id=str(fid), created=f"2026-11-0{day}T00:00:00+00:00")
        for day, fid in ((2, 7.0), (3, 8.0), (1, 6.0))
    ]
    (table,) = tables([*runs, make_record("other")])
    assert cell(table, "ddgan", "fid").value == 8.0
    assert len(table.rows) == 2
    assert "ddgan: the newest of repeated runs, 2 older ones are left out" in table.notes
    assert not any("other:" in note and "repeated" in note for note in table.notes)


def test_methods_are_stated_once_for_all_rows():
    table = rows_of([(5.0, 0.2)] * 3)
    assert [note for note in table.notes if "jackknife" in note] == ["95 % interval by jackknife: FID"]


def test_many_scores_are_split_into_the_main_ones_and_the_rest():
    names = ("fid", "fid_infinity", "kid", "precision", "recall", "density", "coverage")
    table = tables([make_record(scores=dict.fromkeys(names, 0.5), speed=make_speed(1.0, 1))])[0]
    main, rest = ([table.columns[i].key for i in part] for part in table.parts)
    assert main[:4] == ["fid", "precision", "recall", "nfe"]
    assert rest == ["fid_infinity", "kid", "density", "coverage"]


def test_few_scores_stay_in_one_table():
    assert len(rows_of([(5.0, 0.2)]).parts) == 1


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("fid", "FID"), ("fid_infinity", "FID∞"), ("fd_dinov2-vitb14", "FD (dinov2-vitb14)"),
        ("fd_infinity_dinov2-vitb14", "FD∞ (dinov2-vitb14)"), ("sfid", "sFID"), ("kid", "KID"), ("cmmd", "CMMD"),
        ("sfd_inception-clean", "sFD (inception-clean)"),
        ("inception_score", "Inception score"), ("vendi", "Vendi score"), ("authenticity", "Authenticity"),
        ("precision_vgg16", "Precision (vgg16)"), ("mine", "mine"),
    ],
)  # fmt: skip
def test_titles_of_scores(name, title):
    (column,) = score_columns([make_record(scores={name: 0.5})])
    assert column.title == title
    assert bool(column.meaning) == (name != "mine")


def test_one_metric_on_two_extractors_has_two_headings():
    scores = {"precision": 0.5, "precision_vgg16": 0.6}
    assert [c.short for c in score_columns([make_record(scores=scores)])] == ["Precision", "Precision (vgg16)"]
