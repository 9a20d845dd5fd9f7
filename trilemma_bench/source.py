"""The code behind a result, as a hash: changed code never passes off an old checkpoint or old features as its own."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

HARNESS = "trilemma_bench"
SHARED_BLOCKS = "trilemma_bench.nn"
EXTRACTORS = "trilemma_bench.features"
TRAINING = "trilemma_bench.training"
TRAINING_LOOP = (
    *(f"{TRAINING}.{name}" for name in ("trainer", "step", "recorded_step", "batches", "ema")),
    *(f"{HARNESS}.{name}" for name in ("graphs", "precision")),
)
INSTALLED = {"site-packages", "dist-packages"}  # folders of what pip and Debian install


def source_digest(*modules: str) -> str | None:
    """sha256 (hex) of the source of `modules`, imported modules' names, and of what decides training with them.

    That is: whatever they import, directly or not, from their own top-level packages and from the shared network
    blocks, and the training loop; of a module in no package, whatever it imports that is not installed. None where
    there is no source to read, as for a class typed into a notebook.
    """
    packages = {_top(module) for module in modules}
    return _digest([*modules, *TRAINING_LOOP], {*packages, SHARED_BLOCKS}, follows_own=any(map(_is_alone, modules)))


def features_digest(modules: Iterable[str]) -> str | None:
    """sha256 (hex) of the source of imported `modules`, an extractor's or a metric's, and of what else decides what it
    computes.

    That is: whatever they import, directly or not, as for `source_digest`, with our extractors for the network blocks.
    None where there is no source to read.
    """
    modules = list(modules)
    packages = {_top(module) for module in modules} - {HARNESS}
    return _digest(modules, {*packages, EXTRACTORS}, follows_own=any(map(_is_alone, modules)))


@functools.cache
def harness_digest() -> str:
    """sha256 (hex) of all of the harness's source: what a commit says where there is one and nothing was changed."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(
            f"{path.relative_to(root).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    return digest.hexdigest()


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_alone(module: str) -> bool:
    """Whether it is in no package, as plugin files and scripts are: what belongs to it is not told by its name."""
    return "." not in module


def _digest(modules: list[str], packages: set[str], follows_own: bool) -> str | None:
    """The hash of `modules` and of what they import, directly or not, from inside `packages`.

    follows_own: and of what is not installed. Whether a module has been loaded yet makes no difference.
    """
    inside = tuple(f"{package}." for package in packages)
    waiting, sources = list(modules), dict[str, str]()
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        if (source := _source_of(name)) is None:
            return None
        package, sources[name] = source
        imported = [found for found in _imported(sources[name], package) if found not in sources]
        followed = [found for found in imported if found.startswith(inside) or (follows_own and _is_own(found))]
        waiting += [found for found in followed if _source_of(found)]
    digests = sorted(hashlib.sha256(source.encode()).hexdigest() for source in sources.values())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _is_own(module: str) -> bool:
    """Whether it is of the user's own files: neither installed, nor Python's, nor ours. Nothing is imported to see."""
    top = _top(module)
    if top == HARNESS or top in sys.stdlib_module_names:
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    return not any(INSTALLED & set(Path(place).parts) for place in places)


def _source_of(module: str) -> tuple[str, str] | None:
    """(package, source) of a module; None for a name that is none, or has no source file."""
    try:
        package, origin = _place_of(module)
        return (package, Path(origin).read_text(encoding="utf-8")) if origin.endswith(".py") else None
    except (ImportError, ValueError, OSError):
        return None


def _place_of(module: str) -> tuple[str, str]:
    """(package, file) of a module, '' where it has none. A script's module has a file, and no spec that says so."""
    loaded = sys.modules.get(module)
    if loaded is not None and getattr(loaded, "__spec__", None) is None:
        return "", getattr(loaded, "__file__", None) or ""
    spec = importlib.util.find_spec(module)
    return (spec.parent or "", spec.origin or "") if spec else ("", "")


def _imported(source: str, package: str) -> Iterator[str]:
    """Names that `source`, a module of `package`, imports: modules, and what may be a module or an object of one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with contextlib.suppress(ImportError):  # a relative import of a module that is in no package
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
