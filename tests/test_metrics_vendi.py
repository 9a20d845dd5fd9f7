"""The Vendi score: known answers, its definition, its error against the spread over draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from inputs import fails, no_reference

from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.vendi import vendi


def score(features: torch.Tensor):
    return vendi(Comparison(features, no_reference))


def features(count: int, dim: int, seed: int = 0, shift: float = 1.0) -> torch.Tensor:
    return shift + torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def by_definition(x: torch.Tensor) -> float:
    x = x.double() / x.double().norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(x @ x.mT / len(x)).clamp(min=0)
    return math.exp(-torch.special.xlogy(values, values).sum())


@pytest.mark.parametrize("count", [2, 12, 300])
def test_samples_that_are_alike_count_as_one(count):
    same = features(1, 20).repeat(count, 1)
    assert score(same).value == pytest.approx(1.0, abs=1e-12)
    assert score(same * torch.rand(count, 1).add(0.1)).value == pytest.approx(1.0, abs=1e-5)  # float32's own rounding


@pytest.mark.parametrize(("m", "copies"), [(1, 5), (4, 1), (4, 3), (20, 1), (20, 50)])
def test_equal_shares_of_orthogonal_samples_count_as_their_number(m, copies):
    clusters = 3 * torch.eye(20)[:m].repeat(copies, 1)
    assert score(clusters).value == pytest.approx(m, rel=1e-12)
    assert score(-clusters).value == pytest.approx(m, rel=1e-12)


def test_unequal_shares_count_as_exp_of_their_entropy():
    clusters = torch.eye(5)[[0] * 6 + [3] * 3 + [4]]
    shares = np.array([0.6, 0.3, 0.1])
    assert score(clusters).value == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-12)


@pytest.mark.parametrize(("count", "dim"), [(30, 50), (50, 50), (51, 50), (400, 10), (5000, 3), (1, 4)])
def test_equals_its_definition_whichever_matrix_is_smaller(count, dim):
    x = features(count, dim)[:400]
    assert score(x).value == pytest.approx(by_definition(x), rel=1e-10)


def test_both_routes_agree_on_the_error():
    wide = torch.nn.functional.pad(features(60, 40), (0, 40))  # the same cosines, by the other matrix
    narrow = wide[:, :40]
    assert score(wide).value == pytest.approx(score(narrow).value, rel=1e-12)
    assert score(wide).standard_error == pytest.approx(score(narrow).standard_error, rel=1e-9)


@pytest.mark.parametrize(("count", "dim"), [(300, 5), (400, 40), (100, 150)])
def test_standard_error_is_the_spread_over_draws(count, dim):
    draws = [score(features(count, dim, seed)) for seed in range(150)]
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert 0.8 < np.mean([draw.standard_error for draw in draws]) / spread < 1.25


def test_a_sample_without_a_direction_is_refused():
    with fails("vendi", "1 generated samples have features that are all zero"):
        score(torch.cat([features(5, 3), torch.zeros(1, 3)]))


def test_one_sample_has_no_error():
    assert score(features(1, 3)).standard_error is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("count", "dim"), [(300, 40), (40, 300)])
def test_the_same_on_cuda(count, dim):
    x = features(count, dim)
    cpu, cuda = score(x), score(x.cuda())
    assert cuda.value == pytest.approx(cpu.value, rel=1e-10)
    assert cuda.standard_error == pytest.approx(cpu.standard_error, rel=1e-8)
