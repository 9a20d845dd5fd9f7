"""Kernel distances: equal to their definitions and to torch-fidelity; their errors to the spread over draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inputs import fails
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.kernel import cmmd, kernel_sums, kid, polynomial
from trilemma_bench.metrics.reference import MomentsReference, Reference
from trilemma_bench.protocol import KID_SUBSETS_SEED


def features(count: int, dim: int = 16, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Like a network's: never negative, many of them zero, none all zero."""
    rng = torch.Generator().manual_seed(seed)
    return (torch.randn(count, dim, generator=rng) + shift).clamp(min=0.01)


def direct_kid(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x.double(), y.double()
    xx, yy, xy = ((a @ b.mT / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    (n, m) = xy.shape
    own = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(own - 2 * xy.mean())


def direct_cmmd(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (x, y))
    xx, yy, xy = (torch.exp(-(torch.cdist(a, b) ** 2) / 200).mean() for a, b in ((x, x), (y, y), (x, y)))
    return float(1000 * (xx + yy - 2 * xy))


def test_kid_of_four_points_by_hand():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    # k(0, 2) = 1; k(1, 1) = 8; k(0, 1) = 1 and k(2, 1) = 27, each twice
    assert kid(Comparison(x, y)).value == pytest.approx(1 + 8 - 2 * (1 + 27) / 2, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (700, 300), (513, 512)])
def test_kid_of_all_pairs_is_the_direct_computation(n, m):
    x, y = features(n), features(m, shift=0.3, seed=1)
    assert kid(Comparison(x, y)).value == pytest.approx(direct_kid(x, y), rel=1e-10)


def test_kid_does_not_depend_on_the_block():
    x, y = features(130), features(90, shift=0.3, seed=1)
    whole = kernel_sums(x, y, polynomial(16), block=1000)
    for block in (1, 7, 64, 130):
        blocked = kernel_sums(x, y, polynomial(16), block)
        assert blocked.unbiased == pytest.approx(whole.unbiased, rel=1e-10)
        torch.testing.assert_close(blocked.influence, whole.influence, rtol=0, atol=1e-12)
        assert blocked.interaction == pytest.approx(whole.interaction, rel=1e-8)


def test_kid_of_subsets_is_torch_fidelitys():
    x, y = features(400, dim=64), features(300, dim=64, shift=0.2, seed=1)
    peer = kid_features_to_metric(x, y, kid_subsets=20, kid_subset_size=100, verbose=False)[KEY_METRIC_KID_MEAN]
    ours = kid(Comparison(x, y, kid_subsets=20, kid_subset_size=100)).value
    assert ours == pytest.approx(peer, rel=1e-4)
    double = kid_features_to_metric(x.double(), y.double(), kid_subsets=20, kid_subset_size=100, verbose=False)
    assert ours == pytest.approx(double[KEY_METRIC_KID_MEAN], rel=1e-10)


def test_one_subset_of_all_samples_is_all_pairs():
    x, y = features(60), features(60, shift=0.3, seed=1)
    whole, subset = kid(Comparison(x, y)), kid(Comparison(x, y, kid_subsets=1, kid_subset_size=60))
    assert subset.value == pytest.approx(whole.value, rel=1e-10)
    assert subset.standard_error == pytest.approx(whole.standard_error, rel=1e-8)


def test_kid_has_no_bias_and_cmmd_has():
    kids, cmmds = [], []
    for seed in range(200):
        comparison = Comparison(features(30, dim=4, seed=2 * seed), features(20, dim=4, seed=2 * seed + 1))
        kids.append(kid(comparison).value)
        cmmds.append(cmmd(comparison).value)
    assert abs(np.mean(kids)) < 3 * np.std(kids) / 200**0.5
    assert min(cmmds) > 0


def test_cmmd_is_the_direct_computation_of_directions():
    x, y = features(300), features(200, shift=0.3, seed=1)
    value = cmmd(Comparison(x, y)).value
    assert value == pytest.approx(direct_cmmd(x, y), rel=1e-8)  # torch.cdist's own rounding
    assert cmmd(Comparison(x * 1e30, y * 1e-30)).value == pytest.approx(value, rel=1e-5)


def test_cmmd_of_two_directions_by_hand():
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert cmmd(Comparison(x, x)).value == 0.0
    assert cmmd(Comparison(x, y)).value == pytest.approx(1000 * 2 * (1 - np.exp(-2 / 200)), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize(
    ("metric", "settings"), [(kid, {}), (kid, {"kid_subsets": 20, "kid_subset_size": 40}), (cmmd, {})]
)
def test_standard_errors_are_the_spread_over_draws(metric, settings, shift):
    reference = features(200, seed=1000)
    draws = [metric(Comparison(features(200, shift=shift, seed=s), reference, **settings)) for s in range(150)]
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert 0.8 < np.mean([draw.standard_error for draw in draws]) / spread < 1.25


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("dim", [2, 16])
def test_intervals_of_cmmd_hold_the_mean_of_all_draws_in_95_percent(shift, dim):
    """Less 2.5 standard deviations of so few draws."""
    reference = features(200, dim, seed=1000)
    found = [cmmd(Comparison(features(200, dim, shift, seed), reference)) for seed in range(150)]
    mean = np.mean([each.value for each in found])
    assert np.mean([each.interval[0] <= mean <= each.interval[1] for each in found]) >= 0.905


def pair_sums(x, y):
    """The kernel's values of all pairs of x, and of x and y: numpy N×N and N×M."""
    return tuple(((x.double() @ z.double().mT / x.shape[1] + 1) ** 3).numpy() for z in (x, y))


def test_interaction_is_what_a_fit_of_two_effects_leaves():
    x, y = features(9), features(7, seed=1)
    within, _ = pair_sums(x, y)
    first, second = np.triu_indices(9, 1)
    effects = np.zeros((36, 10))
    effects[:, 9] = effects[np.arange(36), first] = effects[np.arange(36), second] = 1
    values = within[first, second]
    residual = values - effects @ np.linalg.lstsq(effects, values, rcond=None)[0]
    expected = np.square(residual).sum() / (36 - 9)  # μ and nine effects, of which eight are free beside it
    assert kernel_sums(x, y, polynomial(16)).interaction == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_the_error_of_kid_over_subsets_by_its_equation(shift):
    """Of samples' influence on the mean over subsets, less once the variance from pairs, by how often two share one."""
    x, y, subsets, size = features(12, shift=shift), features(10, seed=1), 3, 6
    rng = np.random.RandomState(KID_SUBSETS_SEED)
    influence, times, interactions = np.zeros(12), np.zeros(12), []
    for _ in range(subsets):
        rows, others = rng.choice(12, size, replace=False), rng.choice(10, size, replace=False)
        within, across = pair_sums(x[rows], y[others])
        np.fill_diagonal(within, 0)
        influence[rows] += 2 * (within.sum(axis=1) / (size - 1) - across.mean(axis=1)) / size
        times[rows] += 1
        interactions.append(kernel_sums(x[rows], y[others], polynomial(16)).interaction)
    influence = (influence - times * influence.sum() / times.sum()) / subsets
    shared = 1 + (subsets - 1) * size * (size - 1) / (12 * 11)
    pairs = 2 * np.mean(interactions) / (subsets * size * (size - 1)) * shared
    expected = np.sqrt(max(np.square(influence).sum() - pairs, pairs))
    found = kid(Comparison(x, y, kid_subsets=subsets, kid_subset_size=size))
    assert found.standard_error == pytest.approx(expected, rel=1e-10)


def test_too_few_samples():
    x = features(10)
    with fails("kid needs at least 2 samples on each side, got 1 generated and 10 reference"):
        kid(Comparison(x[:1], x))
    with fails("kid needs at least 2", "10 generated and 1 reference"):
        kid(Comparison(x, x[:1]))
    with fails(
        "3 subsets of 11 needs at least 11 samples on each side, got 10 generated and 20 reference", "all pairs"
    ):
        kid(Comparison(x, features(20), kid_subsets=3, kid_subset_size=11))
    with fails("5 subsets of 1 needs at least 2"):
        kid(Comparison(x, x, kid_subsets=5, kid_subset_size=1))
    with fails("-1 subsets"):
        kid(Comparison(x, x, kid_subsets=-1))


def test_few_samples_have_a_value_and_no_error():
    x, y = features(3), features(3, seed=1)
    assert kid(Comparison(x, y)).standard_error is None
    assert cmmd(Comparison(x, y)).standard_error is None
    assert kid(Comparison(x, y)).value == pytest.approx(direct_kid(x, y), rel=1e-10)


def test_features_without_a_direction_are_refused():
    x, zero = features(5), torch.zeros(2, 16)
    with fails("cmmd", "2 generated samples have features that are all zero"):
        cmmd(Comparison(torch.cat([x, zero]), x))
    with fails("2 reference samples"):
        cmmd(Comparison(x, torch.cat([x, zero])))


def test_moments_alone_are_not_enough():
    with fails("mean and covariance only"):
        kid(Comparison(features(5), MomentsReference(Reference(features(50)).moments, 50)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_cuda():
    x, y = features(700), features(600, shift=0.3, seed=1)
    for metric, settings in ((kid, {}), (cmmd, {}), (kid, {"kid_subsets": 3, "kid_subset_size": 100})):
        cpu, cuda = metric(Comparison(x, y, **settings)), metric(Comparison(x.cuda(), y.cuda(), **settings))
        assert cuda.value == pytest.approx(cpu.value, rel=1e-10)
        assert cuda.standard_error == pytest.approx(cpu.standard_error, rel=1e-8)
