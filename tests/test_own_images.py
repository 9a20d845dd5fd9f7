"""The user's own images as a dataset: what is accepted, and one clear line for all else."""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import succeeds
from inputs import RNG, fails, images, write_pngs
from PIL import Image

import trilemma_bench as tb
from trilemma_bench import read_record, registry
from trilemma_bench.contracts import DataSpec
from trilemma_bench.datasets import arrays, open_dataset
from trilemma_bench.datasets import images as module
from trilemma_bench.datasets.folder import FolderDataset, NpzDataset, load_samples
from trilemma_bench.datasets.images import ImageFiles
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.evaluation import Evaluator
from trilemma_bench.features.extraction import HashedSamples, extract
from trilemma_bench.features.raw import Pixels
from trilemma_bench.leaderboard import check_records


def test_a_folder_is_read_in_order_of_name_and_a_tenth_held_out(tmp_path):
    pixels = images(25)
    write_pngs(tmp_path / "cats" / "b", pixels[10:])
    write_pngs(tmp_path / "cats" / "a", pixels[:10])
    (tmp_path / "cats" / "readme.txt").write_text("not an image")
    (tmp_path / "cats" / "a" / "._000.png").write_text("what macOS leaves")
    write_pngs(tmp_path / "cats" / ".ipynb_checkpoints" / "a", images(2))
    Image.new("RGB", (6, 6)).save(tmp_path / "cats" / ".ipynb_checkpoints" / "more.tiff")
    data = open_dataset(f"folder:{tmp_path / 'cats'}")
    train, test = data.load("train").samples, data.load("test").samples
    assert (len(train), len(test)) == (22, 3)
    everything = sorted(bytes(image.numpy()) for image in torch.cat([train, test]))
    assert everything == sorted(bytes(image.transpose(2, 0, 1).tobytes()) for image in pixels)
    assert torch.equal(load_samples(tmp_path / "cats")[:], torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
    assert "25 images" in data.note
    assert data.name == "folder:cats"
    assert data.spec.shape == (3, 6, 6)
    assert data.fingerprint() == open_dataset(f"folder:{tmp_path / 'cats'}").fingerprint()


def test_a_set_without_splits_is_compared_with_whole_and_is_itself(tmp_path):
    folder, said = write_pngs(tmp_path / "cats", images(40)), []
    options = {"dataset": f"folder:{folder}", "out": tmp_path / "out", "progress": False, "device": "cpu"}
    record = tb.evaluate(folder, **options, say=said.append)
    assert (record.protocol.reference_split, record.protocol.reference_samples) == ("all", 40)
    assert record.scores["precision"].value == record.scores["recall"].value == 1
    assert "note: 40 samples, and protocol 'pixels' has 10,000" in said[0]
    assert not [line for line in check_records([tmp_path / "out"])[1] if "measured against" in line]
    part = tb.evaluate(folder, **options, reference_split="train")
    assert (part.protocol.reference_split, part.protocol.reference_samples) == ("train", 36)
    assert part.dataset == record.dataset
    with fails("unknown split of folder:cats 'trian'. Did you mean 'train'?", kind=UsageError):
        tb.evaluate(folder, **options, reference_split="trian")


def test_the_distance_of_a_set_without_splits_to_itself_is_0(tmp_path):
    folder = write_pngs(tmp_path / "cats", images(60, size=4, channels=1))
    record = tb.evaluate(folder, dataset=f"folder:{folder}", out=tmp_path / "out", progress=False, device="cpu")
    assert record.scores["fd_pixels"].value == pytest.approx(0, abs=1e-8)


def test_given_splits_are_compared_with_as_the_protocol_says(tmp_path):
    train = write_pngs(tmp_path / "cats" / "train", images(20))
    write_pngs(tmp_path / "cats" / "test", images(10))
    folder = f"folder:{train.parent}"
    record = tb.evaluate(train, dataset=folder, out=tmp_path / "out", progress=False, device="cpu")
    assert (record.protocol.reference_split, record.protocol.reference_samples) == ("train", 20)
    with fails("unknown split", "'all'", kind=UsageError):
        tb.evaluate(train, dataset=folder, out=tmp_path / "out", progress=False, reference_split="all")


def test_a_folder_and_an_npz_of_the_same_splits_are_the_same_data(tmp_path):
    train, test = images(7, channels=1), images(4, channels=1)
    folder = write_pngs(tmp_path / "own" / "train", train).parent
    write_pngs(folder / "test", test)
    files = tmp_path / "arrays"
    files.mkdir()
    np.savez(files / "train.npz", images=train)
    np.savez(files / "test.npz", images=test[..., 0])
    one, other = FolderDataset(folder), NpzDataset(files)
    assert one.spec == other.spec == DataSpec((1, 6, 6))
    assert (one.note, one.official) == ("", None)
    assert np.array_equal(one.load("test").samples[:, 0].numpy(), test[..., 0])
    assert one.fingerprint() == other.fingerprint()
    train[3, 2, 1] ^= 1
    np.savez(files / "train.npz", images=train)
    assert NpzDataset(files).fingerprint() != one.fingerprint()


@pytest.mark.parametrize("splits", [["train", "test"], [""]])
@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_own_images_are_read_when_they_are_loaded_and_once(kind, splits, tmp_path, monkeypatch):
    for split in splits:
        pixels = images(20, channels=1)
        if kind == "folder":
            write_pngs(tmp_path / "own" / split, pixels)
        else:
            (tmp_path / "own").mkdir(exist_ok=True)
            np.savez(tmp_path / "own" / f"{split or 'all'}.npz", images=pixels, labels=np.arange(20) % 4)
    path = tmp_path / "own" / ("" if kind == "folder" or split else "all.npz")
    read, decode, load = [], module.read_image, arrays.read_split
    monkeypatch.setattr(module, "read_image", lambda file: read.append(file) or decode(file))
    monkeypatch.setattr(arrays, "read_split", lambda file: read.append(file) or load(file))
    data = open_dataset(f"{kind}:{path}")
    assert data.spec == DataSpec((1, 6, 6), 4 if kind == "npz" else None)
    assert ("20 images" in data.note) == (splits == [""])
    assert read == []
    for _ in range(2):
        assert len(data.load("train")) + len(data.load("test")) == 20 * len(splits)
        assert len(read) == (20 if kind == "folder" else 1) * len(splits)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", [(5, 6, 4, 3), (5, 3, 6, 4), (5, 6, 4)])
def test_the_header_of_an_array_tells_the_shape_that_it_is_read_in(layout, order, tmp_path):
    pixels = np.asarray(RNG.integers(0, 256, layout, dtype=np.uint8), order=order)
    np.save(tmp_path / "own.npy", pixels)
    np.savez(tmp_path / "own.npz", images=pixels, other=np.zeros(3))
    np.savez_compressed(tmp_path / "packed.npz", images=pixels)
    with zipfile.ZipFile(tmp_path / "packed.npz", "a") as archive:
        archive.writestr("readme.txt", "not an array")
    for name in ("own.npy", "own.npz", "packed.npz"):
        unread = arrays.open_split(tmp_path / name)
        assert unread.shape == (5, 3 if len(layout) == 4 else 1, 6, 4)
        assert unread.shape == tuple(unread.read().samples.shape)


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


@pytest.mark.parametrize("relative", [False, True])
def test_what_was_trained_on_own_images_is_found_again(relative, tmp_path, monkeypatch):
    """As on any other data set; the path is one that a shell would take apart."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "own [1].npz", images=images(80, 8))
    name = "npz:own [1].npz" if relative else f"npz:{tmp_path / 'own [1].npz'}"
    options = {"dataset": name, "out": tmp_path / "out", "device": "cpu", "progress": False, "budget": "1kimg"}
    settings = {"channels": 8, "res_blocks": 1, "channel_multipliers": [1, 1], "sampling_steps": 2, "batch_size": 16}
    first = tb.run(model="ddim", settings=settings, samples=20, **options)
    again = tb.run(model="ddim", settings={**settings, "sampling_steps": 3}, samples=20, **options)
    assert again.training.run_id == first.training.run_id == first.id
    said = []
    tb.train(model="ddim", settings=settings, **options, say=said.append)
    assert said[-1].startswith("already trained")
    assert tb.sample(tmp_path / "s.npz", model="ddim", settings=settings, samples=3, **options).is_file()


def test_results_on_own_images_lie_where_their_record_says(tmp_path, monkeypatch):
    """Under a name that tells data of one file name apart, and the same data nowhere."""
    pixels, out = images(40), tmp_path / "out"
    for folder, content in (("a", pixels), ("b", pixels), ("c", images(40))):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "own.npz", images=content)
    monkeypatch.chdir(tmp_path)
    arguments = ["evaluate", "--samples", "c/own.npz", "--out", out, "--device", "cpu", "--quiet", "--dataset"]
    names, read, load = [], [], arrays.read_split
    monkeypatch.setattr(arrays, "read_split", lambda file: read.append(file) or load(file))
    for dataset in ("npz:a/own.npz", f"npz:{tmp_path}/a/own.npz", "npz:b/own.npz", "npz:c/own.npz"):
        folder = Path(succeeds(*arguments, dataset).stdout.splitlines()[-1])
        assert folder == out / read_record(folder / "record.json").place
        names.append(folder.parts[-3])
        assert len(read) == 1  # of the data set; the samples are read another way
        read.clear()
    assert names[0] == names[1] == names[2] != names[3]
    assert all(re.fullmatch(r"npz-own\.npz-[0-9a-f]{6}", name) for name in names)
    _, problems = check_records([out])
    assert not [problem for problem in problems if "lie in" in problem or "dataset" in problem]


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg", "JPEG"])
def test_every_format_is_read(tmp_path, suffix):
    Image.new("RGB", (5, 4), (200, 100, 50)).save(tmp_path / f"colour.{suffix}", lossless=True)
    samples = load_samples(tmp_path)[:]
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
    for read in (lambda folder: FolderDataset(folder).load("train"), lambda folder: load_samples(folder)[:]):
        with fails(str(tmp_path / "bad.png"), word):
            read(tmp_path)


def test_image_files_are_decoded_slice_by_slice(tmp_path, monkeypatch):
    pixels = images(10)
    write_pngs(tmp_path, pixels)
    decoded = []
    decode = module.read_image
    monkeypatch.setattr(module, "read_image", lambda file: decoded.append(file.name) or decode(file))
    files = ImageFiles(tmp_path)
    assert (len(files), files.shape, decoded) == (10, (10, 3, 6, 6), [])
    part = files[8:20]
    assert sorted(decoded) == ["008.png", "009.png"]
    assert part.dtype == torch.uint8
    assert torch.equal(part, torch.from_numpy(pixels[8:].transpose(0, 3, 1, 2)))
    assert files[10:].shape == (0, 3, 6, 6)


@pytest.mark.parametrize("threads_from", [0, 10**9])
def test_images_keep_their_order_and_faults_with_threads_and_without(threads_from, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "THREADS_FROM", threads_from)
    pixels = images(40)
    files = ImageFiles(write_pngs(tmp_path, pixels))
    assert torch.equal(files[:], torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
    damaged = tmp_path / "017.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(TrilemmaError, match=r"017\.png is damaged"):
        files[10:30]


def test_each_image_is_decoded_once_whatever_is_measured(tmp_path, monkeypatch):
    """Features, the hash and the modes come from one pass, for the digits that have them."""
    decoded = []
    decode = module.read_image
    folder = write_pngs(
        tmp_path / "digits", open_dataset("digits").load("test").samples[:20].permute(0, 2, 3, 1).numpy()
    )
    monkeypatch.setattr(module, "read_image", lambda file: decoded.append(file.name) or decode(file))
    evaluator = Evaluator(open_dataset("digits"), registry.protocols.get("digits"), torch.device("cpu"), progress=False)
    found = evaluator.evaluate(ImageFiles(folder))
    assert sum(found.mode_histogram) == 20
    assert len(decoded) == 20


def test_features_of_image_files_are_those_of_the_images_in_memory(tmp_path):
    pixels = images(11, channels=1)
    files = ImageFiles(write_pngs(tmp_path, pixels))
    memory = torch.from_numpy(pixels.transpose(0, 3, 1, 2))
    for batch_size in (3, 256):
        hashed = HashedSamples(files)
        assert torch.equal(extract(Pixels(), hashed, batch_size), extract(Pixels(), memory))
        assert hashed.digest.hexdigest() == hashlib.sha256(memory.numpy()).hexdigest()


def test_what_a_header_shows_is_found_before_anything_is_decoded(tmp_path, monkeypatch):
    """A file of another size stops at once; a truncated one when it is its turn, and is named then."""
    write_pngs(tmp_path, images(5))
    damaged = tmp_path / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    files = ImageFiles(tmp_path)
    assert len(files[:3]) == 3
    with fails(str(damaged), "damaged"):
        extract(Pixels(), files, batch_size=2)
    Image.new("RGB", (7, 6)).save(tmp_path / "004.png")
    monkeypatch.setattr(module, "read_image", None)
    with fails("004.png is 3×6×7, 000.png is 3×6×6"):
        ImageFiles(tmp_path)


def test_own_images_that_cannot_be_a_dataset(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with fails("holds no images"):
        FolderDataset(empty)
    write_pngs(tmp_path / "mixed", images(3))
    Image.new("RGB", (6, 6)).save(tmp_path / "mixed" / "more.TIF", format="tiff")
    with fails("1 images of a kind that is not read", "more.TIF", "PNG"):
        load_samples(tmp_path / "mixed")
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
    np.savez(tmp_path / "scaled.npz", images=RNG.random((4, 6, 6, 3)))
    with fails("scaled.npz", "float64", "rint(x * 255)"):
        NpzDataset(tmp_path / "scaled.npz")
    np.savez(tmp_path / "labelled.npz", images=images(4), labels=np.arange(3))
    with fails("labelled.npz", "not 4 integers"):
        NpzDataset(tmp_path / "labelled.npz")
    for name in ("text.npz", "text.npy"):
        (tmp_path / name).write_text("hello")
        with fails(name, "damaged or not"):
            NpzDataset(tmp_path / name)
