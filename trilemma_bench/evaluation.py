"""Samples → features → scores, under a protocol."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trilemma_bench import registry
from trilemma_bench.contracts import Dataset, Estimate, FeatureExtractor, Metric, ModeRule
from trilemma_bench.datasets.splits import TRAIN_SPLIT
from trilemma_bench.errors import TrilemmaError, UsageError, described
from trilemma_bench.features.exchange import open_references
from trilemma_bench.features.extraction import (
    HashedSamples,
    Outputs,
    Request,
    Samples,
    extract_all,
    use_precision,
)
from trilemma_bench.features.reference import DatasetReference, Kind, Wanted, code_of, is_shipped, reference
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.intervals import normal_interval
from trilemma_bench.metrics.memorisation import NearestPairs
from trilemma_bench.metrics.modes import histogram_of, mode_histogram, mode_kl_floor
from trilemma_bench.metrics.reference import SUBSET, DeviceReference, Reference
from trilemma_bench.preflight import Preflight, check_data, check_memory, check_outputs, compared_split
from trilemma_bench.protocol import Protocol, Use
from trilemma_bench.record import ExtractorPart, ProtocolPart, ReferencePart, Score

MODES = "modes of the dataset"
Space = tuple[str, str, str, int | None]  # split, extractor, output and how many of the split's samples (None: all)
COPIES = 50  # pairs of a generated and a training sample that are kept to be looked at


@dataclass(frozen=True)
class Evaluation:
    """What measuring gave. missing: score → why it could not be computed. copies: where a metric needs the training
    samples, the generated samples that are nearest to them, the nearest first.
    """

    protocol: ProtocolPart
    scores: dict[str, Score]
    missing: dict[str, str]
    mode_histogram: list[int] | None
    samples_sha256: str
    copies: NearestPairs | None = None


class Evaluator:
    """Measures samples against one dataset under one protocol; whatever is missing is reported on construction.

    files: references to compare with instead of the dataset's own, as `features.exchange` reads them.
    """

    def __init__(
        self,
        dataset: Dataset,
        protocol: Protocol,
        device: torch.device,
        progress: bool = True,
        files: Sequence[Path] = (),
    ) -> None:
        self.dataset, self.protocol, self.device, self.progress = dataset, protocol, device, progress
        check_data(protocol, dataset)
        self.mode_rule = dataset.mode_rule()
        self.metrics = metrics_of(protocol, has_modes=self.mode_rule is not None)
        self.extractors = _built(protocol, device)
        for extractor in self.extractors.values():
            extractor.check(dataset.spec)
        check_outputs(self.metrics.values(), self.extractors)
        self.given = open_references(files, self.extractors, dataset, protocol.reference)
        for given in self.given.values():
            given.compute_on = device
        self._references: dict[Any, Reference] = {}  # where they are computed with
        self._of_splits: dict[Space, DatasetReference] = {}
        self._preflight = Preflight(protocol, self.extractors, self.given, self._compared_splits())
        self.missing = self._look_ahead()
        self._check_memory()

    def _look_ahead(self) -> dict[str, str]:
        """Score → why it cannot be had, each reason with a warning. Raises UsageError where none can."""
        found = {name: self._preflight.obstacle(*chosen) for name, chosen in self.metrics.items()}
        missing = {name: why for name, why in found.items() if why}
        names: dict[str, list[str]] = {}
        for name, why in missing.items():
            names.setdefault(why, []).append(name)
        lines = [f"{', '.join(of_these)}: {why}" for why, of_these in names.items()]
        if len(missing) == len(self.metrics):
            why = "; ".join(lines) or f"all is of modes, and '{self.dataset.name}' has none"
            raise UsageError(f"protocol '{self.protocol.name}' can measure nothing here ({why})")
        for line in lines:
            warnings.warn(f"not measured: {line}", stacklevel=4)
        return missing

    def _check_memory(self) -> None:
        """Raises TrilemmaError where memory, here or on the device, is too small for what is held at once."""
        read: dict[Space, Kind] = {}
        for metric, use in self._measured.values():
            if (space := self._real_space(metric, use)) and read.get(space) != "features":
                read[space] = "moments" if metric.needs == "moments" else "features"
        generated = [self.extractors[name] for name, outputs in self._outputs_read().items() for _ in outputs]
        real = [(self._of_split(space), kind) for space, kind in read.items()]
        check_memory(self.protocol.samples, generated, real, self.device)

    def _real_space(self, metric: Metric, use: Use) -> Space | None:
        """Which of the dataset's samples a metric compares with, in which features; None where with none of them."""
        split = compared_split(metric, self.protocol, bool(self.given))
        limit = None if metric.needs == "training" else self.protocol.limits(use)[1]
        return (split, str(use.extractor), metric.output, limit) if split else None

    @property
    def _measured(self) -> dict[str, tuple[Metric, Use]]:
        return {name: chosen for name, chosen in self.metrics.items() if name not in self.missing}

    def _compared_splits(self) -> dict[str, int]:
        """The sizes of the splits that metrics compare with. Raises what `load` does where any data is missing."""
        self.dataset.fingerprint()  # reads every split, once for an object: the record will need it anyway
        splits = {compared_split(metric, self.protocol, bool(self.given)) for metric, _ in self.metrics.values()}
        return {split: len(self.dataset.load(split)) for split in splits if split}

    def evaluate(self, samples: Samples) -> Evaluation:
        """Scores of `samples` (uint8 N×C×H×W or float32 N×D). Raises TrilemmaError where none can be computed.

        A metric that fails takes no other with it: its score is missing, and why.
        """
        hashed = HashedSamples(samples)
        outputs = extract_all(self._requests(), hashed, progress=self.progress, device=self.device)
        modes = outputs.pop((MODES, "features"))[:, 0].long() if self.mode_rule else None
        comparisons: dict[Any, Comparison] = {}
        scores, missing, copies = {}, dict(self.missing), None
        for name, (metric, use) in self._measured.items():
            space = str(use.extractor), metric.output, use.samples, self.protocol.limits(use)[1]
            try:
                if space not in comparisons:
                    comparisons[space] = self._comparison(outputs, modes, *space)
                score = make_score(metric, comparisons[space], self.mode_rule)
                if metric.needs == "training" and copies is None:
                    copies = comparisons[space].training_pairs.nearest(COPIES)
                scores[name] = score
            except Exception as error:  # a plugin's mistake must not cost what the samples took to make
                missing[name] = described(error)
        if not scores:
            raise TrilemmaError(f"no score could be computed: {'; '.join(dict.fromkeys(missing.values()))}")
        histogram = None
        if self.mode_rule and modes is not None:
            histogram = mode_histogram(modes, self.mode_rule.count).tolist()
        return Evaluation(
            self.protocol_part(len(samples)), scores, missing, histogram, hashed.digest.hexdigest(), copies
        )

    def protocol_part(self, samples: int) -> ProtocolPart:
        """The protocol as a record of so many samples has it."""
        protocol, uses = self.protocol, self.metrics.items()
        return ProtocolPart(
            name=protocol.name,
            extractor=protocol.extractor,
            extractors={name: _extractor_part(extractor) for name, extractor in self.extractors.items()},
            metrics={name: use_text(*chosen, self._given_count(*chosen)) for name, chosen in uses},
            quantisation=protocol.quantisation,
            **self._reference_facts(),
            reference_subset=SUBSET,
            samples=samples,
            k_precision_recall=protocol.k_precision_recall,
            k_density_coverage=protocol.k_density_coverage,
            kid=protocol.kid,
            mode_rule=self.mode_rule.rule if self.mode_rule else None,
        )

    def _outputs_read(self) -> dict[str, tuple[str, ...]]:
        """Extractor's name → its outputs that some metric reads, of those that have any."""
        read: dict[str, dict[str, None]] = {name: {} for name in self.extractors}
        for metric, use in self._measured.values():
            read[str(use.extractor)][metric.output] = None
        return {name: tuple(outputs) for name, outputs in read.items() if outputs}

    def _requests(self) -> list[Request]:
        """What one pass over the samples has to give."""
        requests: list[Request] = [(self.extractors[name], outs) for name, outs in self._outputs_read().items()]
        return [*requests, (ModeNumbers(self.mode_rule), ("features",))] if self.mode_rule else requests

    def _comparison(
        self, outputs: Outputs, modes: Tensor | None, extractor: str, output: str, count: int | None, others: int | None
    ) -> Comparison:
        """Generated against reference features in one feature space: the first `count`, against `others`."""
        protocol, rule = self.protocol, self.mode_rule
        split = None if self.given else protocol.reference
        generated = outputs[extractor, output][:count].to(self.device)
        return Comparison(
            generated,
            lambda: self._reference(split, extractor, output, others),
            training=lambda: self._reference(TRAIN_SPLIT, extractor, output, None),
            k_precision_recall=protocol.k_precision_recall,
            k_density_coverage=protocol.k_density_coverage,
            kid_subsets=protocol.kid_subsets,
            kid_subset_size=protocol.kid_subset_size,
            modes=None if modes is None else modes[:count].to(self.device),
            mode_count=rule.count if rule else None,
            mode_min_count=rule.min_count(len(generated)) if rule else 1,
        )

    def _reference(self, split: str | None, extractor: str, output: str, count: int | None) -> Reference:
        """What samples are compared with, on the device: those of a split, or of a given file (None)."""
        key = split, extractor, output, count
        if key not in self._references:
            found = self._of_split((split, extractor, output, count)) if split else self.given[extractor, output]
            part = found if split or count is None else found.subset(count)
            self._references[key] = part if self.device.type == "cpu" else DeviceReference(part, self.device)
        return self._references[key]

    def _of_split(self, space: Space) -> DatasetReference:
        if space not in self._of_splits:
            split, extractor, output, count = space
            source, wanted = self.extractors[extractor], self._wanted(extractor)
            self._of_splits[space] = reference(
                self.dataset, split, source, output, count, wanted, device=self.device, progress=self.progress
            )
        return self._of_splits[space]

    def _wanted(self, extractor: str) -> Wanted:
        """What the metrics read of the reference: an output's features as soon as one needs more than moments."""
        read = [(metric.output, metric.needs) for metric, use in self._measured.values() if use.extractor == extractor]
        whole = {output for output, needs in read if needs in ("features", "training")}
        outputs = whole | {output for output, needs in read if needs == "moments"}
        return {output: "features" if output in whole else "moments" for output in outputs}

    def _given_count(self, metric: Metric, use: Use) -> int | None:
        """How many samples of its given reference the metric reads; None where it reads none."""
        given = self._preflight.given_to(metric, use)
        return None if given is None else self._preflight.real_samples(metric, use)

    def _reference_facts(self) -> dict[str, Any]:
        """Which reference it is, how many samples of it are used, and the sha256 of its content."""
        if self.given:
            content = ", ".join(str(given.sha256) for given in self.given.values())
            of_protocol = [len(given) for (name, _), given in self.given.items() if name == self.protocol.extractor]
            split, size = "given file", max(of_protocol or [len(given) for given in self.given.values()])
        else:
            split, content = self.protocol.reference, self.dataset.fingerprint()
            size = self._preflight.sizes.get(split) or len(self.dataset.load(split))
        return {
            "reference_split": split,
            "reference_samples": self.protocol.reference_size(size),
            "reference_sha256": content,
            "references": {_features_name(*of): _reference_part(given) for of, given in self.given.items()},
        }


class ModeNumbers(FeatureExtractor):
    """The number of each sample's mode, as the pass over the samples gives it: float N×1, exact below 2²⁴."""

    name, dim = MODES, 1

    def __init__(self, rule: ModeRule) -> None:
        self.rule = rule

    def __call__(self, samples: Tensor) -> Tensor:
        return self.rule.assign(samples.cpu()).float()[:, None]


def _features_name(extractor: str, output: str) -> str:
    """'inception', or 'inception:spatial' for what is not its first output."""
    return extractor if output == "features" else f"{extractor}:{output}"


def _reference_part(given: Reference) -> ReferencePart:
    stated = given.stated
    return ReferencePart(
        dataset=stated["dataset_name"],
        fingerprint=stated["dataset"],
        split=stated["split"],
        samples=len(given),
        sha256=str(given.sha256),
        source=stated.get("source", ""),
    )


def _extractor_part(extractor: FeatureExtractor) -> ExtractorPart:
    return ExtractorPart(
        weights_sha256=extractor.weights_sha256,
        resize=extractor.resize,
        precision=extractor.precision,
        code=None if is_shipped(extractor) else code_of(extractor),
    )


def _built(protocol: Protocol, device: torch.device) -> dict[str, FeatureExtractor]:
    """The protocol's extractors by name. Raises TrilemmaError that says of all of them what they lack."""
    built: dict[str, FeatureExtractor] = {}
    faults: dict[str, None] = {}
    for name in protocol.extractors:
        try:
            built[name] = registry.extractors.get(name)(device)
        except UsageError:
            raise
        except TrilemmaError as error:
            faults[str(error)] = None
            continue
        if built[name].name != name:
            raise UsageError(f"extractor '{name}' calls itself '{built[name].name}': register it by its own name")
        if protocol.precision != "float32":
            use_precision(built[name], protocol.precision, device)
    if faults:
        raise TrilemmaError("; ".join(faults))
    return built


def metrics_of(protocol: Protocol, has_modes: bool) -> dict[str, tuple[Metric, Use]]:
    """The protocol's metrics by the names of their scores. Raises UsageError for a metric that is used twice alike."""
    chosen: dict[str, tuple[Metric, Use]] = {}
    for use in protocol.uses:
        metric: Metric = registry.metrics.get(use.metric)
        if metric.needs == "modes" and not has_modes:
            continue
        name = metric.score_name(str(use.extractor))
        if name in chosen:
            name = _told_apart(name, use, chosen[name][1], protocol)
        if name in chosen:
            raise UsageError(f"protocol '{protocol.name}' uses metric '{use.metric}' twice alike, as '{name}'")
        chosen[name] = metric, use
    return chosen


def _told_apart(name: str, use: Use, first: Use, protocol: Protocol) -> str:
    """The name of a score with what differs from the first use that has this name."""
    parts = [name]
    if use.extractor != first.extractor:
        parts.append(str(use.extractor))
    (count, others), (first_count, first_others) = protocol.limits(use), protocol.limits(first)
    if count != first_count:
        parts.append(f"{count}-samples")
    if others != first_others:
        parts.append(f"{others or 'all'}-real")
    return "_".join(parts)


def use_text(metric: Metric, use: Use, given: int | None = None) -> str:
    """What a score is measured on, and how: 'vgg16, 10000 of the reference, distance ≤ radius'.

    given: how many samples of a given reference, where there is one.
    """
    parts = [_features_name(str(use.extractor), metric.output)]
    parts += [f"{use.samples} samples"] if use.samples else []
    if metric.needs == "training":
        parts += ["all of the train split"]
    elif given is not None:
        parts += [f"{given} of its given reference"]
    elif use.reference_samples:
        parts += [f"{use.reference_samples} of the reference"]
    parts += [metric.convention] if metric.convention else []
    return ", ".join(parts)


def make_score(metric: Metric, comparison: Comparison, rule: ModeRule | None) -> Score:
    """The metric's value with its facts. Raises TrilemmaError when value, error or interval is not finite."""
    estimate = metric.estimate(comparison)
    limits = _limits(metric, rule)
    interval = estimate.interval or _normal_interval(estimate, limits)
    _check_finite(metric.name, estimate.value)
    if estimate.standard_error is not None:
        _check_finite(f"the standard error of {metric.name}", estimate.standard_error)
    _check_finite(f"the interval of {metric.name}", *(interval or ()))
    facts: dict[str, Any] = {}
    if metric.name == "mode_kl" and rule:
        facts["floor"] = mode_kl_floor(int(histogram_of(comparison).sum()), rule.count)
    if metric.name == "modes" and rule:
        facts["ideal"] = float(rule.count)
    return Score(
        value=estimate.value,
        better=metric.better,
        unit=metric.unit,
        title=metric.title,
        standard_error=estimate.standard_error,
        interval=interval,
        interval_method=(estimate.method or None) if _is_sure(estimate) else None,
        range=_bounded(limits),
        note=estimate.note or _doubt(estimate),
        **facts,
    )


def _limits(metric: Metric, rule: ModeRule | None) -> tuple[float, float]:
    """The values that a metric can take; those of modes end where their number says."""
    ends = {"modes": float(rule.count), "mode_kl": math.log(rule.count)} if rule else {}
    return metric.range[0], ends.get(metric.name, metric.range[1])


def _bounded(limits: tuple[float, float]) -> tuple[float | None, float | None]:
    """As a record has them: None for what is infinite."""
    lowest, highest = (limit if math.isfinite(limit) else None for limit in limits)
    return lowest, highest


def _check_finite(what: str, *numbers: float) -> None:
    if not all(map(math.isfinite, numbers)):
        raise TrilemmaError(f"{what} is {', '.join(map(str, numbers))}")


def _is_sure(estimate: Estimate) -> bool:
    return estimate.standard_error is not None or estimate.interval is not None


def _doubt(estimate: Estimate) -> str:
    """Why there is no interval, where there is none."""
    if _is_sure(estimate):
        return ""
    return "too few samples for an interval" if estimate.method else "the metric gives no interval"


def _normal_interval(estimate: Estimate, limits: tuple[float, float]) -> tuple[float, float] | None:
    if estimate.standard_error is None:
        return None
    return normal_interval(estimate.value, estimate.standard_error, limits)


def resolve_protocol(name: str | None, dataset: Dataset, samples: int | None, precision: str | None) -> Protocol:
    """The protocol called `name`, or the dataset's own; with so many samples, in that precision, where given."""
    protocol: Protocol = registry.protocols.get(name or dataset.default_protocol)
    protocol = replace(protocol, precision=precision or protocol.precision)
    if samples is None:
        return protocol
    if samples < 2:
        raise UsageError(f"samples: {samples} given or asked for, and at least 2 are needed to measure anything")
    return replace(protocol, samples=samples)
