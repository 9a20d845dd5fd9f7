"""A whole evaluation, ours against torch-fidelity's, of the same images with the same weights made from a seed.

    python benchmarks/evaluation.py [--images 256] [--many 10000] [--repeats 3] [--threads 2] [--device cuda]

Ours: FD, KID, inception score, precision, recall, density, coverage, each with its interval; torch-fidelity's: FID,
KID, IS, precision, recall and F-score. Both read images from memory, as many on each side, nothing cached. Then what
the scores of --many samples cost beside the extraction of their features: a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch_fidelity
from common import machine, medians, print_table, scenes, timed
from seeded_weights import install_inception
from torch import Tensor
from torch.utils.data import Dataset

import trilemma_bench as tb
from trilemma_bench import registry, weights
from trilemma_bench.evaluation.scoring import make_score
from trilemma_bench.features.extraction import extract, extract_all
from trilemma_bench.features.inception import Inception
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.protocol import Protocol

METRICS = ("fd", "kid", "inception_score", "precision", "recall", "density", "coverage")
SUBSETS = 100


class Images(Dataset):
    """uint8 N×C×H×W, one at a time, as torch-fidelity takes them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def ours(splits: Path, images: np.ndarray, device: str) -> float:
    """The Fréchet distance; a fresh cache each time, so that both sides are extracted."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TRILEMMA_CACHE_DIR=folder):
        record = tb.evaluate(
            images, dataset=f"npz:{splits}", protocol="whole", out=folder, device=device, progress=False
        )
    return record.scores["fid"].value


def theirs(first: Tensor, second: Tensor, size: int, device: str) -> float:
    found: dict[str, Any] = torch_fidelity.calculate_metrics(
        input1=Images(first),
        input2=Images(second),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights.WEIGHTS["inception"].path),
        kid_subsets=SUBSETS,
        kid_subset_size=size,
        cuda=device == "cuda",
        cache=False,
        verbose=False,
        num_workers=0,
    )
    return float(found["frechet_inception_distance"])


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Prints the table of whole evaluations."""
    first, second = (scenes(options.images, seed=seed) for seed in (0, 1))
    np.savez(folder / "test.npz", images=first.permute(0, 2, 3, 1).numpy())
    np.savez(folder / "train.npz", images=second.permute(0, 2, 3, 1).numpy())
    array = first.permute(0, 2, 3, 1).numpy()
    size = min(1000, options.images // 2)
    protocol = Protocol(
        "whole", "inception", samples=options.images, metrics=METRICS, kid_subsets=SUBSETS, kid_subset_size=size
    )
    registry.register_protocol("whole")(protocol)
    extractor = Inception(options.device)

    def features() -> float:
        return float(sum(extract(extractor, side, device=options.device).mean() for side in (first, second)))

    features()  # untimed: libraries choose their algorithms
    found = medians(
        {
            "torch-fidelity": lambda: theirs(first, second, size, options.device),
            "ours": lambda: ours(folder, array, options.device),
            "ours, both sides' features alone": features,
        },
        options.repeats,
        warm_up=False,
    )
    print_table(f"{options.images} images a side", found)


def overhead(options: argparse.Namespace) -> None:
    """Prints what the scores of many samples cost beside the extraction of the features that they read."""
    requests = [(Inception(options.device), ("features", "logits"))]

    def outputs(seed: int) -> tuple[Tensor, Tensor]:
        features, logits = extract_all(requests, scenes(options.many, seed=seed), device=options.device).values()
        return features, logits

    (features, logits), extraction, _ = timed(partial(outputs, 2))
    reference = outputs(3)[0]
    seconds = 0.0
    size = min(1000, options.many // 2)
    sides = features.to(options.device), reference.to(options.device)
    shared = Comparison(*sides, kid_subsets=SUBSETS, kid_subset_size=size)
    classes = Comparison(logits.to(options.device), logits)
    for name in METRICS:
        comparison = classes if name == "inception_score" else shared
        spent = timed(partial(make_score, registry.metrics.get(name), comparison)).wall
        print(f"{name}, with its interval: {spent:.2f} s", flush=True)
        seconds += spent
    print(
        f"all scores of {options.many:,} samples: {seconds:.1f} s, {seconds / extraction:.1%} of the "
        f"{extraction:.0f} s that their features took"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine()}, {options.threads} threads, {time.strftime('%Y-%m-%d')}")
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TRILEMMA_WEIGHTS_DIR=folder):
        install_inception()
        (splits := Path(folder) / "splits").mkdir()
        compare(options, splits)
        overhead(options)


if __name__ == "__main__":
    main()
