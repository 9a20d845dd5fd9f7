"""What the page is made of: its data, what it takes from run folders, and what may run on it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from pages import Page
from PIL import Image
from records import demo_records, make_record, make_speed, make_training

from trilemma_bench.record import ModelPart
from trilemma_bench.report import write_report
from trilemma_bench.report.page import folders, page_html
from trilemma_bench.report.page.content import page_content
from trilemma_bench.report.page.folders import Folders
from trilemma_bench.report.table import tables


def page_of(records, paths=None):
    records = list(records)
    return Page(page_html(page_content(records, paths or [None] * len(records), tables(records), [], False)))


def png(path, size=(20, 10), noise=False):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8) if noise else None
    image = Image.fromarray(pixels) if noise else Image.new("RGB", size, "red")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG")
    return path


def embedded(uri):
    kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", uri).groups()
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_only_the_two_scripts_that_are_there_may_run():
    page = page_of(demo_records())
    (policy,) = (value for name, value in page.attributes if "default-src" in value)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.scripts[1:]]
    assert len(digests) == 2
    assert f"script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_the_data_cannot_end_their_element():
    page = page_of([make_record("</script><script>x</script><!--", speed=make_speed(1, 1))])
    assert page.tags.count("script") == 3
    assert page.data["groups"][0]["rows"][0]["name"] == "</script><script>x</script><!--"


def test_what_json_has_no_number_for_stays_readable():
    part = ModelPart(
        name="m", parameters=1, settings={"limit": float("inf"), "x": float("nan")}, plugin="p", version="1"
    )
    (run,) = page_of([make_record().model_copy(update={"model": part})]).data["runs"]
    assert run["settings"] == {"limit": "Infinity", "x": "NaN"}


def test_a_row_has_its_values_intervals_marks_and_reasons():
    group = page_of(demo_records()).data["groups"][0]
    keys = [column["key"] for column in group["columns"]]
    first, last = group["rows"][0], group["rows"][-1]
    cell = first["cells"][keys.index("fd_features")]
    assert (first["name"], cell["value"], cell["text"], cell["mark"]) == (
        "ddpm (1000 steps)", 0.0043, "0.00430", "best",
    )  # fmt: skip
    assert last["cells"][keys.index("nfe")] == {"text": "—", "reason": "real data: nothing is sampled or trained"}
    goals = {goal: keys[place] for goal, place in group["goals"].items()}
    assert goals == {"quality": "fd_features", "coverage": "recall", "speed": "seconds_per_image"}


def test_runs_of_several_seeds_are_one_row_with_all_of_them():
    records = [
        make_record(scores={"fid": 7.0 + i}, seed=i, id=str(i), training=make_training(checkpoint_sha256=str(i)))
        for i in range(3)
    ]
    data = page_of(records).data
    (row,) = data["groups"][0]["rows"]
    assert [data["runs"][place]["run"]["seed"] for place in row["runs"]] == [0, 1, 2]


def test_what_runs_share_is_there_once():
    data = page_of(demo_records()).data
    assert len(data["runs"]) == 8
    assert len(data["shared"]) == 3  # two protocols and one environment
    assert data["shared"][data["runs"][0]["protocol"]]["name"] == "points"


# pictures


def test_a_small_picture_is_embedded_as_it_is(tmp_path):
    path = png(tmp_path / "samples.png")
    uri = Folders().pictures(tmp_path)["samples"]["uri"]
    assert base64.b64decode(uri.partition(",")[2]) == path.read_bytes()


def test_a_large_picture_is_shrunk(tmp_path):
    path = png(tmp_path / "nearest.png", (1000, 500), noise=True)
    kind, image = embedded(Folders().pictures(tmp_path)["nearest"]["uri"])
    assert (kind, image.size) == ("webp", (640, 320))
    assert path.stat().st_size > folders.ONE_PICTURE


def test_pictures_beyond_the_room_are_left_out_and_say_so(tmp_path, monkeypatch):
    small = png(tmp_path / "a" / "samples.png")
    png(tmp_path / "b" / "samples.png")
    monkeypatch.setattr(folders, "ALL_PICTURES", small.stat().st_size)
    found = Folders()
    assert "uri" in found.pictures(tmp_path / "a")["samples"]
    assert "left out" in found.pictures(tmp_path / "b")["samples"]["left_out"]


def test_few_pictures_are_shrunk(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MOST_SHRUNK", 1)
    found = Folders()
    for name, key in (("a", "uri"), ("b", "left_out")):
        png(tmp_path / name / "samples.png", (300, 300), noise=True)
        assert key in found.pictures(tmp_path / name)["samples"]


@pytest.mark.parametrize("content", [b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n broken", b"GIF89a"])
def test_what_is_no_picture_is_not_embedded(tmp_path, content):
    (tmp_path / "samples.png").write_bytes(content)
    assert Folders().pictures(tmp_path) == {"samples": {"left_out": "samples.png is not a picture that can be shown"}}


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    png(tmp_path / "samples.png", (300, 300), noise=True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "left_out" in Folders().pictures(tmp_path)["samples"]


def test_the_front_has_its_pictures_first(tmp_path, monkeypatch):
    records = demo_records()
    paths = [png(tmp_path / str(i) / "samples.png").with_name("record.json") for i in range(len(records))]
    monkeypatch.setattr(folders, "ALL_PICTURES", 5 * (tmp_path / "0/samples.png").stat().st_size)
    data = page_of(records, paths).data
    shown = {run["name"] for run in data["runs"] if "uri" in run["pictures"]["samples"]}
    assert "gan" not in shown
    assert "real-data" not in shown
    assert len(shown) == 5


# training curves


def log(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


def test_a_long_curve_is_thinned_and_ends_where_it_ends(tmp_path):
    log(
        tmp_path / "run/training.jsonl",
        [{"step": i, "seconds": 0.1 * i, "images": i, "loss": 1 / (i + 1)} for i in range(5000)],
    )
    curve = Folders().training_curve(make_record(), tmp_path / "run")
    assert len(curve["step"]) <= folders.POINTS_OF_A_CURVE + 1
    assert (curve["step"][0], curve["step"][-1]) == (0, 4999)
    assert curve["series"].keys() == {"loss"}
    assert curve["series"]["loss"][-1] == pytest.approx(1 / 5000, rel=1e-5)


def test_the_curve_of_the_run_that_trained_the_model_is_found_beside_it(tmp_path):
    log(tmp_path / "first/training.jsonl", [{"step": 1, "loss": 2}, {"step": 2, "loss": 1}])
    record = make_record(training=make_training(run_id="first"))
    assert Folders().training_curve(record, tmp_path / "second")["series"] == {"loss": [2, 1]}


@pytest.mark.parametrize("run_id", ["../secret", "..", ".", "", "/etc", "a/b"])
def test_no_run_id_leads_elsewhere(tmp_path, run_id):
    for place in ("secret", "model/a/b", "model"):
        log(tmp_path / place / "training.jsonl", [{"step": 1, "loss": 2}, {"step": 2, "loss": 1}])
    record = make_record(training=make_training(run_id=run_id))
    assert Folders().training_curve(record, tmp_path / "model" / "run") is None


def test_lines_that_are_no_log_are_passed_over(tmp_path):
    bad = [
        "no json\n",
        "[1]\n",
        '{"loss": 3}\n',
        '{"step": "x", "loss": 1}\n',
        '{"step": 2, "loss": NaN}\n',
        "[" * 9999 + "\n",
    ]
    log(
        tmp_path / "run/training.jsonl", [{"step": 1, "loss": 2, "on": True}, *bad, {"step": 3, "loss": 1, "name": "x"}]
    )
    curve = Folders().training_curve(make_record(), tmp_path / "run")
    assert curve == {"step": [1, 2, 3], "series": {"loss": [2, None, 1]}}


def test_logs_beyond_the_room_are_not_read(tmp_path, monkeypatch):
    log(tmp_path / "run/training.jsonl", [{"step": 1, "loss": 2}, {"step": 2, "loss": 1}])
    monkeypatch.setattr(folders, "ALL_LOGS", 10)
    assert Folders().training_curve(make_record(), tmp_path / "run") is None


def test_the_page_of_a_written_report_has_the_folders_of_its_runs(tmp_path):
    png(tmp_path / "run/samples.png")
    write_report([make_record()], tmp_path / "out", paths=[tmp_path / "run/record.json"])
    (run,) = Page((tmp_path / "out/index.html").read_text()).data["runs"]
    assert run["run"]["folder"] == str(tmp_path / "run")
    assert "uri" in run["pictures"]["samples"]
