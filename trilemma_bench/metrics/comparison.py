"""What a metric reads: two sets of features, and the modes that the generated samples were assigned to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.frechet_jackknife import Jackknife, jackknife
from trilemma_bench.metrics.memorisation import NearestPairs, nearest_pairs
from trilemma_bench.metrics.neighbours import Balls, balls, growing_radii
from trilemma_bench.metrics.reference import Reference, as_reference
from trilemma_bench.metrics.search import Side, sides_of


@dataclass(frozen=True, eq=False)
class Comparison:
    """Generated against reference samples, in one feature space. What several metrics need is computed once.

    generated: features N×D; given: the reference, a call that gives it, or its features M×D, on the same device.
    training: a call that gives the training samples, for memorisation; the reference where there is none. kid_subsets,
    kid_subset_size: for KID; 0 subsets for all pairs. modes: int64 N, the mode of each generated sample or −1 for low
    quality; a mode counts as covered with `mode_min_count` samples. closed_…: whether a sample on the surface of a
    ball is inside it (`≤`), as each paper has it.

    Raises TrilemmaError for features that are not finite, are empty or do not fit together.
    """

    generated: Tensor
    given: Tensor | Reference | Callable[[], Reference]
    k_precision_recall: int = 3
    k_density_coverage: int = 5
    training: Callable[[], Reference] | None = None
    kid_subsets: int = 0
    kid_subset_size: int = 1000
    modes: Tensor | None = None
    mode_count: int | None = None
    mode_min_count: int = 1
    closed_precision_recall: bool = True
    closed_density_coverage: bool = False

    def __post_init__(self) -> None:
        _check_features("generated", self.generated)
        if not callable(self.given):
            _ = self.reference  # checked here; a call is left until a metric needs it
        if min(self.k_precision_recall, self.k_density_coverage) < 1:
            raise TrilemmaError("the number of neighbours k must be at least 1")
        if self.modes is not None and len(self.modes) != len(self.generated):
            raise TrilemmaError(f"{len(self.modes)} modes do not fit {len(self.generated)} generated samples")

    @cached_property
    def reference(self) -> Reference:
        """The reference, on first use. Raises TrilemmaError when it does not fit the generated features."""
        if isinstance(self.given, Tensor):
            _check_features("reference", self.given)
        found = self.given() if callable(self.given) else as_reference(self.given)
        if self.generated.shape[1] != found.dim:
            raise TrilemmaError(
                f"generated samples have {self.generated.shape[1]} features and reference samples "
                f"{found.dim}: use one extractor for both"
            )
        return found

    @cached_property
    def training_samples(self) -> Reference:
        """The training samples, on first use; the reference where the comparison was given none."""
        return self.training() if self.training else self.reference

    @cached_property
    def training_pairs(self) -> NearestPairs:
        """Each generated sample with its nearest training sample."""
        return nearest_pairs(self.generated, self.training_samples.features)

    @cached_property
    def frechet(self) -> Jackknife:
        """The Fréchet distance with the variance of its parts; of the reference it reads the moments only."""
        return jackknife(self.generated, self.reference.moments)

    @cached_property
    def balls(self) -> Balls:
        """Who lies in whose ball: one pass over all pairs serves precision, recall, density and coverage."""
        generated, reference = sides_of(self.generated, self.reference.features)
        around_real = self._reference_radii(reference)
        closed = self.closed_precision_recall, self.closed_density_coverage
        return balls(generated, reference, around_real, growing_radii(generated, self.k_precision_recall), closed)

    def _reference_radii(self, prepared: Side) -> tuple[Tensor, Tensor]:
        """For precision, and for density: distances to the k-th nearest; −1 where there are too few samples."""
        ks = self.k_precision_recall, self.k_density_coverage
        first, last = min(ks), min(max(ks), len(prepared) - 1)
        nothing = torch.full((len(prepared),), -1.0, dtype=torch.float64, device=prepared.features.device)
        nearest = self.reference.nearest(last, first, prepared) if first <= last else None
        precise, dense = (nothing if nearest is None or k > last else nearest[:, k - first] for k in ks)
        return precise, dense


def _check_features(side: str, features: Tensor) -> None:
    if features.ndim != 2 or not features.is_floating_point():
        raise TrilemmaError(f"{side} features must be floats N×D, got {features.dtype} {tuple(features.shape)}")
    if not features.numel():
        raise TrilemmaError(f"there are no {side} samples to measure")
    if features.sum(dim=1).isfinite().all():  # a NaN or an infinity would have spread to the sum of its row
        return
    if bad := int((~torch.isfinite(features).all(dim=1)).sum()):
        raise TrilemmaError(
            f"{bad} of {len(features)} {side} samples have features that are not finite: look at the samples for NaN"
        )
