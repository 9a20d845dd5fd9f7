"""Arrays from outside → samples: checked, never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trilemma_bench.contracts import DataSpec, Split
from trilemma_bench.datasets.download import reason
from trilemma_bench.errors import TrilemmaError

LIKELY_FRACTION = 4.0  # images of floats that stay below are of 0…1 or −1…1
CHANNELS = (1, 3)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name; that of an .npy as 'arr_0', which is numpy's own name for one without."""
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return dict(content) if isinstance(content, np.lib.npyio.NpzFile) else {"arr_0": content}
    except Exception as error:
        raise TrilemmaError(f"{path} is damaged or not an .npz or .npy file ({reason(error)})") from error


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


def _labels(labels: np.ndarray, count: int, path: Path) -> Tensor:
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or (count and labels.min() < 0):
        raise TrilemmaError(
            f"{path}: labels are {labels.dtype} {shape_text(labels.shape)}, not {count} integers from 0: "
            "save one label an image"
        )
    return torch.from_numpy(labels.astype(np.int64))


def image_tensor(array: np.ndarray, where: str) -> Tensor:
    """uint8 N×H×W×C, N×H×W or N×C×H×W (C is 1 or 3) → uint8 N×C×H×W. Raises TrilemmaError for anything else."""
    _check_image_type(array, where)
    given = shape_text(array.shape)
    if array.ndim == 3 and array.shape[-1] not in CHANNELS:
        array = array[..., None]
    if array.ndim == 4 and array.shape[-1] in CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in CHANNELS or 0 in array.shape:
        raise TrilemmaError(f"{where}: images are {given}, not N×H×W×C with 1 or 3 channels and at least one image")
    return torch.from_numpy(np.ascontiguousarray(array))


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
    """Finite floats N×D → float32 N×D. Raises TrilemmaError for anything else."""
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise TrilemmaError(f"{where}: points are {array.dtype} {shape_text(array.shape)}, not N×D floats, N ≥ 1")
    _check_finite(array, where)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _check_finite(array: np.ndarray, where: str) -> None:
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise TrilemmaError(
            f"{where}: {bad.sum()} of {len(array)} samples hold NaN or infinity, the first is number {bad.argmax()}: "
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
