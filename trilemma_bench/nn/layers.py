"""Small pieces that the networks share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trilemma_bench.nn.layout import wants_channels_last


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit` (both ≥ 1)."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def group_norm(channels: int, affine: bool = True) -> GroupNorm:
    """GroupNorm with as many groups as divide `channels`: at most 32, and of 4 channels at least (Ho et al. 2020)."""
    groups = largest_divisor(channels, max(1, min(32, channels // 4)))
    return GroupNorm(groups, channels, eps=1e-6, affine=affine)


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He 2018) of N×C×H×W that keeps channels last in memory on CUDA.

    torch's own kernel there would copy such images to the other layout, and every convolution after it back.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.by_channel(x) if wants_channels_last(x) else super().forward(x)

    def by_channel(self, x: Tensor) -> Tensor:
        """The same from the moments of each channel, which take one pass in either layout; at least float32.

        A group's variance is the mean of its channels' variances and the variance of their means.
        """
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = (
            each.unflatten(1, (self.num_groups, -1)) for each in torch.var_mean(exact, (2, 3), correction=0)
        )
        spread, centre = torch.var_mean(mean, 2, correction=0, keepdim=True)
        scale = (variance.mean(2, keepdim=True) + spread + self.eps).rsqrt().expand_as(mean).flatten(1)
        shift = -scale * centre.expand_as(mean).flatten(1)
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return torch.addcmul(shift[:, :, None, None], exact, scale[:, :, None, None])


def joined(x: Tensor, skip: Tensor) -> Tensor:
    """The channels of both, N×C×H×W and N×D×H×W. On CUDA the gradient of x is a tensor of its own: as a slice of one
    gradient, which is what `torch.cat` gives, it would be copied twice for the convolution that x comes straight from.

    Forward-mode derivatives exist without gradients only.
    """
    own = wants_channels_last(x) and torch.is_grad_enabled()
    return _Joined.apply(x, skip) if own else torch.cat([x, skip], dim=1)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([x, skip], dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.channels = [part.shape[1] for part in inputs]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, skip = gradient.split(ctx.channels, dim=1)
        return x.contiguous(memory_format=torch.channels_last), skip


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
    """Adds one feature that tells how much the samples of a group differ: N×C×… → N×(C+1)×… (Karras et al. 2018, §3).

    It lets a discriminator see mode collapse. Samples i, i + N/G, i + 2N/G … form a group of G: the largest divisor of
    N that is at most `group`.
    """
    size = largest_divisor(len(x), group)
    grouped = x.reshape(size, -1, *x.shape[1:])
    deviation = (grouped.var(dim=0, correction=0) + 1e-8).sqrt().flatten(1).mean(dim=1)
    feature = deviation.repeat(size).view(-1, *[1] * (x.ndim - 1)).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, feature], dim=1)


def init_zero(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Makes a layer start as zero, so that a residual branch or a noise prediction starts silent."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def init_fan_out(module: nn.Module, gain: float = 1.0) -> None:
    """For `Module.apply`: dense and convolution weights uniform with variance gain/fan_out, biases zero.

    It is what DDGAN's program starts its discriminators, its mapping of z and its styles with: asked for fan_avg, its
    initialiser takes fan_out. A last layer that gives one logit thus starts with weights of variance 1.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
        bound = (3 * gain / fan_out) ** 0.5
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_fan_average(module: nn.Module) -> None:
    """For `Module.apply`: dense and convolution weights uniform with variance 1/fan_avg, biases zero (Glorot 2010).

    Networks without normalisation keep their signal's size with it, where torch's default shrinks it by √3 a layer.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
