"""Solvers of dx/dt = v(x, t): what turns a velocity field into a sampler, with its order of convergence.

A velocity maps (x, t) to dx/dt, with x N×… and t a float. Each call of it is one network evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]

# Dormand & Prince 1980, the 5(4) pair of RK45: nodes, stages, and the weights of the error estimate.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SAFETY, _LEAST, _MOST = 0.9, 0.2, 10.0


def euler(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Euler's steps from times[0] to times[-1]: first order, one evaluation a step."""
    for now, then in pairwise(times):
        x = x + (then - now) * velocity(x, now)
    return x


def heun(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Heun's steps (the trapezoidal rule, explicit): second order, two evaluations a step."""
    for now, then in pairwise(times):
        slope = velocity(x, now)
        ahead = velocity(x + (then - now) * slope, then)
        x = x + (then - now) / 2 * (slope + ahead)
    return x


def rk45(velocity: Velocity, x: Tensor, start: float, end: float, *, rtol: float = 1e-5, atol: float = 1e-5) -> Tensor:
    """Dormand & Prince's adaptive method of order 5(4), from `start` to `end`; one step size for the whole batch.

    A step is taken when the root mean square of its error over atol + rtol·|x| is at most 1, as in SciPy's RK45. The
    last stage of a step is the first of the next: six evaluations a step. Raises ValueError when the step vanishes.
    """
    now, slope = start, velocity(x, start)
    step = _first_step(x, slope, end - start, rtol, atol)
    while (end - now) * step > 0:
        step = min(step, end - now, key=abs)
        slopes, candidate = _stages(velocity, x, now, step, slope)
        error = step * _weighted(_ERROR, slopes)
        size = float((error / (atol + rtol * torch.maximum(x.abs(), candidate.abs()))).square().mean().sqrt())
        if size <= 1:
            now, x, slope = now + step, candidate, slopes[-1]
        step *= min(_MOST, max(_LEAST, _SAFETY * size**-0.2)) if size else _MOST  # a NaN makes the step least
        if abs(step) < 1e-10 * abs(end - start):
            raise ValueError(f"the step of the ODE solver vanished at t = {now:.6g}: the velocity is not smooth there")
        if abs(end - now) <= 1e-12 * abs(end - start):
            break
    return x


def _stages(velocity: Velocity, x: Tensor, now: float, step: float, slope: Tensor) -> tuple[list[Tensor], Tensor]:
    """The seven slopes of a step, and the point that it reaches."""
    slopes = [slope]
    for node, weights in zip(_NODES, _STAGES, strict=True):
        point = x + step * _weighted(weights, slopes)
        slopes.append(velocity(point, now + node * step))
    return slopes, point


def _weighted(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total + weight * slope
    return total


def _first_step(x: Tensor, slope: Tensor, span: float, rtol: float, atol: float) -> float:
    """A hundredth of the time in which x would change by its own size (Hairer, Nørsett & Wanner 1993, II.4)."""
    scale = atol + rtol * x.abs()
    size, speed = (float((value / scale).square().mean().sqrt()) for value in (x, slope))
    step = 0.01 * size / speed if min(size, speed) > 1e-5 else 1e-6
    return min(step, abs(span)) * (1 if span > 0 else -1)
