"""The only training loop: budget, learning rate, EMA, checkpoints and logs. The model owns its step, nothing else."""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from trilemma_bench import distributed
from trilemma_bench.contracts import Split, Trainable
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.memory import held_by_other_programs
from trilemma_bench.seeding import random_state, restore_random_state
from trilemma_bench.settings import Budget, TrainingSettings
from trilemma_bench.timing import Queue, synchronize
from trilemma_bench.training import checkpoint
from trilemma_bench.training.batches import Batches
from trilemma_bench.training.clock import Clock, human_rate, human_time
from trilemma_bench.training.ema import EMA
from trilemma_bench.training.log import Trace, TrainingLog
from trilemma_bench.training.previews import Previews
from trilemma_bench.training.step import GRADIENT, TrainingStep

LOG_SECONDS = 2.0
SOON = 8  # steps, in which a kind of step is rehearsed before the clock starts
ESTIMATE_AFTER_SECONDS = 3.0


class Interrupted(TrilemmaError):
    """Training was stopped by the user; a checkpoint is left and the same command goes on from it."""


def learning_rate(settings: TrainingSettings, full: float, step: int, progress: float) -> float:
    """What is left of the `full` learning rate at `step`, when `progress` of the budget is used up."""
    warmup = min(1.0, (step + 1) / settings.lr_warmup_steps) if settings.lr_warmup_steps else 1.0
    if settings.lr_schedule == "constant":
        return warmup * full
    last = min(full, max(settings.lr_final * full, settings.lr_floor))
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return warmup * (last + (full - last) * cosine)


@dataclass(frozen=True)
class Place:
    """Where a training run happens. resume: folder of the unfinished run to go on from, if any."""

    folder: Path
    device: torch.device
    resume: Path | None = None
    say: Callable[[str], None] = print
    progress: bool = True


class Trainer:
    """One training run of `model` on `data` (a split of the dataset); `run` leaves the EMA in `model.network`.

    Under `torchrun` every process has one, with the same arguments; the batch is shared out (see `distributed`).
    """

    def __init__(
        self,
        model: Trainable,
        data: Split,
        settings: TrainingSettings,
        seed: int,
        header: checkpoint.Header,
        place: Place,
    ) -> None:
        distributed.check_batch(settings.batch_size)
        model.processes = distributed.world()
        if settings.batch_size > len(data):
            raise UsageError(f"batch_size = {settings.batch_size}: there are {len(data)} samples, choose that at most")
        if model.wants_labels and data.labels is None:
            raise UsageError(f"model '{header.model}' learns from labels, and this dataset has none")
        if settings.flip and not model.data.is_image:
            raise UsageError("flip = true: points are not mirrored, set training.flip = false")
        self.model, self.settings, self.header, self.place = model, settings, header, place
        self.budget = Budget.parse(settings.budget)
        self.batches = Batches(data, settings, seed, place.device)
        self.optimizers = _optimizers_of(model, header.model)
        self.rates = {name: [group["lr"] for group in opt.param_groups] for name, opt in self.optimizers.items()}
        self.ema = EMA(model.network, settings.ema_decay)
        self.log, self.trace, self.clock = TrainingLog(place.folder, settings.tensorboard), Trace(place.folder), Clock()
        self.previews = Previews(model, self.ema, settings, self.log, place.device, _largest(data.samples))
        self.training_step = TrainingStep(model, self.optimizers, settings, seed, place.device)
        self._queue = Queue(place.device)
        self.step, self.images, self.seconds = 0, 0, 0.0
        self._logged = 0, 0.0
        self._stop = False

    def run(self) -> checkpoint.Header:
        """Trains until the budget is used up; returns the finished checkpoint's header.

        Raises Interrupted on Ctrl-C, at the end of a step and with a checkpoint left behind, and TrilemmaError when a
        loss or a gradient is not finite.
        """
        self.model.train()
        if self.place.resume:
            self._restore(self.place.resume)
        if self.settings.compile is True or self.place.device.type == "cuda":
            self._warm_up()
        self.training_step.record(self.place.say)
        with stopping_gently(self._ask_to_stop):
            self._loop()
        complete = self._progress() >= 1
        self._save(complete)
        self.log.close()
        if not complete:
            raise Interrupted(
                f"interrupted after {self.step} step{'s' * (self.step != 1)}; checkpoint in {self.place.folder}: "
                "the same command goes on from it"
            )
        self.training_step.forget()
        self._run_eager()
        self.model.network.load_state_dict(self.ema.network.state_dict())
        return self.header

    def _loop(self) -> None:
        self.clock.start(self.seconds)
        self._logged = self.images, self.seconds
        start = saved = self.seconds
        estimated = self.place.resume is not None
        with self._bar() as bar:
            while (progress := self._progress()) < 1 and not self._stop:
                self._step(progress)
                self._tick()
                if self.seconds - self._logged[1] >= LOG_SECONDS:
                    rate = self._write_log(bar)
                    if not estimated and self.seconds - start >= ESTIMATE_AFTER_SECONDS:
                        self._estimate(rate)
                        estimated = True
                    with self.clock.stopped():
                        self.previews.draw_if_due(self.step, self.seconds, rate)
                if self.seconds - saved >= self.settings.checkpoint_seconds:
                    self._save(complete=False)
                    saved = self.seconds
            synchronize(self.place.device)
            if self.images > self._logged[0]:
                self._write_log(bar)

    def _progress(self) -> float:
        return self.budget.progress(self.images, self.seconds)

    def _step(self, progress: float) -> None:
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
                group["lr"] = learning_rate(self.settings, rate, self.step, progress)
        values = self.training_step(self.step, self.batches.at(self.images))
        self.ema.update()
        self.step += 1
        self.images += self.settings.batch_size
        for name, value in values.items():
            self.trace.add(name, value, self.step)

    def _tick(self) -> None:
        """The time, and whether to stop: as the first process has them, so that all do the same."""
        self._queue.wait()
        self.seconds, stop = distributed.agreed([self.clock.read(), self._stop])
        self._stop = bool(stop)

    def _ask_to_stop(self, *signal_and_frame: object) -> None:
        if self._stop and distributed.world() == 1:
            raise KeyboardInterrupt  # asked twice: the step may take long
        self._stop = True

    def _warm_up(self) -> None:
        """Steps that are taken back, before the clock starts: networks are compiled in them, and libraries choose their
        algorithms. Where compiling fails, networks run as they are.
        """
        before = copy.deepcopy(self._state())
        if self.settings.compile is True:
            for part in self.model.compiled_parts():
                part.compile(dynamic=False)
        try:
            for _ in range(self._rehearsals()):
                self._step(self._progress())
        except Exception as error:
            if self.settings.compile is not True:
                raise
            self._run_eager()
            self.place.say(f"compiling does not work here ({type(error).__name__}): the networks run as they are")
        self.trace.clear()
        self._put(before)

    def _rehearsals(self) -> int:
        """Two steps, or as many as show every kind that comes soon: a critic's before the generator's, say. Lazy
        penalties come in the first of a fresh run.
        """
        kinds = [self.model.step_kind(step) for step in range(self.step, self.step + SOON)]
        return max(2, *(kinds.index(kind) + 1 for kind in kinds))

    def _run_eager(self) -> None:
        for part in self.model.compiled_parts():
            part._compiled_call_impl = None

    def _write_log(self, bar: tqdm) -> float:
        """A line of the mean losses and the images a second, which it returns; a NaN since the last stops the run."""
        means = self.trace.take()
        images, seconds = self._logged
        rate = (self.images - images) / max(self.seconds - seconds, 1e-9)
        facts = {"step": self.step, "images": self.images, "seconds": round(self.seconds, 3)}
        self.log.write({**facts, "images_per_second": round(rate, 1), **means})
        losses = " ".join(f"{name} {value:.3g}" for name, value in means.items() if not name.startswith(GRADIENT))
        bar.set_postfix_str(f"{human_rate(rate)} img/s {losses}", refresh=False)
        bar.update(self._amount() - bar.n)
        self._logged = self.images, self.seconds
        return rate

    def _estimate(self, rate: float) -> None:
        """Says what the whole recipe costs on this device, once the first steps are timed."""
        if math.isfinite(self.budget.images):
            cost = human_time(self.budget.images / rate)
            self.place.say(
                f"training takes about {cost} on this device at {human_rate(rate)} images/s, with a smaller budget less"
            )

    def _bar(self) -> tqdm:
        by_images = math.isfinite(self.budget.images)
        return tqdm(
            total=round(self.budget.images if by_images else self.budget.seconds),
            initial=self._amount(),
            unit="img" if by_images else "s",
            unit_scale=by_images,
            desc=f"train {self.header.model}",
            disable=not self.place.progress,
            dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]",
        )

    def _amount(self) -> int:
        """How far the bar is, in its unit."""
        budget = self.budget
        by_images = math.isfinite(budget.images)
        return min(self.images, round(budget.images)) if by_images else min(round(self.seconds), round(budget.seconds))

    def _save(self, complete: bool) -> None:
        """Leaves a checkpoint, unless a number since the last one was not finite: then it raises TrilemmaError."""
        self.trace.check()
        held = [self.header.others_memory_bytes, held_by_other_programs(self.place.device)]
        self.header = replace(
            self.header, images=self.images, steps=self.step, seconds=self.seconds, complete=complete,
            cuda_graphs=self.training_step.replayed,
            others_memory_bytes=max((each for each in held if each is not None), default=None),
        )  # fmt: skip
        if not distributed.is_main():
            return
        folder = self.place.folder
        if not complete:
            checkpoint.save_state(self._state(), folder / checkpoint.STATE_FILE)
        checkpoint.save_weights(self.ema.network, self.header, folder / checkpoint.WEIGHTS_FILE)
        if complete:
            (folder / checkpoint.STATE_FILE).unlink(missing_ok=True)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.network.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "rng": random_state(self.place.device),
            "position": [self.step, self.images, self.seconds],
        }

    def _put(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.ema.network.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.step, self.images, self.seconds = state["position"]
        restore_random_state(state["rng"], self.place.device)

    def _restore(self, folder: Path) -> None:
        self._put(checkpoint.load_state(folder / checkpoint.STATE_FILE))
        self.place.say(f"resuming from step {self.step} of {folder}")


def _optimizers_of(model: Trainable, name: str) -> dict[str, torch.optim.Optimizer]:
    try:
        found = model.optimizers()
    except ValueError as error:
        raise UsageError(f"model '{name}' has no optimisers with these settings ({error}): see --set") from error
    if not (isinstance(found, dict) and all(isinstance(each, torch.optim.Optimizer) for each in found.values())):
        raise UsageError(f"model '{name}': optimizers() returned {type(found).__name__}, expected {{name: optimiser}}")
    return found


def _largest(data: Tensor) -> float:
    """The largest coordinate of points."""
    return float(data.abs().max()) if data.is_floating_point() else 0.0


@contextmanager
def stopping_gently(ask: Callable[..., None]) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM call `ask`: a step is ended before training stops. In threads they do as ever."""
    before: dict[signal.Signals, Any] = {}
    with suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
