"""Tables in plain text, for the end of a command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trilemma_bench.record import Record
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import FACTS, Column, score_columns
from trilemma_bench.report.table import Row, Table, row_names, tables

WIDTH = 120
_FACTS = ("nfe", "seconds_per_image", "latency_seconds", "parameters", "training_seconds")
_SCORES = ("fid", "precision", "recall", "density", "coverage", "modes", "high_quality")


def terminal_table(records: Iterable[Record]) -> str:
    """The records as aligned text of at most 120 columns: a table for each comparable group, then what failed."""
    records = list(records)
    parts = [_group(table) for table in tables(records)]
    if parts:
        parts.append("* best of its table   ↑ higher is better   ↓ lower is better   (real-data is the reference)")
    failed = [record for record in records if record.status != "complete"]
    if failed:
        parts.append("\n".join(["did not complete:", *(_clip(f"  {failure(record)}", WIDTH) for record in failed)]))
    return "\n\n".join(parts) or "no runs"


def failure(record: Record) -> str:
    """A run that did not complete, in a line: which, how it ended, and why."""
    error = fmt.plain(record.error or "no error was recorded")
    return f"{fmt.plain(record.label)} on {fmt.plain(record.dataset.name)} ({record.status}): {error}"


def format_row(record: Record) -> str:
    """One record in one line: its name, its scores, its speed."""
    if record.status != "complete":
        return failure(record)
    columns = [*score_columns([record]), *(column for column in FACTS if column.key in _FACTS)]
    values = [(column, column.value(record)) for column in columns]
    shown = [f"{column.title} {column.text(value, record)}" for column, value in values if value is not None]
    head = f"{row_names([record])[0]} on {fmt.plain(record.dataset.name)}"
    return f"{head}: {', '.join(shown) or 'no scores'}"


def _group(table: Table) -> str:
    shown = [(i, column) for i, column in enumerate(table.columns) if _is_shown(column)]
    heads = ["", *(f"{column.short}{fmt.ARROWS[column.better]}" for _, column in shown)]
    body = [[row.name, *(_text(row, i) for i, _ in shown)] for row in table.rows]
    notes = [f"  note: {note}" for note in dict.fromkeys(row.record.dataset.note for row in table.rows) if note]
    return "\n".join([*_heading(table), *_aligned([heads, *body]), *(_clip(fmt.plain(n), WIDTH) for n in notes)])


def _is_shown(column: Column) -> bool:
    return column.key in _FACTS or column.key in _SCORES or column.key.startswith("fd_")


def _text(row: Row, index: int) -> str:
    cell = row.cells[index]
    return cell.text.replace(" ", "") + ("*" if cell.best else " ")


def _heading(table: Table) -> list[str]:
    group = table.group
    protocol = [f"protocol {group['protocol']}", f"{group['samples measured']:,} samples"] if group["protocol"] else []
    features = [column.title for column in table.columns if column.key.startswith("fd_")]
    return [_clip(fmt.plain(" · ".join([table.title, *protocol, *features, table.device])), WIDTH)]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, numbers to the right; names are cut where the line would be wider than WIDTH."""
    columns = [_trimmed([line[i] for line in lines]) for i in range(1, len(lines[0]))]
    widths = [max(map(len, column)) for column in columns]
    gap = "  " if sum(widths) + 2 * len(widths) + 20 <= WIDTH else " "
    room = max(8, WIDTH - sum(widths) - len(gap) * len(widths))
    name = min(room, max(len(line[0]) for line in lines))
    numbers = zip(*columns, strict=True)
    rows = (
        [_clip(line[0], name).ljust(name), *map(str.rjust, cells, widths)]
        for line, cells in zip(lines, numbers, strict=True)
    )
    return [gap.join(row).rstrip() for row in rows]


def _trimmed(column: list[str]) -> list[str]:
    """Without the room for stars where there are none; below stars, the heading keeps to the numbers."""
    starred = any(cell.endswith("*") for cell in column)
    return [column[0] + " ", *column[1:]] if starred else [cell.rstrip() for cell in column]


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
