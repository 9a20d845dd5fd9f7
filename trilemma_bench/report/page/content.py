"""All that the page shows, as JSON. Words and numbers are made here, so that page, Markdown and LaTeX agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trilemma_bench.record import Record
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import LOG_FROM, Column, busy_note
from trilemma_bench.report.curves import curves
from trilemma_bench.report.goals import VOLUME_MEANING, goals_of, reached, volumes
from trilemma_bench.report.notes import LEGEND, protocol_facts, separations
from trilemma_bench.report.page.folders import rounded
from trilemma_bench.report.page.runs import Details
from trilemma_bench.report.published import MEANING, Published, papers_beside, published_columns
from trilemma_bench.report.table import Cell, Row, Table

JSONDict = dict[str, Any]
# shown when all columns are asked for
_SECONDARY = {"images_per_second", "latency_p95_seconds", "peak_memory_bytes", "training_images"}


def page_content(
    records: Sequence[Record],
    paths: Sequence[Path | None],
    every: Sequence[Table],
    skipped: Sequence[str],
    with_published: bool,
) -> JSONDict:
    """records: with their files, where these are known. every: the tables of all groups."""
    details = Details(records, paths)
    _serve_the_front_first(details, every)
    apart = separations([table.group for table in every])
    papers = papers_beside(every) if with_published else []
    return {
        "count": len(records),
        "legend": {**LEGEND, "Hypervolume": VOLUME_MEANING},
        "log_from": LOG_FROM,
        "units": fmt.UNITS,
        "published_meaning": MEANING,
        "groups": [_group(table, lines, details) for table, lines in zip(every, apart, strict=True)],
        "published": {rows[0].dataset: _published(rows) for rows in papers},
        "failed": details.add(record for record in records if record.status != "complete"),
        "skipped": [fmt.plain(line) for line in skipped],
        "runs": details.runs,
        "shared": details.shared,
    }


def _serve_the_front_first(details: Details, every: Sequence[Table]) -> None:
    """The rows that matter most have their pictures on the page, if not all can."""
    for row in sorted((row for table in every for row in table.rows), key=lambda row: not row.front):
        details.add(row.runs.records)


def _group(table: Table, apart: Sequence[str], details: Details) -> JSONDict:
    goals = goals_of(table)
    keys = [column.key for column in table.columns]
    main = {keys[i] for i in table.parts[0]} - _SECONDARY if table.parts else set()
    shares = reached(table.rows, goals) if goals else None
    found = volumes(table)
    return {
        "title": table.title,
        "device": table.device,
        "training": table.training,
        "facts": protocol_facts(table.group),
        "notes": [*(f"{fmt.DASH} {reason}" for reason in table.footnotes), *table.notes, *apart],
        "columns": [{**_column(column), "main": column.key in main} for column in table.columns],
        "goals": {
            name: keys.index(column.key) if column and column.key in keys else None
            for name, column in (("quality", table.quality), ("coverage", table.coverage), ("speed", table.speed))
        },
        "rows": [_row(row, table, details, None if shares is None else shares[i]) for i, row in enumerate(table.rows)],
        "curves": [{"model": curve.model, "rows": [row.number - 1 for row in curve.rows]} for curve in curves(table)],
        "volumes": found
        and {"total": str(found.total), "models": [[name, str(one)] for name, one in found.models if one.value > 0]},
        "dataset": table.group["dataset"],
    }


def _column(column: Column) -> JSONDict:
    return {
        "key": column.key,
        "title": column.title,
        "better": column.better,
        "log": column.log,
        "time": column.is_time,
        "unit": column.unit,
        "meaning": column.meaning,
    }


def _row(row: Row, table: Table, details: Details, shares: Any) -> JSONDict:
    cells = [_cell(cell, column, row, table) for cell, column in zip(row.cells, table.columns, strict=True)]
    return {
        "number": row.number,
        "name": row.name,
        "front": row.front,
        "near": row.near,
        "mark": row.mark,
        "reference": row.reference,
        "runs": details.add(row.runs.records),
        "cells": cells,
        "goodness": None if shares is None or np.isnan(shares).any() else [rounded(share) for share in shares],
    }


def _cell(cell: Cell, column: Column, row: Row, table: Table) -> JSONDict:
    """Only what there is: most cells have neither mark nor reason, and a page may have thousands."""
    interval = None if cell.value is None else column.interval(row.runs)
    facts = {
        "text": cell.text,
        "value": cell.value,
        "detail": cell.detail,
        "interval": interval and [rounded(end) for end in interval],
        "mark": cell.mark,
        "busy": busy_note(row.record, column),
        "reason": table.footnotes[cell.footnote - 1] if cell.footnote else "",
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _published(rows: tuple[Published, ...]) -> JSONDict:
    columns = published_columns(rows)
    return {
        "columns": [_column(column) for column in columns],
        "rows": [
            {
                "name": row.model,
                "values": row.values,
                "texts": [row.text(column.key) for column in columns],
                "from": [row.hardware, row.source, row.note],
            }
            for row in rows
        ],
    }
