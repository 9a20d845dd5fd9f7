"""Named protocols: what they fix is registered, is measured from end to end, and stands in the record."""

from __future__ import annotations

import re
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from inputs import REAL_DATA, fails, images, needs_real_data
from PIL import Image

import trilemma_bench as tb
from trilemma_bench import registry
from trilemma_bench.contracts import FeatureExtractor, Metric
from trilemma_bench.datasets import open_dataset
from trilemma_bench.errors import UsageError
from trilemma_bench.evaluation import Evaluator
from trilemma_bench.evaluation.evaluator import COPIES
from trilemma_bench.features import cache, extraction
from trilemma_bench.features.exchange import export_reference
from trilemma_bench.features.raw import Pixels
from trilemma_bench.features.reference import DatasetReference
from trilemma_bench.grouping import comparable
from trilemma_bench.images import save_pairs
from trilemma_bench.metrics import frechet
from trilemma_bench.metrics.reference import subset_rows
from trilemma_bench.protocol import Protocol, Use
from trilemma_bench.record import ProtocolPart, read_record
from trilemma_bench.report.notes import protocol_facts
from trilemma_bench.weights import sha256_of

RESULTS = Path(__file__).parent.parent / "results"
CPU = torch.device("cpu")
PUBLISHED = {
    "paper": ["fid", "inception_score", "precision", "recall"],
    "adm": ["fid", "sfid", "inception_score", "precision", "recall"],
    "clean": ["fd_inception-clean", "kid"],
    "dinov2": [
        "fd_dinov2-vitl14", "fd_infinity_dinov2-vitl14", "kid", "precision", "recall", "density", "coverage",
        "authenticity", "vendi",
    ],
    "cmmd": ["cmmd"],
}  # fmt: skip


class Projection(FeatureExtractor):
    """Stands for any extractor: a fixed random projection of the pixels, 6 wide, for every output."""

    dim = 6
    outputs = ("features", "logits", "spatial")
    weights_sha256 = "0" * 64

    def __init__(self, name, device):
        self.name = name

    def __call__(self, samples):
        return self.compute(samples, ["features"])["features"]

    def compute(self, samples, outputs):
        flat = samples.flatten(1).float() / 255
        rng = torch.Generator().manual_seed(len(self.name))
        return {output: flat @ torch.randn(flat.shape[1], self.dim, generator=rng) for output in outputs}


@pytest.fixture
def own_images(tmp_path):
    """A dataset of 60 training images, and 40 generated ones."""
    np.savez(tmp_path / "train.npz", images=images(60, 8))
    np.savez(tmp_path / "test.npz", images=images(8, 8))
    return f"npz:{tmp_path}", images(40, 8)


@pytest.mark.parametrize("name", registry.protocols.names())
def test_a_protocol_uses_what_is_registered(name):
    protocol = registry.protocols.get(name)
    assert protocol.name == name
    assert protocol.title
    for use in protocol.uses:
        extractor = registry.extractors.get(use.extractor)
        assert registry.metrics.get(use.metric).output in extractor.outputs


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_protocol_is_measured_from_end_to_end(name, own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.extractors, "get", lambda extractor: partial(Projection, extractor))
    protocol = replace(registry.protocols.get(name), kid_subsets=3, kid_subset_size=20)
    monkeypatch.setattr(registry.protocols, "get", lambda _: protocol)
    dataset, generated = own_images
    record = tb.evaluate(generated, dataset=dataset, protocol=name, out=tmp_path / "out", progress=False)
    assert list(record.scores) == PUBLISHED[name]
    assert not record.missing
    facts = record.protocol
    assert set(facts.extractors) == set(protocol.extractors)
    assert all(part.weights_sha256 == "0" * 64 for part in facts.extractors.values())
    assert facts.reference_sha256 == record.dataset.fingerprint


def test_a_record_has_a_place_for_every_field_of_a_protocol():
    told_otherwise = {
        "reference": "reference_split",
        "kid_subsets": "kid",
        "kid_subset_size": "kid",
        "title": "name",
        "precision": "extractors",
    }
    for field in fields(registry.protocols.get("paper")):
        assert told_otherwise.get(field.name, field.name) in ProtocolPart.model_fields


def test_a_named_precision_is_measured_recorded_cached_and_ranked_apart(own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.extractors, "get", lambda extractor: partial(Projection, extractor))
    dataset, generated = own_images
    exact, lower = (
        tb.evaluate(
            generated, dataset=dataset, protocol="cmmd", feature_precision=precision, name=str(precision),
            device="cpu", out=tmp_path / "out", progress=False,
        )
        for precision in (None, "bf16")
    )  # fmt: skip
    assert [record.protocol.extractors["clip-vit-b-32"].precision for record in (exact, lower)] == ["float32", "bf16"]
    shift = abs(lower.scores["cmmd"].value / exact.scores["cmmd"].value - 1)
    assert 1e-6 < shift < 0.1  # eight bits of each factor, both sides of the comparison
    assert len({entry.name for entry in cache.entries()}) == 2
    one, other = comparable([exact, lower])
    assert one.differences(other) == ["extractors · clip-vit-b-32 · precision: float32, not bf16"]
    assert "in bf16, weights 000000000000" in dict(protocol_facts(other))["features"]
    assert "bf16" not in dict(protocol_facts(one))["features"]


def test_the_record_says_what_libraries_settle_differently(own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.extractors, "get", lambda extractor: partial(Projection, extractor))
    metrics = ("fd", "kid", "inception_score", "precision", "density", "authenticity", "vendi", "fd_infinity")
    monkeypatch.setattr(registry.protocols, "get", lambda _: Protocol("own", "one", samples=40, metrics=metrics))
    record = tb.evaluate(
        own_images[1], dataset=own_images[0], protocol="own", device="cpu", out=tmp_path / "out", progress=False
    )
    assert record.protocol.metrics == {
        "fd_one": "one",
        "kid": "one, kernel (x·y / D + 1)³, unbiased",
        "inception_score": "one:logits, 10 splits, shuffled",
        "precision": "one, distance ≤ radius",
        "density": "one, distance < radius",
        "authenticity": "one, all of the train split, distance > the training sample's to its nearest other",
        "vendi": "one, cosine kernel, order 1",
        "fd_infinity_one": "one, 15 nested sizes n from max(N/10, 2D) to N, a line in 1/n at 0",
    }


def test_the_record_says_which_subset_of_the_reference_it_is(own_images, tmp_path, monkeypatch):
    """Also one that was written before it said so."""
    monkeypatch.setattr(registry.protocols, "get", lambda _: Protocol("own", "pixels", samples=40, reference_samples=9))
    record = tb.evaluate(own_images[1], dataset=own_images[0], protocol="own", out=tmp_path / "out", progress=False)
    said = record.protocol.reference_subset
    seed = int(re.fullmatch(r"the first M of torch.randperm with seed (\d+)", said)[1])
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(seed))[:9]
    assert torch.equal(subset_rows(60, 9), rows)
    assert ProtocolPart.model_fields["reference_subset"].default == said


def test_the_record_says_how_kid_draws_its_subsets():
    assert Protocol("own", "one", 9).kid == "all pairs"
    said = registry.protocols.get("clean").kid
    assert said == "100 subsets of 1000, NumPy's choice with seed 2020"


PLUGIN = """
import torch
from trilemma_bench.contracts import FeatureExtractor
from sibling import scale


class Mine(FeatureExtractor):
    name, dim = "mine", 3

    def __init__(self, device):
        pass

    def __call__(self, samples):
        return scale(samples.flatten(2).float().mean(dim=2))
"""


def test_an_extractor_of_edited_code_is_another(own_images, tmp_path, monkeypatch):
    (tmp_path / "plug.py").write_text(PLUGIN)
    (tmp_path / "sibling.py").write_text("def scale(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sibling", raising=False)
    known = registry.load_file(tmp_path / "plug.py").Mine
    monkeypatch.setattr(registry.extractors, "get", lambda name: known if name == "mine" else Pixels)
    protocol = Protocol("own", "mine", samples=40, metrics=("fd", Use("precision", "pixels")))
    monkeypatch.setattr(registry.protocols, "get", lambda _: protocol)
    options = {"dataset": own_images[0], "protocol": "own", "device": "cpu", "progress": False}
    before = tb.evaluate(own_images[1], **options, out=tmp_path / "a")
    (tmp_path / "sibling.py").write_text("def scale(x):\n    return 2 * x\n")
    monkeypatch.setattr(sys.modules["sibling"], "scale", lambda x: 2 * x)
    monkeypatch.setattr(sys.modules[known.__module__], "scale", lambda x: 2 * x)
    after = tb.evaluate(own_images[1], **options, out=tmp_path / "b")
    assert after.scores["fd_mine"].value == pytest.approx(4 * before.scores["fd_mine"].value)
    with fails("cannot be compared", "B has extractors · mine · code: ", kind=UsageError):
        tb.compare(tmp_path / "a", tmp_path / "b")
    code = after.protocol.extractors["mine"].code
    assert f"mine, code {code[:12]}" in dict(protocol_facts(comparable([after])[0]))["features"]
    assert after.protocol.extractors["pixels"].code is None


def test_references_of_different_sizes_are_told_apart(own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.extractors, "get", lambda extractor: partial(Projection, extractor))
    protocol = Protocol("two", "one", samples=40, metrics=("fd", Use("precision", "other")), title="two features")
    monkeypatch.setattr(registry.protocols, "get", lambda _: protocol)
    dataset = open_dataset(own_images[0])
    for name, count in (("one", None), ("other", 10)):
        chosen = DatasetReference(dataset, "train", Projection(name, "cpu"), count=count)
        export_reference(chosen, tmp_path / f"{name}.safetensors", "features")
    files = [tmp_path / "one.safetensors", tmp_path / "other.safetensors"]
    record = tb.evaluate(
        own_images[1], dataset=own_images[0], protocol="two", references=files, out=tmp_path / "out", progress=False
    )
    assert not record.missing
    assert record.protocol.reference_samples == 60
    assert {name: part.model_dump() for name, part in record.protocol.references.items()} == {
        name: {
            "dataset": dataset.name,
            "fingerprint": dataset.fingerprint(),
            "split": "train",
            "samples": samples,
            "sha256": sha256_of(file),
            "source": "",
        }
        for name, samples, file in zip(("one", "other"), (60, 10), files, strict=True)
    }
    shown = dict(protocol_facts(comparable([record])[0]))["samples"]
    assert shown == f"40 generated against 60 of given references ({dataset.name} train)"
    texts = record.protocol.metrics.values()
    assert [*texts] == [
        "one, 60 of its given reference",
        "other, 10 of its given reference, distance ≤ radius",
    ]


def test_memorisation_is_of_the_training_data_whatever_the_reference(own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.extractors, "get", lambda extractor: partial(Projection, extractor))
    protocol = Protocol("own", "one", samples=40, metrics=("fd", "authenticity"))
    monkeypatch.setattr(registry.protocols, "get", lambda _: protocol)
    dataset = open_dataset(own_images[0])
    export_reference(
        DatasetReference(dataset, "train", Projection("one", "cpu"), count=10), tmp_path / "ten.safetensors", "features"
    )
    plain, given = (
        tb.evaluate(
            own_images[1], dataset=own_images[0], protocol="own", references=files, out=tmp_path / "out", progress=False
        )
        for files in ([], [tmp_path / "ten.safetensors"])
    )
    assert plain.scores["authenticity"] == given.scores["authenticity"]
    assert given.protocol.metrics == {
        "fd_one": "one, 10 of its given reference",
        "authenticity": "one, all of the train split, distance > the training sample's to its nearest other",
    }
    assert given.scores["fd_one"] != plain.scores["fd_one"]


def test_an_extractor_has_the_name_that_it_is_registered_by(own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.extractors, "get", lambda extractor: partial(Projection, "another"))
    with pytest.raises(UsageError, match="'pixels' calls itself 'another'"):
        tb.evaluate(own_images[1], dataset=own_images[0], protocol="pixels", out=tmp_path / "out", progress=False)


def test_a_distance_that_no_memory_holds_leaves_the_other_scores(own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(frechet, "free_memory", lambda device: 10**5)
    record = tb.evaluate(
        own_images[1], dataset=own_images[0], protocol="pixels", device="cpu", out=tmp_path / "out", progress=False
    )
    assert "192 features needs" in record.missing["fd_pixels"]
    assert {"kid", "precision", "recall", "coverage"} <= record.scores.keys()


def test_a_score_without_an_interval_says_why(own_images, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.extractors, "get", lambda extractor: partial(Projection, extractor))
    simple = Metric("width", lambda comparison: 6.0, "higher", "features", "", "Width", (0.0, 9.0), "here")
    known = registry.metrics.get
    monkeypatch.setattr(registry.metrics, "get", lambda name: simple if name == "width" else known(name))
    protocol = Protocol("own", "one", samples=10, metrics=("inception_score", "width", "precision"))
    monkeypatch.setattr(registry.protocols, "get", lambda _: protocol)
    scores = tb.evaluate(
        own_images[1][:10], dataset=own_images[0], protocol="own", out=tmp_path / "out", progress=False
    ).scores
    assert [(scores[name].interval, scores[name].note) for name in ("inception_score", "width")] == [
        (None, "too few samples for an interval"),
        (None, "the metric gives no interval"),
    ]
    assert scores["precision"].interval
    assert scores["precision"].note == ""


def test_too_few_samples_for_an_interval_is_said_beside_another_note(own_images, tmp_path, monkeypatch):
    protocol = Protocol("own", "pixels", samples=3, metrics=("fd",))
    monkeypatch.setattr(registry.protocols, "get", lambda _: protocol)
    record = tb.evaluate(own_images[1][:3], dataset=own_images[0], protocol="own", out=tmp_path / "out", progress=False)
    score = record.scores["fd_pixels"]
    assert score.interval is None
    assert score.note.startswith("strongly biased")
    assert score.note.endswith("; too few samples for an interval")


def test_one_sample_is_not_measured(own_images, tmp_path):
    with pytest.raises(UsageError, match="1 given or asked for, and at least 2"):
        tb.evaluate(own_images[1][:1], dataset=own_images[0], protocol="pixels", out=tmp_path / "out", progress=False)


def test_tf32_needs_cuda(own_images, tmp_path):
    options = {"dataset": own_images[0], "protocol": "pixels", "feature_precision": "tf32", "device": "cpu"}
    with pytest.raises(UsageError, match="tf32 need a CUDA device, this is cpu"):
        tb.evaluate(own_images[1], **options, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_adm_compares_neighbours_with_fewer_references_than_the_distance():
    uses = {use.metric: use for use in registry.protocols.get("adm").uses}
    assert uses["fd"].reference_samples is None
    assert uses["recall"] == Use("recall", "inception", reference_samples=10_000)


def test_all_pairs_that_are_kept_have_a_place_in_the_picture(tmp_path):
    one = torch.zeros(COPIES, 1, 1, 1, dtype=torch.uint8)
    save_pairs(one, one, tmp_path / "pairs.png", pixels=1)
    width, height = Image.open(tmp_path / "pairs.png").size  # of a pair 2 and 4: lines beside and below its two pixels
    assert (width // 2) * (height // 4) == COPIES


def test_the_pairs_nearest_to_the_training_set_are_drawn(own_images, tmp_path):
    dataset, generated = own_images
    copied = np.load(tmp_path / "train.npz")["images"][7]
    generated[5] = copied
    record = tb.evaluate(generated, dataset=dataset, protocol="pixels", out=tmp_path / "out", progress=False)
    assert record.scores["authenticity"].value < 1
    sheet = np.asarray(Image.open(next((tmp_path / "out").rglob("nearest.png"))))
    factor = sheet.shape[1] // (6 * 9)  # six pairs in a row, each with a line beside it
    cells = sheet[::factor, ::factor]
    assert (cells[:8, :8] == copied).all()
    assert (cells[9:17, :8] == copied).all()


@pytest.mark.parametrize("batch_size", [7, 500])
@pytest.mark.parametrize("protocol", ["pixels", "digits"])
def test_scores_do_not_depend_on_the_batch(protocol, batch_size, tmp_path, monkeypatch):
    """Not in their last digit: as a network's features are, always computed in blocks of one size."""
    generated = open_dataset("digits").load("test").samples[:200]
    options = {"dataset": "digits", "protocol": protocol, "progress": False}
    whole = tb.evaluate(generated, **options, out=tmp_path / "a")
    monkeypatch.setenv("TRILEMMA_CACHE_DIR", str(tmp_path / "another-cache"))
    original = extraction._batches
    monkeypatch.setattr(extraction, "_batches", lambda samples, _, *rest: original(samples, batch_size, *rest))
    parts = tb.evaluate(generated, **options, out=tmp_path / "b")
    assert parts.scores == whole.scores


@needs_real_data
def test_cifar10s_test_split_against_its_training_split(monkeypatch):
    """The whole real thing, 10,000 against 50,000, equals the committed record.

    Features are float32, so another machine moves distances by some 1e-5 of their size, and shares by a sample or two.
    """
    monkeypatch.setenv("TRILEMMA_DATA_DIR", REAL_DATA)
    monkeypatch.setenv("TRILEMMA_WEIGHTS_DIR", f"{REAL_DATA}/weights")
    committed = read_record(next((RESULTS / "cifar10" / "test-split").glob("*/record.json")))
    dataset = open_dataset("cifar10")
    evaluator = Evaluator(dataset, registry.protocols.get("cifar-resnet56"), CPU, progress=False)
    found = evaluator.evaluate(dataset.load("test").samples)
    assert found.samples_sha256 == committed.samples_sha256
    assert set(found.scores) == set(committed.scores)
    for name, score in committed.scores.items():
        is_share = score.unit == "share"
        tolerance = {"abs": 3e-4} if is_share else {"rel": 1e-3}
        assert found.scores[name].value == pytest.approx(score.value, **tolerance), name
