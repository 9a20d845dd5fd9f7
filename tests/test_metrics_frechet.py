"""The Fréchet distance against closed forms, SciPy, and its own definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from gaussians import known, spread_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_statistics_to_metric

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics import frechet, frechet_jackknife
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.fd_infinity import FD_INFINITY
from trilemma_bench.metrics.frechet import FD, SFID, Moments, frechet_distance, moments
from trilemma_bench.metrics.intervals import ratio_interval
from trilemma_bench.metrics.reference import MomentsReference
from trilemma_bench.statistics import Z95


def gaussian(seed, dim):
    rng = torch.Generator().manual_seed(seed)
    factor = torch.randn(dim, 2 * dim, generator=rng, dtype=torch.float64)
    return torch.randn(dim, generator=rng, dtype=torch.float64), factor @ factor.mT / dim


def rotation(seed, dim):
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q


def fd_of(first, second):
    return FD.estimate(Comparison(first, second)).value


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


def test_equals_the_peers_at_the_width_of_features():
    """Full rank, with variances over four decades, as a network's: the Cholesky route, 600 wide."""
    rng, spectrum = torch.Generator().manual_seed(0), torch.logspace(0, -2, 600, dtype=torch.float64)
    sides = [
        (torch.randn(2000, 600, generator=rng, dtype=torch.float64) * spectrum) @ rotation(seed, 600) + 0.01 * seed
        for seed in (1, 2)
    ]
    pair = [part for side in sides for part in (side.mean(dim=0), torch.cov(side.T))]
    theirs = fid_statistics_to_metric(
        {"mu": pair[0].numpy(), "sigma": pair[1].numpy()}, {"mu": pair[2].numpy(), "sigma": pair[3].numpy()}, False
    )
    assert frechet_distance(*pair) == pytest.approx(by_sqrtm(*pair), rel=1e-10)
    assert frechet_distance(*pair) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-10)


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


@pytest.mark.parametrize("dim", [3, 40, 1100])
def test_moments_of_many_features_are_whole_and_symmetric(dim):
    features = torch.randn(30, dim, generator=torch.Generator().manual_seed(0))
    covariance = moments(features).covariance
    assert torch.equal(covariance, covariance.mT)
    torch.testing.assert_close(covariance, torch.cov(features.double().mT), rtol=0, atol=1e-13)


def test_more_features_than_a_block_holds():
    """Every block of the triangular product counts: against SciPy, with 5 blocks."""
    pair = (*gaussian(0, 70), *gaussian(1, 70))
    whole = frechet_distance(*pair)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frechet, "BLOCK", 16)
        assert frechet_distance(*pair) == pytest.approx(whole, rel=1e-13)
    assert whole == pytest.approx(by_sqrtm(*pair), rel=1e-8)


@pytest.mark.parametrize("decades", [0, 3, 6])
def test_both_routes_give_the_same_value(decades, monkeypatch):
    """Eigenvalues where their rounding does not show, singular values else: no step between them."""
    scales = torch.logspace(0, -decades, 50, dtype=torch.float64)
    first, second = (rotation(seed, 50) * scales for seed in (0, 1))
    pair = torch.zeros(50), first @ first.mT, torch.zeros(50), second @ second.mT
    values = [frechet_distance(*pair)]
    for limit in (math.inf, -1.0):
        monkeypatch.setattr(frechet, "ROUNDING_LIMIT", limit)
        values.append(frechet_distance(*pair))
    monkeypatch.setattr(frechet, "SMALLEST_PIVOT", math.inf)  # no Cholesky factor
    values.append(frechet_distance(*pair))
    assert values == pytest.approx([values[0]] * 4, rel=1e-10)


def test_a_feature_that_is_repeated_or_constant_counts_as_it_should():
    """Repeating all features doubles the distance, a constant one adds the square of its shift."""
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(300, 6, generator=rng), 2 * torch.randn(200, 6, generator=rng)
    value = fd_of(first, second)
    assert fd_of(first.repeat(1, 2), second.repeat(1, 2)) == pytest.approx(2 * value, rel=1e-10)
    padded = [torch.cat([part, torch.full((len(part), 1), c)], dim=1) for part, c in ((first, 3.0), (second, 5.0))]
    assert fd_of(*padded) == pytest.approx(value + 4, rel=1e-10)


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


@pytest.mark.parametrize(("n", "dim"), [(7, 3), (30, 6), (11, 10), (10, 10), (8, 12), (4, 2)])
def test_the_jackknife_is_that_of_distances_computed_anew(n, dim):
    """Each sample left out in turn; and each pair of the fixed order for the second differences."""
    features = 1 + torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    mean, covariance = gaussian(2, dim)
    without = [
        frechet_distance(*moments(torch.cat([features[:i], features[i + 1 :]])), mean, covariance) for i in range(n)
    ]
    found = frechet_jackknife.jackknife(features, Moments(mean, covariance))
    whole = frechet_distance(*moments(features), mean, covariance)
    assert found.value == pytest.approx(whole, rel=1e-10)
    variance = (n - 1) / n * sum((value - np.mean(without)) ** 2 for value in without)
    assert found.first + 2 * found.second == pytest.approx(variance, rel=1e-5)
    if n > dim + 2:  # a pair less must not lower the rank, or the last digits of 1 − leverage decide
        order = frechet_jackknife.permutation(n, "frechet-jackknife").tolist()
        squares = []
        for i, j in zip(order[::2], order[1::2], strict=False):
            rest = features[[k for k in range(n) if k not in (i, j)]]
            both = frechet_distance(*moments(rest), mean, covariance)
            squares.append((n * whole - (n - 1) * (without[i] + without[j]) + (n - 2) * both) ** 2)
        assert found.bias == pytest.approx((n - 1) * (np.mean(without) - whole), rel=1e-5)
        assert found.second == pytest.approx(min((1 - dim / (2 * n)) * np.mean(squares) / 2, variance / 2), rel=1e-4)


@pytest.mark.parametrize(
    ("n", "dim", "mean", "scale"),
    [(60, 4, 0.3, 1.5), (400, 8, 0.0, 1.0), (400, 8, 0.3, 0.7), (100, 32, 0.0, 1.3), (50, 40, 0.0, 1.0)],
)
def test_standard_error_is_the_spread_over_draws(n, dim, mean, scale):
    """Also where the distributions are equal and the influence of every sample vanishes."""
    reference = known(torch.zeros(dim), torch.diag(torch.linspace(0.3, 2, dim)))

    def draw(rng):
        return mean + scale * torch.randn(n, dim, generator=rng) * torch.linspace(0.3, 2, dim).sqrt()

    _, spread, error = spread_of(FD, draw, reference, 150)
    assert 0.8 < error / spread < 1.25


@pytest.mark.parametrize(("dim", "mean", "scale"), [(2, 0.0, 1.0), (2, 0.05, 1.05), (2, 0.3, 1.3), (8, 0.0, 1.0)])
def test_intervals_hold_the_mean_of_all_draws_in_95_percent(dim, mean, scale):
    """Less 2.5 standard deviations of so few draws: also of few features, where a small distance has a small error."""
    reference = known(torch.zeros(dim), torch.eye(dim))
    draws = (mean + scale * torch.randn(300, dim, generator=torch.Generator().manual_seed(i)) for i in range(400))
    found = [FD.estimate(Comparison(draw, reference)) for draw in draws]
    middle = np.mean([each.value for each in found])
    held = [each.interval[0] <= middle <= each.interval[1] for each in found]
    assert np.mean(held) >= 0.95 - 2.5 * math.sqrt(0.05 * 0.95 / 400)


def test_the_interval_of_a_large_distance_is_symmetric_and_that_of_none_is_not():
    assert ratio_interval(100.0, 1.0) == pytest.approx((100 - Z95, 100 + Z95), abs=0.03)
    assert ratio_interval(0.0, 1.0) == (0.0, Z95)
    assert ratio_interval(0.0, 0.0) == (0.0, 0.0)
    low, high = ratio_interval(1.0, 0.5)
    assert low * high == pytest.approx(1.0)
    assert ratio_interval(1e-9, 1.0)[1] == pytest.approx(Z95)


@pytest.mark.parametrize("per_feature", [1.1, 1.5, 2.0])
def test_standard_error_is_not_too_small_against_a_reference_of_few_samples(per_feature):
    """The covariances then differ: 2 reference samples for each of 64 features, and as few generated ones."""
    reference = torch.randn(128, 64, generator=torch.Generator().manual_seed(10**6))
    count = int(64 * per_feature)
    _, spread, error = spread_of(FD, lambda rng: torch.randn(count, 64, generator=rng), reference, 300)
    assert 0.93 < error / spread < 1.2


def test_standard_error_holds_for_features_that_are_not_gaussian():
    reference = known(torch.full((16,), 0.5), torch.eye(16) + 0.3)

    def draw(rng):
        return (torch.randn(200, 16, generator=rng) + torch.randn(200, 1, generator=rng)).relu()

    _, spread, error = spread_of(FD, draw, reference, 150)
    assert 0.8 < error / spread < 1.25


def test_standard_error_is_not_too_small_with_fewer_samples_than_features():
    reference = known(torch.zeros(40), torch.eye(40))
    _, spread, error = spread_of(FD, lambda rng: 2 * torch.randn(25, 40, generator=rng), reference, 100)
    assert 0.85 < error / spread < 1.5


def test_estimates_say_what_they_are():
    rng = torch.Generator().manual_seed(0)
    many, few, three = (FD.estimate(Comparison(torch.randn(n, 8, generator=rng), known(torch.zeros(8), torch.eye(8))))
                        for n in (50, 8, 3))  # fmt: skip
    assert (many.method, many.note) == ("delete-one jackknife, corrected for its second order", "")
    assert few.method == "delete-one jackknife"
    assert few.note == "strongly biased: no more samples than the 8 feature dimensions"
    assert (three.standard_error, three.method) == (None, "delete-one jackknife")


@pytest.mark.parametrize("constant", ["generated", "reference"])
def test_collapsed_features_have_finite_errors(constant):
    varied, same = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.ones(20, 3)
    estimate = FD.estimate(Comparison(*((same, varied) if constant == "generated" else (varied, same))))
    assert math.isfinite(estimate.value)
    assert math.isfinite(estimate.standard_error)


def test_reference_moments_may_be_of_single_precision():
    features = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    single = MomentsReference(Moments(torch.zeros(4), torch.eye(4)), 50)
    assert FD.estimate(Comparison(features, single)).value == pytest.approx(
        FD.estimate(Comparison(features, known(torch.zeros(4), torch.eye(4)))).value, rel=1e-14
    )


def test_scores_are_named_after_the_features():
    assert [metric.score_name("inception") for metric in (FD, FD_INFINITY, SFID)] == ["fid", "fid_infinity", "sfid"]
    others = [metric.score_name("inception-clean") for metric in (FD, FD_INFINITY, SFID)]
    assert others == ["fd_inception-clean", "fd_infinity_inception-clean", "sfd_inception-clean"]
    assert (FD.output, SFID.output) == ("features", "spatial")


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


def test_more_features_than_memory_holds_are_refused_in_words():
    """Those of 256×256 pixels in colour."""
    with pytest.raises(TrilemmaError, match=r"196,608 features needs 1728 GiB of memory, and \d+ are free"):
        moments(torch.zeros(2, 256 * 256 * 3))
