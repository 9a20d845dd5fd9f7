"""The code behind a training run: a hash, so that changed code never passes off an old checkpoint as its own."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

SHARED_BLOCKS = "trilemma_bench.nn"
TRAINING_LOOP = "trilemma_bench.training"


def source_digest(module: str) -> str | None:
    """sha256 (hex) of the source of `module`, an imported module's name, and of what decides its training with it.

    That is: whatever it imports, directly or not, from its own top-level package and from the shared network blocks,
    and the training loop. None where there is no source to read, as for a class typed into a notebook.
    """
    own = module.partition(".")[0]
    waiting, sources = [module, TRAINING_LOOP], dict[str, str]()
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        try:
            sources[name] = Path(inspect.getsourcefile(sys.modules[name]) or "").read_text(encoding="utf-8")
        except (OSError, TypeError, KeyError):
            return None
        imported = _imported(name, sources[name])
        waiting += [found for found in imported if found.startswith((f"{own}.", f"{SHARED_BLOCKS}."))]
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
