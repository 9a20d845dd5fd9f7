"""DDGAN's training step against a naive one, which does as the reference code does: the discriminator's step does not
detach the fake images, so its backward pass runs through the generator too, for gradients that nobody uses.

    python benchmarks/ddgan_step.py [--size small|cifar] [--batch 8] [--repeats 9] [--precision bf16] [--device cuda]

Prints seconds a step (medians of rounds in turn) and how many times the step the naive one takes; steps have no R1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import machine, medians, print_table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ddgan.model import DDGAN
from trilemma_bench.contracts import DataSpec
from trilemma_bench.environment import resolve_device
from trilemma_bench.precision import arithmetic, in_fast_format

SIZES: dict[str, dict[str, Any]] = {
    "small": {"channels": 32, "discriminator_channels": 32},
    "cifar": {},
}


class Naive(DDGAN):
    """Keeps the graph of the fake images where DDGAN asks for none."""

    def _fake(self, x_next: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        with torch.enable_grad():
            return super()._fake(x_next, t, *labels)


def training_step(
    model_class: type[DDGAN], size: str, batch: int, device: torch.device, precision: str
) -> Callable[[], float]:
    """A function that trains one step on random images, after a first one; it returns the discriminator's loss."""
    torch.manual_seed(0)
    model = model_class(DataSpec((3, 32, 32)), r1_gamma=0.0, **SIZES[size]).to(device)
    images = in_fast_format(torch.randn(batch, 3, 32, 32, device=device))
    optimizers = model.optimizers()

    def step() -> float:
        with arithmetic(precision, device):
            return float(model.training_step(images, 1, optimizers)["loss_d"])

    step()
    return step


def flops(step: Callable[[], float]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    common = (options.size, options.batch, device, options.precision)
    steps = {"DDGAN": training_step(DDGAN, *common), "naive": training_step(Naive, *common)}
    found = medians(steps, options.repeats)
    print(f"{machine()}, {torch.get_num_threads()} threads; size {options.size}, batch {options.batch}")
    print_table("training step", found)
    print(f"\nRatio of medians: {found['naive'].wall / found['DDGAN'].wall:.3f}")
    print(f"Ratio of FLOPs: {flops(steps['naive']) / flops(steps['DDGAN']):.3f}")


if __name__ == "__main__":
    main()
