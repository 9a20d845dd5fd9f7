"""Many processes under `torchrun`: one global batch, the same weights in all, one voice.

Each process takes every n-th sample of the global batch, and inside `SharedStep` trains as if it had the whole:

- **Draws**: a random tensor whose first dimension is larger than 1 is drawn n times as long, and each process takes
  every n-th row. So noise, times and latents are those of one process whenever their number is proportional to the
  batch, whatever is concatenated or halved; draws of one row are the same for all.
- **Gradients** that a `backward` changed are averaged after it, so before the model clips them; those that another
  optimiser's step left are not sent again.
- **Buffers** that a step changed (running statistics) are averaged after it.

The weights then are those of one process but for the order of floating-point sums, if the loss is a mean over samples
and what it compares inside the batch lies together: groups of `minibatch_stddev` do when each process has a multiple of
four samples. What a model does before a step, such as optimal transport between noise and data, is done with the global
batch. Only statistically equal: dropout (each process has its own stream), permutations inside the batch, nonlinear
functions of statistics of the batch.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trilemma_bench import seeding
from trilemma_bench.errors import TrilemmaError, UsageError

T = TypeVar("T")

_BACKWARD = {Tensor.backward, torch.autograd.backward}
_BY_SIZE = {torch.randn, torch.rand, torch.randint}
_LIKE = {torch.randn_like, torch.rand_like, torch.randint_like, torch.bernoulli}
_IN_PLACE = {Tensor.normal_, Tensor.uniform_, Tensor.bernoulli_, Tensor.exponential_, Tensor.random_}
_DROPOUT = {torch.dropout, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.scaled_dot_product_attention}


def start(device: torch.device) -> None:
    """Joins the other processes that `torchrun` started; does nothing without it, or when called again."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=datetime.timedelta(days=7))  # the first process may measure for hours


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes; 1 without `torchrun`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def on_main(work: Callable[[], T]) -> T:
    """The result of `work`, done by the first process while the others wait; all get it, or its error."""
    if world() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = (
                error if isinstance(error, TrilemmaError) else TrilemmaError(f"{type(error).__name__}: {error}")
            )
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def agreed(values: Sequence[float]) -> list[float]:
    """The first process's numbers, in all of them."""
    if world() == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(numbers, src=0)
    return numbers.tolist()


def average(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its mean over the processes, in one exchange a type of number."""
    if world() == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        chosen = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.detach().flatten() for tensor in chosen])
        dist.all_reduce(flat)
        parts = flat.div_(world()).split([tensor.numel() for tensor in chosen])
        with torch.no_grad():
            for tensor, part in zip(chosen, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))


def least(values: Tensor) -> Tensor:
    """The element-wise minimum over the processes."""
    if world() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MIN)
    return values


def share(batch: Tensor) -> Tensor:
    """This process's rows of the global batch: every n-th, so that row i of every part is the same sample's."""
    return batch[rank() :: world()] if world() > 1 else batch


def whole(part: Tensor) -> Tensor:
    """The global batch of which `share` gave this process `part`, in all of them."""
    if world() == 1:
        return part
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(world())]
    dist.all_gather(parts, part.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def check_batch(size: int) -> None:
    """Raises UsageError unless the global batch can be shared out evenly, two samples a process at least."""
    if size % world() or (world() > 1 and size < 2 * world()):
        raise UsageError(f"batch_size = {size}: choose a multiple of the {world()} processes, at least twice as many")


class SharedStep(TorchFunctionMode):
    """Around a training step: what the module's text says of draws and gradients. `around` adds the buffers."""

    def __init__(self, model: nn.Module, seed: int, device: torch.device) -> None:
        super().__init__()
        self.model, self.seed = model, seed
        on_cuda = device.type == "cuda"
        self._generator = torch.cuda.default_generators[device.index or 0] if on_cuda else torch.default_generator
        self._own = self._generator.get_state()

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """The training step number `step`."""
        own = seeding.generator(self._generator.device, "dropout", self.seed, step, rank())
        self._own = own.get_state()
        before = {name: buffer._version for name, buffer in self.model.named_buffers()}
        with self:
            yield
        changed = [
            buffer
            for name, buffer in self.model.named_buffers()
            if buffer.is_floating_point() and buffer._version != before.get(name)
        ]
        average(changed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _BACKWARD:
            before = self._gradients()
            func(*args, **kwargs)
            average([gradient for gradient, version in self._gradients().items() if before.get(gradient) != version])
            return None
        if func in _DROPOUT:
            return self._with_own_stream(func, args, kwargs)
        if func in _BY_SIZE:
            return _draw_by_size(func, args, kwargs)
        if func in _LIKE and len(args[0].shape) and len(args[0]) > 1:
            return _rows(func(_widened(args[0]), *args[1:], **kwargs))
        if func in _IN_PLACE and len(args[0].shape) and len(args[0]) > 1:
            return args[0].copy_(_rows(func(_widened(args[0]), *args[1:], **kwargs)))
        return func(*args, **kwargs)

    def _gradients(self) -> dict[Tensor, int]:
        """Those that there are, and how often each was changed in place."""
        gradients = (parameter.grad for parameter in self.model.parameters())
        return {gradient: gradient._version for gradient in gradients if gradient is not None}

    def _with_own_stream(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        shared = self._generator.get_state()
        self._generator.set_state(self._own)
        try:
            return func(*args, **kwargs)
        finally:
            self._own = self._generator.get_state()
            self._generator.set_state(shared)


def _draw_by_size(func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """randn(*size), randn(size), randint(low, high, size), size=…: of the global batch, then this process's rows."""
    if "size" in kwargs:
        leading, size = args, kwargs["size"]
    elif isinstance(args[-1], (tuple, list)):
        leading, size = args[:-1], args[-1]
    else:
        leading, size = (), args
    if not len(size) or size[0] <= 1:
        return func(*args, **kwargs)
    return _rows(func(*leading, **{**kwargs, "size": (size[0] * world(), *size[1:])}))


def _widened(x: Tensor) -> Tensor:
    """x (N×…) with every row repeated for every process, in the same memory format."""
    channels_last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    wide = x.detach().repeat_interleave(world(), dim=0)
    return wide.contiguous(memory_format=torch.channels_last) if channels_last else wide


def _rows(wide: Tensor) -> Tensor:
    return share(wide).clone()
