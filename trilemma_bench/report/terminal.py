"""Tables in plain text, for the end of a command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trilemma_bench.record import Record
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import FACTS, Column, family, score_title
from trilemma_bench.report.notes import FRONT, NEAR, missing_notes
from trilemma_bench.report.table import Cell, Table, tables

WIDTH = 120
# of a name, before a table is broken into more blocks: with the setting that tells it apart
NAME = 32
_FACTS = ("nfe", "seconds_per_image", "latency_seconds", "parameters", "training_seconds")


def terminal_table(records: Iterable[Record]) -> str:
    """The records as aligned text, 120 characters wide at most: tables of each comparable group, then what failed."""
    records = list(records)
    parts = [_group(table) for table in tables(records)]
    if parts:
        parts.append(legend("\n".join(parts)))
    failed = [record for record in records if record.status != "complete"]
    if failed:
        parts.append("\n".join(["did not complete:", *(fmt.short(f"  {failure(record)}", WIDTH) for record in failed)]))
    return "\n\n".join(parts) or "no runs"


def failure(record: Record) -> str:
    """A run that did not complete, in a line: which, how it ended, and why."""
    error = fmt.plain(record.error or "no error was recorded")
    return f"{fmt.plain(record.label)} on {fmt.plain(record.dataset.name)} ({record.status}): {error}"


def legend(text: str, ranked: str = "its table") -> str:
    """What the marks in `text` mean. ranked: of what the best is the best."""
    better = {"↑": "higher is better", "↓": "lower is better"}
    lines = (
        {"*": f"best of {ranked}", "≈": "no difference to the best shown", **better},
        {FRONT: "Pareto front of quality, coverage and speed", NEAR: "off it by differences not shown to be real"},
        {"±": "and [ ]: 95 % interval; of a single run it covers sampling only, of several seeds training too"},
    )
    shown = ("   ".join(f"{mark} {meaning}" for mark, meaning in line.items() if mark in text) for line in lines)
    return "\n".join(filter(None, shown))


def _group(table: Table) -> str:
    blocks = [block for part in table.parts for block in _blocks(table, part)]
    records = [row.record for row in table.rows]
    said = [record.dataset.note for record in records]
    said += [
        f"{score_title(name)}: {score.note}"
        for record in records
        for name, score in record.scores.items()
        if score.note
    ]
    below = [fmt.short(f"note: {fmt.plain(note)}", WIDTH) for note in dict.fromkeys(said) if note]
    reasons = dict.fromkeys(reason for record in records for reason in missing_notes(record))
    below += [f"missing: {fmt.plain(reason)}" for reason in reasons]  # whole: it says what to do
    return "\n".join([heading(table), "\n\n".join("\n".join(_aligned(block)) for block in blocks), *below])


def _blocks(table: Table, part: Sequence[int]) -> list[list[list[str]]]:
    """The lines of cells of one part of the table, names and marks first, broken where they would be too wide."""
    blocks: list[list[list[str]]] = []
    marked = any(row.mark for row in table.rows)
    starts = [[row.name, row.mark] if marked else [row.name] for row in table.rows]
    starts.insert(0, [""] * len(starts[0]))
    for index in part:
        column = table.columns[index]
        if column in FACTS and column.key not in _FACTS:
            continue
        head = f"{column.short}{fmt.ARROWS[column.better]}"
        texts = [head, *(_text(row.cells[index], column) for row in table.rows)]
        if not blocks or _width([*zip(*blocks[-1], strict=True), texts]) > WIDTH:
            blocks.append([[*start] for start in starts])
        for line, text in zip(blocks[-1], texts, strict=True):
            line.append(text)
    return blocks


def _width(columns: Sequence[Sequence[str]]) -> int:
    """Of the narrowest setting: names cut to NAME characters, one space between columns."""
    names = min(NAME, max(map(len, columns[0])))
    return names + sum(1 + max(map(len, column)) for column in columns[1:])


def _text(cell: Cell, column: Column) -> str:
    """Without spaces; the intervals of times are only where there is more room."""
    detail = "" if column.is_time else cell.detail
    return (cell.text + detail).replace(" ", "") + ("*" if cell.best else "≈" if cell.tied else " ")


def heading(table: Table) -> str:
    """What all rows of a table share, in a line."""
    group = table.group
    protocol = [f"protocol {group['protocol']}", f"{group['samples measured']:,} samples"] if group["protocol"] else []
    features = [column.title for column in table.columns if family(column.key) == "fd"]
    return fmt.short(fmt.plain(" · ".join([table.title, *protocol, *features, table.device])), WIDTH)


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, numbers to the right; names are cut where the line would be wider than WIDTH."""
    columns = [_trimmed([line[i] for line in lines]) for i in range(1, len(lines[0]))]
    widths = [max(map(len, column)) for column in columns]
    gap = "  " if sum(widths) + 2 * len(widths) + NAME <= WIDTH else " "
    room = max(8, WIDTH - sum(widths) - len(gap) * len(widths))
    name = min(room, max(len(line[0]) for line in lines))
    numbers = zip(*columns, strict=True)
    rows = (
        [fmt.short(line[0], name).ljust(name), *map(str.rjust, cells, widths)]
        for line, cells in zip(lines, numbers, strict=True)
    )
    return [gap.join(row).rstrip() for row in rows]


def _trimmed(column: list[str]) -> list[str]:
    """Without the room for stars where there are none; below stars, the heading keeps to the numbers."""
    starred = any(cell.endswith(("*", "≈")) for cell in column)
    return [column[0] + " ", *column[1:]] if starred else [cell.rstrip() for cell in column]
