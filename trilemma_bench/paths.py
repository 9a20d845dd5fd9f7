"""Where things live: one settable folder for data, one for weights, one for cached features."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_dir

from trilemma_bench.errors import UsageError

RUNS = Path("runs")  # where runs go unless told otherwise: a checkout's results/ is the leaderboard
MAX_NAME_BYTES = 200  # file systems take 255


def cache_dir() -> Path:
    """The user's cache folder, or `TRILEMMA_CACHE_DIR`."""
    return _folder("TRILEMMA_CACHE_DIR") or Path(user_cache_dir("trilemma-bench"))


def data_dir() -> Path:
    """Where data sets are looked for and downloaded to: `TRILEMMA_DATA_DIR`, or a folder in the cache."""
    return _folder("TRILEMMA_DATA_DIR") or cache_dir() / "data"


def weights_dir() -> Path:
    """Where weights are looked for and downloaded to: `TRILEMMA_WEIGHTS_DIR`, or a folder in the cache."""
    return _folder("TRILEMMA_WEIGHTS_DIR") or cache_dir() / "weights"


def _folder(variable: str) -> Path | None:
    text = os.environ.get(variable)
    return Path(text).expanduser() if text else None  # no shell has seen what a container or a service sets


def as_text(text: str) -> str:
    """`text` as a file of UTF-8 can hold it: a path's bytes that are no text, on a command line say, become '?'."""
    return text.encode("utf-8", "replace").decode()


def folder_name(name: str) -> str:
    """`name`, which one folder can have on any system. Raises UsageError where none can."""
    if name in ("", ".", "..") or not name.isprintable() or {"/", "\\"} & set(name):
        raise UsageError(
            f"{name!r} cannot be a name: a folder is called so, which takes printable characters but '/' and '\\'"
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise UsageError(f"'{name[:40]}…' cannot be a name: it has more than {MAX_NAME_BYTES} bytes; shorten it")
    return name
