"""The only training loop: budget, learning rate, EMA, checkpoints and logs. The model owns its step, nothing else."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from trilemma_bench import checkpoint, seeding
from trilemma_bench.config import Budget, TrainingSettings
from trilemma_bench.contracts import Trainable
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.images import to_float
from trilemma_bench.timing import synchronize

LOG_FILE = "training.jsonl"
LOG_SECONDS = 2.0
ESTIMATE_AFTER_SECONDS = 3.0


class Interrupted(TrilemmaError):
    """Training was stopped by the user; a checkpoint is left and the same command goes on from it."""


class Batches:
    """Shuffled epochs of `data`, each order a function of (seed, epoch): the position is the only state."""

    def __init__(self, data: Tensor, settings: TrainingSettings, seed: int, device: torch.device) -> None:
        self.data = data.to(device)
        self.batch_size = settings.batch_size
        self.flip = settings.flip
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def at(self, position: int) -> Tensor:
        """The batch that starts at sample `position` of the endless stream: float, on the device."""
        indices, need = [], self.batch_size
        while need:
            epoch, offset = divmod(position, len(self.data))
            part = self._epoch_order(epoch)[offset : offset + need]
            indices.append(part)
            position, need = position + len(part), need - len(part)
        batch = to_float(self.data[torch.cat(indices)])
        return self._flipped(batch) if self.flip else batch

    def _epoch_order(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            order = seeding.permutation(len(self.data), "epoch", self.seed, epoch)
            self._epoch, self._order = epoch, order.to(self.data.device)
        return self._order

    def _flipped(self, batch: Tensor) -> Tensor:
        chosen = torch.rand(len(batch), 1, 1, 1, device=batch.device) < 0.5
        return torch.where(chosen, batch.flip(-1), batch)


class EMA:
    """An exponential moving average of a network's parameters, with the usual start: min(decay, (1 + n)/(10 + n))."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._averages: list[Tensor] = list(self.network.parameters())
        self._currents: list[Tensor] = list(network.parameters())
        self._buffers = list(zip(self.network.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._currents, 1 - decay)
        for average, current in self._buffers:
            average.copy_(current)


def learning_rate_factor(settings: TrainingSettings, step: int, progress: float) -> float:
    """The share of the full learning rate at `step`, when `progress` of the budget is used up."""
    warmup = min(1.0, (step + 1) / settings.lr_warmup_steps) if settings.lr_warmup_steps else 1.0
    if settings.lr_schedule == "constant":
        return warmup
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return warmup * (settings.lr_final + (1 - settings.lr_final) * cosine)


@dataclass(frozen=True)
class Place:
    """Where a training run happens. resume: folder of the unfinished run to go on from, if any."""

    folder: Path
    device: torch.device
    resume: Path | None = None
    say: Callable[[str], None] = print
    progress: bool = True


class Trainer:
    """One training run of `model` on `data` (uint8 images or float points); `run` leaves the EMA in `model.network`."""

    def __init__(
        self,
        model: Trainable,
        data: Tensor,
        settings: TrainingSettings,
        seed: int,
        header: checkpoint.Header,
        place: Place,
    ) -> None:
        self.model, self.settings, self.header, self.place = model, settings, header, place
        self.budget = Budget.parse(settings.budget)
        self.batches = Batches(data, settings, seed, place.device)
        self.optimizers = model.optimizers()
        self.rates = {name: [group["lr"] for group in opt.param_groups] for name, opt in self.optimizers.items()}
        self.ema = EMA(model.network, settings.ema_decay)
        self.step, self.images, self.seconds = 0, 0, 0.0
        self._sums: dict[str, Tensor] = {}
        self._since_log = 0

    def run(self) -> checkpoint.Header:
        """Trains until the budget is used up; returns the finished checkpoint's header.

        Raises Interrupted on Ctrl-C, with a checkpoint left behind, and TrilemmaError when a loss is not finite.
        """
        self.model.train()
        if self.place.resume:
            self._restore(self.place.resume)
        try:
            self._loop()
        except KeyboardInterrupt:
            self._save(complete=False)
            raise Interrupted(
                f"interrupted after {self.step} steps; checkpoint in {self.place.folder}: "
                "the same command goes on from it"
            ) from None
        self._save(complete=True)
        self.model.network.load_state_dict(self.ema.network.state_dict())
        return self.header

    def _loop(self) -> None:
        clock = time.perf_counter()
        before, logged, saved, estimated = self.seconds, self.seconds, self.seconds, False
        with self._bar() as bar:
            while (progress := self.budget.progress(self.images, self.seconds)) < 1:
                self._step(progress)
                self.seconds = before + time.perf_counter() - clock
                if self.seconds - logged >= LOG_SECONDS:
                    self._log(bar)
                    logged = self.seconds
                    if not estimated and self.seconds - before >= ESTIMATE_AFTER_SECONDS:
                        self._estimate(before)
                        estimated = True
                if self.seconds - saved >= self.settings.checkpoint_seconds:
                    self._save(complete=False)
                    saved = self.seconds
            synchronize(self.place.device)
            self._log(bar)

    def _step(self, progress: float) -> None:
        factor = learning_rate_factor(self.settings, self.step, progress)
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * factor
        losses = self.model.training_step(self.batches.at(self.images), self.step, self.optimizers)
        self.ema.update()
        self.step += 1
        self.images += self.settings.batch_size
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._since_log += 1

    def _log(self, bar: tqdm) -> None:
        """Writes the mean losses since the last line; a NaN in any step since then stops the run."""
        if not self._since_log:
            return
        means = {name: float(total) / self._since_log for name, total in self._sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise TrilemmaError(
                    f"loss '{name}' became {value} between steps {self.step - self._since_log} and {self.step}; "
                    f"the last good checkpoint is kept in {self.place.folder}: lower the learning rate"
                )
        line = {"step": self.step, "images": self.images, "seconds": round(self.seconds, 3), **means}
        with (self.place.folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        done = self.images if math.isfinite(self.budget.images) else round(self.seconds)
        bar.n = min(done, round(self.budget.images if math.isfinite(self.budget.images) else self.budget.seconds))
        bar.set_postfix_str(" ".join(f"{name} {value:.3g}" for name, value in means.items()))
        self._sums, self._since_log = {}, 0

    def _estimate(self, before: float) -> None:
        """Says what the whole recipe costs on this device, once the first steps are timed."""
        share = self.budget.progress(self.images, self.seconds)
        if math.isfinite(self.budget.images) and not self.place.resume:
            rate = self.images / self.seconds
            left = self.seconds / share
            self.place.say(
                f"training takes about {human_time(left)} on this device at {rate:,.0f} images/s; --budget shortens it"
            )

    def _bar(self) -> tqdm:
        by_images = math.isfinite(self.budget.images)
        total = round(self.budget.images if by_images else self.budget.seconds)
        return tqdm(
            total=total,
            unit="img" if by_images else "s",
            unit_scale=by_images,
            desc=f"train {self.header.model}",
            disable=not self.place.progress,
            dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]",
        )

    def _save(self, complete: bool) -> None:
        self.header = replace(self.header, images=self.images, steps=self.step, seconds=self.seconds, complete=complete)
        folder = self.place.folder
        if complete:
            checkpoint.save_weights(self.ema.network, self.header, folder / checkpoint.WEIGHTS_FILE)
            (folder / checkpoint.STATE_FILE).unlink(missing_ok=True)
        else:
            checkpoint.save_state(self._state(), folder / checkpoint.STATE_FILE)
            checkpoint.save_weights(self.ema.network, self.header, folder / checkpoint.WEIGHTS_FILE)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.network.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "rng": random_state(self.place.device),
            "position": [self.step, self.images, self.seconds],
        }

    def _restore(self, folder: Path) -> None:
        state = checkpoint.load_state(folder / checkpoint.STATE_FILE)
        self.model.load_state_dict(state["model"])
        self.ema.network.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.images, self.seconds = state["position"]
        restore_random_state(state["rng"], self.place.device)
        self.place.say(f"resuming from step {self.step} of {folder}")


def seed_everything(seed: int) -> None:
    """Seeds torch (all devices), NumPy and Python for building and training a model."""
    value = seeding.stream_seed("training", seed)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators: the CPU's, and the device's own."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def human_time(seconds: float) -> str:
    """'45 s', '12 min', '41 h' or '6 days'."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
