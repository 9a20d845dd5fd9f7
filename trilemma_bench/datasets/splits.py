"""What datasets share: splits and their names, and seeded orders that do not depend on torch's version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trilemma_bench.errors import unknown_name

if TYPE_CHECKING:
    from trilemma_bench.contracts import Dataset

TRAIN_SPLIT = "train"  # what models are trained on, and memorisation is measured against


def check_split(dataset: Dataset, split: str) -> None:
    """Raises UsageError unless `split` is one of the dataset's."""
    if split not in dataset.splits:
        raise unknown_name(f"split of {dataset.name}", split, dataset.splits)


def permutations(size: int, count: int, seed: int, rows: int = 1) -> Tensor:
    """int64 rows×count: each row walks through fresh permutations of 0…size−1 until `count` are drawn."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rounds = -(-count // size)
    drawn = rng.permuted(np.tile(np.arange(size), (rows * rounds, 1)), axis=1)
    return torch.from_numpy(drawn.reshape(rows, rounds * size)[:, :count].copy())
