"""The code behind a result, as a hash: changed code never passes off an old checkpoint or old features as its own."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

SHARED_BLOCKS = "trilemma_bench.nn"
TRAINING_LOOP = "trilemma_bench.training"


def source_digest(module: str) -> str | None:
    """sha256 (hex) of the source of `module`, an imported module's name, and of what decides its training with it.

    That is: whatever it imports, directly or not, from its own top-level package and from the shared network blocks,
    and the training loop. None where there is no source to read, as for a class typed into a notebook.
    """
    return _digest([module, TRAINING_LOOP], (f"{module.partition('.')[0]}.", f"{SHARED_BLOCKS}."))


def package_digest(modules: Iterable[str]) -> str | None:
    """sha256 (hex) of the source of imported `modules`, and of what each imports from the package that it lies in.

    None where there is no source to read.
    """
    modules = list(modules)
    packages = {module.rpartition(".")[0] for module in modules} - {""}
    return _digest(modules, tuple(f"{package}." for package in packages))


def _digest(modules: list[str], followed: tuple[str, ...]) -> str | None:
    """The hash of `modules` and of what they import, directly or not, whose name starts with one of `followed`."""
    waiting, sources = list(modules), dict[str, str]()
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        try:
            sources[name] = Path(inspect.getsourcefile(sys.modules[name]) or "").read_text(encoding="utf-8")
        except (OSError, TypeError, KeyError):
            return None
        waiting += [found for found in _imported(name, sources[name]) if found.startswith(followed)]
    digests = sorted(hashlib.sha256(source.encode()).hexdigest() for source in sources.values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _imported(module: str, source: str) -> Iterator[str]:
    """Names of the loaded modules that `source` imports."""
    package = sys.modules[module].__package__ or ""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name in sys.modules)
