"""What adversarial models share: losses on logits, and penalties on the discriminator's gradient.

Logits have shape N or N×1 and any float type; losses and penalties are at least float32, even inside autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trilemma_bench.nn.compiling import uncompiled

Discriminator = Callable[[Tensor], Tensor]  # samples N×… → logits N or N×1


def nonsaturating_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E[−log σ(D(real))] + E[−log(1 − σ(D(fake)))], from logits (Goodfellow et al. 2014, eq. 1)."""
    return softplus(-_exact(real)).mean() + softplus(_exact(fake)).mean()


def nonsaturating_generator_loss(fake: Tensor) -> Tensor:
    """E[−log σ(D(fake))], from logits (Goodfellow et al. 2014, §3)."""
    return softplus(-_exact(fake)).mean()


def wasserstein_critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E[D(fake)] − E[D(real)] (Arjovsky et al. 2017, eq. 2)."""
    return _exact(fake).mean() - _exact(real).mean()


def wasserstein_generator_loss(fake: Tensor) -> Tensor:
    """−E[D(fake)] (Arjovsky et al. 2017)."""
    return -_exact(fake).mean()


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E[−log σ(D(real) − D(fake))] over pairs of equal index (Jolicoeur-Martineau 2019; Huang et al. 2024, eq. 2)."""
    return softplus(_exact(fake) - _exact(real)).mean()


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E[−log σ(D(fake) − D(real))] over pairs of equal index: the discriminator's loss, with the parts exchanged."""
    return relativistic_discriminator_loss(fake, real)


def r1_penalty(discriminator: Discriminator, inputs: Tensor) -> Tensor:
    """E|∇D|² at `inputs` (N×…): R1 where they are real, R2 where they are fake (Mescheder et al. 2018, eq. 9 and 10).

    The weight, usually γ/2, is the caller's. The discriminator is evaluated once more, outside autocast, and is what
    the penalty's gradient flows to; none flows to `inputs`.
    """
    return logits_and_r1(discriminator, inputs)[1]


def logits_and_r1(discriminator: Discriminator, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The logits at `inputs` and `r1_penalty` there, from one evaluation: for a loss that needs both."""
    logits, slope = _logits_and_slope(discriminator, inputs)
    return logits, slope.square().sum(dim=1).mean()


def wgan_penalty(critic: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """E(|∇D| − 1)² at points drawn evenly between real and fake samples (both N×…) (Gulrajani et al. 2017, eq. 3)."""
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    between = torch.lerp(real.detach(), fake.detach().to(real.dtype), share.to(real.dtype))
    _, slope = _logits_and_slope(critic, between)
    return (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of `optimizer` down the gradient of `loss`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    torch.clear_autocast_cache()  # of low-precision copies of weights: the old ones, and those made without gradients


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through `network` to its inputs, but none are computed for its parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _logits_and_slope(discriminator: Discriminator, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """D at `inputs` and ∇D, as N×(all coordinates); both differentiable in D's parameters."""
    points = _exact(inputs.detach()).requires_grad_()
    with torch.autocast(points.device.type, enabled=False), uncompiled():
        logits = discriminator(points)
        (slope,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
        return logits, slope.flatten(1)


def _exact(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 where it has that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
