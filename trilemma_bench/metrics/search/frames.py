"""Frames: what the values of sets that are searched together are measured from, and in."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from trilemma_bench.errors import TrilemmaError

LARGEST = 1e150  # difference of features whose squares float64 holds
UNDERFLOW = 2.0**-63  # in float32, squares of less lose digits, or are none
SHARED = 1.2  # times what codes in a frame of their own lose: so much those in a shared one may


class Frame:
    """Features less `shift`, in units of `scale`, a power of two, are values; `centre` is what tiles are centred with.

    some: a few samples of each set that the frame is made for, less its outliers, whose steps would serve no others.
    """

    def __init__(self, sets: tuple[Tensor, ...], mean: Tensor, shift: Tensor, scale: float) -> None:
        self.shift, self.scale = shift, scale
        self.centre = ((mean - shift) / scale).float()
        self.some = [_nearest_most(each[:: max(1, len(each) // 64)], mean) for each in sets]
        self._plain = scale == 1 and not bool(shift.any())

    def values(self, features: Tensor) -> Tensor:
        """float32: the features themselves where the frame leaves them as they are."""
        if self._plain and features.dtype == torch.float32:
            return features
        return torch.cat([((part.double() - self.shift) / self.scale).float() for part in features.split(1024)])

    @property
    def offset(self) -> float:
        return float(self.shift.norm()) / self.scale

    @cached_property
    def pair(self) -> tuple[float, float] | None:
        """The two values, lower first, of all features that are looked at, as those of binary codes; None of others."""
        low, high = min(float(each.min()) for each in self.some), max(float(each.max()) for each in self.some)
        binary = low < high and all(bool(((each == low) | (each == high)).all()) for each in self.some)
        return (low, high) if binary else None

    @cached_property
    def steps(self) -> tuple[float, Tensor]:
        """The step of int8 codes that loses least, and the centre in whole steps.

        A smaller step is finer, but cuts off more of the largest values. Features that are exactly 0, as after a ReLU,
        then lose nothing. Of a pair of values the codes are 0 and 2: squares have whole halves.
        """
        if self.pair:
            low, high = self.pair
            return (high - low) / 2 / self.scale, ((low - self.shift) / self.scale).float()
        some = [self.values(each) for each in self.some]
        largest = max(UNDERFLOW, *(float((values - self.centre).abs().max()) for values in some))
        steps = [largest / 127 * share for share in (1.0, 0.8, 0.6, 0.45, 0.34, 0.25, 0.19, 0.14, 0.1)]
        both = [(step, (self.centre / step).round_().mul_(step)) for step in steps]
        return min(both, key=lambda each: _lost(some, *each))

    def suits(self, other: Frame) -> bool:
        """Whether the samples of another frame are about as well off in this one."""
        return self._loses(other) <= SHARED * other._loses(other)

    def _loses(self, other: Frame) -> float:
        """How far the other's samples are from their codes in this one, in the features' unit."""
        return self.scale * _lost([self.values(each) for each in other.some], *self.steps)


def frame_of(sets: tuple[Tensor, ...], longest: float) -> Frame:
    """One frame for all sets, centred on the last. longest: the greatest length of a sample."""
    some = sets[-1][:: -(-len(sets[-1]) // 256)].double()
    some = _nearest_most(some, some.mean(dim=0))
    mean = some.mean(dim=0)
    spread = float((some - mean).square().sum(dim=1).mean().sqrt())
    if 1e-6 < longest < 1e12 and float(mean.norm()) < 3 * spread:
        return Frame(sets, mean, torch.zeros_like(mean), 1.0)  # squares are well inside of float32's range
    furthest = max(float((part.double() - mean).abs().max()) for each in sets for part in each.split(1024))
    if furthest > LARGEST:
        raise TrilemmaError(f"features {furthest:.1e} apart are too far for distances in float64: scale them down")
    scale = 2.0 ** math.ceil(math.log2(furthest * math.sqrt(len(mean)))) if furthest else 1.0
    return Frame(sets, mean, mean, scale)


def _nearest_most(features: Tensor, mean: Tensor) -> Tensor:
    """The samples without the furthest of each 16."""
    order = torch.linalg.vector_norm(features.double() - mean, dim=1).argsort()
    return features[order[: len(order) - len(order) // 16]]


def whole_steps(values: Tensor, step: float, out: Tensor | None = None) -> Tensor:
    return torch.div(values, step, out=out).round_().clamp_(-127, 127)


def _lost(some: list[Tensor], step: float, centre: Tensor) -> float:
    parts = (values - centre for values in some)
    return sum(float(part.sub_(whole_steps(part, step), alpha=step).norm()) for part in parts)
