"""What the benchmarks share: routes that take turns, medians of wall and CPU time, and the memory of a process."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trilemma_bench.memory import peak_memory, reset_peak_memory

CPU = torch.device("cpu")


class Timing(NamedTuple):
    """What a call gave, and its seconds of wall and of CPU time."""

    value: Any
    wall: float
    cpu: float


def scenes(count: int, side: int = 32, seed: int = 0) -> Tensor:
    """Noise on smooth colours: uint8 count×3×side×side."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    noise = torch.randn(smooth.shape, generator=rng)
    return (255 * smooth + 12 * noise).clamp(0, 255).to(torch.uint8)


def timed(call: Callable[[], Any]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Timing(value, time.perf_counter() - wall, time.process_time() - cpu)


def medians(calls: Mapping[str, Callable[[], Any]], repeats: int, warm_up: bool = True) -> dict[str, Timing]:
    """Each call's value and median seconds over `repeats` rounds of all in turn.

    In turn, so that a machine that slows down slows all; CPU time is hardly touched by other work on the machine.
    """
    if warm_up:
        timed(next(iter(calls.values())))
    rounds = [{name: timed(call) for name, call in calls.items()} for _ in range(repeats)]
    return {
        name: Timing(
            rounds[0][name].value,
            statistics.median(found[name].wall for found in rounds),
            statistics.median(found[name].cpu for found in rounds),
        )
        for name in calls
    }


def extra_memory(call: Callable[..., Any], *arguments: Any) -> int:
    """Bytes by which a fresh process grows while it runs `call(*arguments)`, above what it held before: its peak
    resident set less that at the start. `call` and its arguments must be importable and picklable.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, call, arguments))
    process.start()
    sender.close()
    grown = receiver.recv()
    process.join()
    return int(grown)


def _measured(sender: Any, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    run = call(*arguments)  # prepares the input, which is not counted, and returns what is
    reset_peak_memory(CPU)
    before = _resident()
    run()
    sender.send(peak_memory(CPU)[0] - before)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def print_table(title: str, found: Mapping[str, Timing], first: str | None = None, digits: int = 9) -> None:
    """A Markdown table: seconds, how many times those of `first` (the first row by default), and the value."""
    base = found[first or next(iter(found))]
    print(f"\n| {title} | wall s | CPU s | wall, times {first or 'the first'} | CPU, times | value |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for name, (value, wall, cpu) in found.items():
        shown = f"{value:.{digits}g}" if isinstance(value, float) else str(value)
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {wall / base.wall:.2f} | {cpu / base.cpu:.2f} | {shown} |")


def machine() -> str:
    """The machine and the libraries, in one line."""
    from trilemma_bench.environment import device_name

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return f"{device_name(device)}, torch {torch.__version__}"
