"""The options that commands share, and what becomes of them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trilemma_bench.paths import RUNS
from trilemma_bench.protocol import FEATURE_PRECISIONS

if TYPE_CHECKING:
    from trilemma_bench.job import Options

FILE = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)

F = TypeVar("F", bound=Callable[..., Any])


def _silence_tqdm(ctx: click.Context, option: click.Parameter, quiet: bool) -> bool:
    """For downloads, ours and torchvision's: tqdm reads it when it is imported, which the commands do."""
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    return quiet


MODEL = click.option("--model", required=True, metavar="NAME", help="A registered model, or file.py:Class.")
DATASET = click.option(
    "--dataset", required=True, metavar="NAME", help="A registered dataset, folder:PATH or npz:PATH."
)
CONFIG = click.option("--config", type=FILE, metavar="FILE", help="TOML of settings, over the shipped recipe.")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting, see `settings`; repeatable."
)
BUDGET = click.option("--budget", metavar="90s|10m|2h|500kimg", help="How long to train; the recipe's if not given.")
CHECKPOINT = click.option("--checkpoint", type=FILE, metavar="FILE", help="Trained weights to use, without training.")
SAMPLES = click.option(
    "--samples", type=click.IntRange(min=2), metavar="N", help="How many samples; the protocol's number if not given."
)
PROTOCOL = click.option("--protocol", metavar="NAME", help="Evaluation protocol; the dataset's own if not given.")
REFERENCES = click.option(
    "--reference",
    "references",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="Compare with this file of `reference export`, not with the dataset; repeatable.",
)
FEATURE_PRECISION = click.option(
    "--feature-precision",
    type=click.Choice(FEATURE_PRECISIONS),
    help="Arithmetic of the extractors. Below float32 is faster on a GPU, and another measurement.",
)
SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all random draws.")
DEVICE = click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute.")
PLUGINS = click.option(
    "--plugin", "plugins", multiple=True, type=FILE, metavar="FILE.py", help="Load a plugin; repeatable."
)
OUT = click.option("--out", type=FOLDER, default=RUNS, show_default=True, metavar="DIR", help="Where results go.")
DATA_DIR = click.option("--data-dir", type=FOLDER, metavar="DIR", help="Instead of TRILEMMA_DATA_DIR.")
WEIGHTS_DIR = click.option("--weights-dir", type=FOLDER, metavar="DIR", help="Instead of TRILEMMA_WEIGHTS_DIR.")
QUIET = click.option("--quiet", is_flag=True, callback=_silence_tqdm, help="No progress bars.")
SPLIT = click.option("--split", default="train", show_default=True, help="Split of the dataset.")
EXTRACTOR = click.option("--extractor", required=True, metavar="NAME", help="A registered feature extractor.")
OUTPUT = click.option("--output", default="features", show_default=True, help="Which of the extractor's outputs.")
TO_REFERENCE = click.option("--to", "path", required=True, type=FILE, metavar="FILE", help="Where it goes.")

FAIL_IF = click.option(
    "--fail-if", "limits", multiple=True, metavar="'fid>+0.5'",
    help="Exit with 1 when B - A in a score, or B / A in a time, lies beyond this with all of its 95 % interval; "
    "repeatable. With one run a side that is about these two trainings only: give several seeds to judge the recipes.",
)  # fmt: skip
FAIL_ON = click.option(
    "--fail-on", type=click.Choice(["interval", "value"]), default="interval", show_default=True,
    help="What has to lie beyond: all of the interval, or the value alone, which noise can move.",
)  # fmt: skip

TRAINING = CONFIG, SET, BUDGET, SEED
SAMPLING = CHECKPOINT, SAMPLES
MEASURING = PROTOCOL, REFERENCES, FEATURE_PRECISION
COMMON = DEVICE, PLUGINS, OUT
PLACES = DATA_DIR, WEIGHTS_DIR, QUIET
LIMITS = FAIL_IF, FAIL_ON
REFERENCE = DATASET, SPLIT, EXTRACTOR, OUTPUT


def with_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Adds the options to a command, in their order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def to_options(options: dict[str, Any]) -> Options:
    """The options of a command as what the pipeline takes, with its plugins loaded."""
    options = apply_places(options)
    load_plugins(options.pop("plugins"))
    from trilemma_bench.config import parse_overrides
    from trilemma_bench.job import Options

    options["overrides"] = parse_overrides(options.get("overrides", ()))
    return Options(**options, say=click.echo)


def apply_places(options: dict[str, Any]) -> dict[str, Any]:
    """Sets the data and weights folders for this process; returns the other options."""
    options = dict(options)
    for key, variable in (("data_dir", "TRILEMMA_DATA_DIR"), ("weights_dir", "TRILEMMA_WEIGHTS_DIR")):
        if folder := options.pop(key, None):
            os.environ[variable] = str(folder)
    if "quiet" in options:
        quiet = options.pop("quiet")
        options["progress"] = not quiet and (sys.stderr.isatty() or bool(os.environ.get("TRILEMMA_PROGRESS")))
    return options


def load_plugins(files: tuple[Path, ...]) -> None:
    from trilemma_bench.registry import REGISTRIES, load_file

    for file in files:
        load_file(file)
    if files and not any(registry.is_extended for registry in REGISTRIES):
        names = ", ".join(map(str, files))
        warnings.warn(f"{names} registers nothing: @register_model('name') above a class would", stacklevel=2)
