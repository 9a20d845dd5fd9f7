"""Authenticity and the nearest training samples: known answers, copies, ties, and brute force as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from inputs import blobs, fails
from PIL import Image

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.images import FRAME, save_pairs
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.memorisation import authenticity, nearest_pairs
from trilemma_bench.metrics.reference import MomentsReference, Reference
from trilemma_bench.metrics.search import bounding
from trilemma_bench.metrics.search.distances import SINGLE, all_distances


def score(generated: torch.Tensor, training: torch.Tensor):
    return authenticity(Comparison(generated, torch.zeros(2, generated.shape[1]), training=lambda: Reference(training)))


def test_by_hand():
    training = torch.tensor([[0.0], [1.0], [10.0]])  # each one's nearest other is at 1, 1 and 9
    generated = torch.tensor([[-0.5], [-1.0], [-1.5], [5.0], [2.5], [40.0]])
    assert score(generated, training).value == pytest.approx(4 / 6)  # −1.5, 5, 2.5 and 40


def test_a_copied_training_set_is_not_authentic():
    training = blobs(0, 300, 8)
    assert score(training, training).value == 0.0
    assert score(training + 1e-6, training).value == 0.0
    assert score(training[:1].repeat(50, 1), training).value == 0.0


def test_samples_far_from_all_data_are_authentic():
    assert score(blobs(1, 100, 8) + 100, blobs(0, 300, 8)).value == 1.0


@pytest.mark.parametrize(
    ("dim", "mutual"),
    [(1, 2 / 3), (2, 6 * math.pi / (8 * math.pi + 3 * math.sqrt(3)))],  # Clark & Evans 1955
)
def test_new_samples_of_the_distribution_score_the_chance_that_they_are_nobodys_nearest(dim, mutual):
    training = torch.rand(4000, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fresh = torch.rand(4000, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    estimate = score(fresh, training)
    assert estimate.value == pytest.approx(1 - mutual, abs=4 * estimate.standard_error)


@pytest.mark.parametrize("dim", [5, 64])
def test_new_samples_score_as_the_training_samples_do_among_themselves(dim):
    training = blobs(0, 2000, dim)
    distances = torch.cdist(training, training).fill_diagonal_(torch.inf)
    nearest = distances.argmin(dim=1)
    mutual = float((nearest[nearest] == torch.arange(2000)).double().mean())
    estimate = score(blobs(1, 2000, dim), training)
    assert estimate.value == pytest.approx(1 - mutual, abs=6 * estimate.standard_error)  # mutual has an error too


def test_half_copied_scores_half_of_what_new_samples_do():
    training, fresh = blobs(0, 1000, 5), blobs(1, 500, 5)
    mixed = score(torch.cat([fresh, training[:500]]), training).value
    assert mixed == pytest.approx(score(fresh, training).value / 2)


def test_the_reference_stands_in_for_training():
    generated, reference = blobs(1, 50, 4), blobs(0, 60, 4)
    assert authenticity(Comparison(generated, reference)).value == score(generated, reference).value
    assert authenticity(Comparison(reference, reference)).value == 0.0


def test_standard_error_is_the_spread_over_draws():
    training = blobs(1000, 300, 3)
    draws = [score(blobs(seed, 200, 3), training) for seed in range(150)]
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert 0.8 < np.mean([draw.standard_error for draw in draws]) / spread < 1.25
    assert all(draw.interval[0] < draw.value < draw.interval[1] for draw in draws)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("block", [7, 64, 500])
def test_nearest_pairs_are_those_of_brute_force(block, offset):
    generated, training = blobs(1, 150, 6) + offset, blobs(0, 210, 6) + offset
    brute = (generated.double()[:, None] - training.double()[None]).norm(dim=2)
    pairs = nearest_pairs(generated, training, block)
    assert pairs.training.tolist() == brute.argmin(dim=1).tolist()
    torch.testing.assert_close(pairs.distances, brute.min(dim=1).values, rtol=SINGLE, atol=0)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_of_equally_near_training_samples_the_first_counts(block):
    training = torch.tensor([[3.0], [1.0], [-1.0], [1.0], [5.0]])
    pairs = nearest_pairs(torch.tensor([[0.0], [1.0], [4.0]]), training, block)
    assert pairs.training.tolist() == [1, 1, 0]
    assert pairs.distances.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("block", [7, 500])
def test_of_codes_that_are_all_equally_far_apart_only_copies_are_measured(block, monkeypatch):
    codes = torch.eye(60)
    points = [tuple(place) for place in torch.randint(4, (40, 3), generator=torch.Generator().manual_seed(0)).tolist()]
    measured, direct = [], bounding.direct_distances
    monkeypatch.setattr(
        bounding, "direct_distances", lambda x, y, i, j: measured.append(direct(x, y, i, j)) or measured[-1]
    )
    assert nearest_pairs(codes[:20], codes[30:], block).training.tolist() == [0] * 20
    found = nearest_pairs(torch.tensor(points[:20]).float(), torch.tensor(points[20:]).float(), block)
    for one, nearest, distance in zip(points[:20], found.training.tolist(), found.distances.tolist(), strict=True):
        distances = [math.dist(one, other) for other in points[20:]]
        assert nearest == distances.index(min(distances))
        assert distance == pytest.approx(min(distances), rel=SINGLE)
    assert not any(distances.any() for distances in measured)


@pytest.mark.parametrize("width", [1e-6, 1e-2])
def test_nearest_pairs_of_a_collapsed_model_are_those_of_brute_force(width):
    """Clusters that products around the origin cannot tell apart, copies, and clusters of two sizes."""
    training = blobs(0, 4, 40).repeat(50, 1) + width * blobs(1, 200, 40)
    generated = torch.cat([training[::3].repeat(2, 1), training[:70] + 1e-3 * width * blobs(2, 70, 40)])
    distances = all_distances(generated, training)
    for block in (16, None):
        pairs = nearest_pairs(generated, training, block)
        assert torch.equal(pairs.distances, distances.min(dim=1).values)
        equal = distances == pairs.distances[:, None]
        assert torch.equal(pairs.training, torch.where(equal, torch.arange(200), 200).amin(dim=1))


def test_nearest_pairs_of_huge_features_are_refused():
    with pytest.raises(TrilemmaError, match="scale them down"):
        nearest_pairs(blobs(0, 5, 2).double() * 1e160, blobs(1, 6, 2).double() * 1e160)


def test_blocks_do_not_change_ties_of_duplicates():
    training = blobs(0, 40, 5).repeat(3, 1)
    pairs = [nearest_pairs(training + 1e4, training + 1e4, block) for block in (17, 50, 1000)]
    for found in pairs:
        assert found.training.tolist() == 3 * list(range(40))
        assert found.distances.tolist() == [0.0] * 120


def test_the_nearest_come_first():
    training = blobs(0, 100, 4)
    generated = blobs(1, 50, 4)
    generated[[31, 7]] = training[[64, 12]] + torch.tensor([[1e-3], [1e-5]])
    pairs = nearest_pairs(generated, training).nearest(5)
    assert pairs.generated[:2].tolist() == [7, 31]
    assert pairs.training[:2].tolist() == [12, 64]
    assert len(pairs.distances) == 5
    assert pairs.distances.diff().min() >= 0
    assert len(nearest_pairs(generated, training).nearest(99).generated) == 50


def test_hostile_input():
    x = blobs(0, 5, 3)
    with fails("authenticity needs at least 2 training samples, got 1"):
        score(x, x[:1])
    with fails("generated samples have 3 features and training samples 2"):
        score(x, blobs(1, 5, 2))
    with fails("mean and covariance only"):
        authenticity(Comparison(x, MomentsReference(Reference(x).moments, 5)))


def test_pairs_are_drawn_one_above_the_other(tmp_path):
    above, below = torch.zeros(5, 1, 3, 2, dtype=torch.uint8), torch.full((5, 1, 3, 2), 200, dtype=torch.uint8)
    save_pairs(above, below, tmp_path / "pairs.png", pixels=1)
    pixels = np.asarray(Image.open(tmp_path / "pairs.png"))  # 2×2 of the 5 pairs, a line of grey around each image
    pair = np.array(3 * [[0, 0, FRAME]] + [3 * [FRAME]] + 3 * [[200, 200, FRAME]] + [3 * [FRAME]])
    assert (pixels == np.tile(pair, (2, 2))).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_on_cuda():
    generated, training = blobs(1, 700, 16), blobs(0, 900, 16)
    cpu, cuda = nearest_pairs(generated, training), nearest_pairs(generated.cuda(), training.cuda())
    assert cuda.training.tolist() == cpu.training.tolist()
    assert score(generated.cuda(), training.cuda()).value == score(generated, training).value
