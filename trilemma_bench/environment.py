"""Facts of the machine and the software that a run happened on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from trilemma_bench.errors import UsageError
from trilemma_bench.paths import as_text
from trilemma_bench.source import harness_digest

PACKAGES = ("trilemma-bench", "torch", "torchvision", "torch-fidelity", "clean-fid", "numpy", "scipy", "scikit-learn")


def environment() -> dict[str, Any]:
    """JSON-able facts: operating system, Python, packages, the harness's code, CPU, memory and GPUs."""
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "commit": code_commit(),
        "source_sha256": harness_digest(),
        "cpu": cpu_name(),
        "cpu_cores": psutil.cpu_count(logical=True),
        "torch_threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "cuda": torch.version.cuda if gpus else None,
    }


def package_version(name: str) -> str:
    """The installed version, or 'not installed'."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def code_commit() -> str | None:
    """The git commit of the checkout that this code runs from ('+' when changed); None when installed elsewhere."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def resolve_device(name: str) -> torch.device:
    """'auto', 'cpu', 'cuda' or 'cuda:N' → a device that this machine has. Raises UsageError otherwise.

    Under `torchrun` each process has the GPU of its own number. A GPU that is named becomes torch's current one, where
    streams and graphs are made.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device '{name}' is not auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise UsageError(f"device '{name}' is not here: torch {torch.__version__} sees {found} CUDA devices; use cpu")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def device_name(device: torch.device) -> str:
    """The device as people call it: the GPU's name, or the CPU's with the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()} ({torch.get_num_threads()} threads)"


def cpu_name() -> str:
    """The processor's model name where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def command_line() -> str:
    """The command that repeats this process, or '' when called from Python."""
    import shlex

    program = Path(sys.argv[0])
    ours = program.name.startswith("trilemma-bench") or program.parts[-2:] == ("trilemma_bench", "__main__.py")
    return as_text(shlex.join(["trilemma-bench", *sys.argv[1:]])) if ours else ""


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def free_memory(device: torch.device) -> int:
    """Bytes that the device can still give: of the machine's memory for a CPU."""
    if device.type == "cuda":
        return (
            torch.cuda.mem_get_info(device)[0]
            + torch.cuda.memory_reserved(device)
            - torch.cuda.memory_allocated(device)
        )
    return int(psutil.virtual_memory().available)
