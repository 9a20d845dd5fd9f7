"""What every registered model must do, outside plugins too: these tests run over the whole registry."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Literal, get_origin

import pytest
import torch
from functorch.compile import make_boxed_func
from models import CPU, IMAGES, SPECS, TRAINABLE, tiny_data, tiny_model, tiny_settings, wake
from torch._dynamo.backends.common import aot_autograd
from training import tiny_run

from trilemma_bench import registry
from trilemma_bench.config import model_schema
from trilemma_bench.contracts import Count, DataSpec, FiniteSource, Momentum
from trilemma_bench.images import to_float
from trilemma_bench.job import Options, prepare
from trilemma_bench.model_check import check_model
from trilemma_bench.sampling import draw_chunk, draw_samples, drawing
from trilemma_bench.settings import SamplingSettings
from trilemma_bench.timing import EvaluationCounter
from trilemma_bench.training.checkpoint import load_state, save_state

NAMES = registry.models.names()
DISCRIMINATOR_LOSS = {"ddgan": "loss_d", "siddm": "loss_d", "gan": "discriminator", "stylegan2": "discriminator"}


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


def draw(model, count=6, chunk_size=4):
    return draw_samples(model, count, 0, chunk_size=chunk_size, device=CPU, progress=False)


@pytest.mark.parametrize("dataset", ["gaussians25", "digits"])
@pytest.mark.parametrize("name", NAMES)
def test_every_check_of_check_model_holds(name, dataset):
    """Interrupted before a lazy penalty, within the warm-up and the decay of the learning rate, flips included."""
    trained = {"flip": dataset == "digits", "lr_warmup_steps": 3} if name in TRAINABLE else {}
    found = checked(name, dataset, trained)
    assert found == dict.fromkeys(found, "")
    assert len(found) == (5 if name in TRAINABLE else 1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ddgan", {"class_conditional": True}),
        ("ddgan", {"prediction": "one-shot"}),
        ("ddpm", {"class_conditional": True, "guidance": 1.0, "dropout": 0.3}),
        ("edm", {"augment": 0.5}),
        ("gan", {"loss": "wgan-gp"}),
        ("gan", {"loss": "relativistic", "class_conditional": True}),
        ("stylegan2", {"augment": "ada", "ada_kimg": 0.1}),
        ("stylegan2", {"augment": "diffaugment", "class_conditional": True, "truncation": 0.7}),
    ],
)
def test_every_check_holds_with_settings_that_draw_or_keep_more(name, settings):
    found = checked(name, "digits", settings)
    assert found == dict.fromkeys(found, "")


def checked(name, dataset, settings):
    overrides = tiny_settings(registry.models.get(name)) | settings
    return dict(check_model(prepare(Options(name, dataset, overrides=overrides, device="cpu"))))


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_does_not_depend_on_those_before_it(name, spec):
    """So samples are the same after an interruption, and from any number of processes."""
    model = wake(tiny_model(name, spec))
    drawn = draw(model, 8)
    assert not torch.equal(drawn[:4], drawn[4:])
    assert torch.equal(drawn[:4], draw(model, 4))
    if not isinstance(model, FiniteSource):
        assert torch.equal(drawn[4:], draw_chunk(model, 4, 0, 1, CPU))


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 32, 32), (1, 64, 64)], ids=str)
@pytest.mark.parametrize("name", TRAINABLE)
def test_images_of_every_size_are_drawn(name, shape):
    assert draw(tiny_model(name, DataSpec(shape)), 3).shape == (3, *shape)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_annotated_keywords_with_defaults(name):
    known = (int, float, bool, tuple[Count, ...], Count | None, Momentum | None)
    for setting in model_schema(registry.models.get(name)).model_fields.values():
        assert setting.annotation in known or get_origin(setting.annotation) is Literal
        assert not setting.is_required()


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_step_changes_the_network_and_returns_losses_that_carry_no_gradient(name, spec):
    model = tiny_model(name, spec)
    before = [each.clone() for each in model.network.parameters()]
    losses = model.training_step(to_float(tiny_data(spec, 16)), 0, model.optimizers())
    assert losses
    for loss in losses.values():
        assert loss.ndim == 0
        assert loss.isfinite()
        assert not loss.requires_grad
    assert not all(map(torch.equal, before, model.network.parameters()))
    assert all(each.requires_grad for each in model.parameters())


@pytest.mark.parametrize("name", TRAINABLE)
def test_all_that_is_compiled_is_called_in_training(name, spec):
    """What a step calls otherwise than by its forward would run as it is."""
    model, called = tiny_model(name, spec), set()
    for part in model.compiled_parts():
        part.register_forward_pre_hook(lambda part, _: called.add(part))
    optimizers = model.optimizers()
    for step in range(2):
        model.training_step(to_float(tiny_data(spec, 16)), step, optimizers)
    assert called == set(model.compiled_parts()) != set()


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_trained_model_has_a_lower_loss_and_samples_nearer_to_the_data(name, spec, tmp_path):
    """The mean distance of a sample to its nearest neighbour in the data falls: coarse, but no model may miss it.

    Of the losses one falls at least, as an adaptive weight keeps its own in place; those of a generator and a
    discriminator, which move against each other, say nothing here.
    """
    run = tiny_run(name, spec, tmp_path, steps=300 if spec.is_image else 250)
    before, losses = distance(run.model, spec), recorded_losses(run)
    run.run()
    assert name in DISCRIMINATOR_LOSS or any(fmean(each[-10:]) < fmean(each[:10]) for each in losses.values())
    assert distance(run.model, spec) < before


@pytest.mark.parametrize("name", DISCRIMINATOR_LOSS)
def test_a_discriminator_learns_to_tell_the_samples_of_a_generator_that_does_not_move(name, spec, tmp_path):
    run = tiny_run(name, spec, tmp_path, steps=80)
    run.rates["generator"] = [0.0]
    still, losses = [value.clone() for value in run.model.network.parameters()], recorded_losses(run)
    run.run()
    assert all(map(torch.equal, still, run.model.network.parameters()))
    loss = losses[DISCRIMINATOR_LOSS[name]]
    assert fmean(loss[-10:]) < 0.9 * fmean(loss[:10])


def recorded_losses(run):
    """The losses of each step to come, by name."""
    losses, step = defaultdict(list), run.model.training_step

    def training_step(*arguments, **further):
        result = step(*arguments, **further)
        for name, loss in result.items():
            losses[name].append(float(loss))
        return result

    run.model.training_step = training_step
    return losses


def distance(model, spec):
    samples, data = to_float(draw(model, 64, 64)), to_float(tiny_data(spec))
    return float(torch.cdist(samples.flatten(1), data.flatten(1)).min(dim=1).values.mean())


@pytest.mark.parametrize("name", TRAINABLE)
def test_bf16_is_close_to_float32(name, spec, tmp_path):
    """Losses of one step and samples, from the same weights and draws; weights stay float32."""
    losses, samples = {}, {}
    for precision in ("float32", "bf16"):
        run = tiny_run(name, spec, tmp_path / precision, steps=1, precision=precision)
        wake(run.model)
        with drawing(run.model, SamplingSettings(precision=precision), CPU):
            samples[precision] = to_float(draw(run.model, 16, 16))
        losses[precision] = recorded_losses(run)
        run.run()
        assert {value.dtype for value in run.model.parameters()} == {torch.float32}
    exact, rough = losses["float32"], losses["bf16"]
    assert exact != rough
    for name, (loss,) in exact.items():
        assert rough[name][0] == pytest.approx(loss, rel=0.03, abs=0.01), name
    difference = (samples["bf16"] - samples["float32"]).abs().mean()
    assert difference < 0.1 * samples["float32"].std()


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_compiled_model_trains_as_an_uncompiled_one(name, tmp_path, monkeypatch):
    """With lazy penalties and second derivatives inside; the compiler traces as ever, but generates no code."""
    weights, said, traced = {}, [], []

    def uncoded(graph, inputs):
        traced.append(graph)
        return make_boxed_func(graph.forward)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=aot_autograd(fw_compiler=uncoded)))
    for compiled in (False, True):
        run = tiny_run(name, IMAGES, tmp_path / str(compiled), steps=4, compile=compiled)
        for network in run.model.compiled_parts():
            network.apply(without_dropout)
        run.place = replace(run.place, say=said.append)
        run.run()
        weights[compiled] = dict(run.model.named_parameters())
        assert bool(traced) == compiled
    assert not said
    for key, value in weights[False].items():
        assert torch.allclose(value, weights[True][key], rtol=0, atol=2e-4), key


def without_dropout(module):
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0


@pytest.mark.parametrize("name", TRAINABLE)
def test_network_evaluations_are_counted_not_stated_alone(name, spec):
    model, counter = tiny_model(name, spec), EvaluationCounter()
    with counter.watch(model.network):
        draw(model, count=6)
    assert counter.rows >= 6


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_training_state_is_readable_without_running_code(name, spec, tmp_path):
    run = tiny_run(name, spec, tmp_path)
    save_state(run._state(), tmp_path / "state.pt")
    assert set(load_state(tmp_path / "state.pt")) == {"model", "ema", "ema_updates", "optimizers", "rng", "position"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TRAINABLE])
def test_what_is_not_trained_is_a_finite_source_drawn_without_replacement(name, spec):
    model = tiny_model(name, spec)
    assert isinstance(model, FiniteSource)
    drawn, data = draw(model, 64), tiny_data(spec)
    assert torch.equal(drawn.flatten(1).double().sum(0), data.flatten(1).double().sum(0))
