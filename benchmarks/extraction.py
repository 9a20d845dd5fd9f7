"""Inception features, ours against torch-fidelity's extractor with the same weights made from a seed, in one run.

    python benchmarks/extraction.py [--images 64] [--side 32] [--repeats 3] [--threads 1] [--device cuda]

All take turns, so that a machine that slows down slows all; medians over the rounds of wall time, and of CPU time
beside it, which other work on the machine touches less. torch-fidelity runs with its own default batch, 64. Then what
reading costs on top of the network: from memory, and from PNG files that are decoded ahead. On CUDA ours are exact
float32, torch-fidelity's TensorFloat-32 unless told otherwise: it is timed in both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from common import medians, scenes
from PIL import Image
from seeded_weights import install_inception, relative_error
from torch import Tensor

from trilemma_bench.datasets.images import ImageFiles
from trilemma_bench.features.extraction import extract
from trilemma_bench.features.inception import Inception
from trilemma_bench.precision import feature_arithmetic

PEERS_BATCH = 64


def write_pngs(images: Tensor, folder: Path) -> Path:
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:06}.png")
    return folder


def compare(calls: dict[str, Callable[[], Tensor]], images: int, repeats: int) -> None:
    """Prints each call's images a second, against the first's."""
    found = medians({name: partial(_on_cpu, call) for name, call in calls.items()}, repeats)
    base = next(iter(found.values()))
    for name, (features, wall, cpu) in found.items():
        error = relative_error(features, base.value)
        print(
            f"  {name:24} {images / wall:8.2f} images/s ({base.wall / wall:.2f} times), {1000 * cpu / images:.0f} ms "
            f"CPU each ({base.cpu / cpu:.2f} times less), max relative difference {error:.1e}"
        )


def _on_cpu(call: Callable[[], Tensor]) -> Tensor:
    return call().cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, samples = options.device, scenes(options.images, options.side)
    print(
        f"{options.images} images of {options.side}×{options.side}, {device}, {options.threads} threads of "
        f"{os.cpu_count()}, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TRILEMMA_WEIGHTS_DIR=folder):
        peer = install_inception().to(device)
        ours = Inception(device)
        files = ImageFiles(write_pngs(samples, Path(folder)))
        parts = samples.split(PEERS_BATCH)

        @torch.no_grad()
        def alone() -> Tensor:
            return torch.cat([ours(part.to(device)) for part in samples.split(256)])

        def theirs() -> Tensor:
            return torch.cat([peer(part.to(device))[0] for part in parts])

        def theirs_exact() -> Tensor:
            with feature_arithmetic("float32", device):
                return theirs()

        compare(
            {
                "torch-fidelity": theirs_exact,
                **({"torch-fidelity, TF32": theirs} if device == "cuda" else {}),
                "ours": lambda: extract(ours, samples, device=device),
                "ours, the network alone" + ", TF32" * (device == "cuda"): alone,
                "ours, from PNG files": lambda: extract(ours, files, batch_size=32, device=device),
            },
            options.images,
            options.repeats,
        )


if __name__ == "__main__":
    main()
