"""The arithmetic of networks: float32 as it is, or bfloat16 where it is safe, with TensorFloat-32 for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def resolved(precision: str, device: torch.device, is_image: bool = True) -> str:
    """'auto' decided: 'bf16' for images on CUDA devices that compute in it, 'float32' elsewhere.

    Points stay exact: bfloat16's 8 bits would blur a coordinate by a tenth of a mode of the 25 Gaussians.
    """
    if precision != "auto":
        return precision
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if able and is_image else "float32"


@contextmanager
def matmul_precision(needed: str) -> Iterator[None]:
    """Inside, products of float32 values are made in torch's 'highest', 'high' or 'medium' precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(needed)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, networks compute in `precision`.

    'float32': exactly that, on CUDA too, where convolutions are TensorFloat-32 unless told otherwise. 'bf16': autocast
    to bfloat16; what stays float32 may be multiplied as TensorFloat-32.
    """
    lower, cudnn = precision == "bf16", torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, cudnn.benchmark = lower, True
    try:
        with (
            matmul_precision("high" if lower else "highest"),
            torch.autocast(device.type, torch.bfloat16, enabled=lower),
        ):
            yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before


@contextmanager
def feature_arithmetic(precision: str, device: torch.device | str) -> Iterator[None]:
    """Inside, feature extractors compute in `precision`, always by the same algorithms.

    'tf32': products of values rounded to 10 bits, on CUDA; 'bf16': convolutions and products in bfloat16; anything
    else: exactly float32, with which features agree between devices to their last digits but one.
    """
    tf32 = precision == "tf32"
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)
    lower = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
    with matmul_precision("high" if tf32 else "highest"), flags, lower:
        yield


def in_fast_format(images: Tensor) -> Tensor:
    """Images N×C×H×W on CUDA with their channels last in memory, as its convolutions want them; others unchanged."""
    if images.ndim == 4 and images.device.type == "cuda":
        return images.contiguous(memory_format=torch.channels_last)
    return images
