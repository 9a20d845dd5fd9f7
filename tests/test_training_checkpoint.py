"""Checkpoints: what is read is what was written, and which run is gone on with."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from trilemma_bench.training.checkpoint import (
    STATE_FILE,
    WEIGHTS_FILE,
    Header,
    find,
    load_weights,
    read_header,
    save_state,
    save_weights,
)

HEADER = Header("gan", {"hidden": 4}, (2,), "gaussians25", "f" * 64, "digest", "a", complete=True, seconds=1.5)


def leave(runs, run_id, state=False, **changes):
    """A run's folder with its checkpoint, and with the state of its training if that goes on."""
    folder = runs / "gaussians25" / "gan" / run_id
    folder.mkdir(parents=True)
    save_weights(nn.Linear(2, 2), replace(HEADER, run_id=run_id, **changes), folder / WEIGHTS_FILE)
    if state:
        save_state({"position": [1, 2, 3.0]}, folder / STATE_FILE)
    return folder


def test_weights_buffers_and_facts_come_back(tmp_path):
    ours, theirs = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    ours(torch.randn(5, 2))
    save_weights(ours, HEADER, tmp_path / WEIGHTS_FILE)
    load_weights(theirs, tmp_path / WEIGHTS_FILE)
    assert read_header(tmp_path / WEIGHTS_FILE) == HEADER
    for name, value in ours.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], value), name


def test_the_newest_run_of_the_same_training_is_found(tmp_path):
    for run_id in ("20260101-a", "20260103-a", "20260102-a"):
        leave(tmp_path, run_id)
    leave(tmp_path, "20260104-a", digest="other")
    assert find(tmp_path, "digest", complete=True).name == "20260103-a"
    assert find(tmp_path, "other", complete=True).name == "20260104-a"
    assert find(tmp_path, "unknown", complete=True) is None


def test_what_was_interrupted_is_gone_on_with_only_where_its_state_is_left(tmp_path):
    leave(tmp_path, "20260101-a", complete=False, state=True)
    leave(tmp_path, "20260102-a", complete=False)
    leave(tmp_path, "20260103-a", complete=True, state=True)  # stopped between its last two writes
    assert find(tmp_path, "digest", complete=False).name == "20260101-a"
    assert find(tmp_path, "digest", complete=True).name == "20260103-a"


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    leave(tmp_path, "20260101-a")
    (leave(tmp_path, "20260102-a") / WEIGHTS_FILE).write_bytes(b"half of it")
    assert find(tmp_path, "digest", complete=True).name == "20260101-a"
