"""Claims as checks: the exact denoising distribution, the verdicts, and that nothing passes by default."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import refuses, succeeds
from records import make_record, make_speed, make_training, with_errors
from scipy import stats

from trilemma_bench.config import configs_dir
from trilemma_bench.contrasts import Contrast
from trilemma_bench.nn.schedules import vp_betas
from trilemma_bench.reproduce import denoising, figures, page, run
from trilemma_bench.reproduce.claims import Check, Claim, Findings, Missing, Verdict, every, judge, lies, reaches
from trilemma_bench.reproduce.ddgan_paper import CLAIMS, SCHEDULES
from trilemma_bench.reproduce.timing import System
from trilemma_bench.results import find_records
from trilemma_bench.runs import Runs
from trilemma_bench.suite import read_suite


def one(**scores):
    """A run with these scores, each with a standard error of 0.01 or that of a pair."""
    pairs = {name: value if isinstance(value, tuple) else (value, 0.01) for name, value in scores.items()}
    return Runs((make_record(scores=with_errors(pairs)),))


def over_seeds(name, values, first=0):
    """Runs with other weights each."""
    runs = (with_errors({name: (value, 0.01)}) for value in values)
    weights = (make_training(checkpoint_sha256=f"{first + seed:064d}") for seed in range(len(values)))
    pairs = enumerate(zip(runs, weights, strict=True))
    return Runs(tuple(make_record(seed=seed, scores=scores, training=training) for seed, (scores, training) in pairs))


def without_error(runs, name):
    (record,) = runs.records
    score = record.scores[name].model_copy(update={"standard_error": None, "interval": None})
    return Runs((record.model_copy(update={"scores": {**record.scores, name: score}}),))


def number(claim):
    return next(each for each in CLAIMS if each.number == claim)


class TestDenoising:
    def test_the_chain_is_the_papers(self):
        betas = [step.beta for step in denoising.chain(4)]
        assert np.allclose(betas, vp_betas(4, 0.1, 20.0).numpy(), atol=1e-12)

    def test_without_noise_before_it_is_the_posterior_of_two_gaussians(self):
        """q(x_0 | x_1) of a mixture is a mixture: weights, means and variance in closed form."""
        step, x_t = denoising.Step(1.0, 0.5), 0.3
        signal = (1 - step.beta) ** 0.5
        variance = 1 / (1 / denoising.STD**2 + signal**2 / step.beta)
        means = variance * (denoising.MEANS / denoising.STD**2 + signal * x_t / step.beta)
        evidence = signal**2 * denoising.STD**2 + step.beta
        weights = np.exp(-0.5 * (x_t - signal * denoising.MEANS) ** 2 / evidence)
        weights /= weights.sum()
        expected = sum(
            w * np.exp(-0.5 * (denoising.GRID - m) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
            for w, m in zip(weights, means, strict=True)
        )
        assert np.allclose(denoising.denoising(step, x_t), expected, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("bar", [1.0, 0.9, 0.3])
    def test_the_marginal_is_that_of_noisy_data(self, bar):
        """E x² = ᾱ (1 + σ²) + 1 − ᾱ, and the modes at ±√ᾱ."""
        places = np.linspace(-8, 8, 16001)
        density = denoising.marginal(places, bar)
        moments = [(places**power * density).sum() * 1e-3 for power in (0, 1, 2)]
        assert moments == pytest.approx([1, 0, bar * (1 + denoising.STD**2) + 1 - bar], abs=1e-9)
        assert bar < 0.9 or abs(places[density.argmax()]) == pytest.approx(bar**0.5, abs=1e-3)

    def test_what_is_denoised_has_the_marginal_before(self):
        """∫ q(x_{t−1} | x_t) q(x_t) dx_t = q(x_{t−1})."""
        step, places = denoising.chain(8)[1], np.linspace(-6, 6, 601)
        weights = denoising.marginal(places, step.alpha_bar * (1 - step.beta)) * (places[1] - places[0])
        found = sum(w * denoising.denoising(step, float(x_t)) for w, x_t in zip(weights, places, strict=True))
        assert np.allclose(found, denoising.marginal(denoising.GRID, step.alpha_bar), rtol=0, atol=2e-3)

    def test_modes_are_counted(self):
        def bumps(*centres):
            return sum(np.exp(-0.5 * (denoising.GRID - centre) ** 2 / 0.01) for centre in centres)

        assert [denoising.modes(bumps(*centres)) for centres in ((0.0,), (-1.0, 1.0), (-1.0, 0.0, 1.0))] == [1, 2, 3]
        assert denoising.modes(bumps(0.0) + 0.01 * bumps(1.0)) == 1

    def test_shares_agree_with_draws(self):
        step = denoising.chain(8)[1]
        rng = np.random.default_rng(0)
        bar = step.alpha_bar * (1 - step.beta)
        x_0 = rng.choice(denoising.MEANS, 300) + denoising.STD * rng.standard_normal(300)
        draws = bar**0.5 * x_0 + (1 - bar) ** 0.5 * rng.standard_normal(300)
        share = np.mean([denoising.modes(denoising.denoising(step, float(x))) > 1 for x in draws])
        assert denoising.multimodal_share(step) == pytest.approx(share, abs=0.09)

    def test_the_figure_shows_every_schedule_and_gives_its_shares(self, tmp_path):
        shares = figures.figure_2((100, 4), tmp_path / "figure.png")
        assert shares[100] < 0.01
        assert shares[4] > 0.5
        assert (tmp_path / "figure.png").stat().st_size > 10_000


class TestVerdicts:
    def claim(self, holds=True, needs_gpu=False):
        return Claim("C0", "", "", "", lambda found: Check(holds, "so much"), needs_gpu)

    def test_a_check_decides(self):
        assert judge(self.claim(True), Findings(), "cpu").outcome == "reproduced"
        assert judge(self.claim(False), Findings(), "cpu").outcome == "not reproduced"

    def test_a_gpus_claim_is_not_checked_on_a_cpu(self):
        assert judge(self.claim(needs_gpu=True), Findings(), "cpu").outcome == "not checked at this scale"
        assert judge(self.claim(needs_gpu=True), Findings(), "gpu").outcome == "reproduced"

    @pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.number)
    def test_without_findings_nothing_passes(self, claim):
        verdict = judge(claim, Findings(), "gpu")
        assert verdict.outcome == "not checked at this scale"
        assert "not measured" in verdict.measured

    def test_what_is_missing_is_named(self):
        with pytest.raises(Missing, match="ddgan: recall"):
            Findings().score("ddgan", "recall")
        with pytest.raises(Missing, match="gan: recall"):
            Findings({"ddgan": one(recall=0.5)}).excess("ddgan", "gan", "recall")
        with pytest.raises(Missing, match="time of gan"):
            Findings(speeds={"ddgan": [make_speed(1.0, 4)]}).ratio("ddgan", "gan")

    @pytest.mark.parametrize(
        ("interval", "truth"),
        [
            ((1.1, 1.9), True),
            ((0.9, 1.9), None),
            ((1.1, 2.1), None),
            ((0, 3), None),
            ((0, 0.9), False),
            ((2, 3), False),
        ],
    )
    def test_an_interval_decides_where_all_of_it_lies_on_one_side(self, interval, truth):
        assert lies(Contrast(1.5, interval, method="t"), 1.0, 2.0) is truth

    @pytest.mark.parametrize(
        ("truths", "truth"),
        [([True, True], True), ([True, None], None), ([None, False], False), ([False, True], False)],
    )
    def test_a_rule_holds_where_every_part_of_it_does(self, truths, truth):
        assert every(*truths) is truth

    @pytest.mark.parametrize(("value", "error", "truth"), [(25, 0.0, True), (24, 1.0, None), (20, 1.0, False)])
    def test_a_score_reaches_what_its_interval_holds(self, value, error, truth):
        assert reaches(one(modes=(value, error)).record.scores["modes"], 25) is truth

    @pytest.mark.parametrize(
        ("ours", "outcome"), [(0.53, "reproduced"), (0.51, "undecided"), (0.47, "not reproduced")]
    )  # the error of the difference is 0.0141
    def test_a_difference_decides_by_more_than_its_error(self, ours, outcome):
        runs = {"digits-ddgan": one(recall=ours), "digits-gan": one(recall=0.50)}
        assert judge(number("C7"), Findings(runs), "cpu").outcome == outcome

    def test_over_seeds_it_is_their_spread_that_decides(self):
        """One training of each is 'clearly' better; three of each are not."""
        pairs = {"digits-ddgan": [0.80, 0.40, 0.60], "digits-gan": [0.50, 0.52, 0.48]}
        single = {name: over_seeds("recall", values[:1]) for name, values in pairs.items()}
        several = {name: over_seeds("recall", values, first=len(name)) for name, values in pairs.items()}
        assert judge(number("C7"), Findings(single), "cpu").outcome == "reproduced"
        assert judge(number("C7"), Findings(several), "cpu").outcome == "undecided"
        oracle = stats.ttest_ind(*pairs.values(), equal_var=False).confidence_interval()
        excess = Findings(several).excess("digits-ddgan", "digits-gan", "recall")
        assert excess.interval == pytest.approx(tuple(oracle), rel=1e-6)

    @pytest.mark.parametrize(
        ("ours", "error", "outcome"),
        [
            (10.0, 0.1, "reproduced"),
            (11.5, 0.1, "reproduced"),
            (12.4, 0.1, "undecided"),
            (12.9, 0.1, "not reproduced"),
            (10.0, 3.0, "undecided"),  # few samples are no pass
        ],
    )
    def test_quality_like_diffusions_must_be_shown(self, ours, error, outcome):
        name = "fd_cifar-resnet56"
        runs = {"cifar10-ddgan": one(**{name: (ours, error)}), "cifar10-ddim": one(**{name: (10.0, 0.1)})}
        assert judge(number("C6"), Findings(runs), "gpu").outcome == outcome

    @pytest.mark.parametrize("unsure", ["digits-ddgan", "digits-gan"])
    def test_nothing_is_decided_without_an_error(self, unsure):
        runs = {"digits-ddgan": one(recall=0.9), "digits-gan": one(recall=0.1)}
        runs[unsure] = without_error(runs[unsure], "recall")
        verdict = judge(number("C7"), Findings(runs), "cpu")
        assert verdict.outcome == "not checked at this scale"
        assert "no error is known" in verdict.measured

    def test_all_modes_on_both_sides_are_no_more_on_one(self):
        """Neither number has an error, and that is no reason to say nothing."""
        full, fewer = one(modes=(25, 0.0)), one(modes=(900.0, 1.0))
        runs = {"ddgan": full, "gan": full, "stacked-ddgan": one(modes=(990.0, 1.0)), "stacked-gan": fewer}
        assert judge(number("C5"), Findings(runs), "cpu").outcome == "not reproduced"

    @pytest.mark.parametrize(
        ("claim", "seconds", "outcome"),
        [
            ("C1", {"score-sde-ve": 2100.0}, "reproduced"),
            ("C1", {"score-sde-ve": 1050.0}, "undecided"),  # the limit is 1007.5
            ("C1", {"score-sde-ve": 500.0}, "not reproduced"),
            ("C1", {"score-sde-ve": 9000.0}, "not reproduced"),
            ("C2", {"ddpm": 300.0, "ddim": 15.0}, "reproduced"),
            ("C2", {"ddpm": 300.0, "ddim": 10.0}, "undecided"),
            ("C2", {"ddpm": 300.0, "ddim": 90.0}, "not reproduced"),
            ("C3", {"stylegan2": 0.2}, "reproduced"),
            ("C3", {"stylegan2": 0.05}, "not reproduced"),
        ],
    )
    def test_speed_claims(self, claim, seconds, outcome):
        speeds = {name: [make_speed(each, 1)] * 3 for name, each in {"ddgan": 1.0, **seconds}.items()}
        assert judge(number(claim), Findings(speeds=speeds), "cpu").outcome == outcome

    def test_times_from_a_busy_machine_decide_nothing(self):
        speeds = {"ddgan": [make_speed(1.0, 4)] * 3, "stylegan2": [make_speed(0.2, 1, processor_share=0.5)] * 3}
        verdict = judge(number("C3"), Findings(speeds=speeds), "cpu")
        assert (verdict.outcome, verdict.measured) == ("undecided", "5.00 (on a busy machine) times slower")

    def test_a_single_time_of_each_leaves_room_for_what_runs_scatter(self):
        speeds = {"ddgan": [make_speed(1.0, 4)], "stylegan2": [make_speed(0.12, 1)]}
        assert judge(number("C3"), Findings(speeds=speeds), "cpu").outcome == "undecided"

    @pytest.mark.parametrize(
        ("gaussian", "outcome"), [(0.1, "reproduced"), (0.395, "undecided"), (0.6, "not reproduced")]
    )
    def test_few_gaussian_steps(self, gaussian, outcome):
        runs = {
            "ddgan": one(modes=25.0, high_quality=0.8),
            "ddpm": one(high_quality=0.9),
            "ddpm-4": one(high_quality=gaussian),
        }
        assert judge(number("C4"), Findings(runs), "cpu").outcome == outcome

    def test_the_exact_claim(self):
        assert judge(number("C11"), Findings(multimodal={1000: 0.0, 4: 0.6}), "cpu").outcome == "reproduced"
        assert judge(number("C11"), Findings(multimodal={1000: 0.2, 4: 0.6}), "cpu").outcome == "not reproduced"


def test_the_suite_has_a_run_for_every_name_that_a_claim_asks_for():
    """A claim that finds all it asks for at the CPU's scale never says that something was not measured."""
    asked = set()

    class Recorder(Findings):
        def score(self, run, name):
            asked.add(run)
            return one(modes=1.0).record.scores["modes"]

        def excess(self, run, other, name, share=1.0):
            asked.update((run, other))
            return Contrast(1.0, (1.0, 1.0))

        def ratio(self, slow, fast):
            return Contrast(1.0, (1.0, 1.0))

    for claim in CLAIMS:
        if not claim.needs_gpu:
            judge(claim, Recorder(multimodal=dict.fromkeys(SCHEDULES, 0.0)), "cpu")
    suite = read_suite(configs_dir() / "suites" / "ddgan-paper-cpu.toml")
    assert asked <= {run.name for run in suite.run}
    assert len({run.name for run in suite.run}) == len(suite.run)


def test_a_gpu_does_all_that_a_cpu_does_and_cifar10():
    cpu, gpu = (read_suite(configs_dir() / "suites" / f"ddgan-paper-{scale}.toml").run for scale in ("cpu", "gpu"))
    assert gpu[: len(cpu)] == cpu
    assert {run.dataset for run in gpu[len(cpu) :]} == {"cifar10"}


def test_the_page_escapes_and_says_all(tmp_path):
    claim = Claim("C0", "<b>fast</b>", "2 s", "rule & more", lambda found: Check(True, ""))
    times = {"ddgan": {"nfe": 4.0, "parameters": 1e6, "seconds": 0.5, "interval": [0.4, 0.625]}}
    verdicts = [Verdict(claim, "not reproduced", "3 s")]
    written = page.write(
        page.Outcome("A paper", "cpu", "a CPU", (0, 7), verdicts, times, {"a.png": "A figure"}), tmp_path
    )
    html = written.read_text()
    assert "&lt;b&gt;fast&lt;/b&gt;" in html
    assert "not reproduced" in html
    assert json.loads((tmp_path / "claims.json").read_text())["claims"][0]["verdict"] == "not reproduced"
    markdown = (tmp_path / "claims.md").read_text()
    assert "**not reproduced**" in markdown
    assert "| ddgan | 4 | 1 M | 0.50 [0.40, 0.62] |" in markdown
    assert "over the seeds 0, 7" in markdown


def test_reasons_that_someone_wrote_stand_beside_the_verdicts(tmp_path):
    (tmp_path / "reasons.toml").write_text('C0 = "too <few> steps"\n')
    page.write(page.Outcome("A paper", "cpu", "a CPU", (0,), [], {}, {}), tmp_path)
    assert "too &lt;few&gt; steps" in (tmp_path / "claims.html").read_text()
    assert "- **C0**: too <few> steps" in (tmp_path / "claims.md").read_text()


def test_unknown_papers_and_scales_are_named(tmp_path):
    for arguments, word in ((["ddpm-paper"], "ddgan-paper"), (["ddgan-paper", "--scale", "tpu"], "cpu")):
        refuses(2, word, "reproduce", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["reproduce", "ddgan-paper"], ["suite", "demo"]])
def test_a_folder_that_the_report_may_not_have_is_refused_before_anything_is_trained(command, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("mine")
    refuses(2, "holds index.html of something else", *command, "--out", tmp_path, "--device", "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_points_are_drawn_in_panels(tmp_path):
    points = {name: torch.randn(50, 2).numpy() for name in "abcde"}
    figures.figure_6(points, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


TINY = """
[[run]]
name = "ddgan"
model = "ddgan"
dataset = "gaussians25"
samples = 200
budget = "1kimg"
set = {hidden = 8}
[[run]]
name = "ddgan-no-z"
model = "ddgan"
dataset = "gaussians25"
samples = 200
budget = "1kimg"
set = {hidden = 8, latent_dim = 0}
"""


@pytest.fixture(scope="module")
def tiny_paper(tmp_path_factory):
    """Calls the reproduction with two runs and two timed systems in the place of its own; returns what it says."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "tiny.toml").write_text(TINY)
    small = {"hidden": 8, "timing_batch": 2, "timing_repetitions": 3, "timing_seconds": 0.01}
    systems = {"ddgan": System("ddgan", small), "stylegan2": System("gan", small)}

    def reproduce():
        command = ("reproduce", "ddgan-paper", "--seeds", "0,1", "--out", folder / "out", "--device", "cpu", "--quiet")
        return succeeds(*command).output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "read_suite", lambda path: read_suite(folder / "tiny.toml"))
        patch.setitem(run.SCALES, "cpu", run.Scale("gaussians25", systems))
        yield folder / "out", reproduce


@pytest.fixture(scope="module")
def reproduced(tiny_paper):
    """(its folder, what it said, what it found)"""
    out, reproduce = tiny_paper
    said = reproduce()
    return out, said, json.loads((out / "claims.json").read_text())


def test_a_reproduction_judges_over_seeds_what_it_trained_and_timed(reproduced):
    out, said, facts = reproduced
    assert facts["seeds"] == [0, 1]
    verdicts = {each["claim"]: each for each in facts["claims"]}
    assert verdicts["C1"]["measured"] == "not measured: time of score-sde-ve"
    assert verdicts["C3"]["verdict"] != "not checked at this scale"
    assert verdicts["C9"]["verdict"] != "not checked at this scale"
    records = [record for _, record in find_records([out]).records]
    qualities = [record.scores["high_quality"].value for record in records if record.model.settings["latent_dim"]]
    shown = verdicts["C9"]["measured"].removeprefix("high quality ").split()[0]
    assert float(shown) == pytest.approx(sum(qualities) / 2, abs=0.005)
    assert [said.count(f"timing {name}, seed {seed}") for name in facts["times"] for seed in (0, 1)] == [1] * 4
    low, high = facts["times"]["ddgan"]["interval"]
    assert low < facts["times"]["ddgan"]["seconds"] < high
    assert (out / "figure-6.png").stat().st_size > 10_000


def test_a_run_whose_checkpoint_was_deleted_is_missed_in_the_figure_alone(reproduced, tiny_paper):
    out, _, facts = reproduced
    for path, record in find_records([out]).records:
        if not record.model.settings["latent_dim"]:
            (path.parent / "checkpoint.safetensors").unlink()
    _, reproduce = tiny_paper
    said = reproduce()
    assert "figure 6 is without ddgan-no-z: " in said
    assert said.count("done before") == 4
    again = json.loads((out / "claims.json").read_text())["claims"]
    assert [each["measured"] for each in again[3:]] == [each["measured"] for each in facts["claims"][3:]]
