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
from trilemma_bench.metrics.intervals import student_interval

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison

SPLITS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's, so that both split alike


def inception_score(comparison: Comparison) -> Estimate:
    """Mean over 10 splits of exp(mean KL(p(class | image) ‖ p(class))), 1 … number of classes (Salimans et al. 2016).

    Reads logits N×classes; of TF-Inception that is 1008, without the bias. Shuffled and split as torch-fidelity does.
    The splits are independent, so that their spread says how sure their mean is; a first-order error by the influence
    of each image would miss most of it where a split has few images for each class.

    Raises TrilemmaError for fewer samples than splits.
    """
    logits = comparison.generated
    if (n := len(logits)) < SPLITS:
        raise TrilemmaError(f"inception_score averages over {SPLITS} splits and needs as many samples, got {n}")
    order = torch.from_numpy(np.random.RandomState(SHUFFLE_SEED).permutation(n)).to(logits.device)
    bounds = [split * n // SPLITS for split in range(SPLITS + 1)]
    scores = torch.stack([_divergences(logits[order[a:b]]).mean().exp() for a, b in pairwise(bounds)])
    value, method = float(scores.mean()), f"Student's t over the {SPLITS} splits"
    if n < 2 * SPLITS:
        return Estimate(value, method=method)  # a split of one image scores 1 whatever it shows
    error = float(scores.std()) / math.sqrt(SPLITS)
    interval = student_interval(value, error, SPLITS - 1, (1.0, math.inf))
    return Estimate(value, error, method, interval)


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
