"""Files that are there whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inputs import room_for
from safetensors.torch import save_file

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.files import atomic, save_npz
from trilemma_bench.images import save_grid, save_scatter

NOISE = torch.randint(256, (16, 3, 30, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("room", [0, 1000])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("record.json", lambda path: path.write_text("x" * 2000, encoding="utf-8")),
        ("arrays.npz", lambda path: np.savez_compressed(path, array=NOISE.numpy())),
        ("weights.safetensors", lambda path: save_file({"weight": NOISE}, path)),
        ("state.pt", lambda path: torch.save({"weight": NOISE}, path)),
        ("grid.png", lambda path: save_grid(NOISE, path)),
        ("scatter.png", lambda path: save_scatter(torch.zeros(9, 2), path, (-1, 1))),
    ],
)
def test_what_a_full_disk_does_to_each_writer_is_one_line(tmp_path, name, write, room):
    path = tmp_path / name
    path.write_text("old")
    refused = pytest.raises(TrilemmaError, match=f"could not write .*{name}: .*; what was there before is kept")
    with room_for(room), refused:
        atomic(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fault", [ValueError("two lengths"), RuntimeError("CUDA error"), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_disk_shows_as_itself_and_keeps_what_was_there(tmp_path, fault):
    path = atomic(tmp_path / "new" / "file.json", lambda temporary: temporary.write_text("old"))

    def half(temporary):
        temporary.write_text("ne")
        raise fault

    with pytest.raises(type(fault)) as raised:
        atomic(path, half)
    assert raised.value is fault
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrilemmaError, match=r"could not write .*below"):
        atomic(tmp_path / "file" / "below", lambda temporary: temporary.touch())


def test_arrays_come_back_and_others_may_read_them(tmp_path):
    path = save_npz(tmp_path / "arrays.npz", mu=np.arange(3.0), sigma=np.eye(3))
    with np.load(path) as found:
        assert sorted(found) == ["mu", "sigma"]
        assert found["mu"].tolist() == [0, 1, 2]
    assert path.stat().st_mode & 0o777 == 0o644
