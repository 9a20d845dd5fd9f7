"""Numbers from papers: complete, stated with their source, never ranked."""

from __future__ import annotations

import csv
import re

import pytest
from pages import Page
from records import many_records

from trilemma_bench.report import write_report
from trilemma_bench.report.published import FILE, published, published_columns

CIFAR = {row.model: row for row in published("cifar10")}


def test_every_number_says_where_it_is_from():
    with FILE.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = [row for dataset in {line["dataset"] for line in lines} for row in published(dataset)]
    assert len(rows) == len(lines) >= 90
    assert all(re.search("paper|abstract|readme", row.source) and row.values for row in rows)
    assert not re.search("recalled|memory|verify", FILE.read_text(encoding="utf-8"))
    assert all(row.hardware for row in rows if "seconds_per_image" in row.values)


def test_the_paper_s_own_row():
    row = CIFAR["DDGAN (T=4)"]
    expected = {"inception_score": 9.63, "fid": 3.75, "recall": 0.57, "nfe": 4, "seconds_per_image": 0.0021}
    assert row.values == pytest.approx(expected)
    assert (row.hardware, row.source) == ("one V100", "DDGAN paper, Table 1")
    assert row.text("seconds_per_image") == "2.10 ms"
    assert row.text("modes") == "—"


def test_columns_are_those_that_some_row_has():
    assert [column.key for column in published_columns(published("stackedmnist"))] == ["modes", "mode_kl"]
    assert published("nothing") == ()


@pytest.mark.parametrize("asked", [True, False])
def test_they_are_in_the_report_only_when_asked_for_and_never_among_the_rows(tmp_path, asked):
    write_report(many_records(8, 2), tmp_path, published=asked)
    data = Page((tmp_path / "index.html").read_text()).data
    assert len(data["published"].get("cifar10", {"rows": []})["rows"]) == (len(CIFAR_ROWS) if asked else 0)
    assert not any(row["name"] in CIFAR for group in data["groups"] for row in group["rows"])
    text = (tmp_path / "report.md").read_text()
    assert ("not measured here" in text) is asked
    assert text.count("| NVAE |") == asked


CIFAR_ROWS = published("cifar10")
