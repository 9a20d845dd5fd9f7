"""DDPM, DDIM and DPM-Solver as models: what is learned, what samplers share, and settings that are refused."""

from __future__ import annotations

import pytest
import torch
from inputs import fails
from models import IMAGES, POINTS, fit, sampled, tiny_model

from baselines.ddpm import DDIM, DDPM, DPMSolver
from trilemma_bench.config import model_schema
from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError


def test_ddpm_learns_where_the_data_is():
    torch.manual_seed(0)
    model = DDPM(DataSpec((2,), scale=1.0), hidden=32, layers=2, fourier_features=0, diffusion_steps=100, lr=5e-3)
    data = torch.tensor([3.0, -2.0]) + 0.1 * torch.randn(128, 2)
    fit(model, data, 300)
    assert sampled(model, 200).mean(dim=0).tolist() == pytest.approx([3.0, -2.0], abs=0.3)


def test_what_is_learned_is_the_noise_of_every_step_alike():
    """Of data that is 2 everywhere x_t = √ᾱ·2 + √(1−ᾱ) ε tells ε, with β from 1e-4 to 0.02 (Ho et al. 2020)."""
    model, times = DDPM(DataSpec((1,), scale=1.0), hidden=8), []
    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), dim=0)[:, None]

    def predict(x, time):
        times.append(time)
        return ((x - 2 * bar[time].sqrt()) / (1 - bar[time]).sqrt()).float()

    model.predict = predict
    assert model.losses(torch.full((20_000, 1), 2.0))["loss"].item() < 1e-6
    assert (times[0].min().item(), times[0].max().item()) == (0, 999)
    shares = torch.histc(times[0].double(), 10, 0, 1000) / 20_000
    assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.01)


@pytest.mark.parametrize(
    ("model_class", "settings", "steps"),
    [
        (DDPM, {"sampling_steps": 4}, [999, 666, 333, 0]),
        (DDIM, {"sampling_steps": 5, "spacing": "uniform"}, [800, 600, 400, 200, 0]),
        (DDIM, {"sampling_steps": 5}, [800, 450, 200, 50, 0]),
        (DPMSolver, {"sampling_steps": 3}, [999, 666, 333]),
        (DPMSolver, {"sampling_steps": 5, "spacing": "quadratic"}, [800, 450, 200, 50, 0]),
    ],
)
def test_the_network_is_asked_at_the_samplers_steps(model_class, settings, steps):
    """Even from the last one, uniform from 0, or quadratic up to 0.8 T, as DDIM's are for CIFAR-10."""
    model, seen = model_class(POINTS, hidden=8, **settings), []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].unique().item()))
    sampled(model)
    assert seen == pytest.approx(steps, abs=1)


@pytest.mark.parametrize(("name", "model_class"), [("ddim", DDIM), ("dpm-solver++", DPMSolver)])
def test_other_samplers_take_the_network_that_ddpm_trained(name, model_class):
    ddpm, other = tiny_model("ddpm", IMAGES), tiny_model(name, IMAGES)
    other.load_state_dict(ddpm.state_dict())
    assert model_class.trained_as == "ddpm"
    shared = set(model_schema(DDPM).model_fields) - DDPM.sampling_settings
    assert shared == set(model_schema(model_class).model_fields) - model_class.sampling_settings


@pytest.mark.parametrize(("settings", "calls"), [({}, 6), ({"sampling_steps": 2}, 2)])
def test_one_evaluation_of_the_network_a_step(settings, calls):
    model = DDPM(POINTS, hidden=8, diffusion_steps=6, **settings)
    seen = []
    model.network.register_forward_hook(lambda *_: seen.append(1))
    sampled(model)
    assert len(seen) == calls
    assert model.describe() == f"{calls} steps"


@pytest.mark.parametrize(
    ("model_class", "data", "settings", "message"),
    [
        (DDPM, POINTS, {"sampling_steps": 1001}, "sampling_steps = 1001: choose 1 to 1000 (diffusion_steps = 1000)"),
        (DPMSolver, POINTS, {"diffusion_steps": 9, "sampling_steps": 9}, "choose 2 to 8 (diffusion_steps = 9)"),
        (DDIM, POINTS, {"sampling_steps": 1}, "sampling_steps = 1: choose 2 to"),
        (DDPM, DataSpec((1, 28, 28)), {"channel_multipliers": (1, 2, 2, 2)}, "too many to halve 28 pixels"),
    ],
)
def test_a_wrong_setting_gets_one_line(model_class, data, settings, message):
    with fails(message, kind=UsageError):
        model_class(data, **settings)


def test_dpm_solver_takes_as_many_steps_as_the_chain_has_to_give():
    for spacing, most in (("even", 8), ("quadratic", 9)):
        model = DPMSolver(POINTS, hidden=8, diffusion_steps=9, sampling_steps=most, spacing=spacing)
        assert sampled(model).isfinite().all()
