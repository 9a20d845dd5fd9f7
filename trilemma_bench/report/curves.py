"""The curves that a sweep leaves: one trained model, sampled in several ways."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trilemma_bench.report import format as fmt
from trilemma_bench.report.table import Row, Table


@dataclass(frozen=True)
class Curve:
    """Rows of one trained model under different settings of its sampling, those of fewest evaluations first, of as
    many in the order of the settings. A row of further seeds stands in it with their mean.

    model: its name; that of its first row where several curves would have the same.
    """

    model: str
    rows: list[Row]


def curves(table: Table) -> list[Curve]:
    """What a sweep leaves: two rows or more of the same model that share weights, with settings that differ."""
    same: list[tuple[frozenset[str], list[Row]]] = []
    for row in table.competitors:
        if row.record.speed and row.record.model.settings:
            weights, rows = _weights(row), [row]
            joined = [group for group in same if group[0] & weights]
            same = [group for group in same if not group[0] & weights]
            same.append((weights.union(*(w for w, _ in joined)), [r for _, found in joined for r in found] + rows))
    found = [rows for _, rows in same if len({repr(row.record.model.settings) for row in rows}) > 1]
    names = Counter(rows[0].record.model.name for rows in found)
    return [_curve(_by_cost(rows), names) for rows in found]


def _curve(rows: list[Row], names: Counter[str]) -> Curve:
    name = rows[0].record.model.name
    return Curve(fmt.plain(name) if names[name] == 1 else f"{rows[0].name} …", rows)


def _weights(row: Row) -> frozenset[str]:
    model = row.record.model
    return frozenset(repr((model.name, model.plugin, model.parameters, run.origin_sha256)) for run in row.runs.records)


def _by_cost(rows: Sequence[Row]) -> list[Row]:
    """Fewest evaluations first; of as many, as with a temperature, by the settings: times would be in random order."""
    settings = [row.record.model.settings for row in rows]
    varied = [name for name in settings[0] if len({repr(each.get(name)) for each in settings}) > 1]

    def cost(row: Row) -> tuple[float, list[tuple[float, str]]]:
        evaluations = row.record.speed.nfe if row.record.speed else None
        return evaluations or 0.0, [_order(row.record.model.settings.get(name)) for name in varied]

    return sorted(rows, key=cost)


def _order(value: object) -> tuple[float, str]:
    """Numbers by their size, then words."""
    return (value, "") if isinstance(value, (int, float)) else (math.inf, str(value))
