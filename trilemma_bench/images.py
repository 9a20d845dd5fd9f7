"""The image contract: uint8 N×C×H×W between all parts, float in [−1, 1] inside a model."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

FRAME = 96  # grey level of the line between the images of a grid


def to_float(samples: Tensor) -> Tensor:
    """uint8 0…255 → float32 in [−1, 1]; float points pass unchanged."""
    return samples.float().div_(127.5).sub_(1.0) if samples.dtype == torch.uint8 else samples


def quantise(samples: Tensor) -> Tensor:
    """Float in [−1, 1] → uint8 by round(255·clip((x + 1)/2, 0, 1)); uint8 passes unchanged."""
    if samples.dtype == torch.uint8:
        return samples
    return samples.float().add(1.0).mul_(127.5).clamp_(0, 255).round_().to(torch.uint8)


def save_grid(samples: Tensor, path: Path, pixels: int = 640) -> None:
    """A PNG of the first images of uint8 N×C×H×W in a square grid, enlarged without smoothing to about `pixels`."""
    side = max(1, min(10, math.isqrt(len(samples))))
    framed = nn.functional.pad(samples[: side * side], (0, 1, 0, 1), value=FRAME)
    _, channels, height, width = framed.shape
    tiles = framed.permute(0, 2, 3, 1).reshape(side, side, height, width, channels)
    sheet = tiles.permute(0, 2, 1, 3, 4).reshape(side * height, side * width, channels).numpy()
    image = Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet)
    factor = max(1, round(pixels / max(image.size)))
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(path)


def save_pairs(above: Tensor, below: Tensor, path: Path, pixels: int = 1280) -> None:
    """A PNG grid of pairs of uint8 images, both N×C×H×W: each of `above` over its one of `below`, as `save_grid`."""
    save_grid(torch.cat([nn.functional.pad(above, (0, 0, 0, 1), value=FRAME), below], dim=2), path, pixels)


def save_scatter(samples: Tensor, path: Path, limits: tuple[float, float]) -> None:
    """A PNG scatter plot of the first two coordinates of points N×D, on the square `limits` (data units)."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(samples[:5000, 0], samples[:5000, 1], s=2, alpha=0.5, linewidths=0)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="first coordinate", ylabel="second coordinate")
    figure.savefig(path, dpi=120)
