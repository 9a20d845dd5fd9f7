"""The facts that `trilemma-bench list` shows of everything registered."""

from __future__ import annotations

import inspect
from typing import Any

from trilemma_bench import registry
from trilemma_bench.errors import TrilemmaError, unknown_name

KINDS: dict[str, registry.Registry[Any]] = {
    "models": registry.models,
    "datasets": registry.datasets,
    "metrics": registry.metrics,
    "protocols": registry.protocols,
    "extractors": registry.extractors,
}


def catalogue(kind: str) -> list[dict[str, str]]:
    """A row for each registered name: name, package, what it is; or the error of one that cannot be imported."""
    if kind not in KINDS:
        raise unknown_name("list", kind, KINDS)
    return [_row(KINDS[kind], name) for name in KINDS[kind].names()]


def _row(kind: registry.Registry[Any], name: str) -> dict[str, str]:
    try:
        entry, item = kind.entry(name), kind.get(name)
    except TrilemmaError as error:
        return {"name": name, "package": "", "about": "", "error": str(error)}
    return {"name": name, "package": entry.package, "about": _about(item), "error": ""}


def _about(item: Any) -> str:
    title = getattr(item, "title", "")
    if title:
        source = getattr(item, "source", "")
        return f"{title} ({source})" if source else title
    return (inspect.getdoc(item) or "").partition("\n")[0]
