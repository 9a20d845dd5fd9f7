"""Samples → features → scores, under a protocol."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trilemma_bench import registry, seeding
from trilemma_bench.contracts import Dataset, FeatureExtractor, Metric, ModeRule
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.features.extraction import extract
from trilemma_bench.features.reference import reference_features
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.modes import mode_histogram, mode_kl_floor
from trilemma_bench.protocol import Protocol
from trilemma_bench.record import ProtocolPart, Score


@dataclass(frozen=True)
class Evaluation:
    """What measuring gave. missing: score → why it could not be computed."""

    protocol: ProtocolPart
    scores: dict[str, Score]
    missing: dict[str, str]
    mode_histogram: list[int] | None
    samples_sha256: str


class Evaluator:
    """Measures samples against one dataset under one protocol; whatever is missing is reported on construction."""

    def __init__(self, dataset: Dataset, protocol: Protocol, device: torch.device, progress: bool = True) -> None:
        self.dataset, self.device, self.progress = dataset, device, progress
        if protocol.reference not in dataset.splits:
            raise UsageError(
                f"protocol '{protocol.name}' compares with split '{protocol.reference}', "
                f"which '{dataset.name}' lacks; it has {', '.join(dataset.splits)}"
            )
        self.extractor: FeatureExtractor = registry.extractors.get(protocol.extractor)(device)
        self.extractor.check(dataset.spec)
        self.mode_rule = dataset.mode_rule()
        self.protocol = protocol
        self.metrics = [registry.metrics.get(name) for name in protocol.metrics]
        if self.mode_rule is None:
            self.metrics = [metric for metric in self.metrics if metric.needs != "modes"]

    def evaluate(self, samples: Tensor) -> Evaluation:
        """Scores of `samples` (uint8 N×C×H×W or float32 N×D). Raises TrilemmaError where none can be computed."""
        reference = self._reference()
        features = extract(self.extractor, samples, progress=self.progress, device=self.device)
        modes = self.mode_rule.assign(samples).cpu() if self.mode_rule else None
        comparison = Comparison(
            features,
            reference,
            k_precision_recall=self.protocol.k_precision_recall,
            k_density_coverage=self.protocol.k_density_coverage,
            modes=modes,
            mode_count=self.mode_rule.count if self.mode_rule else None,
            mode_min_count=self.mode_rule.min_count(len(samples)) if self.mode_rule else 1,
        )
        scores, missing = self._scores(comparison)
        histogram = (
            mode_histogram(modes, self.mode_rule.count).tolist() if self.mode_rule and modes is not None else None
        )
        part = self._protocol_part(len(samples), len(reference))
        return Evaluation(part, scores, missing, histogram, content_sha256(samples))

    def _reference(self) -> Tensor:
        """The reference features: all of the split, or a fixed random subset of the protocol's size."""
        split = self.protocol.reference
        features = reference_features(self.dataset, split, self.extractor, self.device, self.progress)
        count = self.protocol.reference_samples
        if count is None or count >= len(features):
            return features
        return features[seeding.permutation(len(features), "reference")[:count]]

    def _scores(self, comparison: Comparison) -> tuple[dict[str, Score], dict[str, str]]:
        scores, missing = {}, {}
        for metric in self.metrics:
            name = metric.score_name(self.protocol.extractor)
            try:
                scores[name] = make_score(metric, comparison, self.mode_rule)
            except TrilemmaError as error:
                missing[name] = str(error)
        return scores, missing

    def _protocol_part(self, samples: int, reference_samples: int) -> ProtocolPart:
        return ProtocolPart(
            name=self.protocol.name,
            extractor=self.protocol.extractor,
            weights_sha256=self.extractor.weights_sha256,
            resize=self.extractor.resize,
            quantisation=self.protocol.quantisation,
            reference_split=self.protocol.reference,
            reference_samples=reference_samples,
            samples=samples,
            k_precision_recall=self.protocol.k_precision_recall,
            k_density_coverage=self.protocol.k_density_coverage,
            mode_rule=self.mode_rule.rule if self.mode_rule else None,
        )


def make_score(metric: Metric, comparison: Comparison, rule: ModeRule | None) -> Score:
    """The metric's value with its facts. Raises TrilemmaError when the value is not a finite number."""
    value = metric.compute(comparison)
    if not math.isfinite(value):
        raise TrilemmaError(f"{metric.name} is {value}")
    facts: dict[str, Any] = {"better": metric.better, "unit": metric.unit, "title": metric.title}
    samples, dim = comparison.generated.shape
    if metric.name == "mode_kl" and rule:
        facts["floor"] = mode_kl_floor(samples, rule.count)
    if metric.name == "modes" and rule:
        facts["ideal"] = float(rule.count)
    if metric.name == "fd" and min(samples, len(comparison.reference)) <= dim:
        facts["note"] = f"strongly biased: no more samples than the {dim} feature dimensions"
    return Score(value=value, **facts)


def resolve_protocol(name: str | None, dataset: Dataset, samples: int | None) -> Protocol:
    """The protocol called `name`, or the dataset's own, for `samples` generated samples where that is given."""
    protocol: Protocol = registry.protocols.get(name or dataset.default_protocol)
    if samples is None:
        return protocol
    if samples < 2:
        raise UsageError(f"--samples {samples}: at least 2 are needed to measure anything")
    return replace(protocol, samples=samples)


def content_sha256(samples: Tensor) -> str:
    """sha256 (hex) of the samples' bytes: equal samples, equal hash."""
    return hashlib.sha256(samples.contiguous().numpy()).hexdigest()
