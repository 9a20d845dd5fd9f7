"""The Vendi score: the effective number of different samples (Friedman & Dieng 2023), of generated samples alone.

How sure it is, the jackknife says, exactly and in closed form: leaving out samples takes as many dimensions from
A = Σ x xᵀ / N (x of length one), so it multiplies det(A + t) by a number that A's eigenvectors give for all samples at
once (matrix determinant lemma), and an entropy is an integral of such determinants,
−tr B log B = ∫ (log det(1 + B/t) − tr B / (1 + t)) dt − tr B: a trapezoidal sum in log t. No eigenvalue is found anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.metrics.kernel import require_directions, unit_rows
from trilemma_bench.seeding import permutation

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

BLOCK = 4096  # samples held in float64 at a time; even, so that pairs of samples stay together
LOG_RANGE = 30  # natural logarithms of t around 1, the largest that an eigenvalue can be
GROWTH = 0.1  # share that more samples may add before the record says so

Rows = Callable[[Tensor], Tensor]  # indices of samples → x / √N in A's eigenvectors


def vendi(comparison: Comparison) -> Estimate:
    """exp of the entropy H of the eigenvalues of K/N, K the cosines of all pairs (Friedman & Dieng 2023, eq. 1).

    1 where all samples are alike, m for m equal shares of orthogonal ones; at most the smaller of N and D. It says
    nothing of quality: noise scores high. It grows with N, for isotropic features as D exp(−D/2N) for N ≥ D and as
    N exp(−N/2D) below (Page 1993), and has no unbiased estimate. With fewer than 4 samples the error is unknown.

    Raises TrilemmaError for features that are all zero.
    """
    features = comparison.generated
    require_directions("vendi", "generated", features)
    values, rows = _small(features) if len(features) <= features.shape[1] else _large(features)
    values = values.clamp(min=0)
    entropy = max(0.0, -float(torch.special.xlogy(values, values).sum()))
    value = math.exp(entropy)
    if len(features) < 4:
        return Estimate(value, method=_METHOD)
    error, bias = _jackknife(entropy, values, rows, len(features))
    return Estimate(value, value * error, _METHOD, note=_growth(math.expm1(-bias), *features.shape))


def _growth(more: float, count: int, dim: int) -> str:
    if more <= GROWTH:
        return ""
    return (
        f"grows with N: infinitely many samples score {'at least' if count < dim else 'about'} {100 * more:.0f} % more"
    )


def _large(features: Tensor) -> tuple[Tensor, Rows]:
    """The eigenvalues of the D×D matrix A, ascending, and each sample in its eigenvectors."""
    count, dim = features.shape
    second = torch.zeros(dim, dim, dtype=torch.float64, device=features.device)
    for part in features.split(BLOCK):
        rows = unit_rows(part)
        second.addmm_(rows.mT, rows, alpha=1 / count)
    values, vectors = torch.linalg.eigh(second)
    return values, lambda index: unit_rows(features[index]) @ vectors / math.sqrt(count)


def _small(features: Tensor) -> tuple[Tensor, Rows]:
    """The same by the N×N matrix K/N = U Λ Uᵀ, in which x_i · v_k = √(N λ_k) U_ik for A's eigenvector v_k."""
    rows = unit_rows(features)
    values, vectors = torch.linalg.eigh(rows @ rows.mT / len(rows))
    scaled = vectors * values.clamp(min=0).sqrt()
    return values, lambda index: scaled[index]


def _jackknife(entropy: float, values: Tensor, rows: Rows, count: int) -> tuple[float, float]:
    """The standard error of H, and its bias to first order in 1/N (Quenouille 1949).

    Leaving out one sample counts the variance of pairs, half of that of second differences, twice, so that one is taken
    off (Efron & Stein 1981); what is left cannot be less than the other. It is all that there is for isotropic
    features, where the entropy depends on no single sample.
    """
    order = permutation(count, "vendi-jackknife").to(values.device)
    parts = [_left_out(rows(index), values, entropy, count) for index in order.split(BLOCK)]
    one, pair = (torch.cat(part) for part in zip(*parts, strict=True))
    total = (count - 1) / count * float((one - one.mean()).square().sum())
    pairs = min(float(pair.var()) / 2, total / 2)
    return math.sqrt(total - pairs), (count - 1) * (float(one.mean()) - entropy)


def _left_out(rows: Tensor, values: Tensor, entropy: float, count: int) -> tuple[Tensor, Tensor]:
    """H without each of a block's samples, and second differences of H for pairs of neighbours in the block.

    These are N·H − (N−1)·(H without one + H without the other) + (N−2)·H without both.
    """
    nodes = torch.arange(-LOG_RANGE, LOG_RANGE + 1, dtype=torch.float64, device=values.device).exp()
    resolvent = 1 / (values[:, None] + nodes)

    def without(samples: int, determinant: Tensor) -> Tensor:
        """H without `samples` of them; determinant: what that multiplies det(A + t) by, less 1, at the nodes."""
        left = 1 - samples / count
        terms = determinant.clamp(min=torch.finfo(torch.float64).eps - 1).log1p() + (1 - left) / (1 + nodes)
        return (entropy + 1 - left + terms @ nodes) / left + math.log(left)

    own = rows.square() @ resolvent
    pairs = len(rows) // 2
    first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    cross = (rows[first] * rows[second]) @ resolvent
    determinant = own[first] * own[second] - cross.square() - own[first] - own[second]
    one, both = without(1, -own), without(2, determinant)
    return one, count * entropy - (count - 1) * (one[first] + one[second]) + (count - 2) * both


_METHOD = "delete-one jackknife, corrected for its second order"

VENDI = Metric(
    "vendi", vendi, "higher", "samples", "effective samples", "Vendi score", (1.0, math.inf),
    "Friedman & Dieng 2023, arXiv:2210.02410", convention="cosine kernel, order 1",
)  # fmt: skip
