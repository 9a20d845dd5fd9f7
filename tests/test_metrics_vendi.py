"""The Vendi score: known answers, its definition, its error against the spread over draws."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from inputs import fails, no_reference

from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.vendi import vendi
from trilemma_bench.seeding import permutation


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


@pytest.mark.parametrize(("count", "dim"), [(12, 5), (13, 13), (4, 12), (8, 12), (9, 1)])
def test_the_jackknife_is_that_of_entropies_computed_anew(count, dim):
    """Each sample left out in turn, and each pair of the fixed order for the second differences."""
    x = features(count, dim)

    def entropy_without(*left_out: int) -> float:
        return math.log(by_definition(x[[i for i in range(count) if i not in left_out]]))

    whole, one = entropy_without(), np.array([entropy_without(i) for i in range(count)])
    order = permutation(count, "vendi-jackknife").tolist()
    differences = [
        count * whole - (count - 1) * (one[i] + one[j]) + (count - 2) * entropy_without(i, j)
        for i, j in zip(order[::2], order[1::2], strict=False)
    ]
    total = (count - 1) ** 2 / count * one.var(ddof=1)
    variance = total - min(np.var(differences, ddof=1) / 2, total / 2)
    found = score(x)
    assert found.standard_error == pytest.approx(math.exp(whole) * math.sqrt(variance), rel=1e-4, abs=1e-9)
    more = math.exp(-(count - 1) * (one.mean() - whole)) - 1
    assert (f"{100 * more:.0f} % more" in found.note) == (more > 0.1)


def test_both_routes_agree_on_the_error():
    wide = torch.nn.functional.pad(features(60, 40), (0, 40))  # the same cosines, by the other matrix
    narrow = wide[:, :40]
    assert score(wide).value == pytest.approx(score(narrow).value, rel=1e-12)
    assert score(wide).standard_error == pytest.approx(score(narrow).standard_error, rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize(("count", "dim"), [(300, 5), (400, 40), (100, 100), (40, 150)])
def test_standard_error_is_the_spread_over_draws(count, dim, shift):
    """Also of isotropic features, whose entropy no single sample changes: all of it comes from pairs."""
    draws = [score(features(count, dim, seed, shift)) for seed in range(150)]
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert 0.85 < np.mean([draw.standard_error for draw in draws]) / spread < 1.25


@pytest.mark.parametrize(("count", "dim"), [(400, 40), (60, 40), (20, 200)])
def test_isotropic_samples_score_pages_mean_entropy(count, dim):
    """Σ 1/k over k = max + 1 … N·D, less (min − 1) / 2 max (Page 1993), here of real features: to the leading order."""
    mean = np.mean([math.log(score(features(count, dim, seed, 0.0)).value) for seed in range(30)])
    few, many = sorted((count, dim))
    assert mean == pytest.approx(math.log(few) - few / (2 * many), abs=0.02)


def test_a_note_says_how_much_more_infinitely_many_samples_would_score():
    few, enough, many = (score(features(count, 40, shift=0.0)) for count in (20, 80, 4000))
    assert re.fullmatch(r"grows with N: infinitely many samples score at least \d+ % more", few.note)
    assert re.fullmatch(r"grows with N: infinitely many samples score about 2\d % more", enough.note)  # √e⁰·⁵ − 1
    assert not many.note


def test_a_sample_without_a_direction_is_refused():
    with fails("vendi", "1 generated samples have features that are all zero"):
        score(torch.cat([features(5, 3), torch.zeros(1, 3)]))


@pytest.mark.parametrize("count", [1, 3])
def test_few_samples_have_no_error(count):
    assert score(features(count, 3)).standard_error is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("count", "dim"), [(300, 40), (40, 300)])
def test_the_same_on_cuda(count, dim):
    x = features(count, dim)
    cpu, cuda = score(x), score(x.cuda())
    assert cuda.value == pytest.approx(cpu.value, rel=1e-10)
    assert cuda.standard_error == pytest.approx(cpu.standard_error, rel=1e-8)
