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
from trilemma_bench.metrics.intervals import (
    normal_interval,
    share_estimate,
    standard_error_of,
    student_interval,
    wilson_interval,
)
from trilemma_bench.metrics.search import Side, close_pairs, features_of, nearest_neighbours
from trilemma_bench.statistics import Z95

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

GROUPS = 20  # of generated samples, for the jackknife
FREEDOM = 6  # degrees, of its error: that is as uncertain, 0.3 of itself in simulations
GROWN = 2**16  # pairs compared with the radii of all groups at a time, 20 MiB
FURTHER = 2  # neighbours beyond the k-th that are known: a group seldom has more among the nearest


class Growing(NamedTuple):
    """Radii of balls for recall, which grow where some of the neighbours are left out.

    of_all: float64 F×N, the radii first, then what they may grow to, ascending. without: float64 `GROUPS`×N, the radii
    without each group of the generated samples. Below 0 for a ball that holds nothing.
    """

    of_all: Tensor
    without: Tensor


class Balls(NamedTuple):
    """Who lies in whose ball, as far as the metrics ask.

    precise: bool N, generated samples inside a ball of a reference sample. density: int64 N, how many of the balls for
    density hold each. covered, recalled: of each reference sample, the least and the greatest group (index mod
    `GROUPS`) of the generated samples inside its ball, or in whose balls it is: int64 2×M, `GROUPS` and −1 for none.
    regained: bool `GROUPS`×M, whether a reference sample is in a ball that grows to it when that group is left out.
    """

    precise: Tensor
    density: Tensor
    covered: Tensor
    recalled: Tensor
    regained: Tensor


def growing_radii(generated: Tensor | Side, k: int) -> Growing:
    """Distances of generated samples to their k-th nearest other, of all and without each group; −1 of too few.

    generated: features N×D, or what `search.sides_of` made of them.
    """
    if (count := len(generated)) > k:
        return growing(*nearest_neighbours(generated, k, min(FURTHER, count - 1 - k)))
    nothing = torch.full((GROUPS, count), -1.0, dtype=torch.float64, device=features_of(generated).device)
    return Growing(nothing[:1], nothing)


def growing(index: Tensor, distances: Tensor) -> Growing:
    """The radii of generated samples' balls, and those that hold as many others without each of the groups.

    index: int64 N×K, the nearest others of each sample. distances: float64 N×F, ascending, to the last F of these; the
    first is the radius, and the last is where a group has F or more of the K.
    """
    known, nearer = distances.shape[1], index.shape[1] - distances.shape[1]
    group, own = index % GROUPS, torch.arange(len(index), device=index.device) % GROUPS
    without = []
    for left_out in range(GROUPS):
        others = (group != left_out).cumsum(dim=1)[:, nearer:]
        place = (others <= nearer).sum(dim=1).clamp(max=known - 1)
        without.append(distances.gather(1, place[:, None])[:, 0].masked_fill(own == left_out, -1.0))
    return Growing(distances.mT, torch.stack(without))


def balls(
    generated: Tensor | Side,
    reference: Tensor | Side,
    around_reference: tuple[Tensor, Tensor],
    around_generated: Growing,
    closed: tuple[bool, bool],
    block: int | None = None,
) -> Balls:
    """Which of the generated samples, N×D, and of the reference samples, M×D, lie in each other's balls.

    generated, reference: features, or what `search.sides_of` made of both. around_reference: radii for precision and
    for density, M each; below 0 for a ball that holds nothing. around_generated: radii for recall. closed: whether a
    sample at exactly the radius is inside (`≤`) or not (`<`), for precision and recall, and for density and coverage.
    block: changes memory, never the result.
    """
    for_precision, for_density = around_reference
    for_recall, widest = around_generated.of_all[0], around_generated.of_all[-1]
    (count, others), device = (len(generated), len(reference)), widest.device
    density = torch.zeros(count, dtype=torch.int64, device=device)
    # One place more, for the pairs that are outside: a list of those inside is a wait for the device.
    precise = torch.zeros(count + 1, dtype=torch.bool, device=device)
    covered, recalled, regained = torch.zeros(3, GROUPS, others + 1, dtype=torch.bool, device=device)
    for i, j, distance in close_pairs(
        generated, reference, around_generated.of_all, torch.stack(around_reference), block
    ):
        row = i % GROUPS * (others + 1)
        precise.scatter_(0, torch.where(_inside(distance, for_precision[j], closed[0]), i, count), True)
        dense = _inside(distance, for_density[j], closed[1])
        density.index_add_(0, i, dense.long())
        covered.view(-1).scatter_(0, row + torch.where(dense, j, others), True)
        found = _inside(distance, for_recall[i], closed[0])
        recalled.view(-1).scatter_(0, row + torch.where(found, j, others), True)
        near = (~found & _inside(distance, widest[i], closed[0])).nonzero()[:, 0]
        for some in near.split(GROWN):
            grown = _inside(distance[some], around_generated.without[:, i[some]], closed[0])
            regained.scatter_(1, torch.where(grown, j[some], others), True)
    return Balls(precise[:-1], density, covered[:, :-1], recalled[:, :-1], regained[:, :-1])


def _inside(distance: Tensor, radius: Tensor, closed: bool) -> Tensor:
    return distance <= radius if closed else distance < radius


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
    found = comparison.balls
    return _jackknifed(found.recalled, len(comparison.generated), found.regained)


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


def _jackknifed(groups: Tensor, generated: int, regained: Tensor | None = None) -> Estimate:
    """The share of reference samples that any group hits, and its error by leaving out one group after the other.

    groups: as in `Balls`; regained: what is hit without a group and not with it. The error is 0 where no reference
    sample hangs on one group alone. With so many as Wilson's interval then allows, Z95² where each is as likely as the
    others, it is Z95 reference samples, and never reported as less.
    """
    groups, count = groups[: min(GROUPS, generated)], groups.sum(dim=0)
    value = float((count > 0).double().mean())
    method = f"jackknife over {(used := len(groups))} groups of the generated samples, corrected for its higher orders"
    if used < 2:
        return Estimate(value, method=method)
    hit = count > groups.long()  # by another group
    hits = (hit if regained is None else hit | regained[:used]).sum(dim=1).double()
    variance = (used - 1) / used * _scatter(hits) * _counted_once(groups)
    error = max(math.sqrt(variance), Z95) / groups.shape[1]
    return Estimate(value, error, method, student_interval(value, error, FREEDOM, (0.0, 1.0)))


def _counted_once(groups: Tensor) -> float:
    """The share of a jackknife's variance J that there is, as far as balls stay as they are: J / (J + second).

    J counts what depends on k groups together k times (Efron & Stein 1981), and `second`, of the second differences of
    all pairs of groups, k (k − 1) / 2 times. Of reference samples that λ generated ones hit by chance, J holds λ where
    there is 1 − exp(−λ), which is nearly, and never more than, λ / (1 + λ/2); and `second` is λ/2 of J.
    """
    count = groups.sum(dim=0)
    one, two = (groups[:, count == number].double() for number in (1, 2))  # what hangs on so many groups
    pairs = (two @ two.mT)[tuple(torch.triu_indices(len(groups), len(groups), 1, device=groups.device))]
    first, second = (len(groups) - 1) / len(groups) * _scatter(one.sum(dim=1)), _scatter(pairs)
    return first / (first + second) if first else 1.0


def _scatter(values: Tensor) -> float:
    return float((values - values.mean()).square().sum())


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
