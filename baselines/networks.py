"""The network that every diffusion-like baseline predicts with, so that they differ in their mathematics alone."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from trilemma_bench.contracts import DataSpec
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.mlp import MLP
from trilemma_bench.nn.ncsnpp import NCSNpp
from trilemma_bench.nn.unet import UNet

Architecture = Literal["ddpm", "ddpm++", "ncsn++"]
TIME_DIM = 64  # of the perceptron's time embedding


def time_network(
    data: DataSpec,
    *,
    architecture: Architecture,
    channels: int,
    channel_multipliers: tuple[int, ...],
    res_blocks: int,
    attention_resolutions: tuple[int, ...],
    dropout: float,
    hidden: int,
    layers: int,
    fourier_features: int,
    fourier_scale: float,
    time_fourier_scale: float = 0.0,
    times: int = 1,
    classes: int = 0,
    augmentation: int = 0,
) -> nn.Module:
    """(x, time of shape (N,) or (1,), labels) → a prediction of x's shape: a U-Net for images, a perceptron for points.

    architecture: 'ddpm' (Ho et al. 2020), 'ddpm++' or 'ncsn++' (Song et al. 2021). time_fourier_scale: of the two
    latter's random Fourier features of the time, in cycles per unit; 0 for sinusoids. times: how many a sample has;
    above 1 the network takes N×times. classes: of labels, 0 for none. augmentation: how many numbers tell an image's.
    Raises UsageError for Fourier features of several times, and for images that cannot be halved as often as there are
    multipliers.
    """
    if not data.is_image:
        dim, features = data.shape[0], {"fourier_features": fourier_features, "fourier_scale": fourier_scale}
        embedded = {"time_dim": TIME_DIM, "times": times, "classes": classes}
        return MLP(dim, dim, hidden=hidden, layers=layers, **embedded, **features)  # type: ignore[arg-type]
    size, levels = data.shape[-1], len(channel_multipliers)
    if size % 2 ** (levels - 1):
        raise UsageError(f"channel_multipliers has {levels} levels, too many to halve {size} pixels so often")
    common: dict[str, Any] = {
        "channels": channels,
        "multipliers": channel_multipliers,
        "res_blocks": res_blocks,
        "attention_resolutions": attention_resolutions,
        "dropout": dropout,
        "times": times,
        "classes": classes,
        "augmentation": augmentation,
    }
    if architecture == "ddpm":
        if time_fourier_scale:
            raise UsageError("architecture = 'ddpm' knows no Fourier features of the time: set time_fourier_scale = 0")
        return UNet(data.shape[0], size, **common)
    fir = architecture == "ncsn++"
    return NCSNpp(data.shape[0], size, fir=fir, fourier_scale=time_fourier_scale, **common)
