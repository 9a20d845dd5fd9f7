"""The Vendi score: the effective number of different samples (Friedman & Dieng 2023), of generated samples alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.metrics.intervals import standard_error_of
from trilemma_bench.metrics.kernel import require_directions, unit_rows

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

BLOCK = 4096  # samples held in float64 at a time


def vendi(comparison: Comparison) -> Estimate:
    """exp of the entropy of the eigenvalues of K/N, K the cosines of all pairs (Friedman & Dieng 2023, eq. 1).

    1 where all samples are alike, m for m equal shares of orthogonal ones; at most the smaller of N and D, and it grows
    with N. It says nothing of quality: noise scores high. The influence of a sample x (length one) on the entropy H is
    −xᵀ log(A) x − H, with A = Σ x xᵀ / N.

    Raises TrilemmaError for features that are all zero.
    """
    features = comparison.generated
    require_directions("vendi", "generated", features)
    surprise = _surprise_small(features) if len(features) <= features.shape[1] else _surprise_large(features)
    entropy = max(0.0, float(surprise.mean()))
    value = math.exp(entropy)
    return Estimate(value, standard_error_of(value * surprise), "influence function, first order")


def _surprise_large(features: Tensor) -> Tensor:
    """−xᵀ log(A) x of each sample x, float64 N, whose mean is the entropy; by the D×D matrix A."""
    dim = features.shape[1]
    second = torch.zeros(dim, dim, dtype=torch.float64, device=features.device)
    for part in features.split(BLOCK):
        rows = unit_rows(part)
        second.addmm_(rows.mT, rows, alpha=1 / len(features))
    values, vectors = torch.linalg.eigh(second)
    logs = _logs(values)
    return torch.cat([-(unit_rows(part) @ vectors).square() @ logs for part in features.split(BLOCK)])


def _surprise_small(features: Tensor) -> Tensor:
    """The same by the N×N matrix K/N = U Λ Uᵀ, in which (x_i · v_k)² = N U_ik² λ_k for A's eigenvector v_k."""
    rows = unit_rows(features)
    values, vectors = torch.linalg.eigh(rows @ rows.mT / len(rows))
    return -len(rows) * vectors.square() @ (values * _logs(values))


def _logs(eigenvalues: Tensor) -> Tensor:
    """ln λ, and 0 for those that are zero up to rounding: no sample lies in their direction."""
    zero = eigenvalues <= len(eigenvalues) * torch.finfo(torch.float64).eps
    return eigenvalues.masked_fill(zero, 1.0).log()


VENDI = Metric(
    "vendi", vendi, "higher", "samples", "effective samples", "Vendi score", (1.0, math.inf),
    "Friedman & Dieng 2023, arXiv:2210.02410", convention="cosine kernel, order 1",
)  # fmt: skip
