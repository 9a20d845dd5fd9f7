"""Reference features: the cache, and files of them to exchange."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trilemma_bench.cli.entry import main
from trilemma_bench.cli.options import (
    DEVICE,
    FEATURE_PRECISION,
    FILE,
    PLACES,
    PLUGINS,
    REFERENCE,
    TO_REFERENCE,
    apply_places,
    load_plugins,
    with_options,
)
from trilemma_bench.errors import UsageError

if TYPE_CHECKING:
    import torch

    from trilemma_bench.contracts import Dataset, FeatureExtractor
    from trilemma_bench.features.cache import Entry

LISTED = ("split", "extractor", "weights", "precision", "code", "output", "samples")  # facts of a cached reference


@main.group("reference")
def reference_() -> None:
    """Cached reference features, and files of them to exchange."""


@reference_.command("list")
def reference_list() -> None:
    """What is cached: of which data and extractor, how large."""
    from trilemma_bench.features import cache

    rows = [("DATASET", *map(str.upper, LISTED), "KINDS", "BYTES", "USED"), *map(_row, cache.entries())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"in {cache.folder()}")


def _row(entry: Entry) -> tuple[str, ...]:
    facts = entry.facts
    data = f"{facts.get('dataset_name', 'unreadable')} {facts.get('dataset', '')[:12]}"
    known = (facts.get(name, "?")[: 12 if name in ("weights", "code") else None] for name in LISTED)
    used = str(datetime.date.fromtimestamp(entry.used))
    return data, *known, ", ".join(entry.kinds), f"{entry.size:,}", used


@reference_.command("prune")
@click.option("--days", type=click.IntRange(min=0), metavar="N", help="What was not used for so many days.")
@click.option("--all", "everything", is_flag=True, help="All of it: what is needed is computed again.")
def reference_prune(days: int | None, everything: bool) -> None:
    """Delete cached references. `reference list` shows them, and when each was last used."""
    from trilemma_bench.features import cache

    if everything == (days is not None):
        raise UsageError("say what to delete: either --days N or --all")
    deleted = cache.prune(None if days is None else time.time() - 86400 * days)
    size = sum(entry.size for entry in deleted)
    click.echo(f"deleted {len(deleted)} references, {size:,} bytes, in {cache.folder()}")


@reference_.command("export")
@with_options(*REFERENCE)
@click.option("--count", type=click.IntRange(min=2), metavar="N", help="A fixed random subset of N samples.")
@with_options(FEATURE_PRECISION)
@click.option("--kind", type=click.Choice(["moments", "features"]), default="moments", show_default=True)
@click.option("--radii", is_flag=True, help="With features: also the distances to the 5 nearest others.")
@with_options(TO_REFERENCE, DEVICE, PLUGINS, *PLACES)
def reference_export(**options: Any) -> None:
    """Write a reference into a file.

    It is computed first unless it is cached. A .safetensors says what it is of, and `run --reference FILE` uses it; an
    .npz takes moments, as mu and sigma (spatial ones as mu_s and sigma_s).
    """
    options = apply_places(options)
    load_plugins(options["plugins"])
    from trilemma_bench.environment import resolve_device
    from trilemma_bench.features.exchange import export_reference
    from trilemma_bench.features.extraction import use_precision
    from trilemma_bench.features.reference import DatasetReference

    device = resolve_device(options["device"])
    dataset, extractor = _data_and_extractor(options, device)
    use_precision(extractor, options["feature_precision"] or extractor.precision, device)
    chosen = DatasetReference(
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
@with_options(*REFERENCE)
@click.option("--count", type=click.IntRange(min=2), metavar="N", help="Samples behind mu and sigma.")
@with_options(TO_REFERENCE, PLUGINS, *PLACES)
def reference_import(source: Path, **options: Any) -> None:
    """Turn someone's .npz into a reference.

    What it makes says what it is of, and `run --reference FILE` uses it.

    FILE.npz holds mu and sigma (pytorch-fid, TTUR, EDM), also mu_s and sigma_s (guided-diffusion; --output spatial), or
    features as pool_3 (score-SDE). It says neither data, extractor nor number of samples: you do, and it is recorded.
    With mu and sigma, only metrics that need no more can be computed. The cache stays as it is.
    """
    options = apply_places(options)
    load_plugins(options["plugins"])
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
