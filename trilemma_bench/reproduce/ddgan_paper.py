"""The claims of 'Tackling the Generative Learning Trilemma with Denoising Diffusion GANs' (Xiao, Kreis, Vahdat 2022).

The rules were written before anything was measured. Names of runs are those of `configs/suites/ddgan-paper-*.toml`.
"""

from __future__ import annotations

from trilemma_bench.reproduce.claims import Check, Claim, Findings, Missing, clearly_above, clearly_below

TITLE = "Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao, Kreis & Vahdat, ICLR 2022)"
SCHEDULES = (1000, 8, 4, 2, 1)  # numbers of steps of which the exact denoising distribution is looked at
FACTOR = 2.0  # a published ratio of times is reproduced within this factor
MARGIN = 1.25  # a distance is competitive if it is less than so many times the other's; the published one is 1.17 times
STEPS = (2, 4, 8)


def within(measured: float, published: float) -> bool:
    return published / FACTOR <= measured <= published * FACTOR


def against_score_sde(found: Findings) -> Check:
    ratio = found.time("score-sde-ve") / found.time("ddgan")
    return Check(within(ratio, 2015), f"{ratio:,.0f} times")


def against_diffusion(found: Findings) -> Check:
    ddpm, ddim = (found.time(name) / found.time("ddgan") for name in ("ddpm", "ddim"))
    return Check(within(ddpm, 383) and within(ddim, 19), f"DDPM {ddpm:,.0f} times, 50-step DDIM {ddim:,.1f} times")


def against_stylegan2(found: Findings) -> Check:
    ratio = found.time("ddgan") / found.time("stylegan2")
    return Check(ratio <= 5 * FACTOR, f"{ratio:.1f} times slower")


def few_steps(found: Findings) -> Check:
    modes = found.value("ddgan", "modes")
    ours, gaussian = found.value("ddgan", "high_quality"), found.value("ddpm-4", "high_quality")
    full = found.value("ddpm", "high_quality")
    text = f"DDGAN: {modes:.0f} modes, {ours:.0%} of high quality; DDPM: {gaussian:.0%} in 4 steps, {full:.0%} in 1000"
    return Check(modes == 25 and gaussian < ours / 2, text)


def gan_drops_modes(found: Findings) -> Check:
    pairs = [(found.value(f"{kind}ddgan", "modes"), found.value(f"{kind}gan", "modes")) for kind in ("", "stacked-")]
    text = "; ".join(
        f"{a:.0f} against {b:.0f} {where}" for (a, b), where in zip(pairs, ("of 25", "of 1000"), strict=True)
    )
    return Check(pairs[0][0] == 25 and all(a > b for a, b in pairs), f"modes of DDGAN against the GAN's: {text}")


def quality_of_diffusion(found: Findings) -> Check:
    ours, theirs = (found.score(name, "fd_cifar-resnet56") for name in ("cifar10-ddgan", "cifar10-ddim"))
    return Check(clearly_below(ours, theirs, MARGIN), f"FD {ours.value:.3g} against {theirs.value:.3g} (DDIM)")


def better_coverage(found: Findings) -> Check:
    ours, theirs = (found.score(name, "recall") for name in ("digits-ddgan", "digits-gan"))
    return Check(clearly_above(ours, theirs), f"recall on digits {ours.value:.2f} against {theirs.value:.2f} (GAN)")


def several_steps(found: Findings) -> Check:
    quality = {1: found.score("ddgan-t1", "fd_points"), 4: found.score("ddgan", "fd_points")}
    quality |= {steps: found.score(f"ddgan-t{steps}", "fd_points") for steps in (2, 8)}
    recall = {steps: found.score(run, "recall") for steps, run in _digit_runs().items()}
    holds = all(clearly_above(quality[1], quality[steps]) for steps in STEPS)
    holds &= all(clearly_above(recall[steps], recall[1]) for steps in STEPS)
    text = ", ".join(f"T={steps}: {quality[steps].value:.2g} and {recall[steps].value:.2f}" for steps in (1, *STEPS))
    return Check(holds, f"FD on the Gaussians and recall on digits: {text}")


def _digit_runs() -> dict[int, str]:
    return {1: "digits-ddgan-t1", 2: "digits-ddgan-t2", 4: "digits-ddgan", 8: "digits-ddgan-t8"}


def latent_matters(found: Findings) -> Check:
    with_z, without = (found.score(name, "high_quality") for name in ("ddgan", "ddgan-no-z"))
    return Check(clearly_above(with_z, without), f"high quality {with_z.value:.0%} with z, {without.value:.0%} without")


def posterior_beats_direct(found: Findings) -> Check:
    pairs = [
        [found.score(f"{kind}ddgan{how}", name) for how in ("", "-direct")]
        for kind, name in (("", "fd_points"), ("digits-", "fd_digits-cnn"))
    ]
    text = "; ".join(
        f"{name} {a.value:.2g} against {b.value:.2g}"
        for (a, b), name in zip(pairs, ("Gaussians", "digits"), strict=True)
    )
    return Check(all(clearly_above(b, a) for a, b in pairs), f"FD, posterior against direct: {text}")


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
