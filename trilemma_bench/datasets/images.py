"""Folders of image files → uint8 tensors, whole or slice by slice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
UNREAD = (".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".pgm", ".svg", ".exr")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_BIT_DEPTH = 24  # byte of the header that holds it
GREY = ("1", "L")
READ_AT_ONCE = 256
THREADS_FROM = 128 * 128  # pixels of an image: decoding smaller ones, threads wait for each other twice as long


def image_files(folder: Path) -> list[Path]:
    """The images in `folder` and below, by name; hidden files and folders are left out.

    Raises TrilemmaError when there is none, and for images of a kind that is not read: they would be missed.
    """
    visible = [file for file in folder.rglob("*") if not _is_hidden(file.relative_to(folder))]
    files = [file for file in visible if file.suffix.lower() in SUFFIXES]
    if others := [file for file in visible if file.suffix.lower() in UNREAD]:
        raise TrilemmaError(
            f"{folder} holds {len(others)} images of a kind that is not read, such as {min(others)}: "
            "convert them to PNG, or move them elsewhere"
        )
    if not files:
        raise TrilemmaError(f"{folder} holds no images ({', '.join(suffix[1:] for suffix in SUFFIXES)})")
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class ImageFiles:
    """The images of a folder and below as samples: uint8 N×C×H×W, decoded when a slice of them is asked for.

    The headers of all files are read at once. Raises TrilemmaError that names the first file at fault: for another size
    or kind than the first, and, when it is decoded, for a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, image_files(folder)
        with _threads() as pool:
            headers = pool.map(read_header, self.files)
            bar = tqdm(headers, f"checking {folder.name}", len(self.files), unit="image", delay=2, disable=None)
            shapes = list(bar)
        for file, shape in zip(self.files, shapes, strict=True):
            if shape != shapes[0]:
                raise TrilemmaError(
                    f"{file} is {shape_text(shape)}, {self.files[0].name} is {shape_text(shapes[0])}: "
                    "all images must have one size and as many channels"
                )
        self.shape = (len(self.files), *shapes[0])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: slice) -> Tensor:
        files = self.files[index]
        images = torch.empty(len(files), *self.shape[1:], dtype=torch.uint8)
        with ExitStack() as stack:
            large = self.shape[2] * self.shape[3] >= THREADS_FROM
            decoded = stack.enter_context(_threads()).map(read_image, files) if large else map(read_image, files)
            for position, image in enumerate(decoded):
                images[position] = torch.from_numpy(image)
        return images


def read_images(files: ImageFiles) -> Tensor:
    """All of the images: uint8 N×C×H×W. Raises TrilemmaError that names the first file at fault."""
    images = torch.empty(files.shape, dtype=torch.uint8)
    with tqdm(total=len(files), desc=f"reading {files.folder.name}", unit="image", delay=2, disable=None) as bar:
        for start in range(0, len(files), READ_AT_ONCE):
            part = files[start : start + READ_AT_ONCE]
            images[start : start + len(part)] = part
            bar.update(len(part))
    return images


def read_header(file: Path) -> tuple[int, int, int]:
    """C, H and W of an image, RGB or greyscale, without decoding it. Raises TrilemmaError as `read_image` does."""
    with _opened(file) as image:
        return (1 if image.mode in GREY else 3), image.height, image.width


def read_image(file: Path) -> np.ndarray:
    """One image, uint8 C×H×W, RGB or greyscale. Raises TrilemmaError for any other kind and for a damaged file."""
    with _opened(file) as image:
        pixels = np.array(image.convert("L" if image.mode in GREY else "RGB"))
    return np.atleast_3d(pixels).transpose(2, 0, 1)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """The image in `file`, of a kind that is accepted. What goes wrong in the block is the file's fault."""
    try:
        with file.open("rb") as content:
            start = content.read(PNG_BIT_DEPTH + 1)
            content.seek(0)
            with Image.open(content) as image:
                if fault := "has 16 bits a channel: save it with 8" if _is_16_bit_png(start) else _fault(image):
                    raise TrilemmaError(f"{file} {fault}")
                yield image
    except TrilemmaError:
        raise
    except Exception as error:
        raise TrilemmaError(f"{file} is damaged or not an image ({reason(error)}): replace or remove it") from error


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def _is_16_bit_png(start: bytes) -> bool:
    # Pillow opens a 16-bit RGB PNG as 8-bit without a word.
    return start.startswith(PNG_SIGNATURE) and start[PNG_BIT_DEPTH:] == b"\x10"


def _fault(image: Image.Image) -> str:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return "has an alpha channel: flatten it onto a background"
    if image.mode not in ("1", "L", "P", "RGB"):
        return f"has the colour mode {image.mode}: save it as 8-bit RGB or greyscale"
    return "is an animation: save its frames" if getattr(image, "n_frames", 1) > 1 else ""
