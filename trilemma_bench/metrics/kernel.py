"""Kernel distances: KID (Bińkowski et al. 2018) and CMMD (Jayasumana et al. 2024), both a squared MMD.

MMD² = E k(x, x′) + E k(y, y′) − 2 E k(x, y) (Gretton et al. 2012). Kernel values are computed in float64, a tile of the
pairs at a time and symmetric halves once, so that memory grows with the samples and not with the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.intervals import ratio_interval
from trilemma_bench.protocol import KID_SUBSETS_SEED, Protocol

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

BLOCK = 512  # samples along each side of a tile of kernel values: 2 MiB
CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0
_METHOD = "projection of the U-statistic, to second order"


class Kernel(NamedTuple):
    """A kernel of inner products. rows: samples → float64 vectors; value: inner products → k, may overwrite them."""

    rows: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]


def polynomial(dim: int) -> Kernel:
    """(x·y / D + 1)³."""

    def cube(products: Tensor) -> Tensor:
        base = products.div_(dim).add_(1)
        return base.square().mul_(base)

    return Kernel(Tensor.double, cube)


def unit_rbf(sigma: float) -> Kernel:
    """exp(−|x − y|² / 2σ²) of samples scaled to length one, where |x − y|² = 2 − 2 x·y."""
    return Kernel(unit_rows, lambda products: products.sub_(1).div_(sigma**2).exp_())


def unit_rows(features: Tensor) -> Tensor:
    """The rows of N×D scaled to length one, in float64."""
    return torch.nn.functional.normalize(features.double(), dim=1, eps=0)


def require_directions(metric: str, side: str, features: Tensor) -> None:
    """Raises TrilemmaError where samples have features that are all zero, and so no cosine to any other."""
    if zeros := int((features == 0).all(dim=1).sum()):
        raise TrilemmaError(f"{metric} compares directions, and {zeros} {side} samples have features that are all zero")


class Sums(NamedTuple):
    """Sums of kernel values over pairs of N samples x and `others` samples y.

    within: float64 N, of k(x_i, x_j) over j ≠ i; squares: of k(x_i, x_j)² over all i ≠ j; across: float64 N, of
    k(x_i, y_j) over j; reference: of k(y_i, y_j) over all i ≠ j.
    """

    within: Tensor
    squares: float
    across: Tensor
    reference: float
    others: int

    @property
    def unbiased(self) -> float:
        """MMD² over pairs of different samples, which can be negative (Gretton et al. 2012, eq. 3)."""
        n, m = len(self.within), self.others
        own = float(self.within.sum()) / (n * (n - 1)) + self.reference / (m * (m - 1))
        return own - 2 * float(self.across.sum()) / (n * m)

    def biased(self, itself: float) -> float:
        """MMD² over all pairs, also those of a sample and itself, whose k is given (Gretton et al. 2012, eq. 5)."""
        n, m = len(self.within), self.others
        own = float(self.within.sum()) / n**2 + self.reference / m**2 + itself * (1 / n + 1 / m)
        return own - 2 * float(self.across.sum()) / (n * m)

    @property
    def influence(self) -> Tensor:
        """Twice the mean of k(x_i, ·) over the other x less that over y: float64 N, not centred."""
        return 2 * (self.within / (len(self.within) - 1) - self.across / self.others)

    @property
    def interaction(self) -> float:
        """Variance of k(x, x′) beyond any sum of a function of x and one of x′: what the influence leaves out.

        The residual mean square of the fit k(x_i, x_j) ≈ μ + α_i + α_j over i < j; NaN under 4 samples.
        """
        if (n := len(self.within)) < 4:
            return math.nan
        total = self.squares / 2 - float(self.within.sum()) ** 2 / (2 * n * (n - 1))
        fitted = float((self.within - self.within.mean()).square().sum()) / (n - 2)
        return max(0.0, total - fitted) / (n * (n - 3) / 2)


def kernel_sums(x: Tensor, y: Tensor, kernel: Kernel, block: int = BLOCK) -> Sums:
    """Sums of k over pairs of x, N×D, and y, M×D. block: a tile's side; it changes memory, never the result."""
    within, squares = _sums_within(x, kernel, block)
    reference, _ = _sums_within(y, kernel, block)
    return Sums(within, squares, _sums_across(x, y, kernel, block), float(reference.sum()), len(y))


def _sums_within(x: Tensor, kernel: Kernel, block: int) -> tuple[Tensor, float]:
    """Σ k(x_i, x_j) over j ≠ i, float64 N, and Σ k² over all i ≠ j; a tile stands for its mirror image too."""
    sums = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    squares = torch.zeros((), dtype=torch.float64, device=x.device)
    parts, totals = x.split(block), sums.split(block)
    for i, part in enumerate(parts):
        rows = kernel.rows(part)
        values = kernel.value(rows @ rows.mT).fill_diagonal_(0)
        totals[i].add_(values.sum(dim=1))
        squares += values.square_().sum()
        for j in range(i + 1, len(parts)):
            values = kernel.value(rows @ kernel.rows(parts[j]).mT)
            totals[i].add_(values.sum(dim=1))
            totals[j].add_(values.sum(dim=0))
            squares += 2 * values.square_().sum()
    return sums, float(squares)


def _sums_across(x: Tensor, y: Tensor, kernel: Kernel, block: int) -> Tensor:
    """Σ k(x_i, y_j) over j, float64 N."""
    sums = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for part, total in zip(x.split(block), sums.split(block), strict=True):
        rows = kernel.rows(part)
        for others in y.split(block):
            total.add_(kernel.value(rows @ kernel.rows(others).mT).sum(dim=1))
    return sums


def kid(comparison: Comparison) -> Estimate:
    """Kernel distance: MMD² without bias, kernel (x·y / D + 1)³ (Bińkowski et al. 2018, eq. 4); can be negative.

    Over all pairs or, with `kid_subsets`, the mean over subsets of `kid_subset_size` samples a side, drawn without
    replacement as torch-fidelity draws them. A sample's influence is summed over the subsets that hold it.

    Raises TrilemmaError under 2 samples on a side, or fewer than a subset needs.
    """
    x, y = comparison.generated, comparison.reference.features
    count, size = comparison.kid_subsets, comparison.kid_subset_size
    if min(len(x), len(y)) < 2:
        raise TrilemmaError(f"kid needs at least 2 samples on each side, got {len(x)} generated and {len(y)} reference")
    draws = _subsets(len(x), len(y), count, size) if count else [(slice(None), slice(None))]
    influence, times = torch.zeros(2, len(x), dtype=torch.float64, device=x.device)
    values, interactions = [], []
    for rows, others in draws:
        sums = kernel_sums(x[rows], y[others], polynomial(x.shape[1]))
        influence[rows] += sums.influence / len(sums.within)
        times[rows] += 1
        values.append(sums.unbiased)
        interactions.append(sums.interaction)
    centred = (influence - times * (influence.sum() / times.sum())) / len(values)
    error = _standard_error(centred, float(np.mean(interactions)), len(values), int(times.sum()) // len(values))
    return Estimate(float(np.mean(values)), error, _METHOD)


def _subsets(n: int, m: int, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices of each subset's generated and reference samples."""
    if count < 0 or not 2 <= size <= min(n, m):
        raise TrilemmaError(
            f"kid over {count} subsets of {size} needs at least {max(2, size)} samples on each side, got {n} generated "
            f"and {m} reference: measure more, or use all pairs (0 subsets)"
        )
    rng = np.random.RandomState(KID_SUBSETS_SEED)
    for _ in range(count):
        rows = rng.choice(n, size, replace=False)
        yield torch.from_numpy(rows), torch.from_numpy(rng.choice(m, size, replace=False))


def _standard_error(influence: Tensor, interaction: float, subsets: int, size: int) -> float | None:
    """The standard error of a mean of U-statistics over subsets of `size`, from each sample's centred influence on it.

    Σ influence² holds the variance from pairs twice, so one is taken off (Efron & Stein 1981); what is left cannot be
    less than the other. It matters where x and y are alike, and the influence is little but noise.
    """
    if size < 4:
        return None
    n = len(influence)
    together = 1 + (subsets - 1) * size * (size - 1) / (n * (n - 1))  # subsets that hold a pair which one holds
    pairs = 2 * interaction / (subsets * size * (size - 1)) * together
    return math.sqrt(max(float(influence.square().sum()) - pairs, pairs))


def cmmd(comparison: Comparison) -> Estimate:
    """1000 · MMD² with the kernel exp(−|x − y|² / 2σ²), σ = 10, of features of length one (Jayasumana et al. 2024).

    The biased estimate over all pairs, as in the authors' implementation. The paper's features are image embeddings of
    CLIP ViT-L/14 at 336 pixels; the extractor decides which are used here, and only equal ones compare.

    Raises TrilemmaError for features that are all zero.
    """
    x, y = comparison.generated, comparison.reference.features
    require_directions("cmmd", "generated", x)
    require_directions("cmmd", "reference", y)
    sums = kernel_sums(x, y, unit_rbf(CMMD_SIGMA))
    value = CMMD_SCALE * sums.biased(itself=1.0)
    influence = (sums.influence - sums.influence.mean()) / len(x)
    error = _standard_error(influence, sums.interaction, 1, len(x))
    if error is None:
        return Estimate(value, method=_METHOD)
    return Estimate(value, CMMD_SCALE * error, _METHOD, ratio_interval(value, CMMD_SCALE * error))


def _least_of_kid(protocol: Protocol, dim: int) -> tuple[int, int]:
    count = protocol.kid_subset_size if protocol.kid_subsets else 2
    return count, count


KID = Metric(
    "kid", kid, "lower", "features", "", "Kernel distance (KID)", (-math.inf, math.inf),
    "Bińkowski et al. 2018, arXiv:1801.01401", convention="kernel (x·y / D + 1)³, unbiased", least=_least_of_kid,
)  # fmt: skip
CMMD = Metric(
    "cmmd", cmmd, "lower", "features", "", "CLIP kernel distance (CMMD)", (0.0, math.inf),
    "Jayasumana et al. 2024, arXiv:2401.09603", convention=f"σ = {CMMD_SIGMA:g}, biased, ×{CMMD_SCALE:g}",
)  # fmt: skip
