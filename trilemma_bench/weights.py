"""Weights of feature extractors: where each comes from, found in one folder, downloaded on first use, always verified.

A weights file is opened only after its sha256 has been compared with the table's.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from tqdm import tqdm

from trilemma_bench import paths
from trilemma_bench.errors import TrilemmaError, unknown_name

TIMEOUT_SECONDS = 30
CHUNK_BYTES = 2**18


@dataclass(frozen=True)
class Weight:
    """A published weights file. size: bytes."""

    name: str
    filename: str
    sha256: str
    size: int
    url: str
    licence: str

    @property
    def path(self) -> Path:
        """Where it is looked for, and downloaded to."""
        return paths.weights_dir() / self.filename


@dataclass(frozen=True)
class WeightStatus:
    """What `doctor` tells of a weights file. found: its sha256, None where there is none."""

    name: str
    path: Path
    found: str | None
    url: str
    sha256: str
    size: int
    licence: str


WEIGHTS = {
    weight.name: weight
    for weight in (
        Weight(
            "cifar-resnet56",
            "resnet56-4bfd9763.th",
            "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
            3_471_733,
            "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet56-4bfd9763.th",
            "BSD-2-Clause (Yerlan Idelbayev)",
        ),
        Weight(
            "inception",
            "weights-inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95_628_359,
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
            "Apache-2.0 (Google, converted by torch-fidelity)",
        ),
        Weight(
            "vgg16",
            "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            553_433_881,
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "BSD-3-Clause (torchvision)",
        ),
        Weight(
            "dinov2-vitb14",
            "dinov2_vitb14_pretrain.pth",
            "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
            346_378_731,
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
            "Apache-2.0 (Meta)",
        ),
        Weight(
            "dinov2-vitl14",
            "dinov2_vitl14_pretrain.pth",
            "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
            1_217_586_395,
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            "Apache-2.0 (Meta)",
        ),
        Weight(
            "clip-vit-b-32",
            "clip-vit-base-patch32.bin",
            "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
            605_247_071,
            "https://huggingface.co/openai/clip-vit-base-patch32/resolve/3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268/pytorch_model.bin",
            "MIT (OpenAI)",
        ),
    )
}


def find(name: str) -> Path:
    """The verified file of the weights `name`, downloaded first where it is missing.

    Raises UsageError for an unknown name, TrilemmaError when the file is damaged or cannot be had.
    """
    if name not in WEIGHTS:
        raise unknown_name("weights", name, WEIGHTS)
    weight = WEIGHTS[name]
    if not weight.path.is_file():
        _fetch(weight)
    if (found := _known_sha256(weight.path, *_stamp(weight.path))) != weight.sha256:
        raise TrilemmaError(
            f"weights {weight.path} are damaged (sha256 {found[:12]}…, not {weight.sha256[:12]}…): "
            f"delete the file, and it is downloaded again from {weight.url}"
        )
    return weight.path


def load(name: str) -> dict[str, Any]:
    """What the weights file `name` holds, on the CPU: tensors only, no code is run. Raises what `find` does."""
    loaded: dict[str, Any] = torch.load(find(name), map_location="cpu", weights_only=True)
    return loaded


def status() -> list[WeightStatus]:
    """Every known weights file: where it would be, what is there, where it comes from."""
    return [
        WeightStatus(
            weight.name, weight.path, _hash_at(weight.path), weight.url, weight.sha256, weight.size, weight.licence
        )
        for weight in WEIGHTS.values()
    ]


def _hash_at(path: Path) -> str | None:
    return _known_sha256(path, *_stamp(path)) if path.is_file() else None


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    """Size (bytes) and time of the last change (ns)."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


@lru_cache(maxsize=64)
def _known_sha256(path: Path, size: int, changed: int) -> str:
    """`sha256_of` a file that has not changed since, once in a process: gigabytes take seconds."""
    return sha256_of(path)


def _fetch(weight: Weight) -> None:
    """Downloads `weight` to its path, one process at a time. Raises TrilemmaError."""
    partial = weight.path.with_name(weight.filename + ".part")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{partial}.lock"):
            if not weight.path.is_file():
                _download(weight, partial)
                os.replace(partial, weight.path)
    except (OSError, HTTPException) as error:
        raise TrilemmaError(
            f"weights '{weight.name}' are not at {weight.path} and could not be downloaded "
            f"({' '.join(str(error).split())}): get {weight.url} ({weight.size / 1e6:.0f} MB) and put it there, "
            "or set TRILEMMA_WEIGHTS_DIR to the folder that holds it"
        ) from error


def _download(weight: Weight, partial: Path) -> None:
    """Goes on where an interrupted download stopped; where that gives a wrong file, from the start. Raises OSError."""
    done = partial.stat().st_size if partial.is_file() else 0
    for start in dict.fromkeys((done, 0)):
        if start < weight.size:
            _receive(weight, partial, start)
        if sha256_of(partial) == weight.sha256:
            return
        partial.unlink()
    raise OSError("what was downloaded has the wrong sha256")


def _receive(weight: Weight, partial: Path, done: int) -> None:
    """The bytes after the first `done`, or all where the server sends these; never more than the weights have.

    Raises OSError where the server offers another number of bytes, or the connection ends early.
    """
    request = Request(weight.url, headers={"Range": f"bytes={done}-"} if done else {})
    with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        start, total = _extent(response, done)
        if total not in (None, weight.size):
            raise OSError(f"the server offers {total:,} bytes, not the {weight.size:,} of the weights")
        if start > done:
            return  # with a gap nothing can be gone on with
        bar = tqdm(total=weight.size, initial=start, unit="B", unit_scale=True, desc=weight.filename)
        with partial.open("r+b" if start else "wb") as file, bar:
            file.seek(start)
            file.truncate()
            while chunk := response.read(min(CHUNK_BYTES, weight.size - file.tell())):
                file.write(chunk)
                bar.update(len(chunk))
            size = file.tell()
    if size < weight.size:
        raise OSError(f"the connection ended after {size:,} of {weight.size:,} bytes; the next try goes on from there")


def _extent(response: HTTPResponse, asked: int) -> tuple[int, int | None]:
    """The place in the file that a response starts from, and the file's size where the server says it; both bytes."""
    if response.status != 206:  # the whole file, not the rest of it
        return 0, response.length
    stated = re.match(r"bytes (\d+)-\d+/(\d+)?", response.headers.get("Content-Range", ""))
    if stated is None:
        return asked, None
    return int(stated[1]), int(stated[2]) if stated[2] else None
