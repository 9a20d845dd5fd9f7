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

    batch_size: of all processes together. lr_final: share of each learning rate left at the end of a cosine; lr_floor:
    or this much of it, if that is more. flip: random horizontal flips. precision: of the networks; 'auto' is 'bf16' for
    images on CUDA devices that have it, else 'float32'. compile: the networks by torch.compile, where that works, which
    takes minutes itself; 'auto' is true on CUDA for budgets from half an hour or two million images on. cuda_graphs: on
    CUDA, in one process, steps that the model says are alike are recorded once and replayed, without gaps between their
    kernels; 'auto' where that works.

    Never changing the result: checkpoint_seconds, the time between two checkpoints; preview_seconds, the time between
    two pictures of samples, or longer where drawing them would take more than 2 % of the time, 0 for none;
    tensorboard, whether to write losses and pictures for it too.
    """

    batch_size: int = Field(default=128, ge=1)
    budget: str = "10m"
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    lr_final: float = Field(default=0.0, ge=0, le=1)
    lr_floor: float = Field(default=0.0, ge=0)
    lr_warmup_steps: int = Field(default=0, ge=0)
    flip: bool = False
    precision: Literal["auto", "float32", "bf16"] = "auto"
    compile: Literal[True, False, "auto"] = "auto"
    cuda_graphs: Literal[True, False, "auto"] = "auto"
    checkpoint_seconds: float = Field(default=120.0, gt=0)
    preview_seconds: float = Field(default=60.0, ge=0)
    tensorboard: bool = False


class SamplingSettings(_Settings):
    """chunk_size: samples drawn at once, part of what makes samples repeatable. precision: of the networks, as in
    training. compile: the network by torch.compile. cuda_graphs: on CUDA the network's kernels are recorded once and
    replayed, without gaps between them; 'auto' where that works.

    The timing settings: the timed batch (the paper's 100), repetitions, which lie over a quarter of a second at least,
    untimed warm-up calls, and the seconds after which a slow model is not repeated any more (at least 3 times all the
    same).
    """

    chunk_size: int = Field(default=1000, ge=1)
    precision: Literal["auto", "float32", "bf16"] = "float32"
    compile: bool = False
    cuda_graphs: Literal[True, False, "auto"] = "auto"
    timing_batch: int = Field(default=100, ge=1)
    timing_repetitions: int = Field(default=20, ge=3)
    timing_warmup: int = Field(default=2, ge=1)
    timing_seconds: float = Field(default=10.0, gt=0)


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
