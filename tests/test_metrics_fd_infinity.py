"""The Fréchet distance of infinitely many samples: less biased, and open about where it is too low."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from gaussians import known, spread_of
from inputs import fails

from trilemma_bench.metrics import fd_infinity, frechet_jackknife
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.fd_infinity import FD_INFINITY, intercept_weights, nested_moments, subset_sizes
from trilemma_bench.metrics.frechet import FD, moments
from trilemma_bench.statistics import Z95


def test_nested_moments_are_those_of_the_subsets():
    features = 50 + torch.randn(97, 5, generator=torch.Generator().manual_seed(0))
    order = frechet_jackknife.permutation(97, "fd_infinity")
    for size, found in zip((13, 60, 97), nested_moments(features, [13, 60, 97]), strict=True):
        expected = moments(features[order[:size]])
        torch.testing.assert_close(found.mean, expected.mean, rtol=1e-13, atol=0)
        torch.testing.assert_close(found.covariance, expected.covariance, rtol=0, atol=1e-12)


def test_a_line_is_extrapolated_exactly():
    sizes = subset_sizes(5000, 16)
    assert (sizes[0], sizes[-1], len(sizes)) == (500, 5000, 15)
    assert subset_sizes(1000, 100)[0] == 200
    line = 3 + 70 / torch.tensor(sizes, dtype=torch.float64)
    assert float(intercept_weights(sizes) @ line) == pytest.approx(3, abs=1e-12)


@pytest.mark.parametrize(("mean", "scale"), [(0.2, 1.4), (0.0, 1.0)])
def test_infinity_is_less_biased_than_the_plain_distance(mean, scale):
    """Gaussians with a known distance, 30 samples a feature, 100 draws; the error is the spread over these."""
    dim, n = 8, 240
    reference = known(torch.zeros(dim), torch.eye(dim))
    truth = dim * (mean**2 + (scale - 1) ** 2)

    def draw(rng):
        return mean + scale * torch.randn(n, dim, generator=rng)

    value, spread, error = spread_of(FD_INFINITY, draw, reference, 100)
    plain, plain_spread, _ = spread_of(FD, draw, reference, 100)
    assert value == pytest.approx(truth, abs=3 * spread / 10)
    assert plain > truth + 6 * plain_spread / 10
    assert 0.8 < error / spread < 1.25


def test_the_line_and_the_jackknife_together_know_the_second_order():
    """Of distances c + a/n + b/n²."""
    sizes, (c, a, b) = subset_sizes(500, 16), (3.0, 70.0, 2000.0)
    plain, without_one = (c + a / n + b / n**2 for n in (500, 499))
    n = torch.tensor(sizes, dtype=torch.float64)
    weights = intercept_weights(sizes)
    line = float(weights @ (c + a / n + b / n**2))
    known_parts = frechet_jackknife.Jackknife(plain, 499 * (without_one - plain), 1.0, 1.0, "")
    assert line < c - 0.01
    assert fd_infinity._without_curvature(line, known_parts, sizes, weights)[0] == pytest.approx(c, abs=1e-9)


@pytest.mark.parametrize(("per_feature", "dim", "scale"), [(4, 32, 1.0), (10, 64, 1.0), (10, 64, 1.2)])
def test_infinity_of_few_samples_is_too_low_and_its_interval_is_not(per_feature, dim, scale):
    reference, truth = known(torch.zeros(dim), torch.eye(dim)), dim * (scale - 1) ** 2
    found = [
        FD_INFINITY.estimate(Comparison(scale * torch.randn(per_feature * dim, dim, generator=rng), reference))
        for rng in (torch.Generator().manual_seed(seed) for seed in range(60))
    ]
    values = np.array([each.value for each in found])
    assert values.mean() < truth - 3 * values.std() / 60**0.5
    held = [each.interval[0] <= truth <= each.interval[1] for each in found]
    assert np.mean(held) >= 0.95 - 2.5 * math.sqrt(0.05 * 0.95 / 60)


def test_infinity_says_where_it_is_too_low_by_more_than_its_error():
    reference = known(torch.zeros(64), torch.eye(64))
    few, many = (
        FD_INFINITY.estimate(Comparison(torch.randn(n, 64, generator=torch.Generator().manual_seed(0)), reference))
        for n in (640, 12_800)
    )
    assert re.fullmatch(r"too low by about [2-9] standard errors: too few samples for each feature", few.note)
    assert few.interval[1] > few.value + 2 * Z95 * few.standard_error
    assert not many.note


def test_infinity_of_a_collapsed_model_is_the_plain_distance():
    """All samples alike: no bias, no error."""
    reference = known(torch.zeros(3), torch.eye(3))
    found = FD_INFINITY.estimate(Comparison(torch.ones(50, 3), reference))
    assert (found.value, *found.interval) == pytest.approx((6.0, 6.0, 6.0), abs=1e-9)
    assert not found.note


def test_infinity_of_too_few_samples_says_how_many_are_needed():
    reference = known(torch.zeros(16), torch.eye(16))
    with fails("fd_infinity needs at least 64 samples for 16 features", "got 63"):
        FD_INFINITY.estimate(Comparison(torch.randn(63, 16, generator=torch.Generator().manual_seed(0)), reference))
    with fails("at least 40 samples", "got 39"):
        subset_sizes(39, 2)
