"""The clock: warm-up, synchronised readings, raw seconds; with them peak memory and network evaluations."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from trilemma_bench.contracts import GenerativeModel
from trilemma_bench.environment import device_name
from trilemma_bench.graphs import Replay
from trilemma_bench.memory import held_beside, held_by_other_programs, peak_memory, reset_peak_memory
from trilemma_bench.processor import ProcessorShare
from trilemma_bench.record import Speed
from trilemma_bench.sampling import check_count, drawing
from trilemma_bench.seeding import generator
from trilemma_bench.settings import SamplingSettings

SPREAD = 0.25  # seconds over which timed batches lie at least: a machine's hiccups last some milliseconds


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that was asked of it: before every reading of the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Queue:
    """Keeps the host at most `ahead` steps before a CUDA device: it never idles, and the clock is never far ahead."""

    def __init__(self, device: torch.device, ahead: int = 2) -> None:
        self._ahead, self._on_cuda = ahead, device.type == "cuda"
        self._ends: deque[torch.cuda.Event] = deque()

    def wait(self) -> None:
        """Called after each step: waits until the one `ahead` steps before it is done."""
        if not self._on_cuda:
            return
        self._ends.append(torch.cuda.Event())
        self._ends[-1].record()
        if len(self._ends) > self._ahead:
            self._ends.popleft().synchronize()


class EvaluationCounter:
    """Counts the rows that pass through a network: rows / samples is the number of function evaluations (NFE)."""

    def __init__(self) -> None:
        self.rows = 0

    @contextlib.contextmanager
    def watch(self, network: nn.Module | None) -> Iterator[EvaluationCounter]:
        if network is None:
            yield self
            return
        hook = network.register_forward_hook(self._count)
        try:
            yield self
        finally:
            hook.remove()

    def _count(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output
        assert isinstance(first, Tensor), "a network returns a tensor, or a tuple that starts with one"
        self.rows += len(first)


def measure_speed(model: GenerativeModel, settings: SamplingSettings, device: torch.device, seed: int) -> Speed:
    """Times `model.sample` alone: batches of `timing_batch`, then batches of one; peak memory of the large batches.

    Network evaluations are counted in the first batch of each size, which is not timed.
    """
    batch = settings.timing_batch
    with drawing(model, settings, device) as replay:
        others = _settled(model, batch, generator(device, "timing", seed), replay)
        reset_peak_memory(device)
        processor = ProcessorShare()
        warmup, raw, counted = _timed(model, batch, settings, generator(device, "timing", seed))
        memory, kind = peak_memory(device)
        _, latency, of_one = _timed(model, 1, settings, generator(device, "timing", seed))
        processor_share = processor.read() if device.type == "cpu" else None
        others_memory = held_by_other_programs(device)
    seconds = statistics.median(raw) / batch
    nfe, note = evaluations(model, counted)
    if counted != of_one:
        note = f"counted in a batch of {batch}; a batch of one took {of_one:g}: the sampler decides as it goes"
    return Speed(
        nfe=nfe,
        nfe_note=note,
        seconds_per_image=seconds,
        images_per_second=1 / seconds,
        latency_seconds=statistics.median(latency),
        raw_seconds=raw,
        raw_latency_seconds=latency,
        batch_size=batch,
        warmup=warmup,
        device=device_name(device),
        precision=settings.precision,
        compiled=settings.compile,
        cuda_graphs=replay is not None and replay.works,
        peak_memory_bytes=memory - others,
        peak_memory_kind=kind,
        processor_share=processor_share,
        others_memory_bytes=others_memory,
    )


def _settled(model: GenerativeModel, batch: int, rng: torch.Generator, replay: Replay | None) -> int:
    """Draws until libraries have what they keep; returns the bytes on the device that are not the model's.

    A GPU's libraries try their algorithms in a first batch, in more memory than any later one takes. What that one
    recorded, or lowered of the weights, is made again, to be counted.
    """
    _draw(model, batch if rng.device.type == "cuda" else 1, rng)
    if replay:
        replay.forget()
    torch.clear_autocast_cache()
    return held_beside(model, rng.device)


def evaluations(model: GenerativeModel, counted: float) -> tuple[float | None, str]:
    """(network evaluations a sample, a note where they were not counted): a network is evaluated at least once."""
    if model.network is None or counted:
        return counted or None, ""
    uncounted = "sampling never calls the network itself, where evaluations are counted"
    if stated := model.evaluations():
        return stated, f"as the model states it: {uncounted}"
    return None, f"{uncounted}: call it, or state them in `evaluations()`"


@torch.no_grad()
def _draw(model: GenerativeModel, count: int, rng: torch.Generator) -> Tensor:
    model.eval()
    samples = model.sample(count, rng)
    check_count(samples, count, type(model).__name__)
    return samples


def _timed(
    model: GenerativeModel, count: int, settings: SamplingSettings, rng: torch.Generator
) -> tuple[int, list[float], float]:
    """(untimed batches before, raw seconds of timed ones, network evaluations a sample in the first untimed one).

    Fewer batches for a slow model, never fewer than one and three. Those of a fast model, which would all lie within
    one hiccup of the machine, have untimed ones between them.
    """
    device, counter = rng.device, EvaluationCounter()
    with counter.watch(model.network):
        first = _seconds(lambda: _draw(model, count, rng), device)
    warmup = settings.timing_warmup if first < settings.timing_seconds / 4 else 1
    for _ in range(warmup - 1):
        _draw(model, count, rng)
    raw: list[float] = []
    begun, apart = time.perf_counter(), min(SPREAD, settings.timing_seconds) / settings.timing_repetitions
    while len(raw) < 3 or (len(raw) < settings.timing_repetitions and sum(raw) < settings.timing_seconds):
        raw.append(_seconds(lambda: _draw(model, count, rng), device))
        while time.perf_counter() < begun + apart * len(raw):
            _draw(model, count, rng)
    return warmup, raw, counter.rows / count


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start
