"""Pairs of samples with bounds on how far apart they are, and what follows for the nearest of each sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Pairs of samples (int64 P each) and bounds on their distances (float64 P each)."""

    first: Tensor
    second: Tensor
    lower: Tensor
    upper: Tensor

    def at(self, chosen: Tensor) -> Pairs:
        """Some of them, by index or by bool mask."""
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero()[:, 0]  # once, and not for each column: a device is waited for
        return Pairs(*(column[chosen] for column in self))


def no_pairs(device: torch.device) -> Pairs:
    index = torch.zeros(0, dtype=torch.int64, device=device)
    return Pairs(index, index, index.double(), index.double())


def join(parts: list[Pairs]) -> Pairs:
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def near(pairs: Pairs, nearest: Tensor) -> Pairs:
    """The pairs that can still be among the nearest of one of the two."""
    radius = nearest[:, -1]
    return pairs.at(pairs.lower <= torch.maximum(radius[pairs.first], radius[pairs.second]))


def nearest_of_each(pairs: Pairs, values: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """The others of the k smallest of each sample's values, one a pair, and these: N×k as `nearest`.

    0 and infinite where there are fewer.
    """
    owner, pair, rank = first_of_each(pairs, values, nearest.shape[1])
    found = torch.full_like(nearest, torch.inf)
    found[owner, rank] = values[pair]
    index = torch.zeros_like(nearest, dtype=torch.int64)
    index[owner, rank] = pairs.first[pair] + pairs.second[pair] - owner
    return index, found


def first_of_each(pairs: Pairs, values: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k pairs of each sample with the smallest values: samples, indices of the pairs, and ranks."""
    owner, order, rank = _ranked(torch.cat([pairs.first, pairs.second]), values.repeat(2))
    chosen = (rank < k).nonzero()[:, 0]
    return owner[chosen], order[chosen] % len(values), rank[chosen]


def maybe_from(first: int, pairs: Pairs, nearest: Tensor) -> Tensor:
    """Which of the pairs may be among the k nearest of one of the two, at the rank `first` (from 0) or later: bool P.

    No more than `first` pairs have a lower bound under the one of that rank: those whose upper bound is under it, too,
    stay before it at any distance within their bounds.
    """
    least, greatest = nearest_of_each(pairs, pairs.lower, nearest)[1][:, first], nearest[:, -1]
    chosen = [(least[i] <= pairs.upper) & (pairs.lower <= greatest[i]) for i in (pairs.first, pairs.second)]
    return chosen[0] | chosen[1]


def undecided(pairs: Pairs, radii: Tensor) -> Tensor:
    """Indices of the pairs whose bounds enclose one of their radii, R×P; where both are one, that is the distance."""
    enclosed = (pairs.lower <= radii) & (radii <= pairs.upper) & (pairs.lower < pairs.upper)
    return enclosed.any(dim=0).nonzero()[:, 0]


def nearest_of_both(nearest: Tensor, others: Tensor) -> Tensor:
    """The k smallest of each row of `nearest`, N×k, and of `others`, N×any, ascending."""
    return torch.cat([nearest, others], dim=1).topk(nearest.shape[1], dim=1, largest=False).values


def _ranked(owner: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts by owner, then by value: the sorted owners, the order, and the rank of each among its owner's."""
    order = value.argsort()
    order = order[owner[order].argsort(stable=True)]
    owner = owner[order]
    return owner, order, torch.arange(len(owner), device=owner.device) - torch.searchsorted(owner, owner)
