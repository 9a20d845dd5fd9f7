"""What cannot be measured, whatever the samples will be: known before there are any."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable

import torch

from trilemma_bench.contracts import Metric
from trilemma_bench.environment import free_memory
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.evaluation.plan import Plan
from trilemma_bench.features.reference import DatasetReference, Kind, features_bytes
from trilemma_bench.metrics.reference import MomentsReference
from trilemma_bench.protocol import Use


def missing_scores(plan: Plan) -> dict[str, str]:
    """Score → why it cannot be had, each reason with a warning. Raises UsageError where none can."""
    found = {name: _obstacle(plan, *chosen) for name, chosen in plan.metrics.items()}
    missing = {name: why for name, why in found.items() if why}
    names: dict[str, list[str]] = {}
    for name, why in missing.items():
        names.setdefault(why, []).append(name)
    lines = [f"{', '.join(of_these)}: {why}" for why, of_these in names.items()]
    if len(missing) == len(plan.metrics):
        why = "; ".join(lines) or f"all is of modes, and '{plan.dataset.name}' has none"
        raise UsageError(f"protocol '{plan.protocol.name}' can measure nothing here ({why})")
    for line in lines:
        warnings.warn(f"not measured: {line}", stacklevel=4)
    return missing


def _obstacle(plan: Plan, metric: Metric, use: Use) -> str:
    """Why a metric cannot be computed; '' where nothing is known to stand against."""
    return _unfit_file(plan, metric, use) or _too_few(plan, metric, use)


def _unfit_file(plan: Plan, metric: Metric, use: Use) -> str:
    """Why the given files do not serve a metric; '' where they do, or are not asked."""
    if not plan.given or not metric.reads_reference:
        return ""
    reference = plan.given_to(metric, use)
    if reference is None:
        return f"none of the reference files holds the {metric.output} of '{use.extractor}': give one more"
    count = plan.protocol.reference_size(len(reference), use)
    if not isinstance(reference, MomentsReference) or (metric.needs == "moments" and count == len(reference)):
        return ""
    wanted = "the features" if metric.needs == "features" else f"{count:,} of its {len(reference):,} samples"
    return (
        f"the reference file of '{use.extractor}' holds mean and covariance only, and {wanted} are needed: "
        "give a file of features, as `trilemma-bench reference export --kind features` makes them"
    )


def _too_few(plan: Plan, metric: Metric, use: Use) -> str:
    """Which side has fewer samples than a metric needs; '' where neither has."""
    protocol = plan.protocol
    least, least_real = metric.least(protocol, plan.extractors[str(use.extractor)].dim)
    count, real = min(protocol.samples, protocol.limits(use)[0]), plan.real_samples(metric, use)
    if count < least:
        return f"needs at least {least:,} generated samples, got {count:,}"
    if real is not None and real < least_real:
        return f"needs at least {least_real:,} real samples to compare with, got {real:,}"
    return ""


def check_memory(plan: Plan, real: Iterable[tuple[DatasetReference, Kind]], device: torch.device) -> None:
    """Raises TrilemmaError where what is held of both sides does not fit into what is free, here or on the device.

    real: each reference with what is read of it. Those of given files are mapped, and take nothing.
    """
    samples, read = plan.protocol.samples, plan.outputs_read()
    generated = sum(len(outputs) * features_bytes(samples, plan.extractors[name]) for name, outputs in read.items())
    needed = generated + _bytes_real(real)
    for place in {torch.device("cpu"), device}:
        if needed > (free := free_memory(place)):
            raise TrilemmaError(
                f"the features of {samples:,} generated samples and of the real ones take {needed / 2**30:.1f} GiB, "
                f"and {free / 2**30:.1f} GiB of {place.type} memory are free: choose a --protocol with fewer features "
                "or samples"
            )


def _bytes_real(references: Iterable[tuple[DatasetReference, Kind]]) -> int:
    """The most that references hold at once: all that stays, and what one pass over the data holds besides."""
    staying, passing = 0, Counter[tuple[str, str, int]]()
    for reference, kind in references:
        stays, passes = reference.bytes_held(kind)
        staying += stays
        passing[reference.extractor.name, reference.split, len(reference)] += passes
    return staying + max(passing.values(), default=0)
