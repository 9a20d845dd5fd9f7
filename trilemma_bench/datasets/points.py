"""The toy of the paper's figure 6: a mixture of 25 Gaussians on a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trilemma_bench.contracts import Dataset, DataSpec, ModeRule, Split
from trilemma_bench.datasets.splits import check_split

STD = 0.05
SIZE = 100_000
SEEDS = {"train": 25, "test": 52}
MODE_SHARE = 0.002  # 20 of 10,000 samples, where a perfect model has 400: one stray hit is no coverage
HIGH_QUALITY_STDS = 4


class Gaussians25(Dataset):
    """25 Gaussians of standard deviation 0.05 around {−4, −2, 0, 2, 4}², equally likely; float32 N×2, label = mode.

    100,000 points a split, from fixed seeds. After Xiao et al. 2022, figure 6 and appendix C.5; the grid and the
    deviation are those that such toys usually have, since theirs are not known here.
    """

    name = "gaussians25"
    default_protocol = "points"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        axis = torch.arange(-4.0, 5.0, 2.0)
        self.centres = torch.cartesian_prod(axis, axis)
        scale = float(self.load("train").samples.std(dim=0).mean())
        self.spec = DataSpec((2,), classes=len(self.centres), scale=scale)

    def load(self, split: str) -> Split:
        check_split(self, split)
        rng = np.random.Generator(np.random.PCG64(SEEDS[split]))
        labels = rng.integers(len(self.centres), size=SIZE)
        points = self.centres.double().numpy()[labels] + STD * rng.standard_normal((SIZE, 2))
        return Split(torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels))

    def mode_rule(self) -> ModeRule:
        rule = (
            f"nearest of 25 centres; high quality within {HIGH_QUALITY_STDS} standard deviations ({STD}) of it; "
            f"covered with {MODE_SHARE:.1%} of the samples"
        )
        return ModeRule(len(self.centres), self._nearest, rule, MODE_SHARE)

    def _nearest(self, points: Tensor) -> Tensor:
        # The matrix-product form of cdist loses the digits that decide at the border.
        distances = torch.cdist(
            points.float(), self.centres.to(points.device), compute_mode="donot_use_mm_for_euclid_dist"
        )
        distance, mode = distances.min(dim=1)
        return torch.where(distance <= HIGH_QUALITY_STDS * STD, mode, -1)
