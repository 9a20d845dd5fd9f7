"""The report: what it says, what it never says, and that nothing in a record can break it."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from records import demo_records, make_record, make_scores, make_speed

from trilemma_bench.report import format as fmt
from trilemma_bench.report import format_row, terminal_table, write_report
from trilemma_bench.report.labels import place
from trilemma_bench.report.plots import axis_title, left_out, scatter
from trilemma_bench.report.table import Table, tables
from trilemma_bench.report.trilemma import goodness, trilemma

HOSTILE = "<script>alert(1)</script>|$\\frac{$ *b* `c` [d](e)\n# \x1b[31m&"


class Page(HTMLParser):
    """The tags, attributes and text of a page; text within style and script is left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        if self.tags[-1:] not in (["style"], ["script"]):
            self.text += data


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    failed = make_record("broken", status="failed", error="loss is NaN at step 12", scores={}, training=None)
    write_report([*demo_records(), failed], out, skipped=["x/record.json: not a readable record"])
    return out


@pytest.fixture(scope="module")
def toy() -> Table:
    return tables(demo_records())[0]


def cell(table: Table, name: str, key: str):
    (row,) = [row for row in table.rows if row.name == name]
    return row.cells[[column.key for column in table.columns].index(key)]


# numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (3.75, "3.75"), (9.996, "10.0"), (146, "146"), (999.6, "1,000"),
     (12345.6, "12,346"), (-0.5, "-0.500"), (1.234e-5, "1.23e-05")],
)  # fmt: skip
def test_figures(value, text):
    assert fmt.figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (3.2e-8, "32.0 ns"), (8.2e-6, "8.20 µs"), (9.996e-4, "1.00 ms"), (0.0021, "2.10 ms"), (1.5, "1.50 s"),
     (115, "115 s"), (120, "2.00 min"), (147_600, "41.0 h")],
)  # fmt: skip
def test_seconds(value, text):
    assert fmt.seconds(value) == text


def test_counts_and_memory():
    assert [fmt.count(n) for n in (0, 512, 39_800, 999_999, 35_700_000)] == ["0", "512", "39.8 k", "1.00 M", "35.7 M"]
    assert [fmt.size(n) for n in (512, 2048, 3 * 2**30)] == ["512 B", "2.00 KiB", "3.00 GiB"]


# the table


def test_best_is_marked_among_competitors_only(toy):
    assert cell(toy, "ddpm (1000 steps)", "fd_features").best
    assert not cell(toy, "real-data", "fd_features").best  # though it is lower
    assert cell(toy, "ddpm (4 steps)", "recall").best
    assert cell(toy, "vae", "seconds_per_image").best
    assert [cell(toy, name, "nfe").best for name in ("gan", "vae", "ddgan (4 steps)")] == [True, True, False]
    assert not any(cell(toy, row.name, "parameters").best for row in toy.rows)


def test_nothing_is_best_in_a_table_of_one():
    assert not any(cell.best for cell in tables(demo_records())[1].rows[0].cells)


def test_front_holds_the_trade_offs_never_the_dominated_nor_the_reference(toy):
    assert {row.name for row in toy.rows if not row.front} == {"gan", "real-data"}


def test_reference_comes_last_and_has_no_speed():
    timed = make_record("real-data", scores={"fd_features": 0.1, "recall": 1.0}, speed=make_speed(1e-9, 0))
    (table,) = tables([timed, make_record(speed=make_speed(1e-3, 4))])
    assert [row.reference for row in table.rows] == [False, True]
    assert cell(table, "real-data", "seconds_per_image").text == "—"
    assert "real data" in table.footnotes[cell(table, "real-data", "nfe").footnote - 1]


def test_rows_go_by_quality(toy):
    distances = [row.record.scores["fd_features"].value for row in toy.rows[:-1]]
    assert distances == sorted(distances)


def test_modes_say_how_many_there_are(toy):
    assert cell(toy, "gan", "modes").text == "9 / 25"


def test_a_missing_score_is_a_dash_with_its_reason():
    lacking = make_record("a", scores={"fd_features": 1.0}, missing={"recall": "needs 4 samples, got 3"})
    (table,) = tables([lacking, make_record("b")])
    recall = cell(table, "a", "recall")
    assert (recall.text, recall.value) == ("—", None)
    assert table.footnotes[recall.footnote - 1] == "needs 4 samples, got 3"


def test_runs_of_one_label_are_told_apart():
    names = lambda *records: {row.name for row in tables(records)[0].rows}  # noqa: E731
    assert names(make_record(seed=1), make_record(seed=2)) == {"ddgan, seed 1", "ddgan, seed 2"}
    assert names(make_record(id="run-1"), make_record(id="run-2")) == {"ddgan, run-1", "ddgan, run-2"}


def test_notes_name_their_rows_unless_all_share_them():
    scores = make_scores({"fd_features": 1.0})
    noted = {"fd_features": scores["fd_features"].model_copy(update={"note": "N is below D"})}
    record = make_record("a", note="not the official archive")
    (table,) = tables([record.model_copy(update={"scores": noted}), make_record("b", note="not the official archive")])
    assert table.notes[:2] == ["Data: not the official archive", "a: fd_features: N is below D"]


# the plots


def test_labels_cover_neither_one_another_nor_the_points():
    rng = np.random.default_rng(0)
    anchors = rng.uniform((50, 50), (750, 450), (20, 2))
    sizes = np.full((20, 2), (90.0, 14.0))
    centres = place(anchors, sizes, np.full(20, 6.0), np.array([0.0, 0, 800, 500]), np.empty((0, 4)))
    low, high = centres - sizes / 2, centres + sizes / 2
    overlap = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).clip(0).prod(axis=2)
    inside = ((anchors > low[:, None]) & (anchors < high[:, None])).all(axis=2)
    assert np.triu(overlap, 1).sum() == 0
    assert not inside.any()
    assert (low >= 0).all()
    assert (high <= (800, 500)).all()


def test_labels_of_equal_points_do_not_cover_each_other():
    centres = place(
        np.full((3, 2), 100.0),
        np.full((3, 2), (60.0, 14.0)),
        np.full(3, 6.0),
        np.array([0.0, 0, 200, 200]),
        np.empty((0, 4)),
    )
    gaps = np.abs(centres[:, None] - centres)[np.triu_indices(3, 1)]
    assert ((gaps[:, 0] >= 60) | (gaps[:, 1] >= 14)).all()


def test_labels_of_no_points():
    nothing = np.empty((0, 2))
    assert place(nothing, nothing, np.empty(0), np.array([0.0, 0, 1, 1]), np.empty((0, 4))).shape == (0, 2)


def test_axes_say_what_and_which_way(toy):
    assert toy.quality.key == "fd_features"
    assert toy.coverage.key == "recall"
    assert axis_title(toy.quality, "y") == "FD (features)  (lower is better ↓)"
    assert axis_title(toy.speed, "x") == "Time per image  (lower is better ←)"
    assert axis_title(toy.coverage, "x") == "Recall  (higher is better →)"


def test_every_competitor_is_drawn_and_named_and_time_is_logarithmic(toy):
    axes = scatter(toy, toy.speed, toy.quality).axes[0]
    assert axes.get_xscale() == "log"
    assert {row.name for row in toy.competitors} <= {text.get_text() for text in axes.texts}
    drawn = {tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1}
    expected = {(row.record.speed.seconds_per_image, row.record.scores["fd_features"].value) for row in toy.competitors}
    assert expected <= drawn


def test_rows_that_a_plot_cannot_show_are_named_with_the_reason():
    lacking = make_record("a", scores={"recall": 0.5}, missing={"fd_x": "singular"}, speed=make_speed(1, 1))
    (table,) = tables([lacking, make_record("b", scores={"fd_x": 1.0, "recall": 0.5}, speed=make_speed(1, 1))])
    assert left_out(table, table.speed, table.quality) == ["a is not shown, it has no FD (x): singular"]


def test_looks_differ_in_colour_and_in_marker(toy):
    axes = scatter(toy, toy.speed, toy.quality).axes[0]
    marks = [line for line in axes.lines if line.get_marker() in set("osD^vPX<>") and len(line.get_xdata()) == 1]
    assert len({line.get_marker() for line in marks}) == len({str(line.get_color()) for line in marks}) == 6


def test_the_trilemma_has_a_bubble_and_a_triangle_for_each_row(toy):
    figure = trilemma(toy, toy.quality, toy.coverage)
    bubbles = [collection.get_sizes()[0] for collection in figure.axes[-2].collections]
    titles = {axes.get_title() for axes in figure.axes}
    assert {row.name for row in toy.competitors} <= titles
    covered = [row.record.scores["recall"].value for row in toy.competitors]
    assert np.argsort(bubbles).tolist() == np.argsort(covered).tolist()


def test_goodness_is_one_for_the_best_and_tells_decades_apart(toy):
    assert np.allclose(goodness(toy.speed, np.array([1e-3, 1e-2, 1e-1])), [1, 0.5, 0])
    assert goodness(toy.speed, np.array([1.0, 1.1])).min() > 0.9  # a tenth slower is not the worst there is
    assert np.allclose(goodness(toy.coverage, np.array([0.2, 0.8])), [0.25, 1])
    assert np.allclose(goodness(toy.quality, np.array([0.0, 2.0])), [1, 0])
    assert np.allclose(goodness(toy.quality, np.array([0.0, 0.0])), 1)


EDGES = {
    "zeros": [{"fd_x": 0.0, "recall": 0.0}, {"fd_x": 9.0, "recall": 1.0}],
    "all zero": [{"fd_x": 0.0, "recall": 0.0}, {"fd_x": 0.0, "recall": 0.0}],
    "equal": [{"fd_x": 1.0, "recall": 0.5}, {"fd_x": 1.0, "recall": 0.5}],
    "negative": [{"fd_x": -1e-9, "recall": 0.5}, {"fd_x": 1.0, "recall": 0.5}],
    "no coverage": [{"fd_x": 1.0}, {"fd_x": 2.0, "recall": 0.5}],
    "only quality": [{"high_quality": 0.4}, {"high_quality": 0.5}],
    "huge": [{"fd_x": 1e90, "recall": 0.5}, {"fd_x": 1e-90, "recall": 0.4}],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("times", [(0.0, 1e-3), (0.0, 0.0), (1e-12, 1e4)])
@pytest.mark.parametrize("scores", EDGES.values(), ids=EDGES)
def test_edges_are_drawn_within_the_axes(scores, times):
    records = [make_record(f"m{t}", scores=s, speed=make_speed(t, 1)) for s, t in zip(scores, times, strict=True)]
    (table,) = tables(records)
    axes = scatter(table, table.speed, table.quality).axes[0]
    for record in records:
        at = (record.speed.seconds_per_image, record.scores[table.quality.key].value)
        assert axes.get_xlim()[0] < at[0] < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < at[1] < axes.get_ylim()[1]
    if table.coverage:
        assert trilemma(table, table.quality, table.coverage).axes


# the files


def test_writes_everything(demo):
    names = {"trilemma", "quality-speed", "coverage-speed", "quality-coverage"}
    plots = {path.name for path in (demo / "plots").iterdir()}
    assert plots == {
        f"{group}-{name}.{kind}" for group in ("1-gaussians25", "2-digits") for name in names for kind in ("png", "svg")
    }
    assert (demo / "plots/1-gaussians25-trilemma.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in demo.iterdir()} == {"index.html", "report.md", "results.csv", "plots"}


def test_the_page_needs_nothing_else(demo):
    text = (demo / "index.html").read_text()
    page = Page(text)
    sources = [value for name, value in page.attributes if name in ("src", "srcset", "href")]
    assert page.tags.count("img") == 8
    assert all(value.startswith(("data:image/svg+xml;base64,", "#")) for value in sources)
    assert "link" not in page.tags
    assert not re.search(r"@import|url\(", text)


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_the_report_says_what_a_reader_must_know(demo, name):
    text = (demo / name).read_text()
    text = Page(text).text if name == "index.html" else text.replace("\\", "")
    for needed in (
        "ddgan (4 steps)", "25 / 25", "0.00430", "8.20 µs", "k = 3 for precision and recall", "cpu: Xeon",
        "10,000 generated against 10,000 of the test split", "weights 3f3f3f3f3f3f", "nearest centre within 4",
        "scikit-learn's bundled", "real data: nothing is sampled", "perfect samples have", "Did not complete",
        "loss is NaN at step 12", "x/record.json: not a readable record", "in batches of 1,000 in float32",
    ):  # fmt: skip
        assert needed in text, needed


def test_markdown_tables_have_equal_rows(demo):
    lines = (demo / "report.md").read_text().splitlines()
    blocks = re.split(r"\n\n+", "\n".join(lines))
    rows = [[line for line in block.splitlines() if line.startswith("|")] for block in blocks]
    widths = [{len(re.findall(r"(?<!\\)\|", line)) for line in block} for block in rows if block]
    assert len(widths) == 3  # two groups, and what did not complete
    assert all(len(width) == 1 for width in widths)


def test_the_csv_has_a_row_for_each_run(demo):
    with (demo / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == [record.model.name for record in demo_records()] + ["broken"]
    assert float(rows[0]["fd_features"]) == 0.0131


def test_the_same_records_give_the_same_page(tmp_path):
    record = make_record(scores={"fd_x": 1.0}, speed=make_speed(1e-3, 4))
    one, other = (write_report([record], tmp_path / name).read_bytes() for name in ("one", "other"))
    assert b"data:image" in one
    assert one == other


def test_groups_that_may_not_be_compared_say_why(tmp_path):
    slow, fast = (
        make_record(device, scores={"precision": 0.5}, speed=make_speed(1, 1, device=device))
        for device in ("cpu", "cuda")
    )
    page = Page(write_report([slow, fast], tmp_path).read_text())
    assert "device: cuda, not cpu" in page.text


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
    assert page.tags.count("script") == 1
    assert "alert(1)" in page.text
    assert "<script>alert" not in text
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
    assert "\x1b" not in terminal_table(records) + format_row(records[0]) + format_row(records[1])
    assert len(format_row(records[1]).splitlines()) == 1


@pytest.mark.parametrize(
    "records",
    [
        [],
        [make_record("real-data")],
        [make_record(scores={}, protocol=None)],
        [make_record(status="interrupted", protocol=None, scores={})],
        [make_record(scores={"mine": 3.0}, speed=make_speed(1e-3, None))],
    ],
    ids=["nothing", "only real data", "no scores", "only interrupted", "only a foreign score"],
)
def test_little_to_show_is_no_error(records, tmp_path):
    without = [record.model_copy(update={"protocol": None}) if not record.scores else record for record in records]
    assert write_report(without, tmp_path).stat().st_size > 1000
    assert terminal_table(without)


# the terminal


def test_terminal_table():
    failed = make_record("broken", status="failed", error="loss is NaN\nat step 12", scores={})
    text = terminal_table([*demo_records(), failed])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    (ddgan, _) = (line for line in lines if line.startswith("ddgan"))
    shown = ["0.0131", "0.774", "0.861", "0.690", "0.742", "25/25*", "0.812", "4", "8.20µs", "446µs", "530k", "115s"]
    assert ddgan.split()[3:] == shown
    (real,) = (line for line in lines if line.startswith("real-data"))
    assert "*" not in real
    assert "  broken on gaussians25 (failed): loss is NaN at step 12" in lines
    assert any("scikit-learn's bundled" in line for line in lines)


def test_terminal_columns_are_aligned():
    lines = terminal_table(demo_records()[:7]).splitlines()
    recalls = ["0.941", "0.932", "0.861", "0.966"]
    ends = {line.index(value) + len(value) for line, value in zip(lines[2:6], recalls, strict=True)}
    assert len(ends) == 1


def test_terminal_table_keeps_its_width_with_the_longest_values():
    scores = {"fid": 1234567.0, "modes": 1000, "precision": 0.5, "recall": 0.5, "density": 1.5, "coverage": 0.5}
    name = "a-model-with-a-name-that-goes-on-and-on-and-on-for-ever"
    speed = [make_speed(123.0, 1000), make_speed(124.0, 2000)]
    records = [make_record(name, f"{i}", scores={**scores, "high_quality": i / 2}, speed=speed[i]) for i in range(2)]
    records = [record.model_copy(update={"mode_histogram": [1] * 1000}) for record in records]
    assert max(map(len, terminal_table(records).splitlines())) <= 120


def test_format_row():
    row = format_row(demo_records()[0])
    assert row.startswith("ddgan (4 steps) on gaussians25: FD (features) 0.0131, Precision 0.774")
    assert "NFE 4, Time per image 8.20 µs" in row
    assert "\n" not in row
    broken = make_record("m", status="failed", error="disk full", scores={})
    assert format_row(broken) == "m on gaussians25 (failed): disk full"


# what it imports


def test_a_report_is_made_without_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from trilemma_bench.results import find_records, load_results\n"
        "from trilemma_bench.report import terminal_table, write_report\n"
        "write_report([record for _, record in find_records([Path(sys.argv[1])]).records], Path(sys.argv[1]) / 'r')\n"
        "heavy = {'torch', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    (tmp_path / "record.json").write_text(make_record(speed=make_speed(1e-3, 1)).to_json())
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "index.html").exists()


def test_points_are_judged_by_their_modes_since_a_distance_of_moments_is_blind_to_blur():
    blurred = {"fd_points": 0.007, "high_quality": 0.05, "recall": 0.98, "modes": 12.0}
    sharp = {"fd_points": 0.008, "high_quality": 0.86, "recall": 0.96, "modes": 25.0}
    (table,) = tables([make_record("blurred", scores=blurred), make_record("sharp", scores=sharp)])
    assert (table.quality.key, table.coverage.key) == ("high_quality", "modes")
    assert [row.name for row in table.rows] == ["sharp", "blurred"]
