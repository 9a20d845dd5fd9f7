"""What features below float32 gain and cost: images a second, and the shift of the Fréchet distance.

    python benchmarks/feature_precision.py [--images 10000] [--extractors cifar-resnet56 inception] [--device cuda]

CIFAR-10's test split against as many training images (the data folder must have it), both sides in each precision that
the device has. Inception's weights are made from a seed where the published ones are not at hand, which is said: its
rates are the same, its distances are not those of published FIDs. The first batch is not timed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from unittest.mock import patch

import torch
from common import machine
from seeded_weights import install_inception
from torch import Tensor

from trilemma_bench import registry, weights
from trilemma_bench.contracts import Estimate, FeatureExtractor
from trilemma_bench.datasets import open_dataset
from trilemma_bench.environment import resolve_device
from trilemma_bench.features.extraction import extract, use_precision
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.frechet import FD, moments
from trilemma_bench.metrics.reference import MomentsReference
from trilemma_bench.protocol import FEATURE_PRECISIONS

BATCH = 256


def measured(
    extractor: FeatureExtractor, precision: str, sides: Sequence[Tensor], device: torch.device
) -> tuple[Tensor, float, Estimate]:
    """(features N×D of the first side, images a second, the distance with its error) in this precision."""
    use_precision(extractor, precision, device)
    extract(extractor, sides[0][:BATCH], device=device)
    start = time.perf_counter()
    generated, reference = (extract(extractor, side, device=device).to(device) for side in sides)
    rate = sum(map(len, sides)) / (time.perf_counter() - start)
    known = MomentsReference(moments(reference), len(reference))
    return generated, rate, FD.estimate(Comparison(generated, known))


def table(extractor: FeatureExtractor, sides: Sequence[Tensor], device: torch.device) -> str:
    lines = ["| precision | images/s | times | error of features | FD | shift | shift / its standard error |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    precisions = [name for name in FEATURE_PRECISIONS if name != "tf32" or device.type == "cuda"]
    found = {name: measured(extractor, name, sides, device) for name in precisions}
    exact, slow, base = found["float32"]
    assert base.standard_error is not None
    for name, (features, rate, distance) in found.items():
        error = float((features - exact).norm() / (exact - exact.mean(dim=0)).norm())
        shift = distance.value - base.value
        lines.append(
            f"| {name} | {rate:,.0f} | {rate / slow:.2f} | {error:.1e} | {distance.value:.6g} | {shift:+.1e} "
            f"| {shift / base.standard_error:+.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="of each side")
    parser.add_argument("--extractors", nargs="+", default=["cifar-resnet56", "inception"])
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    dataset = open_dataset("cifar10")
    sides = [dataset.load(split).samples[: options.images] for split in ("test", "train")]
    print(f"{machine()}: {options.images} images a side")
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ):
        for name in options.extractors:
            seeded = name == "inception" and not weights.WEIGHTS[name].path.is_file()
            if seeded:
                os.environ["TRILEMMA_WEIGHTS_DIR"] = folder
                install_inception()
            print(f"\n{name}{', weights made from a seed' * seeded}\n\n", end="")
            print(table(registry.extractors.get(name)(device), sides, device), flush=True)


if __name__ == "__main__":
    main()
