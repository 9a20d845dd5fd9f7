"""Reading a published archive, fetching it first where it is missing; every failure is one line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from trilemma_bench.errors import TrilemmaError

T = TypeVar("T")


def load_or_download(read: Callable[[bool], T], what: str, files: Iterable[Path], source: str, folder: Path) -> T:
    """What `read(download)` returns: without download when all `files` are there, else with, one process at a time.

    Raises TrilemmaError that says what to delete, what to fetch (`source`) and where to put it (`folder`), or that this
    cannot be written.
    """
    if all(file.is_file() for file in files):
        try:
            return read(False)
        except Exception as error:
            raise TrilemmaError(
                f"{what} in {folder} is damaged ({reason(error)}): delete its files to fetch them again"
            ) from error
    _make_writable(folder, what)
    try:
        with FileLock(folder / ".download.lock"):
            return read(True)
    except Exception as error:
        raise TrilemmaError(
            f"{what} could not be downloaded ({reason(error)}): fetch {source} into {folder}"
        ) from error


def _make_writable(folder: Path, what: str) -> None:
    """Raises TrilemmaError where nothing can be written into `folder`, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrilemmaError(
            f"{what} is missing, and {folder} cannot be written ({error.strerror}): make it writable, or name a folder "
            "that is with --data-dir or TRILEMMA_DATA_DIR"
        ) from error


def reason(error: Exception) -> str:
    """An exception in one line, for the brackets of a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
