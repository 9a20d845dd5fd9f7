"""Score SDEs: marginals, samplers with the exact score plugged in, and the sizes of the paper's networks."""

from __future__ import annotations

import math

import pytest
import torch
from exact import Mixture, noise, rng
from models import millions, of_recipe, sampled

from baselines.score_sde import ScoreVE, ScoreVP
from baselines.sde import VarianceExploding, VariancePreserving, predictor_corrector, probability_flow
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError

SDES = {"vp": VariancePreserving(), "ve": VarianceExploding(0.01, 20.0)}
CIFAR = DataSpec((3, 32, 32))


def exact_score(mixture, sde):
    def score(x, time):
        signal, std = (float(each) for each in sde.marginal(torch.tensor(time, dtype=torch.float64)))
        return mixture.score(x, signal, std)

    return score


@pytest.fixture(params=SDES)
def sde(request):
    return SDES[request.param]


def test_the_marginal_solves_the_sde(sde):
    """d signal/dt = drift·signal and d std²/dt = 2 drift·std² + g², by central differences."""
    for time in (0.1, 0.5, 0.9):
        width = 1e-4
        low, high = (sde.marginal(torch.tensor(time + side * width, dtype=torch.float64)) for side in (-1, 1))
        signal, std = sde.marginal(torch.tensor(time, dtype=torch.float64))
        slope = [float((b**power - a**power) / (2 * width)) for a, b, power in zip(low, high, (1, 2), strict=True)]
        assert slope[0] == pytest.approx(sde.drift(time) * float(signal), abs=1e-6)
        growth = 2 * sde.drift(time) * float(std) ** 2 + sde.squared_diffusion(time)
        assert slope[1] == pytest.approx(growth, rel=1e-5)


def test_a_step_leads_from_one_marginal_to_the_next(sde):
    (signal, std), (later_signal, later_std) = (
        [float(each) for each in sde.marginal(torch.tensor(time, dtype=torch.float64))] for time in (0.3, 0.4)
    )
    ratio, added = sde.step(0.3, 0.4)
    assert ratio * signal == pytest.approx(later_signal, rel=1e-12)
    assert (ratio * std) ** 2 + added**2 == pytest.approx(later_std**2, rel=1e-12)


def test_the_discrete_vp_steps_are_ddpms():
    """The last of a thousand has nearly DDPM's β of 0.02: 1 − exp(−∫β) (Song et al. 2021, App. C)."""
    _, std = SDES["vp"].step(0.999, 1.0)
    assert std**2 == pytest.approx(-math.expm1(-(0.1 + 19.9 * 0.9995) / 1000), rel=1e-9)
    assert std**2 == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("corrector", [True, False])
@pytest.mark.parametrize("means", [[0.7], [-1.0, 0.5]], ids=["Gaussian", "mixture"])
def test_predictor_corrector_recovers_a_gaussian_and_a_mixture(sde, means, corrector):
    mixture = Mixture(means, 0.1)
    x = predictor_corrector(exact_score(mixture, sde), noise(6000), sde, 500, rng(), corrector=corrector)
    nearest = (x - mixture.means).abs().argmin(dim=1)
    for each, mean in enumerate(means):
        part = x[nearest == each]
        assert len(part) / len(x) == pytest.approx(1 / len(means), abs=0.03)
        assert part.mean().item() == pytest.approx(mean, abs=0.01)
        assert part.std().item() == pytest.approx(0.1, abs=0.015)


def test_one_step_is_langevins_and_then_the_means_of_algorithms_2_to_5():
    """Of a score of −3x on the whole way to the data: the step's size is 2 α (snr ‖z‖/‖score‖)² with α = 1 − β."""
    sde, start, z = SDES["vp"], noise(5), noise(5, seed=0)
    alpha = float(sde.marginal(torch.tensor(1.0, dtype=torch.float64))[0]) ** 2
    size = 2 * alpha * (0.16 * z.abs().mean() / (3 * start).abs().mean()) ** 2
    moved = start - 3 * size * start + (2 * size) ** 0.5 * z
    expected = (2 - alpha**0.5) * moved - 3 * (1 - alpha) * moved
    x = predictor_corrector(lambda x, time: -3 * x, start, sde, 1, rng())
    torch.testing.assert_close(x, expected)


@pytest.mark.parametrize(("name", "end"), [("vp", 1e-3), ("ve", 1e-5)])
def test_the_times_are_the_papers(name, end):
    times = []
    predictor_corrector(lambda x, time: times.append(time) or -x, noise(2), SDES[name], 5, rng(), corrector=False)
    assert times == pytest.approx([1 - (1 - end) * step / 4 for step in range(5)], rel=1e-9)


def test_the_probability_flow_is_the_monotone_map(sde):
    """In one dimension a Gaussian flows to a Gaussian along x_t = mean_t + std_t·z with z fixed; then the noise that is
    left goes: a step of variance β = 1 − signal² has the mean (2 − signal) x + std² score.
    """
    mean, std = 0.7, 0.3
    x = probability_flow(exact_score(Mixture([mean], std), sde), noise(200), sde)
    end, start = (
        [float(each) for each in sde.marginal(torch.tensor(time, dtype=torch.float64))] for time in (sde.end, 1.0)
    )
    z = (sde.prior_std * noise(200) - start[0] * mean) / ((start[0] * std) ** 2 + start[1] ** 2) ** 0.5
    variance = (end[0] * std) ** 2 + end[1] ** 2
    there = end[0] * mean + variance**0.5 * z
    expected = (2 - end[0]) * there - end[1] ** 2 * (there - end[0] * mean) / variance
    assert (x - expected).abs().max() < 2e-4


def test_the_probability_flow_recovers_a_mixture(sde):
    mixture = Mixture([-0.75, 0.75], 0.1)  # of mean 0, as the prior that stands for noise without end
    assert mixture.recovered(probability_flow(exact_score(mixture, sde), noise(8000), sde))


@pytest.mark.parametrize("sampler", ["ode", "pc"])
def test_no_noise_is_left_in_samples_of_data_that_has_none(sde, sampler):
    """The last noise, of std 0.01 or 0.02, would be 1 to 3 grey levels."""
    score = exact_score(Mixture([0.3], 1e-4), sde)
    x = (
        probability_flow(score, noise(20), sde)
        if sampler == "ode"
        else predictor_corrector(score, noise(20), sde, 100, rng())
    )
    assert (x - 0.3).abs().max() < 1e-3


def test_an_untrained_score_of_zero_moves_nothing_to_infinity(sde):
    assert predictor_corrector(lambda x, time: 0 * x, noise(4), sde, 10, rng()).isfinite().all()


@pytest.mark.parametrize(("name", "expected"), [("score-sde-vp", 61.80), ("score-sde-ve", 62.76)])
def test_the_cifar10_networks_have_the_papers_size(name, expected):
    """As the harness makes them: VE with Fourier features of the time."""
    model, _ = of_recipe(name, "cifar10")
    assert millions(model.network) == expected
    assert model.evaluations() == 2000


def test_the_score_is_the_noise_over_its_deviation():
    model = ScoreVE(DataSpec((2,), scale=1.0), hidden=8, fourier_features=2)
    x, time = torch.randn(3, 2), 0.4
    std = 0.02 * (100 / 0.02) ** time
    predicted = model.noise_in(x, torch.full((1,), time), torch.full((1,), std))
    assert torch.allclose(model.score(x, time), -predicted / std, rtol=1e-4, atol=1e-7)


def test_the_loss_of_exact_predictions_is_zero_and_that_of_none_is_the_noises():
    model = ScoreVP(DataSpec((2,), scale=1.0), hidden=8)
    torch.nn.init.zeros_(model.network.out.weight)
    torch.nn.init.zeros_(model.network.out.bias)
    assert model.losses(torch.zeros(20_000, 2))["loss"].item() == pytest.approx(1, abs=0.03)
    model.noise_in = lambda x, time, std: x / std[:, None]  # x_0 is 0: all of x_t is noise
    assert model.losses(torch.zeros(100, 2))["loss"].item() == pytest.approx(0, abs=1e-6)


def test_the_loss_of_exploding_variance_is_half_a_samples_squared_error():
    """Of no prediction at all half a squared noise in each coordinate."""
    model = ScoreVE(DataSpec((3,), scale=1.0), hidden=8)
    model.noise_in = lambda x, time, std: 0 * x
    assert model.losses(torch.zeros(20_000, 3))["loss"].item() == pytest.approx(3 / 2, abs=0.03)


def test_times_are_learned_evenly_and_embedded_from_0_to_999():
    model, seen = ScoreVP(DataSpec((1,), scale=1.0), hidden=8), []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    model.losses(torch.zeros(20_000, 1))
    shares = torch.histc(seen[0], 10, 0, 999) / 20_000
    assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.01)
    assert 999e-5 <= seen[0].min() < 0.2
    seen.clear()
    model.score(torch.zeros(2, 1), 0.25)
    assert seen[0].item() == pytest.approx(999 / 4)


def test_points_come_to_the_network_of_exploding_variance_at_unit_size():
    """Data of unit variance and its noise together: x/√(1 + σ²); images come as they are."""
    for shape, size in (((2,), 101**0.5), ((1, 8, 8), 1.0)):
        model, seen = ScoreVE(DataSpec(shape, scale=1.0), hidden=8, channels=8, channel_multipliers=(1,)), []
        model.network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        x = torch.randn(3, *shape)
        model.noise_in(x, torch.tensor([0.5]), torch.tensor([10.0]))
        torch.testing.assert_close(seen[0], x / size)


def test_the_random_features_of_exploding_variance_are_of_the_noises_logarithm():
    """16 cycles per unit of log σ, which grows by log(σ_max/σ_min) as the embedded time goes from 0 to 999."""
    model = ScoreVE(DataSpec((1, 8, 8)), channels=512, channel_multipliers=(1,), res_blocks=1, sigma_max=50.0)
    (frequencies,) = (each for name, each in model.network.named_buffers() if name.endswith("frequencies"))
    assert frequencies.std().item() * 999 / (2 * math.pi * math.log(50 / 0.02)) == pytest.approx(16, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "row", "calls"),
    [({}, "PC, 3 steps", 6), ({"corrector": False}, "predictor, 3 steps", 3), ({"sampler": "ode"}, "ODE", None)],
)
def test_the_row_says_how_it_was_sampled_and_in_how_many_evaluations(kind, row, calls):
    """Those of an ODE depend on its solution: a step of RK45 takes six, and the last noise one more."""
    model, seen = ScoreVP(DataSpec((2,)), hidden=8, sampling_steps=3, **kind), []
    model.network.register_forward_hook(lambda *_: seen.append(1))
    sampled(model)
    assert (model.describe(), model.evaluations()) == (row, calls)
    assert len(seen) == calls if calls else len(seen) > 6


@pytest.mark.parametrize(("model_class", "setting"), [(ScoreVP, "beta"), (ScoreVE, "sigma")])
def test_noise_that_does_not_grow_is_refused(model_class, setting):
    with pytest.raises(UsageError, match=f"choose {setting}_min < {setting}_max"):
        model_class(DataSpec((2,)), **{f"{setting}_min": 30.0, f"{setting}_max": 30.0})
