"""Sources of real data. `open_dataset` finds one by name; no content is read or downloaded before `load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trilemma_bench import paths, registry
from trilemma_bench.errors import UsageError

if TYPE_CHECKING:
    from trilemma_bench.contracts import Dataset


def open_dataset(name: str, root: Path | None = None) -> Dataset:
    """The dataset called `name`: a registered name, 'folder:PATH', 'npz:PATH' or 'file.py:Class'.

    root: the data folder, `paths.data_dir()` unless given. Raises UsageError for an unknown name, TrilemmaError when
    the user's own images cannot be used.
    """
    kind, colon, path = name.partition(":")
    if colon and kind in ("folder", "npz"):
        if not path:
            raise UsageError(f"dataset '{name}' names no path: write {kind}:PATH")
        from trilemma_bench.datasets.folder import FolderDataset, NpzDataset

        return (FolderDataset if kind == "folder" else NpzDataset)(Path(path).expanduser())
    dataset: Dataset = registry.datasets.get(name)(root or paths.data_dir())
    return dataset
