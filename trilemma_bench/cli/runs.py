"""Commands that train, sample and measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trilemma_bench.cli.entry import main
from trilemma_bench.cli.options import (
    CHECKPOINT,
    COMMON,
    DATASET,
    DEVICE,
    FILE,
    FOLDER,
    LIMITS,
    MEASURING,
    MODEL,
    OUT,
    PLACES,
    PLUGINS,
    REFERENCES,
    SAMPLING,
    TRAINING,
    apply_places,
    load_plugins,
    to_options,
    with_options,
)
from trilemma_bench.cli.records import show_comparison
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.paths import RUNS

if TYPE_CHECKING:
    from trilemma_bench.limits import FailOn


@main.command()
@with_options(MODEL, DATASET, *TRAINING, *SAMPLING, *MEASURING, *COMMON, *PLACES)
def run(**options: Any) -> None:
    """Train, sample, measure, and write the run's folder.

    Nothing is trained where --checkpoint gives the weights, or a run below --out has trained with the same code,
    settings, budget and seed; where such a run was interrupted, training goes on.
    """
    from trilemma_bench import pipeline
    from trilemma_bench.report.terminal import terminal_table

    record = pipeline.run(to_options(options))
    click.echo(f"{terminal_table([record])}\n\n{options['out'] / record.place}")


@main.command()
@with_options(MODEL, DATASET, *TRAINING, *SAMPLING, *MEASURING, *COMMON, *PLACES)
@click.option("--steps", metavar="N,N,...", help="Numbers of steps: short for --vary sampling_steps=N,N,...")
@click.option("--vary", metavar="KEY=VALUE,...", help="A sampling setting, such as eta or truncation, and its values.")
def sweep(steps: str | None, vary: str | None, **options: Any) -> None:
    """Sample one trained model with several values of a setting.

    It makes a record for each value, and together a curve through the trilemma. Only settings of the sampling can be
    swept. Started again, it does only what the same code has not done on this machine.
    """
    from trilemma_bench import sweep as sweeping
    from trilemma_bench.report.terminal import terminal_table

    if (steps is None) == (vary is None):
        raise UsageError("say what to sweep over: either --steps 5,10,20 or --vary KEY=VALUE,VALUE")
    knob = sweeping.Knob.parse(vary or f"{sweeping.STEPS}={steps}")
    records = sweeping.sweep(to_options(options), knob)
    places = "\n".join(str(options["out"] / record.place) for record in records)
    click.echo(f"{terminal_table(records)}\n\n{places}")


@main.command()
@with_options(MODEL, DATASET, *TRAINING, *COMMON, *PLACES)
def train(**options: Any) -> None:
    """Train only.

    `run` and `sample` find the checkpoint, given the same settings, budget and seed.
    """
    from trilemma_bench import pipeline

    click.echo(pipeline.train(to_options(options)))


@main.command()
@with_options(MODEL, DATASET, *TRAINING, *SAMPLING, *COMMON, *PLACES)
@click.option(
    "--to",
    "path",
    type=FILE,
    default=Path("samples.npz"),
    show_default=True,
    metavar="FILE.npz",
    help="Where the samples go.",
)
def sample(path: Path, **options: Any) -> None:
    """Draw samples from a trained model into an .npz file.

    It never trains: it takes what `run` or `train` made with the same settings, budget and seed, or --checkpoint.
    """
    from trilemma_bench import pipeline

    click.echo(pipeline.sample(to_options(options), path))


@main.command()
@with_options(DATASET, *MEASURING, *COMMON, *PLACES)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The seed that made them: sets of one --name are one row over seeds.",
)
@click.option("--samples", "source", required=True, type=FILE, metavar="PATH", help="Folder of images, .npz or .npy.")
@click.option("--name", default="samples", show_default=True, help="What to call these samples in the record.")
@click.option("--real", is_flag=True, help="They are real data, such as a test split: a ceiling, never ranked.")
@click.option(
    "--reference-split",
    metavar="NAME",
    help="Compare with this split; by default the protocol's, or all of a folder without splits.",
)
def evaluate(source: Path, name: str, real: bool, **options: Any) -> None:
    """Measure samples that someone else made.

    Several sets of one model, each with the same --name and its own --seed, are one row, with the spread between them.
    With --dataset folder:PATH they are compared with PATH/train where PATH holds train and test, else with all images
    in PATH; with npz:PATH likewise.
    """
    from trilemma_bench import pipeline
    from trilemma_bench.report.terminal import terminal_table

    record = pipeline.evaluate(to_options({**options, "model": name}), source, real)
    click.echo(f"{terminal_table([record])}\n\n{options['out'] / record.place}")


@main.command()
@click.argument("record", type=FILE)
@click.option("--same-images", is_flag=True, help="Train on as many images as it did, where its budget is a time.")
@click.option("--dataset", metavar="NAME", help="Where its images lie if they are one's own: folder:PATH or npz:PATH.")
@with_options(CHECKPOINT, REFERENCES, DEVICE, PLUGINS, OUT, *LIMITS, *PLACES)
def rerun(record: Path, limits: tuple[str, ...], fail_on: FailOn, **options: Any) -> None:
    """Do a recorded run again, and compare the two.

    RECORD, a run's folder or its record.json, is A; the new run is B. Model, dataset, settings, budget, seed, protocol
    and number of samples are the record's, whatever the recipes are by now, and it trains anew unless --checkpoint is
    given. What cannot be the same, or is known to differ, is said first.
    """
    from trilemma_bench.comparing import compare
    from trilemma_bench.limits import Limit
    from trilemma_bench.rerunning import rerun as do_again

    checks = [Limit.parse(limit, fail_on) for limit in limits]
    for check in checks:
        compare(record, record)[check.name]  # a score that there is not is found before it trains
    options = apply_places(options)
    found = do_again(record, **options, say=click.echo)
    show_comparison(found, checks, f"\n{found}\n\n{options['out'] / found.b.record.place}")


def _seeds(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...]:
    """The numbers in 'N,N,...'; none without the option."""
    try:
        seeds = tuple(int(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        raise click.BadParameter(f"'{text}': give whole numbers, as in 0,1,2") from None
    if min(seeds, default=0) < 0 or len(set(seeds)) < len(seeds):
        raise click.BadParameter(f"'{text}': give different numbers of at least 0")
    return seeds


@main.command()
@click.argument("file", type=FILE, metavar="FILE.toml")
@click.option(
    "--seeds", callback=_seeds, metavar="N,N,...", help="Train each model with all of these, not with its own seed."
)
@click.option("--only", "models", multiple=True, metavar="MODEL", help="Runs of this model alone; repeatable.")
@with_options(DEVICE, PLUGINS, OUT, *PLACES)
def suite(file: Path, seeds: tuple[int, ...], models: tuple[str, ...], **options: Any) -> None:
    """Run all of a suite, and report on it.

    FILE has a [[run]] table for each run. Its keys are options of `run`: model, dataset, config, budget, seed, samples,
    protocol and feature_precision; what `run` takes by --set is in [run.set]. Or FILE is the name of a shipped suite,
    see `trilemma-bench list suites`. Started again, it does only what the same code has not done on this machine.
    """
    from trilemma_bench.report import check_ours, write_report
    from trilemma_bench.report.terminal import terminal_table
    from trilemma_bench.results import RECORD_NAME
    from trilemma_bench.suite import read_suite, run_suite

    common = apply_places(options)
    load_plugins(common.pop("plugins"))
    chosen = read_suite(file)
    if models:
        chosen = chosen.of_models(models)
    if seeds:
        chosen = chosen.with_seeds(seeds)
    check_ours(options["out"] / "report")
    result = run_suite(chosen, click.echo, **common)
    if result.records:
        paths = [options["out"] / record.place / RECORD_NAME for record in result.records]
        report = write_report(result.records, options["out"] / "report", paths=paths)
        click.echo(f"\n{terminal_table(result.records)}\n\nreport: {report}")
    if result.failures:
        raise TrilemmaError(f"{len(result.failures)} of {len(chosen.run)} runs failed: {'; '.join(result.failures)}")


@main.command()
@click.argument("paper")
@click.option("--scale", default="cpu", show_default=True, help="cpu: half an hour. gpu: CIFAR-10 too, 4.5 hours.")
@click.option(
    "--seeds",
    callback=_seeds,
    default="0",
    show_default=True,
    metavar="N,N,...",
    help="Train and time all with each: verdicts are of the recipes then, not of one training.",
)
@click.option("--out", type=FOLDER, default=RUNS / "paper", show_default=True, metavar="FOLDER")
@with_options(DEVICE, *PLACES)
def reproduce(paper: str, scale: str, seeds: tuple[int, ...], out: Path, **options: Any) -> None:
    """Check a paper's claims, with a verdict on each. PAPER: ddgan-paper."""
    from trilemma_bench.reproduce.run import reproduce as check

    options = apply_places(options)
    click.echo(check(paper, scale, out, options["device"], options["progress"], click.echo, seeds))
