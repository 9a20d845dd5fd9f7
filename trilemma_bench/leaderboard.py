"""Whether a record may stand in a leaderboard: whole, by a known protocol, of samples that nobody else claims."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from trilemma_bench import registry
from trilemma_bench.contracts import Dataset
from trilemma_bench.datasets import open_dataset
from trilemma_bench.datasets.folder import WHOLE
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.evaluation.uses import metrics_of, use_text
from trilemma_bench.protocol import FEATURE_PRECISIONS, Protocol
from trilemma_bench.record import DatasetPart, ProtocolPart, Record
from trilemma_bench.results import find_records
from trilemma_bench.weights import sha256_of

HASH = re.compile(r"[0-9a-f]{64}")
PROTOCOL_FIELDS = ("extractor", "quantisation", "k_precision_recall", "k_density_coverage", "kid")


def check_records(dirs: Sequence[Path]) -> tuple[int, list[str]]:
    """(how many records lie below `dirs`, a line for each thing that is wrong: its file, what, what to do)."""
    found = find_records(dirs)
    lines = list(found.skipped)
    claimed: dict[str, Path] = {}
    for path, record in found.records:
        lines += [f"{path}: {problem}" for problem in _problems(path, record)]
        if record.samples_sha256 and (first := claimed.setdefault(record.samples_sha256, path)) != path:
            lines.append(f"{path}: its samples are those of {first}: keep one of the two")
    return len(found.records), lines


def _problems(path: Path, record: Record) -> Iterator[str]:
    if record.status != "complete" or record.protocol is None:
        yield f"the run is {record.status}: only complete runs count"
        return
    if path.absolute().parts[-4:-1] != record.place.parts:
        yield f"it does not lie in {record.place}/ as its content says: move it"
    if not HASH.fullmatch(record.samples_sha256 or ""):
        yield "no hash of its samples: run it again with this version"
    yield from _protocol_problems(record, record.protocol)
    yield from _score_problems(record)
    yield from _content_problems(path, record)


def _protocol_problems(record: Record, protocol: ProtocolPart) -> Iterator[str]:
    """What differs from the registered protocol of that name."""
    try:
        known: Protocol = registry.protocols.get(protocol.name)
    except TrilemmaError as error:
        yield str(error)
        return
    yield from _reference_problems(record, protocol, known)
    yield from _metric_problems(protocol, known)
    for field in PROTOCOL_FIELDS:
        if (here := getattr(protocol, field)) != (there := getattr(known, field)):
            yield f"{field} = {here}, but protocol '{known.name}' has {there}"
    for name, part in protocol.extractors.items():
        if part.precision in FEATURE_PRECISIONS and part.precision != known.precision:
            yield f"features of '{name}' in {part.precision}, but protocol '{known.name}' has {known.precision}"
    # real data are finite: there may be fewer than a protocol asks for
    if protocol.samples != known.samples and not record.model.reference:
        yield f"{protocol.samples:,} samples, but protocol '{known.name}' has {known.samples:,}"


def _reference_problems(record: Record, protocol: ProtocolPart, known: Protocol) -> Iterator[str]:
    """What was not compared with the dataset's own samples, or with other than the protocol's."""
    split = protocol.reference_split
    if protocol.references or split not in (known.reference, WHOLE):
        what = "given files" if protocol.references else f"the {split} split"
        yield f"measured against {what}, but protocol '{known.name}' compares with the {known.reference} split"
        return
    if protocol.reference_sha256 != record.dataset.fingerprint:
        yield f"reference_sha256 = {protocol.reference_sha256[:12]}…, not the fingerprint of {record.dataset.name}"
    size = _size_of(record, split)
    if size and protocol.reference_samples != (expected := known.reference_size(size)):
        yield f"{protocol.reference_samples:,} reference samples, but protocol '{known.name}' has {expected:,}"


def _size_of(record: Record, split: str) -> int | None:
    """The samples in a split of the record's dataset; None where the data would have to be fetched to know."""
    if split == record.dataset.split:
        return record.dataset.size
    try:
        dataset = open_dataset(record.dataset.name)
        return len(dataset.load(split)) if _is_bundled(dataset) else None
    except TrilemmaError:
        return None  # `_content_problems` says so


def _is_bundled(dataset: Dataset) -> bool:
    """Whether its content is at hand everywhere."""
    return dataset.available().startswith("bundled")


def _metric_problems(protocol: ProtocolPart, known: Protocol) -> Iterator[str]:
    """Which metrics were measured on something else, or in another way."""
    if protocol.references:
        return
    try:
        uses = metrics_of(known, has_modes=protocol.mode_rule is not None)
    except TrilemmaError as error:
        yield str(error)
        return
    expected = {name: use_text(metric, use) for name, (metric, use) in uses.items()}
    for name in {**expected, **protocol.metrics}:
        here, there = (metrics.get(name, "not measured") for metrics in (protocol.metrics, expected))
        if here != there:
            yield f"{name}: {here}, but protocol '{known.name}' has: {there}"


def _score_problems(record: Record) -> Iterator[str]:
    if not record.scores:
        yield "it has no scores"
    for name, score in record.scores.items():
        if score.interval is None and score.standard_error is not None:
            yield f"{name} has a standard error, but no interval: run it again with this version"
        elif score.interval is None and not score.note:
            yield f"{name} has no interval, and no note that says why"


def _content_problems(path: Path, record: Record) -> Iterator[str]:
    """What does not match the data and the files that are at hand: own images are not."""
    if record.dataset.name in registry.datasets.names():
        yield from _data_problems(record.dataset)
    training = record.training
    if (
        training
        and (file := path.parent / training.checkpoint).is_file()
        and sha256_of(file) != training.checkpoint_sha256
    ):
        yield f"{file.name} beside it is not the checkpoint that was sampled"


def _data_problems(part: DatasetPart) -> Iterator[str]:
    try:
        dataset = open_dataset(part.name)
        if _is_bundled(dataset) and dataset.fingerprint() != part.fingerprint:
            yield f"its dataset has the fingerprint {part.fingerprint[:12]}…, not that of {part.name}"
    except TrilemmaError as error:
        yield str(error)
