"""The claims of 'Tackling the Generative Learning Trilemma with Denoising Diffusion GANs' (Xiao, Kreis, Vahdat 2022).

The rules were written before anything was measured. Names of runs are those of `configs/suites/ddgan-paper-*.toml`.
"""

from __future__ import annotations

from trilemma_bench.reproduce.claims import Check, Claim, Findings, Missing, Truth, every, lies, ratio_text, reaches

TITLE = "Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao, Kreis & Vahdat, ICLR 2022)"
SCHEDULES = (1000, 8, 4, 2, 1)  # numbers of steps of which the exact denoising distribution is looked at
FACTOR = 2.0  # a published ratio of times is reproduced within this factor
MARGIN = 1.25  # a distance is competitive if it is less than so many times the other's; the published one is 1.17 times
STEPS = (2, 4, 8)
ALL_MODES = 25  # of the Gaussians


def against_score_sde(found: Findings) -> Check:
    ratio = found.ratio("score-sde-ve", "ddgan")
    return Check(lies(ratio, 2015 / FACTOR, 2015 * FACTOR), f"{ratio_text(ratio)} times")


def against_diffusion(found: Findings) -> Check:
    ddpm, ddim = (found.ratio(name, "ddgan") for name in ("ddpm", "ddim"))
    holds = [lies(ratio, published / FACTOR, published * FACTOR) for ratio, published in ((ddpm, 383), (ddim, 19))]
    return Check(every(*holds), f"DDPM {ratio_text(ddpm)} times, 50-step DDIM {ratio_text(ddim)} times")


def against_stylegan2(found: Findings) -> Check:
    ratio = found.ratio("ddgan", "stylegan2")
    return Check(lies(ratio, high=5 * FACTOR), f"{ratio_text(ratio)} times slower")


def few_steps(found: Findings) -> Check:
    all_modes = reaches(found.score("ddgan", "modes"), ALL_MODES)
    fewer = lies(found.excess("ddpm-4", "ddgan", "high_quality", share=0.5), high=0)
    ours, gaussian, full = (found.text(run, "high_quality") for run in ("ddgan", "ddpm-4", "ddpm"))
    modes = found.text("ddgan", "modes")
    text = f"high quality of DDGAN {ours}, with {modes} modes; of DDPM {gaussian} in 4 steps, {full} in 1000"
    return Check(every(all_modes, fewer), text)


def gan_drops_modes(found: Findings) -> Check:
    pairs = [(f"{kind}ddgan", f"{kind}gan") for kind in ("", "stacked-")]
    more = [above(found, ours, theirs, "modes") for ours, theirs in pairs]
    text = "; ".join(
        f"{found.text(ours, 'modes')} against {found.text(theirs, 'modes')} {where}"
        for (ours, theirs), where in zip(pairs, (f"of {ALL_MODES}", "of 1000"), strict=True)
    )
    holds = every(reaches(found.score("ddgan", "modes"), ALL_MODES), *more)
    return Check(holds, f"modes of DDGAN against the GAN's: {text}")


def quality_of_diffusion(found: Findings) -> Check:
    pair, name = ("cifar10-ddgan", "cifar10-ddim"), "fd_cifar-resnet56"
    holds = lies(found.excess(*pair, name, share=MARGIN), high=0)
    ours, theirs = (found.text(run, name) for run in pair)
    return Check(holds, f"FD {ours} against {theirs} (DDIM)")


def better_coverage(found: Findings) -> Check:
    pair = ("digits-ddgan", "digits-gan")
    ours, theirs = (found.text(run, "recall") for run in pair)
    return Check(above(found, *pair, "recall"), f"recall on digits {ours} against {theirs} (GAN)")


def several_steps(found: Findings) -> Check:
    fd, recall = _runs_by_steps("ddgan"), _runs_by_steps("digits-ddgan")
    worse = [above(found, fd[1], fd[steps], "fd_points") for steps in STEPS]
    better = [above(found, recall[steps], recall[1], "recall") for steps in STEPS]
    text = ", ".join(
        f"T={steps}: {found.text(fd[steps], 'fd_points')} and {found.text(recall[steps], 'recall')}"
        for steps in (1, *STEPS)
    )
    return Check(every(*worse, *better), f"FD on the Gaussians and recall on digits: {text}")


def _runs_by_steps(ddgan: str) -> dict[int, str]:
    return {1: f"{ddgan}-t1", 2: f"{ddgan}-t2", 4: ddgan, 8: f"{ddgan}-t8"}


def latent_matters(found: Findings) -> Check:
    pair = ("ddgan", "ddgan-no-z")
    with_z, without = (found.text(run, "high_quality") for run in pair)
    return Check(above(found, *pair, "high_quality"), f"high quality {with_z} with z, {without} without")


def posterior_beats_direct(found: Findings) -> Check:
    pairs = {"Gaussians": ("ddgan-direct", "ddgan", "fd_points")}
    pairs["digits"] = ("digits-ddgan-direct", "digits-ddgan", "fd_digits-cnn")
    text = "; ".join(
        f"{data} {found.text(posterior, name)} against {found.text(direct, name)}"
        for data, (direct, posterior, name) in pairs.items()
    )
    holds = every(*(above(found, *pair) for pair in pairs.values()))
    return Check(holds, f"FD, posterior against direct: {text}")


def above(found: Findings, run: str, other: str, name: str) -> Truth:
    """Whether the score `name` of `run` is above that of `other`."""
    return lies(found.excess(run, other, name), low=0)


def multimodal(found: Findings) -> Check:
    if not (shares := found.multimodal):
        raise Missing("the exact denoising distribution")
    text = ", ".join(f"T={steps}: {share:.0%}" for steps, share in shares.items())
    return Check(shares[1000] < 0.01 and shares[4] > 0.5, f"share of x_t with several modes, in the worst step: {text}")


CLAIMS = (
    Claim(
        "C1", "sampling is about 2000 times faster than the predictor–corrector sampler of Score SDE",
        "423.2 s / 0.21 s = 2015", "the ratio of times is within a factor of 2 of 2015", against_score_sde,
    ),
    Claim(
        "C2", "… about 380 times faster than DDPM, 19 times faster than 50-step DDIM",
        "80.5 s and 4.01 s / 0.21 s", "both ratios of times are within a factor of 2", against_diffusion,
    ),
    Claim(
        "C3", "… and only about 5 times slower than StyleGAN2",
        "0.21 s / 0.04 s", "at most 10 times slower", against_stylegan2,
    ),
    Claim(
        "C4", "few steps with a Gaussian fail where a multimodal denoiser works", "figure 6",
        "DDGAN covers 25 of 25 modes in 4 steps; DDPM in 4 steps has less than half of its share of high quality",
        few_steps,
    ),
    Claim(
        "C5", "a plain GAN drops modes, DDGAN does not", "figure 6; StackedMNIST 940 against 1000 modes",
        "DDGAN covers 25 of 25 modes, and more than the GAN there and on stacked digits", gan_drops_modes,
    ),
    Claim(
        "C6", "quality competitive with diffusion", "FID 3.75 against 3.21 (DDPM)",
        f"on CIFAR-10 with equal budgets, FD is clearly below {MARGIN} times DDIM's", quality_of_diffusion,
        needs_gpu=True,
    ),
    Claim(
        "C7", "better mode coverage than GANs", "recall 0.57 against 0.41–0.49 (StyleGAN2)",
        "recall on digits is clearly above the GAN's, with equal budgets", better_coverage,
    ),
    Claim(
        "C8", "several steps are needed: T = 1 is much worse, T = 2 to 8 are close",
        "FID 14.6, 4.08, 3.75, 4.36; recall 0.19, 0.54, 0.57, 0.56",
        "T = 1 is clearly worse than T = 2, 4 and 8, in FD on the Gaussians and in recall on digits", several_steps,
    ),
    Claim(
        "C9", "the latent z matters", "FID 20.6 without, 3.75 with",
        "the share of high quality on the Gaussians is clearly higher with z", latent_matters,
    ),
    Claim(
        "C10", "predicting x_0 and sampling the posterior beats predicting x_{t−1} directly", "FID 3.75 against 6.03",
        "FD is clearly lower on the Gaussians and on digits", posterior_beats_direct,
    ),
    Claim(
        "C11", "the true denoising distribution becomes multimodal as steps grow", "figure 2",
        "exact, for a mixture in one dimension: several modes for less than 1 % of x_t in every step of T = 1000, "
        "in some step of T = 4 for more than half", multimodal,
    ),
)  # fmt: skip
