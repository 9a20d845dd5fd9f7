"""Batches: epochs, flips, and where the data stay."""

from __future__ import annotations

import torch
from models import CPU, IMAGES, tiny_data

from trilemma_bench.contracts import Split
from trilemma_bench.settings import TrainingSettings
from trilemma_bench.training import batches
from trilemma_bench.training.batches import Batches


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
    for position in (28, 35, 7):
        again = Batches(Split(data), TrainingSettings(batch_size=7), 0, CPU)  # as after an interruption
        for each in (stream, again):
            assert each.at(position).samples.flatten().tolist() == seen[position : position + 7].tolist()


def test_flips_are_of_half_the_images_and_along_the_width():
    data = tiny_data(IMAGES, 400)
    plain = Batches(Split(data), TrainingSettings(batch_size=400), 0, CPU).at(0).samples
    flipped = Batches(Split(data), TrainingSettings(batch_size=400, flip=True), 0, CPU).at(0).samples
    same = (plain == flipped).flatten(1).all(1)
    assert torch.equal(plain[~same].flip(-1), flipped[~same])
    assert 150 < int(same.sum()) < 250
