"""Distances to a Gaussian that is known, over many draws."""

from __future__ import annotations

import numpy as np
import torch

from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.frechet import Moments
from trilemma_bench.metrics.reference import MomentsReference


def known(mean, covariance):
    """A reference that is a Gaussian itself, not a sample of it."""
    return MomentsReference(Moments(mean.double(), covariance.double()), 10**9)


def spread_of(metric, draw, reference, repeats):
    """Mean value, spread of the values, and mean standard error, over independent draws."""
    found = [metric.estimate(Comparison(draw(torch.Generator().manual_seed(i)), reference)) for i in range(repeats)]
    values = torch.tensor([estimate.value for estimate in found])
    return float(values.mean()), float(values.std()), float(np.mean([estimate.standard_error for estimate in found]))
