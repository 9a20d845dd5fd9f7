"""The user's own images as a dataset, and samples that someone else made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from trilemma_bench.contracts import Dataset, DataSpec, Split
from trilemma_bench.datasets.arrays import (
    check_shape,
    image_tensor,
    kind_text,
    pick,
    point_tensor,
    read_arrays,
    read_split,
)
from trilemma_bench.datasets.images import ImageFiles, read_images
from trilemma_bench.datasets.splits import check_split, permutations
from trilemma_bench.errors import TrilemmaError, UsageError

TEST_SHARE = 10  # one image in ten is held out
SPLIT_SEED = 0


class OwnImages(Dataset):
    """The user's own images, held in memory: two given splits, or one set of which a seeded tenth is held out.

    name: '<kind>:<last part of the path>'. default_protocol: 'pixels', which needs nothing; name another to judge.
    """

    kind: str

    def __init__(self, path: Path, parts: dict[str, Path], read: Callable[[Path], Split]) -> None:
        self.path = path
        self.name = f"{self.kind}:{path.resolve().name}"
        self._note = ""
        if _given(path, parts):
            self._splits = {split: read(part) for split, part in parts.items()}
        else:
            whole = read(path)
            self._splits = _hold_out(whole, path)
            self._note = f"one set of {len(whole)} images, of which a tenth is held out by a fixed seed"
        self.spec = _spec(self._splits, path)

    @property
    def note(self) -> str:
        return self._note

    def load(self, split: str) -> Split:
        check_split(self, split)
        return self._splits[split]

    def available(self) -> str:
        return f"found at {self.path}"


class FolderDataset(OwnImages):
    """`folder:PATH`: PNG, JPEG, WebP or BMP files of one size, RGB or greyscale, in PATH and below, in order of name.

    PATH/train and PATH/test are the splits where both exist; else a seeded tenth of all images is the test split.
    """

    kind = "folder"

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UsageError(f"{root} is not a folder: name one that holds images")
        super().__init__(
            root, {split: root / split for split in self.splits}, lambda folder: Split(read_images(folder))
        )


class NpzDataset(OwnImages):
    """`npz:PATH`: an .npz with `images` (uint8 N×H×W×C) and optional `labels` (N integers), or an .npy of images.

    PATH is one file, of which a seeded tenth becomes the test split, or a folder with train.npz and test.npz.
    """

    kind = "npz"

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise UsageError(
                f"{root} does not exist: name an .npz or .npy file, or a folder with train.npz and test.npz"
            )
        parts = {split: root / f"{split}.npz" for split in self.splits}
        if root.is_dir() and not any(part.exists() for part in parts.values()):
            raise TrilemmaError(
                f"{root} holds no train.npz and test.npz: name a file, or folder:{root} for image files"
            )
        super().__init__(root, parts, read_split)


def load_samples(path: Path, spec: DataSpec | None = None, dataset: str = "") -> Tensor | ImageFiles:
    """Samples that someone else made: uint8 N×C×H×W or float32 N×D.

    path: a folder of image files, decoded slice by slice when they are needed, or an .npz ('images', 'points' or
    unnamed) or .npy array. spec, dataset: the dataset that they are to be measured against, and its name. Raises
    TrilemmaError when they cannot be used as they are.
    """
    samples: Tensor | ImageFiles
    if path.is_dir():
        samples = ImageFiles(path)
    elif path.suffix in (".npz", ".npy") and path.is_file():
        samples = array_samples(pick(read_arrays(path), path, "images", "points", "arr_0"), str(path))
    else:
        what = "is neither a folder of images nor an .npz or .npy file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}")
    if spec is not None:
        check_shape(samples, spec, dataset)
    return samples


def array_samples(array: np.ndarray, where: str = "samples") -> Tensor:
    """An array as samples: N×D floats are points, anything else has to be uint8 images."""
    return point_tensor(array, where) if array.ndim == 2 else image_tensor(array, where)


def _given(path: Path, parts: dict[str, Path]) -> bool:
    missing = [part.name for part in parts.values() if not part.exists()]
    if len(missing) == 1:
        found = next(part.name for part in parts.values() if part.exists())
        raise TrilemmaError(f"{path} has {found} but no {missing[0]}: add it, or move the images out of {found}")
    return not missing


def _hold_out(whole: Split, path: Path) -> dict[str, Split]:
    held_out = -(-len(whole) // TEST_SHARE)
    if held_out == len(whole):
        raise TrilemmaError(f"{path} holds only {len(whole)} image: a dataset needs two or more")
    order = permutations(len(whole), len(whole), SPLIT_SEED)[0]
    chosen = {"train": order[held_out:].sort().values, "test": order[:held_out].sort().values}
    return {
        split: Split(whole.samples[index], None if whole.labels is None else whole.labels[index])
        for split, index in chosen.items()
    }


def _spec(splits: dict[str, Split], path: Path) -> DataSpec:
    shapes = {split: tuple(part.samples.shape[1:]) for split, part in splits.items()}
    if shapes["train"] != shapes["test"]:
        raise TrilemmaError(
            f"{path}: train is {kind_text(shapes['train'])}, test is {kind_text(shapes['test'])}: make them of one size"
        )
    labels = [part.labels for part in splits.values() if part.labels is not None]
    classes = max(int(label.max()) for label in labels) + 1 if len(labels) == len(splits) else None
    return DataSpec(shapes["train"], classes)
