"""What is asked of data, extractors, references, sample sizes and memory, checked before there are samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from trilemma_bench.contracts import Dataset, FeatureExtractor, Metric
from trilemma_bench.datasets.splits import TRAIN_SPLIT
from trilemma_bench.environment import free_memory
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.features.reference import DatasetReference, Kind, features_bytes
from trilemma_bench.metrics.reference import MomentsReference, Reference
from trilemma_bench.protocol import QUANTISED, UNQUANTISED, Protocol, Use


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
    return protocol.reference if metric.reads_reference and not given else None


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

    def _unfit_file(self, metric: Metric, use: Use) -> str:
        """Why the given files do not serve a metric; '' where they do, or are not asked."""
        if not self.given or not metric.reads_reference:
            return ""
        reference = self.given_to(metric, use)
        if reference is None:
            return f"none of the reference files holds the {metric.output} of '{use.extractor}': give one more"
        count = self.protocol.reference_size(len(reference), use)
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
        count, real = min(self.protocol.samples, self.protocol.limits(use)[0]), self.real_samples(metric, use)
        if count < least:
            return f"needs at least {least:,} generated samples, got {count:,}"
        if real is not None and real < least_real:
            return f"needs at least {least_real:,} real samples to compare with, got {real:,}"
        return ""

    def given_to(self, metric: Metric, use: Use) -> Reference | None:
        """The file's reference that a metric compares with; None where that is the dataset's own, or there is none."""
        return self.given.get((str(use.extractor), metric.output)) if metric.reads_reference else None

    def real_samples(self, metric: Metric, use: Use) -> int | None:
        """How many samples a metric compares with; None where it reads none."""
        if metric.needs == "training":
            return self.sizes[TRAIN_SPLIT]
        if not metric.reads_reference:
            return None
        found = self.given_to(metric, use)
        size = self.sizes[self.protocol.reference] if found is None else len(found)
        return self.protocol.reference_size(size, use)


def check_memory(
    samples: int,
    generated: Iterable[FeatureExtractor],
    real: Iterable[tuple[DatasetReference, Kind]],
    device: torch.device,
) -> None:
    """Raises TrilemmaError where what is held of both sides does not fit into what is free, here or on the device.

    generated: the extractor of each output that is read of the `samples`; real: each reference with what is read of it.
    Those of given files are mapped, and take nothing.
    """
    needed = sum(features_bytes(samples, extractor) for extractor in generated) + _bytes_of(real)
    for place in {torch.device("cpu"), device}:
        if needed > (free := free_memory(place)):
            raise TrilemmaError(
                f"the features of {samples:,} generated samples and of the real ones take {needed / 2**30:.1f} GiB, "
                f"and {free / 2**30:.1f} GiB of {place.type} memory are free: choose a --protocol with fewer features "
                "or samples"
            )


def _bytes_of(references: Iterable[tuple[DatasetReference, Kind]]) -> int:
    """The most that references hold at once: all that stays, and what one pass over the data holds besides."""
    staying, passing = 0, Counter[tuple[str, str, int]]()
    for reference, kind in references:
        stays, passes = reference.bytes_held(kind)
        staying += stays
        passing[reference.extractor.name, reference.split, len(reference)] += passes
    return staying + max(passing.values(), default=0)
