"""Tables: what is best, what is tied, what is said of how sure a number is."""

from __future__ import annotations

import pytest
from records import demo_records, make_record, make_scores, make_speed

from trilemma_bench.report import format as fmt
from trilemma_bench.report.table import Table, tables


@pytest.fixture(scope="module")
def toy() -> Table:
    return tables(demo_records())[0]


def cell(table: Table, name: str, key: str):
    (row,) = [row for row in table.rows if row.name == name]
    return row.cells[[column.key for column in table.columns].index(key)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (3.75, "3.75"), (9.996, "10.0"), (146, "146"), (999.6, "1,000"),
     (12345.6, "12,346"), (-0.5, "-0.500"), (1.234e-5, "1.23e-05")],
)  # fmt: skip
def test_figures(value, text):
    assert fmt.figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (3.2e-8, "32.0 ns"), (8.2e-6, "8.20 µs"), (9.996e-4, "1.00 ms"), (0.0021, "2.10 ms"), (1.5, "1.50 s"),
     (115, "115 s"), (120, "2.00 min"), (147_600, "41.0 h")],
)  # fmt: skip
def test_seconds(value, text):
    assert fmt.seconds(value) == text


def test_counts_and_memory():
    assert [fmt.count(n) for n in (0, 512, 39_800, 999_999, 35_700_000)] == ["0", "512", "39.8 k", "1.00 M", "35.7 M"]
    assert [fmt.size(n) for n in (512, 2048, 3 * 2**30)] == ["512 B", "2.00 KiB", "3.00 GiB"]


def test_best_is_marked_among_competitors_only(toy):
    assert cell(toy, "ddpm (1000 steps)", "fd_features").best
    assert not cell(toy, "real-data", "fd_features").best  # though it is lower
    assert cell(toy, "ddpm (4 steps)", "recall").best
    assert cell(toy, "vae", "seconds_per_image").best
    assert [cell(toy, name, "nfe").best for name in ("gan", "vae", "ddgan (4 steps)")] == [True, True, False]
    assert not any(cell(toy, row.name, "parameters").best for row in toy.rows)


def test_nothing_is_best_in_a_table_of_one():
    assert not any(cell.best for cell in tables(demo_records())[1].rows[0].cells)


def test_front_holds_the_trade_offs_never_the_dominated_nor_the_reference(toy):
    assert {row.name for row in toy.rows if not row.front} == {"gan", "real-data"}


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


def test_a_missing_score_is_a_dash_with_its_reason():
    lacking = make_record("a", scores={"fd_features": 1.0}, missing={"recall": "needs 4 samples, got 3"})
    (table,) = tables([lacking, make_record("b")])
    recall = cell(table, "a", "recall")
    assert (recall.text, recall.value) == ("—", None)
    assert table.footnotes[recall.footnote - 1] == "needs 4 samples, got 3"


def test_runs_of_one_label_are_told_apart():
    names = lambda *records: {row.name for row in tables(records)[0].rows}  # noqa: E731
    assert names(make_record(seed=1), make_record(seed=2)) == {"ddgan, seed 1", "ddgan, seed 2"}
    assert names(make_record(id="run-1"), make_record(id="run-2")) == {"ddgan, run-1", "ddgan, run-2"}


def test_notes_name_their_rows_unless_all_share_them():
    scores = make_scores({"fd_features": 1.0})
    noted = {"fd_features": scores["fd_features"].model_copy(update={"note": "N is below D"})}
    record = make_record("a", note="not the official archive")
    (table,) = tables([record.model_copy(update={"scores": noted}), make_record("b", note="not the official archive")])
    assert table.notes[:2] == ["Data: not the official archive", "a: fd_features: N is below D"]


def test_points_are_judged_by_their_modes_since_a_distance_of_moments_is_blind_to_blur():
    blurred = {"fd_points": 0.007, "high_quality": 0.05, "recall": 0.98, "modes": 12.0}
    sharp = {"fd_points": 0.008, "high_quality": 0.86, "recall": 0.96, "modes": 25.0}
    (table,) = tables([make_record("blurred", scores=blurred), make_record("sharp", scores=sharp)])
    assert (table.quality.key, table.coverage.key) == ("high_quality", "modes")
    assert [row.name for row in table.rows] == ["sharp", "blurred"]
