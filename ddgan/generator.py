"""The image generator: a small NCSN++ (Song et al. 2021) whose normalisations are styled by the latent z."""

from __future__ import annotations

from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from trilemma_bench.errors import UsageError
from trilemma_bench.nn.embedding import TimestepEmbedding
from trilemma_bench.nn.layers import group_norm, init_fan_average, init_zero
from trilemma_bench.nn.resample import FIRDownsample, FIRUpsample

SQRT_HALF = 0.5**0.5


class Mapping(nn.Module):
    """z → style w (N×style_dim): z normalised to unit mean square, then dense layers with SiLU."""

    def __init__(self, latent_dim: int, style_dim: int, layers: int) -> None:
        super().__init__()
        widths = [latent_dim] + [style_dim] * (layers + 1)
        dense = [[nn.Linear(*pair), nn.SiLU()] for pair in pairwise(widths)]
        self.layers = nn.Sequential(*chain.from_iterable(dense))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt())


class AdaGN(nn.Module):
    """Group normalisation whose gain and bias come from the style; they start at 1 and 0."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.style = nn.Linear(style_dim, 2 * channels)

    def reset(self) -> None:
        """Gain 1 and bias 0 for a style of zero."""
        with torch.no_grad():
            self.style.bias.copy_(torch.cat([torch.ones(self.norm.num_channels), torch.zeros(self.norm.num_channels)]))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gain, bias = self.style(style)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(bias, gain, self.norm(x))


class ResBlock(nn.Module):
    """The 'BigGAN' block: AdaGN – SiLU – resampling – conv – time – AdaGN – SiLU – conv, output (x + h)/√2."""

    def __init__(
        self, inputs: int, outputs: int, style_dim: int, time_dim: int, resample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = AdaGN(inputs, style_dim), AdaGN(outputs, style_dim)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_dim, outputs)
        self.resample = resample or nn.Identity()
        changes = inputs != outputs or resample is not None
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if changes else nn.Identity()
        self.activation = nn.SiLU()

    def forward(self, x: Tensor, style: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(self.resample(self.activation(self.norm1(x, style))))
        h = h + self.time(self.activation(time))[:, :, None, None]
        h = self.conv2(self.activation(self.norm2(h, style)))
        return (self.shortcut(self.resample(x)) + h) * SQRT_HALF


class ImageGenerator(nn.Module):
    """G(x_{t+1}, z, t) → the predicted x_0 in [−1, 1], N×C×H×W.

    channels: width at full size; multipliers: of each level, halving the image between two; blocks: residual blocks a
    level. z of width 0 gives a generator without latent: the style is then constant.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        *,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        style_dim: int,
        mapping_layers: int,
    ) -> None:
        super().__init__()
        if shape[-1] % 2 ** (len(multipliers) - 1):
            raise UsageError(
                f"multipliers = {list(multipliers)} halve the image {len(multipliers) - 1} times, "
                f"which {shape[-1]} pixels do not allow: use fewer"
            )
        self.latent_dim, time_dim = latent_dim, 4 * channels
        self.time = TimestepEmbedding(channels, time_dim)
        self.mapping = Mapping(max(latent_dim, 1), style_dim, mapping_layers)
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        dims, skips, width = (style_dim, time_dim), [channels], channels
        for level, multiplier in enumerate(multipliers):
            if level:
                self.down.append(ResBlock(width, width, *dims, FIRDownsample()))
                skips.append(width)
            for _ in range(blocks):
                self.down.append(ResBlock(width, multiplier * channels, *dims))
                skips.append(width := multiplier * channels)
        self.middle = ResBlock(width, width, *dims)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(ResBlock(width + skips.pop(), width := multiplier * channels, *dims))
            if level:
                self.up.append(ResBlock(width, width, *dims, FIRUpsample()))
        self.norm = group_norm(width)
        self.output = nn.Conv2d(width, shape[0], 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Residual branches and the output start silent, styles at gain 1 and bias 0."""
        self.apply(init_fan_average)
        for module in self.modules():
            if isinstance(module, ResBlock):
                init_zero(module.conv2)
            elif isinstance(module, AdaGN):
                module.reset()
        init_zero(self.output)

    def forward(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        style, time = self.mapping(z if self.latent_dim else x.new_ones(len(x), 1)), self.time(t)
        h = self.first(x)
        skips = [h]
        for block in self.down:
            h = block(h, style, time)
            skips.append(h)
        h = self.middle(h, style, time)
        for block in self.up:
            if not isinstance(block.resample, FIRUpsample):
                h = torch.cat([h, skips.pop()], dim=1)
            h = block(h, style, time)
        return torch.tanh(self.output(nn.functional.silu(self.norm(h))))
