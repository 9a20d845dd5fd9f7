"""The code behind a result, as a hash: changed code never passes off an old checkpoint or old features as its own."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

SHARED_BLOCKS = "trilemma_bench.nn"
TRAINING_LOOP = tuple(
    f"trilemma_bench.{name}"
    for name in ("training", "training_step", "recorded_step", "graphs", "batches", "ema", "precision")
)


def source_digest(module: str) -> str | None:
    """sha256 (hex) of the source of `module`, an imported module's name, and of what decides its training with it.

    That is: whatever it imports, directly or not, from its own top-level package and from the shared network blocks,
    and the training loop. None where there is no source to read, as for a class typed into a notebook.
    """
    return _digest([module, *TRAINING_LOOP], (f"{module.partition('.')[0]}.", f"{SHARED_BLOCKS}."))


def package_digest(modules: Iterable[str]) -> str | None:
    """sha256 (hex) of the source of imported `modules`, and of what each imports from the package that it lies in.

    None where there is no source to read.
    """
    modules = list(modules)
    packages = {module.rpartition(".")[0] for module in modules} - {""}
    return _digest(modules, tuple(f"{package}." for package in packages))


def _digest(modules: list[str], followed: tuple[str, ...]) -> str | None:
    """The hash of `modules` and of what they import, directly or not, whose name starts with one of `followed`.

    Whether a module has been loaded yet makes no difference.
    """
    waiting, sources = list(modules), dict[str, str]()
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        if (source := _source_of(name)) is None:
            return None
        package, sources[name] = source
        imported = _imported(sources[name], package)
        waiting += [found for found in imported if found.startswith(followed) and _source_of(found)]
    digests = sorted(hashlib.sha256(source.encode()).hexdigest() for source in sources.values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _source_of(module: str) -> tuple[str, str] | None:
    """(package, source) of a module; None for a name that is none, or has no source file."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return None
        return spec.parent or "", Path(spec.origin).read_text(encoding="utf-8")
    except (ImportError, ValueError, OSError):
        return None


def _imported(source: str, package: str) -> Iterator[str]:
    """Names that `source`, a module of `package`, imports: modules, and what may be a module or an object of one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
