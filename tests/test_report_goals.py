"""What rows reach in the trilemma: volumes with known answers, and curves of one model."""

from __future__ import annotations

import numpy as np
import pytest
from records import demo_records, make_record, make_speed, make_training, many_records, with_errors

from trilemma_bench import statistics
from trilemma_bench.record import ModelPart
from trilemma_bench.report.curves import curves
from trilemma_bench.report.figures import draw_figures
from trilemma_bench.report.goals import VOLUME_MEANING, volumes
from trilemma_bench.report.plots import step_curves
from trilemma_bench.report.table import tables


def alone(records):
    """Each model's volume by its values."""
    return {name: volume.value for name, volume in volumes(tables(records)[0]).models}


def test_the_front_has_the_volume_of_all_rows_and_no_model_more():
    toy, digits = tables(demo_records())
    found = volumes(toy)
    assert 0 < max(volume.value for _, volume in found.models) < found.total.value <= 1
    assert dict(found.models).keys() == {"ddgan", "ddpm", "ddim", "gan", "vae"}
    assert volumes(digits) is None  # alone, a row is best in all
    assert volumes(tables([make_record()])[0]) is None  # nothing was timed


def test_the_best_row_has_a_volume_though_it_is_the_slowest():
    slow = make_record("slow", scores={"fid": 1.0, "recall": 1.0}, speed=make_speed(1.0, 1))
    fast = make_record("fast", scores={"fid": 100.0, "recall": 0.5}, speed=make_speed(1e-2, 1))
    found = alone([slow, fast])
    # a tenth of the two decades of time, and half the recall and a tenth of the two decades of distance
    assert found == pytest.approx({"slow": 0.1 / 1.1, "fast": 0.5 * 0.1 / 1.1})


def test_with_a_value_of_0_a_scale_is_linear_and_the_words_say_so():
    distances, speed = {"perfect": 0.0, "middle": 5.0, "worst": 10.0}, make_speed(1.0, 1)
    records = [make_record(name, scores={"fid": fid, "recall": 1.0}, speed=speed) for name, fid in distances.items()]
    found = alone(records)
    assert found == pytest.approx({"perfect": 1.0, "middle": 1 - 0.5 / 1.1, "worst": 0.1 / 1.1})
    assert "linear ones where some value is 0 or less" in VOLUME_MEANING


def of_distances(error):
    """Two rows alike in all but their distances, 1 and 2; the second has this error."""
    scores = [
        with_errors({"fid": (1.0, 0.0), "recall": (0.5, 0.0)}),
        with_errors({"fid": (2.0, error), "recall": (0.5, 0)}),
    ]
    speed = make_speed(1.0, 1, raw_seconds=[1000.0] * 3)
    records = [make_record(name, scores=each, speed=speed) for name, each in zip(("good", "bad"), scores, strict=True)]
    return dict(volumes(tables(records)[0]).models)


def test_a_volume_is_as_sure_as_the_values_of_its_front(monkeypatch):
    monkeypatch.setattr(statistics, "RUNS_SD", 0.0)
    upper = np.log10((2.0 + 1.96 * 0.2) / 2.0)
    found = of_distances(0.2)
    # a volume here is what is left of 1.1 decades below the best, and the interval has the ends of that of the distance
    ends = [1 - (np.log10(2) + step) / 1.1 for step in (upper, -upper)]
    assert found["bad"].value == pytest.approx(1 - np.log10(2) / 1.1)
    assert found["bad"].interval == pytest.approx(ends, abs=0.02)
    assert found["good"].interval == (1.0, 1.0)
    exact = of_distances(0.0)["bad"]
    assert exact.interval == pytest.approx((exact.value, exact.value))
    assert str(exact) == "73 % [73, 73]"


def test_by_times_of_single_runs_no_volume_is_sure():
    found = of_distances(0.0)
    assert all(np.ptp(volume.interval) > 0.05 for volume in found.values())


def test_shares_are_drawn_no_farther_than_they_can_be():
    speed = make_speed(1.0, 1)
    scores = with_errors({"fid": (5.0, 0.1), "recall": (0.98, 0.1)})
    scores["recall"] = scores["recall"].model_copy(update={"interval": (0.8, 1.0)})
    records = [make_record(name, scores=scores, speed=speed) for name in ("one", "other")]
    total = volumes(tables(records)[0]).total
    assert total.interval[0] < total.interval[1] <= 1


def sampled(steps, model="ddim", weights="a", scores=None, **settings):
    part = ModelPart(
        name=model,
        variant=f"{steps} steps",
        parameters=9,
        settings={"steps": steps, **settings},
        plugin="p",
        version="1",
    )
    training = make_training(checkpoint_sha256=weights)
    speed = make_speed(steps * 1e-3, steps)
    scores = scores or {"fid": 9.0 / steps, "recall": 0.5}
    return make_record(scores=scores, speed=speed, training=training, id=f"{model}{steps}{weights}").model_copy(
        update={"model": part}
    )


def test_curves_join_one_trained_model_by_its_evaluations():
    others = [sampled(10, "gan"), sampled(20, weights="b"), make_record("real-data")]
    (table,) = tables([sampled(50), sampled(10), sampled(20), *others])
    (curve,) = curves(table)
    assert curve.model == "ddim"
    assert [row.record.speed.nfe for row in curve.rows] == [10, 20, 50]


def test_a_curve_has_the_row_of_further_seeds_of_its_model():
    seeds = [sampled(10, weights="b").model_copy(update={"seed": 1, "id": "other"}), sampled(20), sampled(10)]
    (table,) = tables(seeds)
    (curve,) = curves(table)
    assert [len(row.runs) for row in curve.rows] == [2, 1]


def test_settings_that_cost_nothing_are_in_their_order_whatever_the_times():
    def at(temperature, seconds):
        record = sampled(1)
        part = record.model.model_copy(update={"variant": f"T={temperature}", "settings": {"temperature": temperature}})
        speed = make_speed(seconds, 1)
        return record.model_copy(update={"model": part, "speed": speed, "id": f"at {temperature}"})

    (table,) = tables([at(1.0, 2e-5), at(0.7, 3e-5), at(0.5, 1e-5)])
    (curve,) = curves(table)
    assert [row.record.model.settings["temperature"] for row in curve.rows] == [0.5, 0.7, 1.0]


def test_the_same_settings_twice_are_one_point_of_no_curve():
    (table,) = tables([sampled(10), sampled(10).model_copy(update={"id": "again"})])
    assert len(table.rows) == 1
    assert curves(table) == []


@pytest.mark.parametrize("steps", [(5, 10), (5,)])
def test_a_sweep_is_not_drawn_where_less_than_two_of_its_rows_have_the_quality_that_others_have(steps, tmp_path):
    swept = [sampled(n, "gan", scores={"recall": 0.5} if n in steps else None) for n in (5, 10)]
    (table,) = tables([sampled(10), sampled(20, weights="b"), *swept])
    assert len(curves(table)) == 1
    (drawn,) = draw_figures([table], tmp_path, with_published=False).by_group
    assert [figure.name.partition("gaussians25-")[2] for figure in drawn][:2] == ["trilemma", "triangles"]
    assert not any("curves" in figure.name for figure in drawn)


def test_curves_of_one_name_are_told_apart():
    (table,) = tables(many_records(80, 1))
    names = [curve.model for curve in curves(table)]
    assert len(set(names)) == len(names) == 8


def test_the_points_of_a_curve_are_named():
    (table,) = tables([sampled(10), sampled(20)])
    figure = step_curves(table, curves(table), table.speed, table.quality)
    named = {text.get_text() for text in figure.axes[0].texts}
    assert {"ddim (10 steps)", "ddim (20 steps)"} <= named
