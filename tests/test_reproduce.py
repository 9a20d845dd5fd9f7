"""Claims as checks: the exact denoising distribution, the verdicts, and that nothing passes by default."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import refuses
from records import make_record

from trilemma_bench.config import configs_dir
from trilemma_bench.nn.schedules import vp_betas
from trilemma_bench.record import Score
from trilemma_bench.reproduce import denoising, figures, page
from trilemma_bench.reproduce.claims import Check, Claim, Findings, Missing, Verdict, clearly_above, judge
from trilemma_bench.reproduce.ddgan_paper import CLAIMS, SCHEDULES
from trilemma_bench.suite import read_suite


def score(value, error=0.01):
    return Score(value=value, better="higher", unit="", title="", standard_error=error)


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

    def test_clearly_is_by_more_than_the_error_of_the_difference(self):
        assert clearly_above(score(0.53), score(0.50))
        assert not clearly_above(score(0.52), score(0.50))
        assert not clearly_above(score(0.50), score(0.53))

    @pytest.mark.parametrize(
        ("ours", "error", "outcome"),
        [
            (10.0, 0.1, "reproduced"),
            (11.5, 0.1, "reproduced"),
            (12.4, 0.1, "not reproduced"),
            (10.0, 3.0, "not reproduced"),  # few samples are no pass
            (10.0, None, "not checked at this scale"),
        ],
    )
    def test_quality_like_diffusions_must_be_shown(self, ours, error, outcome):
        claim = next(each for each in CLAIMS if each.number == "C6")
        name = "fd_cifar-resnet56"
        scores = {"cifar10-ddgan": (ours, error), "cifar10-ddim": (10.0, 0.1)}
        runs = {
            run: make_record(scores={name: score(value).model_copy(update={"standard_error": sure})})
            for run, (value, sure) in scores.items()
        }
        assert judge(claim, Findings(runs), "gpu").outcome == outcome

    @pytest.mark.parametrize("unsure", [0, 1])
    def test_nothing_is_clear_without_an_error(self, unsure):
        pair = [score(0.9), score(0.1)]
        pair[unsure] = pair[unsure].model_copy(update={"standard_error": None})
        with pytest.raises(Missing, match="the standard error of"):
            clearly_above(*pair)

    @pytest.mark.parametrize(
        ("number", "times", "outcome"),
        [
            ("C1", {"score-sde-ve": 2100.0}, "reproduced"),
            ("C1", {"score-sde-ve": 500.0}, "not reproduced"),
            ("C1", {"score-sde-ve": 9000.0}, "not reproduced"),
            ("C2", {"ddpm": 250.0, "ddim": 12.0}, "reproduced"),
            ("C2", {"ddpm": 250.0, "ddim": 90.0}, "not reproduced"),
            ("C3", {"stylegan2": 0.2}, "reproduced"),
            ("C3", {"stylegan2": 0.05}, "not reproduced"),
        ],
    )
    def test_speed_claims(self, number, times, outcome):
        claim = next(each for each in CLAIMS if each.number == number)
        assert judge(claim, Findings(seconds={"ddgan": 1.0, **times}), "cpu").outcome == outcome

    @pytest.mark.parametrize(("gaussian", "outcome"), [(0.1, "reproduced"), (0.6, "not reproduced")])
    def test_few_gaussian_steps(self, gaussian, outcome):
        runs = {
            "ddgan": make_record(scores={"modes": score(25.0), "high_quality": score(0.8)}),
            "ddpm": make_record(scores={"high_quality": score(0.9)}),
            "ddpm-4": make_record(scores={"high_quality": score(gaussian)}),
        }
        claim = next(each for each in CLAIMS if each.number == "C4")
        assert judge(claim, Findings(runs), "cpu").outcome == outcome

    def test_the_exact_claim(self):
        claim = next(each for each in CLAIMS if each.number == "C11")
        assert judge(claim, Findings(multimodal={1000: 0.0, 4: 0.6}), "cpu").outcome == "reproduced"
        assert judge(claim, Findings(multimodal={1000: 0.2, 4: 0.6}), "cpu").outcome == "not reproduced"


def test_the_suite_has_a_run_for_every_name_that_a_claim_asks_for():
    """A claim that finds all it asks for at the CPU's scale never says that something was not measured."""
    asked = set()

    class Recorder(Findings):
        def score(self, run, name):
            asked.add(run)
            return score(1.0)

        def time(self, system):
            return 1.0

    for claim in CLAIMS:
        if not claim.needs_gpu:
            judge(claim, Recorder(multimodal=dict.fromkeys(SCHEDULES, 0.0)), "cpu")
    suite = read_suite(configs_dir() / "suites" / "ddgan-paper-cpu.toml")
    assert asked <= {run.name for run in suite.run}
    assert len({run.name for run in suite.run}) == len(suite.run)


def test_the_page_escapes_and_says_all(tmp_path):
    claim = Claim("C0", "<b>fast</b>", "2 s", "rule & more", lambda found: Check(True, ""))
    times = {"ddgan": {"nfe": 4.0, "parameters": 1e6, "seconds": 0.5}}
    verdicts = [Verdict(claim, "not reproduced", "3 s")]
    written = page.write(page.Outcome("A paper", "cpu", "a CPU", verdicts, times, {"a.png": "A figure"}), tmp_path)
    html = written.read_text()
    assert "&lt;b&gt;fast&lt;/b&gt;" in html
    assert "not reproduced" in html
    assert json.loads((tmp_path / "claims.json").read_text())["claims"][0]["verdict"] == "not reproduced"
    assert "**not reproduced**" in (tmp_path / "claims.md").read_text()


def test_reasons_that_someone_wrote_stand_beside_the_verdicts(tmp_path):
    (tmp_path / "reasons.toml").write_text('C0 = "too <few> steps"\n')
    page.write(page.Outcome("A paper", "cpu", "a CPU", [], {}, {}), tmp_path)
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
