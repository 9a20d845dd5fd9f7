"""A model's training step as the loop does it: in its arithmetic, shared out to processes, replayed where it can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor

from trilemma_bench import distributed
from trilemma_bench.contracts import Split, Trainable
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.precision import arithmetic
from trilemma_bench.settings import TrainingSettings
from trilemma_bench.training.recorded_step import RecordedStep

GRADIENT = "gradient_"


class TrainingStep:
    """Called with a step's number and batch, it does the step and returns its losses and the norms of its gradients.

    Raises UsageError where settings.cuda_graphs is true and the model has no steps to record.
    """

    def __init__(
        self,
        model: Trainable,
        optimizers: Mapping[str, torch.optim.Optimizer],
        settings: TrainingSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.model, self.optimizers, self.settings, self.device = model, dict(optimizers), settings, device
        for name, optimizer in self.optimizers.items():
            optimizer.register_step_pre_hook(partial(self._note_gradients, name))
        self._norms: dict[str, Tensor] = {}
        self._shared = distributed.SharedStep(model, seed, device) if distributed.world() > 1 else None
        self._recorded: RecordedStep | None = None
        if settings.cuda_graphs is True and model.step_kind(0) is None:
            raise UsageError(
                "training.cuda_graphs = true: this model does not say which of its steps are alike: set it to false"
            )

    def __call__(self, step: int, batch: Split) -> dict[str, Tensor]:
        further = self._further(step, batch)
        inputs, kind = {"batch": batch.samples, **further}, self.model.step_kind(step)
        work = partial(self._update, step, tuple(further))
        if self._recorded is None or kind is None:
            return work(*inputs.values())
        return self._recorded(kind, work, inputs)

    @property
    def replayed(self) -> bool:
        """Whether steps are replayed as CUDA graphs."""
        return self._recorded is not None and self._recorded.works and self._recorded.replays > 0

    def record(self, say: Callable[[str], None]) -> None:
        """From now on steps are replayed, where that is wanted and possible; `say` is told where it is not."""
        wanted = self.settings.cuda_graphs
        if wanted and self.device.type == "cuda" and not self._shared:
            self._recorded = RecordedStep(self.optimizers.values(), self.device, wanted is True, say)

    def forget(self) -> None:
        """Gives back the memory of graphs, in which the last gradients lie."""
        self._recorded = None
        self.model.zero_grad(set_to_none=True)

    def _further(self, step: int, batch: Split) -> dict[str, Tensor]:
        """The tensors that the model's step is called with beside the batch, by name.

        What the model does before a step, such as pairing samples, it does with the global batch.
        """
        labels = {"labels": batch.labels} if self.model.wants_labels and batch.labels is not None else {}
        if type(self.model).before_step is Trainable.before_step:
            return labels
        everyones = {name: distributed.whole(values) for name, values in labels.items()}
        with arithmetic(self.settings.precision, self.device):
            made = self.model.before_step(distributed.whole(batch.samples), **everyones)
        return labels | {name: distributed.share(values) for name, values in made.items()}

    def _update(self, step: int, names: tuple[str, ...], samples: Tensor, *further: Tensor) -> dict[str, Tensor]:
        self._norms = {}
        with self._around(step):
            named = dict(zip(names, further, strict=True))
            losses = self.model.training_step(samples, step, self.optimizers, **named)
        if not isinstance(losses, dict):
            raise TrilemmaError(
                f"{type(self.model).__name__}.training_step must return its losses by name, a dict of scalar tensors, "
                f"not {type(losses).__name__}"
            )
        return losses | self._norms

    @contextmanager
    def _around(self, step: int) -> Iterator[None]:
        shared = self._shared.around(step) if self._shared else nullcontext()
        with arithmetic(self.settings.precision, self.device), shared:
            yield

    def _note_gradients(self, name: str, optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        """The norm of all its gradients together, a step's largest: not finite where one of their numbers is not."""
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            norms = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)])
            norm, before = torch.linalg.vector_norm(norms), self._norms.get(f"{GRADIENT}{name}")
            self._norms[f"{GRADIENT}{name}"] = norm if before is None else torch.maximum(norm, before)
