"""Where the time goes, before each step of the work and after it: the steps one by one, in one run.

    python benchmarks/profiles.py [--images 32] [--samples 10000] [--dim 2048] [--repeats 3]

Each row adds one step to the row before. Its shares are those of torch's operators in one more call, under the
profiler; what is below a hundredth is left out, and so is what libraries do without torch.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from common import machine, medians, scenes
from neighbours import features, ours
from seeded_weights import install_inception
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.profiler import ProfilerActivity, profile

from trilemma_bench.features import inception
from trilemma_bench.features.inception import Inception
from trilemma_bench.metrics.search import bounding
from trilemma_bench.metrics.search.products import FloatProduct, IntegerProduct, LocalProduct, Product
from trilemma_bench.metrics.search.sides import Side

Call = Callable[[], Any]
SHOWN = 5


def extraction_steps(peer: nn.Module, images: Tensor) -> dict[str, Call]:
    """From torch-fidelity's network, which sees all images at once, to ours, which sees so many as fit the caches."""
    network, everything = Inception("cpu"), len(images)
    folded, ordered = with_folded_norms(peer), with_folded_norms(peer).to(memory_format=torch.channels_last)

    def ours_by(stem_images: int) -> Tensor:
        with patch.object(inception, "STEM_CPU_IMAGES", stem_images):
            return network(images)

    return {
        "torch-fidelity": lambda: peer(images)[0],
        "batch normalisation folded": lambda: folded(images)[0],
        "channels last": lambda: ordered(images)[0],
        "ReLU after the pools, pools after 1×1": partial(ours_by, everything),
        "two images at a time in the first layers": partial(ours_by, inception.STEM_CPU_IMAGES),
    }


def with_folded_norms(network: nn.Module) -> nn.Module:
    """A copy whose batch normalisations are part of the convolutions before them."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        conv, norm = getattr(layer, "conv", None), getattr(layer, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layer.conv, layer.bn = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network


def search_steps(generated: Tensor, real: Tensor) -> dict[str, Call]:
    """Precision, recall, density and coverage, with more and more of the arithmetic that bounds distances."""

    def by(*dtypes: torch.dtype) -> tuple[float, ...]:
        def chosen(sides: tuple[Side, Side]) -> Iterator[Callable[[], Product]]:
            for dtype in dtypes:
                yield partial(IntegerProduct, sides) if dtype == torch.int8 else partial(FloatProduct, sides, dtype)
            yield partial(LocalProduct, sides)

        with patch.object(bounding, "products", chosen):
            return ours(generated, real)

    return {
        "products in float64": by,
        "in float32 first": partial(by, torch.float32),
        "in bfloat16 first": partial(by, torch.bfloat16, torch.float32),
        "in int8 first": partial(by, torch.int8, torch.bfloat16, torch.float32),
    }


def shares(call: Call) -> str:
    """The operators that take most of the call's time, with their shares of it."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    parts = [(event.key.removeprefix("aten::"), event.self_cpu_time_total / total) for event in events[:SHOWN]]
    return ", ".join(f"{name} {share:.0%}" for name, share in parts if share >= 0.01)


def report(title: str, calls: dict[str, Call], repeats: int) -> None:
    found = medians(calls, repeats)
    first = next(iter(found.values())).wall
    print(f"\n| {title} | s | times | shares of the time |\n| --- | ---: | ---: | --- |", flush=True)
    for name, call in calls.items():
        wall = found[name].wall
        print(f"| {name} | {wall:.2f} | {first / wall:.2f} | {shares(call)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, TRILEMMA_WEIGHTS_DIR=folder),
        torch.no_grad(),
    ):
        steps = extraction_steps(install_inception(), scenes(options.images))
        report(f"Inception's features of {options.images} images", steps, options.repeats)
    sides = [features("network", options.samples, options.dim, seed) for seed in (1, 2)]
    report(f"P/R/D/C, N = M = {options.samples}, D = {options.dim}", search_steps(*sides), options.repeats)


if __name__ == "__main__":
    main()
