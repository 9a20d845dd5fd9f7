"""Numbers from papers: shown beside what was measured here when asked for, never ranked with it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import FACTS, Column, score_column
from trilemma_bench.report.table import Table

FILE = Path(__file__).with_name("published.csv")
MEANING = (
    "Quoted from papers, not measured here: other code, other features, the hardware of the time. They are never ranked"
)
_SCORES = ("fid", "inception_score", "recall", "modes", "mode_kl")
_FACTS = ("nfe", "seconds_per_image", "parameters")


@dataclass(frozen=True)
class Published:
    """values: by the keys of the columns; hardware: of the time; source: where each value is to be read."""

    dataset: str
    model: str
    values: dict[str, float]
    hardware: str
    source: str
    note: str

    def text(self, key: str) -> str:
        """The number as a table prints it; a dash where the paper gives none."""
        value = self.values.get(key)
        if value is None:
            return fmt.DASH
        return fmt.seconds(value) if key == "seconds_per_image" else f"{value:,.6g}"


@cache
def published(dataset: str) -> tuple[Published, ...]:
    """What papers state about `dataset`, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_row(line) for line in csv.DictReader(file) if line["dataset"] == dataset)


def papers_beside(tables: Iterable[Table]) -> list[tuple[Published, ...]]:
    """What papers state about the datasets of `tables`, each dataset once."""
    datasets = dict.fromkeys(table.group["dataset"] for table in tables)
    return [rows for dataset in datasets if (rows := published(dataset))]


def _row(line: dict[str, str]) -> Published:
    values = {key: float(line[key]) for key in (*_SCORES, "nfe", "parameters") if line[key]}
    if line["seconds_per_100_images"]:
        values["seconds_per_image"] = float(line["seconds_per_100_images"]) / 100
    facts = {key: line[key] for key in ("dataset", "model", "hardware", "source", "note")}
    return Published(values=values, **facts)


def published_columns(rows: tuple[Published, ...]) -> list[Column]:
    """The columns that some of `rows` have a value for; no direction is better, as nothing is ranked."""
    columns = [*(score_column(key, []) for key in _SCORES), *(column for column in FACTS if column.key in _FACTS)]
    return [replace(column, better=None) for column in columns if any(column.key in row.values for row in rows)]
