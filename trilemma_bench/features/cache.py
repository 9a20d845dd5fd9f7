"""Tensors in files that say what they are: believed only when every fact fits, written whole or not at all.

One process computes what is missing while the others wait for it and then read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trilemma_bench import paths
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.files import atomic

Facts = dict[str, str]
Tensors = dict[str, Tensor]

NAMED_ONLY = ("dataset_name", "content")  # facts that help a reader, but do not decide which file it is
UNREAD = "unread "  # begins the fact `code` where no source could be read: nothing of it is kept
SECONDS_BEFORE_NOTICE = 2


def folder() -> Path:
    return paths.cache_dir() / "features"


def path_of(facts: Facts) -> Path:
    """The file for tensors with these facts, which name at least the extractor, split, output and kind."""
    common = {name: fact for name, fact in _identity(facts).items() if name != "kind"}
    key = hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "-", f"{facts['extractor']}-{facts['split']}-{facts['output']}")
    return folder() / f"{name}-{key}.{facts['kind']}.safetensors"


def stored(
    facts: Facts,
    compute: Callable[[], Tensors],
    lock: Path | None = None,
    enough: Callable[[Tensors], bool] = lambda _: True,
) -> Tensors:
    """The tensors with these facts: from their file, or computed by one process while the others wait, and written.

    lock: what processes wait for, the file itself unless given. enough: whether the file's tensors will do. A file
    that is damaged is made again, and one that cannot be written is done without, each with a warning.
    """
    if _is_unread(facts):
        return compute()
    try:
        held = _acquire(Path(f"{lock or path_of(facts)}.lock"))
    except OSError as error:
        if (found := read(facts)) is not None and enough(found):
            return found  # a cache that others fill, which this process may only read
        _warn_uncached(error.strerror or str(error))
        return compute()
    with held:
        if (found := read(facts)) is not None and enough(found):
            return found
        tensors = compute()
        write(facts, tensors)
        return tensors


def _acquire(path: Path) -> AcquireReturnProxy:
    """The lock, held: it ends with its process, however that ends. Who holds it may take it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True)
    try:
        return lock.acquire(timeout=SECONDS_BEFORE_NOTICE)
    except Timeout:
        print(f"waiting for another process to finish {path.stem}", file=sys.stderr)
        return lock.acquire()


def read(facts: Facts) -> Tensors | None:
    """The tensors with these facts, mapped from their file; None without one, or with a warning for a damaged one."""
    path = path_of(facts)
    if not path.is_file():
        return None
    try:
        tensors, found = load(path)
        if _identity(found) == _identity(facts) and is_whole(tensors, found):
            with contextlib.suppress(OSError):  # a cache of others
                os.utime(path)  # for `Entry.used`
            return tensors
        problem = "its content does not fit its facts"
    except (SafetensorError, OSError) as error:
        problem = str(error)
    warnings.warn(f"cached {facts['kind']} {path} are damaged ({problem}): computing them again", stacklevel=3)
    return None


def load(path: Path) -> tuple[Tensors, Facts]:
    """What a file holds and what it says of itself, unverified. Raises SafetensorError or OSError."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118, no dict


def is_whole(tensors: Tensors, facts: Facts) -> bool:
    """Whether tensors and facts are those that were written together."""
    return facts.get("content") == _content(tensors, facts)


def write(facts: Facts, tensors: Tensors) -> None:
    """Writes the file whole or not at all; a cache that cannot be written is worth a warning, no more.

    Only the process that holds the lock writes.
    """
    if _is_unread(facts):
        return
    try:
        atomic(path_of(facts), lambda temporary: save(temporary, facts, tensors), alone=True)
    except TrilemmaError as error:
        _warn_uncached(getattr(error.__cause__, "strerror", None) or str(error))


def _warn_uncached(why: str) -> None:
    """In the same words for every file, so that it is said once."""
    warnings.warn(f"references are not cached in {folder()}: {why}", stacklevel=1)


def save(path: Path, facts: Facts, tensors: Tensors) -> None:
    """Writes the tensors with their facts and a hash over both."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, {**facts, "content": _content(tensors, facts)})


@dataclass
class Entry:
    """The files of one reference. facts: what their headers say, empty where none can be read; size: bytes.

    used: when one of them was last used or written, in seconds since the epoch.
    """

    name: str
    facts: Facts
    kinds: list[str]
    size: int
    used: float = 0.0

    @property
    def paths(self) -> list[Path]:
        return [folder() / f"{self.name}.{kind}.safetensors" for kind in self.kinds]


def entries() -> list[Entry]:
    """What is in the cache, by name; only headers are read."""
    found: dict[str, Entry] = {}
    for path in sorted(folder().glob("*.*.safetensors")):
        name, kind, _ = path.name.rsplit(".", 2)
        entry = found.setdefault(name, Entry(name, {}, [], 0))
        entry.facts = entry.facts or _header(path)
        entry.kinds.append(kind)
        facts = path.stat()
        entry.size += facts.st_size
        entry.used = max(entry.used, facts.st_mtime)
    return list(found.values())


def prune(before: float | None) -> list[Entry]:
    """Deletes what was not used since `before`, in seconds since the epoch, or all (None); what that was."""
    chosen = [entry for entry in entries() if before is None or entry.used < before]
    for path in [path for entry in chosen for path in entry.paths]:
        path.unlink(missing_ok=True)
    return chosen


def _header(path: Path) -> Facts:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _is_unread(facts: Facts) -> bool:
    return facts.get("code", "").startswith(UNREAD)


def _identity(facts: Mapping[str, str]) -> Facts:
    return {key: value for key, value in facts.items() if key not in NAMED_ONLY}


def _content(tensors: Tensors, facts: Facts) -> str:
    """sha256 (hex) over the facts, and over the tensors' names, types, shapes and values."""
    stated = {name: fact for name, fact in facts.items() if name != "content"}
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
