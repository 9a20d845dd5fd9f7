"""`trilemma-bench choose`: which rows keep a limit, such as a latency, and which of these is the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trilemma_bench.errors import UsageError, unknown_name
from trilemma_bench.record import Record
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import FACTS, Column, busy_note, family
from trilemma_bench.report.notes import separations, training_note
from trilemma_bench.report.table import Cell, Row, Table, cells_of, rank, tables
from trilemma_bench.report.terminal import heading, legend

UNSURE = "not surely"
ACROSS = "the 95 % interval of its time reaches across the limit"


@dataclass(frozen=True)
class Limit:
    """What `axis` must not exceed, in its unit."""

    axis: Column
    value: float

    @classmethod
    def parse(cls, text: str, key: str = "latency_seconds") -> Limit:
        """'20ms', '0.02' or '1.5 s' of a time, else a number. Raises UsageError for what is none, or is not above 0."""
        axis = next(column for column in FACTS if column.key == key)
        units = fmt.UNITS["seconds"] if axis.is_time else {}
        value = fmt.amount(text, units)
        if value is None or value <= 0:
            what = f"a time, as a number of seconds or with a unit ({', '.join(units)})" if units else "a number"
            raise UsageError(f"--within '{text}' is no limit of {axis.title}: give {what}, more than 0")
        return cls(axis, value)

    def __str__(self) -> str:
        return f"{self.axis.title} ≤ {fmt.seconds(self.value) if self.axis.is_time else f'{self.value:,.6g}'}"


@dataclass(frozen=True)
class Candidate:
    """A row beside the limit. value: None where it is not known. cells: one for each column of the choice.

    doubt: why the value may really lie on the other side of the limit; '' where nothing says so.
    """

    row: Row
    value: float | None
    within: bool
    doubt: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Choice:
    """The answer of one table: nothing is ranked across tables.

    columns: the score by which the best is chosen, quality and coverage. rows: the best within the limit first; then
    what is beyond it, the nearest first; then what has no value. Only rows within are ranked, among themselves. apart:
    why other tables of the same dataset are others.
    """

    table: Table
    limit: Limit
    columns: Sequence[Column]
    rows: Sequence[Candidate]
    apart: Sequence[str]

    @property
    def within(self) -> list[Candidate]:
        return [candidate for candidate in self.rows if candidate.within]

    def best(self, column: Column) -> list[Candidate]:
        """The row within the limit that has the best value, or all that have it."""
        ranked = [row for row in self.within if column.value(row.row.record) is not None]
        first = min((rank(each.row.record, column) for each in ranked), default=None)
        return [each for each in ranked if rank(each.row.record, column) == first]

    def tied(self, column: Column) -> list[Candidate]:
        """The rows within the limit that are not shown to be worse than the best."""
        place = self.columns.index(column)
        return [candidate for candidate in self.within if candidate.cells[place].tied]


def choose(records: Iterable[Record], limit: Limit, by: str = "") -> list[Choice]:
    """For each table of comparable records what keeps `limit`.

    by: a score, by its name or its metric's; the one that stands for quality if ''. Tables without it are left out.
    Raises UsageError where no table has it.
    """
    every = tables(records)
    apart = separations([table.group for table in every])
    chosen = [(table, lines, _columns(table, by)) for table, lines in zip(every, apart, strict=True)]
    if by and not any(columns for _, _, columns in chosen):
        raise unknown_name("score", by, {column.key for table in every for column in _scores(table)})
    return [
        Choice(table, limit, columns, _candidates(table, limit, columns), lines)
        for table, lines, columns in chosen
        if columns
    ]


def _scores(table: Table) -> list[Column]:
    return [column for column in table.columns if column.better and column not in FACTS]


def _columns(table: Table, by: str) -> list[Column]:
    """Those of a choice; none where the table lacks what is to be chosen by."""
    goal = next((column for column in _scores(table) if by in (column.key, family(column.key))), None)
    first = goal if by else table.quality
    return list(dict.fromkeys(column for column in (first, table.quality, table.coverage) if column)) if first else []


def _candidates(table: Table, limit: Limit, columns: Sequence[Column]) -> list[Candidate]:
    values = [limit.axis.value(row.record) for row in table.rows]
    keeps = [value is not None and value <= limit.value for value in values]
    within = [row for row, kept in zip(table.rows, keeps, strict=True) if kept]
    others = [row for row, kept in zip(table.rows, keeps, strict=True) if not kept]
    within.sort(key=lambda row: rank(row.record, columns[0]))
    others.sort(key=lambda row: rank(row.record, limit.axis))
    ranked = [cells_of([row.runs for row in within], column, {}) for column in columns]
    cells = [list(line) for line in zip(*ranked, strict=True)]
    cells += [[cells_of([row.runs], column, {})[0] for column in columns] for row in others]
    return [
        Candidate(row, limit.axis.value(row.record), place < len(within), _doubt(row, limit), cells[place])
        for place, row in enumerate([*within, *others])
    ]


def _doubt(row: Row, limit: Limit) -> str:
    interval = None if row.reference else limit.axis.interval(row.runs)
    across = interval is not None and interval[0] <= limit.value < interval[1]
    return busy_note(row.record, limit.axis) or (ACROSS if across else "")


def choices_text(choices: Sequence[Choice]) -> str:
    """What `trilemma-bench choose` prints: the answer of each table, and why there are several."""
    parts = ["\n".join(_answer(choice)) for choice in choices]
    below = legend("\n".join(parts), "its table's rows within the limit")
    unsure = f"\n{UNSURE}: {ACROSS}" if any(each.doubt == ACROSS for choice in choices for each in choice.rows) else ""
    return "\n\n".join(filter(None, [*parts, below + unsure, _why_several(choices)]))


def _why_several(choices: Sequence[Choice]) -> str:
    if len(choices) < 2:
        return ""
    groups = [choice.table.group for choice in choices]
    fields = [name for name in ("dataset", "protocol", "device") if len({str(group[name]) for group in groups}) > 1]
    differ = ", ".join(fields) or "what their notes say"
    return (
        f"{len(choices)} answers, which differ in {differ}: nothing is ranked across tables. For one, name only the "
        "folders of its runs."
    )


def _answer(choice: Choice) -> list[str]:
    head = ["", *(_head(column) for column in (*choice.columns, choice.limit.axis)), "of limit", ""]
    notes = [*training_note(choice.table.training), *_busy_notes(choice), *choice.apart]
    return [
        heading(choice.table),
        _count(choice),
        *filter(None, (_best(choice, column) for column in choice.columns)),
        "",
        *fmt.aligned([head, *(_line(choice, candidate) for candidate in choice.rows)]),
        *(f"note: {note}" for note in notes),
    ]


def _count(choice: Choice) -> str:
    competitors = [candidate for candidate in choice.rows if not candidate.row.reference]
    known = [candidate for candidate in competitors if candidate.value is not None]
    nearest = "" if choice.within or not known else f"; the nearest is {known[0].row.name}"
    return f"{len(choice.within)} of {len(competitors)} rows have {choice.limit}{nearest}"


def _best(choice: Choice, column: Column) -> str:
    """Who is the best of the rows within the limit, and how sure that is; '' where none of them has a value."""
    names, tied = [candidate.row.name for candidate in choice.best(column)], choice.tied(column)
    if not names:
        return ""
    who = fmt.listed(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others"
    more = f" (≈ {len(tied)} more not shown to be worse)" if tied else ""
    return f"best {column.title} of these: {who}{more}"


def _busy_notes(choice: Choice) -> list[str]:
    names: dict[str, list[str]] = {}
    for candidate in choice.rows:
        if candidate.doubt not in ("", ACROSS):
            names.setdefault(candidate.doubt, []).append(candidate.row.name)
    return [f"{fmt.listed(rows)}: {doubt}" for doubt, rows in names.items()]


def _head(column: Column) -> str:
    return f"{column.title}{fmt.ARROWS[column.better]} "


def _line(choice: Choice, candidate: Candidate) -> list[str]:
    row, axis = candidate.row, choice.limit.axis
    value = [fmt.DASH, fmt.DASH]
    if candidate.value is not None:
        detail = axis.detail(row.runs)
        value = [f"{axis.text(candidate.value, row.record)} {detail}".rstrip(), _share(candidate.value, choice.limit)]
    return [row.name, *map(_text, candidate.cells), *value, _verdict(choice, candidate)]


def _text(cell: Cell) -> str:
    """With room for a mark: below it the numbers of other rows keep their place."""
    return f"{cell.text} {cell.detail}".rstrip() + ("*" if cell.best else "≈" if cell.tied else " ")


def _share(value: float, limit: Limit) -> str:
    return f"{fmt.figure(value / limit.value)}×"


def _verdict(choice: Choice, candidate: Candidate) -> str:
    """Where a row is, in words, and whether that is sure; of one without a value why it has none."""
    if candidate.row.reference:
        return "real data"
    if candidate.value is None:
        return fmt.plain(choice.limit.axis.reason(candidate.row.record))
    doubt = {"": "", ACROSS: f", {UNSURE}"}.get(candidate.doubt, ", doubtful")
    return f"{'within' if candidate.within else 'beyond'}{doubt}"


def choices_facts(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """The same as plain data, for JSON; times in seconds."""
    return [_choice_facts(choice) for choice in choices]


def _choice_facts(choice: Choice) -> dict[str, Any]:
    group = choice.table.group
    return {
        "dataset": group["dataset"],
        "protocol": group["protocol"],
        "samples": group["samples measured"],
        "device": group["device"],
        "axis": choice.limit.axis.key,
        "limit": choice.limit.value,
        "by": choice.columns[0].key,
        "rows": [_row_facts(choice, candidate) for candidate in choice.rows],
    }


def _row_facts(choice: Choice, candidate: Candidate) -> dict[str, Any]:
    runs = candidate.row.runs
    scores = {
        column.key: {"value": cell.value, "interval": column.interval(runs), "mark": cell.mark}
        for column, cell in zip(choice.columns, candidate.cells, strict=True)
        if cell.value is not None
    }
    return {
        "name": candidate.row.name,
        "runs": [run.id for run in runs.records],
        "reference": candidate.row.reference,
        "value": candidate.value,
        "interval": None if candidate.value is None else choice.limit.axis.interval(runs),
        "within": candidate.within,
        "doubt": candidate.doubt,
        "scores": scores,
    }
