"""The evaluator: one pass over the samples, and all scores of a protocol from what it gives."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trilemma_bench.contracts import Dataset, FeatureExtractor, ModeRule
from trilemma_bench.datasets.splits import TRAIN_SPLIT
from trilemma_bench.errors import TrilemmaError, described
from trilemma_bench.evaluation.extractors import Extractors
from trilemma_bench.evaluation.facts import protocol_part
from trilemma_bench.evaluation.plan import make_plan
from trilemma_bench.evaluation.preflight import check_memory, missing_scores
from trilemma_bench.evaluation.references import RealSamples, References
from trilemma_bench.evaluation.scoring import make_score
from trilemma_bench.features.extraction import HashedSamples, Outputs, Request, Samples, extract_all
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.memorisation import NearestPairs
from trilemma_bench.metrics.modes import mode_histogram
from trilemma_bench.protocol import Protocol
from trilemma_bench.record import ProtocolPart, Score

MODES = "modes of the dataset"
COPIES = 49  # pairs of a generated and a training sample that are kept to be looked at: a picture of 7×7


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

    files: references to compare with instead of the dataset's own, as `features.exchange` reads them. extractors: those
    that other evaluators on the same device have loaded; by default it loads its own.
    """

    def __init__(
        self,
        dataset: Dataset,
        protocol: Protocol,
        device: torch.device,
        progress: bool = True,
        files: Sequence[Path] = (),
        extractors: Extractors | None = None,
    ) -> None:
        self.device, self.progress = device, progress
        self.plan = make_plan(dataset, protocol, extractors or Extractors(device), files)
        self.missing = missing_scores(self.plan)
        self._measured = self.plan.without(self.missing)
        self._references = References(self._measured, device, progress)
        check_memory(self._measured, self._references.read(), device)

    def evaluate(self, samples: Samples) -> Evaluation:
        """Scores of `samples` (uint8 N×C×H×W or float32 N×D). Raises TrilemmaError where none can be computed.

        A metric that fails takes no other with it: its score is missing, and why.
        """
        hashed, rule = HashedSamples(samples), self.plan.mode_rule
        outputs = extract_all(self._requests(), hashed, progress=self.progress, device=self.device)
        modes = outputs.pop((MODES, "features"))[:, 0].long() if rule else None
        scores, failed, copies = self._scores(outputs, modes)
        missing = {**self.missing, **failed}
        if not scores:
            raise TrilemmaError(f"no score could be computed: {'; '.join(dict.fromkeys(missing.values()))}")
        return Evaluation(
            protocol_part(self.plan, len(samples)),
            scores,
            missing,
            mode_histogram(modes, rule.count).tolist() if rule and modes is not None else None,
            hashed.digest.hexdigest(),
            copies,
        )

    def _requests(self) -> list[Request]:
        """What one pass over the samples has to give."""
        plan = self._measured
        requests: list[Request] = [(plan.extractors[name], outs) for name, outs in plan.outputs_read().items()]
        return [*requests, (ModeNumbers(plan.mode_rule), ("features",))] if plan.mode_rule else requests

    def _scores(
        self, outputs: Outputs, modes: Tensor | None
    ) -> tuple[dict[str, Score], dict[str, str], NearestPairs | None]:
        """(scores, why others failed, the nearest pairs where a metric looks for copies)."""
        scores: dict[str, Score] = {}
        failed: dict[str, str] = {}
        copies: NearestPairs | None = None
        comparison_of = functools.cache(functools.partial(self._comparison, outputs, modes))  # one for each space
        for name, (metric, use) in self._measured.metrics.items():
            others = self.plan.protocol.limits(use)[1]
            try:
                comparison = comparison_of(str(use.extractor), metric.output, use.samples, others)
                score = make_score(metric, comparison)
                if metric.needs == "training" and copies is None:
                    copies = comparison.training_pairs.nearest(COPIES)
                scores[name] = score
            except Exception as error:  # a plugin's mistake must not cost what the samples took to make
                failed[name] = described(error)
        return scores, failed, copies

    def _comparison(
        self, outputs: Outputs, modes: Tensor | None, extractor: str, output: str, count: int | None, others: int | None
    ) -> Comparison:
        """Generated against reference features in one feature space: the first `count`, against `others`."""
        protocol, rule, references = self.plan.protocol, self.plan.mode_rule, self._references
        split = None if self.plan.given else protocol.reference
        generated = outputs[extractor, output][:count].to(self.device)
        return Comparison(
            generated,
            lambda: references.of(RealSamples(split, extractor, output, others)),
            training=lambda: references.of(RealSamples(TRAIN_SPLIT, extractor, output, None)),
            k_precision_recall=protocol.k_precision_recall,
            k_density_coverage=protocol.k_density_coverage,
            kid_subsets=protocol.kid_subsets,
            kid_subset_size=protocol.kid_subset_size,
            modes=None if modes is None else modes[:count].to(self.device),
            mode_count=rule.count if rule else None,
            mode_min_count=rule.min_count(len(generated)) if rule else 1,
        )


class ModeNumbers(FeatureExtractor):
    """The number of each sample's mode, as the pass over the samples gives it: float N×1, exact below 2²⁴."""

    name, dim = MODES, 1

    def __init__(self, rule: ModeRule) -> None:
        self.rule = rule

    def __call__(self, samples: Tensor) -> Tensor:
        return self.rule.assign(samples.cpu()).float()[:, None]
