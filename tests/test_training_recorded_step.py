"""Training steps that are recorded and replayed, as far as a CPU can tell: graphs are replaced by work done again."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from models import CPU, IMAGES, SPECS, TRAINABLE, tiny_model
from recording import FakeGraphs, RefusingGraphs, no_waits
from training import tiny_run

from trilemma_bench.contracts import DataSpec, Trainable
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.seeding import seed_everything
from trilemma_bench.training import recorded_step
from trilemma_bench.training.recorded_step import MOST, RecordedStep

STEPS = 24  # each kind of step is rehearsed twice, recorded and replayed


@pytest.fixture
def graphs(monkeypatch):
    """Lets a test choose what stands in for CUDA graphs."""

    def install(stand_in=FakeGraphs, waits=no_waits):
        monkeypatch.setattr(recorded_step, "Graphs", stand_in)
        monkeypatch.setattr(recorded_step, "noticing_waits", waits)

    install()
    return install


def recording(run, monkeypatch):
    """Makes this training run record its steps, as it would on CUDA."""
    recorded = RecordedStep(run.optimizers.values(), CPU, must=True, say=pytest.fail)
    monkeypatch.setattr(run.training_step, "record", lambda say: setattr(run.training_step, "_recorded", recorded))
    monkeypatch.setattr(run.training_step, "forget", lambda: None)
    monkeypatch.setattr(FakeGraphs, "owner", run.model)
    return recorded


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", TRAINABLE)
def test_a_model_whose_steps_are_replayed_learns_the_same(name, spec, tmp_path, graphs, monkeypatch):
    """So a model's `step_kind` tells steps apart that do different work, and what Python keeps does not matter.

    Learning rates are read where the recording reads them, in float32; they change from step to step. Adam's ε is
    large, so that it does not blow their rounding up.
    """
    settings = {"lr_warmup_steps": 6, "flip": spec.is_image, "steps": STEPS}
    plain, replayed = (tiny_run(name, spec, tmp_path / each, **settings) for each in ("plain", "replayed"))
    for optimizer in [*plain.optimizers.values(), *replayed.optimizers.values()]:
        for group in optimizer.param_groups:
            group["eps"] = 1e-4
    seed_everything(0)
    plain.run()
    recorded = recording(replayed, monkeypatch)
    seed_everything(0)
    header = replayed.run()
    kinds = {replayed.model.step_kind(step) for step in range(STEPS)} - {None}
    assert {kind for kind, *_ in recorded._graphs.recorded} == kinds
    assert header.cuda_graphs == bool(kinds)
    for key, value in plain.model.state_dict().items():
        assert torch.allclose(value, replayed.model.state_dict()[key], rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize("name", TRAINABLE)
def test_all_kinds_of_a_models_steps_come_early(name):
    """A kind that is met too seldom is never replayed: a lazy penalty is due every 16 steps or so."""
    model = tiny_model(name, IMAGES)
    assert {model.step_kind(step) for step in range(32)} == {model.step_kind(step) for step in range(200)}


class Counting(Trainable):
    """A model that says which of its steps are alike, and is wrong about it if told so. keeps: a count of its own."""

    def __init__(self, data, kinds=2, keeps=False, fused=True):
        super().__init__(data)
        self.network, self.kinds, self.keeps, self.fused, self.count = torch.nn.Linear(2, 2), kinds, keeps, fused, 0

    def optimizers(self):
        return {"network": torch.optim.SGD(self.network.parameters(), lr=0.1, fused=self.fused)}

    def step_kind(self, step):
        return step % self.kinds

    def training_step(self, batch, step, optimizers, **further):
        self.count += self.keeps
        loss = self.network(batch).square().mean() * (1 + step % 2 + self.count)
        optimizers["network"].zero_grad()
        loss.backward()
        optimizers["network"].step()
        return {"loss": loss.detach()} | {name: value.mean() for name, value in further.items()}

    def sample(self, count, rng):
        raise NotImplementedError


def counting(**settings):
    torch.manual_seed(0)
    return Counting(DataSpec((2,)), **settings)


def steps_of(model, count, must=False, say=lambda text: None, rates=lambda step: 0.1):
    """The losses of `count` steps, replayed where they can be."""
    optimizers = model.optimizers()
    recorded, batch = RecordedStep(optimizers.values(), CPU, must, say), torch.ones(4, 2)
    losses = []
    for step in range(count):
        optimizers["network"].param_groups[0]["lr"] = rates(step)
        work = partial(model.training_step, step=step, optimizers=optimizers)
        losses.append(float(recorded(model.step_kind(step), work, {"batch": batch})["loss"]))
    return losses, recorded


def plain_losses(count, rates=lambda step: 0.1, **settings):
    model, losses = counting(**settings), []
    optimizers = model.optimizers()
    for step in range(count):
        optimizers["network"].param_groups[0]["lr"] = rates(step)
        losses.append(float(model.training_step(torch.ones(4, 2), step, optimizers)["loss"]))
    return losses


def test_each_kind_is_done_twice_then_replayed(graphs):
    losses, recorded = steps_of(counting(), 10)
    assert losses == pytest.approx(plain_losses(10), rel=1e-6)
    assert [kind for kind, *_ in recorded._graphs.replays] == [0, 1, 0, 1, 0, 1]
    assert recorded.replays == 6


def test_replayed_steps_follow_the_learning_rate(graphs):
    def rates(step):
        return 0.1 / (1 + step)

    losses, recorded = steps_of(counting(), 10, rates=rates)
    assert losses == pytest.approx(plain_losses(10, rates), rel=1e-5)
    assert [float(rate) for rate in recorded._rates] == pytest.approx([rates(9)])


@pytest.mark.parametrize("wrong", [{"kinds": 1}, {"keeps": True}])
def test_a_model_that_is_wrong_about_its_steps_is_found_out_by_the_contract(wrong, graphs, monkeypatch):
    """The stand-in for graphs shows what a real one would do: the recorded step, again and again."""
    model = counting(**wrong)
    monkeypatch.setattr(FakeGraphs, "owner", model)
    losses, _ = steps_of(model, 10)
    assert losses != pytest.approx(plain_losses(10, **wrong), rel=1e-2)


def test_inputs_of_other_names_shapes_or_types_are_another_kind(graphs):
    model = counting(kinds=1)
    optimizers = model.optimizers()
    recorded, batch = RecordedStep(optimizers.values(), CPU, True, pytest.fail), torch.ones(4, 2)
    a, b = torch.ones(()), torch.zeros(())
    for further in [{"a": a, "b": b}] * 4 + [{"b": b, "a": a}] * 4 + [{"a": a.double(), "b": b}] * 4:

        def work(batch, *values, names=tuple(further)):
            return model.training_step(batch, 0, optimizers, **dict(zip(names, values, strict=True)))

        found = recorded(0, work, {"batch": batch, **further})
        assert (float(found["a"]), float(found["b"])) == (1, 0)
    assert len(recorded._graphs) == 3


def test_only_so_many_kinds_are_recorded(graphs):
    losses, recorded = steps_of(counting(kinds=2 * MOST), 8 * MOST)
    assert len(recorded._graphs) == MOST
    assert recorded.works
    assert losses == pytest.approx(plain_losses(8 * MOST), rel=1e-5, abs=1e-9)


def test_a_step_that_waits_for_the_device_is_never_recorded(graphs):
    graphs(waits=lambda: nullcontext(["augment.py, line 7"]))
    said = []
    losses, recorded = steps_of(counting(), 10, say=said.append)
    assert losses == plain_losses(10)
    assert not recorded.works
    assert said == [
        "training steps are not replayed as CUDA graphs here (it waits for the device in augment.py, line 7)"
    ]


def test_an_optimiser_that_keeps_numbers_on_the_host_is_never_recorded(graphs):
    said = []
    losses, recorded = steps_of(counting(fused=False), 10, say=said.append)
    assert losses == plain_losses(10, fused=False)
    assert not recorded.works
    assert "neither fused nor capturable" in said[0]


def test_training_goes_on_where_a_step_cannot_be_recorded(graphs):
    graphs(RefusingGraphs)
    said = []
    losses, recorded = steps_of(counting(), 10, say=said.append)
    assert losses == plain_losses(10)
    assert not recorded.works
    assert said == [f"training steps are not replayed as CUDA graphs here ({RefusingGraphs.refusal})"]


def test_gradients_of_a_recording_that_failed_are_not_kept(graphs):
    class Leaving(RefusingGraphs):
        def record(self, kind, work, inputs):
            model.network.weight.grad = torch.full((2, 2), torch.nan)
            super().record(kind, work, inputs)

    graphs(Leaving)
    model = counting()
    losses, _ = steps_of(model, 5)
    recorded = RecordedStep(model.optimizers().values(), CPU, False, lambda text: None)
    before = model.network.weight.grad
    recorded._waits[0] = []
    recorded._try_to_record(0, lambda: {}, [])
    assert model.network.weight.grad is before
    assert losses == plain_losses(5)


def test_what_was_asked_for_and_does_not_work_is_an_error(graphs):
    graphs(RefusingGraphs)
    with pytest.raises(TrilemmaError, match=r"training.cuda_graphs = true: .*capturing.* set it to false"):
        steps_of(counting(), 10, must=True)


def test_a_gpu_too_small_for_recorded_and_plain_steps_says_what_to_do(graphs):
    class Small(FakeGraphs):
        def rehearse(self, work, inputs):
            if len(self):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().rehearse(work, inputs)

    graphs(Small)
    model = counting(kinds=1)
    optimizers = model.optimizers()
    recorded = RecordedStep(optimizers.values(), CPU, False, pytest.fail)
    work = partial(model.training_step, step=0, optimizers=optimizers)
    for _ in range(3):
        recorded("first", work, {"batch": torch.ones(4, 2)})
    with pytest.raises(TrilemmaError, match=r"set training\.cuda_graphs = false"):
        recorded("second", work, {"batch": torch.ones(4, 2)})


def test_learning_rates_are_the_optimisers_own_again_after_recording(graphs):
    optimizer = counting().optimizers()["network"]
    groups = optimizer.param_groups
    before = [dict(group) for group in groups]
    rates = [torch.zeros(())]
    with recorded_step.recordable(groups, rates):
        assert groups[0]["lr"] is rates[0]
        assert groups[0]["capturable"]
    assert [dict(group) for group in groups] == before


def test_asking_for_what_a_model_cannot_do_is_an_error_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("baselines.vae.VAE.step_kind", lambda self, step: None)
    with pytest.raises(UsageError, match=r"cuda_graphs = true: this model .* set it to false"):
        tiny_run("vae", IMAGES, tmp_path, cuda_graphs=True)


def test_on_the_cpu_nothing_is_recorded(tmp_path):
    run = tiny_run("vae", IMAGES, tmp_path, cuda_graphs=True)
    assert not run.run().cuda_graphs
