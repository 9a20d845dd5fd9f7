"""Checkpoints: averaged weights as safetensors with their facts inside, and the state that resumes a training run.

A checkpoint from a stranger runs no code: weights are safetensors, the training state is read with `weights_only`.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.files import atomic

WEIGHTS_FILE = "checkpoint.safetensors"
STATE_FILE = "training_state.pt"
FORMAT = "trilemma-bench/checkpoint/1"


@dataclass(frozen=True)
class Header:
    """The facts inside a checkpoint. digest: of everything that decided the training (`job.training_digest`).

    continues: the last interrupted run with a record whose training this one went on with.
    """

    model: str
    settings: dict[str, Any]
    shape: tuple[int, ...]
    dataset: str
    fingerprint: str
    digest: str
    run_id: str
    complete: bool = False
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    parameters: int = 0
    budget: str = ""
    training: dict[str, Any] | None = None
    device: str = ""
    cuda_graphs: bool = False
    others_memory_bytes: int | None = None
    continues: str = ""
    format: str = FORMAT


def save_weights(network: nn.Module, header: Header, path: Path) -> None:
    """Writes the network's parameters and buffers with `header`, atomically."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    metadata = {"header": json.dumps(asdict(header))}
    atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def read_header(path: Path) -> Header:
    """The facts of the checkpoint at `path`. Raises TrilemmaError when it is missing, damaged or not one of ours."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        facts = json.loads(metadata["header"])
        facts["shape"] = tuple(facts["shape"])
        return Header(**facts)
    except FileNotFoundError:
        raise TrilemmaError(f"checkpoint {path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise TrilemmaError(f"checkpoint {path} is damaged or not safetensors ({error}): train again") from None
    except (KeyError, TypeError, ValueError):
        raise TrilemmaError(f"{path} is not a checkpoint of trilemma-bench: it has no readable header") from None


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads the weights at `path` into `network`. Raises TrilemmaError when they do not fit it or are damaged."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network.load_state_dict(tensors)
    except (SafetensorError, OSError) as error:
        raise TrilemmaError(f"checkpoint {path} is damaged ({error}): train again") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise TrilemmaError(f"checkpoint {path} does not fit this model's settings: {reason}") from None


def save_state(state: dict[str, Any], path: Path) -> None:
    """Writes the state of an unfinished training run, atomically."""
    atomic(path, lambda temporary: torch.save(state, temporary))


def load_state(path: Path) -> dict[str, Any]:
    """The state of an unfinished training run. Raises TrilemmaError when it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrilemmaError(
            f"training state {path} is damaged ({type(error).__name__}): delete it to train anew"
        ) from None


def find(runs: Path, digest: str, *, complete: bool) -> Path | None:
    """The newest run folder under `runs` trained with this digest: a finished one, or one that can be resumed.

    The digest knows the data, whatever the folder of its data set is called.
    """
    wanted = WEIGHTS_FILE if complete else STATE_FILE
    folders = {path.parent for path in runs.glob(f"*/*/*/{wanted}")}
    for folder in sorted(folders, key=lambda folder: folder.name, reverse=True):
        with contextlib.suppress(TrilemmaError):
            header = read_header(folder / WEIGHTS_FILE)
            if header.digest == digest and header.complete == complete:
                return folder
    return None
