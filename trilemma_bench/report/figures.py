"""The figures of a report as SVG, PDF and PNG: no more than a few seconds' worth."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from trilemma_bench.files import atomic, save_text
from trilemma_bench.report import format as fmt
from trilemma_bench.report.axes import style
from trilemma_bench.report.plots import MOST_CURVES, left_out, papers_of, scatter, shown_curves, shown_rows, step_curves
from trilemma_bench.report.table import Table
from trilemma_bench.report.trilemma import triangles, trilemma

# a figure takes half a second to one second in its three formats
MOST_FIGURES = 5
PNG_DPI = 200
SUFFIXES = (".svg", ".pdf", ".png")
# names the figures that a report made, so that the next one there can remove those that it does not make
LISTING = "made-by-report.txt"


@dataclass(frozen=True)
class Drawn:
    """name: of its files, without suffix. notes: what it cannot show, and why."""

    name: str
    title: str
    notes: list[str]


@dataclass(frozen=True)
class FigureSet:
    """by_group: the figures of each table, in the order of the tables. left_out: a line where some have none."""

    by_group: list[list[Drawn]]
    left_out: str


def draw_figures(every: Sequence[Table], folder: Path, with_published: bool) -> FigureSet:
    """Draws into `folder`, of many groups the trilemma of the largest first; replaces what an earlier report drew."""
    folder.mkdir(parents=True, exist_ok=True)
    plans = [
        (group, rank, plan)
        for group, table in enumerate(every)
        for rank, plan in enumerate(_plans(table, with_published))
    ]
    plans.sort(key=lambda item: (item[1], -len(every[item[0]].competitors)))
    by_group: list[list[Drawn]] = [[] for _ in every]
    for group, _, plan in plans[:MOST_FIGURES]:
        by_group[group] += _draw(plan, f"{group + 1}-{fmt.slug(every[group].title)}-{plan.name}", folder)
    _forget_earlier(folder, [drawn.name for group in by_group for drawn in group])
    missing = len(plans) - MOST_FIGURES
    return FigureSet(
        by_group, f"{missing} more figures, of groups with fewer rows, were not drawn." if missing > 0 else ""
    )


@dataclass(frozen=True)
class _Plan:
    """A figure that can be drawn. draw gives None where it turns out that there is too little to show."""

    name: str
    title: str
    draw: Callable[[], Figure | None]
    notes: list[str]


def _plans(table: Table, with_published: bool) -> list[_Plan]:
    """The figures of a group, as far as two rows have the columns of one, or one row beside what papers state."""
    quality, coverage, speed = table.quality, table.coverage, table.speed
    papers = papers_of(table) if with_published else ()
    least = 1 if papers else 2
    plans = []
    if quality and len(shown_rows(table, speed, quality)) >= least:
        if coverage:
            text = f"The trilemma: {quality.title}, {coverage.title} and {speed.title.lower()}"
            draw = partial(trilemma, table, quality, coverage, papers)
            plans.append(_Plan("trilemma", text, draw, left_out(table, speed, quality)))
            plans.append(_Plan("triangles", "Each row's quality, coverage and speed", partial(triangles, table), []))
        if found := shown_curves(table, speed, quality):
            more = len(found) - MOST_CURVES
            notes = [f"{more} more curves are not drawn"] if more > 0 else []
            text = f"{quality.title} against {speed.title} of models sampled in several ways"
            plans.append(_Plan("curves", text, partial(step_curves, table, found, speed, quality), notes))
    for name, x, y in (("coverage-speed", speed, coverage), ("quality-coverage", coverage, quality)):
        if x and y and len(shown_rows(table, x, y)) >= least:
            text = f"{y.title} against {x.title}"
            plans.append(_Plan(name, text, partial(scatter, table, x, y, papers), left_out(table, x, y)))
    return plans


def _draw(plan: _Plan, name: str, folder: Path) -> list[Drawn]:
    figure = plan.draw()
    if figure is None:
        return []
    _save(figure, folder / name)
    return [Drawn(name, plan.title, _few(plan.notes))]


def _few(notes: list[str], most: int = 10) -> list[str]:
    return notes if len(notes) <= most else [*notes[:most], f"and {len(notes) - most} more"]


def _save(figure: Figure, stem: Path) -> None:
    with style():
        for suffix in SUFFIXES:
            # without the date, the same records give the same file
            metadata = {} if suffix == ".png" else {"Date": None} if suffix == ".svg" else {"CreationDate": None}
            save = partial(figure.savefig, dpi=PNG_DPI, facecolor="white", metadata=metadata)
            atomic(stem.with_name(f"{stem.name}{suffix}"), save)


def _forget_earlier(folder: Path, names: Sequence[str]) -> None:
    """Removes the figures that an earlier report left and this one does not have; lists those of this one."""
    listing = folder / LISTING
    files = sorted(f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    earlier = listing.read_text(encoding="utf-8", errors="replace").splitlines() if listing.is_file() else []
    for name in earlier:
        # the file may have been edited: nothing but a figure right in this folder is removed
        if name not in files and re.fullmatch(r"[A-Za-z0-9-]+\.(svg|pdf|png)", name):
            (folder / name).unlink(missing_ok=True)
    save_text(listing, "".join(f"{name}\n" for name in files))
