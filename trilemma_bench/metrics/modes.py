"""Mode coverage of data whose modes are known (Metz et al. 2017; Srivastava et al. 2017, VEEGAN)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trilemma_bench.contracts import Estimate, Metric
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.metrics.intervals import share_estimate, wilson_interval
from trilemma_bench.statistics import Z95

if TYPE_CHECKING:
    from trilemma_bench.metrics.comparison import Comparison


EM_STEPS = 200  # after which the variance stays as it is, to a few percent


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
    return _kl(histogram.double() / total)


def _kl(share: Tensor) -> float:
    return max(0.0, float(torch.special.xlogy(share, share * len(share)).sum()))


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
    """Number of modes that have their minimum count (Metz et al. 2017), 0 … number of modes."""
    counts, least = histogram_of(comparison), comparison.mode_min_count
    covered = int((counts >= least).sum())
    variance = _variance_of_covered(counts, len(comparison.generated), least)
    error = math.sqrt(variance)
    narrowly = int(((counts < least) & (counts >= least - Z95 * math.sqrt(least))).sum())  # may be so by chance
    interval = max(0.0, covered - Z95 * error), covered + _most_more(variance, narrowly)
    method, all_of_them = "rates of the modes by maximum likelihood", float(len(counts))
    return Estimate(float(covered), error, method, interval, range=(0.0, all_of_them), ideal=all_of_them)


def _variance_of_covered(counts: Tensor, total: int, least: int) -> float:
    """Variance of the number of modes with a minimum count, over draws of `total` samples.

    Modes' counts are Poisson variables with a fixed sum, so that it is Σ P (1 − P), P the chance of the minimum, less
    what follows the sum. Never negative, unlike sums of alternating sign over the modes seen once, twice, …
    """
    rates, number = _rates(counts)
    floor = torch.full_like(rates, least)
    reached, missed = torch.special.gammainc(floor, rates), torch.special.gammaincc(floor, rates)
    slope = (torch.special.xlogy(least, rates) - rates - math.lgamma(least)).exp()  # dP / d ln rate
    fitted = total - float(counts.sum()) + float(number @ rates)
    return float(number @ (reached * missed)) - float(number @ slope) ** 2 / fitted


def _rates(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Expected counts, and how many modes are estimated to have each: float64, on the CPU.

    The mixture of Poisson distributions under which the counts of all modes are likeliest, those of 0 too (Laird 1978),
    by EM. Its grid is as fine as counts can tell: half a standard deviation.
    """
    observed, times = counts.cpu().unique(return_counts=True)
    observed, times = observed.double()[:, None], times.double()
    rates = (torch.arange(4 * math.sqrt(float(observed.max())) + 2, dtype=torch.float64) / 4).square()
    likely = (torch.special.xlogy(observed, rates) - rates - torch.lgamma(observed + 1)).exp()
    number = torch.full_like(rates, len(counts) / len(rates))
    for _ in range(EM_STEPS):
        joint = likely * number
        number = times @ (joint / joint.sum(dim=1, keepdim=True))
    return rates, number


def _most_more(variance: float, missed: int) -> float:
    """How many modes the model may cover on average, at most (97.5 %), beyond those that it did.

    If it covers m of those missed, each with equal chance, they add m (1 − m / missed) to the variance: the root of
    m² = Z95² · (variance + m − m² / missed), as in Wilson's interval (1927).
    """
    if not missed:
        return 0.0
    scale = 1 + Z95**2 / missed
    return min(missed, (Z95**2 + Z95 * math.sqrt(Z95**2 + 4 * scale * variance)) / (2 * scale))


def mode_kl_estimate(comparison: Comparison) -> Estimate:
    """`mode_kl` of the samples of high quality, with the floor of as many."""
    histogram = histogram_of(comparison)
    total, count = int(histogram.sum()), len(histogram)
    estimate = _mode_kl_estimate(histogram.double(), mode_kl(histogram))
    return replace(estimate, range=(0.0, math.log(count)), floor=mode_kl_floor(total, count))


def _mode_kl_estimate(counts: Tensor, value: float) -> Estimate:
    """The KL of counts, its standard error by leaving out one sample.

    That counts the interaction of two samples of a mode twice, so that one is taken off (Efron & Stein 1981); what is
    left cannot be less than the other. It matters near equal shares, where single samples have no influence. The
    interval goes farther down where modes were missed. No error is known where no mode has two samples.
    """
    total = int(counts.sum())
    method = "jackknife, to second order; missed modes by Wilson's bound"
    if counts.max() < 2:
        return Estimate(value, method=method)
    one = _entropy_term(counts) - _entropy_term(counts - 1)
    two = one - (_entropy_term(counts - 1) - _entropy_term(counts - 2))
    share = counts / total
    single = float((share * one.square()).sum() - (share * one).sum().square()) / total
    pairs = float((counts * (counts - 1) / 2 * two.square()).sum()) / total**2
    error = math.sqrt(max(single - pairs, pairs))
    low = value - math.hypot(Z95 * error, max(0.0, value - _kl_with_missed_modes(share, total)))
    return Estimate(value, error, method, (max(0.0, low), min(math.log(len(counts)), value + Z95 * error)))


def _kl_with_missed_modes(share: Tensor, total: int) -> float:
    """The KL if the modes without a sample have, together, as much as Wilson's interval of a share of 0 allows."""
    missed = share == 0
    if not missed.any():
        return _kl(share)
    together = wilson_interval(0.0, total)[1]
    return _kl(torch.where(missed, together / int(missed.sum()), (1 - together) * share))


def _entropy_term(counts: Tensor) -> Tensor:
    """c ln c, and 0 below one."""
    counts = counts.clamp(min=0)
    return torch.special.xlogy(counts, counts)


def high_quality(comparison: Comparison) -> Estimate:
    """Share of generated samples that have a mode (Srivastava et al. 2017, VEEGAN)."""
    total = len(comparison.generated)
    return share_estimate(int(histogram_of(comparison).sum()) / total, total)


_METZ = "Metz et al. 2017, arXiv:1611.02163"
_VEEGAN = "Srivastava et al. 2017, arXiv:1705.07761"

MODES = Metric("modes", modes, "higher", "modes", "modes", "Modes covered", (0.0, math.inf), _METZ)
MODE_KL = Metric(
    "mode_kl", mode_kl_estimate, "lower", "modes", "nats", "KL of modes to uniform", (0.0, math.inf), _METZ
)
HIGH_QUALITY = Metric(
    "high_quality", high_quality, "higher", "modes", "share", "Samples of high quality", (0.0, 1.0), _VEEGAN
)
