"""What may be ranked together, and which runs make one row: those that differ only in the seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trilemma_bench.record import Record
from trilemma_bench.runs import Runs

BELOW = " · "  # between the names of nested conditions
UNRECORDED = "not recorded"
HASH = re.compile("[0-9a-f]{40,64}")

Conditions = tuple[tuple[str, Any], ...]


def is_reference(record: Record) -> bool:
    """Whether this row is the ceiling that real data reach: shown, never ranked."""
    return record.model.reference


@dataclass(frozen=True)
class Group:
    """Records that share a ranking: one dataset, one protocol in every field, and one device (None: nothing timed)."""

    conditions: Conditions
    records: tuple[Record, ...]

    def __getitem__(self, field: str) -> Any:
        return self._fields.get(field)

    @cached_property
    def _fields(self) -> dict[str, Any]:
        return dict(self.conditions)

    def names_below(self, field: str) -> list[str]:
        """The names that the nested `field` has entries for, in their order."""
        inside = [name.split(BELOW) for name, _ in self.conditions if name.startswith(f"{field}{BELOW}")]
        return list(dict.fromkeys(parts[1] for parts in inside))

    def differences(self, other: Group) -> list[str]:
        """The fields that keep the two apart, each as `field: this value, not that value`."""
        return differences(self.conditions, other.conditions)


def differences(one: Conditions, other: Conditions) -> list[str]:
    """The fields in which `one` differs from `other`, each as `field: this value, not that value`."""
    mine, theirs = dict(one), dict(other)
    fields = [field for field in {**mine, **theirs} if mine.get(field) != theirs.get(field)]
    return [f"{field}: {_show(mine, field)}, not {_show(theirs, field)}" for field in fields]


def _show(conditions: dict[str, Any], field: str) -> str:
    """The value, of a hash its beginning: other text may differ at its end alone."""
    value = conditions.get(field)
    text = "absent" if field not in conditions else "none" if value in (None, "") else str(value)
    return f"{text[:12]}…" if HASH.fullmatch(text) else text


def measured_on(record: Record) -> Conditions:
    """What must be equal before two records' scores may be compared: data, samples, and every field of the protocol."""
    protocol = {} if record.protocol is None else record.protocol.model_dump()
    name = protocol.pop("name", None)
    fields = {"dataset": record.dataset.name, "data": record.dataset.fingerprint, "protocol": name, **protocol}
    return (*_flat(fields), ("samples measured", record.samples))


def _flat(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested fields under the names of all they are in, so that each can be named when it differs."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}{BELOW}")
        else:
            yield f"{prefix}{key}", value


def comparable(records: Iterable[Record]) -> list[Group]:
    """The complete records in groups within which ranking is fair, in order of first appearance.

    A record that was not timed, and the real-data reference, belong to every device's group of their dataset and
    protocol: no device had a part in their scores.
    """
    complete = [record for record in records if record.status == "complete"]
    groups: dict[Conditions, list[Record]] = {}
    for record in complete:
        if record.speed is not None and not is_reference(record):
            groups.setdefault((*measured_on(record), ("device", record.speed.device)), []).append(record)
    timed = list(groups)
    for record in complete:
        if record.speed is None or is_reference(record):
            measured = measured_on(record)
            for key in [key for key in timed if key[:-1] == measured] or [(*measured, ("device", None))]:
                groups.setdefault(key, []).append(record)
    return [Group(key, tuple(members)) for key, members in groups.items()]


def over_seeds(records: Iterable[Record]) -> list[Runs]:
    """`records` (complete ones) in sets that differ only in the seed, in order of first appearance.

    A seed counts once, and so do a trained model and a set of samples that was made elsewhere: repetitions say nothing
    about other trainings, and stand apart.
    """
    sets = [runs for same in _alike(records) for runs in _without_repeats(same)]
    return [Runs(tuple(sorted(runs, key=lambda record: record.seed))) for runs in sets]


def _without_repeats(same: Iterable[Record]) -> list[list[Record]]:
    """Each record in the first set that it repeats nothing of."""
    sets: list[list[Record]] = []
    for record in same:
        open_set = next((runs for runs in sets if not _repeats(record, runs)), None)
        if open_set is None:
            sets.append([record])
        else:
            open_set.append(record)
    return sets


def repeats(records: Iterable[Record]) -> list[list[Record]]:
    """`records` in sets that are the same in all, seed and weights (or given samples) included, each oldest first."""
    sets: list[list[Record]] = []
    for same in _alike(sorted(records, key=lambda record: (record.created, record.id))):
        repeated: dict[tuple[int, str], list[Record]] = {}
        for record in same:
            repeated.setdefault((record.seed, record.origin_sha256), []).append(record)
        sets += repeated.values()
    return sets


def _alike(records: Iterable[Record]) -> list[list[Record]]:
    """`records` in sets of equal seed conditions, in order of first appearance. What a record does not say is taken to
    be what the others of its set say, as long as these say the same.
    """
    sets: dict[str, list[Record]] = {}
    for record in records:
        sets.setdefault(repr(_always_recorded(record)), []).append(record)
    return [part for same in sets.values() for part in _parted(same)]


def _parted(same: list[Record]) -> list[list[Record]]:
    """All together, unless two of them say what differs: then apart by that."""
    said = [_recorded_lately(record) for record in same]
    if all(len({str(value) for _, value in field} - {UNRECORDED}) < 2 for field in zip(*said, strict=True)):
        return [same]
    parts: dict[str, list[Record]] = {}
    for record, facts in zip(same, said, strict=True):
        parts.setdefault(repr(facts), []).append(record)
    return list(parts.values())


def _repeats(record: Record, runs: Sequence[Record]) -> bool:
    """Whether the seed of `record`, or what its scores come from, is already among `runs`."""
    origin = record.origin_sha256
    return any(record.seed == other.seed or (origin and origin == other.origin_sha256) for other in runs)


def seed_conditions(record: Record) -> Conditions:
    """All that is equal in runs that differ only in the seed: model and its code, settings, data, protocol, training,
    sampling and timing.
    """
    return (*_always_recorded(record), *_recorded_lately(record))


def _recorded_lately(record: Record) -> Conditions:
    """The conditions that older records lack. What else the sampling was told is among those of the timing."""
    chunk_size = record.sampling.get("chunk_size", UNRECORDED)
    return (("code", record.model.source_sha256 or UNRECORDED), (f"sampling{BELOW}chunk_size", chunk_size))


def _always_recorded(record: Record) -> Conditions:
    trained, speed = record.training, record.speed
    fields = {
        "model": record.model.model_dump(exclude={"source_sha256", "settings"}),
        "settings": {} if record.made_elsewhere else record.model.settings,  # there, the file that they came in
        "trained on": record.dataset.split,
        "training": None if trained is None else trained.model_dump(include={"budget", "settings", "device"}),
        "timing": None
        if speed is None
        else speed.model_dump(include={"device", "batch_size", "precision", "compiled", "cuda_graphs"}),
    }
    return (*measured_on(record), *_flat(fields))
