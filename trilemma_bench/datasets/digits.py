"""scikit-learn's bundled handwritten digits, alone and stacked in threes: real images without a download."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from trilemma_bench.contracts import Dataset, DataSpec, ModeRule, Split
from trilemma_bench.datasets.splits import check_split, permutations
from trilemma_bench.datasets.stacked import digit_modes, stack_digits

TRAIN_SIZE = 1297
SHUFFLE_SEED = 0
STACKED = {"train": (50_000, 1), "test": (10_000, 3)}  # triples and seed of each split; all 1000 modes occur in both


class Digits(Dataset):
    """1,797 handwritten digits, uint8 N×1×8×8; a fixed shuffle, of which 1,297 train and 500 test.

    Source: the test part of UCI's 'Optical Recognition of Handwritten Digits' (Alpaydin & Kaynak 1998).
    """

    name = "digits"
    spec = DataSpec((1, 8, 8), classes=10)
    default_protocol = "digits"

    def load(self, split: str) -> Split:
        check_split(self, split)
        bunch = load_digits()
        order = permutations(len(bunch.images), len(bunch.images), SHUFFLE_SEED)[0]
        chosen = order[:TRAIN_SIZE] if split == "train" else order[TRAIN_SIZE:]
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        return Split(torch.from_numpy(images)[chosen, None], torch.from_numpy(bunch.target.astype(np.int64))[chosen])

    def mode_rule(self) -> ModeRule:
        return digit_modes(_classify, "digits-cnn", self.spec.shape[0])

    def available(self) -> str:
        return "bundled with scikit-learn"


class StackedDigits(Digits):
    """Three digits as RGB, uint8 N×3×8×8, label 100a + 10b + c: 1000 modes, the offline sibling of Stacked MNIST.

    50,000 train triples of the 1,297 train digits, 10,000 test triples of the 500 test digits, seeded.
    """

    name = "stacked_digits"
    spec = DataSpec((3, 8, 8), classes=1000)
    default_protocol = "stacked-digits"

    def load(self, split: str) -> Split:
        check_split(self, split)
        count, seed = STACKED[split]
        return stack_digits(super().load(split), count, seed)


def _classify(images: Tensor) -> Tensor:
    from trilemma_bench.features.digit_classifier import DigitsCNN

    return DigitsCNN().classify(images)
