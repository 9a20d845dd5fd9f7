"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from trilemma_bench.errors import TrilemmaError

TORCHS_WRITER = ("inline_container", "iostream error")  # of which torch.save has a RuntimeError where a disk is full


def atomic(path: Path, write: Callable[[Path], object], alone: bool = False) -> Path:
    """Calls `write(temporary path)` and moves the result to `path`: a reader sees the old file or the new, whole.

    The folder is made where there is none; the temporary file has the suffix of `path`. alone: no other process writes
    it now, so that the temporary file is always the same, `.partial`, and what a crash left of it is written over.
    Returns `path`. Raises TrilemmaError where the disk does not take it; any other error of `write` is passed on.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial") if alone else _new_file_beside(path)
        write(temporary)
        _settle(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(part in str(error) for part in TORCHS_WRITER):
            raise
        raise TrilemmaError(f"could not write {path}: {error}; what was there before is kept") from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink()
    return path


def save_text(path: Path, text: str) -> Path:
    """Writes text in UTF-8, whole or not at all. Returns `path`. Raises TrilemmaError where writing fails."""
    return atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _new_file_beside(path: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    return Path(name)


def _settle(path: Path) -> None:
    """Waits until the content is on the disk: after a crash a moved file could be empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def save_npz(path: Path, **arrays: np.ndarray) -> Path:
    """Writes an .npz, compressed, whole or not at all. Returns `path`. Raises TrilemmaError where writing fails."""
    # numpy 1 would take allow_pickle for an array
    return atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))  # type: ignore[arg-type]
