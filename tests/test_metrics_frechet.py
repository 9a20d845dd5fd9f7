"""The Fréchet distance against closed forms, SciPy, and its own definition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.fd_infinity import FD_INFINITY, intercept_weights, nested_moments, subset_sizes
from trilemma_bench.metrics.frechet import FD, SFID, Moments, frechet_distance, moments
from trilemma_bench.metrics.reference import MomentsReference


def gaussian(seed, dim):
    rng = torch.Generator().manual_seed(seed)
    factor = torch.randn(dim, 2 * dim, generator=rng, dtype=torch.float64)
    return torch.randn(dim, generator=rng, dtype=torch.float64), factor @ factor.mT / dim


def rotation(seed, dim):
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q


def fd_of(first, second):
    return FD.estimate(Comparison(first, second)).value


def known(mean, covariance):
    """A reference that is a Gaussian itself, not a sample of it."""
    return MomentsReference(Moments(mean.double(), covariance.double()), 10**9)


def by_sqrtm(mu1, sigma1, mu2, sigma2):
    root = scipy.linalg.sqrtm((sigma1 @ sigma2).numpy()).real
    return float((mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * np.trace(root))


def test_one_dimension_is_the_textbook_formula():
    """(μ1 − μ2)² + (σ1 − σ2)²."""
    value = frechet_distance(torch.tensor([1.0]), torch.tensor([[4.0]]), torch.tensor([-2.0]), torch.tensor([[25.0]]))
    assert value == pytest.approx(9 + 9, abs=1e-12)


@pytest.mark.parametrize("dim", [2, 16, 64])
def test_commuting_covariances_have_a_closed_form(dim):
    """With shared eigenvectors: |μ1−μ2|² + Σ (√λ1 − √λ2)²."""
    basis = rotation(0, dim)
    first, second = torch.linspace(0.1, 9, dim).double(), torch.linspace(5, 0.2, dim).double()
    mu1, mu2 = torch.ones(dim).double(), torch.zeros(dim).double()
    value = frechet_distance(mu1, basis * first @ basis.mT, mu2, basis * second @ basis.mT)
    assert value == pytest.approx(dim + float((first.sqrt() - second.sqrt()).square().sum()), abs=1e-9)


def test_covariances_that_do_not_commute_have_a_closed_form_in_two_dimensions():
    """tr (Σ1Σ2)^½ = sqrt(tr Σ1Σ2 + 2 sqrt(det Σ1Σ2)) for 2×2 matrices."""
    sigma1 = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    sigma2 = torch.tensor([[1.0, -0.3], [-0.3, 3.0]], dtype=torch.float64)
    product = sigma1 @ sigma2
    root = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = float(4 + sigma1.trace() + sigma2.trace() - 2 * root)
    value = frechet_distance(torch.tensor([0.0, 2.0]), sigma1, torch.zeros(2), sigma2)
    assert value == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_equals_scipys_sqrtm(seed, dim):
    pair = (*gaussian(seed, dim), *gaussian(seed + 1, dim))
    assert frechet_distance(*pair) == pytest.approx(by_sqrtm(*pair), abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_is_symmetric_and_zero_only_for_equal_gaussians(seed, dim):
    first, second = gaussian(seed, dim), gaussian(seed + 1, dim)
    assert frechet_distance(*first, *second) == pytest.approx(frechet_distance(*second, *first), rel=1e-10)
    assert frechet_distance(*first, *second) > 1e-3
    assert 0 <= frechet_distance(*first, *first) < 1e-11 * dim


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_singular_covariances_are_exact(rank):
    """The usual square root of a product loses half of the digits here: 63 eigenvalues of rounding, each rooted."""
    dim, basis = 64, rotation(3, 64)
    first = torch.zeros(dim, dtype=torch.float64)
    first[:rank] = 3.0
    second = torch.linspace(0.5, 2, dim).double()
    singular, full, zero = basis * first @ basis.mT, basis * second @ basis.mT, torch.zeros(dim)
    expected = float((first.sqrt() - second.sqrt()).square().sum())
    assert frechet_distance(zero, singular, zero, full) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(zero, singular, zero, singular) == pytest.approx(0, abs=1e-12)


def test_moments_are_numpys_for_every_chunk():
    features = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * 3 + 100
    for chunk in (1, 37, 4096):
        mean, covariance = moments(features, chunk)
        np.testing.assert_allclose(mean, features.double().numpy().mean(0), atol=1e-12)
        np.testing.assert_allclose(covariance, np.cov(features.double().numpy().T), atol=1e-10)


@pytest.mark.parametrize(("n", "m"), [(20, 25), (20, 200), (200, 20), (40, 40), (41, 39)])
def test_fewer_samples_than_features_give_the_same_value_as_moments(n, m):
    rng = torch.Generator().manual_seed(1)
    first, second = torch.randn(n, 40, generator=rng), 2 * torch.randn(m, 40, generator=rng) + 1
    expected = frechet_distance(*moments(first), *moments(second))
    assert fd_of(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "dim"), [(300, 16), (10, 64)])
def test_a_set_against_itself_is_zero(n, dim):
    features = 1e2 * torch.randn(n, dim, generator=torch.Generator().manual_seed(0)).relu()
    assert FD.estimate(Comparison(features, features.flip(0))).value == pytest.approx(0, abs=1e-8)
    assert FD.estimate(Comparison(features, features.clone())).value >= 0


def test_a_shift_adds_its_square_and_collapse_leaves_the_variance():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(1000, 8, generator=rng, dtype=torch.float64)
    assert fd_of(features, features + 2) == pytest.approx(8 * 4, abs=1e-9)
    mean, covariance = moments(features)
    collapsed = mean.repeat(50, 1)
    assert fd_of(collapsed, features) == pytest.approx(float(covariance.trace()), abs=1e-9)


def test_samples_of_two_gaussians_come_near_their_distance():
    (mu1, sigma1), (mu2, sigma2) = gaussian(0, 4), gaussian(1, 4)
    rng = torch.Generator().manual_seed(2)
    sets = [
        mu + torch.randn(40_000, 4, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(sigma).mT
        for mu, sigma in ((mu1, sigma1), (mu2, sigma2))
    ]
    expected = frechet_distance(mu1, sigma1, mu2, sigma2)
    assert fd_of(*sets) == pytest.approx(expected, rel=0.03)


def test_errors_are_one_line():
    eye, zero = torch.eye(3), torch.zeros(3)
    with pytest.raises(TrilemmaError, match="at least 2 samples, got 1"):
        fd_of(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(TrilemmaError, match="at least 2 samples, got 1"):
        moments(torch.zeros(1, 3))
    with pytest.raises(TrilemmaError, match=r"means D and covariances D×D, got \(3,\), \(3, 3\), \(2,\), \(3, 3\)"):
        frechet_distance(zero, eye, torch.zeros(2), eye)
    with pytest.raises(TrilemmaError, match="finite"):
        frechet_distance(zero, eye * float("nan"), zero, eye)
