"""The training loop: what it checks, leaves behind and never changes."""

from __future__ import annotations

import json
import random
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import CPU, IMAGES, POINTS, tiny_data, tiny_trainer
from torch import nn

from trilemma_bench import config, precision
from trilemma_bench.config import SamplingSettings, Settings, TrainingSettings
from trilemma_bench.contracts import Split, Trainable
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.seeding import seed_everything
from trilemma_bench.training import batches, checkpoint
from trilemma_bench.training.batches import Batches
from trilemma_bench.training.checkpoint import STATE_FILE, WEIGHTS_FILE
from trilemma_bench.training.clock import Clock, human_rate, human_time
from trilemma_bench.training.ema import EMA
from trilemma_bench.training.log import LOG_FILE, PREVIEW_FILE, TENSORBOARD_FOLDER
from trilemma_bench.training.trainer import Interrupted, learning_rate


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


def trainer(folder, spec=POINTS, steps=20, model=None, **options):
    seed_everything(0)
    return tiny_trainer(model or Line(spec), folder, steps, **{"batch_size": 10, "ema_decay": 0.9, **options})


def lines(folder):
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


@pytest.fixture
def impatient(monkeypatch):
    """A log line, and what follows it, after every step."""
    monkeypatch.setattr("trilemma_bench.training.trainer.LOG_SECONDS", 0.0)


@pytest.mark.parametrize(("what", "name"), [("loss", "'loss'"), ("gradient", "'gradient_line'")])
@pytest.mark.parametrize("step", [0, 7, 19])
def test_a_number_that_is_not_finite_stops_training_with_its_step(tmp_path, what, name, step):
    """The numbers are read once in two seconds: the step is known all the same."""
    with pytest.raises(TrilemmaError, match=f"^{name} became NaN or infinite in step {step + 1}; .*is kept in"):
        trainer(tmp_path, model=Line(POINTS, (step, what))).run()
    assert not (tmp_path / WEIGHTS_FILE).exists()


def test_the_last_good_checkpoint_is_kept(tmp_path):
    """A checkpoint after every step: that of step 12 stays, and training can go on from it."""
    poisoned = trainer(tmp_path, checkpoint_seconds=1e-9)
    poisoned.model.poison = 12, "gradient"
    with pytest.raises(TrilemmaError, match="step 13;"):
        poisoned.run()
    assert checkpoint.read_header(tmp_path / WEIGHTS_FILE).steps == 12
    resumed = trainer(tmp_path / "more", resume=tmp_path)
    resumed.run()
    whole = trainer(tmp_path / "whole")
    whole.run()
    assert torch.equal(resumed.model.network.weight, whole.model.network.weight)


class Gambler(Line):
    """Draws from NumPy and from Python, too."""

    def training_step(self, batch, step, optimizers):
        return super().training_step(
            batch + np.random.randn() + np.random.rand() + random.gauss(0, 1), step, optimizers
        )


def test_draws_of_numpy_and_python_go_on_after_an_interruption(tmp_path):
    def gambling(folder, **options):
        seed_everything(0)
        return trainer(tmp_path / folder, model=Gambler(POINTS), **options)

    whole, first = gambling("whole"), gambling("first", checkpoint_seconds=1e-9)
    seed_everything(0)
    whole.run()
    first.model.poison = 12, "gradient"
    seed_everything(0)
    with pytest.raises(TrilemmaError, match="step 13;"):
        first.run()
    seed_everything(1)
    resumed = gambling("resumed", resume=tmp_path / "first")
    resumed.run()
    assert torch.equal(resumed.model.network.weight, whole.model.network.weight)
    assert torch.equal(resumed.model.network.bias, whole.model.network.bias)


def test_checkpoints_and_pictures_never_change_the_result(tmp_path, impatient, monkeypatch):
    monkeypatch.setattr("trilemma_bench.training.previews.COST", 1e9)
    plain = trainer(tmp_path / "plain", preview_seconds=0)
    plain.run()
    busy = trainer(tmp_path / "busy", preview_seconds=1e-9, checkpoint_seconds=1e-9)
    busy.run()
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, busy.model.state_dict()[key])
    assert (tmp_path / "busy" / PREVIEW_FILE).is_file()
    assert not (tmp_path / "plain" / PREVIEW_FILE).exists()
    assert not (tmp_path / "busy" / STATE_FILE).exists()


def test_a_picture_shows_the_averaged_weights_with_the_same_noise(tmp_path):
    run = trainer(tmp_path, IMAGES)
    with torch.no_grad():
        run.ema.network.weight.fill_(0)
        run.ema.network.bias.fill_(1)
    shown = []
    run.log.picture = lambda samples, step, limit: shown.append(samples)
    before = run.model.network.weight.clone()
    run.previews.draw(1)
    run.previews.draw(2)
    assert torch.equal(shown[0], torch.full((64, 1, 8, 8), 255, dtype=torch.uint8))
    assert torch.equal(shown[0], shown[1])
    assert torch.equal(run.model.network.weight, before)
    assert run.model.training


def test_a_picture_that_would_cost_too_much_waits(tmp_path):
    """64 images with 1 evaluation cost 64/3 training images: 2.1 s at 10 images/s, due after 107 s."""
    run = trainer(tmp_path, IMAGES, preview_seconds=60)
    drawn = []
    run.previews.draw = drawn.append
    for step, seconds in enumerate([59, 61, 106, 107, 150, 214]):
        run.previews.draw_if_due(step, seconds, rate=10.0)
    assert drawn == [3, 5]


def test_a_sampler_that_fails_early_does_not_stop_training(tmp_path, impatient, monkeypatch):
    monkeypatch.setattr("trilemma_bench.training.previews.COST", 1e9)
    model = Line(POINTS)
    model.sample = lambda count, rng: torch.full((count, 2), torch.nan)
    trainer(tmp_path, model=model, preview_seconds=1e-9).run()
    assert any("no_picture" in line for line in lines(tmp_path))


def test_the_log_has_means_and_images_a_second(tmp_path, impatient):
    run = trainer(tmp_path, steps=5)
    run.run()
    written = lines(tmp_path)
    assert [line["step"] for line in written] == [1, 2, 3, 4, 5]
    assert set(written[0]) == {"step", "images", "seconds", "images_per_second", "loss", "gradient_line"}
    assert all(line["images_per_second"] > 0 for line in written)


def test_tensorboard_gets_losses_and_pictures(tmp_path, impatient, monkeypatch):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr("trilemma_bench.training.previews.COST", 1e9)
    trainer(tmp_path, IMAGES, steps=5, preview_seconds=1e-9, tensorboard=True).run()
    events = reader.EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER), {"images": 0}).Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([line["loss"] for line in lines(tmp_path)])
    assert len(events.Images("samples")) == 5


def test_tensorboard_that_is_not_installed_is_asked_for_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'trilemma-bench\[tensorboard\]'"):
        trainer(tmp_path, tensorboard=True)


def test_a_step_is_ended_before_training_stops(tmp_path):
    """Ctrl-C in the middle of a step, here in its loss, must not leave half of it in the checkpoint."""
    run = trainer(tmp_path)
    step = run.model.training_step

    def interrupted_step(*arguments):
        if run.step == 4:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    run.model.training_step = interrupted_step
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="after 5 steps"):
        run.run()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert checkpoint.load_state(tmp_path / STATE_FILE)["position"][:2] == [5, 50]


def test_asking_twice_stops_at_once(tmp_path):
    run = trainer(tmp_path)
    run.model.training_step = lambda *arguments: [signal.raise_signal(signal.SIGINT) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert not (tmp_path / STATE_FILE).exists()


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_compile_leaves_names_and_falls_back_where_it_fails(tmp_path, monkeypatch, error):
    """The compiler is replaced: what is tested is what the loop makes of it."""
    calls, said = [], []

    def compile_(call, *arguments, **options):
        def compiled(*inputs):
            calls.append(len(inputs[0]))
            if error:
                raise error("no compiler on this machine")
            return call(*inputs)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    run = trainer(tmp_path / "compiled", compile=True, say=said.append)
    run.run()
    plain = trainer(tmp_path / "plain")
    plain.run()
    assert len(calls) == (1 if error else 22)
    assert len(said) == (1 if error else 0)
    assert run.model.state_dict().keys() == plain.model.state_dict().keys()
    assert torch.equal(run.model.network.weight, plain.model.network.weight)
    run.model.network(torch.zeros(1, 3))
    assert len(calls) == (1 if error else 22)


def test_bf16_is_used_in_the_step_and_nowhere_else(tmp_path):
    run = trainer(tmp_path, precision="bf16", steps=3)
    seen = []
    run.model.network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run.run()
    assert set(seen) == {torch.bfloat16}
    assert run.model.network.weight.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_arithmetic_leaves_the_flags_as_they_were():
    def flags():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark

    before = flags()
    with precision.arithmetic("float32", CPU):
        assert flags()[:2] == ("highest", False)
    with precision.arithmetic("bf16", CPU):
        assert flags()[:2] == ("high", True)
    assert flags() == before


@pytest.mark.parametrize(("able", "training_precision"), [(True, "bf16"), (False, "float32")])
def test_auto_is_decided_by_the_device_before_anything_is_recorded(monkeypatch, able, training_precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    settings = Settings({}, TrainingSettings(), SamplingSettings())
    assert settings.training.precision == "auto"
    assert settings.on(torch.device("cuda"), is_image=True).training.precision == training_precision
    assert settings.on(torch.device("cuda"), is_image=False).training.precision == "float32"
    assert settings.on(CPU, is_image=True).training.precision == "float32"
    assert not settings.on(CPU, is_image=True).training.compile
    chosen = Settings({}, TrainingSettings(precision="bf16"), SamplingSettings(precision="auto")).on(CPU, is_image=True)
    assert (chosen.training.precision, chosen.sampling.precision) == ("bf16", "float32")


@pytest.mark.parametrize(("budget", "compiled"), [("5m", False), ("30m", True), ("100kimg", True)])
def test_only_long_training_on_a_gpu_is_worth_compiling(budget, compiled):
    settings = Settings({}, TrainingSettings(budget=budget, precision="float32"), SamplingSettings())
    assert settings.on(torch.device("cuda"), is_image=True).training.compile is compiled
    assert settings.on(CPU, is_image=True).training.compile is False


def test_what_never_changes_the_result_is_in_no_digest():
    from trilemma_bench import job

    def digest(**overrides):
        return job.training_digest(job.prepare(job.Options("vae", "gaussians25", device="cpu", overrides=overrides)))

    same = ({"checkpoint_seconds": 5}, {"preview_seconds": 0}, {"tensorboard": True}, {"sampling.precision": "bf16"})
    assert {digest(**each) for each in same} == {digest()}
    assert digest(**{"training.precision": "bf16"}) != digest()


def test_data_that_takes_too_much_of_the_gpu_stays_on_the_host(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 10_000))
    assert batches.fits(400, torch.device("cuda"))
    assert not batches.fits(401, torch.device("cuda"))
    assert batches.fits(10**15, CPU)


def test_an_epoch_shows_every_sample_once_wherever_it_starts():
    data = torch.arange(30).float()[:, None]
    stream = Batches(Split(data), TrainingSettings(batch_size=7), 0, CPU)
    seen = torch.cat([stream.at(position).samples for position in range(0, 63, 7)]).flatten()
    assert seen[:30].sort().values.tolist() == seen[30:60].sort().values.tolist() == list(range(30))
    assert seen[:30].tolist() != seen[30:60].tolist()
    assert stream.at(28).samples.flatten().tolist() == seen[28:35].tolist()


def test_flips_are_of_half_the_images_and_along_the_width():
    data = tiny_data(IMAGES, 400)
    plain = Batches(Split(data), TrainingSettings(batch_size=400), 0, CPU).at(0).samples
    flipped = Batches(Split(data), TrainingSettings(batch_size=400, flip=True), 0, CPU).at(0).samples
    same = (plain == flipped).flatten(1).all(1)
    assert torch.equal(plain[~same].flip(-1), flipped[~same])
    assert 150 < int(same.sum()) < 250


def test_the_average_of_weights_is_the_recursion_and_copies_buffers():
    network = nn.BatchNorm1d(2)
    average = EMA(network, 0.9)
    expected = network.weight.detach().clone()
    for update in range(1, 5):
        with torch.no_grad():
            network.weight += 1
            network.running_mean += 1
        average.update()
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    torch.testing.assert_close(average.network.weight, expected, check_stride=False)
    assert average.network.running_mean.tolist() == [4, 4]
    with average.swapped():
        torch.testing.assert_close(network.weight.detach(), expected)
    assert network.weight.tolist() == [5, 5]


def test_the_learning_rate_warms_up_and_decays_to_its_share():
    settings = TrainingSettings(lr_warmup_steps=4, lr_final=0.2)
    assert [learning_rate(settings, 2.0, step, 0.0) for step in range(5)] == pytest.approx([0.5, 1, 1.5, 2, 2])
    assert learning_rate(settings, 1.0, 100, 0.5) == pytest.approx(0.6)
    assert learning_rate(settings, 1.0, 100, 1.3) == pytest.approx(0.2)
    constant = TrainingSettings(lr_schedule="constant")
    assert learning_rate(constant, 1.0, 100, 0.9) == 1


def test_all_learning_rates_decay_to_the_same_floor():
    """As CosineAnnealingLR's eta_min, to which DDGAN's generator and discriminator both go."""
    for full in (1.6e-4, 1e-4):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=full)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=1e-5)
        for step in range(11):
            here = learning_rate(TrainingSettings(lr_floor=1e-5), full, 0, step / 10)
            assert here == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
            optimizer.step()
            schedule.step()
    assert learning_rate(TrainingSettings(lr_floor=1.0), 0.1, 0, 0.7) == 0.1


def test_a_time_budget_ends_and_the_clock_stands_still_for_pictures(monkeypatch):
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr("trilemma_bench.training.clock.time.perf_counter", lambda: now.value)
    clock = Clock()
    clock.start(5.0)
    now.value += 2
    assert clock.read() == 7
    with clock.stopped():
        now.value += 50
    now.value += 1
    assert clock.read() == 8


def test_a_run_by_time_takes_that_time(tmp_path):
    run = trainer(tmp_path, budget="0.2s")
    header = run.run()
    assert header.complete
    assert 0.2 <= header.seconds < 2
    assert header.steps == run.step > 1


def test_times_and_rates_are_said_as_people_do():
    said = [human_time(seconds) for seconds in (45, 720, 41 * 3600, 6 * 86400)]
    assert said == ["45 s", "12 min", "41 h", "6 days"]
    assert [human_rate(rate) for rate in (1234.4, 10, 9.96, 0.042)] == ["1,234", "10", "10", "0.042"]


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision"):
        config.TrainingSettings(precision="float16")


def test_the_steps_of_the_warm_up_are_taken_back(tmp_path):
    plain, warm = trainer(tmp_path / "plain"), trainer(tmp_path / "warm")
    torch.manual_seed(0)
    plain.run()
    torch.manual_seed(0)
    warm._warm_up()
    assert (warm.step, warm.images, warm.ema.updates) == (0, 0, 0)
    warm.run()
    assert torch.equal(plain.model.network.weight, warm.model.network.weight)
    assert plain.step == warm.step
