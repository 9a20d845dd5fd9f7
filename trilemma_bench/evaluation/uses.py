"""The protocol that is asked for, its metrics by the names of their scores, and in words what each is measured on."""

from __future__ import annotations

from dataclasses import replace

from trilemma_bench import registry
from trilemma_bench.contracts import Dataset, Metric
from trilemma_bench.errors import UsageError
from trilemma_bench.protocol import Protocol, Use
from trilemma_bench.source import HARNESS, features_digest

Chosen = tuple[Metric, Use]  # a metric, and how the protocol uses it


def resolve_protocol(name: str | None, dataset: Dataset, samples: int | None, precision: str | None) -> Protocol:
    """The protocol called `name`, or the dataset's own; with so many samples, in that precision, where given."""
    protocol: Protocol = registry.protocols.get(name or dataset.default_protocol)
    protocol = replace(protocol, precision=precision or protocol.precision)
    if samples is None:
        return protocol
    if samples < 2:
        raise UsageError(f"samples: {samples} given or asked for, and at least 2 are needed to measure anything")
    return replace(protocol, samples=samples)


def metrics_of(protocol: Protocol, has_modes: bool) -> dict[str, Chosen]:
    """The protocol's metrics by the names of their scores. Raises UsageError for a metric that is used twice alike."""
    chosen: dict[str, Chosen] = {}
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
    """What a score is measured on, and how: 'vgg16, 10000 of the reference, distance ≤ radius'; of a metric that is not
    ours with the start of its code's hash, so that numbers of an edited one are ranked apart.

    given: how many samples of a given reference, where there is one.
    """
    parts = [features_name(str(use.extractor), metric.output)]
    parts += [f"{use.samples} samples"] if use.samples else []
    if metric.needs == "training":
        parts += ["all of the train split"]
    elif given is not None:
        parts += [f"{given} of its given reference"]
    elif use.reference_samples:
        parts += [f"{use.reference_samples} of the reference"]
    parts += [metric.convention] if metric.convention else []
    parts += [f"code {code[:12]}"] if (code := _code_of(metric)) else []
    return ", ".join(parts)


def _code_of(metric: Metric) -> str | None:
    """The hash of the metric's source; None for one of ours, and where there is none to read."""
    module = getattr(metric.compute, "func", metric.compute).__module__  # of functools.partial: what it calls
    return None if module.startswith(f"{HARNESS}.") else features_digest([module])


def features_name(extractor: str, output: str) -> str:
    """'inception', or 'inception:spatial' for what is not its first output."""
    return extractor if output == "features" else f"{extractor}:{output}"
