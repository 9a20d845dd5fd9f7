"""The Inception score of generated images alone (Salimans et al. 2016), by a classifier's logits."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.intervals import standard_error_of

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

SPLITS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's, so that both split alike


def inception_score(comparison: Comparison) -> Estimate:
    """Mean over 10 splits of exp(mean KL(p(class | image) ‖ p(class))), 1 … number of classes (Salimans et al. 2016).

    Reads logits N×classes; of TF-Inception that is 1008, without the bias. Shuffled and split as torch-fidelity does.
    The influence of an image on a split's logarithm is its KL less the mean: that of p(class) sums to zero.

    Raises TrilemmaError for fewer samples than splits.
    """
    logits = comparison.generated
    if (n := len(logits)) < SPLITS:
        raise TrilemmaError(f"inception_score averages over {SPLITS} splits and needs as many samples, got {n}")
    order = torch.from_numpy(np.random.RandomState(SHUFFLE_SEED).permutation(n)).to(logits.device)
    bounds = [split * n // SPLITS for split in range(SPLITS + 1)]
    divergences = [_divergences(logits[order[a:b]]) for a, b in pairwise(bounds)]
    scores = [kl.mean().exp() for kl in divergences]
    influence = [
        n / (SPLITS * len(kl)) * score * (kl - kl.mean()) for score, kl in zip(scores, divergences, strict=True)
    ]
    error = standard_error_of(torch.cat(influence)) if n >= 2 * SPLITS else None
    return Estimate(float(torch.stack(scores).mean()), error, "influence function, first order")


def _divergences(logits: Tensor) -> Tensor:
    """KL in nats of each row's class probabilities to their mean: float64 N."""
    log_p = logits.double().log_softmax(dim=1)
    p = log_p.exp()
    return (p * log_p).sum(dim=1) - torch.special.xlogy(p, p.mean(dim=0)).sum(dim=1)


INCEPTION_SCORE = Metric(
    "inception_score", inception_score, "higher", "samples", "", "Inception score", (1.0, math.inf),
    "Salimans et al. 2016, arXiv:1606.03498", output="logits", convention=f"{SPLITS} splits, shuffled",
    least=lambda protocol, dim: (SPLITS, 0),
)  # fmt: skip
