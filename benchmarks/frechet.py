"""The Fréchet distance from moments, ours against SciPy's sqrtm and torch-fidelity's eigenvalues, in one run.

    python benchmarks/frechet.py [--dims 2048 768] [--repeats 3] [--device cuda]

The routes take turns, so that a machine that slows down slows all; medians of wall time, and of CPU time beside it,
which other work on the machine hardly touches. Then what the error and the extrapolation cost on top.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from common import machine, medians, print_table
from torch import Tensor
from torch_fidelity.metric_fid import fid_statistics_to_metric

from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.fd_infinity import FD_INFINITY
from trilemma_bench.metrics.frechet import FD, Moments, frechet_distance, moments
from trilemma_bench.metrics.reference import MomentsReference

Call = Callable[[], float]


def features(count: int, dim: int, device: str, seed: int) -> Tensor:
    """Features like a network's: correlated, non-negative, with variances over four decades; float32 N×D."""
    rng = torch.Generator(device).manual_seed(0)
    mixing = torch.randn(dim, dim, generator=rng, device=device) / dim**0.5 * torch.logspace(0, -2, dim, device=device)
    rng.manual_seed(seed)
    return (torch.randn(count, dim, generator=rng, device=device) @ mixing.mT + 0.2).relu()


def by_sqrtm(first: Moments, second: Moments) -> float:
    """The definition, with SciPy's root of the product."""
    root = scipy.linalg.sqrtm(first.covariance.cpu().numpy() @ second.covariance.cpu().numpy()).real
    difference = (first.mean - second.mean).square().sum()
    return float(difference + first.covariance.trace() + second.covariance.trace() - 2 * np.trace(root))


def by_torch_fidelity(first: Moments, second: Moments) -> float:
    """torch-fidelity's own function, which takes eigenvalues of the product."""
    statistics_ = [{"mu": m.mean.cpu().numpy(), "sigma": m.covariance.cpu().numpy()} for m in (first, second)]
    return float(fid_statistics_to_metric(*statistics_, verbose=False)["frechet_inception_distance"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[2048, 768])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples", type=int, default=10_000, help="for the cost from features; 0 to leave it out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    print(f"{machine()}, {torch.get_num_threads()} threads, SciPy {scipy.__version__}")
    for dim in options.dims:
        first, second = (moments(features(3 * dim, dim, options.device, seed)) for seed in (1, 2))
        print_table(f"from moments, D={dim}", medians(from_moments(first, second), options.repeats), digits=12)
        if options.samples >= 4 * dim:
            generated = features(options.samples, dim, options.device, 3)
            found = medians(from_features(generated, second), 1)
            print_table(f"from features, N={options.samples}, D={dim}", found, digits=12)


def from_moments(first: Moments, second: Moments) -> dict[str, Call]:
    return {
        "ours": lambda: frechet_distance(*first, *second),
        "torch-fidelity eigvals": lambda: by_torch_fidelity(first, second),
        "SciPy sqrtm": lambda: by_sqrtm(first, second),
    }


def from_features(generated: Tensor, reference: Moments) -> dict[str, Call]:
    """The distance without its error, with it, and the extrapolated one, whose error needs the distance's."""
    known = MomentsReference(reference, len(generated))
    return {
        "moments and distance": lambda: frechet_distance(*moments(generated), *reference),
        "fd, with its error": lambda: FD.estimate(Comparison(generated, known)).value,
        "fd_infinity, with its error": lambda: FD_INFINITY.estimate(Comparison(generated, known)).value,
    }


if __name__ == "__main__":
    main()
