"""Precision, recall, density and coverage: known answers, the reference implementation, ties, and blocks."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.neighbours import (
    COVERAGE,
    DENSITY,
    PRECISION,
    RECALL,
    ball_counts,
    coverage,
    density,
    nearest_distances,
    precision,
    recall,
)

METRICS = {metric.name: metric for metric in (PRECISION, RECALL, DENSITY, COVERAGE)}


def scores(comparison):
    return {name: metric.estimate(comparison).value for name, metric in METRICS.items()}


def oracle(reference, generated, k):
    with contextlib.redirect_stdout(io.StringIO()):
        return compute_prdc(reference.double().numpy(), generated.double().numpy(), k)


def by_prdc_rules(generated, reference, k):
    return Comparison(generated, reference, k, k, closed_precision_recall=False, closed_density_coverage=False)


def blobs(seed, n, dim, shift=0.0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize(
    ("n", "m", "dim", "k", "shift"), [(200, 300, 2, 5, 0.3), (150, 90, 64, 3, 0.1), (60, 400, 7, 1, 1.0)]
)
def test_equals_prdc_on_random_features(n, m, dim, k, shift):
    generated, reference = blobs(0, n, dim, shift), blobs(1, m, dim)
    ours, theirs = scores(by_prdc_rules(generated, reference, k)), oracle(reference, generated, k)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-12)
    assert 0 < ours["recall"] < 1  # the case says something


# Small integers: distances are exact in both, and there are duplicates and ties everywhere.
GRID = st.integers(0, 3)


def grid_points(rows):
    return st.lists(st.tuples(GRID, GRID, GRID), min_size=rows, max_size=40).map(lambda x: torch.tensor(x).float())


@settings(max_examples=30, deadline=None)
@given(grid_points(7), grid_points(7), st.integers(1, 5))
def test_equals_prdc_with_duplicates_and_ties(generated, reference, k):
    ours, theirs = scores(by_prdc_rules(generated, reference, k)), oracle(reference, generated, k)
    assert ours == {name: pytest.approx(value, abs=1e-12) for name, value in theirs.items()}


def naive_scores(generated, reference, k, closed):
    """The definitions, spelled out sample by sample."""

    def radius(points, i):
        others = [np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i]
        return sorted(others)[k - 1]

    g, r = generated.double().numpy(), reference.double().numpy()
    around_r, around_g = [radius(r, i) for i in range(len(r))], [radius(g, i) for i in range(len(g))]
    d = np.array([[np.linalg.norm(a - b) for b in r] for a in g])
    in_r = d <= around_r if closed else d < np.array(around_r)
    in_g = d <= np.array(around_g)[:, None] if closed else d < np.array(around_g)[:, None]
    return in_r.any(1).mean(), in_g.any(0).mean(), in_r.sum(1).mean() / k, in_r.any(0).mean()


@settings(max_examples=25, deadline=None)
@given(grid_points(5), grid_points(5), st.integers(1, 4), st.booleans())
def test_equals_the_definitions_for_both_comparison_rules(generated, reference, k, closed):
    comparison = Comparison(generated, reference, k, k, closed_precision_recall=closed, closed_density_coverage=closed)
    assert list(scores(comparison).values()) == pytest.approx(naive_scores(generated, reference, k, closed), abs=1e-12)


def test_the_default_rules_are_the_papers():
    """On the surface of a ball: inside for precision and recall, outside for density and coverage."""
    line = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    generated = torch.tensor([[5.0], [6.0], [7.0], [8.0]])  # 5 is at distance 2 from 3, whose second neighbour is 1
    comparison = Comparison(generated, line, k_precision_recall=2, k_density_coverage=2)
    assert (precision(comparison), recall(comparison)) == (0.25, 0.25)
    assert (density(comparison), coverage(comparison)) == (0.0, 0.0)


def test_identical_sets_are_perfect():
    features = blobs(0, 120, 8)
    ours = scores(Comparison(features, features.clone()))
    assert (ours["precision"], ours["recall"], ours["coverage"]) == (1.0, 1.0, 1.0)
    assert ours["density"] == pytest.approx(1.0, abs=0.3)


def test_two_equal_collapsed_sets_have_balls_of_radius_zero():
    """`≤` has the copies inside, `<` has nothing inside (prdc issue 7)."""
    point = torch.full((20, 3), 0.1)
    assert scores(Comparison(point, point)) == {"precision": 1.0, "recall": 1.0, "density": 0.0, "coverage": 0.0}


def test_collapsed_set_on_the_data_is_precise_and_covers_nothing():
    reference = blobs(0, 300, 4)
    collapsed = reference[:1].repeat(100, 1) + 1e-3 * blobs(1, 100, 4)
    ours = scores(Comparison(collapsed, reference))
    assert ours["precision"] == 1.0
    assert ours["recall"] == pytest.approx(1 / 300)  # the one sample it collapsed to
    assert ours["coverage"] < 0.1


def test_disjoint_sets_score_zero():
    ours = scores(Comparison(blobs(0, 100, 4, 1e3), blobs(1, 100, 4)))
    assert ours == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}


def test_a_dropped_mode_costs_recall_and_coverage_not_precision():
    reference = torch.cat([blobs(0, 200, 2), blobs(1, 200, 2, 50.0)])
    ours = scores(Comparison(blobs(2, 200, 2), reference))
    assert ours["precision"] > 0.9
    assert ours["recall"] < 0.55
    assert ours["coverage"] < 0.55


def test_the_same_distribution_twice_scores_high():
    ours = scores(Comparison(blobs(0, 500, 2), blobs(1, 500, 2)))
    assert min(ours.values()) > 0.9


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_block_changes_nothing(block, offset):
    """Duplicates far from the origin: the matrix product alone would get most of these comparisons wrong."""
    points = torch.cat([blobs(0, 90, 16), blobs(0, 90, 16)[:40]]) + offset
    whole, parts = nearest_distances(points, 3), nearest_distances(points, 3, block)
    assert torch.equal(whole, parts)
    assert (whole[:40, 0] == 0).all()
    radii = whole[:, 2]
    for closed in (True, False):
        expected, found = ball_counts(points, points, radii, closed), ball_counts(points, points, radii, closed, block)
        assert torch.equal(expected.per_point, found.per_point)
        assert torch.equal(expected.per_centre, found.per_centre)
        # Each ball's own k-th neighbour lies exactly on its surface, duplicates of it with it.
    assert (ball_counts(points, points, radii, True).per_centre >= 4).all()
    assert (ball_counts(points, points, radii, False).per_centre <= 3).all()


def test_nearest_distances_of_a_line():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert nearest_distances(line, 2).tolist() == [[1, 3], [1, 2], [2, 3], [4, 6]]
    assert nearest_distances(line, 3)[:, 2].tolist() == [7, 6, 4, 7]  # as many neighbours as there are


def test_float32_features_are_compared_in_float64():
    """1 + 2⁻¹¹ away against a radius of 1, at coordinates whose float32 squares are 2 apart."""
    reference = torch.tensor([[4096.0], [4096.0 + 1.0]])
    generated = torch.tensor([[4096.0 - 1.0], [4096.0 - 1.0 - 2.0**-11]])
    assert precision(Comparison(generated, reference, 1, 1)) == 0.5


@pytest.mark.parametrize(
    ("n", "m", "metric", "message"),
    [
        (9, 2, "precision", "precision needs at least k+1=4 reference samples, got 2"),
        (2, 9, "recall", "recall needs at least k+1=4 generated samples, got 2"),
        (9, 5, "density", "density needs at least k+1=6 reference samples, got 5"),
        (9, 5, "coverage", "coverage needs at least k+1=6 reference samples, got 5"),
    ],
)
def test_too_few_samples_is_one_line(n, m, metric, message):
    with pytest.raises(TrilemmaError) as caught:
        METRICS[metric].compute(Comparison(blobs(0, n, 2), blobs(1, m, 2)))
    assert str(caught.value) == message


def test_few_samples_still_give_what_they_can():
    comparison = Comparison(blobs(0, 2, 2), blobs(1, 4, 2))
    assert precision(comparison) in (0.0, 0.5, 1.0)


def test_nearest_distances_refuses_too_few():
    with pytest.raises(TrilemmaError, match=r"k\+1=4"):
        nearest_distances(blobs(0, 3, 2), 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_features_that_are_not_finite_are_refused(bad, side):
    sets = [blobs(0, 9, 2), blobs(1, 9, 2)]
    sets[side][3, 1] = bad
    with pytest.raises(TrilemmaError, match=f"1 of 9 {('generated', 'reference')[side]} samples .* not finite"):
        Comparison(*sets)


@pytest.mark.parametrize(
    ("generated", "reference", "match"),
    [
        (torch.zeros(5, 2), torch.zeros(5, 3), "2 features and reference samples 3"),
        (torch.zeros(0, 2), torch.zeros(5, 2), "no generated samples"),
        (torch.zeros(5, 2), torch.zeros(5, 2, 2), "reference features must be floats N×D"),
        (torch.zeros(5, 2, dtype=torch.uint8), torch.zeros(5, 2), "generated features must be floats"),
    ],
)
def test_features_that_do_not_fit_are_refused(generated, reference, match):
    with pytest.raises(TrilemmaError, match=match):
        Comparison(generated, reference)
