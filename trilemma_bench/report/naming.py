"""What rows are called: by their labels, and where these are alike by what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trilemma_bench.grouping import BELOW, UNRECORDED, seed_conditions
from trilemma_bench.report import format as fmt
from trilemma_bench.runs import Runs

Facts = dict[str, str]

# in this order: what most runs of one label differ in comes first
_TABLES = ("settings", "training", "sampling", "timing", "code", "model")
_BUDGET = f"training{BELOW}budget"
# what the label says already, and what follows from the settings
_FOLLOWS = {"model · name", "model · variant", "model · parameters"}


def row_names(rows: Sequence[Runs]) -> list[str]:
    """The label of each row with its number of seeds; where several have the same, with the facts that differ."""
    labels = [fmt.plain(runs.record.label) for runs in rows]
    alike: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        alike.setdefault(label, []).append(i)
    names = labels.copy()
    for label, places in alike.items():
        for i, apart in zip(places, _apart([rows[i] for i in places]), strict=True):
            seeds = f"{len(rows[i])} seeds" if len(rows[i]) > 1 else ""
            names[i] = ", ".join(dict.fromkeys(part for part in (label, *apart, seeds) if part))
    return names


def _apart(rows: Sequence[Runs]) -> list[list[str]]:
    """The fewest facts that tell `rows` from one another, each row's in words: of those that differ, in order."""
    shown: list[list[str]] = [[] for _ in rows]
    for texts in _facts_in_order(rows):
        longer = [[*parts, text] if text else parts for parts, text in zip(shown, texts, strict=True)]
        if _kinds(longer) > _kinds(shown):
            shown = longer
    return shown


def _kinds(texts: Sequence[Sequence[str]]) -> int:
    return len(set(map(tuple, texts)))


def _facts_in_order(rows: Sequence[Runs]) -> Iterator[list[str]]:
    """Fact by fact the words of all rows, '' for one that lacks it: the budget, settings and the like, then the seed,
    and the id for rows that differ in nothing else.

    What all rows have comes before what some lack, such as settings that are younger than a record.
    """
    facts = [_facts(runs) for runs in rows]
    names = dict.fromkeys(name for each in facts for name in each)
    lacking = {name for name in names if any(name not in each for each in facts)}
    for name in sorted(names, key=lambda name: (name != _BUDGET, name in lacking, _TABLES.index(name.split(BELOW)[0]))):
        yield [each.get(name, "") for each in facts]
    yield [f"{len(runs)} seeds" if len(runs) > 1 else f"seed {runs.record.seed}" for runs in rows]
    yield [fmt.plain(runs.record.id)[-16:] for runs in rows]


def _facts(runs: Runs) -> Facts:
    """What was chosen for these runs, by its full name, in words: 'eta=0.5', or a budget as '40s'."""
    conditions = dict(seed_conditions(runs.record))
    if len(runs) == 1 and runs.record.made_elsewhere:
        conditions |= {f"settings{BELOW}{name}": value for name, value in runs.record.model.settings.items()}
    chosen = {name for name in conditions if name.split(BELOW)[0] in _TABLES} - _FOLLOWS
    return {name: _text(name, conditions[name]) for name in conditions if name in chosen and _said(conditions[name])}


def _said(value: Any) -> bool:
    return value not in (None, UNRECORDED)


def _text(name: str, value: Any) -> str:
    if name == "code":
        return f"code {value[:7]}"
    key = name.split(BELOW, 1)[-1].replace(BELOW, ".").removeprefix("settings.")
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return fmt.plain(shown if name == _BUDGET else f"{key}={fmt.short(shown, 24)}")
