"""The Inception score: known answers, torch-fidelity's convention, its error against the spread over draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inputs import fails, no_reference
from torch_fidelity.metric_isc import isc_features_to_metric

from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.inception_score import INCEPTION_SCORE, inception_score


def score(logits: torch.Tensor):
    return inception_score(Comparison(logits, no_reference))


def logits(count: int, classes: int = 20, scale: float = 2.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


def test_images_that_say_nothing_score_one():
    assert score(torch.zeros(30, 7)).value == pytest.approx(1.0, abs=1e-12)
    assert score(torch.tensor([[5.0, -1.0, 2.0]]).repeat(30, 1)).value == pytest.approx(1.0, abs=1e-12)


def test_sure_of_equally_many_classes_in_every_split_scores_their_number():
    sure = 1000 * torch.eye(4)[torch.arange(4000) % 4]
    in_splits = np.array_split(np.random.RandomState(2020).permutation(4000), 10)
    expected = []
    for rows in in_splits:
        share = np.bincount(rows % 4, minlength=4) / len(rows)
        expected.append(np.exp(-(share * np.log(share)).sum()))
    assert score(sure).value == pytest.approx(np.mean(expected), rel=1e-12)
    assert score(sure).value == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("count", [10, 25, 999, 1000])
def test_equals_torch_fidelity(count):
    given = logits(count, classes=1008)
    assert score(given).value == pytest.approx(isc_features_to_metric(given)["inception_score_mean"], rel=1e-9)


def test_logits_far_apart_do_not_overflow():
    sure = torch.eye(3)[torch.arange(100) % 2]  # the third class has no share at all
    assert score(3e38 * sure).value == pytest.approx(score(1000 * sure).value, rel=1e-12)


@pytest.mark.parametrize(("count", "classes", "scale"), [(1000, 20, 2.0), (20, 10, 2.0), (200, 400, 6.0)])
def test_standard_error_is_the_spread_over_draws(count, classes, scale):
    """Also with few images for each class in a split."""
    draws = [score(logits(count, classes, scale, seed)) for seed in range(150)]
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert 0.8 < np.mean([draw.standard_error for draw in draws]) / spread < 1.25


def test_the_error_is_that_of_a_mean_of_ten_splits():
    given = logits(1000, classes=1008)
    found = score(given)
    assert found.standard_error == pytest.approx(isc_features_to_metric(given)["inception_score_std"] / 3)  # √(10 − 1)
    assert found.method == "Student's t over the 10 splits"
    half = 2.262157 * found.standard_error  # t of 9 degrees of freedom
    assert found.interval == pytest.approx((found.value - half, found.value + half))


def test_the_interval_ends_where_the_score_does():
    given = torch.zeros(20, 10)
    given[0, 0] = 50.0  # nine splits say nothing
    found = score(given)
    assert found.standard_error == pytest.approx(found.value - 1)
    assert found.interval == pytest.approx((1.0, 1 + 3.262157 * found.standard_error))


def test_few_samples():
    with fails("inception_score averages over 10 splits and needs as many samples, got 9"):
        score(logits(9))
    assert score(logits(10)).value == pytest.approx(1.0)  # one image a split: no image differs from the mean
    assert score(logits(19)).standard_error is None
    assert score(logits(19)).interval is None


def test_reads_logits():
    assert INCEPTION_SCORE.output == "logits"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_cuda():
    given = logits(1000, classes=1008)
    cpu, cuda = score(given), score(given.cuda())
    assert cuda.value == pytest.approx(cpu.value, rel=1e-10)
    assert cuda.standard_error == pytest.approx(cpu.standard_error, rel=1e-10)
