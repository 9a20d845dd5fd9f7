"""Others' reference files: what an .npz holds is taken as it is, or refused in words."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import scipy.linalg
import torch
from inputs import fails
from reference_files import DIM, RNG, gaussian, imported, opened, write_npz
from toys import Counting, Toy, pixels

from trilemma_bench.errors import UsageError
from trilemma_bench.features import cache
from trilemma_bench.features.exchange import export_reference, open_references
from trilemma_bench.features.reference import DatasetReference
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.frechet import FD, frechet_distance, moments
from trilemma_bench.metrics.neighbours import PRECISION


@pytest.fixture
def extractor():
    return Counting.of_toys()


@pytest.fixture
def known(extractor):
    return DatasetReference(Toy(), "train", extractor)


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


def test_spatial_moments_that_are_exported_can_be_imported(extractor, tmp_path):
    extractor.outputs = "features", "spatial"
    extractor.compute = lambda samples, outputs: dict.fromkeys(outputs, extractor(samples) / 2)
    known = DatasetReference(Toy(), "train", extractor, "spatial")
    source = export_reference(known, tmp_path / "stats.npz")
    found = opened(imported(source, extractor, output="spatial"), extractor, "spatial")
    np.testing.assert_allclose(found.moments.mean, pixels().double().mean(0) / 2, rtol=1e-6)
    assert torch.equal(found.moments.covariance, known.moments.covariance)


def test_an_import_says_where_it_came_from_and_leaves_the_cache_alone(extractor, tmp_path):
    source = write_npz(tmp_path / "stats.npz", **gaussian())
    facts = cache.load(imported(source, extractor))[1]
    assert facts["source"] == f"stats.npz sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"
    names = ("dataset", "dataset_name", "split", "samples", "extractor", "kind")
    assert [facts[name] for name in names] == ["unknown", "toy", "train", "500", "pixels", "moments"]
    assert not cache.folder().exists()


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


def test_of_an_imported_reference_the_name_is_compared(extractor, tmp_path, recwarn):
    path = imported(write_npz(tmp_path / "stats.npz", **gaussian()), extractor)
    open_references([path], {"pixels": extractor}, Toy(seed=5), "train")
    assert not recwarn
    other = Toy()
    other.name = "another"
    with pytest.warns(UserWarning, match="a reference of 'toy', not of 'another'"):
        open_references([path], {"pixels": extractor}, other, "train")
