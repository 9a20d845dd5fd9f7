"""What only a GPU can tell: that replayed steps and networks compute what others do, and that failing is harmless."""

from __future__ import annotations

import pytest
import torch
from models import IMAGES, tiny_data, tiny_model
from test_model_contracts import TRAINABLE

from trilemma_bench.checkpoint import Header
from trilemma_bench.config import SamplingSettings, TrainingSettings
from trilemma_bench.contracts import Split
from trilemma_bench.graphs import CannotRecordError, Graphs, noticing_waits
from trilemma_bench.sampling import draw_samples, drawing
from trilemma_bench.seeding import seed_everything
from trilemma_bench.training import Place, Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")
STEPS, BATCH = 24, 16


def complain(text):
    assert "not replayed" not in text, text


def trained(name, folder, **settings):
    """A run of STEPS steps, and what replays them; Adam's ε is large, so that it does not blow rounding up."""
    folder.mkdir()
    model = tiny_model(name, IMAGES).to(CUDA).to(memory_format=torch.channels_last)
    seed_everything(0)
    facts = {"batch_size": BATCH, "budget": f"{BATCH * STEPS / 1000}kimg", "lr_warmup_steps": 6, "flip": True}
    header = Header(name, {}, IMAGES.shape, "tiny", "0", "digest", "run")
    place = Place(folder, CUDA, say=complain, progress=False)
    run = Trainer(model, Split(tiny_data(IMAGES)), TrainingSettings(**facts, **settings), 0, header, place)
    for optimizer in run.optimizers.values():
        for group in optimizer.param_groups:
            group["eps"] = 1e-4
    recorded, forget = [], run.training_step.forget
    run.training_step.forget = lambda: (recorded.append(run.training_step._recorded), forget())
    header = run.run()
    assert header.cuda_graphs == (recorded[0] is not None and recorded[0].replays > 0)
    return run, recorded[0]


@pytest.mark.parametrize("name", TRAINABLE)
def test_replayed_steps_learn_the_same(name, tmp_path):
    plain, none = trained(name, tmp_path / "plain", precision="float32", cuda_graphs=False)
    replayed, recorded = trained(name, tmp_path / "replayed", precision="float32")
    assert none is None
    kinds = {plain.model.step_kind(step) for step in range(STEPS)} - {None}
    assert {kind for kind, *_ in recorded._graphs._recorded} == kinds
    assert recorded.works
    for key, value in plain.model.state_dict().items():
        assert torch.allclose(value, replayed.model.state_dict()[key], rtol=1e-3, atol=5e-4), key


@pytest.mark.parametrize("name", TRAINABLE)
def test_replayed_steps_in_bf16_are_finite(name, tmp_path):
    run, recorded = trained(name, tmp_path / "run", precision="bf16")
    assert recorded.works
    assert all(bool(value.isfinite().all()) for value in run.model.state_dict().values() if value.is_floating_point())


@pytest.mark.parametrize("name", TRAINABLE)
def test_replayed_samples_are_those_of_the_plain_network(name):
    model, samples = tiny_model(name, IMAGES).to(CUDA), []
    for graphs in (False, True):
        with drawing(model, SamplingSettings(cuda_graphs=graphs), CUDA):
            samples.append(draw_samples(model, 6, 0, chunk_size=4, device=CUDA, progress=False))
    assert torch.equal(*samples)


def drawn(x):
    return {"sum": x + torch.randn(x.shape, device=CUDA)}


def waiting(x):
    return {"sum": x + float(x.sum()) + torch.randn(x.shape, device=CUDA)}


def test_recorded_draws_are_those_of_the_same_seed():
    x, graphs = torch.zeros(1000, device=CUDA), Graphs()
    graphs.rehearse(drawn, [x])
    torch.manual_seed(0)
    expected = [drawn(x)["sum"] for _ in range(3)]
    torch.manual_seed(0)
    graphs.record("kind", drawn, [x])
    for each in expected:
        assert torch.equal(graphs.replay("kind", [x])["sum"], each)


def test_what_waits_for_the_device_is_noticed():
    x, graphs = torch.zeros(1000, device=CUDA), Graphs()
    for work, count in ((drawn, 0), (waiting, 1)):
        graphs.rehearse(work, [x])
        with noticing_waits() as waits:
            graphs.rehearse(work, [x])
        assert len(waits) == count


def test_a_recording_that_fails_leaves_torch_as_it_was():
    x, graphs = torch.zeros(1000, device=CUDA), Graphs()
    stream = torch.cuda.current_stream()
    graphs.record("good", drawn, [x])
    with pytest.raises(CannotRecordError):
        graphs.record("bad", waiting, [x])
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
