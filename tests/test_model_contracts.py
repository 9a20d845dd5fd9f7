"""What every registered model must do, outside plugins too: these tests run over the whole registry."""

from __future__ import annotations

import signal

import pytest
import torch
from models import IMAGES, POINTS, tiny_data, tiny_model

from trilemma_bench import registry, seeding
from trilemma_bench.checkpoint import Header, load_state, load_weights, read_header, save_state, save_weights
from trilemma_bench.config import TrainingSettings
from trilemma_bench.contracts import FiniteSource, Trainable
from trilemma_bench.images import to_float
from trilemma_bench.sampling import draw_samples
from trilemma_bench.seeding import seed_everything
from trilemma_bench.timing import EvaluationCounter
from trilemma_bench.training import Interrupted, Place, Trainer

NAMES = registry.models.names()
TRAINABLE = [name for name in NAMES if issubclass(registry.models.get(name), Trainable)]
SPECS = {"points": POINTS, "images": IMAGES}
CPU = torch.device("cpu")


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


def draw(model, count=6, chunk_size=4):
    return draw_samples(model, count, 0, chunk_size=chunk_size, device=CPU, progress=False)


def trainer(name, spec, folder, kimg=0.32, resume=None, data=None):
    seed_everything(0)
    model = tiny_model(name, spec, seeding.stream_seed("training", 0))
    settings = TrainingSettings(batch_size=16, budget=f"{kimg}kimg", ema_decay=0.9)
    header = Header(name, {}, spec.shape, "tiny", "0", "digest", "run")
    place = Place(folder, CPU, resume, say=lambda text: None, progress=False)
    return Trainer(model, tiny_data(spec) if data is None else data, settings, 0, header, place)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_datas_shape_type_and_repeat(name, spec):
    model = tiny_model(name, spec)
    samples = draw(model)
    assert samples.shape == (6, *spec.shape)
    assert samples.dtype == (torch.uint8 if spec.is_image else torch.float32)
    assert torch.equal(samples, draw(model))


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_depend_on_the_global_random_state_nor_change_it(name, spec):
    model = tiny_model(name, spec)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = draw(model)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, draw(model))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_chunks_are_those_of_a_shorter_draw(name, spec):
    model = tiny_model(name, spec)
    assert torch.equal(draw(model, 8)[:4], draw(model, 4))


@pytest.mark.parametrize("name", TRAINABLE)
def test_samples_of_a_trained_model_are_nearer_to_the_data(name, spec, tmp_path):
    """The mean distance of a sample to its nearest neighbour in the data falls: coarse, but no model may miss it."""
    run = trainer(name, spec, tmp_path, kimg=4)
    data = to_float(tiny_data(spec))
    before = distance(run.model, data)
    run.run()
    assert distance(run.model, data) < before


def distance(model, data):
    samples = to_float(draw(model, 256, 256))
    return float(torch.cdist(samples.flatten(1), data.flatten(1)).min(dim=1).values.mean())


@pytest.mark.parametrize("name", TRAINABLE)
def test_training_resumed_after_ctrl_c_is_bit_identical(name, spec, tmp_path, monkeypatch):
    whole = trainer(name, spec, make(tmp_path / "whole"))
    whole.run()
    interrupted = trainer(name, spec, make(tmp_path / "first"))
    step = interrupted._step

    def stop_at_seven(progress):
        step(progress)
        if interrupted.step == 7:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(interrupted, "_step", stop_at_seven)
    with pytest.raises(Interrupted, match="after 7 steps"):
        interrupted.run()
    resumed = trainer(name, spec, make(tmp_path / "second"), resume=tmp_path / "first")
    resumed.run()
    assert resumed.step == whole.step == 20
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


@pytest.mark.parametrize("name", TRAINABLE)
def test_exported_weights_reload_and_sample_alike(name, spec, tmp_path):
    model = tiny_model(name, spec)
    path = tmp_path / "weights.safetensors"
    save_weights(model.network, Header(name, {}, spec.shape, "tiny", "0", "digest", "run"), path)
    other = tiny_model(name, spec, seed=1)
    load_weights(other.network, path)
    assert torch.equal(draw(model), draw(other))
    assert read_header(path).model == name


@pytest.mark.parametrize("name", TRAINABLE)
def test_network_evaluations_are_counted(name, spec):
    model = tiny_model(name, spec)
    counter = EvaluationCounter()
    with counter.watch(model.network):
        draw(model, count=6)
    stated = model.evaluations()
    assert counter.rows >= 6 if stated is None else counter.rows == 6 * stated


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_training_state_is_readable_without_running_code(name, spec, tmp_path):
    run = trainer(name, spec, tmp_path)
    save_state(run._state(), tmp_path / "state.pt")
    assert set(load_state(tmp_path / "state.pt")) == {"model", "ema", "ema_updates", "optimizers", "rng", "position"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TRAINABLE])
def test_what_is_not_trained_is_a_finite_source_drawn_without_replacement(name, spec):
    model = tiny_model(name, spec)
    assert isinstance(model, FiniteSource)
    drawn, data = draw(model, 64), tiny_data(spec)
    assert torch.equal(drawn.flatten(1).double().sum(0), data.flatten(1).double().sum(0))


def make(folder):
    folder.mkdir()
    return folder
