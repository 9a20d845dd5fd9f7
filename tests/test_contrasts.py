"""How two rows differ in a score or a time: known answers, SciPy as an oracle, and what cannot be told."""

from __future__ import annotations

import math
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from inputs import fails
from records import make_record, make_speed, make_training, one, seeds, timed, with_errors
from scipy import stats

from trilemma_bench import statistics
from trilemma_bench.comparing import compare_runs
from trilemma_bench.contrasts import TIMES, difference, holm, time_ratio
from trilemma_bench.errors import UsageError
from trilemma_bench.grouping import over_seeds
from trilemma_bench.limits import Limit
from trilemma_bench.results import find_records
from trilemma_bench.runs import Runs
from trilemma_bench.statistics import RUNS_FREEDOM, RUNS_SD


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_independent_errors_add_in_squares():
    found = difference(one(scores={"fid": (10.0, 0.3)}), one(scores={"fid": (11.0, 0.4)}), "fid")
    assert found.value == 1
    assert found.interval == pytest.approx((1 - 0.98, 1 + 0.98), rel=1e-4)
    assert found.p == pytest.approx(2 * stats.norm.sf(2.0), rel=1e-4)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 7), (5, 4)])
def test_over_seeds_it_is_welchs_test(sizes, rng):
    a, b = (rng.normal(5, sd, size) for sd, size in zip((1.0, 0.2), sizes, strict=True))
    oracle = stats.ttest_ind(b, a, equal_var=False)
    found = difference(seeds(a), seeds(b, first=200), "fid")
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert found.interval == pytest.approx(tuple(oracle.confidence_interval()), rel=1e-6)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_single_training_against_seeds_is_taken_to_vary_as_they_do(swapped):
    a, b = one(scores={"fid": (5.0, 0.1)}), seeds([6.0, 6.4, 6.2])
    assert a.covers == "sampling only: the same trained model"
    assert b.covers == "training and sampling (3 seeds)"
    found = difference(b, a, "fid") if swapped else difference(a, b, "fid")
    error, value = 0.2 * math.sqrt(1 + 1 / 3), -1.2 if swapped else 1.2
    half = stats.t.ppf(0.975, 2) * error
    assert found.interval == pytest.approx((value - half, value + half), rel=1e-4)
    assert found.p == pytest.approx(2 * stats.t.sf(1.2 / error, 2), rel=1e-6)
    assert "prediction interval" in found.method


def test_one_more_training_of_the_same_recipe_rarely_differs(rng):
    found = [
        difference(one(scores={"fid": (rng.normal(50, 1), 0.1)}), seeds(rng.normal(50, 1, 3)), "fid").p < 0.05
        for _ in range(400)
    ]
    # 5 % of 400 is 20; the binomial's standard deviation is 4.4
    assert sum(found) <= 33


def test_the_errors_of_the_samples_are_never_undercut():
    a, b = (seeds([5.0, 5.0, 5.0], error=0.3), seeds([5.9, 5.9, 5.9], error=0.4))
    found = difference(a, b, "fid")
    error = 0.5 / math.sqrt(3)
    assert found.interval == pytest.approx((0.9 - 1.96 * error, 0.9 + 1.96 * error), rel=1e-4)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.9 / error), rel=1e-3)
    single = difference(one(scores={"fid": (5.0, 0.3)}), b, "fid")
    assert single.p == pytest.approx(2 * stats.norm.sf(0.9 / math.hypot(0.3, 0.4 / math.sqrt(3))), rel=1e-3)


def test_a_run_without_a_training_has_its_samples_errors_alone():
    a, b = one(scores={"fid": (5.0, 0.1)}, training=None), seeds([6.0, 6.4, 6.2])
    error = 0.2 / math.sqrt(3)
    freedom = (0.1**2 + error**2) ** 2 / (error**4 / 2)
    half = stats.t.ppf(0.975, freedom) * math.hypot(0.1, error)
    assert difference(a, b, "fid").interval == pytest.approx((1.2 - half, 1.2 + half), rel=1e-4)


def test_the_same_trained_models_on_both_sides_are_paired():
    a, b = [5.0, 9.0, 7.0, 6.0], [5.5, 9.4, 7.7, 6.4]
    oracle = stats.ttest_rel(b, a)
    found = difference(seeds(a), Runs(seeds(b).records[::-1]), "fid")  # by their weights, not by their places
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert found.interval == pytest.approx(tuple(oracle.confidence_interval()), rel=1e-6)
    assert found.method.startswith("paired t")
    assert difference(seeds(a), seeds(b, first=1), "fid").method.startswith("Welch's t")


@pytest.mark.parametrize(("share", "interval"), [(1.0, (0.996, 1.0)), (0.0, (0.0, 0.004))])
def test_no_difference_is_never_a_verdict(share, interval):
    """One side's error is 0 where its range ends."""

    def side(count, **changes):
        score = with_errors({"precision": (share, 0.0)})["precision"].model_copy(update={"interval": interval})
        return Runs(seeds([0.0] * count, scores={"precision": score}, **changes).records)

    for a, b in ((3, 1), (1, 3), (1, 1), (3, 3)):
        finding = compare_runs(side(a), side(b, first=5))["precision"]
        assert (finding.contrast.value, finding.contrast.p) == (0, 1)
        assert finding.verdict == "no difference shown"


def test_a_share_of_one_has_the_error_of_its_interval():
    perfect = with_errors({"precision": (1.0, 0.0)})
    perfect["precision"] = perfect["precision"].model_copy(update={"interval": (0.96, 1.0)})
    runs = Runs((make_record(scores=perfect),))
    lower = one(scores={"precision": (0.97, 0.01)})
    assert difference(lower, runs, "precision").p == pytest.approx(
        2 * stats.norm.sf(0.03 / math.hypot(0.01, 0.04 / 1.96)), rel=1e-3
    )


def share_of(hits, count):
    """A run with a share, its standard error and its Wilson interval, as metrics give them."""
    share = hits / count
    interval = tuple(stats.binomtest(hits, count).proportion_ci(method="wilson"))
    score = with_errors({"precision": (share, math.sqrt(share * (1 - share) / count))})["precision"]
    score = score.model_copy(update={"interval": interval})
    return Runs((make_record(scores={"precision": score}),))


@pytest.mark.parametrize(
    ("b", "a", "interval"), [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090))]
)
def test_shares_differ_as_in_newcombes_examples(b, a, interval):
    """Newcombe 1998, table II, method 10."""
    one, other = share_of(*a), share_of(*b)
    there, back = difference(one, other, "precision"), difference(other, one, "precision")
    assert there.interval == pytest.approx(interval, abs=5e-5)
    assert back.interval == pytest.approx((-interval[1], -interval[0]), abs=5e-5)
    assert there.p == pytest.approx(back.p)


def test_two_draws_of_one_share_differ_as_often_as_the_level_says(rng):
    """Near 1, too, where the standard error is too wide on the side of the interval that is short."""
    draws = rng.binomial(500, 0.98, size=(1500, 2))
    p = [difference(share_of(a, 500), share_of(b, 500), "precision").p for a, b in draws]
    # 5 % of 1500 is 75; the binomial's standard deviation is 8.4
    assert 50 <= np.sum(np.array(p) < 0.05) <= 92


def test_a_side_without_room_has_the_standard_error():
    """24 of 25 modes, of which none was narrowly missed."""
    score = with_errors({"modes": (24.0, 0.04)})["modes"].model_copy(update={"interval": (23.93, 24.0)})
    runs = Runs((make_record(scores={"modes": score}),))
    assert runs.sampling_error("modes", up=True) == 0.04
    assert runs.sampling_error("modes", up=False) == pytest.approx(0.07 / 1.96, rel=1e-3)


@pytest.mark.parametrize(("b", "a"), [((56, 70), (48, 80)), ((3, 20), (200, 2000)), ((200, 2000), (3, 20))])
def test_the_interval_of_shares_ends_at_0_where_its_p_says_so(b, a):
    """By the error on the side of 0, be it the larger of the two or the smaller."""
    found = difference(share_of(*a), share_of(*b), "precision")
    assert found.method == "errors of the samples, by the side of each interval that faces the other"
    towards = found.value - found.interval[0] if found.value > 0 else found.interval[1] - found.value
    assert found.p == pytest.approx(2 * stats.norm.sf(1.96 * abs(found.value) / towards), rel=1e-3)


@pytest.mark.parametrize("p", [0.05, 0.01, 0.005])
def test_the_error_of_ten_splits_is_no_surer_than_welchs_test(p):
    """Of an inception score, whose interval is Student's: at the levels of verdicts and of tables of ten rows."""

    def side(value):
        half = stats.t.ppf(0.975, 9) * 0.1
        score = with_errors({"inception_score": (value, 0.1)})["inception_score"]
        score = score.model_copy(update={"interval": (value - half, value + half)})
        return Runs((make_record(scores={"inception_score": score}),))

    value = stats.t.isf(p / 2, 18) * 0.1 * math.sqrt(2)
    assert p < difference(side(8.0), side(8.0 + value), "inception_score").p < 1.4 * p


def test_values_that_do_not_vary_say_nothing_of_their_error():
    found = difference(seeds([25, 25, 25]), seeds([24, 24, 24]), "fid")
    assert (found.value, found.p, found.interval) == (-1, None, None)
    assert "do not vary" in found.reason


def test_without_an_error_there_is_a_difference_and_no_verdict():
    bare = Runs((make_record(scores={"fid": 6.0}),))
    (finding,) = compare_runs(one(), bare).scores
    assert (finding.contrast.value, finding.verdict) == (1, "")
    assert finding.contrast.reason == "no error is known of B"


def test_the_same_samples_on_both_sides_have_no_error_of_sampling():
    first, again, other = (one(samples_sha256=each * 64, scores={"fid": (10.0, 0.3)}) for each in "aab")
    (finding,) = compare_runs(first, again).scores
    assert (finding.contrast.value, finding.contrast.interval, finding.verdict) == (0, (0, 0), "")
    assert finding.contrast.reason == "A and B are the same samples, bit for bit"
    assert compare_runs(first, other).scores[0].p_holm == 1
    assert difference(seeds([25, 25]), seeds([25, 25]), "fid").p == 1  # records without a hash of their samples


def test_a_score_that_one_side_lacks_says_why():
    lacking = Runs((make_record(scores={}, missing={"fid": "N is below D"}),))
    finding = compare_runs(one(), lacking)["fid"]
    assert (finding.b, finding.contrast.value, finding.verdict) == (None, None, "")
    assert "N is below D" in finding.contrast.reason


@pytest.mark.parametrize(
    ("name", "a", "b", "verdict"),
    [
        ("fid", 5.0, 9.0, "A is better"),
        ("fid", 9.0, 5.0, "B is better"),
        ("recall", 0.2, 9.0, "B is better"),
        ("recall", 9.0, 0.2, "A is better"),
        ("density", 0.2, 1.1, "B is better"),
        ("fid", 5.0, 5.1, "no difference shown"),
        ("authenticity", 0.2, 9.0, "they differ"),
    ],
)
def test_the_verdict_knows_which_way_is_better(name, a, b, verdict):
    finding = compare_runs(one(scores={name: (a, 0.3)}), one(scores={name: (b, 0.3)}))[name]
    assert finding.verdict == verdict


def test_holms_correction_of_a_known_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_many_scores_ask_for_more():
    names = ("fid", "kid", "recall", "density")
    a = one(scores=dict.fromkeys(names, (5.0, 0.1)))
    b = one(scores={**dict.fromkeys(names, (5.0, 0.1)), "fid": (5.3, 0.1)})
    finding = compare_runs(a, b)["fid"]
    assert finding.contrast.p < 0.05 < finding.p_holm
    assert finding.contrast.interval[0] > 0
    assert finding.verdict == "no difference shown"


# times


def timed_runs(medians):
    records = [timed([m] * 5).records[0] for m in medians]
    changes = ({"seed": i, "training": make_training(checkpoint_sha256=str(i))} for i in range(len(records)))
    return Runs(tuple(r.model_copy(update=c) for r, c in zip(records, changes, strict=True)))


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (1, 4), (5, 2)])
def test_by_the_runs_alone_it_is_students_test_of_medians(sizes, rng, monkeypatch):
    """Of one against several it is the prediction interval of one more run."""
    monkeypatch.setattr(statistics, "RUNS_FREEDOM", 0.0)
    a, b = (rng.lognormal(0, 0.2, size) for size in sizes)
    oracle = stats.ttest_ind(np.log(b), np.log(a))
    found = time_ratio(timed_runs(a), timed_runs(b), "seconds_per_image")
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert found.interval == pytest.approx(tuple(np.exp(oracle.confidence_interval())), rel=1e-6)


def test_a_variance_is_moderated_as_limmas_is():
    """Smyth 2004: (d₀s₀² + d·s²) / (d₀ + d), with d₀ + d degrees of freedom."""
    a, b = [1.0, 1.2, 1.1], [1.3, 1.0]
    squares = 3 * np.log(a).var() + 2 * np.log(b).var()
    freedom = RUNS_FREEDOM + 3
    error = math.sqrt((RUNS_FREEDOM * RUNS_SD**2 + squares) / freedom * (1 / 3 + 1 / 2))
    found = time_ratio(timed_runs(a), timed_runs(b), "seconds_per_image")
    assert found.p == pytest.approx(2 * stats.t.sf(abs(math.log(found.value)) / error, freedom), rel=1e-6)
    half = stats.t.ppf(0.975, freedom) * error
    assert np.log(found.interval) == pytest.approx((math.log(found.value) - half, math.log(found.value) + half))


@pytest.mark.parametrize("ratio", [1 / 1.7, 1.0, 1.7])
def test_single_runs_that_differ_as_those_of_one_model_do_have_no_verdict(ratio, rng):
    times = rng.lognormal(0, 0.005, 20)
    comparison = compare_runs(timed(times), timed(ratio * times))
    finding = comparison["seconds_per_image"]
    assert finding.verdict == "no difference shown"
    assert finding.contrast.interval[0] < 1 < finding.contrast.interval[1]
    assert "12 % by which runs of one model scatter" in str(comparison)
    assert "give several runs a side" in str(comparison)
    assert not Limit.parse("seconds_per_image>1.0").broken_by(comparison)


@pytest.mark.parametrize(("count", "ratio"), [(1, 2.5), (2, 1.8), (3, 1.6), (5, 1.35)])
def test_the_more_runs_the_smaller_the_ratio_that_is_shown(count, ratio):
    medians = np.linspace(0.9, 1.1, 5)[:count]
    comparison = compare_runs(timed_runs(medians), timed_runs(ratio * medians))
    assert comparison["seconds_per_image"].contrast.value == pytest.approx(ratio)
    assert comparison["seconds_per_image"].verdict == "A is better"


def test_forty_times_as_fast_is_shown_by_two_runs_that_hardly_agree():
    fast, slow = timed_runs([1.0, 1.8]), timed_runs([40.0, 90.0])
    assert compare_runs(fast, slow)["latency_seconds"].verdict == "A is better"
    assert compare_runs(slow, fast)["latency_seconds"].verdict == "B is better"


def test_the_other_way_round_it_is_the_inverse():
    a, b = timed_runs([1.0, 1.2]), timed_runs([1.9])
    there, back = time_ratio(a, b, "seconds_per_image"), time_ratio(b, a, "seconds_per_image")
    assert (there.value, there.p) == pytest.approx((1 / back.value, back.p))
    assert there.interval == pytest.approx((1 / back.interval[1], 1 / back.interval[0]))


def test_raw_times_that_scatter_take_a_verdict_away():
    calm, wild = [3.0] * 20, [0.3, 5.7] * 10  # of one median
    assert compare_runs(timed([1.0] * 20), timed(calm))["seconds_per_image"].verdict == "A is better"
    assert compare_runs(timed([1.0] * 20), timed(wild))["seconds_per_image"].verdict == "no difference shown"


@pytest.mark.parametrize("noise", ["normal", "heavy tails"])
@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (1, 3), (3, 3)])
def test_runs_of_one_model_rarely_differ(sizes, noise, rng):
    """Where the noise of machines is what the prior says of it: √(s₀² d₀ / χ²) with d₀ degrees of freedom."""

    def medians(size, sd):
        draws = rng.normal(size=size) if noise == "normal" else rng.standard_t(4, size) / math.sqrt(2)
        return np.exp(sd * draws)

    found = [
        time_ratio(*(timed_runs(medians(size, sd)) for size in sizes), "seconds_per_image").p < 0.05
        for sd in RUNS_SD * np.sqrt(RUNS_FREEDOM / rng.chisquare(RUNS_FREEDOM, 400))
    ]
    # 5 % of 400 is 20; the binomial's standard deviation is 4.4
    assert sum(found) <= 33
    assert noise != "normal" or sum(found) >= 7


def test_one_network_trained_in_three_ways_has_one_speed():
    """The rows that stand in this repository, GAN, WGAN-GP and relativistic, over their seeds."""
    folder = Path(__file__).parents[1] / "results"
    for dataset in ("gaussians25", "digits"):
        records = [record for _, record in find_records([folder / dataset / "gan"]).records]
        sides = over_seeds(record for record in records if record.status == "complete")
        assert [len(runs) for runs in sides] == [3, 3, 3]
        for (a, b), field in product(combinations(sides, 2), TIMES):
            assert time_ratio(a, b, field).p > 0.05, (dataset, a.record.label, b.record.label, field)


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        (timed([0.0] * 8), "a time is 0"),
        (timed([1.0] * 8, device="H200"), "device: H200, not cpu"),
        (one(), "B: not timed"),
        (timed([1.0] * 8, model="real-data"), "B: not timed"),
    ],
)
def test_times_that_cannot_be_compared_say_why(b, reason):
    found = time_ratio(timed([1.0, 1.2, 1.1]), b, "seconds_per_image")
    assert found.p is None
    assert reason in found.reason


def test_another_device_takes_away_the_speed_only():
    comparison = compare_runs(timed([1.0] * 8), timed([1.0] * 8, device="H200"))
    assert comparison["fid"].verdict == "no difference shown"
    assert comparison["seconds_per_image"].verdict == ""


def test_a_busy_machine_takes_away_the_verdict_on_times_only():
    idle = timed([1.0] * 8, processor_share=0.99)
    comparison = compare_runs(idle, timed([2.2] * 8, processor_share=0.45))
    finding = comparison["seconds_per_image"]
    assert (finding.a, finding.b, finding.contrast.interval, finding.verdict) == (1.0, 2.2, None, "")
    assert finding.contrast.value == pytest.approx(2.2)
    assert finding.contrast.reason.startswith("B was timed on a busy machine: it got 45 %")
    assert "no verdict: B was timed on a busy machine" in str(comparison)
    assert comparison["fid"].verdict == "no difference shown"
    with fails("busy machine", kind=UsageError):
        Limit.parse("seconds_per_image>1.1").broken_by(comparison)


def test_a_gpu_that_others_used_takes_away_the_verdict_on_times_only():
    comparison = compare_runs(timed([1.0] * 8, others_memory_bytes=0), timed([2.2] * 8, others_memory_bytes=77 * 2**30))
    assert comparison["seconds_per_image"].contrast.reason.startswith(
        "B was timed on a shared GPU: other programs held 77.0 GiB of it"
    )
    assert comparison["fid"].verdict == "no difference shown"
    alone = compare_runs(timed([1.0] * 8), timed([2.2] * 8, others_memory_bytes=2**29))
    assert alone["seconds_per_image"].verdict == "A is better"


@pytest.mark.parametrize("share", [0.9, 1.0, None])
def test_a_machine_that_was_not_busy_or_does_not_tell_has_a_verdict(share):
    comparison = compare_runs(timed([1.0] * 8, processor_share=1.0), timed([2.2] * 8, processor_share=share))
    assert comparison["seconds_per_image"].verdict == "A is better"


def test_a_single_busy_seed_makes_the_times_of_all_doubtful():
    records = [
        make_record(seed=seed, training=None, speed=make_speed(1.0, 4, processor_share=share, others_memory_bytes=held))
        for seed, (share, held) in enumerate([(1.0, None), (0.5, 3), (None, 2)])
    ]
    (runs,) = over_seeds(records)
    assert (runs.record.speed.processor_share, runs.record.speed.others_memory_bytes) == (0.5, 3)
    idle = Runs((make_record(training=None, speed=make_speed(1.0, 4)),))
    assert "A was timed on a busy machine" in time_ratio(runs, idle, "latency_seconds").reason
