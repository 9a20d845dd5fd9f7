"""Samples that someone else made: which arrays and files are accepted, and one clear line for all else."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch
from inputs import RNG, fails, images, write_pngs

import trilemma_bench as tb
from trilemma_bench.contracts import DataSpec
from trilemma_bench.datasets import open_dataset
from trilemma_bench.datasets.cifar10 import CIFAR10
from trilemma_bench.datasets.folder import array_samples, load_samples
from trilemma_bench.datasets.mnist import MNIST
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.record import read_record


def test_the_layouts_of_image_arrays_are_the_same_samples(tmp_path):
    pixels = images(5)
    expected = torch.from_numpy(pixels.transpose(0, 3, 1, 2))
    np.save(tmp_path / "nhwc.npy", pixels)
    np.save(tmp_path / "nchw.npy", pixels.transpose(0, 3, 1, 2))
    np.savez(tmp_path / "named.npz", images=pixels)
    np.savez(tmp_path / "unnamed.npz", pixels)
    write_pngs(tmp_path / "folder", pixels)
    for name in ("nhwc.npy", "nchw.npy", "named.npz", "unnamed.npz", "folder"):
        assert torch.equal(load_samples(tmp_path / name, DataSpec((3, 6, 6)), "own")[:], expected)
    np.save(tmp_path / "grey.npy", pixels[..., 0])
    assert torch.equal(load_samples(tmp_path / "grey.npy"), expected[:, :1])


def test_points_are_read_as_float32(tmp_path):
    points = RNG.standard_normal((10, 2))
    np.savez(tmp_path / "points.npz", points=points)
    np.save(tmp_path / "points.npy", points)
    for name in ("points.npz", "points.npy"):
        samples = load_samples(tmp_path / name, open_dataset("gaussians25").spec, "gaussians25")
        assert samples.dtype == torch.float32
        assert np.array_equal(samples.numpy(), points.astype(np.float32))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (RNG.random((4, 6, 6, 3)), ("float64", "rint(x * 255)")),
        (RNG.uniform(-1, 1, (4, 3, 6, 6)).astype(np.float32), ("float32", "(x + 1) * 127.5")),
        (RNG.uniform(-1.03, 1.03, (4, 3, 6, 6)).astype(np.float32), ("(x + 1) * 127.5",)),
        (RNG.uniform(-3, 3, (4, 3, 6, 6)), ("(x + 1) * 127.5",)),
        (RNG.uniform(-0.02, 1.02, (4, 3, 6, 6)), ("x * 255",)),
        (images(4).astype(np.float32), ("rint(x)",)),
        (images(4).astype(np.int64), ("int64", "uint8")),
        (images(4) > 9, ("bool",)),
        (np.full((4, 6, 6, 3), np.nan), ("4 of 4 samples hold NaN", "number 0")),
        (np.array([[0.0, 1.0], [np.inf, 0.0]]), ("1 of 2 samples", "number 1")),
        (np.array([[0.0, 1.0], [2.0, 3.0], [0.0, -1e300]]), ("1 of 3 samples", "too large for float32", "number 2")),
        (np.zeros((0, 2)), ("0×2",)),
        (np.zeros((3, 2), np.int64), ("int64 3×2",)),
        (images(4, channels=2), ("4×6×6×2", "1 or 3 channels")),
        (images(1)[0], ("6×6×3",)),
        (np.uint8(3), ("one number",)),
        (images(0), ("0×6×6×3",)),
    ],
)
def test_arrays_that_would_have_to_be_guessed_at(array, words):
    with fails("samples", *words), warnings.catch_warnings():
        warnings.simplefilter("error")
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
    cifar, toy = CIFAR10(tmp_path).spec, open_dataset("gaussians25").spec
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
    (tmp_path / "text.txt").write_text("hello")
    with fails("text.txt is neither a folder", "give a folder of images, or an array", kind=UsageError):
        load_samples(tmp_path / "text.txt")
    for name in ("nowhere", "nowhere.npz"):
        with fails(name, "does not exist", kind=UsageError):
            load_samples(tmp_path / name)


def test_a_path_whose_bytes_are_no_text_is_recorded_with_a_question_mark(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.npy")
    np.save(path, images(100, size=8, channels=1))
    record = tb.evaluate(path, dataset="digits", out=tmp_path / "out", device="cpu", progress=False)
    assert record.model.settings["samples"] == f"{tmp_path}/caf?.npy"
    assert read_record(tmp_path / "out" / record.place / "record.json") == record


def test_two_sets_of_one_model_are_a_side_of_a_comparison(tmp_path):
    points = torch.from_numpy(RNG.standard_normal((3, 300, 2)))
    for seed in range(2):
        tb.evaluate(points[seed], dataset="gaussians25", name="theirs", seed=seed, out=tmp_path, progress=False)
    other = tb.evaluate(points[2], dataset="gaussians25", name="ours", out=tmp_path, progress=False)
    found = tb.compare(tmp_path / "gaussians25" / "theirs", tmp_path / other.place)
    assert [record.seed for record in found.a.records] == [0, 1]
    assert found.a.record.scores["recall"].interval_method.startswith("Student's t over seeds")
