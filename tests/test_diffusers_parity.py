"""Our samplers take the steps of diffusers' schedulers, given the same network, noise and random draws."""

from __future__ import annotations

import pytest
import torch
from exact import rng

from baselines.samplers import ancestral, ddim, dpm_solver, even_steps, uniform_steps
from trilemma_bench.nn.schedules import alphas_cumprod, linear_betas

diffusers = pytest.importorskip("diffusers")

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
BAR = alphas_cumprod(linear_betas())
TOLERANCE = {"rtol": 0, "atol": 2e-5}  # the schedulers keep their tables in float32


def predictor(x, step):
    """About that of white data, so that x stays of size 1, and curved in x and the step."""
    share = (1 - BAR[step]).sqrt().to(x.dtype)
    return share * x + 0.2 * torch.sin(2 * x + step / 300)


def start():
    return torch.randn((4, 3, 8, 8), generator=rng(1))


def theirs(scheduler, steps, **arguments):
    """Samples of a scheduler that visits the same steps."""
    scheduler.set_timesteps(len(steps))
    assert scheduler.timesteps.tolist() == steps.flip(0).tolist()
    x = start()
    for step in scheduler.timesteps:
        x = scheduler.step(predictor(x, step), step, x, **arguments).prev_sample
    return x


@pytest.mark.parametrize(("variance", "theirs_name"), [("large", "fixed_large"), ("small", "fixed_small")])
@pytest.mark.parametrize("clip", [True, False])
def test_ddpm(variance, theirs_name, clip):
    steps = uniform_steps(1000, 50)
    scheduler = diffusers.DDPMScheduler(**SCHEDULE, variance_type=theirs_name, clip_sample=clip)
    expected = theirs(scheduler, steps, generator=rng())
    actual = ancestral(predictor, start(), BAR, steps, rng(), variance=variance, clip=clip)
    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta):
    steps = uniform_steps(1000, 20)
    scheduler = diffusers.DDIMScheduler(**SCHEDULE, clip_sample=False, timestep_spacing="leading")
    expected = theirs(scheduler, steps, eta=eta, generator=rng())
    torch.testing.assert_close(ddim(predictor, start(), BAR, steps, rng(), eta=eta), expected, **TOLERANCE)


@pytest.mark.parametrize("count", [2, 5, 20, 50])
def test_dpm_solver(count):
    steps = even_steps(1000, count + 1)[1:]
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **SCHEDULE,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        timestep_spacing="linspace",
        final_sigmas_type="zero",
    )
    torch.testing.assert_close(dpm_solver(predictor, start(), BAR, steps), theirs(scheduler, steps), **TOLERANCE)
