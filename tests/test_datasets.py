"""Datasets: what they contain, that it never changes, and one clear line for every kind of bad input."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import urllib.error
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets as published

from trilemma_bench.contracts import Dataset, DataSpec, Split
from trilemma_bench.datasets import open_dataset
from trilemma_bench.datasets.cifar10 import CIFAR10
from trilemma_bench.datasets.digits import Digits, StackedDigits
from trilemma_bench.datasets.folder import FolderDataset, NpzDataset, array_samples, load_samples
from trilemma_bench.datasets.mnist import MNIST, StackedMNIST
from trilemma_bench.datasets.points import Gaussians25
from trilemma_bench.datasets.splits import permutations
from trilemma_bench.datasets.stacked import digit_modes, stack_digits
from trilemma_bench.errors import TrilemmaError, UsageError

REAL_DATA = os.environ.get("TRILEMMA_TEST_DATA", "")
needs_real_data = pytest.mark.skipif(not REAL_DATA, reason="TRILEMMA_TEST_DATA names no folder with real data")
RNG = np.random.default_rng(0)


@contextlib.contextmanager
def fails(*words: str, kind: type[TrilemmaError] = TrilemmaError) -> Iterator[None]:
    """The block raises one line that holds all `words`."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def images(count: int, size: int = 6, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def write_pngs(folder: Path, pixels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image.squeeze()).save(folder / f"{index:03}.png")
    return folder


# Points and bundled digits


@pytest.mark.parametrize(
    ("dataset", "digest"),
    [
        (Gaussians25, "a5ae675154ab4a4ad7128cf6c3e2e166a3d1a206e7574e46dcf7538c8393150e"),
        (Digits, "0b79651f61edf3313d69ca9626a1761c832d3be06d8cff0ae1e09672f46efc8b"),
        (StackedDigits, "ad32e8eb184d0018cd4dc26b8f0ff396b464e3bf896030c8d7543f3a0f519a49"),
    ],
)
def test_the_bundled_data_never_change(dataset, digest):
    """Records of different machines and versions compare only because of this."""
    assert dataset().fingerprint() == digest


def test_gaussians_are_those_of_the_paper():
    data = Gaussians25()
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
    rule = Gaussians25().mode_rule()
    nan = float("nan")
    points = torch.tensor(
        [[-4.0, -4.0], [-4.0, -1.81], [-4.0, -1.79], [4.19, 4.0], [4.21, 4.0], [1.0, 1.0], [nan, 0.0]]
    )
    assert rule.assign(points).tolist() == [0, 1, -1, 24, -1, -1, -1]
    test = Gaussians25().load("test")
    modes = rule.assign(test.samples)
    good = modes >= 0
    assert float(good.double().mean()) == pytest.approx(1 - np.exp(-8), abs=2e-4)  # of a Rayleigh variable within 4
    assert torch.equal(modes[good], test.labels[good])
    assert rule.count == 25


def test_digits_are_scikit_learns_stretched_to_bytes():
    from sklearn.datasets import load_digits

    data = Digits()
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
    data, digits = StackedDigits(), Digits()
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


def test_permutations_are_whole_ones_cut_at_the_end():
    drawn = permutations(5, 12, seed=3, rows=2)
    assert drawn.shape == (2, 12)
    assert all(sorted(row[start : start + 5].tolist()) == [0, 1, 2, 3, 4] for row in drawn for start in (0, 5))


def test_an_unknown_split_is_named():
    with fails("'tset'", "Did you mean 'test'", kind=UsageError):
        Digits().load("tset")


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


def _offline(*_: object, **__: object) -> None:
    raise urllib.error.URLError("no network\nat all")


def test_offline_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", _offline)
    for dataset, source in ((MNIST, "mnist/{train,t10k}-"), (CIFAR10, "cifar-10-python.tar.gz")):
        data = dataset(tmp_path)
        assert data.available().startswith("missing: would be downloaded from https://")
        with fails("no network at all", source, str(tmp_path)):
            data.load("test")


@needs_real_data
def test_the_real_mnist_is_official():
    data = MNIST(Path(REAL_DATA))
    assert data.official is True
    assert data.note == ""
    assert data.load("test").labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# CIFAR-10


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


# The user's own images


def test_a_folder_is_read_in_order_of_name_and_a_tenth_held_out(tmp_path):
    pixels = images(25)
    write_pngs(tmp_path / "cats" / "b", pixels[10:])
    write_pngs(tmp_path / "cats" / "a", pixels[:10])
    (tmp_path / "cats" / "readme.txt").write_text("not an image")
    (tmp_path / "cats" / "a" / "._000.png").write_text("what macOS leaves")
    data = open_dataset(f"folder:{tmp_path / 'cats'}")
    train, test = data.load("train").samples, data.load("test").samples
    assert (len(train), len(test)) == (22, 3)
    everything = sorted(bytes(image.numpy()) for image in torch.cat([train, test]))
    assert everything == sorted(bytes(image.transpose(2, 0, 1).tobytes()) for image in pixels)
    assert torch.equal(load_samples(tmp_path / "cats"), torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
    assert "25 images" in data.note
    assert data.name == "folder:cats"
    assert data.spec.shape == (3, 6, 6)
    assert data.fingerprint() == open_dataset(f"folder:{tmp_path / 'cats'}").fingerprint()


def test_a_folder_and_an_npz_of_the_same_splits_are_the_same_data(tmp_path):
    train, test = images(7, channels=1), images(4, channels=1)
    folder = write_pngs(tmp_path / "own" / "train", train).parent
    write_pngs(folder / "test", test)
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    np.savez(arrays / "train.npz", images=train)
    np.savez(arrays / "test.npz", images=test[..., 0])
    one, other = FolderDataset(folder), NpzDataset(arrays)
    assert one.spec == other.spec == DataSpec((1, 6, 6))
    assert (one.note, one.official) == ("", None)
    assert np.array_equal(one.load("test").samples[:, 0].numpy(), test[..., 0])
    assert one.fingerprint() == other.fingerprint()
    train[3, 2, 1] ^= 1
    np.savez(arrays / "train.npz", images=train)
    assert NpzDataset(arrays).fingerprint() != one.fingerprint()


def test_labels_of_an_npz_belong_to_the_fingerprint(tmp_path):
    pixels, labels = images(30), np.arange(30) % 3
    pixels[:, 0, 0, 0] = labels
    np.savez(tmp_path / "own.npz", images=pixels, labels=labels)
    data = NpzDataset(tmp_path / "own.npz")
    assert data.spec.classes == 3
    for split in map(data.load, data.splits):
        assert torch.equal(split.samples[:, 0, 0, 0].long(), split.labels)
    np.savez(tmp_path / "other.npz", images=pixels, labels=labels[::-1])
    assert NpzDataset(tmp_path / "other.npz").fingerprint() != data.fingerprint()


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg", "JPEG"])
def test_every_format_is_read(tmp_path, suffix):
    Image.new("RGB", (5, 4), (200, 100, 50)).save(tmp_path / f"colour.{suffix}", lossless=True)
    samples = load_samples(tmp_path)
    assert samples.shape == (1, 3, 4, 5)
    assert samples[0, :, 2, 2].tolist() == pytest.approx([200, 100, 50], abs=2)


def _png_of_16_bits_a_channel(file: Path) -> None:
    """An RGB one, written by hand: Pillow writes none, and reads it as 8 bits without a word."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header, rows = struct.pack(">IIBBBBB", 6, 6, 16, 2, 0, 0, 0), zlib.compress((b"\0" + bytes(36)) * 6)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def _transparent_palette(file: Path) -> None:
    Image.new("P", (6, 6)).save(file, transparency=0)


def _animation(file: Path) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    frames[0].save(file, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("write", "word"),
    [
        (_png_of_16_bits_a_channel, "16 bits"),
        (lambda file: Image.fromarray(np.zeros((6, 6), np.uint16)).save(file), "16 bits"),
        (lambda file: Image.new("RGBA", (6, 6)).save(file), "alpha"),
        (lambda file: Image.new("LA", (6, 6)).save(file), "alpha"),
        (_transparent_palette, "alpha"),
        (_animation, "animation"),
        (lambda file: Image.new("CMYK", (6, 6)).save(file, format="JPEG"), "CMYK"),
        (lambda file: file.write_text("no image"), "damaged"),
        (lambda file: file.write_bytes(b""), "damaged"),
        (lambda file: file.write_bytes((file.parent / "000.png").read_bytes()[:-40]), "damaged"),
        (lambda file: file.mkdir(), "damaged"),
        (lambda file: Image.new("RGB", (7, 6)).save(file), "3×6×7"),
        (lambda file: Image.new("L", (6, 6)).save(file), "1×6×6"),
    ],
)
def test_a_bad_file_among_good_ones_is_named(tmp_path, write, word):
    write_pngs(tmp_path, images(3))
    write(tmp_path / "bad.png")
    for read in (FolderDataset, load_samples):
        with fails(str(tmp_path / "bad.png"), word):
            read(tmp_path)


def test_own_images_that_cannot_be_a_dataset(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with fails("holds no images"):
        FolderDataset(empty)
    with fails("no train.npz", "folder:"):
        NpzDataset(empty)
    with fails("is not a folder", kind=UsageError):
        FolderDataset(tmp_path / "nowhere")
    with fails("does not exist", kind=UsageError):
        NpzDataset(tmp_path / "nowhere.npz")
    with fails("only 1 image"):
        FolderDataset(write_pngs(tmp_path / "single", images(1)))
    half = write_pngs(tmp_path / "half" / "train", images(3)).parent
    with fails("has train but no test"):
        FolderDataset(half)
    write_pngs(half / "test", images(3, size=5))
    with fails("train is 3×6×6, test is 3×5×5"):
        FolderDataset(half)


# Samples that someone else made


def test_the_layouts_of_image_arrays_are_the_same_samples(tmp_path):
    pixels = images(5)
    expected = torch.from_numpy(pixels.transpose(0, 3, 1, 2))
    np.save(tmp_path / "nhwc.npy", pixels)
    np.save(tmp_path / "nchw.npy", pixels.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "named.npz", images=pixels)
    np.savez(tmp_path / "unnamed.npz", pixels)
    write_pngs(tmp_path / "folder", pixels)
    for name in ("nhwc.npy", "nchw.npy", "named.npz", "unnamed.npz", "folder"):
        assert torch.equal(load_samples(tmp_path / name, DataSpec((3, 6, 6)), "own"), expected)
    np.save(tmp_path / "grey.npy", pixels[..., 0])
    assert torch.equal(load_samples(tmp_path / "grey.npy"), expected[:, :1])


def test_points_are_read_as_float32(tmp_path):
    points = RNG.standard_normal((10, 2))
    np.savez(tmp_path / "points.npz", points=points)
    np.save(tmp_path / "points.npy", points)
    for name in ("points.npz", "points.npy"):
        samples = load_samples(tmp_path / name, Gaussians25().spec, "gaussians25")
        assert samples.dtype == torch.float32
        assert np.array_equal(samples.numpy(), points.astype(np.float32))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (RNG.random((4, 6, 6, 3)), ("float64", "rint(x * 255)")),
        (RNG.uniform(-1, 1, (4, 3, 6, 6)).astype(np.float32), ("float32", "(x + 1) * 127.5")),
        (images(4).astype(np.float32), ("rint(x)",)),
        (images(4).astype(np.int64), ("int64", "uint8")),
        (images(4) > 9, ("bool",)),
        (np.full((4, 6, 6, 3), np.nan), ("4 of 4 samples hold NaN", "number 0")),
        (np.array([[0.0, 1.0], [np.inf, 0.0]]), ("1 of 2 samples", "number 1")),
        (np.zeros((0, 2)), ("0×2",)),
        (np.zeros((3, 2), np.int64), ("int64 3×2",)),
        (images(4, channels=2), ("4×6×6×2", "1 or 3 channels")),
        (images(1)[0], ("6×6×3",)),
        (np.uint8(3), ("one number",)),
        (images(0), ("0×6×6×3",)),
    ],
)
def test_arrays_that_would_have_to_be_guessed_at(array, words):
    with fails("samples", *words):
        array_samples(np.asarray(array))


def test_the_conversion_that_a_message_recommends_works():
    """The advice for [−1, 1] gives the bytes that the harness itself would."""
    expected = images(4)
    x = expected.astype(np.float32) / 127.5 - 1
    with pytest.raises(TrilemmaError) as caught:
        array_samples(x)
    advice = str(caught.value).rpartition(" by ")[2]
    assert np.array_equal(eval(advice, {"numpy": np, "x": x}), expected)


def test_samples_of_another_shape_than_the_dataset(tmp_path):
    np.save(tmp_path / "images.npy", images(2, 64))
    np.save(tmp_path / "points.npy", RNG.random((5, 3)))
    cifar, toy = CIFAR10(tmp_path).spec, Gaussians25().spec
    line = "samples are 3×64×64, dataset cifar10 is 3×32×32: resize them or name another dataset"
    with pytest.raises(TrilemmaError) as caught:
        load_samples(tmp_path / "images.npy", cifar, "cifar10")
    assert str(caught.value) == line
    with fails("dataset mnist is 1×28×28: convert them or"):
        load_samples(tmp_path / "images.npy", MNIST(tmp_path).spec, "mnist")
    with fails("samples are 3 coordinates, dataset gaussians25 is 2 coordinates: name another dataset"):
        load_samples(tmp_path / "points.npy", toy, "gaussians25")
    with fails("samples are 3 coordinates, dataset cifar10 is 3×32×32: name"):
        load_samples(tmp_path / "points.npy", cifar, "cifar10")


def test_files_that_hold_no_samples(tmp_path):
    np.savez(tmp_path / "wrong_key.npz", pictures=images(2))
    with fails("no 'images', only pictures"):
        load_samples(tmp_path / "wrong_key.npz")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "huge.npy").write_bytes(
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999,), }".ljust(117)
        + b"\n"
    )
    for name in ("objects.npy", "text.npz", "empty.npy", "huge.npy"):
        with fails(name, "damaged or not"):
            load_samples(tmp_path / name)
    for name in ("nowhere", "nowhere.npz", "text.txt"):
        with fails("neither a folder", kind=UsageError):
            load_samples(tmp_path / name)


# Opening by name


@pytest.mark.parametrize(
    ("name", "shape", "protocol"),
    [
        ("gaussians25", (2,), "points"),
        ("digits", (1, 8, 8), "digits"),
        ("stacked_digits", (3, 8, 8), "stacked-digits"),
        ("mnist", (1, 28, 28), "mnist"),
        ("stackedmnist", (3, 32, 32), "stacked-mnist"),
        ("cifar10", (3, 32, 32), "inception-50k"),
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
        "    def __init__(self, root=None):\n"
        "        self.root = root\n"
        "    def load(self, split):\n"
        "        return Split(torch.zeros(3, 1))\n"
    )
    data = open_dataset(f"{plugin}:Line", tmp_path)
    assert data.root == tmp_path
    assert len(data.fingerprint()) == 64
    assert (data.official, data.note, data.mode_rule()) == (None, "", None)


def test_importing_the_package_of_datasets_does_not_import_torch():
    code = "import sys, trilemma_bench.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
