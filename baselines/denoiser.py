"""What diffusion-like baselines share: one network of (x, time), regressed with Adam, and a sampler from noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.edm_augment import edm_augment, told_numbers
from baselines.networks import Architecture, time_network
from trilemma_bench.contracts import Count, Counts, DataSpec, NonNegative, Positive, Share, Trainable, Whole
from trilemma_bench.errors import UsageError
from trilemma_bench.nn.labels import draw_labels, label_count


class Denoiser(Trainable):
    """A model of one time-conditioned network: the baselines differ in their mathematics, not in their networks.

    A subclass gives the `losses` of a batch and `denoise`, its sampler; both see data of about unit scale and ask
    `predict`, not the network, which knows the labels.

    architecture, channels, channel_multipliers, res_blocks, attention_resolutions, dropout, time_fourier_scale: of
    images' networks (see `networks.time_network`); hidden, layers, fourier_features, fourier_scale: of points'. lr: of
    Adam. max_grad_norm: gradients are clipped to it; 0 for never. augment: probability of each of EDM's augmentations
    of images, of which the network is told; 0 for none. times: how many times the network sees. upright: whether
    augmentation leaves up and down alone.
    class_conditional: learns from labels, which samples get evenly; label_dropout: share of the training samples that
    hide theirs. guidance: w of (1 + w)·conditional − w·unconditional, at two evaluations a prediction (Ho & Salimans
    2022, eq. 6); 0 for the conditional model alone.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 128,
        "budget": "102400kimg",
        "ema_decay": 0.9999,
        "lr_schedule": "constant",
        "lr_warmup_steps": 5000,
    }
    sampling_settings: ClassVar[frozenset[str]] = frozenset({"guidance"})
    network: nn.Module
    sampling_steps: int
    times: ClassVar[int] = 1
    upright: ClassVar[bool] = False

    def __init__(
        self,
        data: DataSpec,
        *,
        architecture: Architecture = "ddpm",
        channels: Count = 64,
        channel_multipliers: Counts = (1, 2, 2),
        res_blocks: Count = 2,
        attention_resolutions: tuple[Count, ...] = (16,),
        dropout: Share = 0.1,
        time_fourier_scale: NonNegative = 0.0,
        hidden: Count = 128,
        layers: Count = 4,
        fourier_features: Whole = 32,
        fourier_scale: Positive = 1.0,
        lr: NonNegative = 2e-4,
        max_grad_norm: NonNegative = 1.0,
        augment: Share = 0.0,
        class_conditional: bool = False,
        label_dropout: Share = 0.1,
        guidance: NonNegative = 0.0,
    ) -> None:
        super().__init__(data)
        self.lr, self.max_grad_norm, self.augment = lr, max_grad_norm, augment
        if augment and not data.is_image:
            raise UsageError(f"augment = {augment} is for images: choose 0 for points")
        self.wants_labels, self.label_dropout, self.guidance = class_conditional, label_dropout, guidance
        self.classes = label_count(class_conditional, data.classes)
        self._check_guidance()
        self._told: dict[str, Tensor] = {}
        self.unit = 1.0 if data.is_image else data.scale
        self.network = time_network(
            data,
            architecture=architecture,
            channels=channels,
            channel_multipliers=channel_multipliers,
            res_blocks=res_blocks,
            attention_resolutions=attention_resolutions,
            dropout=dropout,
            time_fourier_scale=time_fourier_scale,
            times=self.times,
            hidden=hidden,
            layers=layers,
            fourier_features=fourier_features,
            fourier_scale=fourier_scale,
            classes=self.classes,
            augmentation=told_numbers(self.upright) if augment else 0,
        )

    @abstractmethod
    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """Of data x (N×…, in units of about 1): 'loss', the scalar that is minimised, and others to be logged."""

    @abstractmethod
    def denoise(self, noise: Tensor, rng: torch.Generator) -> Tensor:
        """The sampler: standard normal noise (N×…) → data in the loss's unit."""

    @abstractmethod
    def predictions(self) -> int | None:
        """How often `denoise` asks `predict`; None where it decides as it goes."""

    def describe_sampler(self) -> str:
        """The sampler's settings in a few words, as `describe` has them."""
        return f"{self.sampling_steps} step{'s' if self.sampling_steps > 1 else ''}"

    def predict(self, x: Tensor, time: Tensor) -> Tensor:
        """The network's output in float32, for the labels of the samples at hand; guided, where samples are drawn."""
        output = self.network(x, time, **self._told).float()
        if self.training or not self.guidance:
            return output
        free = self.network(x, time, labels=torch.full_like(self._told["labels"], self.classes)).float()
        return output + self.guidance * (output - free)

    def evaluations(self) -> int | None:
        count = self.predictions()
        return count * (2 if self.guidance else 1) if count is not None else None

    def describe(self) -> str:
        labelled = f"guidance {self.guidance:g}" if self.guidance else "class-conditional" if self.wants_labels else ""
        return ", ".join(filter(None, [self.describe_sampler(), labelled]))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"network": torch.optim.Adam(self.network.parameters(), lr=self.lr, fused=True)}

    def training_step(
        self,
        batch: Tensor,
        step: int,
        optimizers: dict[str, torch.optim.Optimizer],
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        optimizer = optimizers["network"]
        if labels is not None:
            hidden = torch.rand(len(labels), device=labels.device) < self.label_dropout
            labels = labels.masked_fill(hidden, self.classes)
        x, augmentation = batch / self.unit, None
        if self.augment:
            x, augmentation = edm_augment(x, self.augment, self.upright)
        with self._given(labels=labels, augmentation=augmentation):
            losses = self.losses(x)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        if self.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.max_grad_norm)
        optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def step_kind(self, step: int) -> Hashable:
        return "all"

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        noise = torch.randn((count, *self.data.shape), generator=rng, device=rng.device)
        labels = draw_labels(self.classes, count, rng)
        with self._given(labels=labels):
            x = self.denoise(noise, rng)
        return x.clamp(-1, 1) if self.data.is_image else x * self.unit

    @contextmanager
    def _given(self, **told: Tensor | None) -> Iterator[None]:
        """Inside, `predict` is of samples of which the network is told this: their labels, their augmentation."""
        self._told = {name: values for name, values in told.items() if values is not None}
        try:
            yield
        finally:
            self._told = {}

    def _check_guidance(self) -> None:
        if self.guidance and not self.wants_labels:
            raise UsageError(f"guidance = {self.guidance}: set class_conditional = true, and train so")
        if self.guidance and not self.label_dropout:
            raise UsageError("label_dropout = 0: guidance needs a network that has seen samples without labels")


def column(values: Tensor, like: Tensor) -> Tensor:
    """values (N), shaped to multiply `like` (N×…)."""
    return values.view(-1, *[1] * (like.ndim - 1))
