"""The numbers of all tables as one CSV file, for other tools: a line for each row and column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import Column
from trilemma_bench.report.table import Cell, Row, Table
from trilemma_bench.results import save_csv


def write_numbers(every: Sequence[Table], path: Path) -> None:
    """Every number of `every` table with its 95 % interval: what the page shows, before it is rounded.

    table, row: numbers from 1. dataset, protocol, samples, device: of the table. model: as it is called there. seeds:
    how many runs it stands for. pareto: 'front', or 'near' where only differences that are not shown keep it off.
    column: a score or fact by its name in a record; times in seconds, memory in bytes. better: which way. value, low,
    high: empty where there is none. mark: 'best', or 'tied' where no difference from the best is shown. reason: why
    there is no value.
    """
    save_csv(pd.DataFrame(line for number, table in enumerate(every, 1) for line in _lines(number, table)), path)


def _lines(number: int, table: Table) -> Iterator[dict[str, object]]:
    conditions = {
        "table": number,
        "dataset": table.title,
        "protocol": fmt.plain(table.group["protocol"] or ""),
        "samples": table.group["samples measured"],
        "device": table.device,
    }
    for row in table.rows:
        about = {
            "row": row.number,
            "model": row.name,
            "seeds": len(row.runs),
            "reference": row.reference,
            "pareto": "front" if row.front else "near" if row.near else "",
        }
        for column, cell in zip(table.columns, row.cells, strict=True):
            yield {**conditions, **about, **_number(row, column, cell, table.footnotes)}


def _number(row: Row, column: Column, cell: Cell, footnotes: Sequence[str]) -> dict[str, object]:
    interval = None if cell.value is None else column.interval(row.runs)
    low, high = interval or (None, None)
    return {
        "column": column.key,
        "better": column.better or "",
        "value": cell.value,
        "low": low,
        "high": high,
        "mark": cell.mark,
        "reason": footnotes[cell.footnote - 1] if cell.footnote else "",
    }
