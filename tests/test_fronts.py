"""Which rows no other beats, and the volumes that they reach: known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma_bench.fronts import hypervolume, pareto_front

gains = st.lists(st.tuples(*[st.floats(0, 1)] * 3), max_size=12)


def test_front_of_the_textbook_example():
    cost_and_gain = [[1, 1], [2, 3], [3, 2], [3, 4], [4, 4]]
    assert pareto_front(cost_and_gain, ["lower", "higher"]).tolist() == [True, True, False, True, False]


def test_directions_turn_the_front_round():
    rows = [[1, 1], [2, 2]]
    assert pareto_front(rows, ["lower", "lower"]).tolist() == [True, False]
    assert pareto_front(rows, ["higher", "higher"]).tolist() == [False, True]
    assert pareto_front(rows, ["lower", "higher"]).tolist() == [True, True]


def test_three_dimensions_save_a_row_that_two_condemn():
    assert pareto_front([[1, 1], [2, 2]], ["lower", "lower"]).tolist() == [True, False]
    assert pareto_front([[1, 1, 0.1], [2, 2, 0.9]], ["lower", "lower", "higher"]).all()


def test_equal_rows_stay_together():
    assert pareto_front([[1, 5], [1, 5], [2, 6]], ["lower", "lower"]).tolist() == [True, True, False]


def test_a_missing_value_is_never_on_the_front_and_beats_nobody():
    assert pareto_front([[np.nan, 0], [1, 1]], ["lower", "lower"]).tolist() == [False, True]


def test_no_rows_and_one_row():
    assert pareto_front([], ["lower", "higher"]).tolist() == []
    assert pareto_front([[3, 4]], ["lower", "higher"]).tolist() == [True]


points = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)


@given(points)
def test_front_is_what_nobody_dominates_and_covers_everything(rows):
    mask = pareto_front(rows, ["higher"] * 3)
    front = [row for row, kept in zip(rows, mask, strict=True) if kept]
    better = lambda a, b: a != b and all(x >= y for x, y in zip(a, b, strict=True))  # noqa: E731
    assert front
    for row, kept in zip(rows, mask, strict=True):
        assert any(better(other, row) for other in front) == (not kept)


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        ([[2.0]], 2.0),
        ([[2.0, 3.0]], 6.0),
        ([[1.0, 2.0], [2.0, 1.0]], 3.0),
        ([[1.0, 2.0, 3.0]], 6.0),
        ([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0]], 4.0),
        ([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]], 1.0),  # the dominated and the equal add nothing
        ([[1.0, 0.0, 1.0], [np.nan, 1.0, 1.0], [-1.0, 2.0, 2.0]], 0.0),
        (np.empty((0, 3)), 0.0),
    ],
)
def test_volumes_with_known_answers(points, volume):
    assert hypervolume(points) == pytest.approx(volume)


def test_a_stack_of_sets_has_the_volume_of_each():
    sets = np.random.default_rng(0).normal(0.5, 0.4, (4, 9, 3))
    sets[1, 2, 0] = np.nan
    assert hypervolume(sets) == pytest.approx([float(hypervolume(each)) for each in sets])
    assert hypervolume(np.empty((2, 0, 3))).tolist() == [0, 0]


def test_a_volume_is_what_random_points_say():
    rng = np.random.default_rng(0)
    points, darts = rng.random((30, 3)), rng.random((20_000, 3))
    share = np.mean([(points >= dart).all(axis=1).any() for dart in darts])
    assert hypervolume(points) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(darts)))


@settings(max_examples=40, deadline=None)
@given(gains, gains)
def test_more_rows_never_have_less_volume_nor_more_than_both(one, other):
    first, second, both = (hypervolume(np.reshape(rows, (-1, 3))) for rows in (one, other, one + other))
    assert max(first, second) - 1e-12 <= both <= first + second + 1e-12


@settings(max_examples=20, deadline=None)
@given(gains)
def test_neither_the_order_of_rows_nor_of_goals_counts(rows):
    points = np.reshape(rows, (-1, 3))
    assert hypervolume(points[::-1, [2, 0, 1]]) == pytest.approx(hypervolume(points), abs=1e-12)


def test_the_volume_of_one_goal_is_the_best_of_it():
    assert hypervolume([[0.3], [0.2], [-1.0], [np.nan]]) == 0.3
