"""The reference side of a comparison: real samples' features, and what is derived from them once for all models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from trilemma_bench import seeding
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.frechet import Moments, moments
from trilemma_bench.metrics.search import Side, nearest_neighbours


class Reference:
    """Features of M real samples: float M×D, on one device. Moments and distances are computed when first asked for.

    nearest: distances to the nearest others, ascending, float64 M×k, where they are known already. sha256, stated: of
    the file that the reference was read from, and what that says of itself; None and nothing for one computed from a
    dataset. compute_on: where moments and distances are computed, where that is not the features' device.
    """

    sha256: str | None = None
    stated: Mapping[str, str] = MappingProxyType({})
    compute_on: torch.device | None = None
    _nearest: dict[int, Tensor]

    def __init__(self, features: Tensor, nearest: Tensor | None = None) -> None:
        self._features, self._nearest = features, {} if nearest is None else by_rank(nearest)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        return self.features.shape[1]

    @property
    def features(self) -> Tensor:
        """The features, float M×D. Raises TrilemmaError where only the moments are known."""
        return self._features

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance, in float64."""
        return Moments(*(value.to(self.features.device) for value in moments(self._placed)))

    def nearest(self, k: int, first: int = 1, prepared: Side | None = None) -> Tensor:
        """Distances of each sample to its `first` to k-th nearest others, ascending: float64 M×(k − first + 1).

        prepared: the features as searches take them, where somebody has them.
        """
        ranks = range(first, k + 1)
        if not self._nearest.keys() >= set(ranks):
            self._nearest |= self._find_nearest(k, first, prepared)
        return torch.stack([self._nearest[rank] for rank in ranks], dim=1)

    def subset(self, count: int) -> Reference:
        """A fixed random subset of `count` samples; the whole where there are no more than that."""
        if count >= len(self):
            return self
        chosen = Reference(self.features[subset_rows(len(self), count)])
        chosen.compute_on = self.compute_on
        return chosen

    @property
    def _placed(self) -> Tensor:
        return self.features.to(self.compute_on or self.features.device)

    def _find_nearest(self, k: int, first: int, prepared: Side | None) -> dict[int, Tensor]:
        """Distances to the `first` to k-th nearest others at least, float64 M each, by their rank."""
        found = nearest_neighbours(prepared or self._placed, first, k - first)[1]
        return by_rank(found.to(self.features.device), first)


def by_rank(distances: Tensor, first: int = 1) -> dict[int, Tensor]:
    """The columns of M×k, by the rank of their neighbour, of which the first is `first`."""
    return dict(enumerate(distances.unbind(dim=1), first))


class MomentsReference(Reference):
    """Mean and covariance of `count` real samples, as pytorch-fid and others exchange them: all that FD needs."""

    def __init__(self, given: Moments, count: int) -> None:
        self._moments, self._count = given, count

    def __len__(self) -> int:
        return self._count

    @property
    def dim(self) -> int:
        return len(self._moments.mean)

    @property
    def features(self) -> Tensor:
        raise TrilemmaError("this reference holds mean and covariance only, and the metric needs features")

    @cached_property
    def moments(self) -> Moments:
        return self._moments

    def subset(self, count: int) -> Reference:
        if count < len(self):
            raise TrilemmaError(
                f"this reference holds the mean and covariance of {len(self):,} samples, and the protocol compares "
                f"with {count:,}: give mean and covariance of so many, or the features, or another --protocol that "
                f"compares with {len(self):,}"
            )
        return self


class DeviceReference(Reference):
    """A reference whose tensors are copied to `device` when they are asked for."""

    def __init__(self, source: Reference, device: torch.device) -> None:
        self._source, self._device = source, device
        self.sha256 = source.sha256

    def __len__(self) -> int:
        return len(self._source)

    @property
    def dim(self) -> int:
        return self._source.dim

    @cached_property
    def features(self) -> Tensor:
        return self._source.features.to(self._device)

    @cached_property
    def moments(self) -> Moments:
        return Moments(*(value.to(self._device) for value in self._source.moments))

    def nearest(self, k: int, first: int = 1, prepared: Side | None = None) -> Tensor:
        return self._source.nearest(k, first, prepared).to(self._device)


def as_reference(features: Tensor | Reference) -> Reference:
    """A tensor of features as a reference."""
    return Reference(features) if isinstance(features, torch.Tensor) else features


SUBSET = f"the first M of torch.randperm with seed {seeding.stream_seed('reference')}"


def subset_rows(size: int, count: int) -> Tensor:
    """Which `count` of `size` samples are the fixed random subset (int64, CPU); `SUBSET` says it in words."""
    return seeding.permutation(size, "reference")[:count]
