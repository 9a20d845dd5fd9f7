"""What is asked of data, extractors, references, sample sizes and memory, checked before there are samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from trilemma_bench.contracts import Dataset, FeatureExtractor, Metric
from trilemma_bench.environment import free_memory
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.metrics.reference import MomentsReference, Reference
from trilemma_bench.protocol import QUANTISED, UNQUANTISED, Protocol, Use

TRAIN_SPLIT = "train"
FLOAT_BYTES = 4


def check_data(protocol: Protocol, dataset: Dataset) -> None:
    """Raises UsageError for data that lacks the protocol's split, or is not quantised as it says."""
    if protocol.reference not in dataset.splits:
        raise UsageError(
            f"protocol '{protocol.name}' compares with split '{protocol.reference}', "
            f"which '{dataset.name}' lacks; it has {', '.join(dataset.splits)}"
        )
    done = QUANTISED if dataset.spec.is_image else UNQUANTISED
    if protocol.quantisation != done:
        raise UsageError(
            f"protocol '{protocol.name}' has quantisation = '{protocol.quantisation}', and samples of "
            f"'{dataset.name}' have '{done}': choose another protocol, or let it say so"
        )


def check_outputs(uses: Iterable[tuple[Metric, Use]], extractors: Mapping[str, FeatureExtractor]) -> None:
    """Raises UsageError for a metric on an extractor that does not give what it reads."""
    for metric, use in uses:
        outputs = extractors[str(use.extractor)].outputs
        if metric.output not in outputs:
            raise UsageError(
                f"metric '{metric.name}' reads {metric.output}, and extractor '{use.extractor}' gives "
                f"{', '.join(outputs)}: choose another protocol"
            )


def compared_split(metric: Metric, protocol: Protocol, given: bool) -> str | None:
    """The split that a metric compares with; None where it reads no real samples, or those of `given` files."""
    if metric.needs == "training":
        return TRAIN_SPLIT
    return protocol.reference if _reads_reference(metric) and not given else None


def _reads_reference(metric: Metric) -> bool:
    return metric.needs in ("features", "moments")


@dataclass(frozen=True)
class Preflight:
    """What there is to measure with. given: references by extractor and output, where files replace the dataset's.

    sizes: samples in each split that some metric compares with.
    """

    protocol: Protocol
    extractors: Mapping[str, FeatureExtractor]
    given: Mapping[tuple[str, str], Reference]
    sizes: Mapping[str, int]

    def obstacle(self, metric: Metric, use: Use) -> str:
        """Why a metric cannot be computed, whatever the samples will be; '' where nothing is known to stand against."""
        return self._unfit_file(metric, use) or self._too_few(metric, use)

    def check_memory(self, uses: Iterable[tuple[Metric, Use]], device: torch.device) -> None:
        """Raises TrilemmaError where the features of both sides do not fit into what is free, here or on the device."""
        needed = self._feature_bytes(uses)
        for place in {torch.device("cpu"), device}:
            if needed > (free := free_memory(place)):
                raise TrilemmaError(
                    f"the features of {self.protocol.samples:,} generated samples and of the real ones take "
                    f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of {place.type} memory are free: choose a "
                    "--protocol with fewer features or samples"
                )

    def _unfit_file(self, metric: Metric, use: Use) -> str:
        """Why the given files do not serve a metric; '' where they do, or are not asked."""
        if not self.given or not _reads_reference(metric):
            return ""
        reference = self.given.get((str(use.extractor), metric.output))
        if reference is None:
            return f"none of the reference files holds the {metric.output} of '{use.extractor}': give one more"
        count = self._count_of(use, len(reference))
        if not isinstance(reference, MomentsReference) or (metric.needs == "moments" and count == len(reference)):
            return ""
        wanted = "the features" if metric.needs == "features" else f"{count:,} of its {len(reference):,} samples"
        return (
            f"the reference file of '{use.extractor}' holds mean and covariance only, and {wanted} are needed: "
            "export it with --kind features"
        )

    def _too_few(self, metric: Metric, use: Use) -> str:
        """Which side has fewer samples than a metric needs; '' where neither has."""
        least, least_real = metric.least(self.protocol, self.extractors[str(use.extractor)].dim)
        count, real = min(self.protocol.samples, use.samples or self.protocol.samples), self._real_samples(metric, use)
        if count < least:
            return f"needs at least {least:,} generated samples, got {count:,}"
        if real is not None and real < least_real:
            return f"needs at least {least_real:,} real samples to compare with, got {real:,}"
        return ""

    def _real_samples(self, metric: Metric, use: Use) -> int | None:
        """How many samples a metric compares with; None where it reads none."""
        if metric.needs == "training":
            return self.sizes[TRAIN_SPLIT]
        if not _reads_reference(metric):
            return None
        found = self.given.get((str(use.extractor), metric.output))
        return self._count_of(use, self.sizes[self.protocol.reference] if found is None else len(found))

    def _count_of(self, use: Use, size: int) -> int:
        return min(size, use.reference_samples or self.protocol.reference_samples or size)

    def _feature_bytes(self, uses: Iterable[tuple[Metric, Use]]) -> int:
        """Of all features that are held at once; those of given files are mapped. Other outputs count as 'features'."""
        held: dict[tuple[str, str, str | None, int], int] = {}
        for metric, use in uses:
            name = str(use.extractor)
            rows: list[tuple[str | None, int]] = [(None, self.protocol.samples)]
            if split := compared_split(metric, self.protocol, bool(self.given)):
                rows.append((split, self._real_samples(metric, use) or 0))
            for side, count in rows:
                held[name, metric.output, side, count] = FLOAT_BYTES * count * self.extractors[name].dim
        return sum(held.values())
