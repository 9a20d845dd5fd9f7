"""The training loop: where it stops, what it keeps, and that nothing besides the settings changes its result."""

from __future__ import annotations

import json
import math
import random
import signal

import numpy as np
import pytest
import torch
from models import CPU, POINTS
from training import Line, line_run

from trilemma_bench import job
from trilemma_bench.contracts import Split
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.seeding import seed_everything
from trilemma_bench.settings import TrainingSettings
from trilemma_bench.training import checkpoint
from trilemma_bench.training.checkpoint import STATE_FILE, WEIGHTS_FILE
from trilemma_bench.training.log import LOG_FILE, PREVIEW_FILE
from trilemma_bench.training.step import TrainingStep
from trilemma_bench.training.trainer import Interrupted, learning_rate


@pytest.mark.parametrize(("what", "name"), [("loss", "'loss'"), ("gradient", "'gradient_line'")])
@pytest.mark.parametrize("step", [0, 7, 19])
def test_a_number_that_is_not_finite_stops_training_with_its_step(tmp_path, what, name, step):
    """The numbers are read once in two seconds: the step is known all the same."""
    with pytest.raises(TrilemmaError, match=f"^{name} became NaN or infinite in step {step + 1}; .*is kept in"):
        line_run(tmp_path, model=Line(POINTS, (step, what))).run()
    assert not (tmp_path / WEIGHTS_FILE).exists()


def test_the_last_good_checkpoint_is_kept(tmp_path):
    """A checkpoint after every step: that of step 12 stays, and training can go on from it."""
    poisoned = line_run(tmp_path, checkpoint_seconds=1e-9)
    poisoned.model.poison = 12, "gradient"
    with pytest.raises(TrilemmaError, match="step 13;"):
        poisoned.run()
    assert checkpoint.read_header(tmp_path / WEIGHTS_FILE).steps == 12
    resumed = line_run(tmp_path / "more", resume=tmp_path)
    resumed.run()
    whole = line_run(tmp_path / "whole")
    whole.run()
    assert torch.equal(resumed.model.network.weight, whole.model.network.weight)


def test_points_are_not_flipped(tmp_path):
    with pytest.raises(UsageError, match="flip = true: points are not mirrored"):
        line_run(tmp_path, flip=True)


class Gambler(Line):
    """Draws from NumPy and from Python, too."""

    def training_step(self, batch, step, optimizers):
        return super().training_step(
            batch + np.random.randn() + np.random.rand() + random.gauss(0, 1), step, optimizers
        )


def test_the_most_that_others_held_of_the_gpu_is_kept(tmp_path, monkeypatch):
    seen = iter([None, 5, 9, 2])
    monkeypatch.setattr("trilemma_bench.training.trainer.held_by_other_programs", lambda device: next(seen))
    header = line_run(tmp_path, steps=3, checkpoint_seconds=1e-9).run()
    assert list(seen) == []
    assert header.others_memory_bytes == checkpoint.read_header(tmp_path / WEIGHTS_FILE).others_memory_bytes == 9


def test_draws_of_numpy_and_python_go_on_after_an_interruption(tmp_path):
    def gambling(folder, **options):
        seed_everything(0)
        return line_run(tmp_path / folder, model=Gambler(POINTS), **options)

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
    plain = line_run(tmp_path / "plain", preview_seconds=0)
    plain.run()
    busy = line_run(tmp_path / "busy", preview_seconds=1e-9, checkpoint_seconds=1e-9)
    busy.run()
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, busy.model.state_dict()[key])
    assert (tmp_path / "busy" / PREVIEW_FILE).is_file()
    assert not (tmp_path / "plain" / PREVIEW_FILE).exists()
    assert not (tmp_path / "busy" / STATE_FILE).exists()


def test_a_step_is_ended_before_training_stops(tmp_path):
    """Ctrl-C in the middle of a step, here in its loss, must not leave half of it in the checkpoint."""
    run = line_run(tmp_path)
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
    run = line_run(tmp_path)
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
    run = line_run(tmp_path / "compiled", compile=True, say=said.append)
    run.run()
    plain = line_run(tmp_path / "plain")
    plain.run()
    assert len(calls) == (1 if error else 22)
    assert len(said) == (1 if error else 0)
    assert run.model.state_dict().keys() == plain.model.state_dict().keys()
    assert torch.equal(run.model.network.weight, plain.model.network.weight)
    run.model.network(torch.zeros(1, 3))
    assert len(calls) == (1 if error else 22)


def test_bf16_is_used_in_the_step_and_nowhere_else(tmp_path):
    run = line_run(tmp_path, precision="bf16", steps=3)
    seen = []
    run.model.network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run.run()
    assert set(seen) == {torch.bfloat16}
    assert run.model.network.weight.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_the_learning_rate_warms_up_and_decays_to_its_share():
    settings = TrainingSettings(lr_warmup_steps=4, lr_final=0.2)
    assert [learning_rate(settings, 2.0, step, 0.0) for step in range(5)] == pytest.approx([0.5, 1, 1.5, 2, 2])
    assert learning_rate(settings, 1.0, 100, 0.5) == pytest.approx(0.6)
    assert learning_rate(settings, 1.0, 100, 1.3) == pytest.approx(0.2)
    assert learning_rate(settings, 0.01, 100, 1.0) == pytest.approx(0.002)
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


def test_every_group_of_parameters_follows_its_own_cosine(tmp_path):
    """As CosineAnnealingLR over the ten steps of the budget."""
    full, seen = [0.1, 0.02], []

    class TwoRates(Line):
        def optimizers(self):
            layer = self.network
            groups = zip((layer.weight, layer.bias), full, strict=True)
            return {"line": torch.optim.Adam([{"params": [value], "lr": rate} for value, rate in groups])}

        def training_step(self, batch, step, optimizers):
            seen.append([group["lr"] for group in optimizers["line"].param_groups])
            return super().training_step(batch, step, optimizers)

    line_run(tmp_path, steps=10, model=TwoRates(POINTS)).run()
    oracle = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in full])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(oracle, 10)
    for rates in seen:
        assert rates == pytest.approx([group["lr"] for group in oracle.param_groups])
        oracle.step()
        schedule.step()
    assert len(seen) == 10


class Numbered(Line):
    """Its loss is the number of the step."""

    def training_step(self, batch, step, optimizers):
        return super().training_step(batch, step, optimizers) | {"loss": torch.tensor(float(step))}


def a_second_each_step(run):
    run.clock.read = lambda: float(run.step)
    return run


def test_what_is_logged_kept_and_said_comes_in_its_time(tmp_path):
    """A line every 2 s with the means since the last, a checkpoint every 5 s, the cost of it all once, after 3 s."""
    said, kept = [], []
    run = a_second_each_step(
        line_run(tmp_path, steps=13, model=Numbered(POINTS), checkpoint_seconds=5, say=said.append)
    )
    save = run._save
    run._save = lambda complete: [kept.append((run.step, complete)), save(complete)]
    run.run()
    lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert [(line["step"], line["images"], line["seconds"]) for line in lines] == [
        (step, 10 * step, step) for step in (2, 4, 6, 8, 10, 12, 13)
    ]
    assert [line["loss"] for line in lines] == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12]
    assert {line["images_per_second"] for line in lines} == {10}
    assert kept == [(5, False), (10, False), (13, True)]
    assert said == ["training takes about 13 s on this device at 10 images/s, with a smaller budget less"]


def test_after_an_interruption_the_clock_goes_on_and_rates_are_of_what_is_new(tmp_path):
    first = a_second_each_step(line_run(tmp_path / "first", checkpoint_seconds=5))
    first.model.poison = 6, "loss"
    with pytest.raises(TrilemmaError, match="step 7;"):
        first.run()
    said = []
    resumed = a_second_each_step(line_run(tmp_path / "second", resume=tmp_path / "first", say=said.append))
    header = resumed.run()
    lines = [json.loads(line) for line in (tmp_path / "second" / LOG_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(7, 20, 2), 20]
    assert {line["images_per_second"] for line in lines} == {10}
    assert (header.steps, header.images, header.seconds) == (20, 200, 20)
    assert said == [f"resuming from step 5 of {tmp_path / 'first'}"]


def test_what_is_kept_and_left_in_the_model_is_the_average_of_its_weights(tmp_path):
    """Of those after each step, with a decay of 0.9 once enough steps are done."""
    run = line_run(tmp_path)
    average, trained, step = run.model.network.weight.detach().clone(), [], run.model.training_step

    def noted_step(*arguments):
        losses = step(*arguments)
        trained.append(run.model.network.weight.detach().clone())
        return losses

    run.model.training_step = noted_step
    run.run()
    for number, weight in enumerate(trained, 1):
        average = torch.lerp(average, weight, 1 - min(0.9, (1 + number) / (10 + number)))
    torch.testing.assert_close(run.model.network.weight.detach(), average)
    kept = torch.nn.Linear(3, 2)
    checkpoint.load_weights(kept, tmp_path / WEIGHTS_FILE)
    assert torch.equal(kept.weight, run.model.network.weight)
    assert not torch.allclose(trained[-1], average)


def test_the_norm_of_gradients_is_of_all_parameters_and_the_largest_in_a_step():
    """√(6·1² + 2·5) = 4, once and three and two times."""

    class Thrice(Line):
        def training_step(self, batch, step, optimizers):
            for scale in (1.0, 3.0, 2.0):
                self.network.weight.grad = torch.full((2, 3), scale)
                self.network.bias.grad = torch.full((2,), scale * math.sqrt(5))
                optimizers["line"].step()
            return {"loss": torch.zeros(())}

    model = Thrice(POINTS)
    step = TrainingStep(model, model.optimizers(), TrainingSettings(precision="float32"), 0, CPU)
    for number in range(2):
        assert float(step(number, Split(torch.zeros(4, 2)))["gradient_line"]) == pytest.approx(12)


def test_a_run_by_time_takes_that_time(tmp_path):
    run = line_run(tmp_path, budget="0.2s")
    header = run.run()
    assert header.complete
    assert 0.2 <= header.seconds < 2
    assert header.steps == run.step > 1


def test_every_kind_of_step_that_comes_soon_is_rehearsed(tmp_path, monkeypatch):
    """A generator's after five of its critic, say; one that comes late is not waited for."""
    for kinds, expected in (("a", 2), ("aaaab", 5), ("ab", 2), ("aaaaaaaaaaab", 2)):
        run = line_run(tmp_path / kinds)
        monkeypatch.setattr(run.model, "step_kind", lambda step, kinds=kinds: kinds[step % len(kinds)])
        assert run._rehearsals() == expected


def test_the_steps_of_the_warm_up_are_taken_back(tmp_path):
    plain, warm = line_run(tmp_path / "plain"), line_run(tmp_path / "warm")
    torch.manual_seed(0)
    plain.run()
    torch.manual_seed(0)
    warm._warm_up()
    assert (warm.step, warm.images, warm.ema.updates) == (0, 0, 0)
    warm.run()
    assert torch.equal(plain.model.network.weight, warm.model.network.weight)
    assert plain.step == warm.step


def test_what_never_changes_the_result_is_in_no_digest():
    def digest(**overrides):
        return job.training_digest(job.prepare(job.Options("vae", "gaussians25", device="cpu", overrides=overrides)))

    same = ({"checkpoint_seconds": 5}, {"preview_seconds": 0}, {"tensorboard": True}, {"sampling.precision": "bf16"})
    assert {digest(**each) for each in same} == {digest()}
    assert digest(**{"training.precision": "bf16"}) != digest()
