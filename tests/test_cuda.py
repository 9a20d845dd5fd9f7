"""What only a GPU can tell: that replayed steps and networks compute what others do, and that failing is harmless."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
from models import IMAGES, POINTS, TRAINABLE, tiny_settings, wake
from training import tiny_trainer

from trilemma_bench import registry
from trilemma_bench.errors import TrilemmaError
from trilemma_bench.graphs import CannotRecordError, Graphs, noticing_waits
from trilemma_bench.memory import held_by_other_programs
from trilemma_bench.sampling import draw_samples, drawing
from trilemma_bench.seeding import seed_everything
from trilemma_bench.settings import SamplingSettings
from trilemma_bench.timing import measure_speed
from trilemma_bench.training.checkpoint import WEIGHTS_FILE, read_header
from trilemma_bench.training.trainer import Interrupted, Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")
STEPS = 24
LABELLED = replace(IMAGES, classes=2)
VARIANTS = [
    ("ddgan", POINTS, {}),
    ("ddgan", LABELLED, {"class_conditional": True}),
    ("ddpm", LABELLED, {"class_conditional": True}),
    ("stylegan2", LABELLED, {"class_conditional": True}),
    ("stylegan2", IMAGES, {"augment": "ada", "ada_kimg": 0.2, "r1_interval": 2}),
    ("stylegan2", IMAGES, {"augment": "diffaugment"}),
    ("edm", IMAGES, {"augment": 0.5}),
    ("meanflow", IMAGES, {"augment": 0.5}),
    ("gan", IMAGES, {"loss": "wgan-gp", "critic_steps": 3}),
    ("gan", IMAGES, {"loss": "relativistic"}),
]


def complain(text):
    assert "not replayed" not in text, text
    assert "does not work" not in text, text


def built(name, spec, **settings):
    model_class = registry.models.get(name)
    torch.manual_seed(0)
    model = wake(model_class(spec, **tiny_settings(model_class) | settings)).to(CUDA)
    return model.to(memory_format=torch.channels_last) if spec.is_image else model


def trained(name, folder, spec=IMAGES, settings=None, **training):
    """A run of STEPS steps, and what replays them.

    Adam's ε is so large that rounding is not blown up: with 1e-4, noise of 1e-7 in the operands of its products moves a
    GAN's weights by more than the tolerance in one training of ten, as a penalty's gradient jumps where a ReLU tips.
    """
    model = built(name, spec, **(settings or {}))
    seed_everything(0)
    facts = {"lr_warmup_steps": 6, "precision": "float32", "flip": spec.is_image} | training
    run = tiny_trainer(model, folder, STEPS, say=complain, device=CUDA, **facts)
    for optimizer in run.optimizers.values():
        for group in optimizer.param_groups:
            group["eps"] = 1e-2
    recorded, forget = [], run.training_step.forget
    run.training_step.forget = lambda: (recorded.append(run.training_step._recorded), forget())
    header = run.run()
    assert header.cuda_graphs == (recorded[0] is not None and recorded[0].replays > 0)
    return run, recorded[0]


def assert_equal(one, other, atol=5e-4):
    for key, value in one.model.state_dict().items():
        assert torch.allclose(value, other.model.state_dict()[key], rtol=1e-3, atol=atol), key


@pytest.mark.parametrize(("name", "spec", "settings"), [*((name, IMAGES, {}) for name in TRAINABLE), *VARIANTS])
def test_replayed_steps_learn_the_same(name, spec, settings, tmp_path):
    plain, none = trained(name, tmp_path / "plain", spec, settings, cuda_graphs=False)
    replayed, recorded = trained(name, tmp_path / "replayed", spec, settings)
    assert none is None
    kinds = {plain.model.step_kind(step) for step in range(STEPS)} - {None}
    assert {kind for kind, *_ in recorded._graphs._recorded} == kinds
    assert recorded.works
    assert_equal(plain, replayed)


@pytest.mark.parametrize("name", TRAINABLE)
def test_replayed_steps_in_bf16_are_finite(name, tmp_path):
    run, recorded = trained(name, tmp_path / "run", precision="bf16")
    assert recorded.works
    assert all(bool(value.isfinite().all()) for value in run.model.state_dict().values() if value.is_floating_point())


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_compiled_steps_are_replayed_and_learn_the_same(name, tmp_path):
    plain, _ = trained(name, tmp_path / "plain", cuda_graphs=False)
    compiled, recorded = trained(name, tmp_path / "compiled", compile=True)
    assert recorded.replays > 0
    assert_equal(plain, compiled, atol=2e-3)


def test_pictures_and_checkpoints_between_replays_change_nothing(tmp_path, monkeypatch):
    plain, _ = trained("ddgan", tmp_path / "plain")
    step = Trainer._step

    def disturbed(run, progress):
        step(run, progress)
        if run.step in (12, 20):
            run.previews.draw(run.step)
            run._save(complete=False)

    monkeypatch.setattr(Trainer, "_step", disturbed)
    watched, recorded = trained("ddgan", tmp_path / "watched")
    assert recorded.replays > 0
    assert (tmp_path / "watched" / "training-samples.png").exists()
    assert_equal(plain, watched)


@pytest.mark.parametrize(
    ("name", "settings"), [("ddgan", {}), ("edm", {"augment": 0.5}), ("stylegan2", {"augment": "ada", "ada_kimg": 0.2})]
)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(name, settings, tmp_path, monkeypatch):
    """After half of its steps, of which the last ones were replayed, as those after it are."""
    whole, _ = trained(name, tmp_path / "whole", settings=settings)
    step = Trainer._step

    def stopping(run, progress):
        step(run, progress)
        run._stop = run.step == STEPS // 2

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", stopping)
        with pytest.raises(Interrupted, match=f"after {STEPS // 2} steps"):
            trained(name, tmp_path / "first", settings=settings)
    resumed, recorded = trained(name, tmp_path / "resumed", settings=settings, resume=tmp_path / "first")
    assert recorded.replays > 0
    assert resumed.step == STEPS
    assert_equal(whole, resumed)


def test_a_replayed_step_that_is_not_finite_stops_training_and_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    whole, _ = trained("ddgan", tmp_path / "whole")
    step = Trainer._step

    def poisoned(run, progress):
        if run.step == 12:
            next(run.model.network.parameters()).data.fill_(torch.nan)
        step(run, progress)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", poisoned)
        with pytest.raises(TrilemmaError, match=r"became NaN or infinite in step 13; .*is kept in"):
            trained("ddgan", tmp_path / "bad", checkpoint_seconds=1e-9)
    header = read_header(tmp_path / "bad" / WEIGHTS_FILE)
    assert (header.steps, header.cuda_graphs) == (12, True)
    assert_equal(whole, trained("ddgan", tmp_path / "more", resume=tmp_path / "bad")[0])


@pytest.mark.parametrize(("name", "spec", "settings"), [*((name, IMAGES, {}) for name in TRAINABLE), *VARIANTS[:4]])
def test_replayed_samples_are_those_of_the_plain_network(name, spec, settings):
    model, samples = built(name, spec, **settings), []
    for graphs in (False, True):
        with drawing(model, SamplingSettings(cuda_graphs=graphs), CUDA):
            samples.append(draw_samples(model, 6, 0, chunk_size=4, device=CUDA, progress=False))
    assert torch.equal(*samples)


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_compiled_samples_are_those_of_the_plain_network(name):
    """But for the rounding of float32, which moves a value over the edge between two levels here and there."""
    model, samples = built(name, IMAGES), []
    for facts in ({"cuda_graphs": False}, {"cuda_graphs": False, "compile": True}, {"compile": True}):
        with drawing(model, SamplingSettings(**facts), CUDA) as replay:
            samples.append(draw_samples(model, 64, 0, chunk_size=64, device=CUDA, progress=False).int())
        assert (replay is not None) == ("cuda_graphs" not in facts)
        assert replay is None or (replay.works and replay._graphs)
    plain, *compiled = samples
    assert plain.unique().numel() > 16
    for each in compiled:
        assert (each - plain).abs().max() <= 1
        assert (each != plain).float().mean() < 0.01


@pytest.mark.parametrize("graphs", [False, True])
def test_peak_memory_is_the_models(graphs):
    """However much lies there of others, and whether algorithms for such a batch were tried before: none were here."""
    batch = 6 + graphs
    settings = SamplingSettings(cuda_graphs=graphs, timing_batch=batch, timing_seconds=0.1, timing_repetitions=3)
    model = built("ddgan", IMAGES)
    alone = measure_speed(model, settings, CUDA, 0).peak_memory_bytes
    others = torch.empty(2**28, dtype=torch.uint8, device=CUDA)
    assert measure_speed(model, settings, CUDA, 0).peak_memory_bytes == pytest.approx(alone, rel=0.2)
    assert alone > sum(parameter.nbytes for parameter in model.parameters())
    del others


def test_what_this_process_holds_is_not_taken_for_another_programs():
    """Others may come and go between two readings, but not always."""
    changes = []
    for _ in range(5):
        before = held_by_other_programs(CUDA)
        mine = torch.empty(2**31, dtype=torch.uint8, device=CUDA)
        changes.append(abs(held_by_other_programs(CUDA) - before))
        del mine
        torch.cuda.empty_cache()
    assert min(changes) < 2**30


def test_what_is_collected_while_a_model_samples_is_not_taken_off_its_peak(monkeypatch):
    """A training that has just ended is such garbage."""
    settings = SamplingSettings(cuda_graphs=False, timing_batch=4, timing_seconds=0.1, timing_repetitions=3)
    model = built("ddgan", IMAGES)
    alone, sample = measure_speed(model, settings, CUDA, 0).peak_memory_bytes, model.sample
    cycle: list[object] = [torch.empty(2**28, dtype=torch.uint8, device=CUDA)]
    cycle.append(cycle)
    del cycle
    draws: list[int] = []

    def collecting(count, rng):
        draws.append(count)
        if len(draws) > 1:  # the first is not measured
            gc.collect()
        return sample(count, rng)

    monkeypatch.setattr(model, "sample", collecting)
    assert measure_speed(model, settings, CUDA, 0).peak_memory_bytes == pytest.approx(alone, rel=0.2)


def drawn(x):
    return {"sum": x + torch.randn(x.shape, device=CUDA)}


def waiting(x):
    return {"sum": x + float(x.sum()) + torch.randn(x.shape, device=CUDA)}


def interrupted(x):
    raise KeyboardInterrupt


def test_recorded_draws_are_those_of_the_same_seed():
    x, graphs = torch.zeros(1000, device=CUDA), Graphs()
    graphs.rehearse(drawn, [x])
    torch.manual_seed(0)
    expected = [drawn(x)["sum"] for _ in range(3)]
    torch.manual_seed(0)
    graphs.record("kind", drawn, [x])
    for each in expected:
        assert torch.equal(graphs.replay("kind", [x])["sum"], each)


def test_what_waits_for_the_device_is_noticed_with_its_place():
    x, graphs = torch.zeros(1000, device=CUDA), Graphs()
    for work, places in ((drawn, 0), (waiting, 1)):
        graphs.rehearse(work, [x])
        with noticing_waits() as waits:
            graphs.rehearse(work, [x])
        assert len(waits) == places
        assert all(place.startswith("test_cuda.py, line") for place in waits)


@pytest.mark.parametrize(("work", "error"), [(waiting, CannotRecordError), (interrupted, KeyboardInterrupt)])
def test_a_recording_that_fails_leaves_torch_as_it_was(work, error):
    x, graphs = torch.zeros(1000, device=CUDA), Graphs()
    stream = torch.cuda.current_stream()
    graphs.record("good", drawn, [x])
    with pytest.raises(error):
        graphs.record("bad", work, [x])
    assert torch.cuda.current_stream() == stream
    assert "bad" not in graphs
    torch.manual_seed(0)
    expected = drawn(x)["sum"]
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    assert torch.equal(graphs.replay("good", [x])["sum"], expected)
    graphs.record("again", drawn, [x])
    torch.manual_seed(0)
    assert torch.equal(graphs.replay("again", [x])["sum"], expected)
