"""Tables for a paper: LaTeX with booktabs, a table for each group, best bold and second underlined within it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import Column
from trilemma_bench.report.published import MEANING, Published, papers_beside, published_columns
from trilemma_bench.report.table import Cell, Row, Table

# a table that fits a page; what is beyond it is in results.csv
MOST_ROWS = 40
_LEFT_OUT = {"images_per_second", "latency_p95_seconds", "peak_memory_bytes", "training_images"}
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "-": "{-}", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "√": r"$\surd$", "∞": r"$\infty$", "µ": r"$\mu$",
    "≈": r"$\approx$", "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "—": "---", "–": "--", "…": r"\ldots{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "é": r"\'e", "◆": r"$\diamond$", "²": r"$^2$",
}  # fmt: skip
_HEAD = (
    "% Made by trilemma-bench report. Needs \\usepackage{booktabs} and, for quotation marks, \\usepackage{textcomp} "
    "with \\usepackage[T1]{fontenc}.\n"
    "% Bold: best, underlined: second, each within one table only: another dataset, protocol, number of samples or\n"
    "% device is another table. Intervals are 95 %.\n"
)


def latex_tables(every: Sequence[Table], with_published: bool) -> str:
    """All tables; then, if asked for, those of published numbers, which are not ranked, a table for each dataset."""
    measured = [_measured(table, number) for number, table in enumerate(every, 1)]
    papers = [_published(rows) for rows in papers_beside(every)] if with_published else []
    return _HEAD + "\n" + "\n".join([*measured, *papers])


def latex(text: object) -> str:
    """`text` as literal text in LaTeX; a letter that plain LaTeX has no word for becomes its nearest, or '?'."""
    return "".join(_SPECIAL.get(char) or _ascii(char) for char in fmt.plain(text))


def _ascii(char: str) -> str:
    return char if char.isascii() else unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() or "?"


def _measured(table: Table, number: int) -> str:
    shown = [i for i in table.parts[0] if table.columns[i].key not in _LEFT_OUT] if table.parts else []
    rows = table.rows[:MOST_ROWS]
    head = ["Model", *(_heading(table.columns[i]) for i in shown)]
    body = [[_name(row), *(_cell(row.cells[i]) for i in shown)] for row in rows]
    used = sorted({row.cells[i].footnote or 0 for row in rows for i in shown} - {0})
    notes = [f"$^{{{mark}}}$~{latex(table.footnotes[mark - 1])}." for mark in used]
    if len(table.rows) > len(rows):
        notes.append(f"{len(table.rows) - len(rows)} more rows are in results.csv.")
    group = table.group
    samples = (
        f"protocol {latex(group['protocol'])}, {group['samples measured']:,} samples, " if group["protocol"] else ""
    )
    caption = f"{latex(table.title)}: {samples}{latex(table.device)}. Best in bold, second underlined."
    return _table(head, body, caption, f"tab:trilemma-{number}", notes)


def _heading(column: Column) -> str:
    return latex(f"{column.title} {fmt.ARROWS[column.better]}".strip())


def _name(row: Row) -> str:
    name = latex(row.name)
    return rf"\emph{{{name}}} (reference)" if row.reference else name


def _cell(cell: Cell) -> str:
    if cell.footnote:
        return f"---$^{{{cell.footnote}}}$"
    text = latex(cell.text)
    marked = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.second else text
    return f"{marked} {{\\scriptsize {latex(cell.detail)}}}" if cell.detail else marked


def _published(rows: tuple[Published, ...]) -> str:
    columns = published_columns(rows)
    head = ["Model", *(_heading(column) for column in columns), "Hardware", "Source"]
    body = [
        [latex(row.model), *(latex(row.text(column.key)) for column in columns),
         *(latex(text or fmt.DASH) for text in (row.hardware, row.source))]
        for row in rows
    ]  # fmt: skip
    caption = f"Published numbers of {latex(rows[0].dataset)}. {latex(MEANING)}."
    return _table(head, body, caption, f"tab:published-{fmt.slug(rows[0].dataset)}", [])


def _table(head: Sequence[str], body: Sequence[Sequence[str]], caption: str, label: str, notes: Sequence[str]) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\small",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(head) - 1)}@{{}}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\footnotesize {note}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
