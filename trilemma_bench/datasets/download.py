"""Reading a published archive, fetching it first where it is missing; every failure is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from trilemma_bench.errors import TrilemmaError

T = TypeVar("T")


def load_or_download(read: Callable[[bool], T], what: str, url: str, folder: Path) -> T:
    """What `read(download)` returns: first from what is there, else with download, one process at a time.

    Raises TrilemmaError that says what to fetch (`url`) and where to put it (`folder`).
    """
    try:
        return read(False)
    except RuntimeError:
        pass  # torchvision's word for 'not found or corrupted'
    except Exception as error:
        raise TrilemmaError(
            f"{what} in {folder} is damaged ({_line(error)}): delete it and it is fetched again"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            return read(True)
    except Exception as error:
        raise TrilemmaError(f"{what} could not be downloaded ({_line(error)}): fetch {url} into {folder}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
