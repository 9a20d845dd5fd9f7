"""Extractors with their weights, loaded once for all the evaluations that share them."""

from __future__ import annotations

import torch

from trilemma_bench import registry
from trilemma_bench.contracts import DataSpec, FeatureExtractor
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.features.extraction import use_precision
from trilemma_bench.protocol import Protocol


class Extractors:
    """The registered extractors on one device. One is loaded for each precision and each shape of data, since it may
    keep what its `check` was told.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._loaded: dict[tuple[str, str, DataSpec], FeatureExtractor] = {}

    def of(self, protocol: Protocol, data: DataSpec) -> dict[str, FeatureExtractor]:
        """Those that the protocol's metrics read, by name. Raises TrilemmaError that says of all of them what they
        lack, or that one cannot measure such data.
        """
        found: dict[str, FeatureExtractor] = {}
        faults: dict[str, None] = {}
        for name in protocol.extractors:
            key = name, protocol.precision, data
            try:
                found[name] = self._loaded[key] = self._loaded.get(key) or self._load(name, protocol.precision)
            except UsageError:
                raise
            except TrilemmaError as error:
                faults[str(error)] = None
        if faults:
            raise TrilemmaError("; ".join(faults))
        for extractor in found.values():
            extractor.check(data)
        return found

    def _load(self, name: str, precision: str) -> FeatureExtractor:
        extractor: FeatureExtractor = registry.extractors.get(name)(self.device)
        if extractor.name != name:
            raise UsageError(f"extractor '{name}' calls itself '{extractor.name}': register it by its own name")
        if precision != "float32":
            use_precision(extractor, precision, self.device)
        return extractor
