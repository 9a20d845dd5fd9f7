"""What tests share: errors of one line, small images, and features."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma_bench.errors import TrilemmaError

REAL_DATA = os.environ.get("TRILEMMA_TEST_DATA", "")
needs_real_data = pytest.mark.skipif(not REAL_DATA, reason="TRILEMMA_TEST_DATA names no folder with real data")
RNG = np.random.default_rng(0)


@contextlib.contextmanager
def fails(*words: str, kind: type[TrilemmaError] = TrilemmaError) -> Iterator[None]:
    """The block raises one line that holds all `words`."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def images(count: int, size: int = 6, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def write_pngs(folder: Path, pixels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image.squeeze()).save(folder / f"{index:03}.png")
    return folder


def no_reference() -> NoReturn:
    """The reference of a score that has none."""
    raise AssertionError("asked for a reference")


def scene(width: int, height: int, seed: int = 0) -> torch.Tensor:
    """A smooth background with hard edges, noise and saturated corners: uint8 3×H×W."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    image = np.stack([128 + 120 * np.sin(9 * x + 5 * y + phase) for phase in (0, 2, 4)])
    image[:, height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, (3, 1, 1))
    image += rng.normal(0, 8, image.shape)
    image[:, :4, :4], image[:, -4:, -4:] = 0, 255
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))


def blobs(seed: int, n: int, dim: int, shift: float = 0.0) -> torch.Tensor:
    """Normal samples about `shift`, n×dim."""
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)) + shift


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """A disk that takes no file of more than `count` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
