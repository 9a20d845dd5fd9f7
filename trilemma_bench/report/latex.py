"""Tables for a paper: LaTeX with booktabs, a table for each group, best bold and second underlined within it."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from trilemma_bench.report import format as fmt
from trilemma_bench.report.columns import Column
from trilemma_bench.report.notes import FRONT, NEAR
from trilemma_bench.report.published import MEANING, Published, papers_beside, published_columns
from trilemma_bench.report.table import Cell, Row, Table

# a table that fits a page; what is beyond it is in table.csv
MOST_ROWS = 30
_LEFT_OUT = {"images_per_second", "latency_p95_seconds", "peak_memory_bytes", "training_images"}
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "-": "{-}", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "√": r"$\surd$", "∞": r"$\infty$", "µ": r"$\mu$",
    "≈": r"$\approx$", "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "—": "---", "–": "--", "…": r"\ldots{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "é": r"\'e", "◆": r"$\diamond$", "²": r"$^2$",
}  # fmt: skip
_HEAD = r"""% Made by trilemma-bench report. Needs \usepackage{booktabs,graphicx} and, for quotation marks,
% \usepackage{textcomp} with \usepackage[T1]{fontenc}. Other datasets, protocols, numbers of samples and devices are
% other tables: marks compare within one only. A table wider than the line is made smaller. How a value and its interval
% look, and the marks, can be defined differently before this file is read.
\providecommand{\trilemmavalue}[2]{\begin{tabular}[t]{@{}r@{}}#1\\[-0.4ex]{\tiny #2}\end{tabular}}
\providecommand{\trilemmatied}{\rlap{$^{\approx}$}}
\providecommand{\trilemmafront}{$\bullet$}
\providecommand{\trilemmanear}{$\circ$}
"""
_MARKS = {FRONT: r"\trilemmafront", NEAR: r"\trilemmanear", "": ""}
_MEANINGS = {
    r"\textbf": "Best in bold, second underlined",
    r"\trilemmatied": r"$^{\approx}$: no difference from the best is shown",
    r"\trilemmafront": r"\trilemmafront: on the Pareto front of quality, coverage and speed",
    r"\trilemmanear": r"\trilemmanear: off the front by differences that are not shown to be real",
    r"\trilemmavalue": r"Below a value: its 95\,\% interval, of a single run for other samples of the same trained "
    "model, of several seeds for other trainings too",
}
_WORDS = {"", "Model", "Hardware", "Source"}
# characters, before a name or a heading is broken into two lines
_NAME, _TITLE, _SOURCE = 26, 10, 36
_LONGEST_WORD = 20  # of a heading, which is not broken: features are named by one


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
    head = [r"\#", "", "Model", *(_heading(table.columns[i]) for i in shown)]
    body = [[str(row.number), _MARKS[row.mark], _name(row), *(_cell(row.cells[i]) for i in shown)] for row in rows]
    used = sorted({row.cells[i].footnote or 0 for row in rows for i in shown} - {0})
    notes = [f"$^{{{mark}}}$~{latex(table.footnotes[mark - 1])}." for mark in used]
    notes += _disturbed(rows)
    if len(table.rows) > len(rows):
        notes.append(f"{len(table.rows) - len(rows)} more rows are in table.csv.")
    group = table.group
    samples = (
        f"protocol {latex(group['protocol'])}, {group['samples measured']:,} samples, " if group["protocol"] else ""
    )
    trained = f"trained {latex(table.training)}, " if table.training else ""
    cells = " ".join(cell for line in body for cell in line)
    meanings = "".join(f" {text}." for mark, text in _MEANINGS.items() if mark in cells)
    caption = f"{latex(table.title)}: {samples}{trained}{latex(table.device)}.{meanings}"
    return _table(head, body, caption, f"tab:trilemma-{number}", notes)


def _disturbed(rows: Sequence[Row]) -> list[str]:
    """A line that names the rows whose times others on the machine made longer, if there are any."""
    names = [row.name for row in rows if row.record.speed and row.record.speed.busy_note and not row.reference]
    said = f"Timed on a busy machine or a shared GPU, so that times say little: {latex(fmt.listed(names))}."
    return [said] if names else []


def _heading(column: Column) -> str:
    width = max(_TITLE, min(_LONGEST_WORD, max(map(len, column.title.split()))))
    title = _stacked("b", "r", fmt.wrapped(column.title, width))
    return f"{title}~{latex(fmt.ARROWS[column.better])}" if column.better else title


def _stacked(place: str, side: str, text: str) -> str:
    """The lines of `text` on top of one another."""
    lines = [latex(line) for line in text.split("\n")]
    joined = r"\\".join(lines)
    return joined if len(lines) == 1 else rf"\begin{{tabular}}[{place}]{{@{{}}{side}@{{}}}}{joined}\end{{tabular}}"


def _name(row: Row) -> str:
    name = _stacked("t", "l", fmt.wrapped(row.name, _NAME))
    return rf"\emph{{{name}}} (reference)" if row.reference else name


def _cell(cell: Cell) -> str:
    if cell.footnote:
        return f"---$^{{{cell.footnote}}}$"
    text = latex(cell.text)
    marked = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.second else text
    marked += r"\trilemmatied" * cell.tied
    return rf"\trilemmavalue{{{marked}}}{{{latex(cell.detail)}}}" if cell.detail else marked


def _published(rows: tuple[Published, ...]) -> str:
    columns = published_columns(rows)
    head = ["Model", *(_heading(column) for column in columns), "Hardware", "Source"]
    body = [
        [
            latex(row.model),
            *(latex(row.text(column.key)) for column in columns),
            _words(row.hardware),
            _words(row.source),
        ]
        for row in rows
    ]
    caption = f"Published numbers of {latex(rows[0].dataset)}. {latex(MEANING)}."
    return _table(head, body, caption, f"tab:published-{fmt.slug(rows[0].dataset)}", [])


def _words(text: str) -> str:
    return _stacked("t", "l", "\n".join(textwrap.wrap(text or fmt.DASH, _SOURCE)))


def _table(head: Sequence[str], body: Sequence[Sequence[str]], caption: str, label: str, notes: Sequence[str]) -> str:
    """Numbers to the right, names and words to the left."""
    sides = "".join("l" if text in _WORDS else "r" for text in head)
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{sides}@{{}}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}}",
        *(rf"\par\smallskip\footnotesize {note}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
