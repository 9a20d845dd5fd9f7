"""Labels: whether there are any to learn from, which ones samples get, and how networks are shown them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trilemma_bench.errors import UsageError
from trilemma_bench.nn.embedding import unit_mean_square


def label_count(class_conditional: bool, classes: int | None) -> int:
    """How many labels a model learns from: `classes` of the dataset, or 0 where it is not class-conditional.

    Raises UsageError where it is, and the dataset has none.
    """
    if not class_conditional:
        return 0
    if not classes:
        raise UsageError("class_conditional = true: this dataset has no labels")
    return classes


def draw_labels(classes: int, count: int, rng: torch.Generator) -> Tensor | None:
    """`count` labels (int64, on the generator's device), each of 0…classes−1 as likely; None where there are none."""
    return torch.randint(classes, (count,), generator=rng, device=rng.device) if classes else None


def label_arguments(labels: Tensor | None) -> tuple[Tensor, ...]:
    """Labels as further arguments of a network that takes none where there are none: tensors only can be replayed."""
    return () if labels is None else (labels,)


class LabelEmbedding(nn.Embedding):
    """Labels (int64 N) → learned vectors N×dim, normalised to unit mean square as a latent is (Karras et al. 2020b)."""

    def forward(self, labels: Tensor) -> Tensor:
        return unit_mean_square(super().forward(labels))


class ProjectionDiscriminator(nn.Module):
    """D(x, y) → logits N×1: the features of x (`network`, N×dim) projected on a vector of the label y, over √dim.

    Miyato & Koyama 2018, eq. 3, without the term that no label enters (Karras et al. 2020b). vectors: labels → N×dim.
    """

    def __init__(self, network: nn.Module, vectors: nn.Module) -> None:
        super().__init__()
        self.network, self.labels = network, vectors

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        features, vectors = self.network(x), self.labels(labels).float()
        return (features * vectors).sum(dim=1, keepdim=True) * vectors.shape[1] ** -0.5
