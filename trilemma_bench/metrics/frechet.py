"""The Fréchet distance between Gaussians fitted to two sets of features (Dowson & Landau 1982; Heusel et al. 2017).

FD = |μ1−μ2|² + tr Σ1 + tr Σ2 − 2 tr (Σ1 Σ2)^½. With a root R of Σ2 (RᵀR = Σ2), the last trace is the sum of the roots
of the eigenvalues of R Σ1 Rᵀ: one Cholesky factor and one symmetric eigenvalue problem, and no inverse, so Σ1 may be
singular. The root of an eigenvalue near 0 has half of its digits only. Where that would show (a singular covariance,
features that are constant or equal), the trace is the sum of the singular values of R1 Rᵀ, which need no root; and a
covariance without a Cholesky factor has a root from its eigenvectors, without those of eigenvalue 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.environment import free_memory
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.intervals import ratio_interval

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

MATRICES = 6  # D×D in float64, that a distance and its error hold at once
BLOCK = 256  # columns in one product of which only a triangle is needed
ROUNDING_LIMIT = 1e-10  # of tr Σ1 + tr Σ2: what the rounding of the eigenvalues may add up to
SMALLEST_PIVOT = 1e-10  # of the largest variance: below, a Cholesky factor may consist of rounding
EPS = torch.finfo(torch.float64).eps


class Moments(NamedTuple):
    """mean: float64 D; covariance: float64 D×D, with N − 1."""

    mean: Tensor
    covariance: Tensor


class Root(NamedTuple):
    """matrix: R, float64 rank×D, with RᵀR = Σ; triangular: whether it is upper triangular."""

    matrix: Tensor
    triangular: bool


def moments(features: Tensor, chunk: int = 4096) -> Moments:
    """Mean and covariance of features N×D, in float64, `chunk` rows at a time.

    Raises TrilemmaError for N < 2, and where memory does not hold what comes of D×D covariances.
    """
    if len(features) < 2:
        raise TrilemmaError(f"the Fréchet distance needs at least 2 samples, got {len(features)}")
    check_memory(features.shape[1], features.device)
    mean = mean_of(features, chunk)
    scatter = mean.new_zeros(len(mean), len(mean))
    for rows in features.split(chunk):
        add_gram(scatter, rows.double() - mean)
    return Moments(mean, symmetric(scatter) / (len(features) - 1))


def check_memory(dim: int, device: torch.device) -> None:
    """Raises TrilemmaError where the device has no memory left for the Fréchet distance of `dim` features."""
    needed, free = MATRICES * 8 * dim**2, free_memory(device)
    if needed > free:
        raise TrilemmaError(
            f"the Fréchet distance of {dim:,} features needs {needed / 2**30:.0f} GiB of memory, and "
            f"{free / 2**30:.0f} are free: choose a protocol with fewer features"
        )


def mean_of(features: Tensor, chunk: int = 4096) -> Tensor:
    """Mean of features N×D: float64 D."""
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for rows in features.split(chunk):
        total += rows.double().sum(dim=0)
    return total / len(features)


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Adds rowsᵀ rows to the lower triangle of `total` D×D, at about half of the whole product's cost."""
    for first in range(0, rows.shape[1], BLOCK):
        total[first:, first : first + BLOCK].addmm_(rows[:, first:].mT, rows[:, first : first + BLOCK])


def symmetric(lower: Tensor) -> Tensor:
    """The symmetric matrix with this lower triangle."""
    return lower.tril() + lower.tril(-1).mT


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> float:
    """|μ1−μ2|² + tr Σ1 + tr Σ2 − 2 tr (Σ1 Σ2)^½ in float64 (Heusel et al. 2017, eq. 6), never negative.

    mu: D; sigma: D×D, symmetric, may be singular. Raises TrilemmaError when shapes do not fit or a value is not finite.
    """
    gaussians = [torch.as_tensor(value, dtype=torch.float64) for value in (mu1, sigma1, mu2, sigma2)]
    if {tuple(value.shape) for value in gaussians} != {gaussians[0].shape, 2 * gaussians[0].shape}:
        shapes = ", ".join(str(tuple(value.shape)) for value in gaussians)
        raise TrilemmaError(f"the Fréchet distance needs means D and covariances D×D, got {shapes}")
    if not all(finite(value) for value in gaussians):
        raise TrilemmaError("the Fréchet distance needs finite means and covariances")
    mu1, sigma1, mu2, sigma2 = gaussians
    return distance(Moments(mu1, sigma1), Moments(mu2, sigma2), root_of(sigma2))


def finite(values: Tensor) -> bool:
    """Whether no value is infinite or not a number: of the sum at first, which reads once and writes nothing."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def distance(first: Moments, second: Moments, root: Root) -> float:
    """The Fréchet distance where a root of the second covariance is known."""
    values = torch.linalg.eigvalsh(sandwich(root, first.covariance))
    trace = trace_of_root(values, first.covariance, second.covariance, root)
    return combined(first.mean - second.mean, first.covariance.trace() + second.covariance.trace(), trace)


def combined(difference: Tensor, spread: Tensor, trace: Tensor) -> float:
    """The Fréchet distance from μ1 − μ2, tr Σ1 + tr Σ2 and tr (Σ1 Σ2)^½; never negative, as rounding could have it."""
    return max(0.0, float(difference.square().sum() + spread - 2 * trace))


def root_of(covariance: Tensor) -> Root:
    """The Cholesky factor; for a (nearly) singular Σ a root from its eigenvectors, without those of eigenvalue 0."""
    factor, failed = torch.linalg.cholesky_ex(covariance, upper=True)
    if not failed and factor.diagonal().square().min() > SMALLEST_PIVOT * covariance.diagonal().max():
        return Root(factor, True)
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > len(values) * EPS * values.abs().max()
    kept[-1] = True
    return Root((vectors[:, kept] * values[kept].clamp(min=0).sqrt()).mT, False)


def sandwich(root: Root, sigma: Tensor) -> Tensor:
    """The lower triangle of R Σ Rᵀ, at a third of the two products' cost where R is triangular."""
    matrix, size = root.matrix, len(root.matrix)
    blocks = [(i, min(i + BLOCK, size), i if root.triangular else 0) for i in range(0, size, BLOCK)]
    right, product = sigma.new_empty(len(sigma), size), sigma.new_zeros(size, size)
    for first, last, zeros in blocks:
        torch.mm(sigma[:, zeros:], matrix[first:last, zeros:].mT, out=right[:, first:last])
    for first, last, zeros in blocks:
        torch.mm(matrix[first:last, zeros:], right[zeros:, :last], out=product[first:last, :last])
    return product


def trace_of_root(values: Tensor, sigma1: Tensor, sigma2: Tensor, root: Root) -> Tensor:
    """tr (Σ1 Σ2)^½ from the eigenvalues of R Σ1 Rᵀ; from singular values where the rounding of these would show."""
    values = values.clamp(min=0)
    error = EPS * values.max()
    rounding = 0.5 * error * values.clamp(min=error).rsqrt().sum()  # not a number where all are 0
    if rounding <= ROUNDING_LIMIT * (sigma1.trace() + sigma2.trace()):
        return values.sqrt().sum()
    return torch.linalg.svdvals(root_of(sigma1).matrix @ root.matrix.mT).sum()


def fd(comparison: Comparison) -> Estimate:
    """The Fréchet distance of generated and reference features, with its delete-one jackknife."""
    jackknife = comparison.frechet
    few = min(len(comparison.generated), len(comparison.reference)) <= comparison.reference.dim
    note = f"strongly biased: no more samples than the {comparison.reference.dim} feature dimensions" if few else ""
    error = jackknife.standard_error()
    interval = None if error is None else ratio_interval(jackknife.value, error)
    return Estimate(jackknife.value, error, jackknife.method, interval, note)


def name_on(distance: str) -> Callable[[str], str]:
    """Extractor → the score's name: FID, or sFID, only on TF-Inception's features, elsewhere 'fd_<extractor>'."""
    return lambda extractor: distance.replace("fd", "fid") if extractor == "inception" else f"{distance}_{extractor}"


_HEUSEL = "Heusel et al. 2017, arXiv:1706.08500"
_NASH = "Nash et al. 2021, arXiv:2103.03841"

FD = Metric(
    "fd", fd, "lower", "moments", "", "Fréchet distance", (0.0, math.inf), _HEUSEL,
    least=lambda protocol, dim: (2, 2), named=name_on("fd"),
)  # fmt: skip
SFID = Metric(
    "sfid", fd, "lower", "moments", "", "Fréchet distance of spatial features", (0.0, math.inf), _NASH, "spatial",
    least=lambda protocol, dim: (2, 2), named=name_on("sfd"),
)  # fmt: skip
