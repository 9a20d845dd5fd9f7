"""The command line: parse, call, print. Exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trilemma_bench.errors import TrilemmaError, UsageError, loaded_plugins, place_of
from trilemma_bench.paths import RUNS
from trilemma_bench.protocol import FEATURE_PRECISIONS

if TYPE_CHECKING:
    import torch

    from trilemma_bench.comparing import FailOn
    from trilemma_bench.contracts import Dataset, FeatureExtractor
    from trilemma_bench.job import Options

FILE = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)

F = TypeVar("F", bound=Callable[..., Any])


def _silence_tqdm(ctx: click.Context, option: click.Parameter, quiet: bool) -> bool:
    """For downloads, ours and torchvision's: tqdm reads it when it is imported, which the commands do."""
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    return quiet


_MODEL = click.option("--model", required=True, metavar="NAME", help="A registered model, or file.py:Class.")
_DATASET = click.option(
    "--dataset", required=True, metavar="NAME", help="A registered dataset, folder:PATH or npz:PATH."
)
_CONFIG = click.option("--config", type=FILE, metavar="FILE", help="TOML over the shipped config.")
_SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="One setting, see `settings`; repeatable."
)
_BUDGET = click.option("--budget", metavar="90s|10m|2h|500kimg", help="How long to train.")
_CHECKPOINT = click.option("--checkpoint", type=FILE, metavar="FILE", help="Trained weights to use.")
_SAMPLES = click.option(
    "--samples", type=click.IntRange(min=2), metavar="N", help="Samples; the protocol's number if not given."
)
_PROTOCOL = click.option("--protocol", metavar="NAME", help="Evaluation protocol; the dataset's own if not given.")
_REFERENCES = click.option(
    "--reference", "references", multiple=True, type=FILE, metavar="FILE", help="Compare with this; repeatable."
)
_FEATURE_PRECISION = click.option(
    "--feature-precision",
    type=click.Choice(FEATURE_PRECISIONS),
    help="Of the extractors: below float32 faster, but not comparable.",
)
_SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all random draws.")
_DEVICE = click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute.")
_PLUGINS = click.option("--plugin", "plugins", multiple=True, type=FILE, metavar="FILE.py", help="Loads a plugin file.")
_OUT = click.option("--out", type=FOLDER, default=RUNS, show_default=True, metavar="DIR", help="Where results go.")
_DATA_DIR = click.option("--data-dir", type=FOLDER, metavar="DIR", help="Instead of TRILEMMA_DATA_DIR.")
_WEIGHTS_DIR = click.option("--weights-dir", type=FOLDER, metavar="DIR", help="Instead of TRILEMMA_WEIGHTS_DIR.")
_QUIET = click.option("--quiet", is_flag=True, callback=_silence_tqdm, help="No progress bars.")
_SPLIT = click.option("--split", default="train", show_default=True, help="Of the dataset.")
_EXTRACTOR = click.option("--extractor", required=True, metavar="NAME", help="A registered feature extractor.")
_OUTPUT = click.option("--output", default="features", show_default=True, help="Which of the extractor's outputs.")
_TO_REFERENCE = click.option("--to", "path", required=True, type=FILE, metavar="FILE", help="Where it goes.")

_TRAINING = _CONFIG, _SET, _BUDGET
_SAMPLING = _CHECKPOINT, _SAMPLES
_MEASURING = _PROTOCOL, _REFERENCES, _FEATURE_PRECISION
_COMMON = _SEED, _DEVICE, _PLUGINS, _OUT
_PLACES = _DATA_DIR, _WEIGHTS_DIR, _QUIET
_REFERENCE = _DATASET, _SPLIT, _EXTRACTOR, _OUTPUT


def with_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Adds the options to a command, in their order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Main(click.Group):
    """Turns every error into one line on stderr and the right exit code; `--debug`, anywhere, shows the traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        debug = [argument for argument in args if argument == "--debug"]
        return super().parse_args(ctx, debug[:1] + [argument for argument in args if argument != "--debug"])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except KeyboardInterrupt:
            _fail(ctx, "interrupted", 1)
        except UsageError as error:
            _fail(ctx, str(error), 2)
        except TrilemmaError as error:
            _fail(ctx, str(error), 1)
        except OSError as error:
            _fail(ctx, f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
        except Exception as error:
            place, ours = place_of(error)
            theirs = ", ".join(loaded_plugins())
            whose = f"this is a bug{f', ours or of {theirs}' if theirs else ''}; " if ours else ""
            _fail(ctx, f"{type(error).__name__}: {error}, in {place} ({whose}--debug shows more)", 1)


def _fail(ctx: click.Context, message: str, code: int) -> None:
    if ctx.params.get("debug"):
        import traceback

        traceback.print_exc()
    click.echo(f"error: {' '.join(message.split())}", err=True)
    ctx.exit(code)


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning in one line, without the line of source that Python shows."""
    if _speaks():
        click.echo(f"warning: {' '.join(str(message).split())}", err=True)


def _speaks() -> bool:
    """Of the processes that torchrun started, the first."""
    return os.environ.get("RANK", "0") == "0"


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.version_option(package_name="trilemma-bench")
def main(debug: bool) -> None:
    """Quality, coverage and speed of generative models, measured alike."""
    context = click.get_current_context()
    if not debug:
        context.with_resource(warnings.catch_warnings())
        warnings.showwarning = _warn
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not _speaks():
        context.with_resource(redirect_stdout(context.with_resource(open(os.devnull, "w"))))  # noqa: SIM115


@main.command()
@with_options(_MODEL, _DATASET, *_TRAINING, *_SAMPLING, *_MEASURING, *_COMMON, *_PLACES)
def run(**options: Any) -> None:
    """Train unless a checkpoint is given or found, sample, measure, and write the run's folder."""
    from trilemma_bench import pipeline
    from trilemma_bench.report.terminal import terminal_table

    record = pipeline.run(_options(options))
    click.echo(f"{terminal_table([record])}\n\n{options['out'] / record.place}")


@main.command()
@with_options(_MODEL, _DATASET, *_TRAINING, *_SAMPLING, *_MEASURING, *_COMMON, *_PLACES)
@click.option("--steps", metavar="N,N,...", help="Numbers of steps: short for --vary sampling_steps=N,N,...")
@click.option("--vary", metavar="KEY=VALUE,...", help="A sampling setting, such as eta or truncation, and its values.")
def sweep(steps: str | None, vary: str | None, **options: Any) -> None:
    """A curve in the trilemma: sample one trained model with several values of a knob, a record for each."""
    from trilemma_bench import sweep as sweeping
    from trilemma_bench.report.terminal import terminal_table

    if (steps is None) == (vary is None):
        raise UsageError("say what to sweep over: either --steps 5,10,20 or --vary KEY=VALUE,VALUE")
    knob = sweeping.Knob.parse(vary or f"{sweeping.STEPS}={steps}")
    click.echo(terminal_table(sweeping.sweep(_options(options), knob)))


@main.command()
@with_options(_MODEL, _DATASET, *_TRAINING, *_COMMON, *_PLACES)
def train(**options: Any) -> None:
    """Train only; `run` and `sample` with the same settings find the checkpoint."""
    from trilemma_bench import pipeline

    click.echo(pipeline.train(_options(options)))


@main.command()
@with_options(_MODEL, _DATASET, *_TRAINING, *_SAMPLING, *_COMMON, *_PLACES)
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
    """Draw samples from a trained model into an .npz file."""
    from trilemma_bench import pipeline

    click.echo(pipeline.sample(_options(options), path))


@main.command()
@with_options(_DATASET, *_MEASURING, *_COMMON, *_PLACES)
@click.option("--samples", "source", required=True, type=FILE, metavar="PATH", help="Folder of images, .npz or .npy.")
@click.option("--name", default="samples", show_default=True, help="What to call these samples in the record.")
@click.option("--real", is_flag=True, help="They are real data, such as a test split: a ceiling, never ranked.")
@click.option(
    "--reference-split", metavar="NAME", help="Compare with this; the protocol's split, or all of a folder without any."
)
def evaluate(source: Path, name: str, real: bool, **options: Any) -> None:
    """Measure samples that someone else made.

    With --dataset folder:PATH they are compared with PATH/train, as the protocols say, where PATH/train and PATH/test
    are there, else with all images in PATH.
    """
    from trilemma_bench import pipeline
    from trilemma_bench.report.terminal import terminal_table

    record = pipeline.evaluate(_options({**options, "model": name}), source, real)
    click.echo(f"{terminal_table([record])}\n\n{options['out'] / record.place}")


@main.command()
@click.argument("file", type=FILE, metavar="FILE.toml")
@with_options(_DEVICE, _PLUGINS, _OUT, *_PLACES)
def suite(file: Path, **options: Any) -> None:
    """Run all of a suite, and report on it.

    FILE may be the name of a shipped suite: see `trilemma-bench list suites`.
    """
    from trilemma_bench.report import check_ours, write_report
    from trilemma_bench.report.terminal import terminal_table
    from trilemma_bench.results import find_records
    from trilemma_bench.suite import read_suite, run_suite

    common = _apply_places(options)
    _load_plugins(common.pop("plugins"))
    chosen = read_suite(file)
    check_ours(options["out"] / "report")
    result = run_suite(chosen, click.echo, **common)
    if result.records:
        places = {record.id: path for path, record in find_records([options["out"]]).records}
        paths = [places.get(record.id) for record in result.records]
        report = write_report(result.records, options["out"] / "report", paths=paths)
        click.echo(f"\n{terminal_table(result.records)}\n\nreport: {report}")
    if result.failures:
        raise TrilemmaError(f"{len(result.failures)} of {len(chosen.run)} runs failed: {'; '.join(result.failures)}")


@main.command()
@click.argument("paper")
@click.option("--scale", default="cpu", show_default=True, help="cpu: under 30 minutes on two cores; gpu: CIFAR-10.")
@click.option("--out", type=FOLDER, default=RUNS / "paper", show_default=True, metavar="FOLDER")
@with_options(_DEVICE, *_PLACES)
def reproduce(paper: str, scale: str, out: Path, **options: Any) -> None:
    """Check a paper's claims, with a verdict on each. PAPER: ddgan-paper."""
    from trilemma_bench.reproduce.run import reproduce as check

    options = _apply_places(options)
    click.echo(check(paper, scale, out, options["device"], options["progress"], click.echo))


@main.command()
@click.argument("dirs", nargs=-1, type=FILE, metavar="[DIR]...")
@click.option("--out", type=FOLDER, required=True, metavar="FOLDER", help="Where the report goes.")
@click.option("--published", is_flag=True, help="Show the numbers of papers beside what was measured, unranked.")
def report(dirs: tuple[Path, ...], out: Path, published: bool) -> None:
    """An interactive page, tables and figures of all the records below DIR (default: runs)."""
    from trilemma_bench.report import write_report
    from trilemma_bench.results import find_records

    found = find_records(dirs or [RUNS])
    for line in found.skipped:
        click.echo(f"skipped: {line}", err=True)
    if not found.records:
        raise UsageError(f"no records below {', '.join(map(str, dirs or [RUNS]))}: run `trilemma-bench run` first")
    paths, records = zip(*found.records, strict=True)
    click.echo(write_report(records, out, found.skipped, paths, published))


@main.command()
@click.argument("dirs", nargs=-1, type=FILE, metavar="[DIR]...")
@with_options(_PLUGINS)
def check(dirs: tuple[Path, ...], plugins: tuple[Path, ...]) -> None:
    """Whether the records below DIR (default: results) may stand in a leaderboard: schema, protocol, hashes."""
    from trilemma_bench.leaderboard import check_records

    _load_plugins(plugins)
    count, problems = check_records(dirs or [Path("results")])
    for problem in problems:
        click.echo(problem, err=True)
    if problems or not count:
        raise TrilemmaError(f"{len(problems)} problems in {count} records" if count else "no records to check")
    click.echo(f"{count} records are valid")


@main.command("check-model")
@with_options(_MODEL, _DATASET, _SET, _PLUGINS)
def check_model_(**options: Any) -> None:
    """Whether a model, such as a plugin's, does what the harness asks of one: a few steps and samples on the CPU."""
    from trilemma_bench.job import prepare
    from trilemma_bench.model_check import check_model

    faults = 0
    for what, fault in check_model(prepare(_options({**options, "device": "cpu"}))):
        click.echo(f"FAILED  {what}: {fault}" if fault else f"ok      {what}")
        faults += bool(fault)
    if faults:
        raise TrilemmaError(f"{options['model']} fails {faults} check{'s' if faults > 1 else ''}")


@main.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option(
    "--fail-if", "limits", multiple=True, metavar="'fid>+0.5'",
    help="Exit with 1 when B - A in a score, or B / A in a time, is beyond this, 95 % interval and all; repeatable.",
)  # fmt: skip
@click.option(
    "--fail-on", type=click.Choice(["interval", "value"]), default="interval", show_default=True,
    help="What has to be beyond: all of the interval, or the value alone, which noise can move.",
)  # fmt: skip
def compare(a: Path, b: Path, as_json: bool, limits: tuple[str, ...], fail_on: FailOn) -> None:
    """Which differences between A and B are real.

    Each is a run's folder, its record.json, or a folder of several runs that differ only in the seed; of runs that were
    repeated, the newest counts.
    """
    from trilemma_bench.comparing import Limit
    from trilemma_bench.comparing import compare as compare_runs

    checks = [Limit.parse(limit, fail_on) for limit in limits]
    found = compare_runs(a, b)
    broken = [line for check in checks if (line := check.broken_by(found))]
    click.echo(json.dumps(found.to_dict(), indent=1) if as_json else str(found))
    for line in filter(None, (check.undecided_by(found) for check in checks)):
        click.echo(f"note: {line}", err=True)
    if broken:
        raise TrilemmaError("; ".join(broken))


@main.command("list")
@click.argument("kind", metavar="models|datasets|metrics|protocols|extractors|suites")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@with_options(_PLUGINS)
def list_(kind: str, as_json: bool, plugins: tuple[Path, ...]) -> None:
    """What is registered, and by which package; and the shipped suites."""
    from trilemma_bench.catalogue import catalogue

    _load_plugins(plugins)
    rows = catalogue(kind)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:{width}}  {row['error'] or row['about']}  [{row['package']}]")


@main.command()
@with_options(_MODEL, _DATASET, _PLUGINS)
def settings(model: str, dataset: str, plugins: tuple[Path, ...]) -> None:
    """What `--set` can change: every setting of a model's recipe for a dataset, as it stands."""
    from trilemma_bench import config, registry

    _load_plugins(plugins)
    resolved = config.resolve(registry.models.get(model), model=model, dataset=dataset)
    for table, values in resolved.flat().items():
        click.echo(f"[{table}]")
        for name, value in values.items():
            click.echo(f"{name} = {json.dumps(value)}")
        click.echo()


@main.command()
@with_options(_DATA_DIR, _WEIGHTS_DIR)
def doctor(**options: Any) -> None:
    """What this machine has, and where missing data and weights would come from."""
    _apply_places(options)
    from trilemma_bench.doctor import diagnosis

    click.echo("\n".join(diagnosis()))


@main.group("reference")
def reference_() -> None:
    """Cached reference features, and files of them to exchange."""


@reference_.command("list")
def reference_list() -> None:
    """What is cached: of which data and extractor, which kinds, and how large."""
    from trilemma_bench.features import cache

    rows: list[tuple[str, ...]] = [
        ("DATASET", "SPLIT", "EXTRACTOR", "WEIGHTS", "PRECISION", "CODE", "OUTPUT", "SAMPLES", "KINDS", "BYTES", "USED")
    ]
    for entry in cache.entries():
        facts = entry.facts
        data = f"{facts.get('dataset_name', 'unreadable')} {facts.get('dataset', '')[:12]}"
        names = ("split", "extractor", "weights", "precision", "code", "output", "samples")
        known = (facts.get(name, "?")[: 12 if name in ("weights", "code") else None] for name in names)
        used = str(datetime.date.fromtimestamp(entry.used))
        rows.append((data, *known, ", ".join(entry.kinds), f"{entry.size:,}", used))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"in {cache.folder()}")


@reference_.command("prune")
@click.option("--days", type=click.IntRange(min=0), metavar="N", help="What was not used for so many days.")
@click.option("--all", "everything", is_flag=True, help="All of it: what is needed is computed again.")
def reference_prune(days: int | None, everything: bool) -> None:
    """Delete cached references. `reference list` shows them, and when each was last used."""
    from trilemma_bench.features import cache

    if everything == (days is not None):
        raise UsageError("say what to delete: either --days N or --all")
    before = time.time() - 86400 * (days or 0)
    chosen = [entry for entry in cache.entries() if everything or entry.used < before]
    for path in [path for entry in chosen for path in entry.paths]:
        path.unlink(missing_ok=True)
    click.echo(f"deleted {len(chosen)} references, {sum(entry.size for entry in chosen):,} bytes, in {cache.folder()}")


@reference_.command("export")
@with_options(*_REFERENCE)
@click.option("--count", type=click.IntRange(min=2), metavar="N", help="A fixed random subset of N samples.")
@with_options(_FEATURE_PRECISION)
@click.option("--kind", type=click.Choice(["moments", "features"]), default="moments", show_default=True)
@click.option("--radii", is_flag=True, help="With features: also the distances to the 5 nearest others.")
@with_options(_TO_REFERENCE, _DEVICE, _PLUGINS, *_PLACES)
def reference_export(**options: Any) -> None:
    """Write a reference into a file, computing it first unless it is cached.

    A .safetensors says what it is of, and `run --reference FILE` uses it; an .npz takes moments, as mu and sigma.
    """
    options = _apply_places(options)
    _load_plugins(options["plugins"])
    from trilemma_bench.environment import resolve_device
    from trilemma_bench.features.exchange import export_reference
    from trilemma_bench.features.extraction import use_precision
    from trilemma_bench.features.reference import reference

    device = resolve_device(options["device"])
    dataset, extractor = _data_and_extractor(options, device)
    use_precision(extractor, options["feature_precision"] or extractor.precision, device)
    chosen = reference(
        dataset,
        options["split"],
        extractor,
        options["output"],
        options["count"],
        {options["output"]: options["kind"]},
        device=device,
        progress=options["progress"],
    )
    click.echo(export_reference(chosen, options["path"], options["kind"], options["radii"]))


@reference_.command("import")
@click.argument("source", type=FILE, metavar="FILE.npz")
@with_options(*_REFERENCE)
@click.option("--count", type=click.IntRange(min=2), metavar="N", help="Samples behind mu and sigma.")
@with_options(_TO_REFERENCE, _PLUGINS, *_PLACES)
def reference_import(source: Path, **options: Any) -> None:
    """Turn someone's .npz into a reference that says what it is, for `run --reference FILE`.

    FILE.npz holds mu and sigma (pytorch-fid, TTUR, EDM), also mu_s and sigma_s (guided-diffusion; --output spatial), or
    features as pool_3 (score-SDE). It says neither data, extractor nor number of samples: you do, and it is recorded.
    With mu and sigma, only metrics that need no more can be computed. The cache stays as it is.
    """
    options = _apply_places(options)
    _load_plugins(options["plugins"])
    from trilemma_bench.features.exchange import Claims, import_npz

    dataset, extractor = _data_and_extractor(options, "cpu")
    claims = Claims(dataset.name, options["split"], options["output"], options["count"])
    click.echo(import_npz(source, options["path"], claims, extractor))


def _data_and_extractor(options: dict[str, Any], device: torch.device | str) -> tuple[Dataset, FeatureExtractor]:
    """The dataset and the extractor that `options` name, after checks that they and split and output fit together."""
    from trilemma_bench import registry
    from trilemma_bench.datasets import open_dataset
    from trilemma_bench.datasets.splits import check_split
    from trilemma_bench.errors import unknown_name

    dataset = open_dataset(options["dataset"])
    check_split(dataset, options["split"])
    extractor = registry.extractors.get(options["extractor"])(device)
    extractor.check(dataset.spec)
    if options["output"] not in extractor.outputs:
        raise unknown_name(f"output of {extractor.name}", options["output"], extractor.outputs)
    return dataset, extractor


def _options(options: dict[str, Any]) -> Options:
    """The options of a command as `pipeline.Options`, with its plugins loaded."""
    options = _apply_places(options)
    _load_plugins(options.pop("plugins"))
    from trilemma_bench.config import parse_overrides
    from trilemma_bench.job import Options

    options["overrides"] = parse_overrides(options.get("overrides", ()))
    return Options(**options, say=click.echo)


def _apply_places(options: dict[str, Any]) -> dict[str, Any]:
    """Sets the data and weights folders for this process; returns the other options."""
    options = dict(options)
    for key, variable in (("data_dir", "TRILEMMA_DATA_DIR"), ("weights_dir", "TRILEMMA_WEIGHTS_DIR")):
        if folder := options.pop(key, None):
            os.environ[variable] = str(folder)
    if "quiet" in options:
        quiet = options.pop("quiet")
        options["progress"] = not quiet and (sys.stderr.isatty() or bool(os.environ.get("TRILEMMA_PROGRESS")))
    return options


def _load_plugins(files: tuple[Path, ...]) -> None:
    from trilemma_bench.registry import load_file

    for file in files:
        load_file(file)
