"""The report's files: what they say, and that they need nothing else."""

from __future__ import annotations

import csv
import math
import re
import subprocess
import sys

import pandas as pd
import pytest
from inputs import room_for
from pages import Page
from records import demo_records, failed_record, make_record, make_speed, make_training, with_errors

from trilemma_bench.errors import TrilemmaError
from trilemma_bench.report import write_report


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    write_report([*demo_records(), failed_record()], out, skipped=["x/record.json: not a readable record"])
    return out


def test_writes_everything(demo):
    figures = {path.name for path in (demo / "figures").iterdir()}
    names = ("trilemma", "triangles", "coverage-speed", "quality-coverage")
    made = {f"1-gaussians25-{name}.{kind}" for name in names for kind in ("png", "svg", "pdf")}
    assert figures == {*made, "made-by-report.txt"}  # none of digits: one row is nothing to compare
    assert (demo / "figures/1-gaussians25-trilemma.png").read_bytes().startswith(b"\x89PNG")
    assert (demo / "figures/1-gaussians25-trilemma.pdf").read_bytes().startswith(b"%PDF")
    files = {"index.html", "report.md", "table.tex", "table.csv", "results.csv", "figures"}
    assert {path.name for path in demo.iterdir()} == files


def test_a_full_disk_is_named_and_keeps_the_page_that_was_there(tmp_path):
    page = write_report(demo_records(), tmp_path)
    before = page.read_bytes()
    with (
        room_for(10_000),
        pytest.raises(TrilemmaError, match=r"could not write .*index.html: .*was there before is kept"),
    ):
        write_report(demo_records()[:1], tmp_path)
    assert page.read_bytes() == before


def test_the_page_needs_nothing_else(demo):
    text = (demo / "index.html").read_text()
    page = Page(text)
    sources = [value for name, value in page.attributes if name in ("src", "srcset", "href")]
    assert sources == ["data:,"]  # no icon is asked for
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"@import|url\(", style)


def test_figures_of_an_earlier_report_are_removed_and_nothing_else(tmp_path):
    records = [
        make_record(model, dataset=d, scores={"fid": 1.0 + i}, speed=make_speed(1.0, 1))
        for d in ("one", "other")
        for i, model in enumerate("ab")
    ]
    for record in records:
        record.scores["recall"] = record.scores["fid"].model_copy(update={"better": "higher"})
    write_report(records, tmp_path)
    figures = tmp_path / "figures"
    assert (figures / "2-other-trilemma.pdf").exists()
    (figures / "mine.png").write_text("kept")
    (tmp_path / "outside.png").write_text("kept")
    listing = figures / "made-by-report.txt"
    listing.write_text(listing.read_text() + "../outside.png\nmissing.png\n/etc/hostname\n\0\n")
    write_report(records[:2], tmp_path)
    names = {path.name for path in figures.iterdir()}
    assert {name for name in names if name.startswith("2-")} == set()
    assert {"mine.png", "1-one-trilemma.svg"} < names
    assert (tmp_path / "outside.png").exists()
    assert "2-other" not in listing.read_text()


def test_figures_are_few_however_many_groups_there_are(tmp_path):
    records = [
        make_record(
            f"m{i % 2}", scores={"fid": 1.0 + i, "recall": 0.5}, speed=make_speed(1 + i, 1, device=f"gpu {i // 2}")
        )
        for i in range(40)
    ]
    write_report(records, tmp_path)
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.pdf")}
    assert drawn == {f"{i}-gaussians25-trilemma" for i in range(1, 6)}
    assert "more figures" in (tmp_path / "report.md").read_text()
    assert len(Page((tmp_path / "index.html").read_text()).data["groups"]) == 20


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_the_report_says_what_a_reader_must_know(demo, name):
    text = (demo / name).read_text()
    text = Page(text).words if name == "index.html" else text.replace("\\", "")
    for needed in (
        "ddgan (4 steps)", "25 / 25", "0.00430", "8.20 µs", "k = 3 for precision and recall", "cpu: Xeon",
        "10,000 generated against 10,000 of the test split", "weights 3f3f3f3f3f3f", "nearest centre within 4",
        "scikit-learn's bundled", "real data: nothing is sampled", "as many perfect samples", "Hypervolume",
        "loss is NaN at step 12", "x/record.json: not a readable record", "in batches of 1,000 in float32",
    ):  # fmt: skip
        assert needed in text, needed


def test_markdown_tables_have_equal_rows(demo):
    lines = (demo / "report.md").read_text().splitlines()
    blocks = re.split(r"\n\n+", "\n".join(lines))
    rows = [[line for line in block.splitlines() if line.startswith("|")] for block in blocks]
    widths = [{len(re.findall(r"(?<!\\)\|", line)) for line in block} for block in rows if block]
    assert len(widths) == 5  # two groups of two tables each, and what did not complete
    assert all(len(width) == 1 for width in widths)


def test_the_csv_says_where_the_records_lie(tmp_path):
    paths = [tmp_path / "a" / "record.json", None]
    write_report([make_record("a"), make_record("b")], tmp_path / "out", paths=paths)
    with (tmp_path / "out" / "results.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == [str(paths[0]), ""]


def test_the_largest_group_comes_first(tmp_path):
    records = [make_record(f"m{i}", dataset="digits" if i else "gaussians25") for i in range(3)]
    write_report(records, tmp_path)
    groups = Page((tmp_path / "index.html").read_text()).data["groups"]
    assert [group["title"] for group in groups] == ["digits", "gaussians25"]


def test_every_number_of_the_page_is_in_a_csv_with_its_interval(tmp_path):
    records = [
        make_record(scores=with_errors({"fid": (7.0 + i, 0.1)}), seed=i, id=str(i), speed=make_speed(1e-3 * (i + 1), 4),
                    training=make_training(checkpoint_sha256=str(i)))
        for i in range(3)
    ]  # fmt: skip
    write_report([*records, *demo_records()], tmp_path)
    frame = pd.read_csv(tmp_path / "table.csv").set_index(["table", "row", "column"])
    groups = Page((tmp_path / "index.html").read_text()).data["groups"]
    for number, group in enumerate(groups, 1):
        for row in group["rows"]:
            for column, shown in zip(group["columns"], row["cells"], strict=True):
                line = frame.loc[(number, row["number"], column["key"])]
                wanted = [shown.get("value", math.nan), *shown.get("interval", (math.nan, math.nan))]
                assert line[["value", "low", "high"]].tolist() == pytest.approx(wanted, rel=1e-5, nan_ok=True)
                assert line["model"] == row["name"]
                assert line.fillna("")[["mark", "reason"]].tolist() == [shown.get("mark", ""), shown.get("reason", "")]
    seeds = frame[frame["model"] == "ddgan, 3 seeds"]
    assert set(seeds["seeds"]) == {3}
    assert seeds.loc[:, :, "fid"]["value"].tolist() == [8.0]


def test_the_csv_has_a_row_for_each_run(demo):
    with (demo / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == [record.model.name for record in demo_records()] + ["broken"]
    assert float(rows[0]["fd_features"]) == 0.0131
    assert (rows[0]["fd_features_se"], rows[0]["fd_features_low"]) == ("", "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r="])
def test_no_name_in_the_csv_is_a_formula_and_numbers_stay_numbers(start, tmp_path):
    name = f'{start}HYPERLINK("http://x","y")'
    record = make_record(name, name, name, {name: -3.5, "fid": -1.0}, missing={f"{name}2": name})
    write_report([record], tmp_path)
    with (tmp_path / "table.csv").open(newline="") as file:
        assert not any(
            text.startswith(start) for line in csv.reader(file) for text in line if text not in ("-3.5", "-1.0")
        )
    with (tmp_path / "results.csv").open(newline="") as file:
        head, row = csv.reader(file)
    assert not any(text.startswith(start) for text in [*head, *row] if text not in ("-3.5", "-1.0"))
    assert row[head.index(f"'{name}")] == "-3.5"
    assert row[head.index("fid")] == "-1.0"


def test_the_same_records_give_the_same_page(tmp_path):
    record = make_record(scores={"fd_x": 1.0}, speed=make_speed(1e-3, 4))
    one, other = (write_report([record], tmp_path / name).read_bytes() for name in ("one", "other"))
    assert one == other


def test_groups_that_may_not_be_compared_say_why(tmp_path):
    slow, fast = (
        make_record(device, scores={"precision": 0.5}, speed=make_speed(1, 1, device=device))
        for device in ("cpu", "cuda")
    )
    page = Page(write_report([slow, fast], tmp_path).read_text())
    assert "device: cuda, not cpu" in page.words


def test_a_report_is_made_without_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from trilemma_bench.results import find_records, load_results\n"
        "from trilemma_bench.report import terminal_table, write_report\n"
        "write_report([record for _, record in find_records([Path(sys.argv[1])]).records], Path(sys.argv[1]) / 'r')\n"
        "import trilemma_bench; trilemma_bench.compare(sys.argv[1], sys.argv[1])\n"
        "heavy = {'torch', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    (tmp_path / "record.json").write_text(make_record(speed=make_speed(1e-3, 1)).to_json())
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "index.html").exists()
