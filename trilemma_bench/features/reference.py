"""References computed from a dataset: features once for every run, moments and distances once for every reference."""

from __future__ import annotations

import functools
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trilemma_bench.contracts import Dataset, FeatureExtractor
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.features import cache
from trilemma_bench.features.extraction import extract_all
from trilemma_bench.metrics.frechet import Moments, moments
from trilemma_bench.metrics.reference import Reference, by_rank, subset_rows
from trilemma_bench.metrics.search import Side, nearest_distances
from trilemma_bench.source import HARNESS, features_digest

FORMAT = "trilemma-bench/reference/3"
Kind = Literal["features", "moments"]
Wanted = Mapping[str, Kind]
NEIGHBOURS = 5  # as many as the usual metrics need, so that they share one file


@dataclass(eq=False)
class DatasetReference(Reference):
    """The reference that a protocol compares with: all of a split, or a fixed random subset of `count` samples.

    wanted: what will be asked of each output, so that one pass over the data gives it all, and of outputs that are
    wanted for their moments no features are kept. device: where the extractor lives; the reference is on the CPU.

    Features, moments and distances are cached in files of their own, and none is read or computed before it is asked
    for. Each file is keyed by everything its content depends on: the data, the split, how many of its samples, the
    extractor with its code and weights, its output, resize and precision. Raises TrilemmaError when the data is missing
    or the features are not finite.
    """

    dataset: Dataset
    split: str
    extractor: FeatureExtractor
    output: str = "features"
    count: int | None = None
    wanted: Wanted = field(default_factory=dict)
    device: torch.device | str = "cpu"
    progress: bool = False
    _nearest: dict[int, Tensor] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return self._split_size if self.count is None else min(self.count, self._split_size)

    @cached_property
    def dim(self) -> int:
        """The number of features: the extractor says it, or shows it on one sample."""
        if self.output == "features" and self.extractor.dim:
            return self.extractor.dim
        return self._extract([self.output], self.dataset.load(self.split).samples[:1])[self.output].shape[1]

    @cached_property
    def features(self) -> Tensor:
        """The features, float32 M×D, mapped from the cache where they are."""
        if (found := self._features_of_whole()) is not None:
            return found
        return cache.stored(self.facts("features"), lambda: {"features": self._one_pass()}, self._lock)["features"]

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance; of few samples the features are the smaller file, and the only one."""
        if self._has_few:
            return Moments(**self._moments_of(self.features))
        found = cache.stored(self.facts("moments"), self._compute_moments, self._lock)
        return Moments(mean=found["mean"], covariance=found["covariance"])

    def bytes_held(self, kind: Kind) -> tuple[int, int]:
        """What giving its features or its moments takes of memory: bytes that stay, and those in passing besides.

        Moments that are not cached are made from features, all at once. What the Fréchet distance takes to compute is
        not counted.
        """
        features = features_bytes(len(self), self.extractor)
        if kind == "moments" and not self._has_few:
            stays = 8 * self.extractor.dim**2
            if cache.path_of(self.facts("moments")).is_file():
                return stays, 0
            if self.wanted.get(self.output) == "moments":
                return stays, features
        return features, 0

    def facts(self, kind: str, output: str | None = None, samples: int | None = None) -> cache.Facts:
        """Everything that the file of this kind depends on, and what the dataset is called."""
        return {
            "format": FORMAT,
            "kind": kind,
            "dataset": self.dataset.fingerprint(),
            "dataset_name": self.dataset.name,
            "split": self.split,
            "samples": str(samples or len(self)),
            "output": output or self.output,
            "code": self._code,
            **extractor_facts(self.extractor),
        }

    def _find_nearest(self, k: int, first: int, prepared: Side | None) -> dict[int, Tensor]:
        """Those to the nearest others on, as many as most ask for: from one file, for all of them."""

        def compute() -> cache.Tensors:
            stored = max(k, min(NEIGHBOURS, len(self) - 1))
            return {"distances": nearest_distances(prepared or self.features.to(self.device), stored).cpu()}

        def enough(found: cache.Tensors) -> bool:
            return found["distances"].shape[1] >= k

        return by_rank(cache.stored(self.facts("nearest"), compute, enough=enough)["distances"])

    @property
    def _has_few(self) -> bool:
        """Whether it has so few samples that their features take less than the moments: 4·N·D bytes, not 8·D²."""
        return self.output == "features" and len(self) < 2 * self.extractor.dim

    @property
    def _lock(self) -> Path:
        """One for all outputs of the extractor, since one pass gives several."""
        return cache.path_of(self.facts("features", output="all"))

    def _features_of_whole(self) -> Tensor | None:
        """The features of a subset, where it has no file of its own and the whole has one."""
        if self._is_whole or cache.path_of(self.facts("features")).is_file():
            return None
        found = cache.read(self.facts("features", samples=self._split_size))
        return None if found is None else found["features"][self._rows]

    def _one_pass(self) -> Tensor:
        """The features, from a pass over the data that leaves in the cache what is wanted of the other outputs."""
        others = {output: kind for output, kind in self.wanted.items() if output != self.output}
        missing = [output for output, kind in others.items() if not cache.path_of(self.facts(kind, output)).is_file()]
        samples = self.dataset.load(self.split).samples
        found = self._extract([self.output, *missing], samples if self._is_whole else samples[self._rows])
        for output in missing:
            values, kind = found.pop(output), others[output]
            tensors = {"features": values} if kind == "features" else self._moments_of(values)
            cache.write(self.facts(kind, output), tensors)
        return found[self.output]

    def _compute_moments(self) -> cache.Tensors:
        """From features that are wanted for themselves or are there; else none are kept."""
        kept = self.wanted.get(self.output) != "moments" or cache.path_of(self.facts("features")).is_file()
        if kept or (features := self._features_of_whole()) is None:
            features = self.features if kept else self._one_pass()
        return self._moments_of(features)

    def _moments_of(self, features: Tensor) -> cache.Tensors:
        mean, covariance = moments(features.to(self.device))
        return {"mean": mean.cpu(), "covariance": covariance.cpu()}

    def _extract(self, outputs: list[str], samples: Tensor) -> dict[str, Tensor]:
        found = extract_all([(self.extractor, outputs)], samples, progress=self.progress, device=self.device)
        for (name, output), values in found.items():
            if not values.isfinite().all():
                raise TrilemmaError(f"extractor '{name}' gives {output} of {self.dataset.name} that are not finite")
        return {output: values for (_, output), values in found.items()}

    @property
    def _is_whole(self) -> bool:
        return len(self) == self._split_size

    @cached_property
    def _split_size(self) -> int:
        return len(self.dataset.load(self.split))

    @property
    def _rows(self) -> Tensor:
        return subset_rows(self._split_size, len(self))

    @cached_property
    def _code(self) -> str:
        return code_of(self.extractor)


def features_bytes(samples: int, extractor: FeatureExtractor) -> int:
    """Of an output of so many samples in float32: as wide as 'features', since others' width only a pass shows."""
    return 4 * samples * extractor.dim


def code_of(extractor: FeatureExtractor) -> str:
    """A hash of the extractor's source, so that who edits one gets new features.

    Where no source can be read, as of a class typed into a notebook, what no other class and no other process has, with
    a warning, once for each class.
    """
    classes = [cls for cls in type(extractor).__mro__ if issubclass(cls, FeatureExtractor)]
    modules = [cls.__module__ for cls in classes if cls is not FeatureExtractor]
    return features_digest(modules) or _unread(type(extractor), extractor.name)


@functools.cache
def _unread(_: type, name: str) -> str:
    warnings.warn(
        f"the code of extractor '{name}' cannot be read: its features are not cached, and its scores compare with "
        "those of no other process; define it in a .py file",
        stacklevel=3,
    )
    return f"{cache.UNREAD}{uuid.uuid4().hex[:12]}"


def is_shipped(extractor: FeatureExtractor) -> bool:
    """Whether it is one of ours, whose name says what it computes."""
    return type(extractor).__module__.startswith(f"{HARNESS}.")


def extractor_facts(extractor: FeatureExtractor) -> cache.Facts:
    """What must be equal before features may be compared, besides the output."""
    return {
        "extractor": extractor.name,
        "weights": extractor.weights_sha256 or "none",
        "resize": extractor.resize,
        "precision": extractor.precision,
    }
