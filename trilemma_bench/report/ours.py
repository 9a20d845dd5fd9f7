"""Which files a report consists of, and whether those in a folder may be replaced."""

from __future__ import annotations

from pathlib import Path

from trilemma_bench.errors import UsageError

FILES = ("index.html", "report.md", "table.tex", "table.csv", "results.csv")
GENERATOR = '<meta name="generator" content="trilemma-bench">'  # in the page: it is ours, and may be replaced


def check_ours(out: Path) -> None:
    """Raises UsageError where a report would replace files that are no report's: before work that it would end."""
    page = out / "index.html"
    ours = page.is_file() and GENERATOR in page.read_text(encoding="utf-8", errors="replace")[:2000]
    foreign = [name for name in FILES if (out / name).exists()]
    if foreign and not ours:
        raise UsageError(f"{out} holds {' and '.join(foreign)} of something else: choose another folder for the report")
