"""Rows that are equal to the last bit, as a collapsed model draws them.

No more than a few of them need to be looked at, and among many, nothing would tell their distances apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW_COLUMNS = 32  # that mostly tell all rows apart
ROWS_AT_ONCE = 256


def groups_of(rows: Tensor) -> Tensor:
    """A number for each row of N×D floats, the same for equal rows only: int64 N."""
    some = torch.linspace(0, rows.shape[1] - 1, min(FEW_COLUMNS, rows.shape[1]), device=rows.device).long().unique()
    for columns in (rows[:, some], rows):
        first, group = _alike(_hashes(columns))
        if len(first) == len(rows):
            break
    copies = (first[group] != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
    for part in copies.split(ROWS_AT_ONCE):
        other = part[(rows[part] != rows[first[group[part]]]).any(dim=1)]
        group[other] = len(rows) + other  # of another row's hash by chance
    return group


def with_few_copies(group: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """(the first `most` rows of each group, ascending; where each of all rows, or a copy of it, is among them)."""
    order = group.argsort(stable=True)
    ordered = group[order]
    rank = torch.empty_like(order)
    begins = torch.searchsorted(ordered, ordered)
    rank[order] = torch.arange(len(order), device=order.device) - begins
    kept = (rank < most).nonzero()[:, 0]
    place = torch.zeros_like(order)
    place[kept] = torch.arange(len(kept), device=order.device)
    first = torch.empty_like(order)
    first[order] = order[begins]
    return kept, torch.where(rank < most, place, place[first])


def distinct(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(the rows without their later copies, where they are among all, where each of all is among them)."""
    kept, place = with_few_copies(groups_of(rows), 1)
    return rows if len(kept) == len(rows) else rows[kept], kept, place


def _hashes(rows: Tensor) -> Tensor:
    """int64 N, equal for equal rows: sums in whole numbers do not depend on their order."""
    rng = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=rng).mul(2).add(1).to(rows.device)
    whole = torch.int64 if rows.element_size() == 8 else torch.int32 if rows.element_size() == 4 else torch.int16
    return torch.cat([
        (part.contiguous().view(whole).long() * factors).sum(dim=1) for part in rows.split(ROWS_AT_ONCE)
    ])  # fmt: skip


def _alike(hashes: Tensor) -> tuple[Tensor, Tensor]:
    """(the first row of each group, the group of each row)."""
    values, group = hashes.unique(return_inverse=True)
    first = torch.full_like(values, len(hashes))
    first.scatter_reduce_(0, group, torch.arange(len(hashes), device=hashes.device), "amin")
    return first, group
