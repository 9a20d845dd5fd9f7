"""What a model may return as samples, and what is said of it when it returns something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from inputs import fails
from models import IMAGES, POINTS

import trilemma_bench as tb
from trilemma_bench import timing
from trilemma_bench.contracts import GenerativeModel
from trilemma_bench.images import to_float
from trilemma_bench.memory import held_by_other_programs, peak_memory, reset_peak_memory
from trilemma_bench.sampling import Outside, draw_samples
from trilemma_bench.settings import SamplingSettings
from trilemma_bench.timing import EvaluationCounter, Queue, measure_speed

CPU = torch.device("cpu")
QUICK = SamplingSettings(timing_batch=4, timing_repetitions=3, timing_seconds=0.01)


class Returns(GenerativeModel):
    """Returns what the function makes of the number asked for."""

    def __init__(self, make, data=IMAGES):
        super().__init__(data)
        self.make = make

    def sample(self, count, rng):
        return self.make(count)


def draw(model, count=10, **options):
    return draw_samples(model, count, 0, chunk_size=4, device=CPU, progress=False, **options)


class Backwards(Returns):
    """Draws through a method of its network, which hooks do not see."""

    def __init__(self, stated=None):
        super().__init__(pictures)
        self.network, self.stated = torch.nn.Linear(1, 1), stated

    def evaluations(self):
        return self.stated


def pictures(count, low=-1.0, high=1.0):
    """Images of evenly spread values."""
    return torch.linspace(low, high, count * 64).reshape(count, *IMAGES.shape)


@pytest.mark.parametrize(
    ("model", "nfe", "note"),
    [
        (Returns(lambda count: pictures(count)), None, ""),
        (Backwards(stated=3), 3, "as the model states it"),
        (Backwards(), None, "state them in `evaluations()`"),
        (Backwards(stated=0), None, "state them in `evaluations()`"),
    ],
)
def test_evaluations_that_cannot_be_counted_are_never_0(model, nfe, note):
    speed = measure_speed(model, QUICK, CPU, 0)
    assert speed.nfe == nfe
    assert note in speed.nfe_note
    assert bool(note) == bool(speed.nfe_note)


class Adaptive(Returns):
    """As a solver that chooses its steps for the whole batch: each further sample takes one more."""

    def __init__(self):
        super().__init__(pictures)
        self.network = torch.nn.Linear(1, 1)

    def sample(self, count, rng):
        for _ in range(2 + count):
            self.network(torch.zeros(count, 1))
        return pictures(count)


def test_evaluations_of_a_batch_are_counted_in_the_batches_that_are_timed():
    speed = measure_speed(Adaptive(), QUICK, CPU, 0)
    assert speed.nfe == 6
    assert speed.nfe_note == "counted in a batch of 4; a batch of one took 3: the sampler decides as it goes"


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize("use", [draw, lambda model: measure_speed(model, QUICK, CPU, 0)])
def test_another_number_of_samples_is_refused_in_scores_and_in_times(use, more):
    with fails("Returns returned", "samples were asked for"):
        use(Returns(lambda count: pictures(count + more)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda count: pictures(count).numpy(), ["returned ndarray", "expected a tensor"]),
        (lambda count: torch.tensor(0.5), ["returned one number where 4"]),
        (lambda count: pictures(count)[:, 0], ["shape (8, 8)", "expected (1, 8, 8)"]),
        (lambda count: pictures(count, 0, 255).long(), ["int64", "float in [−1, 1] or uint8"]),
        (lambda count: pictures(count) > 0, ["bool"]),
        (lambda count: pictures(count) / 0, ["NaN or infinite"]),
        (lambda count: pictures(count, 0, 255), ["images of 0…255", "float in [−1, 1] or uint8"]),
        (lambda count: pictures(count, 0, 16), ["images of 0…16"]),
    ],
)
def test_what_are_no_images_is_refused_with_the_models_name(make, words):
    with fails("Returns returned", *words):
        draw(Returns(make))


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.complex64])
def test_points_are_floats(kind):
    with fails("Returns returned", "expected points as float"):
        draw(Returns(lambda count: torch.zeros(count, 2, dtype=kind), POINTS))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_points_may_lie_anywhere_and_become_float32(kind):
    far = torch.full((10, 2), 300.0)
    assert torch.equal(draw(Returns(lambda count: far[:count].to(kind), POINTS)), far)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_any_precision_are_images(kind):
    levels = (torch.arange(4 * 64) % 256).to(torch.uint8).reshape(4, *IMAGES.shape)
    drawn = draw(Returns(lambda count: to_float(levels).to(kind)), 4)
    assert drawn.dtype == torch.uint8
    assert int((drawn.int() - levels.int()).abs().max()) <= (0 if kind.itemsize > 2 else 1)


def test_a_network_without_a_bound_is_measured_and_what_is_cut_off_is_noted():
    """Evenly spread in ±2: 45 % is beyond 1.1."""
    outside = Outside()
    draw(Returns(lambda count: pictures(count, -2, 2)), outside=outside)
    assert outside.values == 640
    assert outside.note.startswith("45 % of the values")


@pytest.mark.parametrize("largest", [1.1, 1.0])
def test_a_little_overshoot_is_not_worth_a_note(largest):
    outside = Outside()
    draw(Returns(lambda count: pictures(count, -largest, largest)), outside=outside)
    assert outside.note == ""


def test_the_record_has_the_note_and_it_is_said(tmp_path):
    class Loud(GenerativeModel):
        def sample(self, count, rng):
            return pictures(count, -2, 2)

    tb.register_model("loud")(Loud)
    said: list[str] = []
    settings = {"timing_repetitions": 3, "timing_seconds": 0.01}
    options = {"settings": settings, "out": tmp_path, "device": "cpu", "progress": False}
    record = tb.run(model="loud", dataset="digits", say=said.append, **options)
    assert record.samples_note.startswith("45 % of the values")
    assert any(record.samples_note in line for line in said)


def test_whole_levels_need_no_range():
    outside = Outside()
    draw(Returns(lambda count: torch.full((count, *IMAGES.shape), 255, dtype=torch.uint8)), outside=outside)
    assert outside.note == ""


@pytest.mark.parametrize(("seconds", "warmup"), [(1e-9, 1), (60.0, 3)])
def test_the_warm_up_that_is_recorded_was_done(seconds, warmup, monkeypatch):
    """A model too slow for the time is warmed up once."""
    monkeypatch.setattr(timing, "SPREAD", 0.0)
    drawn = []
    model = Returns(lambda count: drawn.append(count) or pictures(count))
    settings = SamplingSettings(timing_batch=4, timing_repetitions=3, timing_warmup=3, timing_seconds=seconds)
    assert measure_speed(model, settings, CPU, 0).warmup == warmup
    assert drawn.count(4) == warmup + 3


@pytest.mark.parametrize(("milliseconds", "untimed"), [(0.25, True), (100.0, False)])
def test_timed_batches_of_a_fast_model_are_spread_over_a_quarter_of_a_second(milliseconds, untimed, monkeypatch):
    """A hiccup of 30 ms, in which all batches of the fast one would have fitted, then moves no median."""
    now, drawn = [0.0], []

    def pass_time(count):
        slow = 3.0 if 0.05 < now[0] < 0.08 else 1.0
        now[0] += slow * milliseconds / 1000
        drawn.append(count)
        return pictures(count)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    speed = measure_speed(Returns(pass_time), SamplingSettings(timing_batch=4), CPU, 0)
    assert len(speed.raw_seconds) == 20
    assert 4 * speed.seconds_per_image == pytest.approx(milliseconds / 1000)
    assert speed.latency_seconds == pytest.approx(milliseconds / 1000)
    assert (drawn.count(4) > speed.warmup + 20) == untimed
    assert not untimed or now[0] > 0.5


@pytest.mark.parametrize(("seconds", "batches"), [(0.05, 20), (0.25, 10), (0.625, 4), (1.0, 3), (15.0, 3)])
def test_batches_are_timed_for_ten_seconds_and_three_of_them_at_least(seconds, batches, monkeypatch):
    """Of a model that takes so many seconds an image, drawn four at a time."""
    now = [0.0]

    def pass_time(count):
        now[0] += seconds * count
        return pictures(count)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    speed = measure_speed(Returns(pass_time), SamplingSettings(timing_batch=4), CPU, 0)
    assert speed.raw_seconds == pytest.approx([4 * seconds] * batches)
    assert speed.raw_latency_seconds == pytest.approx([seconds] * len(speed.raw_latency_seconds))
    assert (speed.seconds_per_image, speed.images_per_second) == pytest.approx((seconds, 1 / seconds))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a peak can be started anew on Linux only")
def test_the_peak_of_a_processs_memory_is_in_bytes_and_starts_anew():
    reset_peak_memory(CPU)
    before, kind = peak_memory(CPU)
    torch.ones(2**28, dtype=torch.uint8)
    after, _ = peak_memory(CPU)
    assert kind == "resident set of the process"
    assert after - before == pytest.approx(2**28, rel=0.1)
    speed = measure_speed(Returns(pictures), QUICK, CPU, 0)
    assert speed.peak_memory_bytes < after - 2**27


def test_a_row_of_a_network_is_an_evaluation_whatever_else_it_returns():
    class Pair(torch.nn.Module):
        def forward(self, x):
            return x, "more"

    for network in (torch.nn.Identity(), Pair()):
        with EvaluationCounter().watch(network) as counter:
            network(torch.zeros(3, 1))
            network(torch.zeros(4, 1))
        network(torch.zeros(5, 1))
        assert counter.rows == 7


def test_the_host_is_never_more_than_two_steps_ahead(monkeypatch):
    done = []

    class Event:
        def record(self):
            self.step = step

        def synchronize(self):
            done.append(self.step)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    queue = Queue(torch.device("cuda"))
    for step in range(6):
        queue.wait()
        assert done == list(range(step - 1))
    Queue(CPU).wait()
    assert len(done) == 4


@pytest.mark.parametrize(("free", "held"), [(40, 0), (59, 0), (32, 7), (0, 39)])
def test_what_is_neither_free_nor_ours_is_held_by_other_programs(free, held, monkeypatch):
    """Of 60 GiB this process has 20 in tensors, and up to 1 beside them."""
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * gib, 60 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 20 * gib)
    assert held_by_other_programs(torch.device("cuda")) == held * gib
    assert held_by_other_programs(CPU) is None


def test_points_that_float32_cannot_hold_are_no_samples():
    far = torch.tensor([[1e300, 0.0]], dtype=torch.float64)
    with fails("returned NaN or infinite samples"):
        draw(Returns(lambda count: far.expand(count, 2), POINTS))
