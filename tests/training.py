"""Training runs that take a second: of every registered model in tiny, and of a straight line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from models import CPU, POINTS, tiny_data, tiny_model
from torch import nn

from trilemma_bench import seeding
from trilemma_bench.contracts import DataSpec, Split, Trainable
from trilemma_bench.seeding import seed_everything
from trilemma_bench.settings import TrainingSettings
from trilemma_bench.training.checkpoint import Header
from trilemma_bench.training.trainer import Place, Trainer


def tiny_trainer(
    model: Trainable, folder: Path, steps: int, resume: Path | None = None, say=str, device=CPU, **settings: Any
) -> Trainer:
    """What trains `model` on the tiny data of its shape, into `folder`. settings: of training."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = tiny_data(model.data)
    split = Split(samples, torch.arange(len(samples)) % 2 if model.data.classes else None)
    facts = {"batch_size": 16, **settings}
    facts = {"budget": f"{facts['batch_size'] * steps / 1000}kimg", **facts}
    header = Header(type(model).__name__, {}, model.data.shape, "tiny", "0", "digest", "run")
    place = Place(folder, device, resume, say, progress=False)
    return Trainer(model, split, TrainingSettings(**facts), 0, header, place)


def tiny_run(name: str, spec: DataSpec, folder: Path, steps: int = 8, **options: Any) -> Trainer:
    """Training of the registered model in tiny, whatever was drawn before. options: of `tiny_trainer`."""
    seed_everything(0)
    model = tiny_model(name, spec, seeding.stream_seed("training", 0))
    assert isinstance(model, Trainable)
    return tiny_trainer(model, folder, steps, **{"ema_decay": 0.9, **options})


class Line(Trainable):
    """y = w·z + b, drawn towards the data's mean. poison: (step, what) that becomes NaN, 'loss' or 'gradient'."""

    def __init__(self, data, poison=(-1, "")):
        super().__init__(data)
        self.network = nn.Linear(3, data.shape[0] if not data.is_image else 64)
        self.poison = poison

    def optimizers(self):
        return {"line": torch.optim.Adam(self.network.parameters(), lr=0.1)}

    def training_step(self, batch, step, optimizers):
        loss = (self.network(torch.randn(len(batch), 3)) - batch.flatten(1)).square().mean()
        optimizers["line"].zero_grad()
        loss.backward()
        if self.poison == (step, "gradient"):
            self.network.bias.grad[0] = torch.inf
        optimizers["line"].step()
        return {"loss": loss.detach() * (torch.nan if self.poison == (step, "loss") else 1.0)}

    def sample(self, count, rng):
        return self.network(torch.randn(count, 3, generator=rng)).view(count, *self.data.shape)

    def evaluations(self):
        return 1


def line_run(
    folder: Path, spec: DataSpec = POINTS, steps: int = 20, model: Line | None = None, **options: Any
) -> Trainer:
    """Training of a Line, whatever was drawn before. options: of `tiny_trainer`."""
    seed_everything(0)
    return tiny_trainer(model or Line(spec), folder, steps, **{"batch_size": 10, "ema_decay": 0.9, **options})
