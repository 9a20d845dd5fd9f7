"""Memory: the peak of a stretch of work, and what others hold."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
from pathlib import Path

import torch
from torch import nn

BESIDE_TENSORS = 2**30  # bytes that this process holds at most beside torch's: the driver's, libraries' and kernels


def held_beside(model: nn.Module, device: torch.device) -> int:
    """Bytes that are allocated on the device for anything but the model, such as extractors; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    gc.collect()  # a training that has ended is in cycles: it must not go between this reading and the peak
    own = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return torch.cuda.memory_allocated(device) - own


def held_by_other_programs(device: torch.device) -> int | None:
    """Bytes of a GPU's memory that this process does not hold, about; None on a CPU.

    A GPU tells every program how much is free, and only who is privileged how busy it is.
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device) - BESIDE_TENSORS)


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new peak: the allocator's on CUDA, the process's where Linux allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> tuple[int, str]:
    """(bytes, what was measured): allocated device memory, or the resident set of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "device memory allocated"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024, "resident set of the process"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "resident set of the process"
