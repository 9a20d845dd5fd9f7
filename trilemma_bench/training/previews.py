"""Pictures of samples while training, from the averaged weights and always the same noise."""

from __future__ import annotations

import torch

from trilemma_bench import distributed
from trilemma_bench.contracts import Trainable
from trilemma_bench.nn.compiling import uncompiled
from trilemma_bench.precision import arithmetic
from trilemma_bench.sampling import draw_chunk
from trilemma_bench.settings import TrainingSettings
from trilemma_bench.training.ema import EMA
from trilemma_bench.training.log import TrainingLog

IMAGES, POINTS = 64, 1000
COST = 0.02  # share of the time, at most
BACKWARD = 3  # a training step costs about as much as this many evaluations
UNKNOWN_EVALUATIONS = 1000


class Previews:
    """Draws a picture when it is due, and cheap enough. largest: the largest coordinate of the data, for points."""

    def __init__(
        self,
        model: Trainable,
        ema: EMA,
        settings: TrainingSettings,
        log: TrainingLog,
        device: torch.device,
        largest: float,
    ) -> None:
        self.model, self.ema, self.settings, self.log, self.device = model, ema, settings, log, device
        self.count, self.limit = (IMAGES if model.data.is_image else POINTS), 1.15 * largest
        self._last = 0.0

    def draw_if_due(self, step: int, seconds: float, rate: float) -> None:
        """rate: training samples a second, from which the cost is known beforehand. The first process alone draws."""
        since, interval = seconds - self._last, self.settings.preview_seconds
        cost = self.count * (self.model.evaluations() or UNKNOWN_EVALUATIONS) / (BACKWARD * max(rate, 1e-9))
        if interval and since >= interval and cost <= COST * since:
            self._last = seconds
            if distributed.is_main():
                self.draw(step)

    def draw(self, step: int) -> None:
        """The picture after `step` steps; torch's random state stays as it was."""
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            exact = arithmetic("float32", self.device)
            with torch.random.fork_rng(devices), self.ema.swapped(), exact, uncompiled():
                samples = draw_chunk(self.model, self.count, 0, 0, self.device)
            self.log.picture(samples, step, self.limit)
        except Exception as error:  # an adaptive solver may fail on a network that has hardly learned
            self.log.write({"step": step, "no_picture": f"{type(error).__name__}: {error}"})
        finally:
            self.model.train()
