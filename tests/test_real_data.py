"""Held-out real data as a model."""

from __future__ import annotations

import pytest
import torch
from exact import rng
from models import IMAGES, POINTS

from baselines.real_data import RealData
from trilemma_bench.contracts import FiniteSource, Split
from trilemma_bench.errors import TrilemmaError


def test_takes_what_it_was_given():
    images = torch.randint(256, (10, 1, 8, 8), dtype=torch.uint8)
    model = RealData(IMAGES)
    model.prepare(Split(images), "test")
    assert isinstance(model, FiniteSource)
    assert model.size() == 10
    assert model.network is None
    assert torch.equal(model.take(torch.tensor([3, 0])), images[[3, 0]])


def test_draws_from_its_samples():
    points = torch.arange(10.0).view(5, 2)
    model = RealData(POINTS)
    model.prepare(Split(points), "test")
    drawn = model.sample(100, rng())
    assert set(map(tuple, drawn.tolist())) == set(map(tuple, points.tolist()))


def test_without_samples():
    with pytest.raises(TrilemmaError, match="no samples yet"):
        RealData(POINTS).size()
