"""The Fréchet distance between Gaussians fitted to two sets of features (Dowson & Landau 1982; Heusel et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison


class Moments(NamedTuple):
    """mean: float64 D; covariance: float64 D×D, with N − 1."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor, chunk: int = 4096) -> Moments:
    """Mean and covariance of features N×D, in float64, `chunk` rows at a time. Raises TrilemmaError for N < 2."""
    _require_two(features)
    count, dim = features.shape
    mean = torch.zeros(dim, dtype=torch.float64, device=features.device)
    for rows in features.split(chunk):
        mean += rows.double().sum(dim=0) / count
    covariance = mean.new_zeros(dim, dim)
    for rows in features.split(chunk):
        centred = rows.double() - mean
        covariance.addmm_(centred.mT, centred, alpha=1 / (count - 1))
    return Moments(mean, covariance)


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> float:
    """|μ1−μ2|² + tr Σ1 + tr Σ2 − 2 tr (Σ1 Σ2)^½ in float64 (Heusel et al. 2017, eq. 6), never negative.

    mu: D; sigma: D×D, symmetric, may be singular. Raises TrilemmaError when shapes do not fit or a value is not finite.
    """
    gaussians = [torch.as_tensor(value, dtype=torch.float64) for value in (mu1, sigma1, mu2, sigma2)]
    if {tuple(value.shape) for value in gaussians} != {gaussians[0].shape, 2 * gaussians[0].shape}:
        shapes = ", ".join(str(tuple(value.shape)) for value in gaussians)
        raise TrilemmaError(f"the Fréchet distance needs means D and covariances D×D, got {shapes}")
    if not all(value.isfinite().all() for value in gaussians):
        raise TrilemmaError("the Fréchet distance needs finite means and covariances")
    mu1, sigma1, mu2, sigma2 = gaussians
    return _distance(mu1, _root(sigma1), mu2, _root(sigma2))


def frechet_distance_of_features(first: Tensor, second: Tensor) -> float:
    """The Fréchet distance of Gaussians fitted to features N1×D and N2×D. Raises TrilemmaError under two samples.

    With fewer samples than features the value is strongly biased upwards, though it is exactly the definition's.
    """
    return _distance(*_fit(first), *_fit(second))


def _fit(features: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, root) of the fitted Gaussian; with N < D the centred features themselves are the cheapest root."""
    if len(features) > features.shape[1]:
        mean, covariance = moments(features)
        return mean, _root(covariance)
    _require_two(features)
    features = features.double()
    mean = features.mean(dim=0)
    return mean, (features - mean) / (len(features) - 1) ** 0.5


def _root(covariance: Tensor) -> Tensor:
    """R (rank×D) with RᵀR = Σ. Eigenvalues within rounding of zero are zero, so that their roots do not add up."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > len(values) * torch.finfo(torch.float64).eps * values.abs().max()
    return (vectors[:, kept] * values[kept].sqrt()).mT


def _distance(mu1: Tensor, root1: Tensor, mu2: Tensor, root2: Tensor) -> float:
    """tr (Σ1 Σ2)^½ is the nuclear norm of R1 R2ᵀ: its singular values come without the square root of rounding."""
    cross = torch.linalg.svdvals(root1 @ root2.mT).sum()
    value = (mu1 - mu2).square().sum() + root1.square().sum() + root2.square().sum() - 2 * cross
    return max(0.0, float(value))


def _require_two(features: Tensor) -> None:
    if len(features) < 2:
        raise TrilemmaError(f"the Fréchet distance needs at least 2 samples, got {len(features)}")


def fd(comparison: Comparison) -> Estimate:
    """The Fréchet distance of generated and reference features."""
    value = frechet_distance_of_features(comparison.generated, comparison.reference.features)
    dim = comparison.reference.dim
    biased = min(len(comparison.generated), len(comparison.reference)) <= dim
    note = f"strongly biased: no more samples than the {dim} feature dimensions" if biased else ""
    return Estimate(value, note=note)


FD = Metric(
    "fd", fd, "lower", "features", "", "Fréchet distance", (0.0, float("inf")), "Heusel et al. 2017, arXiv:1706.08500"
)
