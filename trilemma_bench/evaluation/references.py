"""The real samples that metrics compare with, as features on the device; each computed or read once."""

from __future__ import annotations

from typing import NamedTuple

import torch

from trilemma_bench.contracts import Metric
from trilemma_bench.evaluation.plan import Plan
from trilemma_bench.features.reference import DatasetReference, Kind, Wanted
from trilemma_bench.metrics.reference import DeviceReference, Reference
from trilemma_bench.protocol import Use


class RealSamples(NamedTuple):
    """Those of a split, or of a given file (None), in one feature space: so many of them, or all (None)."""

    split: str | None
    extractor: str
    output: str
    samples: int | None


class References:
    """What the plan's metrics compare with. Nothing is computed before it is asked for."""

    def __init__(self, plan: Plan, device: torch.device, progress: bool) -> None:
        self.plan, self.device, self.progress = plan, device, progress
        self._on_device: dict[RealSamples, Reference] = {}
        self._of_splits: dict[RealSamples, DatasetReference] = {}

    def of(self, real: RealSamples) -> Reference:
        """Features of these samples on the device, with what is derived from them."""
        if real not in self._on_device:
            part = self._of_split(real) if real.split else self._given(real)
            self._on_device[real] = part if self.device.type == "cpu" else DeviceReference(part, self.device)
        return self._on_device[real]

    def read(self) -> list[tuple[DatasetReference, Kind]]:
        """The dataset's references that metrics compare with, and what is read of each."""
        kinds: dict[RealSamples, Kind] = {}
        for metric, use in self.plan.metrics.values():
            real = self._real_of(metric, use)
            if real.split and kinds.get(real) != "features":
                kinds[real] = "moments" if metric.needs == "moments" else "features"
        return [(self._of_split(real), kind) for real, kind in kinds.items()]

    def _real_of(self, metric: Metric, use: Use) -> RealSamples:
        count = None if metric.needs == "training" else self.plan.protocol.limits(use)[1]
        return RealSamples(self.plan.split_of(metric), str(use.extractor), metric.output, count)

    def _given(self, real: RealSamples) -> Reference:
        found = self.plan.given[real.extractor, real.output]
        return found if real.samples is None else found.subset(real.samples)

    def _of_split(self, real: RealSamples) -> DatasetReference:
        if real not in self._of_splits:
            split, name, output, count = real
            extractor, wanted = self.plan.extractors[name], self._wanted(name)
            self._of_splits[real] = DatasetReference(
                self.plan.dataset, str(split), extractor, output, count, wanted, self.device, self.progress
            )
        return self._of_splits[real]

    def _wanted(self, extractor: str) -> Wanted:
        """What the metrics read of the reference: an output's features as soon as one needs more than moments."""
        uses = self.plan.metrics.values()
        read = [(metric.output, metric.needs) for metric, use in uses if use.extractor == extractor]
        whole = {output for output, needs in read if needs in ("features", "training")}
        outputs = whole | {output for output, needs in read if needs == "moments"}
        return {output: "features" if output in whole else "moments" for output in outputs}
