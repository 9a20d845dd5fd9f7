"""Folders of image files → uint8 tensors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from trilemma_bench.datasets.arrays import shape_text
from trilemma_bench.datasets.download import reason
from trilemma_bench.errors import TrilemmaError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_BIT_DEPTH = 24  # byte of the header that holds it


def image_files(folder: Path) -> list[Path]:
    """The images in `folder` and below, by name; hidden files are left out. Raises TrilemmaError when there is none."""
    files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise TrilemmaError(f"{folder} holds no images ({', '.join(suffix[1:] for suffix in SUFFIXES)})")
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def read_images(folder: Path) -> Tensor:
    """All images of `folder` and below: uint8 N×C×H×W. Raises TrilemmaError that names the first file at fault."""
    files = image_files(folder)
    first = read_image(files[0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for index, file in enumerate(tqdm(files, desc=f"reading {folder.name}", unit="image", delay=2, disable=None)):
        image = read_image(file)
        if image.shape != first.shape:
            raise TrilemmaError(
                f"{file} is {shape_text(image.shape)}, {files[0].name} is {shape_text(first.shape)}: "
                "all images must have one size and as many channels"
            )
        images[index] = image
    return torch.from_numpy(images)


def read_image(file: Path) -> np.ndarray:
    """One image, uint8 C×H×W, RGB or greyscale. Raises TrilemmaError for any other kind and for a damaged file."""
    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            fault = "has 16 bits a channel: save it with 8" if _is_16_bit_png(content) else _fault(image)
            pixels = None if fault else np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except Exception as error:
        raise TrilemmaError(f"{file} is damaged or not an image ({reason(error)}): replace or remove it") from error
    if pixels is None:
        raise TrilemmaError(f"{file} {fault}")
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def _is_16_bit_png(content: bytes) -> bool:
    # Pillow opens a 16-bit RGB PNG as 8-bit without a word.
    return content.startswith(PNG_SIGNATURE) and content[PNG_BIT_DEPTH : PNG_BIT_DEPTH + 1] == b"\x10"


def _fault(image: Image.Image) -> str:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return "has an alpha channel: flatten it onto a background"
    if image.mode not in ("1", "L", "P", "RGB"):
        return f"has the colour mode {image.mode}: save it as 8-bit RGB or greyscale"
    return "is an animation: save its frames" if getattr(image, "n_frames", 1) > 1 else ""
