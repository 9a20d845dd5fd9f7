"""Reading a published archive, fetching it first where it is missing; every failure is one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from trilemma_bench.errors import TrilemmaError

T = TypeVar("T")


def load_or_download(read: Callable[[bool], T], what: str, files: Iterable[Path], source: str, folder: Path) -> T:
    """What `read(download)` returns: without download when all `files` are there, else with, one process at a time.

    Raises TrilemmaError that says what to delete, or what to fetch (`source`) and where to put it (`folder`).
    """
    if all(file.is_file() for file in files):
        try:
            return read(False)
        except Exception as error:
            raise TrilemmaError(
                f"{what} in {folder} is damaged ({reason(error)}): delete its files to fetch them again"
            ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            return read(True)
    except Exception as error:
        raise TrilemmaError(
            f"{what} could not be downloaded ({reason(error)}): fetch {source} into {folder}"
        ) from error


def reason(error: Exception) -> str:
    """An exception in one line, for the brackets of a message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
