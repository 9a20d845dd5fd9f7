"""Commands that say what there is: registered parts, settings, this machine, whether a model keeps its contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from trilemma_bench.cli.entry import main
from trilemma_bench.cli.options import (
    DATA_DIR,
    DATASET,
    MODEL,
    PLUGINS,
    SET,
    WEIGHTS_DIR,
    apply_places,
    load_plugins,
    to_options,
    with_options,
)
from trilemma_bench.errors import TrilemmaError


@main.command("list")
@click.argument("kind", metavar="models|datasets|metrics|protocols|extractors|suites")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@with_options(PLUGINS)
def list_(kind: str, as_json: bool, plugins: tuple[Path, ...]) -> None:
    """What is registered, by which package; shipped suites."""
    from trilemma_bench.catalogue import catalogue

    load_plugins(plugins)
    rows = catalogue(kind)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:{width}}  {row['error'] or row['about']}  [{row['package']}]")


@main.command()
@with_options(MODEL, DATASET, PLUGINS)
def settings(model: str, dataset: str, plugins: tuple[Path, ...]) -> None:
    """What `--set` can change.

    Every setting of a model's recipe for a dataset, with its value and what it means, as a file for `run --config`.
    """
    from trilemma_bench import config, registry
    from trilemma_bench.datasets import open_dataset
    from trilemma_bench.recipe import recipe

    load_plugins(plugins)
    model_class = registry.models.get(model)
    open_dataset(dataset)
    click.echo(recipe(model_class, config.resolve(model_class, model=model, dataset=dataset)))


@main.command()
@with_options(DATA_DIR, WEIGHTS_DIR)
def doctor(**options: Any) -> None:
    """What this machine has, and what is missing.

    Of missing data and weights it says where they would come from, and where to put them.
    """
    apply_places(options)
    from trilemma_bench.doctor import diagnosis

    click.echo("\n".join(diagnosis()))


@main.command("check-model")
@with_options(MODEL, DATASET, SET, PLUGINS)
def check_model_(**options: Any) -> None:
    """Whether a model does what the harness asks of it.

    A few steps and samples on the CPU, of a plugin's model before it trains for long.
    """
    from trilemma_bench.job import prepare
    from trilemma_bench.model_check import check_model

    faults: list[str] = []
    for what, fault in check_model(prepare(to_options({**options, "device": "cpu"}))):
        said = "as above" if fault in faults else fault
        click.echo(f"FAILED  {what}: {said}" if fault else f"ok      {what}")
        faults += [fault] if fault else []
    if faults:
        raise TrilemmaError(f"{options['model']} fails {len(faults)} check{'s' if len(faults) > 1 else ''}")
