"""The report's files: the page, Markdown, LaTeX, CSV and figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from trilemma_bench.files import save_text
from trilemma_bench.record import Record
from trilemma_bench.report import format as fmt
from trilemma_bench.report.figures import FigureSet, draw_figures
from trilemma_bench.report.goals import VOLUME_MEANING, volumes
from trilemma_bench.report.latex import latex_tables
from trilemma_bench.report.notes import LEGEND, protocol_facts, separations
from trilemma_bench.report.numbers import write_numbers
from trilemma_bench.report.ours import check_ours
from trilemma_bench.report.page import page_html
from trilemma_bench.report.page.content import page_content
from trilemma_bench.report.published import MEANING, papers_beside, published_columns
from trilemma_bench.report.table import Table, tables
from trilemma_bench.results import write_csv

TEMPLATES = Path(__file__).parent / "templates"


def write(
    records: Sequence[Record], paths: Sequence[Path | None], out: Path, skipped: Sequence[str], with_published: bool
) -> Path:
    """See `trilemma_bench.report.write_report`."""
    out.mkdir(parents=True, exist_ok=True)
    check_ours(out)
    every = sorted(tables(records), key=lambda table: -len(table.competitors))  # a reader meets the largest first
    page = out / "index.html"
    save_text(page, page_html(page_content(records, paths, every, skipped, with_published)))
    figures = draw_figures(every, out / "figures", with_published)
    save_text(out / "report.md", _markdown(records, every, figures, skipped, with_published))
    save_text(out / "table.tex", latex_tables(every, with_published))
    write_numbers(every, out / "table.csv")
    write_csv(records, out / "results.csv", paths)
    return page


def _markdown(
    records: Sequence[Record],
    every: Sequence[Table],
    figures: FigureSet,
    skipped: Sequence[str],
    with_published: bool,
) -> str:
    columns = {column.title: column for table in every for column in table.columns if column.meaning}
    content = {
        "count": len(records),
        "sections": _sections(every),
        "papers": [(rows, published_columns(rows)) for rows in (papers_beside(every) if with_published else [])],
        "figures": figures,
        "failed": [record for record in records if record.status != "complete"],
        "skipped": skipped,
        "columns": list(columns.values()),
        "legend": LEGEND,
        "volume_meaning": VOLUME_MEANING,
        "published_meaning": MEANING,
    }
    return _environment().get_template("report.md").render(content)


def _sections(every: Sequence[Table]) -> list[dict[str, object]]:
    apart = separations([table.group for table in every])
    return [
        {"table": table, "facts": protocol_facts(table.group), "separations": lines, "volumes": volumes(table)}
        for table, lines in zip(every, apart, strict=True)
    ]


@cache
def _environment() -> Environment:
    """Markdown's counterpart of autoescape: every value is escaped on its way out."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else fmt.markdown(value),
    )
    environment.filters["arrow"] = lambda better: Markup(fmt.ARROWS[better])
    environment.globals["superscript"] = lambda number: Markup(str(number).translate(_SUPERSCRIPTS))
    return environment


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
