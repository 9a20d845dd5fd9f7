"""Copies among samples: found exactly, looked at a few times only, and no answer changes."""

from __future__ import annotations

import pytest
import torch

from trilemma_bench.metrics import search
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.neighbours import COVERAGE, DENSITY, PRECISION, RECALL
from trilemma_bench.metrics.search import bounding, copies
from trilemma_bench.metrics.search.copies import groups_of, with_few_copies
from trilemma_bench.metrics.search.distances import all_distances


def repeated(count=60, kinds=7, dim=40, dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(kinds, dim, generator=rng, dtype=dtype)
    return rows[torch.randint(kinds, (count,), generator=rng)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_are_those_of_equal_rows(dtype):
    rows = repeated(dtype=dtype)
    same = (rows[:, None] == rows).all(dim=2)
    group = groups_of(rows)
    assert torch.equal(group[:, None] == group, same)


def test_rows_that_differ_in_one_late_coordinate_are_no_copies():
    rows = torch.zeros(3, 100)
    rows[1, 51] = 1e-30
    assert len(groups_of(rows).unique()) == 2


def test_rows_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(copies, "_hashes", lambda rows: torch.zeros(len(rows), dtype=torch.int64))
    rows = torch.eye(4).repeat(2, 1)
    group = groups_of(rows)
    same = (rows[:, None] == rows).all(dim=2)
    assert not (group[:, None] == group)[~same].any()


def test_of_each_group_the_first_few_are_kept_and_all_have_a_place_among_them():
    rows = repeated()
    kept, place = with_few_copies(groups_of(rows), 3)
    assert torch.equal(rows[kept][place], rows)
    assert kept.tolist() == sorted(kept.tolist())
    _, counts = rows[kept].unique(dim=0, return_counts=True)
    assert counts.max() == 3
    assert torch.equal(kept[place[kept]], kept)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_distances_among_copies_are_those_of_all_pairs(k):
    rows = repeated()
    expected = all_distances(rows, rows).fill_diagonal_(torch.inf).sort(dim=1).values[:, :k]
    assert torch.equal(search.nearest_distances(rows, k), expected)
    index, farthest = search.nearest_neighbours(rows, k, 0)
    assert torch.equal(farthest, expected[:, -1:])
    assert torch.equal(all_distances(rows, rows).gather(1, index).sort(dim=1).values, expected)
    assert (index != torch.arange(len(rows))[:, None]).all()


@pytest.mark.parametrize("kinds", [1, 10])
def test_a_collapsed_model_is_not_measured_pair_by_pair(kinds, monkeypatch):
    """2000 samples of few kinds: brute force by single pairs would be 2,000,000 of them."""
    measured = []
    direct = bounding.Search.direct
    monkeypatch.setattr(bounding.Search, "direct", lambda self, i, j: measured.append(len(i)) or direct(self, i, j))
    real = torch.randn(2000, 32, generator=torch.Generator().manual_seed(0))
    generated = real[:kinds].repeat(2000 // kinds, 1)
    comparison = Comparison(generated, real)
    found = [metric.estimate(comparison).value for metric in (PRECISION, RECALL, DENSITY, COVERAGE)]
    assert found[0] == 1
    assert found[1] == pytest.approx(kinds / 2000)
    assert found[3] >= kinds / 2000
    assert sum(measured) < 100_000


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("kinds", [1, 2, 7])
def test_nor_is_one_that_adds_noise(kinds, width, monkeypatch):
    """Clusters so tight that products around the middle of all have lost what is inside of them."""
    measured = []
    direct = torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda x, y, **k: measured.append(len(x) * y.shape[-2]) or direct(x, y, **k))
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(kinds, 600, generator=rng)[torch.randint(kinds, (4000,), generator=rng)]
    generated, reference = (points + width * torch.randn(4000, 600, generator=rng)).chunk(2)
    found = [metric.estimate(Comparison(generated, reference)).value for metric in (PRECISION, RECALL)]
    assert all(0.4 < value < 0.8 for value in found)
    assert sum(measured) < 0.2 * (2 * 2000**2)  # of what brute force measures
