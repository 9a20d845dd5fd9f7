"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

All four ask which samples lie in which balls, and one pass over the pairs answers for all of them (`search`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.intervals import normal_interval, share_estimate, standard_error_of, wilson_interval
from trilemma_bench.metrics.search import close_pairs
from trilemma_bench.statistics import Z95

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

GROUPS = 20  # of generated samples, for the jackknife


class Balls(NamedTuple):
    """Who lies in whose ball, as far as the metrics ask.

    precise: bool N, generated samples inside a ball of a reference sample. density: int64 N, how many of the balls for
    density hold each. covered, recalled: of each reference sample, the least and the greatest group (index mod
    `GROUPS`) of the generated samples inside its ball, or in whose balls it is: int64 2×M, `GROUPS` and −1 for none.
    """

    precise: Tensor
    density: Tensor
    covered: Tensor
    recalled: Tensor


def balls(
    generated: Tensor,
    reference: Tensor,
    radii: tuple[Tensor, Tensor, Tensor],
    closed: tuple[bool, bool],
    block: int | None = None,
) -> Balls:
    """Which of the generated samples, N×D, and of the reference samples, M×D, lie in each other's balls.

    radii: of the reference samples for precision and for density, M each, and of the generated samples for recall, N;
    below 0 for a ball that holds nothing. closed: whether a sample at exactly the radius is inside (`≤`) or not (`<`),
    for precision and recall, and for density and coverage. block: changes memory, never the result.
    """
    for_precision, for_density, for_recall = radii
    device = generated.device
    precise = torch.zeros(len(generated), dtype=torch.bool, device=device)
    density = torch.zeros(len(generated), dtype=torch.int64, device=device)
    covered, recalled = (_no_groups(len(reference), device) for _ in range(2))
    around_reference = torch.stack([for_precision, for_density])
    for i, j, distance in close_pairs(generated, reference, for_recall[None], around_reference, block):
        precise[i[_inside(distance, for_precision[j], closed[0])]] = True
        dense = _inside(distance, for_density[j], closed[1])
        density.add_(torch.bincount(i[dense], minlength=len(density)))
        _note_groups(covered, j[dense], i[dense])
        found = _inside(distance, for_recall[i], closed[0])
        _note_groups(recalled, j[found], i[found])
    return Balls(precise, density, covered, recalled)


def _inside(distance: Tensor, radius: Tensor, closed: bool) -> Tensor:
    return distance <= radius if closed else distance < radius


def _no_groups(count: int, device: torch.device) -> Tensor:
    return torch.tensor([[GROUPS], [-1]], device=device).repeat(1, count)


def _note_groups(groups: Tensor, reference: Tensor, generated: Tensor) -> None:
    groups[0].scatter_reduce_(0, reference, generated % GROUPS, "amin")
    groups[1].scatter_reduce_(0, reference, generated % GROUPS, "amax")


def precision(comparison: Comparison) -> Estimate:
    """Share of generated samples in a ball around a reference sample (Kynkäänniemi et al. 2019, eq. 1–2).

    A ball's radius is the distance to the k-th nearest other. Raises TrilemmaError under k + 1 reference samples.
    """
    _require("precision", comparison.k_precision_recall, "reference", len(comparison.reference))
    precise = comparison.balls.precise
    return share_estimate(float(precise.double().mean()), len(precise))


def recall(comparison: Comparison) -> Estimate:
    """Share of reference samples in a ball around a generated sample (Kynkäänniemi et al. 2019, eq. 1–2).

    Raises TrilemmaError under k + 1 generated samples.
    """
    _require("recall", comparison.k_precision_recall, "generated", len(comparison.generated))
    return _jackknifed(comparison.balls.recalled, len(comparison.generated))


def density(comparison: Comparison) -> Estimate:
    """Mean number of reference balls that hold a generated sample, over k; can exceed 1 (Naeem et al. 2020, eq. 3).

    Raises TrilemmaError under k + 1 reference samples.
    """
    _require("density", comparison.k_density_coverage, "reference", len(comparison.reference))
    counts = comparison.balls.density.double() / comparison.k_density_coverage
    value, error = float(counts.mean()), standard_error_of(counts)
    method = "influence of each generated sample"
    if error is None:
        return Estimate(value, method=method)
    low, high = normal_interval(value, error, DENSITY.range)
    return Estimate(value, error, method, (low, max(high, _most_density(counts))))


def _most_density(counts: Tensor) -> float:
    """The density if as many samples are in a ball as Wilson's interval allows: more than a normal error where few are.

    Where none is, each of them counts as 1: reference samples are in k balls of others, on average.
    """
    inside = counts > 0
    each = float(counts[inside].mean()) if inside.any() else 1.0
    return each * wilson_interval(float(inside.double().mean()), len(counts))[1]


def coverage(comparison: Comparison) -> Estimate:
    """Share of reference balls that hold a generated sample (Naeem et al. 2020, eq. 4).

    Raises TrilemmaError under k + 1 reference samples.
    """
    _require("coverage", comparison.k_density_coverage, "reference", len(comparison.reference))
    return _jackknifed(comparison.balls.covered, len(comparison.generated))


def _jackknifed(groups: Tensor, generated: int) -> Estimate:
    """The share of reference samples that any group hits, and its error by leaving out one group after the other.

    Such errors are on average no less than the true one (Efron & Stein 1981), but 0 where no reference sample hangs on
    one group alone. With so many as Wilson's interval then allows, Z95² where each is as likely as the others, the
    error is Z95 reference samples; it is never reported as less.
    """
    least, greatest = groups
    value = float((greatest >= 0).double().mean())
    method = f"jackknife over {(used := min(GROUPS, generated))} groups of the generated samples"
    if used < 2:
        return Estimate(value, method=method)
    lost = torch.bincount(least[least == greatest], minlength=used).double()
    error = math.sqrt((used - 1) / used * float((lost - lost.mean()).square().sum()))
    return Estimate(value, max(error, Z95) / len(least), method)


def _require(metric: str, k: int, side: str, count: int) -> None:
    if count < k + 1:
        raise TrilemmaError(f"{metric} needs at least k+1={k + 1} {side} samples, got {count}")


_KYNKAANNIEMI = "Kynkäänniemi et al. 2019, arXiv:1904.06991"
_NAEEM = "Naeem et al. 2020, arXiv:2002.09797"

_CLOSED, _OPEN = "distance ≤ radius", "distance < radius"

PRECISION = Metric(
    "precision", precision, "higher", "features", "share", "Precision", (0.0, 1.0), _KYNKAANNIEMI, convention=_CLOSED,
    least=lambda protocol, dim: (1, protocol.k_precision_recall + 1),
)  # fmt: skip
RECALL = Metric(
    "recall", recall, "higher", "features", "share", "Recall", (0.0, 1.0), _KYNKAANNIEMI, convention=_CLOSED,
    least=lambda protocol, dim: (protocol.k_precision_recall + 1, 1),
)  # fmt: skip
DENSITY = Metric(
    "density", density, "higher", "features", "", "Density", (0.0, math.inf), _NAEEM, convention=_OPEN,
    least=lambda protocol, dim: (1, protocol.k_density_coverage + 1),
)  # fmt: skip
COVERAGE = Metric(
    "coverage", coverage, "higher", "features", "share", "Coverage", (0.0, 1.0), _NAEEM, convention=_OPEN,
    least=lambda protocol, dim: (1, protocol.k_density_coverage + 1),
)  # fmt: skip
