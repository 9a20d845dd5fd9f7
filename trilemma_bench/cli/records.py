"""Commands that read records: reports, comparisons, checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trilemma_bench.cli.entry import main
from trilemma_bench.cli.options import FILE, FOLDER, LIMITS, PLUGINS, load_plugins, with_options
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.paths import RUNS

if TYPE_CHECKING:
    from trilemma_bench.comparing import RunComparison
    from trilemma_bench.limits import FailOn, Limit
    from trilemma_bench.results import Found

# what `choose` takes; of the columns of a table, which take long to import
AXES = ("latency_seconds", "seconds_per_image", "nfe")


@main.command()
@click.argument("dirs", nargs=-1, type=FILE, metavar="[DIR]...")
@click.option(
    "--out", type=FOLDER, metavar="FOLDER", help="Where the report goes.  [default: report, in the first DIR]"
)
@click.option("--published", is_flag=True, help="Show the numbers of papers beside what was measured, unranked.")
def report(dirs: tuple[Path, ...], out: Path | None, published: bool) -> None:
    """Make a page, tables and figures of records.

    Of all the records below DIR (default: runs). The page is interactive.
    """
    from trilemma_bench.report import write_report

    places = dirs or (RUNS,)
    found = _found(places)
    paths, records = zip(*found.records, strict=True)
    out = out or (places[0] if places[0].is_dir() else places[0].parent) / "report"
    click.echo(write_report(records, out, found.skipped, paths, published))


def _found(places: Sequence[Path]) -> Found:
    """The records below `places`, one at least; says what was skipped."""
    from trilemma_bench.results import find_records

    found = find_records(places)
    for line in found.skipped:
        click.echo(f"skipped: {line}", err=True)
    if not found.records:
        raise UsageError(f"no records below {', '.join(map(str, places))}: run `trilemma-bench run` first")
    return found


@main.command()
@click.argument("dirs", nargs=-1, type=FILE, metavar="[DIR]...")
@click.option("--within", required=True, metavar="LIMIT", help="Such as 20ms, 1.5s or 0.02 (seconds); with nfe 10.")
@click.option("--axis", type=click.Choice(AXES), default=AXES[0], show_default=True, help="What has to be within it.")
@click.option("--by", default="", metavar="SCORE", help="Best by this score, such as recall; by quality if not given.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def choose(dirs: tuple[Path, ...], within: str, axis: str, by: str, as_json: bool) -> None:
    """Which model is best within a latency.

    Of the records below DIR (default: runs), table by table: nothing is ranked across data, protocols or devices. The
    rows within the limit are ranked among themselves, those beyond it are named with how far they are.
    """
    from trilemma_bench.report.choice import Limit, choices_facts, choices_text
    from trilemma_bench.report.choice import choose as choose_rows

    limit = Limit.parse(within, axis)
    if absent := next((place for place in dirs if not place.exists()), None):
        raise UsageError(f"{absent}: no such folder; a limit with a space is written --within '20 ms'")
    choices = choose_rows((record for _, record in _found(dirs or (RUNS,)).records), limit, by)
    if not choices:
        raise UsageError("no complete run with a score to choose by")
    click.echo(json.dumps(choices_facts(choices), indent=1) if as_json else choices_text(choices))


@main.command()
@click.argument("dirs", nargs=-1, type=FILE, metavar="[DIR]...")
@with_options(PLUGINS)
def check(dirs: tuple[Path, ...], plugins: tuple[Path, ...]) -> None:
    """Whether records may stand in a leaderboard.

    Of the records below DIR (default: results) schema, protocol, samples, reference and hashes are checked.
    """
    from trilemma_bench.leaderboard import check_records

    load_plugins(plugins)
    count, problems = check_records(dirs or [Path("results")])
    for problem in problems:
        click.echo(problem, err=True)
    if problems or not count:
        raise TrilemmaError(f"problems in {_counted(count)}: {len(problems)}" if count else "no records to check")
    click.echo(f"{_counted(count)} {'is' if count == 1 else 'are'} valid")


def _counted(records: int) -> str:
    return f"{records} record{'' if records == 1 else 's'}"


@main.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Only runs with this value of a setting; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@with_options(*LIMITS)
def compare(
    a: Path, b: Path, settings: tuple[str, ...], as_json: bool, limits: tuple[str, ...], fail_on: FailOn
) -> None:
    """Which differences between A and B are real.

    Each is a run's folder, its record.json, or a folder of several runs that differ only in the seed; of runs that were
    repeated, the newest counts. In the folder of a sweep --set chooses one of its runs; a side whose model has no such
    setting stays as it is.
    """
    from trilemma_bench.comparing import compare as compare_runs
    from trilemma_bench.config import parse_overrides
    from trilemma_bench.limits import Limit

    checks = [Limit.parse(limit, fail_on) for limit in limits]
    found = compare_runs(a, b, parse_overrides(settings))
    show_comparison(found, checks, json.dumps(found.to_dict(), indent=1) if as_json else str(found))


def show_comparison(found: RunComparison, checks: Sequence[Limit], text: str) -> None:
    """Prints it as `text`. Raises TrilemmaError where it lies beyond a limit, UsageError where that cannot be told."""
    click.echo(text)
    broken = [line for check in checks if (line := check.broken_by(found))]
    for line in filter(None, (check.undecided_by(found) for check in checks)):
        click.echo(f"note: {line}", err=True)
    if broken:
        raise TrilemmaError("; ".join(broken))
