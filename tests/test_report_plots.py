"""Plots: every row is drawn, named and inside the axes."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from records import demo_records, make_record, make_speed, many_records, with_errors

from trilemma_bench.report.annotate import LEADER, NAMED_OF_MANY, NAMED_ROWS
from trilemma_bench.report.axes import FAINT, axis_title
from trilemma_bench.report.goals import goodness
from trilemma_bench.report.labels import place
from trilemma_bench.report.plots import NEAR_TEXT, left_out, papers_of, scatter
from trilemma_bench.report.table import tables
from trilemma_bench.report.trilemma import triangles, trilemma


def legend_of(axes):
    return [text.get_text() for text in axes.figure.legends[0].get_texts()]


def test_labels_cover_neither_one_another_nor_the_points():
    rng = np.random.default_rng(0)
    anchors = rng.uniform((50, 50), (750, 450), (20, 2))
    sizes = np.full((20, 2), (90.0, 14.0))
    centres = place(anchors, sizes, np.full(20, 6.0), np.array([0.0, 0, 800, 500]), np.empty((0, 4)))
    low, high = centres - sizes / 2, centres + sizes / 2
    overlap = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).clip(0).prod(axis=2)
    inside = ((anchors > low[:, None]) & (anchors < high[:, None])).all(axis=2)
    assert np.triu(overlap, 1).sum() == 0
    assert not inside.any()
    assert (low >= 0).all()
    assert (high <= (800, 500)).all()


def test_labels_of_equal_points_do_not_cover_each_other():
    centres = place(
        np.full((3, 2), 100.0),
        np.full((3, 2), (60.0, 14.0)),
        np.full(3, 6.0),
        np.array([0.0, 0, 200, 200]),
        np.empty((0, 4)),
    )
    gaps = np.abs(centres[:, None] - centres)[np.triu_indices(3, 1)]
    assert ((gaps[:, 0] >= 60) | (gaps[:, 1] >= 14)).all()


def test_lines_to_labels_cross_no_label_and_no_other_line():
    rng = np.random.default_rng(1)
    anchors = rng.uniform((350, 200), (450, 300), (8, 2))
    sizes = np.full((8, 2), (90.0, 14.0))
    centres = place(anchors, sizes, np.full(8, 9.0), np.array([0.0, 0, 800, 500]), np.empty((0, 4)))
    ends = np.clip(anchors, centres - sizes / 2, centres + sizes / 2)
    lines = anchors[:, None] + np.linspace(0, 1, 200)[:, None] * (ends - anchors)[:, None]
    for i in range(8):
        for j in set(range(8)) - {i}:
            assert not (np.abs(lines[i] - centres[j]) < sizes[j] / 2).all(axis=1).any()
            assert np.hypot(*(lines[i][:, None] - lines[j]).transpose(2, 0, 1)).min() > 0.5


def test_labels_of_no_points():
    nothing = np.empty((0, 2))
    assert place(nothing, nothing, np.empty(0), np.array([0.0, 0, 1, 1]), np.empty((0, 4))).shape == (0, 2)


def test_axes_say_what_and_which_way(toy):
    assert toy.quality.key == "fd_features"
    assert toy.coverage.key == "recall"
    assert axis_title(toy.quality) == "FD (features) (lower is better)"
    assert axis_title(toy.speed) == "Time per image (lower is better)"
    assert axis_title(toy.coverage) == "Recall (higher is better)"


def test_every_competitor_is_drawn_and_named_and_time_is_logarithmic(toy):
    axes = scatter(toy, toy.speed, toy.quality).axes[0]
    assert axes.get_xscale() == "log"
    assert {row.name for row in toy.competitors} <= {text.get_text() for text in axes.texts}
    drawn = {tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1}
    expected = {(row.record.speed.seconds_per_image, row.record.scores["fd_features"].value) for row in toy.competitors}
    assert expected <= drawn


def test_rows_that_a_plot_cannot_show_are_named_with_the_reason():
    lacking = make_record("a", scores={"recall": 0.5}, missing={"fd_x": "singular"}, speed=make_speed(1, 1))
    (table,) = tables([lacking, make_record("b", scores={"fd_x": 1.0, "recall": 0.5}, speed=make_speed(1, 1))])
    assert left_out(table, table.speed, table.quality) == ["a is not shown, it has no FD (x): singular"]


def test_looks_differ_in_colour_and_in_marker(toy):
    axes = scatter(toy, toy.speed, toy.quality).axes[0]
    marks = [line for line in axes.lines if line.get_marker() in set("osD^vPX<>") and len(line.get_xdata()) == 1]
    assert len({line.get_marker() for line in marks}) == len({str(line.get_color()) for line in marks}) == 6


def test_the_trilemma_has_a_bubble_for_each_row_the_larger_the_more_is_covered(toy):
    axes = trilemma(toy, toy.quality, toy.coverage).axes[0]
    bubbles = axes.collections[0]
    rows = [row.record for row in sorted(toy.competitors, key=lambda row: row.front)]  # the front covers the others
    assert bubbles.get_offsets().tolist() == [
        [record.speed.seconds_per_image, record.scores["fd_features"].value] for record in rows
    ]
    covered = [record.scores["recall"].value for record in rows]
    assert np.argsort(bubbles.get_sizes()).tolist() == np.argsort(covered).tolist()


def test_names_of_two_lines_above_triangles_are_inside_of_the_figure():
    names = ("score-sde-ve", "a model with a long name")
    scores, speed = {"fid": 5.0, "recall": 0.5}, make_speed(1.0, 1)
    figure = triangles(tables([make_record(name, scores=scores, speed=speed) for name in names])[0])
    figure.canvas.draw()
    top = max(axes.title.get_window_extent().y1 for axes in figure.axes)
    assert any("\n" in axes.get_title() for axes in figure.axes)
    assert top <= figure.bbox.y1


def test_each_row_has_a_triangle(toy):
    names = {axes.get_title().replace("\n", " ") for axes in triangles(toy).axes}
    assert {f"{row.name} {row.mark}".strip() for row in toy.competitors} <= names
    assert "◆ Pareto front" in triangles(toy).get_supxlabel()
    assert triangles(tables(demo_records())[1]) is None  # a single row has nothing to be compared with


def test_goodness_is_one_for_the_best_and_tells_decades_apart(toy):
    assert np.allclose(goodness(toy.speed, np.array([1e-3, 1e-2, 1e-1])), [1, 1.2 / 2.2, 0.2 / 2.2])
    assert goodness(toy.speed, np.array([1.0, 1.1])).min() > 0.9  # a tenth slower is not the worst there is
    assert np.allclose(goodness(toy.coverage, np.array([0.2, 0.8])), [0.25, 1])
    assert np.allclose(goodness(toy.quality, np.array([0.0, 2.0])), [1, 0.1 / 1.1])
    assert np.allclose(goodness(toy.quality, np.array([0.0, 0.0])), 1)


def test_of_more_rows_than_can_be_named_the_best_is_named_off_the_line_of_real_data():
    scores = [{"fid": 2.05 + i % 5, "recall": 0.5} for i in range(NAMED_ROWS + 3)]
    records = [make_record(f"m{i}", scores=s, speed=make_speed(1e-3 * (16 - i), 1)) for i, s in enumerate(scores)]
    (table,) = tables([*records, make_record("real-data", scores={"fid": 2.0, "recall": 0.9})])
    axes = trilemma(table, table.quality, table.coverage).axes[0]
    axes.figure.draw_without_rendering()
    names = {text.get_text(): text.get_window_extent() for text in axes.texts if text.get_text().startswith("m")}
    assert "m10" in names  # the best and the fastest of the equally good
    assert set(names) == {row.name for row in table.rows if row.front}
    numbers = {text.get_text() for text in axes.texts if text.get_text().isdecimal()}
    assert numbers == {str(row.number) for row in table.competitors if not row.front}
    assert "row of the table" in legend_of(axes)
    (_, line) = axes.transData.transform((1e-3, 2.0))
    assert not any(box.y0 < line < box.y1 for box in names.values())


def test_rows_near_the_front_have_a_ring_and_the_legend_says_what_it_means():
    def drawn(*fids):
        speed = make_speed(1.0, 1, batch_size=1, raw_seconds=[1 + i / 1000 for i in range(20)])
        records = [
            make_record(f"m{fid}", scores=with_errors({"fid": (fid, 0.3), "recall": (0.5, 0.01)}), speed=speed)
            for fid in fids
        ]
        (table,) = tables(records)
        for axes in (
            trilemma(table, table.quality, table.coverage).axes[0],
            scatter(table, table.speed, table.quality).axes[0],
        ):
            rings = [found.get_offsets()[:, 1] for found in axes.collections if len(found.get_facecolors()) == 0]
            yield [list(at) for at in rings if len(at)], NEAR_TEXT in legend_of(axes)

    assert list(drawn(5.0, 5.5, 9.0)) == [([[5.5]], True)] * 2
    assert list(drawn(5.0, 9.0)) == [([], False)] * 2


def test_a_line_to_a_label_does_not_run_along_an_interval():
    def beside(*obstacles):
        bounds = np.array([0.0, 0, 400, 400])
        (centre,) = place(
            np.array([[200.0, 200]]), np.array([[30.0, 10]]), np.array([4.0]), bounds, np.array(obstacles)
        )
        return abs(centre[0] - 200)

    taken = [120.0, 162, 280, 238]  # the nearest free places are above and below
    assert beside(taken) < 1
    assert beside(taken, [199.0, 160, 201, 240]) > 15


def test_a_label_right_beside_its_point_needs_no_line_and_one_farther_off_has_one():
    def lines(*seconds):
        records = [
            make_record(f"m{i}", scores={"fid": 5.0, "recall": 0.5}, speed=make_speed(s, 1))
            for i, s in enumerate(seconds)
        ]
        (table,) = tables(records)
        axes = scatter(table, table.speed, table.quality).axes[0]
        return [line for line in axes.lines if line.get_zorder() == LEADER]

    assert lines(1e-3, 1.0) == []
    assert len(lines(1.0, 1.0001, 1.0002)) == 3


def test_of_many_rows_some_of_the_front_are_named_within_the_axes():
    (table,) = tables(many_records(300, 1))
    axes = scatter(table, table.speed, table.quality).axes[0]
    axes.figure.draw_without_rendering()
    names = [text for text in axes.texts if text.get_text().startswith("model")]
    assert 0 < len(names) <= NAMED_OF_MANY
    frame = axes.get_window_extent()
    boxes = [name.get_window_extent() for name in names]
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_published_numbers_are_hollow_and_unnamed():
    (table,) = tables(many_records(12, 1))
    axes = scatter(table, table.speed, table.quality, papers_of(table)).axes[0]
    (papers,) = (found for found in axes.collections if to_hex(found.get_edgecolors()[0]) == FAINT)
    assert [0.0021, 3.75] in papers.get_offsets().tolist()
    assert not any("DDGAN" in text.get_text() for text in axes.texts)


EDGES = {
    "zeros": [{"fd_x": 0.0, "recall": 0.0}, {"fd_x": 9.0, "recall": 1.0}],
    "all zero": [{"fd_x": 0.0, "recall": 0.0}, {"fd_x": 0.0, "recall": 0.0}],
    "equal": [{"fd_x": 1.0, "recall": 0.5}, {"fd_x": 1.0, "recall": 0.5}],
    "negative": [{"fd_x": -1e-9, "recall": 0.5}, {"fd_x": 1.0, "recall": 0.5}],
    "no coverage": [{"fd_x": 1.0}, {"fd_x": 2.0, "recall": 0.5}],
    "only quality": [{"high_quality": 0.4}, {"high_quality": 0.5}],
    "huge": [{"fd_x": 1e90, "recall": 0.5}, {"fd_x": 1e-90, "recall": 0.4}],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("times", [(0.0, 1e-3), (0.0, 0.0), (1e-12, 1e4)])
@pytest.mark.parametrize("scores", EDGES.values(), ids=EDGES)
def test_edges_are_drawn_within_the_axes(scores, times):
    records = [
        make_record(f"m{i}", scores=s, speed=make_speed(t, 1))
        for i, (s, t) in enumerate(zip(scores, times, strict=True))
    ]
    (table,) = tables(records)
    axes = scatter(table, table.speed, table.quality).axes[0]
    for record in records:
        at = (record.speed.seconds_per_image, record.scores[table.quality.key].value)
        assert axes.get_xlim()[0] < at[0] < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < at[1] < axes.get_ylim()[1]
    if table.coverage:
        assert trilemma(table, table.quality, table.coverage).axes


# intervals


def drawn_intervals(axes):
    """The bars: lines with two ends that carry caps."""
    return [line for line in axes.lines if line.get_marker() in ("|", "_") and len(line.get_xdata()) == 2]


def sure_table(values, seconds=(1e-3, 1e-2, 1e-1)):
    records = [
        make_record(f"m{i}", scores=with_errors({"fid": v, "recall": (0.5, 0.01 * (i + 1))}), speed=make_speed(s, 1))
        for i, (v, s) in enumerate(zip(values, seconds, strict=False))
    ]
    return tables(records)[0]


def test_both_axes_carry_their_intervals_and_hold_them():
    table = sure_table([(5.0, 0.4), (5.1, 0.4), (5.2, 0.4)])
    axes = scatter(table, table.coverage, table.quality).axes[0]
    vertical = sorted(tuple(bar.get_ydata()) for bar in drawn_intervals(axes) if bar.get_marker() == "_")
    horizontal = sorted(tuple(bar.get_xdata()) for bar in drawn_intervals(axes) if bar.get_marker() == "|")
    assert vertical == [pytest.approx((v - 0.784, v + 0.784)) for v in (5.0, 5.1, 5.2)]
    assert horizontal == [pytest.approx((0.5 - w, 0.5 + w)) for w in (0.0588, 0.0392, 0.0196)]
    assert axes.get_ylim()[0] < vertical[0][0]
    assert axes.get_ylim()[1] > vertical[-1][1]


def test_one_very_wide_interval_leaves_the_axes_and_does_not_squash_the_rest():
    table = sure_table([(5.0, 0.1), (5.5, 0.1), (6.0, 50.0)])
    axes = scatter(table, table.speed, table.quality).axes[0]
    low, high = axes.get_ylim()
    assert high - low < 10
    (wide,) = (bar for bar in drawn_intervals(axes) if tuple(bar.get_ydata()) == pytest.approx((low, high)))
    assert list(wide.get_markevery()) == []


@pytest.mark.filterwarnings("error")
def test_an_interval_below_zero_keeps_the_axis_logarithmic():
    table = sure_table([(0.01, 0.001), (1.0, 0.9), (50.0, 60.0)])
    axes = scatter(table, table.speed, table.quality).axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > 1e-4


def test_the_trilemma_carries_intervals_and_its_legend_says_so():
    table = sure_table([(5.0, 0.4), (5.1, 0.4), (5.2, 0.4)])
    figure = trilemma(table, table.quality, table.coverage)
    assert len(drawn_intervals(figure.axes[0])) == 2 * 3  # of FID, and of times
    assert "95 % interval" in [text.get_text() for text in figure.legends[0].get_texts()]
