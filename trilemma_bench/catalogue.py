"""The facts that `trilemma-bench list` shows of everything registered, and of the shipped suites."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from trilemma_bench import registry
from trilemma_bench.config import configs_dir
from trilemma_bench.errors import TrilemmaError, unknown_name
from trilemma_bench.suite import read_suite

KINDS: dict[str, registry.Registry] = {
    "models": registry.models,
    "datasets": registry.datasets,
    "metrics": registry.metrics,
    "protocols": registry.protocols,
    "extractors": registry.extractors,
}
SUITES = "suites"


def catalogue(kind: str) -> list[dict[str, str]]:
    """A row for each registered name: name, package, what it is; or the error of one that cannot be imported."""
    if kind == SUITES:
        return [_suite_row(path) for path in sorted((configs_dir() / SUITES).glob("*.toml"))]
    if kind not in KINDS:
        raise unknown_name("list", kind, [*KINDS, SUITES])
    return [_row(KINDS[kind], name) for name in KINDS[kind].names()]


def _row(kind: registry.Registry, name: str) -> dict[str, str]:
    try:
        entry, item = kind.entry(name), kind.get(name)
    except TrilemmaError as error:
        return {"name": name, "package": "", "about": "", "error": str(error)}
    return {"name": name, "package": entry.package, "about": _about(item), "error": ""}


def _suite_row(path: Path) -> dict[str, str]:
    suite = read_suite(path)
    about = f"{suite.title} ({len(suite.run)} runs)"
    return {"name": path.stem, "package": "trilemma-bench", "about": about, "error": ""}


def _about(item: Any) -> str:
    title = getattr(item, "title", "")
    if title:
        source = getattr(item, "source", "")
        return f"{title} ({source})" if source else title
    own = vars(item if isinstance(item, type) else type(item)).get("__doc__")  # not what it inherits
    return inspect.cleandoc(own or "").partition("\n")[0]
