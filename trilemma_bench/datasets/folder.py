"""The user's own images as a dataset, and samples that someone else made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trilemma_bench.contracts import Dataset, DataSpec, Split
from trilemma_bench.datasets.arrays import (
    Unread,
    check_shape,
    image_tensor,
    kind_text,
    open_split,
    pick,
    point_tensor,
    read_arrays,
)
from trilemma_bench.datasets.fingerprint import content_fingerprint
from trilemma_bench.datasets.images import ImageFiles, read_images
from trilemma_bench.datasets.splits import check_split, permutations
from trilemma_bench.errors import TrilemmaError, UsageError

TEST_SHARE = 10  # one image in ten is held out
SPLIT_SEED = 0
WHOLE = "all"  # a set without splits, undivided


class OwnImages(Dataset):
    """The user's own images: two given splits, or one set of which a seeded tenth is held out from training.

    That set has three splits: 'train', 'test', and 'all', which is both.

    Headers are read at once, images by the first `load` that needs them; then they are held in memory.

    name: '<kind>:<last part of the path>'. default_protocol: 'pixels', which needs nothing; name another to judge.
    """

    kind: str

    def __init__(self, root: Path, parts: dict[str, Path], open_images: Callable[[Path], Unread]) -> None:
        super().__init__(root)
        self.name = f"{self.kind}:{root.resolve().name}"
        given = parts if _given(root, parts) else {WHOLE: root}
        self.splits = tuple(dict.fromkeys((*given, *parts)))
        self._unread = {split: open_images(part) for split, part in given.items()}
        self._splits: dict[str, Split] = {}
        self.spec = _spec(self._unread, root)

    @property
    def note(self) -> str:
        if (whole := self._unread.get(WHOLE)) is None:
            return ""
        return f"one set of {whole.shape[0]} images: training leaves out a tenth, by a fixed seed"

    def load(self, split: str) -> Split:
        check_split(self, split)
        if split not in self._splits:
            whole = self._unread.get(WHOLE)
            if whole is None:
                self._splits[split] = self._unread[split].read()
            elif split == WHOLE:
                self._splits[WHOLE] = _joined(self.load("train"), self.load("test"))
            else:
                self._splits |= _hold_out(whole.read())
        return self._splits[split]

    def fingerprint(self) -> str:
        return content_fingerprint(self, [split for split in self.splits if split != WHOLE])

    def available(self) -> str:
        return f"found at {self.root}"


class FolderDataset(OwnImages):
    """`folder:PATH`: PNG, JPEG, WebP or BMP files of one size, RGB or greyscale, in PATH and below, in order of name.

    PATH/train and PATH/test are the splits where both exist; else a seeded tenth of all images is the test split.
    """

    kind = "folder"

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UsageError(f"{root} is not a folder: name one that holds images")
        super().__init__(root, {split: root / split for split in self.splits}, _open_folder)


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
        super().__init__(root, parts, open_split)


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
        what = "is neither a folder nor an .npz or .npy file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}: give a folder of images, or an array in an .npz or .npy file")
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


def _open_folder(folder: Path) -> Unread:
    files = ImageFiles(folder)
    return Unread(files.shape, None, lambda: Split(read_images(files)))


def _hold_out(whole: Split) -> dict[str, Split]:
    held_out = -(-len(whole) // TEST_SHARE)
    order = permutations(len(whole), len(whole), SPLIT_SEED)[0]
    chosen = {"train": order[held_out:].sort().values, "test": order[:held_out].sort().values}
    return {
        split: Split(whole.samples[index], None if whole.labels is None else whole.labels[index])
        for split, index in chosen.items()
    }


def _joined(first: Split, second: Split) -> Split:
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = torch.cat([first.labels, second.labels])
    return Split(torch.cat([first.samples, second.samples]), labels)


def _spec(parts: dict[str, Unread], path: Path) -> DataSpec:
    """What the parts are. Raises TrilemmaError where they are no dataset."""
    if (whole := parts.get(WHOLE)) and whole.shape[0] < 2:
        raise TrilemmaError(f"{path} holds only {whole.shape[0]} image: a dataset needs two or more")
    shapes = {split: part.shape[1:] for split, part in parts.items()}
    if len(set(shapes.values())) > 1:
        kinds = ", ".join(f"{split} is {kind_text(shape)}" for split, shape in shapes.items())
        raise TrilemmaError(f"{path}: {kinds}: make them of one size")
    classes = [part.classes for part in parts.values() if part.classes is not None]
    return DataSpec(next(iter(shapes.values())), max(classes) if len(classes) == len(parts) else None)
