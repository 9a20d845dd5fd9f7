"""Mode coverage of data whose modes are known (Metz et al. 2017; Srivastava et al. 2017, VEEGAN)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.intervals import Z95, share_estimate

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


def modes(comparison: Comparison) -> Estimate:
    """Number of modes that have their minimum count (Metz et al. 2017), 0 … number of modes.

    Its standard error is that of Poisson counts, less what is lost because they add up to N.
    """
    counts, least = histogram_of(comparison), comparison.mode_min_count
    covered = float((counts >= least).sum())
    total = len(comparison.generated)
    variance = _variance_of_seen(counts, total) if least == 1 else _variance_of_covered(counts, total, least)
    error = math.sqrt(max(0.0, variance))
    interval = max(0.0, covered - Z95 * error), min(float(len(counts)), covered + Z95 * error)
    return Estimate(covered, error, "Poisson counts of a fixed sum", interval)


def _variance_of_seen(counts: Tensor, total: int) -> float:
    """Variance of the number of modes with a sample: about what as many samples again would add to it.

    Both are Σ e^−λ (1 − e^−λ) for counts of mean λ, and the alternating sum over the numbers of modes that have 1, 2, …
    samples estimates it, also for modes not seen (Good & Toulmin 1956; smoothed as by Efron & Thisted 1976, section 5).
    """
    having = torch.bincount(counts, minlength=len(_EULER) + 1)[1 : len(_EULER) + 1].double().cpu()
    return float(having @ torch.tensor(_EULER, dtype=torch.float64) - having[0].square() / total)


def _variance_of_covered(counts: Tensor, total: int, least: int) -> float:
    """Variance of the number of modes with a minimum count, for counts whose mean is the one observed.

    Σ P (1 − P), P the chance of the minimum; less (Σ c · p)² / N, p the chance of one less.
    """
    counts = counts.double()
    chance = torch.special.gammainc(torch.full_like(counts, least), counts)
    one_less = (torch.special.xlogy(least - 1, counts) - counts - math.lgamma(least)).exp()
    return float((chance * (1 - chance)).sum() - (counts * one_less).sum().square() / total)


def mode_kl_estimate(comparison: Comparison) -> Estimate:
    """`mode_kl` of the samples of high quality, its standard error by leaving out one of them.

    That counts the interaction of two samples of a mode twice, so that one is taken off (Efron & Stein 1981); what is
    left cannot be less than the other. It matters near equal shares, where single samples have no influence.
    """
    histogram = histogram_of(comparison)
    value, total, counts = mode_kl(histogram), int(histogram.sum()), histogram.double()
    one = _entropy_term(counts) - _entropy_term(counts - 1)
    two = one - (_entropy_term(counts - 1) - _entropy_term(counts - 2))
    share = counts / total
    single = float((share * one.square()).sum() - (share * one).sum().square()) / total
    pairs = float((counts * (counts - 1) / 2 * two.square()).sum()) / total**2
    return Estimate(value, math.sqrt(max(single - pairs, pairs)), "jackknife, to second order")


def _entropy_term(counts: Tensor) -> Tensor:
    """c ln c, and 0 below one."""
    counts = counts.clamp(min=0)
    return torch.special.xlogy(counts, counts)


def high_quality(comparison: Comparison) -> Estimate:
    """Share of generated samples that have a mode (Srivastava et al. 2017, VEEGAN)."""
    total = len(comparison.generated)
    return share_estimate(int(histogram_of(comparison).sum()) / total, total)


_EULER = tuple((-1) ** (k + 1) * sum(math.comb(10, j) for j in range(k, 11)) / 2**10 for k in range(1, 11))
_METZ = "Metz et al. 2017, arXiv:1611.02163"
_VEEGAN = "Srivastava et al. 2017, arXiv:1705.07761"

MODES = Metric("modes", modes, "higher", "modes", "modes", "Modes covered", (0.0, math.inf), _METZ)
MODE_KL = Metric(
    "mode_kl", mode_kl_estimate, "lower", "modes", "nats", "KL of modes to uniform", (0.0, math.inf), _METZ
)
HIGH_QUALITY = Metric(
    "high_quality", high_quality, "higher", "modes", "share", "Samples of high quality", (0.0, 1.0), _VEEGAN
)
