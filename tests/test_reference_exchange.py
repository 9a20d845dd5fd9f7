"""Files of references: what is written is read back, what cannot be or is of something else is refused."""

from __future__ import annotations

import hashlib

import pytest
import torch
from inputs import fails
from reference_files import DIM, gaussian, imported, opened, write_npz
from safetensors.torch import save_file
from toys import Counting, Toy, pixels

from trilemma_bench.errors import UsageError
from trilemma_bench.features import cache
from trilemma_bench.features.exchange import Claims, export_reference, import_npz, open_references
from trilemma_bench.features.raw import Pixels
from trilemma_bench.features.reference import DatasetReference, code_of
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.neighbours import PRECISION
from trilemma_bench.metrics.search import nearest_distances


@pytest.fixture
def extractor():
    return Counting.of_toys()


@pytest.fixture
def known(extractor):
    return DatasetReference(Toy(), "train", extractor)


@pytest.fixture
def ours(known, tmp_path):
    """A file of ours with features and radii."""
    return export_reference(known, tmp_path / "ours.safetensors", "features", radii=True)


def test_features_come_back_as_they_were(ours, extractor, known):
    Counting.seen = 0
    found = opened(ours, extractor)
    assert torch.equal(found.features, pixels())
    assert torch.equal(found.nearest(5), nearest_distances(pixels(), 5))
    assert torch.equal(found.nearest(7), nearest_distances(pixels(), 7))
    assert torch.equal(found.moments.covariance, known.moments.covariance)
    assert found.sha256 == hashlib.sha256(ours.read_bytes()).hexdigest()
    assert Counting.seen == 0


def test_radii_in_a_file_are_not_computed_again(ours, extractor, monkeypatch):
    monkeypatch.setattr("trilemma_bench.metrics.reference.nearest_neighbours", None)
    assert torch.equal(opened(ours, extractor).nearest(5), nearest_distances(pixels(), 5))


def test_a_file_of_features_stands_for_the_split(ours, extractor, known):
    generated = pixels("test")
    expected, found = (Comparison(generated, side) for side in (known, opened(ours, extractor)))
    assert PRECISION.estimate(found) == PRECISION.estimate(expected)
    assert torch.equal(found.reference.moments.covariance, expected.reference.moments.covariance)


def test_a_subset_of_a_file_is_that_of_the_split(ours, extractor):
    part = opened(ours, extractor).subset(7)
    assert torch.equal(part.features, DatasetReference(Toy(), "train", extractor, count=7).features)


def test_moments_come_back_as_they_were(known, extractor, tmp_path):
    found = opened(export_reference(known, tmp_path / "m.safetensors"), extractor)
    assert torch.equal(found.moments.mean, known.moments.mean)
    assert torch.equal(found.moments.covariance, known.moments.covariance)
    assert (len(found), found.dim) == (len(known), DIM)


def test_moments_are_smaller_than_many_features(extractor, tmp_path, monkeypatch):
    monkeypatch.setattr("toys.SIZE", 2000)
    many = DatasetReference(Toy(), "train", extractor)
    sizes = [
        export_reference(many, tmp_path / f"{kind}.safetensors", kind).stat().st_size
        for kind in ("moments", "features")
    ]
    assert sizes[0] < sizes[1] / 10


def test_each_output_is_a_file_of_its_own(extractor, tmp_path):
    outputs = "features", "squares"
    files = [
        export_reference(
            DatasetReference(Toy(), "train", extractor, output), tmp_path / f"{output}.safetensors", "features"
        )
        for output in outputs
    ]
    found = open_references(files, {"pixels": extractor}, Toy(), "train")
    assert list(found) == [("pixels", output) for output in outputs]
    assert torch.equal(found["pixels", "squares"].features, pixels().square())


def test_a_file_is_read_and_verified_once(ours, extractor, monkeypatch):
    read, load = [], cache.load
    monkeypatch.setattr(cache, "load", lambda path: read.append(path) or load(path))
    open_references([ours], {"pixels": extractor}, Toy(), "train")
    assert read == [ours]


def test_requests_that_make_no_sense_are_named(known, ours, extractor, tmp_path):
    source = write_npz(tmp_path / "stats.npz", **gaussian())
    with fails("how many samples", "--count", kind=UsageError):
        imported(source, extractor, count=None)
    with fails("absent.npz", "does not exist", kind=UsageError):
        imported(tmp_path / "absent.npz", extractor)
    with fails("already", "--reference", kind=UsageError):
        import_npz(ours, tmp_path / "x.safetensors", Claims("toy"), extractor)
    with fails("written as .safetensors", kind=UsageError):
        import_npz(source, tmp_path / "x.npz", Claims("toy", count=500), extractor)
    with fails("moments only", "stats.safetensors", kind=UsageError):
        export_reference(known, source, "features")
    with fails("stats.csv", ".npz", kind=UsageError):
        export_reference(known, tmp_path / "stats.csv")
    with fails("stats.npz", "reference import", kind=UsageError):
        opened(source, extractor)
    with fails("absent", "does not exist", kind=UsageError):
        opened(tmp_path / "absent.safetensors", extractor)
    with fails("is a folder", kind=UsageError):
        opened(tmp_path, extractor)
    (tmp_path / "array.npy").touch()
    with fails("array.npy is no .safetensors", "reference export", kind=UsageError):
        opened(tmp_path / "array.npy", extractor)
    with fails("is a folder", "give an .npz file", kind=UsageError):
        import_npz(tmp_path, tmp_path / "x.safetensors", Claims("toy", count=500), extractor)
    with fails("radii", "moments", kind=UsageError):
        export_reference(known, tmp_path / "x.safetensors", radii=True)
    with fails("13 samples were asked for, and the train split of toy has 12", kind=UsageError):
        export_reference(DatasetReference(Toy(), "train", extractor, count=13), tmp_path / "x.safetensors")
    with fails("second reference", "pixels", kind=UsageError):
        open_references([ours, ours], {"pixels": extractor}, Toy(), "train")


@pytest.mark.parametrize("fact", ["weights_sha256", "resize", "precision"])
def test_a_reference_of_another_extractor_is_refused(ours, fact):
    other = Pixels()
    setattr(other, fact, "b" * 64)
    with fails("ours.safetensors", "another extractor", "bbbbbbbbbbbb…"):
        opened(ours, other)


def written_by(code, extractor, path):
    """A file of the extractor's features that names `code` as its own."""
    known = DatasetReference(Toy(), "train", extractor)
    cache.save(path, {**known.facts("features"), "code": code}, {"features": pixels()})
    return path


def test_a_reference_of_other_code_is_refused_where_no_weights_say_what_it_is(extractor, tmp_path):
    path = written_by("b" * 64, extractor, tmp_path / "ours.safetensors")
    with fails("ours.safetensors", "other code of extractor 'pixels'", "again"):
        opened(path, extractor)
    written_by(code_of(extractor), extractor, path)
    assert torch.equal(opened(path, extractor).features, pixels())


def test_other_code_around_equal_weights_is_a_warning(extractor, tmp_path):
    extractor.weights_sha256 = "a" * 64
    path = written_by("b" * 64, extractor, tmp_path / "ours.safetensors")
    with pytest.warns(UserWarning, match="other code of extractor 'pixels' with equal weights"):
        found = opened(path, extractor)
    assert torch.equal(found.features, pixels())


@pytest.mark.parametrize(
    ("dataset", "split", "message"),
    [
        (Toy(seed=5), "train", "'toy' of other content, not of 'toy'"),
        (Toy(), "test", "the train split, not of the test split"),
    ],
)
def test_a_reference_of_other_data_is_a_warning(ours, extractor, dataset, split, message):
    with pytest.warns(UserWarning, match=f"ours.safetensors is a reference of {message}"):
        open_references([ours], {"pixels": extractor}, dataset, split)


def test_a_reference_of_another_width_is_refused(ours, extractor):
    extractor.dim = 7
    with fails("6 features", "'pixels' gives 7"):
        opened(ours, extractor)


def test_a_file_that_the_protocol_has_no_use_for_is_refused(ours, extractor):
    with fails("'pixels'", "inception, vgg16"):
        open_references([ours], {"inception": extractor, "vgg16": extractor}, Toy(), "train")


@pytest.mark.parametrize("damage", ["cut", "bit", "fact", "text", "empty"])
def test_a_damaged_file_is_refused(ours, extractor, damage):
    whole = ours.read_bytes()
    contents = {
        "cut": whole[:-100],
        "bit": whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        "fact": whole.replace(b'"samples":"12"', b'"samples":"92"'),
        "text": b"not this",
        "empty": b"",
    }
    assert contents[damage] != whole
    ours.unlink()
    ours.write_bytes(contents[damage])
    with fails("ours.safetensors", "damaged", "again"):
        opened(ours, extractor)


def test_other_safetensors_are_refused(extractor, known, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with fails("weights.safetensors", "no reference of this version"):
        opened(path, extractor)
    _ = known.nearest(3)
    with fails("no reference"):
        opened(cache.path_of(known.facts("nearest")), extractor)


def test_a_file_with_a_right_hash_and_impossible_values_is_refused(extractor, known, tmp_path):
    path = tmp_path / "made-up.safetensors"
    for tensors, word in (
        ({"mean": torch.zeros(DIM), "covariance": -torch.eye(DIM)}, "eigenvalue"),
        ({"mean": torch.zeros(DIM)}, "no reference"),
        ({"features": torch.full((3, DIM), torch.nan)}, "NaN"),
        ({"features": torch.zeros(3, DIM), "distances": torch.zeros(4, 5)}, "4×5"),
    ):
        cache.save(path, known.facts("features"), tensors)
        with fails("made-up.safetensors", word):
            opened(path, extractor)
