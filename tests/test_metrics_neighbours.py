"""Precision, recall, density and coverage: known answers, the reference implementation, ties and errors."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import blobs
from prdc import compute_prdc

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics import neighbours, search
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.intervals import wilson_interval
from trilemma_bench.metrics.neighbours import COVERAGE, DENSITY, GROUPS, PRECISION, RECALL, precision
from trilemma_bench.metrics.reference import Reference
from trilemma_bench.metrics.search import products
from trilemma_bench.statistics import Z95

METRICS = {metric.name: metric for metric in (PRECISION, RECALL, DENSITY, COVERAGE)}


def scores(comparison):
    return {name: metric.estimate(comparison).value for name, metric in METRICS.items()}


def oracle(reference, generated, k):
    with contextlib.redirect_stdout(io.StringIO()):
        return compute_prdc(reference.double().numpy(), generated.double().numpy(), k)


def by_prdc_rules(generated, reference, k):
    return Comparison(generated, reference, k, k, closed_precision_recall=False, closed_density_coverage=False)


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
    assert scores(comparison) == {"precision": 0.25, "recall": 0.25, "density": 0.0, "coverage": 0.0}


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


@pytest.mark.parametrize(("dim", "shift"), [(2, 0.5), (16, 0.2)])
def test_standard_errors_are_the_spread_over_draws(dim, shift):
    """Of other samples against the same reference."""
    reference = blobs(1000, 250, dim)
    found = {name: [] for name in METRICS}
    for seed in range(120):
        comparison = Comparison(blobs(seed, 200, dim, shift), reference)
        for name, metric in METRICS.items():
            found[name].append(metric.estimate(comparison))
    for name, estimates in found.items():
        values = np.array([each.value for each in estimates])
        ratio = np.mean([each.standard_error for each in estimates]) / values.std(ddof=1)
        assert 0.8 < ratio < (1.4 if name == "recall" else 1.25), name


def test_the_error_of_recall_is_not_too_small_for_few_samples_in_many_dimensions():
    """There, other samples' balls grow over what a group left out alone had found."""
    reference = blobs(1000, 300, 64)
    draws = [RECALL.estimate(Comparison(blobs(seed, 150, 64), reference)) for seed in range(150)]
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert 0.9 < np.mean([draw.standard_error for draw in draws]) / spread < 1.4


@pytest.mark.parametrize("rate", [0.2, 1.0, 3.0])
def test_the_error_of_hits_by_chance_is_that_of_their_share(rate):
    """Of 2000 reference samples, each hit `rate` times on average, independently: √(P (1 − P) / 2000)."""
    errors = []
    for seed in range(60):
        rng = torch.Generator().manual_seed(seed)
        groups = torch.rand(GROUPS, 2000, generator=rng) > math.exp(-rate / GROUPS)
        errors.append(neighbours._jackknifed(groups, 1000).standard_error)
    missed = math.exp(-rate)
    assert 0.93 < np.mean(errors) / math.sqrt(missed * (1 - missed) / 2000) < 1.2


@pytest.mark.parametrize(("metric", "value"), [(RECALL, 0.0), (COVERAGE, 0.0), (COVERAGE, 0.5)])
def test_where_no_reference_sample_hangs_on_one_group_the_error_is_an_upper_bound(metric, value):
    """Z95² of them may do so unseen, about as many as Wilson's interval of 0 allows."""
    reference = torch.cat([blobs(0, 500, 2), blobs(1, 500, 2, 100.0)])
    found = metric.estimate(Comparison(blobs(2, 8000, 2) * 1.3 if value else blobs(2, 60, 2, 1e3), reference))
    assert found.value == value
    assert found.method == "jackknife over 20 groups of the generated samples, corrected for its higher orders"
    assert found.standard_error == pytest.approx(Z95 / 1000)
    assert Z95 * found.standard_error == pytest.approx(wilson_interval(0.0, 1000)[1], rel=0.01)


@pytest.mark.parametrize(("dim", "shift"), [(2, 0.5), (16, 0.2), (64, 0.0)])
def test_intervals_of_recall_and_coverage_hold_the_mean_of_all_draws(dim, shift):
    """In 95 %, less 2.5 standard deviations of so few draws."""
    reference, repeats = blobs(1000, 250, dim), 120
    comparisons = [Comparison(blobs(seed, 200, dim, shift), reference) for seed in range(repeats)]
    for metric in (RECALL, COVERAGE):
        found = [metric.estimate(comparison) for comparison in comparisons]
        mean = np.mean([each.value for each in found])
        held = [each.interval[0] <= mean <= each.interval[1] for each in found]
        assert np.mean(held) >= 0.95 - 2.5 * math.sqrt(0.05 * 0.95 / repeats)


def test_a_density_of_nothing_has_the_interval_of_precision():
    far = Comparison(blobs(0, 60, 4, 1e3), blobs(1, 100, 4))
    density, precise = DENSITY.estimate(far), PRECISION.estimate(far)
    assert (density.value, density.standard_error) == (0.0, 0.0)
    assert density.interval == precise.interval
    assert 0.0 == density.interval[0] < density.interval[1] < 0.1


@pytest.mark.parametrize("inside", [0.01, 0.1])
def test_intervals_of_density_hold_the_mean_of_all_draws(inside):
    """In 95 %, less 2.5 standard deviations of so few draws; also where most samples are far away."""
    reference, found = blobs(1000, 100, 4), []
    for seed in range(100):
        samples = blobs(seed, 200, 4)
        samples[torch.rand(200, generator=torch.Generator().manual_seed(seed)) > inside] += 100
        found.append(DENSITY.estimate(Comparison(samples, reference)))
    mean = np.mean([each.value for each in found])
    assert np.mean([each.interval[0] <= mean <= each.interval[1] for each in found]) > 0.895


@pytest.mark.parametrize("name", ["one-hot", "three-hot"])
def test_codes_and_the_same_with_label_smoothing_have_the_same_ties(name):
    """Their sums round differently from pair to pair."""
    hot = torch.rand(150, 60, generator=torch.Generator().manual_seed(0)).topk(3).indices
    codes = {"one-hot": torch.eye(150), "three-hot": torch.zeros(150, 60).scatter_(1, hot, 1.0)}[name]
    expected = scores(Comparison(codes[:90], codes[60:]))
    for smoothed in (0.1 * codes, 0.9 * codes + 0.05, codes / 3 + 1 / 7, 1 - 0.1 * codes):
        assert scores(Comparison(smoothed[:90], smoothed[60:])) == expected


@pytest.mark.parametrize("dim", [130, 512])
def test_equals_torch_fidelity(dim, monkeypatch):
    """Features without near-ties, as theirs decides in float32; through the fast arithmetic of this machine."""
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    monkeypatch.setattr(products, "SMALL", 0)
    reference = blobs(0, 900, dim) * torch.arange(1, dim + 1).float().rsqrt()
    generated = blobs(1, 700, dim) * torch.arange(1, dim + 1).float().rsqrt() * 0.9
    theirs = calculate_precision_recall_full(generated, reference, 3)
    ours = scores(Comparison(generated, reference))
    assert (ours["precision"], ours["recall"]) == pytest.approx(theirs, abs=1e-6)
    assert 0 < ours["recall"] < ours["precision"] < 1


def test_float32_features_are_compared_in_float64():
    """1 + 2⁻¹¹ away against a radius of 1, at coordinates whose float32 squares are 2 apart."""
    reference = torch.tensor([[4096.0], [4096.0 + 1.0]])
    generated = torch.tensor([[4096.0 - 1.0], [4096.0 - 1.0 - 2.0**-11]])
    assert precision(Comparison(generated, reference, 1, 1)).value == 0.5


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
    """Balls of 3 neighbours on a line of whole numbers reach 3 from its ends, and 2 from within."""
    line, inside, outside = torch.arange(4.0)[:, None], torch.tensor([[1.5]]), torch.tensor([[6.5]])
    assert precision(Comparison(torch.cat([inside, outside]), line)).value == 0.5
    for one, value in ((inside, 1.0), (outside, 0.0)):
        assert precision(Comparison(one, line)).value == value
        assert RECALL.estimate(Comparison(line, one)).value == value


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


def test_a_reference_finds_only_the_distances_that_are_asked_for(monkeypatch):
    points, asked, find = blobs(0, 30, 3), [], search.nearest_neighbours
    expected = search.nearest_distances(points, 5)
    monkeypatch.setattr(
        "trilemma_bench.metrics.reference.nearest_neighbours",
        lambda *arguments: asked.append(arguments[1:]) or find(*arguments),
    )
    reference = Reference(points)
    for k, first in ((5, 3), (4, 4), (1, 1), (3, 1), (5, 1)):
        assert torch.equal(reference.nearest(k, first), expected[:, first - 1 : k])
    assert asked == [(3, 2), (1, 0), (1, 2)]
