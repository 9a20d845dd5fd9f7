"""Training steps that are recorded and replayed, as far as a CPU can tell: graphs are replaced by work done again."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from models import IMAGES, tiny_model
from recording import FakeGraphs, RefusingGraphs, no_waits
from test_model_contracts import CPU, SPECS, TRAINABLE, trainer

from trilemma_bench import recorded_step
from trilemma_bench.contracts import DataSpec, Trainable
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.recorded_step import RecordedStep

STEPS = 24  # each kind of step is rehearsed twice, recorded and replayed


@pytest.fixture
def graphs(monkeypatch):
    """Lets a test choose what stands in for CUDA graphs."""

    def install(stand_in=FakeGraphs, waits=no_waits):
        monkeypatch.setattr(recorded_step, "Graphs", stand_in)
        monkeypatch.setattr(recorded_step, "noticing_waits", waits)

    install()
    return install


def recording(run, must=False, say=lambda text: None):
    """Makes this training run record its steps, as it would on CUDA."""
    recorded = RecordedStep(run.optimizers.values(), CPU, must, say)
    run._recording = lambda: recorded
    return recorded


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", TRAINABLE)
def test_a_model_whose_steps_are_replayed_learns_the_same(name, spec, tmp_path, graphs):
    """So a model's `step_kind` tells steps apart that do different work, with learning rates that change."""
    settings = {"lr_warmup_steps": 6, "flip": spec.is_image, "steps": STEPS}
    plain = trainer(name, spec, tmp_path / "plain", **settings)
    plain.run()
    replayed = trainer(name, spec, tmp_path / "replayed", **settings)
    recorded = recording(replayed)
    replayed.run()
    kinds = {replayed.model.step_kind(step) for step in range(STEPS)} - {None}
    assert set(recorded._graphs.recorded) == kinds
    assert recorded.works
    for key, value in plain.model.state_dict().items():
        assert torch.allclose(value, replayed.model.state_dict()[key], rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize("name", TRAINABLE)
def test_all_kinds_of_a_models_steps_come_early(name):
    """A kind that is met too seldom is never replayed: a lazy penalty is due every 16 steps or so."""
    model = tiny_model(name, IMAGES)
    assert {model.step_kind(step) for step in range(32)} == {model.step_kind(step) for step in range(200)}


class Counting(Trainable):
    """A model that says which of its steps are alike, and is wrong about it if told so."""

    def __init__(self, data, kinds=2):
        super().__init__(data)
        self.network, self.kinds = torch.nn.Linear(2, 2), kinds

    def optimizers(self):
        return {"network": torch.optim.SGD(self.network.parameters(), lr=0.1)}

    def step_kind(self, step):
        return step % self.kinds

    def training_step(self, batch, step, optimizers):
        loss = self.network(batch).square().mean() * (1 + step % 2)
        optimizers["network"].zero_grad()
        loss.backward()
        optimizers["network"].step()
        return {"loss": loss.detach()}

    def sample(self, count, rng):
        raise NotImplementedError


def steps_of(model, count, must=False, say=lambda text: None):
    """The losses of `count` steps, replayed where they can be."""
    optimizers = model.optimizers()
    recorded, batch = RecordedStep(optimizers.values(), CPU, must, say), torch.ones(4, 2)
    losses = []
    for step in range(count):
        work = partial(model.training_step, step=step, optimizers=optimizers)
        losses.append(float(recorded(model.step_kind(step), work, [batch])["loss"]))
    return losses, recorded


def plain_losses(count):
    torch.manual_seed(0)
    model = Counting(DataSpec((2,)))
    optimizers = model.optimizers()
    return [float(model.training_step(torch.ones(4, 2), step, optimizers)["loss"]) for step in range(count)]


def counting(kinds=2):
    torch.manual_seed(0)
    return Counting(DataSpec((2,)), kinds)


def test_each_kind_is_done_twice_then_replayed(graphs):
    losses, recorded = steps_of(counting(), 10)
    assert losses == pytest.approx(plain_losses(10), rel=1e-6)
    assert recorded._graphs.replays == [0, 1, 0, 1, 0, 1]


def test_a_model_that_takes_different_steps_for_alike_is_found_out_by_the_contract(graphs):
    """The stand-in for graphs shows what a real one would do: the third step again and again."""
    losses, _ = steps_of(counting(kinds=1), 10)
    assert losses != pytest.approx(plain_losses(10), rel=1e-2)


def test_a_step_that_waits_for_the_device_is_never_recorded(graphs):
    graphs(waits=lambda: nullcontext(["called a synchronizing CUDA operation"]))
    said = []
    losses, recorded = steps_of(counting(), 10, say=said.append)
    assert losses == plain_losses(10)
    assert not recorded.works
    assert said == ["training steps are not replayed as CUDA graphs here (it waits for the device)"]


def test_training_goes_on_where_a_step_cannot_be_recorded(graphs):
    graphs(RefusingGraphs)
    said = []
    losses, recorded = steps_of(counting(), 10, say=said.append)
    assert losses == plain_losses(10)
    assert not recorded.works
    assert said == [f"training steps are not replayed as CUDA graphs here ({RefusingGraphs.refusal})"]


def test_what_was_asked_for_and_does_not_work_is_an_error(graphs):
    graphs(RefusingGraphs)
    with pytest.raises(TrilemmaError, match=r"training.cuda_graphs = true: .*capturing.* set it to false"):
        steps_of(counting(), 10, must=True)


def test_learning_rates_are_the_optimisers_own_again_after_recording(graphs):
    model = counting()
    optimizer = model.optimizers()["network"]
    groups = optimizer.param_groups
    before = [dict(group) for group in groups]
    rates = [torch.zeros(())]
    with recorded_step.recordable(groups, rates):
        assert groups[0]["lr"] is rates[0]
        assert groups[0]["capturable"]
    assert [dict(group) for group in groups] == before


def test_asking_for_what_a_model_cannot_do_is_an_error(tmp_path, graphs):
    run = trainer("vae", IMAGES, tmp_path, cuda_graphs=True)
    run.model.step_kind = lambda step: None
    run.place = type(run.place)(run.place.folder, torch.device("cuda"), say=print)
    with pytest.raises(UsageError, match=r"cuda_graphs = true: model 'vae'.* set it to false"):
        run._recording()


def test_on_the_cpu_nothing_is_recorded(tmp_path):
    assert trainer("vae", IMAGES, tmp_path, cuda_graphs=True)._recording() is None
