"""Three digits as the channels of one image: 1000 known modes (Metz et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trilemma_bench.contracts import ModeRule, Split
from trilemma_bench.datasets.splits import permutations


def stack_digits(digits: Split, count: int, seed: int) -> Split:
    """`count` seeded triples of `digits` (uint8 N×1×H×W): uint8 count×3×H×W, labels 100a + 10b + c (a: channel 0).

    Each channel walks through permutations of the digits, so that all are used equally often.
    """
    assert digits.labels is not None
    triples = permutations(len(digits), count, seed, rows=3).T
    return Split(digits.samples[:, 0][triples], number_of(digits.labels[triples]))


def number_of(digits: Tensor) -> Tensor:
    """The numbers that rows of digits (int64 N×C, first is the highest) write: int64 N."""
    places = 10 ** torch.arange(digits.shape[1] - 1, -1, -1, device=digits.device)
    return (digits * places).sum(dim=1)


def digit_modes(classify: Callable[[Tensor], Tensor], classifier: str, channels: int) -> ModeRule:
    """Modes of digit images with one digit a channel. classify: uint8 N×C×H×W → int64 N×C; classifier: its name."""
    if channels == 1:
        rule = f"the digit that {classifier} sees"
    else:
        rule = f"the number that {classifier} reads: one digit a channel, channel 0 the hundreds"
    return ModeRule(10**channels, lambda images: number_of(classify(images)), rule)
