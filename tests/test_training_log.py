"""What training leaves to look at: a log, pictures of samples, and both for TensorBoard."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from models import IMAGES, POINTS
from training import Line, line_run

from trilemma_bench.errors import UsageError
from trilemma_bench.training.log import LOG_FILE, TENSORBOARD_FOLDER


def lines(folder):
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


def test_a_picture_shows_the_averaged_weights_with_the_same_noise(tmp_path):
    run = line_run(tmp_path, IMAGES)
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
    run = line_run(tmp_path, IMAGES, preview_seconds=60)
    drawn = []
    run.previews.draw = drawn.append
    for step, seconds in enumerate([59, 61, 106, 107, 150, 214]):
        run.previews.draw_if_due(step, seconds, rate=10.0)
    assert drawn == [3, 5]


def test_a_sampler_that_fails_early_does_not_stop_training(tmp_path, impatient, monkeypatch):
    monkeypatch.setattr("trilemma_bench.training.previews.COST", 1e9)
    model = Line(POINTS)
    model.sample = lambda count, rng: torch.full((count, 2), torch.nan)
    line_run(tmp_path, model=model, preview_seconds=1e-9).run()
    assert any("no_picture" in line for line in lines(tmp_path))


def test_the_log_has_means_and_images_a_second(tmp_path, impatient):
    run = line_run(tmp_path, steps=5)
    run.run()
    written = lines(tmp_path)
    assert [line["step"] for line in written] == [1, 2, 3, 4, 5]
    assert set(written[0]) == {"step", "images", "seconds", "images_per_second", "loss", "gradient_line"}
    assert all(line["images_per_second"] > 0 for line in written)


def test_tensorboard_gets_losses_and_pictures(tmp_path, impatient, monkeypatch):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr("trilemma_bench.training.previews.COST", 1e9)
    line_run(tmp_path, IMAGES, steps=5, preview_seconds=1e-9, tensorboard=True).run()
    events = reader.EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER), {"images": 0}).Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([line["loss"] for line in lines(tmp_path)])
    assert len(events.Images("samples")) == 5


def test_tensorboard_that_is_not_installed_is_asked_for_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'trilemma-bench\[tensorboard\]'"):
        line_run(tmp_path, tensorboard=True)
