"""Tables, figures and pages made from records alone: no torch, no data, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from trilemma_bench.record import Record
from trilemma_bench.report.ours import check_ours
from trilemma_bench.report.terminal import terminal_table

__all__ = ["check_ours", "terminal_table", "write_report"]


def write_report(
    records: Iterable[Record],
    out: Path | str,
    skipped: Iterable[str] = (),
    paths: Sequence[Path | None] | None = None,
    published: bool = False,
) -> Path:
    """Writes index.html, report.md, table.tex, table.csv, results.csv and figures/ into `out`; returns the page.

    table.csv has the numbers of the tables, a line for each row and column; results.csv has the runs, a row each.
    skipped: lines about files that could not be used, as `find_records` gives them. paths: of the records' files, in
    whose folders pictures and training curves are looked for. published: shows what papers state beside it. Files of
    an earlier report there are replaced. Raises UsageError where files of such names are something else's,
    TrilemmaError or OSError where one cannot be written.
    """
    from trilemma_bench.report.files import write  # matplotlib takes seconds to import: only for those who plot

    records = list(records)
    return write(records, paths or [None] * len(records), Path(out), list(skipped), published)
