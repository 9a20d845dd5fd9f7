"""One group's table: rows in order, the best of each column, the front, and every note that its numbers need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trilemma_bench.contrasts import LEVEL
from trilemma_bench.fronts import dominance, pareto_front
from trilemma_bench.grouping import Group, comparable, is_reference, over_seeds, repeats
from trilemma_bench.record import Record
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import (
    FACTS,
    SECONDS_PER_IMAGE,
    Column,
    coverage_column,
    main_scores,
    quality_column,
    score_columns,
)
from trilemma_bench.report.naming import row_names
from trilemma_bench.report.notes import (
    FRONT,
    NEAR,
    interval_methods,
    repeat_notes,
    row_notes,
    training_note,
    training_span,
)
from trilemma_bench.runs import Runs


@dataclass(frozen=True)
class Cell:
    """text: as printed, a dash when missing. tied: no difference to the best is shown. detail: the interval.

    second: the best value of the others, where three or more were ranked. footnote: number of the reason why it is
    missing.
    """

    text: str
    value: float | None
    best: bool = False
    second: bool = False
    tied: bool = False
    footnote: int | None = None
    detail: str = ""

    @property
    def mark(self) -> str:
        """'best', 'tied' or nothing."""
        return "best" if self.best else "tied" if self.tied else ""


@dataclass(frozen=True)
class Row:
    """front: on the Pareto front of quality, coverage and speed. near: not on it, but no row that dominates it is shown
    to be better in any of them. reference: real data, shown but never ranked.
    """

    number: int
    name: str
    runs: Runs
    reference: bool
    front: bool
    near: bool
    cells: list[Cell]

    @property
    def mark(self) -> str:
        """Beside its name; `notes.LEGEND` says what it means."""
        return FRONT if self.front else NEAR if self.near else ""

    @property
    def record(self) -> Record:
        """The run, or what several seeds have in the mean."""
        return self.runs.record


@dataclass(frozen=True)
class Table:
    """A group's rows, best quality first and the reference last, with the columns that stand for the trilemma.

    parts: the columns of each table that is printed: the main scores with speed and cost, and the other scores.
    """

    group: Group
    columns: list[Column]
    parts: list[list[int]]
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
        return fmt.device(self.group["device"] or "not timed")

    @property
    def training(self) -> str:
        """How long its rows were trained: '60.0 s–28.0 min'."""
        return training_span(row.record for row in self.rows)

    @property
    def competitors(self) -> list[Row]:
        return [row for row in self.rows if not row.reference]


def tables(records: Iterable[Record]) -> list[Table]:
    """A table for each group of comparable records."""
    return [make_table(group) for group in comparable(records)]


def make_table(group: Group) -> Table:
    repeated = repeats(group.records)
    everyone = over_seeds(same[-1] for same in repeated)
    records = [runs.record for runs in everyone]
    scores = score_columns(records)
    facts = [column for column in FACTS if any(column.value(record) is not None for record in records)]
    columns = [*scores, *facts]
    quality, coverage = quality_column(scores), coverage_column(scores)
    axes = [column for column in (quality, coverage, SECONDS_PER_IMAGE) if column]
    ordered = sorted(everyone, key=lambda runs: rank(runs.record, quality))
    # alone, a row is the front of nothing
    whole = len(axes) == 3 and sum(not is_reference(record) for record in records) > 1
    front = front_of([runs.record for runs in ordered], axes) if whole else [False] * len(ordered)
    near = near_front(ordered, axes) if whole else [False] * len(ordered)
    footnotes: dict[str, int] = {}
    cells = [cells_of(ordered, column, footnotes) for column in columns]
    rows = [
        Row(i + 1, name, runs, is_reference(runs.record), front[i], near[i], [column[i] for column in cells])
        for i, (name, runs) in enumerate(zip(row_names(ordered), ordered, strict=True))
    ]
    notes = [
        *training_note(training_span(records)),
        *row_notes((row.name, row.record) for row in rows),
        *repeat_notes(((row.name, row.runs) for row in rows), repeated),
        *interval_methods(records, scores),
    ]
    return Table(
        group, columns, _parts(scores, facts), rows, list(footnotes), notes, quality, coverage, SECONDS_PER_IMAGE
    )


def _parts(scores: Sequence[Column], facts: Sequence[Column]) -> list[list[int]]:
    shown = {column.key for column in main_scores(scores)}
    main = [i for i, column in enumerate(scores) if column.key in shown]
    rest = [i for i, column in enumerate(scores) if column.key not in shown]
    return [part for part in ([*main, *range(len(scores), len(scores) + len(facts))], rest) if part]


def rank(record: Record, column: Column | None) -> tuple[bool, float]:
    """Sorts the best of `column` first, then those without a value, then the reference."""
    value = column.value(record) if column else None
    if column is None or value is None:
        return is_reference(record), float("inf")
    return is_reference(record), -value if column.better == "higher" else value


def front_of(records: Sequence[Record], axes: Sequence[Column]) -> list[bool]:
    """Which records are on the Pareto front of `axes`; the reference and records without a value are not."""
    return [bool(on) for on in pareto_front(*_points(records, axes))]


def near_front(rows: Sequence[Runs], axes: Sequence[Column]) -> list[bool]:
    """Which rows are dominated, but by none that is shown to be better in one of `axes`."""
    points, directions = _points([runs.record for runs in rows], axes)
    level = _level_of_rows(len(rows)) / len(axes)
    by = [np.flatnonzero(line).tolist() for line in dominance(points, directions)]
    return [
        bool(others) and not any(_shown_better(rows[j], rows[i], axes, level) for j in others)
        for i, others in enumerate(by)
    ]


def _shown_better(one: Runs, other: Runs, axes: Sequence[Column], level: float) -> bool:
    """Whether `one`, which is nowhere worse, is better in one of `axes`; a value without a known error is exact."""
    better = [column for column in axes if column.value(one.record) != column.value(other.record)]
    found = [_p(column, one, other) for column in better]
    return any(p is None or p < level for p in found)


def _p(column: Column, one: Runs, other: Runs) -> float | None:
    """Of their difference; None where no error is known. Times from a busy machine show none."""
    if column.contrast is None:
        return None
    contrast = column.contrast(one, other)
    return 1.0 if contrast.disturbed else contrast.p


def _level_of_rows(rows: int) -> float:
    """What a two-sided p has to be below, so that the truly best of so many rows is told from the one that looks best
    in LEVEL of all tables at most: Gupta's (1965) subset selection, one-sided, by Bonferroni.
    """
    return 2 * LEVEL / max(2, rows - 1)


def _points(records: Sequence[Record], axes: Sequence[Column]) -> tuple[NDArray[np.float64], Any]:
    """Their values (N×axes) and what is better in each axis."""
    values = [[_number(record, column) for column in axes] for record in records]
    return np.reshape(np.array(values, dtype=float), (-1, len(axes))), [column.better for column in axes]


def _number(record: Record, column: Column) -> float:
    value = None if is_reference(record) else column.value(record)
    return float("nan") if value is None else value


def cells_of(rows: Sequence[Runs], column: Column, footnotes: dict[str, int]) -> list[Cell]:
    """What `rows` have in a column, ranked among themselves. footnotes: reasons and their numbers, to be added to."""
    best, second = _leading([runs.record for runs in rows], column)
    tied = _ties(rows, column, best)
    return [
        _cell(runs, column, _has(runs, column, best), _has(runs, column, second), tie, footnotes)
        for runs, tie in zip(rows, tied, strict=True)
    ]


def _leading(records: Iterable[Record], column: Column) -> tuple[float | None, float | None]:
    """The best value of two or more competitors and the second of three or more; None where none can be called so."""
    values = [value for record in records if not is_reference(record) and (value := column.value(record)) is not None]
    distinct = sorted(set(values), reverse=column.better == "higher")
    if column.better is None or len(distinct) < 2:
        return None, None
    return distinct[0], distinct[1] if len(values) > 2 else None


def _has(runs: Runs, column: Column, value: float | None) -> bool:
    return value is not None and column.value(runs.record) == value and not is_reference(runs.record)


def _ties(rows: Sequence[Runs], column: Column, best: float | None) -> list[bool]:
    """Which rows may be the best as well as the one whose value is: the truly best is among them, but for LEVEL.

    A row that cannot be tested is not tied.
    """
    ranked = [runs for runs in rows if not is_reference(runs.record) and column.value(runs.record) is not None]
    leader = next((runs for runs in ranked if _has(runs, column, best)), None)
    if leader is None or column.contrast is None:
        return [False] * len(rows)
    level = _level_of_rows(len(ranked))
    others = {id(runs): _p(column, leader, runs) for runs in ranked if not _has(runs, column, best)}
    return [(p := others.get(id(runs))) is not None and p >= level for runs in rows]


def _cell(runs: Runs, column: Column, best: bool, second: bool, tied: bool, footnotes: dict[str, int]) -> Cell:
    record = runs.record
    value = column.value(record)
    if value is None:
        reason = fmt.plain(column.reason(record))
        return Cell(fmt.DASH, None, footnote=footnotes.setdefault(reason, len(footnotes) + 1))
    return Cell(column.text(value, record), value, best, second, tied, detail=column.detail(runs))
