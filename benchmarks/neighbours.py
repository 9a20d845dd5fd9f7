"""Precision, recall, density and coverage: ours against prdc and torch-fidelity on the same features, in one run.

    python benchmarks/neighbours.py [--samples 10000] [--repeats 3] [--features network]
    python benchmarks/neighbours.py --samples 50000 --dims 4096 --alone    # ours against the bare products
    python benchmarks/neighbours.py --device cuda --dims 4096    # prdc, which computes on the host, is left out
    python benchmarks/neighbours.py --float-only    # without int8 and bfloat16, for processors that are slow with them

Features: 'network', like a network's (a low effective dimension, clusters, never negative); 'noise', isotropic
Gaussians, where no bound prunes anything; 'collapsed', 20 points with noise of a thousandth; 'codes', random zeros and
ones, which are full of ties; or 'smoothed', three ones among zeros as label smoothing has them: 0.95 and 0.05, whose
ties no product is exact for. Memory is what a fresh process grows by above the features themselves, or what a GPU holds
above them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import Timing, extra_memory, machine, medians, print_table
from prdc import compute_prdc
from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.neighbours import COVERAGE, DENSITY, PRECISION, RECALL
from trilemma_bench.metrics.search import products as coarse_products

PRUNED = 4096  # rows of the bare products that are made at once
Route = Callable[[Tensor, Tensor], tuple[float, ...]]


def features(kind: str, count: int, dim: int, seed: int) -> Tensor:
    """float32 N×D."""
    rng = torch.Generator().manual_seed(seed)
    if kind == "noise":
        return torch.randn(count, dim, generator=rng)
    if kind == "codes":
        return torch.randint(2, (count, dim), generator=rng).float()
    if kind == "smoothed":
        return torch.full((count, dim), 0.05).scatter_(1, torch.rand(count, dim, generator=rng).topk(3).indices, 0.95)
    shared = torch.Generator().manual_seed(100)
    if kind == "collapsed":
        points = torch.randn(20, dim, generator=shared)[torch.randint(20, (count,), generator=rng)]
        return points + 1e-3 * torch.randn(count, dim, generator=rng)
    inner = min(dim, 128)
    centres = torch.randn(200, inner, generator=shared)
    mixing = torch.randn(inner, dim, generator=shared) / inner**0.5
    latents = centres[torch.randint(200, (count,), generator=rng)] + 0.7 * torch.randn(count, inner, generator=rng)
    return (latents @ mixing + 0.1 * torch.randn(count, dim, generator=rng)).relu_()


def ours(generated: Tensor, real: Tensor) -> tuple[float, ...]:
    """Precision, recall, density, coverage (k = 5 for all, as prdc has it), with their errors."""
    comparison = Comparison(generated, real, k_precision_recall=5, closed_precision_recall=False)
    return tuple(metric.estimate(comparison).value for metric in (PRECISION, RECALL, DENSITY, COVERAGE))


def ours_precision_recall(generated: Tensor, real: Tensor) -> tuple[float, ...]:
    """Precision and recall alone, k = 3."""
    comparison = Comparison(generated, real, k_density_coverage=3)
    return tuple(metric.estimate(comparison).value for metric in (PRECISION, RECALL))


def prdc(generated: Tensor, real: Tensor) -> tuple[float, ...]:
    found = compute_prdc(real.numpy(), generated.numpy(), nearest_k=5)
    return tuple(float(found[name]) for name in ("precision", "recall", "density", "coverage"))


def torch_fidelity(generated: Tensor, real: Tensor) -> tuple[float, ...]:
    """k = 3, its defaults."""
    found = prc_features_to_metric(generated, real, prc_neighborhood=3, verbose=False)
    return float(found[KEY_METRIC_PRECISION]), float(found[KEY_METRIC_RECALL])


def products(generated: Tensor, real: Tensor) -> tuple[float, ...]:
    """The three plain matrix products that brute force cannot do without, in float32, nothing else."""
    total = 0.0
    for x, y in ((real, real), (generated, generated), (generated, real)):
        for rows in x.split(PRUNED):
            total += float((rows @ y.mT)[0, 0])
    return (total,)


def prepared(route: Route, kind: str, count: int, dim: int) -> Callable[[], Any]:
    """The route on features that exist before it is measured, and whose libraries are loaded."""
    generated, real = features(kind, count, dim, 1), features(kind, count, dim, 2)
    route(generated[:1000], real[:1000])
    return partial(route, generated, real)


def report(title: str, routes: Mapping[str, Route], options: argparse.Namespace, dim: int) -> None:
    generated, real = (features(options.features, options.samples, dim, seed).to(options.device) for seed in (1, 2))
    found = medians({name: partial(route, generated, real) for name, route in routes.items()}, options.repeats, False)
    shown = {
        name: Timing(", ".join(f"{each:.9g}" for each in value), *times) for name, (value, *times) in found.items()
    }
    print_table(f"{title}, N = M = {options.samples}, D = {dim}, {options.features}", shown)
    if options.device == "cuda":
        grown = {name: device_memory(partial(route, generated, real)) for name, route in routes.items()}
    else:
        del generated, real
        common = options.features, options.samples, dim
        grown = {name: extra_memory(prepared, route, *common) for name, route in routes.items()}
    for name, size in grown.items():
        print(f"{name}: {size / 2**20:,.0f} MiB above the features")


def device_memory(call: Callable[[], Any]) -> int:
    """Bytes of the GPU's memory that `call` holds at most, above what is there already."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--features", choices=["network", "noise", "collapsed", "codes", "smoothed"], default="network")
    parser.add_argument("--alone", action="store_true", help="leave the peers out")
    parser.add_argument("--float-only", action="store_true", help="as on a processor slow with int8 and bfloat16")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.float_only:
        mock.patch.object(coarse_products, "is_fast", return_value=False).start()
    print(machine())
    np.random.seed(0)
    for dim in options.dims:
        if options.alone:
            report("all four", {"ours": ours, "three plain products": products}, options, dim)
        elif dim <= 2048 and options.device == "cpu":
            report("all four", {"ours": ours, "prdc": prdc, "three plain products": products}, options, dim)
        else:
            routes = {"ours": ours_precision_recall, "torch-fidelity": torch_fidelity, "three plain products": products}
            report("precision, recall", routes, options, dim)


if __name__ == "__main__":
    main()
