"""One group's table: rows in order, the best of each column, the front, and every note that its numbers need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trilemma_bench.record import Record, Score
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import (
    FACTS,
    SECONDS_PER_IMAGE,
    Column,
    coverage_column,
    quality_column,
    score_columns,
)
from trilemma_bench.statistics import BELOW, Group, comparable, is_reference, pareto_front


@dataclass(frozen=True)
class Cell:
    """text: as printed, a dash when missing. footnote: number of the reason why it is missing. detail: an interval."""

    text: str
    value: float | None
    best: bool = False
    footnote: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Row:
    """front: on the Pareto front of quality, coverage and speed. reference: real data, shown but never ranked."""

    number: int
    name: str
    record: Record
    reference: bool
    front: bool
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """A group's rows, best quality first and the reference last, with the columns that stand for the trilemma."""

    group: Group
    columns: list[Column]
    rows: list[Row]
    footnotes: list[str]
    notes: list[str]
    quality: Column | None
    coverage: Column | None
    speed: Column

    @property
    def title(self) -> str:
        return fmt.plain(self.group["dataset"])

    @property
    def device(self) -> str:
        return fmt.plain(self.group["device"] or "not timed")

    @property
    def competitors(self) -> list[Row]:
        return [row for row in self.rows if not row.reference]


def tables(records: Iterable[Record]) -> list[Table]:
    """A table for each group of comparable records."""
    return [make_table(group) for group in comparable(records)]


def make_table(group: Group) -> Table:
    scores = score_columns(group.records)
    columns = [
        *scores,
        *(column for column in FACTS if any(column.value(record) is not None for record in group.records)),
    ]
    quality, coverage = quality_column(scores), coverage_column(scores)
    records = _ordered(group.records, quality)
    axes = [column for column in (quality, coverage, SECONDS_PER_IMAGE) if column]
    front = front_of(records, axes) if len(axes) == 3 else [False] * len(records)
    footnotes: dict[str, int] = {}
    best = {column.key: _best(records, column) for column in columns}
    rows = [
        Row(
            number,
            name,
            record,
            is_reference(record),
            on_front,
            [_cell(record, column, best[column.key], footnotes) for column in columns],
        )
        for number, (name, record, on_front) in enumerate(zip(row_names(records), records, front, strict=True), 1)
    ]
    return Table(group, columns, rows, list(footnotes), _notes(rows), quality, coverage, SECONDS_PER_IMAGE)


def _ordered(records: Iterable[Record], quality: Column | None) -> list[Record]:
    def rank(record: Record) -> tuple[bool, float]:
        value = quality.value(record) if quality else None
        if quality is None or value is None:
            return is_reference(record), float("inf")
        return is_reference(record), value if quality.better == "lower" else -value

    return sorted(records, key=rank)


def front_of(records: Sequence[Record], axes: Sequence[Column]) -> list[bool]:
    """Which records are on the Pareto front of `axes`; the reference and records without a value are not."""
    values = [[_number(record, column) for column in axes] for record in records]
    directions: Any = [column.better for column in axes]
    return [bool(on) for on in pareto_front(np.reshape(values, (-1, len(axes))), directions)]


def _number(record: Record, column: Column) -> float:
    value = None if is_reference(record) else column.value(record)
    return float("nan") if value is None else value


def _best(records: Iterable[Record], column: Column) -> float | None:
    """The best value of two or more competitors; None where nothing can be called the best."""
    values = [value for record in records if not is_reference(record) and (value := column.value(record)) is not None]
    if column.better is None or len(values) < 2 or len(set(values)) == 1:
        return None
    return min(values) if column.better == "lower" else max(values)


def _cell(record: Record, column: Column, best: float | None, footnotes: dict[str, int]) -> Cell:
    value = column.value(record)
    if value is None:
        reason = fmt.plain(column.reason(record))
        return Cell(fmt.DASH, None, footnote=footnotes.setdefault(reason, len(footnotes) + 1))
    is_best = best is not None and value == best and not is_reference(record)
    interval = score.interval if (score := record.scores.get(column.key)) else None
    detail = f"{fmt.figure(interval[0])} to {fmt.figure(interval[1])}" if interval else ""
    return Cell(column.text(value, record), value, is_best, detail=detail)


def row_names(records: Sequence[Record]) -> list[str]:
    """The label of each record, told apart by seed, budget or id where several have the same."""
    labels = [fmt.plain(record.label) for record in records]
    count = Counter(labels)
    return [
        f"{label}, {_apart([r for r, other in zip(records, labels, strict=True) if other == label])(record)}"
        if count[label] > 1
        else label
        for label, record in zip(labels, records, strict=True)
    ]


def _apart(records: Sequence[Record]) -> Callable[[Record], str]:
    """What tells all `records` from one another, in words: the first of their facts that does."""

    def budget(record: Record) -> str:
        return fmt.plain(record.training.budget) if record.training else "untrained"

    facts: list[Callable[[Record], str]] = [lambda record: f"seed {record.seed}", budget]
    differing = (fact for fact in facts if len({fact(record) for record in records}) == len(records))
    return next(differing, lambda record: fmt.plain(record.id)[-16:])


def _notes(rows: Sequence[Row]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in _row_notes(row.record):
            notes.setdefault(fmt.plain(note), []).append(row.name)
    competitors = {row.name for row in rows if not row.reference}
    return [note if competitors <= set(names) else f"{', '.join(names)}: {note}" for note, names in notes.items()]


def _row_notes(record: Record) -> list[str]:
    notes = [f"Data: {record.dataset.note}"] if record.dataset.note else []
    for name, score in record.scores.items():
        notes += [f"{name}: {note}" for note in _score_notes(score)]
    if record.speed and not is_reference(record):
        compiled = ", compiled" if record.speed.compiled else ""
        notes.append(f"Timed in batches of {record.speed.batch_size:,} in {record.speed.precision}{compiled}")
    return notes


def _score_notes(score: Score) -> list[str]:
    notes = [score.note] if score.note else []
    if score.floor is not None:
        notes.append(f"perfect samples have {fmt.figure(score.floor)} at this number of samples")
    if score.interval and score.interval_method:
        notes.append(f"interval by {score.interval_method}")
    return notes


def protocol_facts(group: Group) -> list[tuple[str, str]]:
    """The conditions that all rows of a group share, as (field, value) for people."""
    reference = f"{group['reference_samples'] or 0:,} of the {group['reference_split']} split"
    neighbours = f"k = {group['k_precision_recall']} for precision and recall"
    facts = [
        ("protocol", group["protocol"]),
        ("samples", f"{group['samples'] or group['samples measured']:,} generated against {reference}"),
        ("features", _features(group)),
        ("neighbours", f"{neighbours}, k = {group['k_density_coverage']} for density and coverage"),
        ("modes", group["mode_rule"]),
        ("quantisation", group["quantisation"]),
        ("data", f"fingerprint {fmt.plain(group['data'])[:12]}"),
        ("device", group["device"] or "not timed"),
    ]
    return [(field, fmt.plain(value)) for field, value in facts if value and group["protocol"]]


def _features(group: Group) -> str:
    return "; ".join(_extractor(group, name) for name in group.names_below("extractors"))


def _extractor(group: Group, name: str) -> str:
    weights, resize = (group[BELOW.join(("extractors", name, field))] for field in ("weights_sha256", "resize"))
    shown = "" if resize in (None, "none") else f", resize {resize}"
    return f"{name}{shown}" + (f", weights {weights[:12]}" if weights else "")


def separations(group: Group, others: Iterable[Group]) -> list[str]:
    """Why `group` is not ranked with the groups of the same dataset among `others`: a line each, naming the fields."""
    return [
        f"Not ranked with the {fmt.plain(other['protocol'])} table on {fmt.plain(other['device'] or 'no device')}: "
        + fmt.plain("; ".join(group.differences(other)))
        for other in others
        if other is not group and other["dataset"] == group["dataset"]
    ]
