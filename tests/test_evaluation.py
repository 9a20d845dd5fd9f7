"""What an evaluation keeps when a metric fails, and what it refuses before there are samples."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from inputs import fails, images

import trilemma_bench as tb
from trilemma_bench import registry
from trilemma_bench.contracts import DataSpec, Estimate, FeatureExtractor, GenerativeModel, Metric
from trilemma_bench.datasets import cifar10, open_dataset
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.evaluation import Evaluator, preflight
from trilemma_bench.evaluation.extractors import Extractors
from trilemma_bench.evaluation.scoring import make_score
from trilemma_bench.features.exchange import export_reference
from trilemma_bench.features.raw import Pixels
from trilemma_bench.features.reference import DatasetReference
from trilemma_bench.metrics.comparison import Comparison
from trilemma_bench.metrics.modes import MODE_KL, mode_kl_floor
from trilemma_bench.metrics.reference import Reference
from trilemma_bench.protocol import FEATURE_METRICS, Protocol, Use
from trilemma_bench.record import read_record
from trilemma_bench.report.table import tables
from trilemma_bench.suite import Suite, SuiteRun, run_suite

GENERATED = images(20, 8, 1)


def use_protocol(*metrics, **fields):
    tb.register_protocol("own")(Protocol("own", **{"extractor": "pixels", "samples": 20, "metrics": metrics, **fields}))


def use_metric(result):
    """The metric 'mine', which gives what `result` is or returns."""
    compute = result if callable(result) else lambda comparison: result
    tb.register_metric("mine")(Metric("mine", compute, "higher", "samples", "", "Mine", (-math.inf, math.inf), "here"))


def measure(tmp_path, **options):
    facts = {"dataset": "digits", "protocol": "own", "device": "cpu", "out": tmp_path / "out", "progress": False}
    return tb.evaluate(GENERATED, **{**facts, **options})


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (lambda comparison: None, "TypeError: "),
        (lambda comparison: "one\ntwo", "TypeError: "),
        (math.nan, "mine is nan"),
        (Estimate(math.inf), "mine is inf"),
        (Estimate(1.0, math.nan), "the standard error of mine is nan"),
        (Estimate(1.0, math.inf), "the standard error of mine is inf"),
        (Estimate(1.0, 1e308), "the interval of mine is -inf, inf"),
        (Estimate(1.0, 0.5, interval=(0.0, math.nan)), "the interval of mine is 0.0, nan"),
    ],
)
def test_a_metric_that_fails_leaves_the_other_scores(result, why, tmp_path):
    use_metric(result)
    use_protocol("fd", "mine", "precision")
    record = measure(tmp_path)
    assert record.scores.keys() == {"fd_pixels", "precision"}
    assert record.missing["mine"].startswith(why)
    assert "\n" not in record.missing["mine"]
    assert record.status == "complete"


def test_an_exception_in_a_metric_is_told_with_its_place(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("def compute(comparison):\n    raise ValueError('two\\nlines')\n")
    use_metric(registry.load_file(plugin).compute)
    use_protocol("mine", "fd")
    record = measure(tmp_path)
    assert record.missing == {"mine": "ValueError: two lines (mine.py:2, compute)"}
    assert "fd_pixels" in record.scores


def test_an_edited_metric_is_another_measurement(tmp_path):
    use_protocol("fd", "mine")
    records = []
    for place, value in (("first", 1), ("copy", 1), ("edited", 7)):
        plugin = tmp_path / f"{place}.py"
        plugin.write_text(f"def compute(comparison):\n    return {value}.0\n")
        with registry.metrics.isolated():
            use_metric(registry.load_file(plugin).compute)
            records.append(measure(tmp_path))
    first, copy, edited = (record.protocol.metrics for record in records)
    assert first == copy
    assert first["fd_pixels"] == edited["fd_pixels"] == "pixels"
    assert first["mine"].startswith("pixels, code ")
    assert first["mine"] != edited["mine"]
    assert len(tables(records)) == 2


def test_a_run_without_any_score_has_failed(tmp_path):
    use_metric(math.nan)
    use_protocol("mine")
    with pytest.raises(TrilemmaError, match="no score could be computed: mine is nan"):
        measure(tmp_path)
    (file,) = (tmp_path / "out").rglob("record.json")
    record = read_record(file)
    assert (record.status, record.error) == ("failed", "no score could be computed: mine is nan")


class Noise(GenerativeModel):
    """A model that is not trained, and counts what it is asked for."""

    asked = 0

    def sample(self, count, rng):
        Noise.asked += count
        return torch.rand(count, *self.data.shape, generator=rng)


@pytest.fixture
def noise(monkeypatch):
    monkeypatch.setattr(Noise, "asked", 0)
    tb.register_model("noise")(Noise)
    return Noise


def run_noise(tmp_path, dataset="digits", **options):
    facts = {"model": "noise", "protocol": "own", "device": "cpu", "out": tmp_path / "out", "progress": False}
    return tb.run(dataset=dataset, **{**facts, **options})


def exported(tmp_path, kind, count=None):
    chosen = DatasetReference(open_dataset("digits"), "train", checked_pixels(), count=count)
    return export_reference(chosen, tmp_path / f"{kind}.safetensors", kind)


def checked_pixels():
    pixels = Pixels()
    pixels.check(open_dataset("digits").spec)
    return pixels


class Untouched(FeatureExtractor):
    """Features that nothing should ask for."""

    name, dim = "untouched", 4

    def __init__(self, device):
        pass

    def __call__(self, samples):
        raise AssertionError("asked for features of a score that cannot be had")


def test_data_that_cannot_be_had_is_found_before_sampling(noise, tmp_path, monkeypatch):
    def offline(*_):
        raise TrilemmaError("CIFAR-10 could not be downloaded")

    monkeypatch.setattr(cifar10, "load_or_download", offline)
    use_protocol("fd")
    with fails("CIFAR-10 could not be downloaded"):
        run_noise(tmp_path, "cifar10")
    assert noise.asked == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("metrics", "fields", "words"),
    [
        (["inception_score"], {"extractor": "digits-cnn"}, ("reads logits", "'digits-cnn' gives features")),
        (["sfid", "fd"], {"extractor": "digits-cnn"}, ("'sfid' reads spatial", "'digits-cnn'")),
        (["recall"], {"k_precision_recall": 20}, ("recall: needs at least 21 generated samples, got 20",)),
        ([Use("fd", samples=1)], {}, ("fd_pixels: needs at least 2 generated samples, got 1",)),
        (["density"], {"reference_samples": 5}, ("density: needs at least 6 real samples", "got 5")),
        (["kid"], {"kid_subsets": 2}, ("kid: needs at least 1,000 generated samples",)),
        ([], {}, ("'own' can measure nothing here",)),
    ],
)
def test_a_request_that_cannot_work_is_refused_before_sampling(metrics, fields, words, noise, tmp_path):
    use_protocol(*metrics, **fields)
    with fails(*words, kind=UsageError):
        run_noise(tmp_path)
    assert noise.asked == 0
    assert not (tmp_path / "out").exists()


def test_modes_alone_cannot_be_measured_where_there_are_none(noise, tmp_path):
    use_protocol("modes")
    tb.register_dataset("modeless")(type("Modeless", (type(open_dataset("digits")),), {"mode_rule": lambda self: None}))
    with fails("all is of modes, and 'digits' has none", kind=UsageError):
        run_noise(tmp_path, "modeless")


@pytest.mark.parametrize("fields", [{"k_precision_recall": 0}, {"k_density_coverage": -1}, {"precision": "float16"}])
def test_a_protocol_that_no_measurement_could_follow_is_none(fields):
    with fails("protocol 'own'", str(next(iter(fields.values()))), kind=UsageError):
        Protocol("own", "pixels", samples=20, **fields)


def test_a_protocol_says_of_the_samples_what_is_done_to_them(tmp_path):
    """Images are rounded to uint8, points are not: nothing else can be asked for, nor claimed."""
    with fails("quantisation = 'floor'", kind=UsageError):
        Protocol("own", "pixels", samples=20, quantisation="floor")
    use_protocol("fd", quantisation="none")
    with fails("quantisation = 'none'", "'digits' have 'uint8;", kind=UsageError):
        measure(tmp_path)
    use_protocol("fd", extractor="points")
    with fails("quantisation = 'uint8;", "'gaussians25' have 'none'", kind=UsageError):
        run_noise(tmp_path, "gaussians25", model="real-data")


def test_uses_of_one_metric_are_named_by_what_differs(tmp_path):
    use_protocol(
        "fd", Use("fd", samples=10), Use("fd", samples=15), Use("fd", "digits-cnn"), Use("fd", reference_samples=100),
        "precision", Use("precision", "digits-cnn", 10, 100), reference_samples=200,
    )  # fmt: skip
    scores = measure(tmp_path).scores
    assert [*scores] == [
        "fd_pixels", "fd_pixels_10-samples", "fd_pixels_15-samples", "fd_digits-cnn", "fd_pixels_100-real",
        "precision", "precision_digits-cnn_10-samples_100-real",
    ]  # fmt: skip
    distances = [score.value for name, score in scores.items() if name.startswith("fd")]
    assert len(set(distances)) == len(distances)


@pytest.mark.parametrize("again", ["fd", Use("fd", "pixels"), Use("fd", samples=20)])
def test_a_metric_that_is_used_twice_alike_is_refused(again, tmp_path):
    use_protocol("fd", again)
    with fails("uses metric 'fd' twice alike, as 'fd_pixels'", kind=UsageError):
        measure(tmp_path)


def test_what_moments_cannot_give_is_said_first_and_the_rest_measured(tmp_path):
    use_protocol(*FEATURE_METRICS)
    with pytest.warns(UserWarning, match="mean and covariance only, and the features are needed") as told:
        record = measure(tmp_path, references=[exported(tmp_path, "moments")])
    (line,) = (str(warning.message) for warning in told)
    assert line.startswith("not measured: kid, precision, recall, density, coverage: the reference file of 'pixels'")
    assert record.scores.keys() == {"fd_pixels", "authenticity"}
    assert record.missing.keys() == {"kid", "precision", "recall", "density", "coverage"}
    assert record.missing["kid"] in line


def test_a_part_of_the_samples_behind_moments_cannot_be_compared_with(tmp_path):
    use_protocol("fd", reference_samples=50)
    needed = "50 of its 1,297 samples are needed: give a file of features"  # which another's .npz cannot be made into
    with fails("mean and covariance only", needed, kind=UsageError):
        measure(tmp_path, references=[exported(tmp_path, "moments")])


def test_a_reference_file_for_one_of_two_extractors_leaves_out_the_other(tmp_path):
    tb.register_extractor("untouched")(Untouched)
    use_protocol("fd", Use("precision", "untouched"))
    with pytest.warns(UserWarning, match="not measured: precision: none of the reference files holds the features of"):
        record = measure(tmp_path, references=[exported(tmp_path, "features")])
    assert record.scores.keys() == {"fd_pixels"}
    assert record.missing.keys() == {"precision"}


def test_a_record_says_which_values_a_score_can_take(tmp_path):
    use_protocol("fd", "kid", "precision", "modes", "mode_kl")
    scores = read_record(tmp_path / "out" / measure(tmp_path).place / "record.json").scores
    assert {name: score.range for name, score in scores.items()} == {
        "fd_pixels": (0.0, None), "kid": (None, None), "precision": (0.0, 1.0), "modes": (0.0, 10.0),
        "mode_kl": (0.0, math.log(10)),
    }  # fmt: skip
    assert scores["kid"].limits == (-math.inf, math.inf)
    assert (scores["modes"].ideal, scores["fd_pixels"].ideal, scores["fd_pixels"].floor) == (10, None, None)


def test_the_floor_of_mode_kl_is_of_the_samples_that_count():
    """Here half of them: those of low quality belong to no mode."""
    modes = torch.arange(100) % 5
    modes[50:] = -1
    comparison = Comparison(torch.zeros(100, 2), torch.zeros(9, 2), modes=modes, mode_count=5)
    score = make_score(MODE_KL, comparison)
    assert score.floor == mode_kl_floor(50, 5)


def test_what_can_be_measured_is_measured_without_a_word(tmp_path):
    use_protocol(*FEATURE_METRICS, "modes")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not measure(tmp_path).missing


@pytest.mark.parametrize("name", sorted({*registry.metrics.names()} - {"modes", "mode_kl", "high_quality"}))
def test_a_metric_states_the_fewest_samples_that_it_can_be_computed_of(name):
    """On either side alone: so many are enough, one less is an error."""
    metric = registry.metrics.get(name)
    protocol = Protocol("own", "pixels", samples=20, kid_subsets=3, kid_subset_size=6)
    features = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))

    def value(generated, real):
        def side():
            return Reference(features[60 - real :])

        kid = {"kid_subsets": protocol.kid_subsets, "kid_subset_size": protocol.kid_subset_size}
        return metric.estimate(Comparison(features[:generated], side, training=side, **kid)).value

    least, least_real = metric.least(protocol, 2)
    assert math.isfinite(value(least, 60))
    assert math.isfinite(value(60, max(1, least_real)))
    for too_few in [(least - 1, 60)] * (least > 1) + [(60, least_real - 1)] * (least_real > 1):
        with pytest.raises(TrilemmaError):
            value(*too_few)


def test_features_that_no_memory_holds_are_refused_before_sampling(noise, tmp_path, monkeypatch):
    """20 generated and 1,297 real images of 64 pixels, and real ones once for all metrics."""
    use_protocol("fd", "kid", "authenticity")
    needed = 4 * 64 * (20 + 1297)
    monkeypatch.setattr(preflight, "free_memory", lambda device: needed - 1)
    with fails("20 generated samples", "of cpu memory are free", "--protocol"):
        run_noise(tmp_path)
    assert noise.asked == 0
    monkeypatch.setattr(preflight, "free_memory", lambda device: needed)
    assert run_noise(tmp_path).scores
    given = exported(tmp_path, "features")
    use_protocol("fd", "kid", title="mapped from its file")
    monkeypatch.setattr(preflight, "free_memory", lambda device: 4 * 64 * 20)
    assert run_noise(tmp_path, references=[given]).scores


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes of memory are free."""
    return lambda count: monkeypatch.setattr(preflight, "free_memory", lambda device: count)


def test_moments_take_features_in_passing_until_they_are_cached(noise, tmp_path, free):
    """20 generated and 1,297 real images of 64 pixels in float32, and 64×64 numbers in float64."""
    use_protocol("fd")
    stays, passes = 4 * 64 * 20 + 8 * 64**2, 4 * 64 * 1297
    for enough in (stays + passes, stays):
        free(enough - 1)
        with fails("of cpu memory are free"):
            run_noise(tmp_path)
        free(enough)
        assert run_noise(tmp_path).scores.keys() == {"fd_pixels"}


def test_one_pass_for_moments_is_over_before_the_next(free):
    """The digit classifier has 64 features, too."""
    own = Protocol("own", "pixels", samples=20, metrics=("fd", Use("fd", "digits-cnn")))
    needed = 2 * (4 * 64 * 20 + 8 * 64**2) + 4 * 64 * 1297
    free(needed)
    assert not Evaluator(open_dataset("digits"), own, torch.device("cpu")).missing
    free(needed - 1)
    with fails("of cpu memory are free"):
        Evaluator(open_dataset("digits"), own, torch.device("cpu"))


def test_an_extractor_is_loaded_once_for_each_kind_of_data_and_precision():
    """Its number of features is the data's."""
    extractors, protocol = Extractors(torch.device("cpu")), Protocol("own", "pixels", samples=20)
    small, large = DataSpec((1, 8, 8)), DataSpec((3, 28, 28))
    first = extractors.of(protocol, small)["pixels"]
    assert extractors.of(protocol, large)["pixels"].dim == 3 * 28 * 28
    coarse = extractors.of(replace(protocol, precision="bf16"), small)["pixels"]
    assert (coarse.precision, first.precision, first.dim) == ("bf16", "float32", 64)
    assert extractors.of(protocol, small)["pixels"] is first


@pytest.fixture
def loads(monkeypatch):
    """An entry for each time that the pixels' extractor is made."""
    made, make = [], Pixels.__init__
    monkeypatch.setattr(Pixels, "__init__", lambda self, device: made.append(device) or make(self, device))
    return made


def test_the_runs_of_a_suite_share_what_was_loaded_to_check_them(loads, tmp_path):
    use_protocol("fd")
    runs = [SuiteRun(model="real-data", dataset="digits", protocol="own", seed=seed) for seed in (0, 1)]
    result = run_suite(Suite(run=runs), lambda line: None, device="cpu", out=tmp_path / "out", progress=False)
    assert [record.seed for record in result.records] == [0, 1]
    assert len(loads) == 1


def test_a_rerun_measures_with_what_was_loaded_to_check_it(loads, tmp_path):
    use_protocol("fd")
    record = run_noise(tmp_path, model="real-data")
    loads.clear()
    options = {"device": "cpu", "out": tmp_path / "again", "progress": False, "say": lambda line: None}
    assert tb.rerun(tmp_path / "out" / record.place, **options).b.record.scores == record.scores
    assert len(loads) == 1
