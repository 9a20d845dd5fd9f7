"""Files that are there whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.files import atomic, save_npz


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_cannot_be_written_whole_keeps_what_was_there(tmp_path, fault):
    path = atomic(tmp_path / "new" / "file.json", lambda temporary: temporary.write_text("old"))

    def half(temporary):
        temporary.write_text("ne")
        raise fault

    with pytest.raises((TrilemmaError, KeyboardInterrupt)) as raised:
        atomic(path, half)
    if isinstance(fault, OSError):
        assert f"could not write {path}: [Errno 28] No space left on device; what was there before is kept" in str(
            raised.value
        )
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
