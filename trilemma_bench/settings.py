"""What a run can be told, as validated objects: its budget, and how it trains and samples."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trilemma_bench.errors import UsageError

if TYPE_CHECKING:
    import torch

COMPILED_FROM_SECONDS, COMPILED_FROM_IMAGES = 1800.0, 2e6  # which take DDGAN 37 minutes on an H200
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "img": 1.0, "kimg": 1e3, "Mimg": 1e6}


@dataclass(frozen=True)
class Budget:
    """How long to train: until `seconds` of training have passed, or `images` samples have been seen."""

    text: str
    seconds: float = math.inf
    images: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Budget:
        """'90s', '10m', '2h' or '640img', '500kimg', '2Mimg'. Raises UsageError for anything else, zero included."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|img|kimg|Mimg)", text.strip())
        if match and float(match[1]) == 0:
            raise UsageError(f"budget '{text}' must be more than 0")
        if not match:
            raise UsageError(f"budget '{text}' is not a time (90s, 10m, 2h) or a number of images (500kimg, 2Mimg)")
        amount = float(match[1]) * _UNITS[match[2]]
        return cls(text.strip(), images=amount) if match[2].endswith("img") else cls(text.strip(), seconds=amount)

    @property
    def long(self) -> bool:
        """Whether minutes of compiling pay."""
        if math.isfinite(self.images):
            return self.images >= COMPILED_FROM_IMAGES
        return self.seconds >= COMPILED_FROM_SECONDS

    def progress(self, images: int, seconds: float) -> float:
        """The share of the budget that is used up: 0 at the start, 1 or more at the end."""
        return max(images / self.images, seconds / self.seconds)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingSettings(_Settings):
    """What the training loop needs; a model states its own defaults in `Trainable.training_defaults`.

    How often checkpoints and pictures are made, and for whom, never changes the result.
    """

    batch_size: int = Field(default=128, ge=1, description="samples a step, of all processes together")
    budget: str = Field(
        default="10m", description="how long: a time (90s, 10m, 2h) or samples seen (640img, 500kimg, 2Mimg)"
    )
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, description="of the averaged weights, a step; at first (1 + n)/(10 + n)"
    )
    lr_schedule: Literal["constant", "cosine"] = Field(
        default="cosine", description="'constant', or 'cosine' from the model's learning rates down to lr_final"
    )
    lr_final: float = Field(
        default=0.0, ge=0, le=1, description="share of each learning rate left at the end of the cosine"
    )
    lr_floor: float = Field(default=0.0, ge=0, description="the learning rate left there at least")
    lr_warmup_steps: int = Field(default=0, ge=0, description="steps in which learning rates rise from 0")
    flip: bool = Field(default=False, description="images are mirrored, left to right, at random")
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto",
        description="of the networks; 'auto' is 'bf16' for images on CUDA devices that have it, else 'float32'",
    )
    compile: Literal[True, False, "auto"] = Field(
        default="auto",
        description="networks by torch.compile (minutes); 'auto': on CUDA, from half an hour or 2Mimg on",
    )
    cuda_graphs: Literal[True, False, "auto"] = Field(
        default="auto",
        description="on CUDA, in one process, steps are recorded once and replayed; 'auto': where that works",
    )
    checkpoint_seconds: float = Field(default=120.0, gt=0, description="seconds between two checkpoints")
    preview_seconds: float = Field(
        default=60.0,
        ge=0,
        description="seconds between two pictures, more where they would take over 2 % of the time; 0: none",
    )
    tensorboard: bool = Field(default=False, description="losses and pictures are written for TensorBoard, too")


class SamplingSettings(_Settings):
    """How samples are drawn, and timed."""

    chunk_size: int = Field(default=1000, ge=1, description="samples drawn at once, each chunk with a seed of its own")
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="float32", description="of the networks, as in training"
    )
    compile: bool = Field(default=False, description="the network by torch.compile")
    cuda_graphs: Literal[True, False, "auto"] = Field(
        default="auto",
        description="on CUDA the network's kernels are recorded once and replayed; 'auto': where that works",
    )
    timing_batch: int = Field(default=100, ge=1, description="samples in a timed batch (the paper's 100)")
    timing_repetitions: int = Field(default=20, ge=3, description="timed batches, over a quarter of a second at least")
    timing_warmup: int = Field(default=2, ge=1, description="untimed batches before these")
    timing_seconds: float = Field(
        default=10.0, gt=0, description="seconds after which no more are timed, but for the first 3"
    )


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's result, resolved."""

    model: dict[str, Any]
    training: TrainingSettings
    sampling: SamplingSettings

    def flat(self) -> dict[str, Any]:
        tables = {"training": self.training.model_dump(), "sampling": self.sampling.model_dump()}
        return {"model": self.model, **tables}

    def on(self, device: torch.device, is_image: bool) -> Settings:
        """The same with what 'auto' means on `device`, for images or for points."""
        from trilemma_bench.precision import resolved

        training, sampling = self.training, self.sampling
        on_cuda = device.type == "cuda"
        compiled = on_cuda and Budget.parse(training.budget).long if training.compile == "auto" else training.compile
        graphs = training.cuda_graphs if on_cuda else False
        decided = {
            "precision": resolved(training.precision, device, is_image),
            "compile": compiled,
            "cuda_graphs": graphs,
        }
        return Settings(
            self.model,
            training.model_copy(update=decided),
            sampling.model_copy(update={"precision": resolved(sampling.precision, device, is_image)}),
        )
