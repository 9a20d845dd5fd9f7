"""What may be ranked together, and which rows no other row beats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trilemma_bench.record import Record

REFERENCE_MODEL = "real-data"
BELOW = " · "  # between the names of nested conditions

Conditions = tuple[tuple[str, Any], ...]


def is_reference(record: Record) -> bool:
    """Whether this row is the ceiling that real data reach: shown, never ranked."""
    return record.model.name == REFERENCE_MODEL


def pareto_front(values: ArrayLike, directions: Sequence[Literal["higher", "lower"]]) -> NDArray[np.bool_]:
    """Which rows of `values` (N×D) no other row dominates: bool N.

    A row dominates another when it is at least as good in every column and better in one; `directions` says what is
    better in each of the D columns. Equal rows are kept together; a row with a NaN is never on the front.
    """
    signs = np.array([1.0 if direction == "higher" else -1.0 for direction in directions])
    gains = np.asarray(values, dtype=float).reshape(-1, len(signs)) * signs
    known = ~np.isnan(gains).any(axis=1)
    return np.array([known[i] and not _dominated(gains[i], gains[known]) for i in range(len(gains))], dtype=bool)


def _dominated(row: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    return bool(((others >= row).all(axis=1) & (others > row).any(axis=1)).any())


@dataclass(frozen=True)
class Group:
    """Records that share a ranking: one dataset, one protocol in every field, and one device (None: nothing timed)."""

    conditions: Conditions
    records: tuple[Record, ...]

    def __getitem__(self, field: str) -> Any:
        return dict(self.conditions).get(field)

    def names_below(self, field: str) -> list[str]:
        """The names that the nested `field` has entries for, in their order."""
        inside = [name.split(BELOW) for name, _ in self.conditions if name.startswith(f"{field}{BELOW}")]
        return list(dict.fromkeys(parts[1] for parts in inside))

    def differences(self, other: Group) -> list[str]:
        """The fields that keep the two apart, each as `field: this value, not that value`."""
        mine, theirs = dict(self.conditions), dict(other.conditions)
        fields = [field for field in {**mine, **theirs} if mine.get(field) != theirs.get(field)]
        return [f"{field}: {_show(mine.get(field))}, not {_show(theirs.get(field))}" for field in fields]


def _show(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _measured_on(record: Record) -> Conditions:
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
            groups.setdefault((*_measured_on(record), ("device", record.speed.device)), []).append(record)
    timed = list(groups)
    for record in complete:
        if record.speed is None or is_reference(record):
            measured = _measured_on(record)
            for key in [key for key in timed if key[:-1] == measured] or [(*measured, ("device", None))]:
                groups.setdefault(key, []).append(record)
    return [Group(key, tuple(members)) for key, members in groups.items()]
