"""Tables, plots and pages made from records alone: no torch, no data, no network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trilemma_bench.record import Record
from trilemma_bench.report.terminal import format_row, terminal_table

__all__ = ["format_row", "terminal_table", "write_report"]


def write_report(records: Iterable[Record], out: Path, skipped: Iterable[str] = ()) -> Path:
    """Writes index.html, report.md, results.csv and plots/ into `out`, and returns the path of index.html.

    skipped: lines about files that could not be used, as `find_records` gives them. Files of an earlier report there
    are replaced. Raises OSError when `out` cannot be written.
    """
    from trilemma_bench.report.page import write  # matplotlib takes seconds to import: only for those who plot

    return write(list(records), Path(out), list(skipped))
