"""Datasets by name: what they contain, and that it never changes."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from inputs import REAL_DATA, RNG, fails, needs_real_data
from torch import Tensor

from trilemma_bench import paths
from trilemma_bench.contracts import Dataset, Split
from trilemma_bench.datasets import open_dataset
from trilemma_bench.datasets.mnist import MNIST, StackedMNIST
from trilemma_bench.datasets.splits import permutations
from trilemma_bench.datasets.stacked import digit_modes, stack_digits
from trilemma_bench.errors import UsageError


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("gaussians25", "a5ae675154ab4a4ad7128cf6c3e2e166a3d1a206e7574e46dcf7538c8393150e"),
        ("digits", "0b79651f61edf3313d69ca9626a1761c832d3be06d8cff0ae1e09672f46efc8b"),
        ("stacked_digits", "ad32e8eb184d0018cd4dc26b8f0ff396b464e3bf896030c8d7543f3a0f519a49"),
    ],
)
def test_the_bundled_data_never_change(name, digest):
    """Records of different machines and versions compare only because of this."""
    assert open_dataset(name).fingerprint() == digest


def test_gaussians_are_those_of_the_paper():
    data = open_dataset("gaussians25")
    for split in map(data.load, data.splits):
        assert split.samples.shape == (100_000, 2)
        assert split.samples.dtype == torch.float32
        residual = split.samples - data.centres[split.labels]
        assert residual.std(dim=0).tolist() == pytest.approx([0.05, 0.05], rel=0.01)
        assert residual.mean(dim=0).abs().max() < 0.001
        assert split.labels.bincount(minlength=25).min() > 3700
    assert data.spec.scale == pytest.approx(8**0.5, rel=0.005)
    assert not torch.equal(data.load("train").samples, data.load("test").samples)


def test_the_mode_rule_of_the_gaussians():
    rule = open_dataset("gaussians25").mode_rule()
    nan = float("nan")
    points = torch.tensor(
        [[-4.0, -4.0], [-4.0, -1.81], [-4.0, -1.79], [4.19, 4.0], [4.21, 4.0], [1.0, 1.0], [nan, 0.0]]
    )
    assert rule.assign(points).tolist() == [0, 1, -1, 24, -1, -1, -1]
    test = open_dataset("gaussians25").load("test")
    modes = rule.assign(test.samples)
    good = modes >= 0
    assert float(good.double().mean()) == pytest.approx(1 - np.exp(-8), abs=2e-4)  # of a Rayleigh variable within 4
    assert torch.equal(modes[good], test.labels[good])
    assert rule.count == 25


def test_digits_are_scikit_learns_stretched_to_bytes():
    from sklearn.datasets import load_digits

    data = open_dataset("digits")
    train, test = data.load("train"), data.load("test")
    assert train.samples.shape == (1297, 1, 8, 8)
    assert test.samples.shape == (500, 1, 8, 8)
    assert set(train.samples.unique().tolist()) == {round(value * 255 / 16) for value in range(17)}
    rows = sorted([*_rows(train), *_rows(test)])
    source = load_digits()
    expected = sorted(
        (bytes(np.rint(image * 255 / 16).astype(np.uint8)), int(label))
        for image, label in zip(source.images, source.target, strict=True)
    )
    assert rows == expected


def _rows(split: Split) -> list[tuple[bytes, int]]:
    return [(bytes(image.numpy()), int(label)) for image, label in zip(split.samples, split.labels, strict=True)]


def test_stacked_digits_come_from_their_own_split_and_show_all_modes():
    data, digits = open_dataset("stacked_digits"), open_dataset("digits")
    for name, count in (("train", 50_000), ("test", 10_000)):
        split = data.load(name)
        assert split.samples.shape == (count, 3, 8, 8)
        assert len(split.labels.unique()) == 1000
        known = dict(_rows(digits.load(name)))
        for index in range(0, count, 997):
            channels = [known[bytes(channel.numpy())] for channel in split.samples[index]]
            assert int("".join(map(str, channels))) == int(split.labels[index])


def test_stacking_uses_every_digit_equally_often_in_each_channel():
    digits = Split(torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 2, 2), torch.arange(10))
    stacked = stack_digits(digits, 40, seed=7)
    for channel in range(3):
        assert stacked.samples[:, channel, 0, 0].bincount().tolist() == [4] * 10
    values = stacked.samples[:, :, 0, 0].long()
    assert torch.equal(stacked.labels, 100 * values[:, 0] + 10 * values[:, 1] + values[:, 2])
    assert not torch.equal(values[:, 0], values[:, 1])
    assert torch.equal(stack_digits(digits, 40, seed=7).labels, stacked.labels)
    assert not torch.equal(stack_digits(digits, 40, seed=8).labels, stacked.labels)


def test_digit_modes_read_channel_0_as_the_hundreds():
    def classify(pictures: Tensor) -> Tensor:
        return pictures[:, :, 0, 0].long()

    three = torch.tensor([[9, 0, 1], [0, 0, 7]], dtype=torch.uint8)[:, :, None, None]
    rule = digit_modes(classify, "a classifier", channels=3)
    assert (rule.count, rule.assign(three).tolist()) == (1000, [901, 7])
    rule = digit_modes(classify, "a classifier", channels=1)
    assert (rule.count, rule.assign(three[:, :1]).tolist()) == (10, [9, 0])


@pytest.mark.parametrize(("name", "agreement"), [("digits", 0.97), ("stacked_digits", 0.91)])
def test_real_digits_fall_to_the_modes_of_their_labels(name, agreement):
    data = open_dataset(name)
    test, rule = data.load("test"), data.mode_rule()
    assert rule.count == data.spec.classes
    assert float((rule.assign(test.samples) == test.labels).double().mean()) > agreement


def test_permutations_are_whole_ones_cut_at_the_end():
    drawn = permutations(5, 12, seed=3, rows=2)
    assert drawn.shape == (2, 12)
    assert all(sorted(row[start : start + 5].tolist()) == [0, 1, 2, 3, 4] for row in drawn for start in (0, 5))


def test_an_unknown_split_is_named():
    with fails("'tset'", "Did you mean 'test'", kind=UsageError):
        open_dataset("digits").load("tset")


# MNIST


def write_mnist(root: Path, count: int = 20) -> Path:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        pixels = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 0x803, count, 28, 28) + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, count) + labels.tobytes())
    return raw


def test_mnist_and_its_stack_in_the_published_layout(tmp_path):
    raw = write_mnist(tmp_path)
    digits, stacked = MNIST(tmp_path), StackedMNIST(tmp_path)
    train, triples = digits.load("train"), stacked.load("train")
    expected = np.frombuffer((raw / "train-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(20, 1, 28, 28)
    assert np.array_equal(train.samples.numpy(), expected)
    assert train.labels.tolist() == [*range(10), *range(10)]
    assert triples.samples.shape == (40, 3, 32, 32)
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert triples.samples[..., border].max() == 0
    known = dict(_rows(train))
    digits_shown = [known[bytes(channel[2:-2, 2:-2].contiguous().numpy())] for channel in triples.samples[5]]
    assert int("".join(map(str, digits_shown))) == int(triples.labels[5])
    assert len(stacked.load("test")) == 26_000
    assert "found at" in stacked.available()
    for dataset in (digits, stacked):
        assert dataset.official is False
        assert "not the official MNIST" in dataset.note


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_truncated_mnist(tmp_path, keep):
    file = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    with fails("MNIST", "damaged", str(tmp_path), "delete"):
        MNIST(tmp_path).load("train")


def test_mnist_with_labels_of_another_set(tmp_path):
    file = write_mnist(tmp_path) / "train-labels-idx1-ubyte"
    file.write_bytes(struct.pack(">ii", 0x801, 3) + b"\0\1\2")
    with fails("3 labels", "delete them"):
        MNIST(tmp_path).load("train")


@needs_real_data
def test_the_real_mnist_is_official():
    data = MNIST(Path(REAL_DATA))
    assert data.official is True
    assert data.note == ""
    assert data.load("test").labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_real_data
def test_real_stacked_digits_fall_to_the_modes_of_their_labels():
    data = StackedMNIST(Path(REAL_DATA))
    assert len(data.load("train")) == 120_000
    test = data.load("test")
    assert len(test.labels.unique()) == 1000
    modes = data.mode_rule().assign(test.samples[:1000])
    assert float((modes == test.labels[:1000]).double().mean()) > 0.95


# Opening by name


@pytest.mark.parametrize(
    ("name", "shape", "protocol"),
    [
        ("gaussians25", (2,), "points"),
        ("digits", (1, 8, 8), "digits"),
        ("stacked_digits", (3, 8, 8), "stacked-digits"),
        ("mnist", (1, 28, 28), "mnist"),
        ("stackedmnist", (3, 32, 32), "stacked-mnist"),
        ("cifar10", (3, 32, 32), "paper"),
    ],
)
def test_every_name_opens_without_its_data(tmp_path, name, shape, protocol):
    data = open_dataset(name, tmp_path / "data")
    assert isinstance(data, Dataset)
    assert (data.name, data.spec.shape, data.default_protocol) == (name, shape, protocol)
    assert data.available()
    assert not (tmp_path / "data").exists()


def test_names_that_open_nothing(tmp_path):
    with fails("Did you mean 'cifar10'", "gaussians25", kind=UsageError):
        open_dataset("cifar-10")
    for kind in ("folder", "npz"):
        with fails(f"{kind}:PATH", kind=UsageError):
            open_dataset(f"{kind}:")
    plugin = tmp_path / "plugin.py"
    plugin.write_text("class NotOne:\n    def __init__(self, root):\n        pass\n")
    with fails("NotOne", "Dataset", kind=UsageError):
        open_dataset(f"{plugin}:NotOne")


def test_a_dataset_in_a_file_needs_only_load_and_spec(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import torch\n"
        "from trilemma_bench.contracts import Dataset, DataSpec, Split\n"
        "class Line(Dataset):\n"
        "    name, spec = 'line', DataSpec((1,))\n"
        "    def load(self, split):\n"
        "        return Split(torch.zeros(3, 1))\n"
    )
    data = open_dataset(f"{plugin}:Line", tmp_path)
    assert data.root == tmp_path
    assert open_dataset(f"{plugin}:Line").root == paths.data_dir()
    assert len(data.fingerprint()) == 64
    assert (data.official, data.note, data.mode_rule()) == (None, "", None)


def test_importing_the_package_of_datasets_does_not_import_torch():
    code = "import sys, trilemma_bench.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_data_folder_that_cannot_be_written_is_no_failed_download(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched, fails("MNIST is missing", str(tmp_path), "cannot be written (Read-only"):
        patched.setattr(tempfile, "TemporaryFile", read_only)
        open_dataset("mnist", tmp_path).load("test")
    file = tmp_path / "file"
    file.touch()
    with fails("cannot be written (Not a directory)"):
        open_dataset("mnist", file).load("test")
