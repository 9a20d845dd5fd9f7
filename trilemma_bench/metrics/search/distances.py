"""What a distance between two samples is: |x − y|, summed in float64 in one order, to the precision of float32.

Features are float32, and so are the distances that others give of them: what differs by less is as far away. The ties
that a definition knows of (balls are closed, or open) so remain ties, where the last bits of long sums would break most
of them at random: of D features, a sum's error is at the edge between two roundings once in some 2²⁹ / D times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SINGLE = 2.0**-24  # relative error of rounding to float32's precision, above 2⁻¹⁰²²
DROPPED = 29  # bits of float64's significand that float32's has not
DIRECT = 2**18  # coordinates of single pairs' either side held at a time, of float32 6 MiB in all
DEVICE_DIRECT = 2**23  # 192 MiB: a device needs many at a time to be busy


def in_single(distances: Tensor) -> Tensor:
    """Distances, float64, rounded to the 24 bits of float32, beyond its range too: the greater of two stays no less."""
    return distances.view(torch.int64).add(2 ** (DROPPED - 1)).bitwise_and_(-(2**DROPPED)).view(torch.float64)


def direct_distances(x: Tensor, y: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Distances of single pairs, float64 P, for x: N×D, y: M×D and indices int64 P of both."""
    size = max(1, (DIRECT if x.device.type == "cpu" else DEVICE_DIRECT) // x.shape[1])
    rows, others = _DoubleRows(x), _DoubleRows(y)
    result = torch.empty(len(first), dtype=torch.float64, device=x.device)
    for i, j, found in zip(first.split(size), second.split(size), result.split(size), strict=True):
        found.copy_(_direct(rows(i)[:, None], others(j)[:, None])[:, 0, 0])
    return in_single(result)


def all_distances(x: Tensor, y: Tensor) -> Tensor:
    """The distances of all pairs of x, N×D, and y, M×D: float64 N×M, each as `direct_distances` has it."""
    return in_single(_direct(x.double(), y.double()))


def _direct(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


class _DoubleRows:
    """Chosen rows in float64, each time in the same memory."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.chosen, self.doubles = values, Space(values), Space(values, torch.float64)

    def __call__(self, index: Tensor) -> Tensor:
        shape = len(index), self.values.shape[1]
        return self.doubles(*shape).copy_(torch.index_select(self.values, 0, index, out=self.chosen(*shape)))


class Space:
    """Memory for a matrix, kept from one to the next: fresh memory takes longer to come by than to fill."""

    def __init__(self, like: Tensor, dtype: torch.dtype | None = None) -> None:
        self._held = torch.empty(0, dtype=dtype or like.dtype, device=like.device)

    def __call__(self, rows: int, columns: int) -> Tensor:
        if self._held.numel() < rows * columns:
            self._held = self._held.new_empty(rows * columns)
        return self._held[: rows * columns].view(rows, columns)


def rounding(dim: int) -> float:
    """Relative error of the sum in float64, and of `LocalProduct`'s beside its blur."""
    return (2 * dim + 32) * torch.finfo(torch.float64).eps


def underflow(dim: int) -> float:
    """Absolute error of the sum, whose squares may underflow."""
    return math.sqrt(dim) * 2.0**-536
