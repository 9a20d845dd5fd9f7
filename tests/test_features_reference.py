"""References of a dataset: computed once, kept in the cache, read only where asked for."""

from __future__ import annotations

import importlib

import pytest
import torch
from inputs import fails
from safetensors import safe_open
from toys import SIZE, Counting, Toy, cached_file, cached_files, pixels, replace

from trilemma_bench import paths, seeding
from trilemma_bench.features import reference as module
from trilemma_bench.features.raw import Pixels
from trilemma_bench.features.reference import DatasetReference
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.frechet import moments
from trilemma_bench.metrics.search import nearest_distances


@pytest.fixture
def counting():
    return Counting.of_toys()


@pytest.fixture
def calls(monkeypatch):
    """How often moments and distances were computed."""
    made = {"moments": 0, "nearest_distances": 0}

    def counted(name):
        function = getattr(module, name)

        def wrapper(*arguments):
            made[name] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, wrapper)

    for name in made:
        counted(name)
    return made


def test_a_reference_is_computed_once_and_says_what_it_is(counting, calls):
    expected = pixels()
    for _ in range(2):
        found = DatasetReference(Toy(), "train", counting)
        assert torch.equal(found.features, expected)
        assert torch.equal(found.moments.mean, moments(expected).mean)
        assert torch.equal(found.moments.covariance, moments(expected).covariance)
        assert torch.equal(found.nearest(3), nearest_distances(expected, 3))
        assert (len(found), found.dim) == (SIZE, 6)
    assert counting.seen == SIZE
    assert calls == {"moments": 1, "nearest_distances": 1}
    for kind in ("features", "moments", "nearest"):
        with safe_open(cached_file(kind), framework="pt") as file:
            facts = file.metadata()
        assert facts["dataset"] == Toy().fingerprint()
        names = ("kind", "dataset_name", "split", "samples", "extractor", "output", "weights", "resize", "precision")
        assert [facts[name] for name in names] == [
            *(kind, "toy", "train", "12", "pixels", "features", "none", "none", "float32")
        ]


def test_nothing_is_read_before_it_is_asked_for(counting, monkeypatch):
    monkeypatch.setattr(Toy, "load", None)
    DatasetReference(Toy(), "train", counting)
    assert not paths.cache_dir().exists()


def test_length_and_width_need_no_features(counting):
    assert len(DatasetReference(Toy(), "train", counting)) == SIZE
    assert len(DatasetReference(Toy(), "train", counting, count=5)) == 5
    assert len(DatasetReference(Toy(), "train", counting, count=500)) == SIZE
    assert DatasetReference(Toy(), "train", counting).dim == 6
    assert counting.seen == 0
    assert DatasetReference(Toy(), "train", counting, output="means").dim == 1
    assert counting.seen == 1
    assert not paths.cache_dir().exists()


@pytest.mark.parametrize("kind", ["moments", "nearest"])
def test_what_is_cached_needs_no_features(counting, kind):
    def ask(found):
        return found.moments.covariance if kind == "moments" else found.nearest(5)

    expected = ask(DatasetReference(Toy(), "train", counting))
    replace(cached_file("features"), b"never looked at")
    assert torch.equal(ask(DatasetReference(Toy(), "train", counting)), expected)
    assert counting.seen == SIZE


def test_more_neighbours_than_were_cached_are_computed_and_kept(counting, calls):
    first = DatasetReference(Toy(), "train", counting)
    assert first.nearest(3).shape == (SIZE, 3)
    assert first.nearest(5).shape == (SIZE, 5)
    assert calls["nearest_distances"] == 1
    assert torch.equal(DatasetReference(Toy(), "train", counting).nearest(7), nearest_distances(pixels(), 7))
    assert DatasetReference(Toy(), "train", counting).nearest(6).shape == (SIZE, 6)
    assert calls["nearest_distances"] == 2
    with fails("k=12", "got 12"):
        first.nearest(12)


def test_one_pass_gives_every_output_that_is_needed(counting):
    outputs = dict.fromkeys(("features", "squares", "means"), "features")
    for output in ("squares", "means", "features"):
        found = DatasetReference(Toy(), "train", counting, output, wanted=outputs)
        expected = {"features": pixels(), "squares": pixels().square(), "means": pixels().mean(dim=1, keepdim=True)}
        assert torch.equal(found.features, expected[output])
    assert counting.seen == SIZE
    assert torch.equal(
        DatasetReference(Toy(), "train", counting, "means").moments.mean, moments(expected["means"]).mean
    )


@pytest.mark.parametrize("first", ["features", "squares", "means"])
def test_outputs_wanted_for_their_moments_leave_no_features(counting, first):
    wanted = {"features": "moments", "squares": "features", "means": "moments"}
    expected = {"features": pixels(), "squares": pixels().square(), "means": pixels().mean(dim=1, keepdim=True)}
    for output in (first, *expected):
        found = DatasetReference(Toy(), "train", counting, output, wanted=wanted).moments
        assert torch.equal(found.mean, moments(expected[output]).mean)
        assert torch.equal(found.covariance, moments(expected[output]).covariance)
    assert counting.seen == SIZE
    assert ["squares" in path.name for path in cached_files("features")] == [True]
    assert len(cached_files("moments")) == 3


def test_of_few_samples_the_features_are_what_is_kept(counting):
    """4·N·D bytes against 8·D²."""
    found = DatasetReference(Toy(), "train", counting, count=11, wanted={"features": "moments"})
    assert torch.equal(found.moments.mean, moments(found.features).mean)
    assert (len(cached_files("features")), len(cached_files("moments"))) == (1, 0)


def test_what_it_holds_is_known_before(counting):
    """12 samples of 6 features take 4 bytes each, 6×6 numbers 8 bytes each: what stays, and what passes."""
    wanted = {"features": "moments", "squares": "features"}
    found = DatasetReference(Toy(), "train", counting, wanted=wanted)
    assert found.bytes_held("features") == (4 * 12 * 6, 0)
    assert found.bytes_held("moments") == (8 * 6**2, 4 * 12 * 6)
    assert counting.seen == 0
    _ = found.moments
    assert found.bytes_held("moments") == (8 * 6**2, 0)
    assert DatasetReference(Toy(), "train", counting, "squares", wanted=wanted).bytes_held("moments") == (4 * 12 * 6, 0)
    assert DatasetReference(Toy(), "train", counting, count=11, wanted=wanted).bytes_held("moments") == (4 * 11 * 6, 0)


def test_features_that_are_there_give_the_moments(counting):
    _ = DatasetReference(Toy(), "train", counting).features
    for count in (None, 7):
        found = DatasetReference(Toy(), "train", counting, count=count, wanted={"features": "moments"})
        assert torch.equal(found.moments.mean, moments(found.features).mean)
    assert counting.seen == SIZE


def test_a_subset_is_fixed_and_only_its_samples_are_extracted(counting):
    rows = seeding.permutation(SIZE, "reference")[:7]
    found = DatasetReference(Toy(), "train", counting, count=7)
    assert torch.equal(found.features, pixels()[rows])
    assert torch.equal(found.nearest(3), nearest_distances(pixels()[rows], 3))
    assert counting.seen == 7


def test_a_subset_comes_from_the_whole_where_that_is_known(counting):
    whole = DatasetReference(Toy(), "train", counting)
    _ = whole.features
    found = DatasetReference(Toy(), "train", counting, count=7)
    assert torch.equal(found.features, whole.subset(7).features)
    assert torch.equal(found.moments.mean, moments(found.features).mean)
    assert counting.seen == SIZE
    assert len(cached_files("features")) == 1


def test_the_moments_of_a_subset_are_not_those_of_the_whole(counting):
    whole, part = DatasetReference(Toy(), "train", counting), DatasetReference(Toy(), "train", counting, count=7)
    assert torch.equal(whole.moments.mean, moments(pixels()).mean)
    assert torch.equal(part.moments.mean, moments(part.features).mean)
    assert not torch.equal(whole.moments.mean, part.moments.mean)


def test_whatever_changes_the_features_changes_the_key(counting):
    _ = DatasetReference(Toy(), "train", counting).features
    _ = DatasetReference(Toy(seed=5), "train", counting).features
    _ = DatasetReference(Toy(), "test", counting).features
    for fact in ("weights_sha256", "resize", "name", "precision"):
        changed = Counting()
        setattr(changed, fact, "another")
        _ = DatasetReference(Toy(), "train", changed).features
    assert counting.seen == 7 * SIZE


@pytest.mark.parametrize("changed", ["extractor.py", "network.py"])
def test_changed_code_gets_new_features(counting, tmp_path, monkeypatch, changed):
    package = tmp_path / f"edited_{changed[:-3]}"
    package.mkdir()
    (package / "network.py").write_text("SCALE = 1\n")
    (package / "extractor.py").write_text(
        "from toys import Counting\nfrom .network import SCALE\nclass Mine(Counting):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    Mine = importlib.import_module(f"{package.name}.extractor").Mine
    _ = DatasetReference(Toy(), "train", Mine()).features
    _ = DatasetReference(Toy(), "train", Mine()).features
    assert counting.seen == SIZE
    with (package / changed).open("a") as file:
        file.write("OTHER = 2\n")
    _ = DatasetReference(Toy(), "train", Mine()).features
    assert counting.seen == 2 * SIZE


def typed(scale):
    """An extractor as it is typed into a notebook: of a module that no file holds."""
    namespace = {"__name__": "typed_into_a_notebook", "Counting": Counting}
    exec(f"class Mine(Counting):\n def __call__(self, samples): return super().__call__(samples) * {scale}", namespace)
    made = namespace["Mine"]()
    made.check(Toy.spec)
    return made


def test_features_of_code_that_cannot_be_read_are_not_kept():
    for scale in (1, 2):
        found = DatasetReference(Toy(), "train", typed(scale), wanted={"features": "features", "squares": "features"})
        with pytest.warns(UserWarning, match="code of extractor 'pixels' cannot be read"):
            features = found.features
        assert torch.equal(features, scale * pixels())
        assert torch.equal(found.moments.mean, moments(features).mean)
        assert torch.equal(found.nearest(3), nearest_distances(features, 3))
    assert not list(paths.cache_dir().rglob("*.safetensors"))


def test_features_that_are_not_finite_are_refused_and_not_cached(counting, monkeypatch):
    monkeypatch.setattr(Counting, "__call__", lambda self, samples: Pixels.__call__(self, samples) / 0)
    with fails("pixels", "toy", "not finite"):
        _ = DatasetReference(Toy(), "train", counting).features
    assert not cached_files("features")


def test_a_reference_of_other_width_is_refused(counting):
    with fails("7 features", "6", "one extractor"):
        Comparison(torch.zeros(3, 7), DatasetReference(Toy(), "train", counting))
    assert counting.seen == 0
