"""Files of references: what is written is read back, what others write is understood, what cannot be is refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import scipy.linalg
import torch
from inputs import fails
from safetensors.torch import save_file
from toys import Counting, Toy, pixels

from trilemma_bench.errors import UsageError
from trilemma_bench.features import cache
from trilemma_bench.features.exchange import Claims, export_reference, import_npz, open_references
from trilemma_bench.features.raw import Pixels
from trilemma_bench.features.reference import DatasetReference, code_of
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.frechet import FD, frechet_distance, moments
from trilemma_bench.metrics.neighbours import PRECISION
from trilemma_bench.metrics.search import nearest_distances

RNG = np.random.default_rng(3)
DIM = 6


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


def gaussian(dim=DIM):
    """mu and sigma of 500 samples, as numpy has them."""
    samples = RNG.normal(size=(500, dim)) @ RNG.normal(size=(dim, dim))
    return {"mu": samples.mean(axis=0), "sigma": np.cov(samples, rowvar=False)}


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def opened(path, extractor, output="features"):
    return open_references([path], {extractor.name: extractor}, Toy(), "train")[extractor.name, output]


def imported(source, extractor, count=500, output="features"):
    return import_npz(source, source.with_suffix(".safetensors"), Claims("toy", "train", output, count), extractor)


# What is written is read back


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


# What others write


def test_an_npz_is_what_numpy_makes_of_the_features(known, tmp_path):
    with np.load(export_reference(known, tmp_path / "new" / "stats.npz"), allow_pickle=False) as file:
        assert sorted(file.files) == ["mu", "sigma"]
        assert {file[name].dtype for name in file.files} == {np.dtype("float64")}
        features = pixels().double().numpy()
        np.testing.assert_allclose(file["mu"], features.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(file["sigma"], np.cov(features, rowvar=False), rtol=1e-10, atol=1e-15)


def test_the_distance_to_an_npz_is_that_of_its_gaussian(extractor, tmp_path):
    theirs = gaussian()
    found = opened(imported(write_npz(tmp_path / "stats.npz", **theirs), extractor), extractor)
    assert (len(found), found.dim) == (500, DIM)
    generated = torch.from_numpy(RNG.normal(size=(300, DIM))).float()
    own = moments(generated)
    root = scipy.linalg.sqrtm(own.covariance.numpy() @ theirs["sigma"]).real
    expected = np.square(own.mean.numpy() - theirs["mu"]).sum() + np.trace(
        own.covariance.numpy() + theirs["sigma"] - 2 * root
    )
    assert frechet_distance(*own, *found.moments) == pytest.approx(expected, rel=1e-8)


def test_float32_moments_are_taken(extractor, tmp_path):
    theirs = {name: array.astype(np.float32) for name, array in gaussian().items()}
    found = opened(imported(write_npz(tmp_path / "stats.npz", **theirs), extractor), extractor)
    assert found.moments.mean.dtype == found.moments.covariance.dtype == torch.float64
    assert torch.equal(found.moments.covariance, found.moments.covariance.mT)


def test_metrics_that_need_features_say_why_they_cannot(extractor, tmp_path):
    found = opened(imported(write_npz(tmp_path / "stats.npz", **gaussian()), extractor), extractor)
    comparison = Comparison(pixels(), found)
    with fails("mean and covariance only", "needs features"):
        PRECISION.estimate(comparison)
    with fails(
        "mean and covariance of 500 samples",
        "the protocol compares with 100",
        "or the features",
        "another --protocol that compares with 500",
    ):
        found.subset(100)
    assert found.subset(500) is found


def test_features_of_score_sde_are_features(extractor, tmp_path):
    pool = pixels().numpy()
    source = write_npz(tmp_path / "stats.npz", pool_3=pool, mu=gaussian()["mu"])
    found = opened(imported(source, extractor, count=None), extractor)
    assert torch.equal(found.features, pixels())
    with fails("12 samples, not 500", kind=UsageError):
        imported(source, extractor, count=500)


def test_spatial_moments_of_guided_diffusion_have_their_own_names(extractor, tmp_path):
    plain, spatial = gaussian(), gaussian(5)
    source = write_npz(tmp_path / "stats.npz", **plain, mu_s=spatial["mu"], sigma_s=spatial["sigma"])
    for output, expected in (("features", plain), ("spatial", spatial)):
        found = opened(imported(source, extractor, output=output), extractor, output)
        np.testing.assert_array_equal(found.moments.mean.numpy(), expected["mu"])


def test_an_import_says_where_it_came_from_and_leaves_the_cache_alone(extractor, tmp_path):
    source = write_npz(tmp_path / "stats.npz", **gaussian())
    facts = cache.load(imported(source, extractor))[1]
    assert facts["source"] == f"stats.npz sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"
    names = ("dataset", "dataset_name", "split", "samples", "extractor", "kind")
    assert [facts[name] for name in names] == ["unknown", "toy", "train", "500", "pixels", "moments"]
    assert not cache.folder().exists()


# What is refused


def broken(name, value):
    def change(arrays):
        arrays[name].flat[4] = value
        return arrays

    return change


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (("mu holds NaN",), broken("mu", np.nan)),
        (("sigma holds NaN or infinity",), broken("sigma", np.inf)),
        (("mu holds 1e+39", "at most 3.4e+38"), broken("mu", 1e39)),
        (("sigma holds 1e+300", "at most 1.16e+77"), lambda given: {**given, "sigma": 1e300 * np.eye(DIM)}),
        (("not symmetric",), broken("sigma", 1e6)),
        (("eigenvalue -", "no covariance"), lambda given: {**given, "sigma": given["sigma"] - 1e4 * np.eye(DIM)}),
        (("mu is 6 and sigma 6×5",), lambda given: {**given, "sigma": given["sigma"][:, 1:]}),
        (("mu is 1×6",), lambda given: {**given, "mu": given["mu"][None]}),
        (("mu is one number",), lambda given: {**given, "mu": np.float64(3)}),
        (("mu is 0 and",), lambda given: {"mu": np.zeros(0), "sigma": np.zeros((0, 0))}),
        (("mu is int64",), lambda given: {**given, "mu": np.arange(DIM)}),
        (("mu is complex128",), lambda given: {**given, "mu": given["mu"] * 1j}),
        (("holds images, not mu and sigma",), lambda given: {"images": np.zeros(3)}),
        (("holds mu, not mu and sigma",), lambda given: {"mu": given["mu"]}),
        (("damaged or not", "of plain arrays", "Object arrays"), lambda given: {**given, "mu": np.array([{}] * DIM)}),
        (("5 features", "'pixels' gives 6"), lambda given: gaussian(5)),
        (("features are 6", "N×D"), lambda given: {"pool_3": given["mu"]}),
        (("features holds NaN",), lambda given: {"pool_3": np.full((500, DIM), np.nan)}),
        (("7 features", "'pixels' gives 6"), lambda given: {"pool_3": np.zeros((500, 7))}),
    ],
)
def test_an_npz_that_is_no_reference_is_refused(extractor, tmp_path, words, change):
    source = write_npz(tmp_path / "stats.npz", **change(gaussian()))
    with fails("stats.npz", *words):
        imported(source, extractor)
    assert not (tmp_path / "stats.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 half"])
def test_a_damaged_npz_is_refused(extractor, tmp_path, content):
    (tmp_path / "stats.npz").write_bytes(content)
    with fails("stats.npz", "damaged"):
        imported(tmp_path / "stats.npz", extractor)


def test_what_is_only_an_array_is_refused(extractor, tmp_path):
    with (tmp_path / "stats.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with fails("stats.npz holds arr_0, not mu and sigma"):
        imported(tmp_path / "stats.npz", extractor)


def test_the_largest_moments_of_float32_features_can_be_computed_with(extractor, tmp_path):
    largest = float(np.finfo(np.float32).max)
    source = write_npz(tmp_path / "stats.npz", mu=np.full(DIM, largest), sigma=largest**2 * np.eye(DIM))
    found = FD.estimate(Comparison(torch.randn(100, DIM), opened(imported(source, extractor), extractor)))
    assert found.value == pytest.approx(2 * DIM * largest**2)
    assert np.isfinite(found.standard_error)


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


def test_of_an_imported_reference_the_name_is_compared(extractor, tmp_path, recwarn):
    path = imported(write_npz(tmp_path / "stats.npz", **gaussian()), extractor)
    open_references([path], {"pixels": extractor}, Toy(seed=5), "train")
    assert not recwarn
    other = Toy()
    other.name = "another"
    with pytest.warns(UserWarning, match="a reference of 'toy', not of 'another'"):
        open_references([path], {"pixels": extractor}, other, "train")


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
