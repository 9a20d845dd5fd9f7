"""What a record says of how its scores were measured."""

from __future__ import annotations

from typing import Any

from trilemma_bench.contracts import FeatureExtractor
from trilemma_bench.evaluation.plan import Plan
from trilemma_bench.evaluation.uses import Chosen, features_name, use_text
from trilemma_bench.features.reference import code_of, is_shipped
from trilemma_bench.metrics.reference import SUBSET, Reference
from trilemma_bench.record import ExtractorPart, ProtocolPart, ReferencePart


def protocol_part(plan: Plan, samples: int) -> ProtocolPart:
    """The plan's protocol as a record of so many samples has it."""
    protocol = plan.protocol
    return ProtocolPart(
        name=protocol.name,
        extractor=protocol.extractor,
        extractors={name: _extractor_part(extractor) for name, extractor in plan.extractors.items()},
        metrics={name: _use_text(plan, chosen) for name, chosen in plan.metrics.items()},
        quantisation=protocol.quantisation,
        **_reference_facts(plan),
        reference_subset=SUBSET,
        samples=samples,
        k_precision_recall=protocol.k_precision_recall,
        k_density_coverage=protocol.k_density_coverage,
        kid=protocol.kid,
        mode_rule=plan.mode_rule.rule if plan.mode_rule else None,
    )


def _extractor_part(extractor: FeatureExtractor) -> ExtractorPart:
    return ExtractorPart(
        weights_sha256=extractor.weights_sha256,
        resize=extractor.resize,
        precision=extractor.precision,
        code=None if is_shipped(extractor) else code_of(extractor),
    )


def _use_text(plan: Plan, chosen: Chosen) -> str:
    given = plan.given_to(*chosen)
    return use_text(*chosen, None if given is None else plan.real_samples(*chosen))


def _reference_facts(plan: Plan) -> dict[str, Any]:
    """Which reference it is, how many samples of it are used, and the sha256 of its content."""
    protocol, dataset = plan.protocol, plan.dataset
    if plan.given:
        content = ", ".join(str(given.sha256) for given in plan.given.values())
        of_protocol = [len(given) for (name, _), given in plan.given.items() if name == protocol.extractor]
        split, size = "given file", max(of_protocol or [len(given) for given in plan.given.values()])
    else:
        split, content = protocol.reference, dataset.fingerprint()
        size = plan.sizes.get(split) or len(dataset.load(split))
    return {
        "reference_split": split,
        "reference_samples": protocol.reference_size(size),
        "reference_sha256": content,
        "references": {features_name(*of): _reference_part(given) for of, given in plan.given.items()},
    }


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
