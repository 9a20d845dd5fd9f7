"""The report's files: one HTML page that needs no other file, Markdown, CSV, and the plots."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from trilemma_bench.record import Record
from trilemma_bench.report import format as fmt
from trilemma_bench.report.notes import LEGEND, protocol_facts, separations
from trilemma_bench.report.plots import left_out, scatter, shown_rows, style
from trilemma_bench.report.table import Table, tables
from trilemma_bench.report.trilemma import trilemma
from trilemma_bench.results import write_csv

TEMPLATES = Path(__file__).parent / "templates"
PNG_DPI = 160
# names the plots that a report made, so that the next one there can remove those it does not make
LISTING = "made-by-report.txt"


@dataclass(frozen=True)
class Plot:
    """name: of its files, without suffix. width: CSS pixels. text: what it shows, for those who cannot see it."""

    name: str
    title: str
    svg: str
    width: int
    text: str
    notes: list[str]

    @property
    def data_uri(self) -> str:
        return f"data:image/svg+xml;base64,{base64.b64encode(_adaptive(self.svg).encode()).decode()}"


@dataclass(frozen=True)
class Section:
    """A comparable group on the page."""

    anchor: str
    table: Table
    facts: list[tuple[str, str]]
    separations: list[str]
    plots: list[Plot]


def write(records: list[Record], out: Path, skipped: list[str]) -> Path:
    """See `trilemma_bench.report.write_report`."""
    (out / "plots").mkdir(parents=True, exist_ok=True)
    every = tables(records)
    sections = [_section(table, number, every, out) for number, table in enumerate(every, 1)]
    failed = [record for record in records if record.status != "complete"]
    columns = {column.title: column for table in every for column in table.columns if column.meaning}
    content = {"sections": sections, "failed": failed, "skipped": skipped, "count": len(records), "plain": fmt.plain}
    content |= {"columns": list(columns.values()), "legend": LEGEND}
    page = out / "index.html"
    page.write_text(_html().get_template("report.html").render(content), encoding="utf-8")
    (out / "report.md").write_text(_markdown().get_template("report.md").render(content), encoding="utf-8")
    write_csv(records, out / "results.csv")
    _forget_earlier_plots(out / "plots", {plot.name for section in sections for plot in section.plots})
    return page


def _forget_earlier_plots(folder: Path, names: set[str]) -> None:
    """Removes the plots that an earlier report left and this one does not have; lists those of this one."""
    listing = folder / LISTING
    files = sorted(f"{name}{suffix}" for name in names for suffix in (".png", ".svg"))
    earlier = listing.read_text(encoding="utf-8", errors="replace").splitlines() if listing.is_file() else []
    for name in earlier:
        # the file may have been edited: nothing but a plot right in this folder is removed
        if name not in files and re.fullmatch(r"[A-Za-z0-9-]+\.(png|svg)", name):
            (folder / name).unlink(missing_ok=True)
    listing.write_text("".join(f"{name}\n" for name in files), encoding="utf-8")


def _section(table: Table, number: int, every: list[Table], out: Path) -> Section:
    anchor = f"{number}-{fmt.slug(table.title)}"
    others = [other.group for other in every]
    plots = _plots(table, anchor, out)
    return Section(anchor, table, protocol_facts(table.group), separations(table.group, others), plots)


def _plots(table: Table, anchor: str, out: Path) -> list[Plot]:
    """The four plots, as far as the group has both columns of one for at least one row."""
    quality, coverage, speed = table.quality, table.coverage, table.speed
    plots = []
    if quality and coverage and shown_rows(table, speed, quality):
        title = f"The trilemma: {quality.title}, {coverage.title} and {speed.title.lower()}"
        notes = left_out(table, speed, quality)
        plots.append(_save(trilemma(table, quality, coverage), out / "plots" / f"{anchor}-trilemma", title, notes))
    pairs = (
        ("quality-speed", speed, quality),
        ("coverage-speed", speed, coverage),
        ("quality-coverage", coverage, quality),
    )
    for name, x, y in pairs:
        if x and y and shown_rows(table, x, y):
            title, notes = f"{y.title} against {x.title}", left_out(table, x, y)
            plots.append(_save(scatter(table, x, y), out / "plots" / f"{anchor}-{name}", title, notes))
    return plots


def _save(figure: Figure, stem: Path, title: str, notes: list[str]) -> Plot:
    png, svg = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    with style():
        figure.savefig(png, dpi=PNG_DPI, facecolor="white")
        # without the date, the same records give the same file
        figure.savefig(svg, facecolor="white", metadata={"Date": None})
    width = round(96 * figure.get_figwidth())
    return Plot(
        stem.name, title, svg.read_text(encoding="utf-8"), width, f"{title}; the values are in the table", notes
    )


# what is drawn in ink, grey and white follows the page into the dark; the colours of the data stay
_IN_THE_DARK = {
    "#ffffff": "#141416", "#222222": "#ececee", "#262626": "#ececee", "#555555": "#b0b0b6", "#8a8a8a": "#8e8e94",
    "#c8c8c8": "#5a5a60", "#dddddd": "#48484e", "#e0e0e0": "#3e3e44", "#e4e4e4": "#303036",
}  # fmt: skip


def _adaptive(svg: str) -> str:
    """`svg` with a style sheet by which it follows the reader's light or dark setting."""
    light = "".join(f"--c{colour[1:]}: {colour}; " for colour in _IN_THE_DARK)
    dark = "".join(f"--c{colour[1:]}: {other}; " for colour, other in _IN_THE_DARK.items())
    for colour in _IN_THE_DARK:
        svg = svg.replace(colour, f"var(--c{colour[1:]})")
    sheet = f"<style>:root {{ {light}}} @media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}</style>"
    return svg.replace("<defs>", f"{sheet}<defs>", 1)


@cache
def _html() -> Environment:
    return _environment(autoescape=True)


@cache
def _markdown() -> Environment:
    """Markdown's counterpart of autoescape: every value is escaped on its way out."""
    return _environment(finalize=lambda value: value if isinstance(value, Markup) else fmt.markdown(value))


def _environment(**options: Any) -> Environment:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)
    environment.filters["arrow"] = lambda better: Markup(fmt.ARROWS[better])
    environment.globals["superscript"] = lambda number: Markup(str(number).translate(_SUPERSCRIPTS))
    return environment


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
