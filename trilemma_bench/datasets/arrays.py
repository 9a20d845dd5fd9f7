"""Arrays from outside → samples: checked, never guessed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import torch
from torch import Tensor

from trilemma_bench.contracts import DataSpec, Split
from trilemma_bench.datasets.download import reason
from trilemma_bench.errors import TrilemmaError

LIKELY_FRACTION = 4.0  # images of floats that stay below are of 0…1 or −1…1
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Unread:
    """Images of which only the headers are read so far.

    shape: N×C×H×W. classes: one more than the largest label, None without labels. read: gives all of them.
    """

    shape: tuple[int, ...]
    classes: int | None
    read: Callable[[], Split]


def read_arrays(path: Path, names: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, only `names` where given; that of an .npy as 'arr_0', as numpy calls it."""
    with _reading(path), path.open("rb") as file:
        content = np.load(file, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            return {"arr_0": content}
        return {name: content[name] for name in content.files if not names or name in names}


def read_outlines(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz or .npy by name, as zeros that take no memory: only their headers are read."""
    with _reading(path), path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return {"arr_0": _outline(file)}
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _outline(archive.open(name)) for name in names}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise TrilemmaError(
            f"{path} is damaged or not an .npz or .npy file of plain arrays ({reason(error)})"
        ) from error


def _outline(file: IO[bytes]) -> np.ndarray:
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
    return np.broadcast_to(np.zeros((), dtype), shape)


def pick(arrays: dict[str, np.ndarray], path: Path, *keys: str) -> np.ndarray:
    """The first of `keys` that `arrays` has."""
    for key in keys:
        if key in arrays:
            return arrays[key]
    raise TrilemmaError(f"{path} has no '{keys[0]}', only {', '.join(sorted(arrays)) or 'nothing'}: rename its array")


def read_split(path: Path) -> Split:
    """The `images` (uint8 N×H×W×C) and optional `labels` (N integers ≥ 0) of an .npz or .npy, as a split."""
    arrays = read_arrays(path)
    images = image_tensor(pick(arrays, path, "images", "arr_0"), str(path))
    return Split(images, _labels(arrays["labels"], len(images), path) if "labels" in arrays else None)


def open_split(path: Path) -> Unread:
    """What `read_split` will read: the header of the images, and the labels. Raises TrilemmaError as that does."""
    outlines = read_outlines(path)
    images = pick(outlines, path, "images", "arr_0")
    if images.dtype != np.uint8:  # their values say what they are
        images = pick(read_arrays(path), path, "images", "arr_0")
    shape = _channels_first(images, str(path)).shape
    if "labels" not in outlines:
        return Unread(shape, None, lambda: read_split(path))
    labels = _labels(read_arrays(path, ("labels",))["labels"], shape[0], path)
    return Unread(shape, int(labels.max()) + 1, lambda: read_split(path))


def _labels(labels: np.ndarray, count: int, path: Path) -> Tensor:
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or (count and labels.min() < 0):
        raise TrilemmaError(
            f"{path}: labels are {labels.dtype} {shape_text(labels.shape)}, not {count} integers from 0: "
            "save one label an image"
        )
    return torch.from_numpy(labels.astype(np.int64))


def image_tensor(array: np.ndarray, where: str) -> Tensor:
    """uint8 N×H×W×C, N×H×W or N×C×H×W (C is 1 or 3) → uint8 N×C×H×W. Raises TrilemmaError for anything else."""
    return torch.from_numpy(np.ascontiguousarray(_channels_first(array, where)))


def _channels_first(array: np.ndarray, where: str) -> np.ndarray:
    _check_image_type(array, where)
    given = shape_text(array.shape)
    if array.ndim == 3 and array.shape[-1] not in CHANNELS:
        array = array[..., None]
    if array.ndim == 4 and array.shape[-1] in CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in CHANNELS or 0 in array.shape:
        raise TrilemmaError(f"{where}: images are {given}, not N×H×W×C with 1 or 3 channels and at least one image")
    return array


def _check_image_type(array: np.ndarray, where: str) -> None:
    if array.dtype == np.uint8:
        return
    if array.dtype.kind != "f" or not array.size:
        raise TrilemmaError(f"{where}: images are {array.dtype}, not uint8 of 0…255: convert them")
    _check_finite(array, where)
    low, high = float(array.min()), float(array.max())
    # Networks overshoot their range a little; of whole levels some are far above it.
    scaled = "x" if high > LIKELY_FRACTION else "(x + 1) * 127.5" if low < -0.1 else "x * 255"
    raise TrilemmaError(
        f"{where}: images are {array.dtype} of {low:.3g}…{high:.3g}, not uint8 of 0…255: "
        f"convert them, here presumably by numpy.clip(numpy.rint({scaled}), 0, 255).astype('uint8')"
    )


def point_tensor(array: np.ndarray, where: str) -> Tensor:
    """Floats N×D, finite in float32 → float32 N×D. Raises TrilemmaError for anything else."""
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise TrilemmaError(f"{where}: points are {array.dtype} {shape_text(array.shape)}, not N×D floats, N ≥ 1")
    _check_finite(array, where)
    with np.errstate(over="ignore"):
        points = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite(points, where, "numbers too large for float32")
    return torch.from_numpy(points)


def _check_finite(array: np.ndarray, where: str, fault: str = "NaN or infinity") -> None:
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise TrilemmaError(
            f"{where}: {bad.sum()} of {len(array)} samples hold {fault}, the first is number {bad.argmax()}: "
            "remove them or find out why"
        )


def shape_text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "one number"


def kind_text(shape: tuple[int, ...]) -> str:
    """A DataSpec's shape in words: '3×32×32', '2 coordinates'."""
    return shape_text(shape) if len(shape) == 3 else f"{shape_text(shape)} coordinates"


class Shaped(Protocol):
    """Anything with a shape, such as a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def check_shape(samples: Shaped, spec: DataSpec, dataset: str) -> None:
    """Raises TrilemmaError unless the samples have the shape of the dataset called `dataset`."""
    shape = tuple(samples.shape[1:])
    if shape == spec.shape:
        return
    resizable = spec.is_image and len(shape) == 3
    remedy = "" if not resizable else "resize them or " if shape[0] == spec.shape[0] else "convert them or "
    raise TrilemmaError(
        f"samples are {kind_text(shape)}, dataset {dataset} is {kind_text(spec.shape)}: {remedy}name another dataset"
    )
