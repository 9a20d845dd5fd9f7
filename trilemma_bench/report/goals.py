"""What a table's rows reach in the trilemma: how near each is to the best, and how much of the space they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trilemma_bench.fronts import hypervolume, pareto_front
from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import Column
from trilemma_bench.report.table import Row, Table
from trilemma_bench.statistics import Z95

Floats = NDArray[np.float64]

VOLUME_MEANING = (
    "the share of the space of all three goals in which some row is at least as good. Times and Fréchet "
    "distances count on logarithmic scales from a tenth of the range beyond the worst of these rows (or ten times the "
    "best) to the best, on linear ones where some value is 0 or less, shares from nothing to the best: it belongs to "
    "these rows and is no score to carry elsewhere. [ ]: 95 % of what it is where the values of its front are drawn "
    "within their intervals"
)
# a range reaches a tenth beyond its worst row, which else would have no volume, however good it is in other goals
_BEYOND = 1.1
_DRAWS = 200


def goals_of(table: Table) -> list[Column]:
    """The columns that stand for quality, coverage and speed; empty unless the table has all three."""
    columns = [column for column in (table.quality, table.coverage, table.speed) if column]
    return columns if len(columns) == 3 else []


def values(rows: Sequence[Row], column: Column) -> Floats:
    """NaN where a row has none."""
    numbers = (column.value(row.record) for row in rows)
    return np.array([np.nan if number is None else number for number in numbers], dtype=float)


def goodness(column: Column, numbers: Floats) -> Floats:
    """How near each value comes to the best: 1 for it, 0 a tenth of the range beyond the worst.

    The range reaches to what is ten times worse than the best at least. Times and Fréchet distances on a logarithmic
    scale, on a linear one where some value is 0 or less; where more is better, the share of the best. NaN stays NaN.
    """
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return numbers
    if column.better == "higher":
        return np.clip(numbers / (known.max() or 1.0), 0, 1)
    if (known > 0).all():
        decades = np.log10(numbers / known.min())
        return 1 - decades / (_BEYOND * max(1.0, float(np.nanmax(decades))))
    return 1 - (numbers - known.min()) / (_BEYOND * (np.ptp(known) or 1.0))


def reached(rows: Sequence[Row], goals: Sequence[Column]) -> Floats:
    """The goodness of each row in each goal: N×goals."""
    return np.stack([goodness(column, values(rows, column)) for column in goals], axis=1)


@dataclass(frozen=True)
class Volume:
    """A hypervolume, and 95 % of what it is where the values of its front are drawn within their intervals."""

    value: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        return "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * share for share in (self.value, *self.interval)))


@dataclass(frozen=True)
class Volumes:
    """Hypervolumes of all competitors together and of each model by itself, the largest first."""

    total: Volume
    models: list[tuple[str, Volume]]


def volumes(table: Table) -> Volumes | None:
    """None where the table lacks a goal, or has less than two rows with all: a row alone is the best of all."""
    goals = goals_of(table)
    if not goals or not table.competitors:
        return None
    shares, drawn = reached(table.competitors, goals), _drawn(table.competitors, goals)
    whole = np.asarray(~np.isnan(shares).any(axis=1))
    if whole.sum() < 2:
        return None
    names = np.array([fmt.plain(row.record.model.name) for row in table.competitors])
    models = [(str(name), _volume(shares, drawn, whole & (names == name))) for name in dict.fromkeys(names)]
    return Volumes(_volume(shares, drawn, whole), sorted(models, key=lambda item: -item[1].value))


def _volume(shares: Floats, drawn: Floats, which: NDArray[np.bool_]) -> Volume:
    front = np.flatnonzero(which)[pareto_front(shares[which], ["higher"] * shares.shape[1])]
    low, high = np.quantile(hypervolume(drawn[:, front]), [0.025, 0.975])
    return Volume(float(hypervolume(shares[front])), (float(low), float(high)))


def _drawn(rows: Sequence[Row], goals: Sequence[Column]) -> Floats:
    """The goodness of rows whose values are drawn within their intervals: draws×N×goals."""
    rng = np.random.default_rng(0)
    drawn = [_drawn_values(rows, column, rng) for column in goals]
    shares = [[goodness(column, line) for line in lines] for column, lines in zip(goals, drawn, strict=True)]
    return np.moveaxis(np.array(shares), 0, -1)


def _drawn_values(rows: Sequence[Row], column: Column, rng: np.random.Generator) -> Floats:
    """Draws×N, normal: of logarithms where their goodness is of these, else no farther than the intervals reach."""
    numbers = values(rows, column)
    low, high = np.array([column.interval(row.runs) or (n, n) for row, n in zip(rows, numbers, strict=True)]).T
    normal = rng.standard_normal((_DRAWS, len(rows))) / Z95
    if column.better == "lower" and not (numbers <= 0).any():
        return np.asarray(numbers * np.exp(normal * np.log(high / numbers)))
    return np.clip(numbers + normal * np.where(normal > 0, high - numbers, numbers - low), low, high)
