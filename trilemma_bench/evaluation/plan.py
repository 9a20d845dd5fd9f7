"""What is measured with what: a protocol as it is followed on one dataset."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trilemma_bench.contracts import Dataset, FeatureExtractor, Metric, ModeRule
from trilemma_bench.datasets.splits import TRAIN_SPLIT
from trilemma_bench.errors import UsageError
from trilemma_bench.evaluation.extractors import Extractors
from trilemma_bench.evaluation.uses import Chosen, metrics_of
from trilemma_bench.features.exchange import open_references
from trilemma_bench.metrics.reference import Reference
from trilemma_bench.protocol import QUANTISED, UNQUANTISED, Protocol, Use


@dataclass(frozen=True, eq=False)
class Plan:
    """A protocol and a dataset, with all that the one names and the other has.

    metrics: by the names of their scores. extractors: by their names. given: references by extractor and output, where
    files replace the dataset's. sizes: samples in each split that some metric compares with.
    """

    protocol: Protocol
    dataset: Dataset
    mode_rule: ModeRule | None
    metrics: Mapping[str, Chosen]
    extractors: Mapping[str, FeatureExtractor]
    given: Mapping[tuple[str, str], Reference]
    sizes: Mapping[str, int]

    def without(self, names: Collection[str]) -> Plan:
        """The same without some scores."""
        return replace(self, metrics={name: chosen for name, chosen in self.metrics.items() if name not in names})

    def outputs_read(self) -> dict[str, tuple[str, ...]]:
        """Extractor's name → its outputs that some metric reads, of those that have any."""
        read: dict[str, dict[str, None]] = {name: {} for name in self.extractors}
        for metric, use in self.metrics.values():
            read[str(use.extractor)][metric.output] = None
        return {name: tuple(outputs) for name, outputs in read.items() if outputs}

    def split_of(self, metric: Metric) -> str | None:
        """The split that a metric compares with; None where it reads no real samples, or those of a given file."""
        if metric.needs == "training":
            return TRAIN_SPLIT
        return self.protocol.reference if metric.reads_reference and not self.given else None

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


def make_plan(dataset: Dataset, protocol: Protocol, extractors: Extractors, files: Sequence[Path]) -> Plan:
    """The plan to measure samples of `dataset` under `protocol`; files: references instead of the dataset's own.

    Raises UsageError where these do not fit together, TrilemmaError for what is missing of extractors, files or data.
    """
    _check_data(protocol, dataset)
    mode_rule = dataset.mode_rule()
    metrics = metrics_of(protocol, has_modes=mode_rule is not None)
    loaded = extractors.of(protocol, dataset.spec)
    _check_outputs(metrics.values(), loaded)
    given = open_references(files, loaded, dataset, protocol.reference)
    for reference in given.values():
        reference.compute_on = extractors.device
    plan = Plan(protocol, dataset, mode_rule, metrics, loaded, given, sizes={})
    splits = {plan.split_of(metric) for metric, _ in metrics.values()}
    return replace(plan, sizes=_sizes(dataset, filter(None, splits)))


def _sizes(dataset: Dataset, splits: Iterable[str]) -> dict[str, int]:
    """Raises what `load` does where any data is missing."""
    dataset.fingerprint()  # reads every split, once for an object: the record will need it anyway
    return {split: len(dataset.load(split)) for split in splits}


def _check_data(protocol: Protocol, dataset: Dataset) -> None:
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


def _check_outputs(uses: Iterable[Chosen], extractors: Mapping[str, FeatureExtractor]) -> None:
    """Raises UsageError for a metric on an extractor that does not give what it reads."""
    for metric, use in uses:
        outputs = extractors[str(use.extractor)].outputs
        if metric.output not in outputs:
            raise UsageError(
                f"metric '{metric.name}' reads {metric.output}, and extractor '{use.extractor}' gives "
                f"{', '.join(outputs)}: choose another protocol"
            )
