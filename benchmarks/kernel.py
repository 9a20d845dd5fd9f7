"""KID over all pairs and over 100 subsets, ours in float64 against torch-fidelity's 100 subsets in float32, in one run.

    python benchmarks/kernel.py [--samples 10000] [--dim 2048] [--repeats 3] [--device cuda]

The plain float64 product of the two sides is the floor: all pairs take two of it, half for each side with itself. The
routes take turns, so that a machine that slows down slows all; medians of wall time, and of CPU time beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import machine, medians, print_table
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.kernel import CMMD, KID

SUBSETS, SIZE = 100, 1000


def features(count: int, dim: int, device: str, seed: int, shift: float) -> Tensor:
    """Like a network's: never negative, half of them zero."""
    rng = torch.Generator().manual_seed(seed)
    return (torch.randn(count, dim, generator=rng) + shift).relu_().to(device)


def routes(x: Tensor, y: Tensor) -> dict[str, Callable[[], float]]:
    return {
        "plain product, float64": lambda: float((x.double() @ y.double().mT)[0, 0]),
        "kid, all pairs": lambda: KID.estimate(Comparison(x, y)).value,
        "kid, 100 subsets of 1000": lambda: (
            KID.estimate(Comparison(x, y, kid_subsets=SUBSETS, kid_subset_size=SIZE)).value
        ),
        "cmmd": lambda: CMMD.estimate(Comparison(x, y)).value,
        "torch-fidelity, 100 subsets of 1000": lambda: torch_fidelity(x, y),
    }


def torch_fidelity(x: Tensor, y: Tensor) -> float:
    found = kid_features_to_metric(x, y, kid_subsets=SUBSETS, kid_subset_size=SIZE, verbose=False)
    return float(found[KEY_METRIC_KID_MEAN])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    x = features(options.samples, options.dim, options.device, seed=0, shift=0.0)
    y = features(options.samples, options.dim, options.device, seed=1, shift=0.05)
    calls = routes(x, y)
    print(f"N = M = {options.samples}, D = {options.dim}, {machine()}, {torch.get_num_threads()} threads")
    print_table("route", medians(calls, options.repeats))


if __name__ == "__main__":
    main()
