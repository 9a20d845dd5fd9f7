"""Mode coverage of data whose modes are known (Metz et al. 2017; Srivastava et al. 2017, VEEGAN)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma_bench.contracts import Metric
from trilemma_bench.errors import TrilemmaError

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison


def mode_histogram(modes: Tensor, count: int) -> Tensor:
    """Samples of high quality in each mode: int64 `count`.

    modes: int64 N, 0…count−1, or −1 for low quality. Raises TrilemmaError for a mode outside of that.
    """
    if bool(((modes < -1) | (modes >= count)).any()):
        raise TrilemmaError(f"modes must be in −1…{count - 1}, got {int(modes.min())}…{int(modes.max())}")
    return torch.bincount(modes[modes >= 0], minlength=count)


def mode_kl(histogram: Tensor) -> float:
    """KL(histogram ‖ uniform) in nats, 0 … ln(number of modes). Raises TrilemmaError for an empty histogram."""
    if not (total := int(histogram.sum())):
        raise TrilemmaError("mode_kl needs at least one sample of high quality, got 0")
    share = histogram.double() / total
    return max(0.0, float(torch.special.xlogy(share, share * len(histogram)).sum()))


def mode_kl_floor(n: int, count: int) -> float:
    """The KL in nats that n perfect samples of `count` equally likely modes have on average, exactly computed.

    Each mode's share is Binomial(n, 1/count)/n, and the KL is the sum of E[share · ln(share · count)] over modes.
    """
    if count == 1:
        return 0.0
    hits = torch.arange(n + 1, dtype=torch.float64)
    chance = torch.tensor(1 / count, dtype=torch.float64)
    probability = torch.distributions.Binomial(n, chance).log_prob(hits).exp()
    share = hits / n
    return count * float((probability * torch.special.xlogy(share, share * count)).sum())


def histogram_of(comparison: Comparison) -> Tensor:
    """The mode histogram of a comparison's generated samples. Raises TrilemmaError where no modes are known."""
    if comparison.modes is None or comparison.mode_count is None:
        raise TrilemmaError("mode metrics need a dataset whose modes are known")
    return mode_histogram(comparison.modes, comparison.mode_count)


def _modes(comparison: Comparison) -> float:
    return float((histogram_of(comparison) >= comparison.mode_min_count).sum())


def _mode_kl(comparison: Comparison) -> float:
    return mode_kl(histogram_of(comparison))


def _high_quality(comparison: Comparison) -> float:
    return int(histogram_of(comparison).sum()) / len(comparison.generated)


_METZ = "Metz et al. 2017, arXiv:1611.02163"
_VEEGAN = "Srivastava et al. 2017, arXiv:1705.07761"

MODES = Metric("modes", _modes, "higher", "modes", "modes", "Modes covered", (0.0, math.inf), _METZ)
MODE_KL = Metric("mode_kl", _mode_kl, "lower", "modes", "nats", "KL of modes to uniform", (0.0, math.inf), _METZ)
HIGH_QUALITY = Metric(
    "high_quality", _high_quality, "higher", "modes", "share", "Samples of high quality", (0.0, 1.0), _VEEGAN
)
