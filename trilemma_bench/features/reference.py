"""References computed from a dataset: features once for every run, moments and distances once for every reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trilemma_bench.contracts import Dataset, FeatureExtractor
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.features import cache
from trilemma_bench.features.extraction import extract_all
from trilemma_bench.metrics.frechet import Moments, moments
from trilemma_bench.metrics.neighbours import nearest_distances
from trilemma_bench.metrics.reference import Reference, subset_rows
from trilemma_bench.source import package_digest

FORMAT = "trilemma-bench/reference/1"
NEIGHBOURS = 5  # as many as the usual metrics need, so that they share one file


def reference(
    dataset: Dataset,
    split: str,
    extractor: FeatureExtractor,
    output: str = "features",
    count: int | None = None,
    together: Sequence[str] = (),
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> DatasetReference:
    """The reference that a protocol compares with: all of the split, or a fixed random subset of `count` samples.

    together: outputs that will be asked for too, so that one pass over the data gives them all. device: where the
    extractor lives; the reference is on the CPU. Nothing is read or computed before it is asked for.
    """
    return DatasetReference(dataset, split, extractor, output, count, together, device, progress)


@dataclass(eq=False)
class DatasetReference(Reference):
    """A reference whose features, moments and distances are cached in files of their own; see `reference`.

    Each file is keyed by everything its content depends on: the data, the split, how many of its samples, the extractor
    with its code and weights, its output, resize and precision. Asking for one reads no other. Raises TrilemmaError
    when the data is missing or the features are not finite.
    """

    dataset: Dataset
    split: str
    extractor: FeatureExtractor
    output: str
    count: int | None
    together: Sequence[str]
    device: torch.device | str
    progress: bool

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
        facts, whole = self.facts("features"), self.facts("features", samples=self._split_size)
        if facts != whole and not cache.path_of(facts).is_file() and (found := cache.read(whole)) is not None:
            return found["features"][self._rows]
        lock = cache.path_of(self.facts("features", output="all"))  # one pass gives several outputs
        return cache.stored(facts, self._compute_features, lock)["features"]

    @cached_property
    def moments(self) -> Moments:
        found = cache.stored(self.facts("moments"), self._compute_moments)
        return Moments(mean=found["mean"], covariance=found["covariance"])

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

    def _find_nearest(self, k: int) -> Tensor:
        def compute() -> cache.Tensors:
            stored = max(k, min(NEIGHBOURS, len(self) - 1))
            return {"distances": nearest_distances(self.features.to(self.device), stored).cpu()}

        return cache.stored(self.facts("nearest"), compute, enough=lambda found: found["distances"].shape[1] >= k)[
            "distances"
        ]

    def _compute_features(self) -> cache.Tensors:
        others = [output for output in self.together if output != self.output]
        missing = [output for output in others if not cache.path_of(self.facts("features", output)).is_file()]
        samples = self.dataset.load(self.split).samples
        found = self._extract([self.output, *missing], samples if self._is_whole else samples[self._rows])
        for output in missing:
            cache.write(self.facts("features", output), {"features": found.pop(output)})
        return {"features": found[self.output]}

    def _compute_moments(self) -> cache.Tensors:
        mean, covariance = moments(self.features.to(self.device))
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
        """A hash of the extractor's source, so that who edits one gets new features."""
        classes = [cls for cls in type(self.extractor).__mro__ if issubclass(cls, FeatureExtractor)]
        modules = [cls.__module__ for cls in classes if cls is not FeatureExtractor]
        return package_digest(modules) or type(self.extractor).__qualname__


def extractor_facts(extractor: FeatureExtractor) -> cache.Facts:
    """What must be equal before features may be compared, besides the output."""
    return {
        "extractor": extractor.name,
        "weights": extractor.weights_sha256 or "none",
        "resize": extractor.resize,
        "precision": extractor.precision,
    }
