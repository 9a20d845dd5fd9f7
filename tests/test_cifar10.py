"""CIFAR-10: a prepared copy, the published archive, and what is said of either; being offline."""

from __future__ import annotations

import hashlib
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from inputs import REAL_DATA, fails, images, needs_real_data
from torchvision import datasets as published

from trilemma_bench.datasets import open_dataset
from trilemma_bench.datasets.cifar10 import CIFAR10
from trilemma_bench.datasets.mnist import MNIST


def write_cifar(root: Path, **changes: object) -> Path:
    """A prepared copy of 20 images a split. changes: arrays that replace those of train.npz, None removes one."""
    folder = root / "cifar10"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        arrays = {"images": images(20, 32), "labels": np.arange(20) % 10}
        changed = {**arrays, **changes} if split == "train" else arrays
        np.savez(folder / f"{split}.npz", **{key: array for key, array in changed.items() if array is not None})
    return folder


def test_a_prepared_cifar10_is_used_as_it_is_and_says_so(tmp_path):
    pixels = images(20, 32)
    write_cifar(tmp_path, images=pixels)
    data = CIFAR10(tmp_path)
    train = data.load("train")
    assert np.array_equal(train.samples.numpy(), pixels.transpose(0, 3, 1, 2))
    assert train.samples.is_contiguous()
    assert train.labels.tolist() == [*range(10), *range(10)]
    assert train.labels.dtype == torch.int64
    assert data.official is False
    assert "prepared copy" in data.note
    assert "prepared copy" in data.available()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"images": images(20, 32).astype(np.float32)}, "not uint8"),
        ({"images": images(20, 28)}, "3×28×28"),
        ({"images": images(20, 32, 1)}, "1×32×32"),
        ({"images": images(0, 32)}, "0×32×32×3"),
        ({"images": None}, "no 'images'"),
        ({"images": np.array([None] * 20, dtype=object)}, "damaged"),
        ({"labels": None}, "'labels'"),
        ({"labels": np.arange(19) % 10}, "19"),
        ({"labels": np.arange(20)}, "0…9"),
        ({"labels": np.arange(20) - 1}, "integers from 0"),
        ({"labels": np.linspace(0, 9, 20)}, "float64"),
    ],
)
def test_a_prepared_cifar10_that_is_wrong(tmp_path, changes, word):
    write_cifar(tmp_path, **changes)
    with fails("train.npz", word):
        CIFAR10(tmp_path).load("train")


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_a_prepared_cifar10_cut_short(tmp_path, keep):
    file = write_cifar(tmp_path) / "train.npz"
    file.write_bytes(file.read_bytes()[:keep])
    with fails(str(file), "damaged"):
        CIFAR10(tmp_path).load("train")


def test_a_prepared_cifar10_with_one_bit_flipped(tmp_path):
    file = write_cifar(tmp_path) / "train.npz"
    content = bytearray(file.read_bytes())
    content[20_000] ^= 1
    file.write_bytes(content)
    with fails(str(file), "damaged"):
        CIFAR10(tmp_path).load("train")


def test_half_a_prepared_cifar10(tmp_path):
    (write_cifar(tmp_path) / "test.npz").unlink()
    with fails("test.npz is missing"):
        CIFAR10(tmp_path).load("test")


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """A tiny archive in the published layout, whose md5 sums torchvision is told to expect."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    sums = []
    for number, name in enumerate([*(f"data_batch_{index}" for index in range(1, 6)), "test_batch", "batches.meta"]):
        batch = {"data": np.full((2, 3072), number, np.uint8), "labels": [number, number], "label_names": ["plane"]}
        content = pickle.dumps(batch)
        (folder / name).write_bytes(content)
        sums.append([name, hashlib.md5(content).hexdigest()])
    monkeypatch.setattr(published.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(published.CIFAR10, "test_list", sums[5:6])
    monkeypatch.setattr(published.CIFAR10, "meta", {"filename": sums[6][0], "key": "label_names", "md5": sums[6][1]})
    return folder


def test_the_published_archive_is_official(tmp_path, archive):
    data = CIFAR10(tmp_path)
    assert data.load("train").samples[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert data.load("test").labels.tolist() == [5, 5]
    assert data.load("train").samples.shape == (10, 3, 32, 32)
    assert (data.official, data.note) == (True, "")
    assert str(archive) in data.available()


def test_a_damaged_archive_is_never_unpickled(tmp_path, archive):
    (archive / "test_batch").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with fails("CIFAR-10", "damaged", "delete"):
        CIFAR10(tmp_path).load("test")


@needs_real_data
def test_the_real_cifar10_copy():
    data = CIFAR10(Path(REAL_DATA))
    assert len(data.load("train")) == 50_000
    assert data.load("test").labels.bincount().tolist() == [1000] * 10
    assert data.official is False
    assert open_dataset(f"npz:{REAL_DATA}/cifar10").fingerprint() == data.fingerprint()


def _offline(*_: object, **__: object) -> None:
    raise urllib.error.URLError("no network\nat all")


def test_offline_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", _offline)
    for dataset, source in ((MNIST, "mnist/{train,t10k}-"), (CIFAR10, "cifar-10-python.tar.gz")):
        data = dataset(tmp_path)
        assert data.available().startswith("missing: would be downloaded from https://")
        assert str(tmp_path) in data.available()
        with fails("no network at all", source, str(tmp_path)):
            data.load("test")
