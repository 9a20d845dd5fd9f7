"""Nothing in a record can break a report, and little to show is no error."""

from __future__ import annotations

import re

import pytest
from pages import Page
from records import make_record, make_speed

from trilemma_bench.report import terminal_table, write_report

HOSTILE = "<script>alert(1)</script>|$\\frac{$ *b* `c` [d](e)\n# \x1b[31m&"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    speed = make_speed(1e-3, 1, device=HOSTILE, precision=HOSTILE)
    protocol = dict.fromkeys(["name", "extractor", "mode_rule", "quantisation", "reference_split"], HOSTILE)
    protocol["extractors"] = {HOSTILE: {"weights_sha256": None, "resize": HOSTILE}}
    record = make_record(
        HOSTILE, HOSTILE, f"../{HOSTILE}", {f"fd_{HOSTILE}": 1.0, "recall": 0.5, HOSTILE: 2.0}, HOSTILE, protocol,
        speed, missing={"precision": HOSTILE, f"x{HOSTILE}": HOSTILE}, id=HOSTILE,
    )  # fmt: skip
    records = [record, record.model_copy(update={"status": "failed", "error": HOSTILE})]
    out = tmp_path_factory.mktemp("hostile") / "out"
    write_report(records, out, skipped=[HOSTILE])
    return out, records


def test_nothing_in_a_record_becomes_html(hostile):
    text = (hostile[0] / "index.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == 3  # the data, plotly, and the page's own
    assert "alert(1)" in page.words
    assert "<script>alert" not in text
    assert "alert(1)" not in page.text
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_nothing_in_a_record_becomes_markdown(hostile):
    text = (hostile[0] / "report.md").read_text()
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\[d(?<!\\)\]", text)
    assert not re.search(r"(?<!\\)[`$]", text)
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| 1 ")}
    assert len(widths) == 1


def test_nothing_in_a_record_leaves_the_folder_or_steers_the_terminal(hostile):
    out, records = hostile
    assert {path.name for path in out.parent.iterdir()} == {"out"}
    text = terminal_table(records)
    assert "\x1b" not in text
    assert len(text.partition("did not complete:\n")[2].splitlines()) == 1


def bare(**changes):
    """A record without scores, and of no protocol."""
    return make_record(scores={}, **changes).model_copy(update={"protocol": None})


@pytest.mark.parametrize(
    ("records", "groups", "words"),
    [
        ([], 0, "no runs"),
        ([make_record("real-data")], 1, "real-data"),
        ([bare()], 1, "gaussians25 · not timed"),
        ([bare(status="interrupted")], 0, "ddgan on gaussians25 (interrupted): no error was recorded"),
        ([make_record(scores={"mine": 3.0}, speed=make_speed(1e-3, None))], 1, "mine↑"),
    ],
    ids=["nothing", "only real data", "no scores", "only interrupted", "only a foreign score"],
)
def test_little_to_show_is_no_error(records, groups, words, tmp_path):
    assert len(Page(write_report(records, tmp_path).read_text()).data["groups"]) == groups
    assert words in terminal_table(records)
