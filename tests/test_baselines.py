"""What baselines of different kinds share: the range of their images, the unit of their points, checked choices."""

from __future__ import annotations

import pytest
import torch
from models import TRAINABLE, fit, sampled, tiny_model
from pydantic import ValidationError

from baselines.ddpm import DDIM, DDPM
from baselines.flow_matching import FlowMatching
from baselines.gan import GAN
from baselines.score_sde import ScoreVP
from trilemma_bench.config import model_schema
from trilemma_bench.contracts import DataSpec

BOUNDED = ["ddpm", "ddim", "gan", "vae"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 32, 32), (1, 64, 64)], ids=str)
@pytest.mark.parametrize("name", BOUNDED)
def test_images_are_within_their_range(name, shape):
    samples = sampled(tiny_model(name, DataSpec(shape)))
    assert samples.shape == (5, *shape)
    assert samples.dtype == torch.float32
    assert samples.abs().max() <= 1


@pytest.mark.parametrize("name", [name for name in TRAINABLE if name not in ("ddgan", "siddm")])
def test_points_are_in_the_datas_unit(name):
    """Data ten times as wide teaches the same network the same, and its samples are ten times as wide.

    DDGAN alone takes points as they are, and its Fourier features their unit.
    """
    small, large = (tiny_model(name, DataSpec((2,), scale=scale)) for scale in (1.0, 10.0))
    for model, scale in ((small, 1.0), (large, 10.0)):
        torch.manual_seed(0)
        fit(model, scale * torch.randn(16, 2), 3)
    torch.testing.assert_close(sampled(large), 10 * sampled(small), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model_class", "setting", "choices"),
    [
        (DDPM, "variance", "'large' or 'small'"),
        (DDIM, "spacing", "'uniform' or 'quadratic'"),
        (DDPM, "architecture", r"'ddpm', 'ddpm\+\+' or 'ncsn\+\+'"),
        (FlowMatching, "coupling", "'ot' or 'independent'"),
        (ScoreVP, "sampler", "'pc' or 'ode'"),
        (GAN, "loss", "'non-saturating', 'wgan-gp' or 'relativistic'"),
    ],
)
def test_a_wrong_choice_is_told_the_right_ones(model_class, setting, choices):
    with pytest.raises(ValidationError, match=choices):
        model_schema(model_class)(**{setting: "best"})
