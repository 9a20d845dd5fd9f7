"""Tables for a paper: what is marked, what is escaped, what stands apart; and that LaTeX takes them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from records import demo_records, make_record, make_speed, many_records, with_errors

from trilemma_bench.report import write_report
from trilemma_bench.report.latex import MOST_ROWS, latex, latex_tables
from trilemma_bench.report.table import tables

HOSTILE = "\\input{/etc/passwd}$x_1^2$ & 5% #1 ~ {a} <b> \"q\" 'r' `s` | µ ± ∞ 漢 é\n\\end{table}"


def rows(text):
    return [line.split(" & ") for line in text.splitlines() if " & " in line]


def test_best_is_bold_and_second_underlined_within_a_table():
    records = [make_record(f"m{i}", scores=with_errors({"fid": (v, 0.2)})) for i, v in enumerate([5.0, 7.0, 6.0, 6.0])]
    found = {row[2]: row[3] for row in rows(latex_tables(tables(records), False))}
    assert found["m0"] == r"\trilemmavalue{\textbf{5.0}}{$\pm$0.4}"
    assert found["m2"] == found["m3"] == r"\trilemmavalue{\underline{6.0}}{$\pm$0.4}"
    assert found["m1"] == r"\trilemmavalue{7.0}{$\pm$0.4}"


def test_every_mark_is_explained_where_it_is_used_and_nowhere_else():
    def timed(name, fid, recall=0.5):
        speed = make_speed(1.0, 1, batch_size=1, raw_seconds=[1 + i / 1000 for i in range(20)])
        return make_record(name, scores=with_errors({"fid": (fid, 0.3), "recall": (recall, 0.01)}), speed=speed)

    text = latex_tables(tables([timed("best", 5.0), timed("near", 5.5, 0.49), timed("worse", 9.0)]), False)
    found = {row[2]: row for row in rows(text)}
    assert [found[name][1] for name in ("best", "near", "worse")] == [r"\trilemmafront", r"\trilemmanear", ""]
    assert found["near"][3] == r"\trilemmavalue{\underline{5.5}\trilemmatied}{$\pm$0.6}"
    (caption,) = re.findall(r"\\caption\{(.*)\}\n", text)
    for words in ("bold", "no difference from the best", "Pareto front", "off the front", "interval"):
        assert words in caption
    (bare,) = re.findall(r"\\caption\{(.*)\}\n", latex_tables(tables([make_record("a")]), False))
    for words in ("bold", "no difference from the best", "Pareto front", "off the front", "interval"):
        assert words not in bare


def test_rows_timed_on_a_busy_machine_are_named_below_the_table():
    speeds = {"quiet": make_speed(1e-3, 4, processor_share=0.99), "busy": make_speed(1e-3, 4, processor_share=0.45)}
    text = latex_tables(tables([make_record(name, speed=speed) for name, speed in speeds.items()]), False)
    assert "Timed on a busy machine or a shared GPU, so that times say little: busy." in text
    assert "Timed on" not in latex_tables(tables([make_record(speed=speeds["quiet"])]), False)


def test_of_two_rows_none_is_second_and_the_reference_is_nothing():
    records = [make_record(m, scores={"fid": v}) for m, v in (("a", 2.0), ("b", 3.0), ("real-data", 0.1))]
    text = latex_tables(tables(records), False)
    assert text.count(r"\textbf{") == 1
    assert r"\underline{" not in text
    assert r"\emph{real{-}data} (reference)" in text


def test_features_are_named_whole_in_a_heading():
    text = latex_tables(tables([make_record("a", scores={"fd_digits-cnn": 1.0})]), False)
    assert r"FD\\(digits{-}cnn)\end{tabular}" in text


def test_groups_are_tables_of_their_own():
    records = [make_record(m, speed=make_speed(1, 1, device=d)) for d in ("cpu", "cuda") for m in "ab"]
    text = latex_tables(tables(records), False)
    assert text.count(r"\begin{table}") == text.count(r"\toprule") == 2
    assert len(set(re.findall(r"\\label\{(.*)\}", text))) == 2


def test_a_missing_score_is_a_dash_with_its_reason_below():
    lacking = make_record("a", scores={"fid": 1.0}, missing={"recall": "needs 4 samples_, got 3"})
    text = latex_tables(tables([lacking, make_record("b", scores={"fid": 1.0, "recall": 0.5})]), False)
    (mark,) = re.findall(r"---\$\^\{(\d)\}\$", text)
    assert rf"$^{{{mark}}}$~needs 4 samples\_, got 3." in text


def test_long_tables_say_what_they_leave_out():
    (table,) = tables(many_records(100, 1))
    text = latex_tables([table], False)
    assert len(rows(text)) == MOST_ROWS + 1
    assert f"{100 - MOST_ROWS} more rows are in table.csv" in text


def test_published_numbers_are_a_table_of_their_own_without_marks():
    text = latex_tables(tables(many_records(8, 2)), True)
    published = text[text.index(r"\caption{Published") :]
    assert "DDGAN (T=4) & 3.75 & 9.63 & 0.57 & 4 & 2.10 ms" in published
    assert text.count(r"\caption{Published") == 1
    assert r"\textbf" not in published
    assert r"\underline" not in published
    assert "one V100 & DDGAN paper, Table 1" in published


def test_nothing_in_a_record_is_a_command():
    text = latex(HOSTILE)
    assert not re.search(r"(?<!\\)[$&%#_{}]", re.sub(r"\\text\w+\{\}|\$\\\w+(\{\})?\$|\{-\}|\\'e|\$\^2\$", "", text))
    assert "\\input" not in text
    assert "\\end" not in text
    assert text.isascii()
    assert "\n" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_takes_it(tmp_path):
    hostile = make_record(HOSTILE, HOSTILE, HOSTILE, {f"fd_{HOSTILE}": 1.0}, missing={"recall": HOSTILE})
    write_report([*demo_records(), *many_records(6, 1), hostile], tmp_path, published=True)
    head = r"\documentclass{article}\usepackage{booktabs,graphicx,textcomp}\usepackage[T1]{fontenc}\begin{document}"
    (tmp_path / "paper.tex").write_text(head + r"\input{table.tex}\end{document}")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert b"too wide" not in done.stdout
    assert b"Float too large" not in done.stdout
