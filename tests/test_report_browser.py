"""The page as a reader has it: in a browser, by mouse and by keyboard, narrow and dark, and attacked."""

from __future__ import annotations

import json

import pytest
from pages import BROWSER, Opened, browsing
from PIL import Image
from records import demo_records, failed_record, make_record, make_speed, many_records, with_errors

from trilemma_bench.report import figures, write_report
from trilemma_bench.report.plots import scatter
from trilemma_bench.report.table import tables

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: the page is not opened")

ATTACK = "<img src=x onerror=hacked=1><script>hacked=1</script></script><b>bold</b>&lt;i&gt;%{x}</text>"


@pytest.fixture(scope="module")
def browser():
    with browsing() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def _no_figures():
    """The page has none, and they take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "MOST_FIGURES", 0)
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's runs, each with a folder that holds pictures and a log, and one that failed."""
    top = tmp_path_factory.mktemp("demo")
    records = [record.model_copy(update={"command": f"make {record.label}"}) for record in demo_records()]
    paths = []
    for i in range(len(records) + 1):
        folder = top / f"run-{i}"
        folder.mkdir()
        Image.new("RGB", (40, 30), (10 * i, 0, 90)).save(folder / "samples.png")
        (folder / "training.jsonl").write_text("".join(f'{{"step": {s}, "loss": {1 / s}}}\n' for s in range(1, 9)))
        paths.append(folder / "record.json")
    return write_report([*records, failed_record()], top / "out", ["x/record.json: not a record"], paths)


@pytest.fixture(scope="module")
def shared(browser, demo):
    return Opened(browser, demo)


@pytest.fixture
def opened(shared):
    yield shared.afresh()
    assert shared.complaints == []
    assert shared.elsewhere == []


def point_of(opened, name):
    """Where the mark of a row is in the window."""
    return opened.page.evaluate(
        """(name) => {
            const rows = [...document.querySelectorAll("#table tbody tr")];
            const row = rows.find((each) => each.querySelector("button").textContent === name);
            const number = Number(row.cells[0].textContent), plot = document.getElementById("plot");
            plot.scrollIntoView();
            const trace = plot.data.find((each) => each.marker && each.customdata?.includes(number));
            const place = trace.customdata.indexOf(number), at = plot._fullLayout;
            const { left, top } = plot.getBoundingClientRect();
            return [
                left + at.margin.l + at.xaxis.d2p(trace.x[place]), top + at.margin.t + at.yaxis.d2p(trace.y[place]),
            ];
        }""",
        name,
    )


def test_best_first_then_worst_first_and_missing_always_last(opened):
    at_first = opened.names()
    opened.page.click("th[data-column=recall] button")
    assert opened.names()[:2] == ["real-data", "ddpm (4 steps)"]
    opened.page.click("th[data-column=fd_features] button")
    ranked = opened.names()
    assert ranked[:2] == ["real-data", "ddpm (1000 steps)"]
    assert opened.page.get_attribute("th[data-column=fd_features]", "aria-sort") == "ascending"
    opened.page.click("th[data-column=fd_features] button")
    assert opened.names() == ranked[::-1]
    for _ in range(2):
        opened.page.click("th[data-column=seconds_per_image] button")
        assert opened.names()[-1] == "real-data"
    opened.page.click("th[data-column=name] button")
    assert opened.names() == ["ddgan (4 steps)", "ddim (50 steps)", "ddpm (4 steps)", "ddpm (1000 steps)", "gan",
                              "real-data", "vae"]  # fmt: skip
    assert sorted(at_first) == sorted(opened.names())


def test_a_filter_holds_for_table_plot_and_pictures(opened):
    assert opened.points() == 6
    opened.page.fill("#filter", "ddpm steps")
    opened.until(lambda: len(opened.names()) == 2)
    assert opened.points() == opened.page.locator("#samples figure").count() == 2
    opened.page.fill("#filter", "")
    opened.page.check("#only-front")
    opened.until(lambda: len(opened.names()) == 5)
    assert "gan" not in opened.names()


def test_a_limit_keeps_the_rows_within_it_and_real_data(opened):
    opened.page.fill("#limit", "0.0005")  # seconds of latency: 30 times the time per image and 0.2 ms
    opened.until(lambda: set(opened.names()) == {"ddgan (4 steps)", "ddpm (4 steps)", "gan", "vae", "real-data"})
    assert opened.points() == 4
    assert opened.page.inner_text("#shown") == (
        "5 of 7 rows; best, ≈, ◆ and ◇ are of all 7. Within the limit FD (features) is best of ddgan (4 steps). "
        "95 % intervals of 2 of these reach beyond it"
    )
    said = opened.page.inner_text("#shown")
    for text in ("500us", " 500 µs ", "5e-4 s", "0.5 ms"):
        opened.page.fill("#limit", "")
        opened.until(lambda: len(opened.names()) == 7)
        opened.page.fill("#limit", text)
        opened.until(lambda: opened.page.inner_text("#shown") == said)
    opened.page.select_option("#limit-column", label="Recall ≥")
    opened.page.fill("#limit", "0.95")
    opened.until(lambda: set(opened.names()) == {"ddpm (4 steps)", "vae", "real-data"})
    opened.page.fill("#limit", "")
    opened.until(lambda: len(opened.names()) == 7)
    assert opened.page.inner_text("#shown") == "7 of 7 rows"


def test_a_limit_has_the_units_of_its_column(opened):
    hints = {}
    for column in ("Latency ≤", "Peak memory ≤", "NFE ≤"):
        opened.page.select_option("#limit-column", label=column)
        hints[column] = opened.page.get_attribute("#limit", "placeholder")
    assert hints == {"Latency ≤": "e.g. 20 ms", "Peak memory ≤": "e.g. 2 GiB", "NFE ≤": "any"}
    opened.page.fill("#limit", "20 ms")
    opened.until(lambda: '7 of 7 rows. "20 ms" is no limit: give a number' in opened.page.inner_text("#shown"))
    assert opened.page.get_attribute("#limit", "aria-invalid") == "true"
    opened.page.select_option("#limit-column", label="Latency ≤")
    opened.until(lambda: len(opened.names()) == 6)
    assert opened.page.get_attribute("#limit", "aria-invalid") == "false"


def test_a_limit_says_which_times_are_doubtful(browser, tmp_path):
    def of(name, share):
        return make_record(name, scores={"fid": 1.0, "recall": 0.8}, speed=make_speed(1e-3, 4, processor_share=share))

    opened = Opened(browser, write_report([of("a", 1.0), of("b", 0.5)], tmp_path / "out"))
    opened.page.fill("#limit", "1 s")
    opened.until(
        lambda: opened.page.inner_text("#shown").endswith(
            ". Times of 1 of these are from a busy machine or a shared GPU"
        )
    )


def test_nearly_equal_values_have_no_colour_bar(browser, opened, tmp_path):
    def has_bar(found):
        traces = found.page.evaluate("document.getElementById('plot').data.map((trace) => trace.marker?.showscale)")
        return True in traces

    assert has_bar(opened)
    records = [
        make_record(f"m{i}", scores={"fid": 1.0 + i, "recall": 0.8 + i / 1000}, speed=make_speed(1.0 + i, 1))
        for i in range(3)
    ]
    assert not has_bar(Opened(browser, write_report(records, tmp_path)))


def test_a_missing_score_says_why(opened):
    cell = opened.page.locator("#table tbody tr.reference td").last
    assert "nothing is sampled" in cell.get_attribute("title")
    assert "—" in cell.inner_text()


def test_pointing_shows_the_run_and_a_click_opens_all_of_it(opened):
    x, y = point_of(opened, "ddim (50 steps)")
    opened.page.mouse.move(x - 3, y)
    opened.page.mouse.move(x, y)
    opened.page.wait_for_selector("#tip:not([hidden])")
    assert "ddim (50 steps)" in opened.page.inner_text("#tip")
    assert "106 µs" in opened.page.inner_text("#tip")
    opened.page.mouse.click(x, y)
    opened.page.wait_for_selector("dialog[open]")
    assert opened.page.inner_text("#details-title") == "ddim (50 steps)"
    body = opened.page.text_content("#details-body")
    for word in ("make ddim (50 steps)", "0.0125", "nearest centre within 4", "cpu: Xeon", "12000"):
        assert word in body, word
    opened.page.wait_for_selector("#chart-training .main-svg")
    assert opened.page.locator("#details img").evaluate("(image) => image.naturalWidth") == 40


def test_everything_by_keyboard(opened):
    opened.page.focus("#plot")
    opened.page.keyboard.press("ArrowRight")
    assert "vae" in opened.page.inner_text("#tip")  # the fastest
    opened.page.keyboard.press("ArrowRight")
    assert "gan" in opened.page.inner_text("#announced")
    opened.page.keyboard.press("Enter")
    assert opened.page.inner_text("dialog[open] h2") == "gan"
    opened.page.keyboard.press("Escape")
    assert opened.page.locator("dialog[open]").count() == 0
    opened.page.focus("#table tbody button")
    opened.page.keyboard.press("Enter")
    assert opened.page.inner_text("dialog[open] h2") == "ddpm (1000 steps)"
    opened.page.keyboard.press("Escape")
    assert opened.page.evaluate("document.activeElement.textContent") == "ddpm (1000 steps)"
    opened.page.focus("th[data-column=recall] button")
    opened.page.keyboard.press("Enter")
    assert opened.names()[0] == "real-data"
    assert opened.page.evaluate("document.activeElement.textContent") == "Recall\u00a0↑"


VIEWS = {"flat": ".scatterlayer .points path", "space": ".gl-container canvas", "radar": ".polarlayer path"}


def views_of(opened):
    """Goes through the views that this browser can draw."""
    for view, drawn in VIEWS.items():
        if not opened.page.is_disabled(f"input[value={view}]"):
            opened.page.check(f"input[value={view}]")
            opened.page.wait_for_selector(f"#plot {drawn}", state="attached")
            yield view


def test_each_view_is_drawn_and_has_no_way_out(opened):
    for view in views_of(opened):
        assert opened.points() == 6
        buttons = opened.page.locator("#plot .modebar-btn").evaluate_all("(all) => all.map((one) => one.dataset.title)")
        assert "Download" in buttons[0], view
        assert not any("cloud" in title.lower() or "share" in title.lower() for title in buttons)


def test_axes_can_be_chosen(opened):
    opened.page.select_option("#axis-x", label="NFE")
    title = opened.page.evaluate("document.getElementById('plot').layout.xaxis.title.text")
    assert title == "NFE (lower is better)"
    assert opened.points() == 6
    opened.page.check("input[value=radar]")
    assert not opened.page.is_visible("#axis-x")  # a radar's are those of the trilemma
    opened.page.check("input[value=flat]")
    assert opened.page.is_visible("#axis-x")


def test_models_sampled_in_several_ways_are_curves(browser, tmp_path):
    found = Opened(browser, write_report(many_records(80, 1), tmp_path))
    found.page.check("input[value=curves]")
    traces = found.page.evaluate("document.getElementById('plot').data")
    lines = [trace["x"] for trace in traces if trace["mode"] == "lines+markers"]
    assert [len(line) for line in lines] == [10] * 8
    assert all(line == sorted(line) for line in lines)
    assert [found.page.is_visible(f"#axis-{key}") for key in ("x", "y", "colour")] == [True, True, False]


def test_groups_are_chosen_and_winners_named(opened):
    assert "ddpm (1000 steps)" in opened.page.inner_text("#winners .card:nth-child(1)")
    assert "vae" in opened.page.inner_text("#winners .card:nth-child(3)")
    opened.page.click("#groups tbody tr:nth-child(2) button")
    opened.until(lambda: opened.page.inner_text("#group-title").startswith("digits"))
    assert opened.names() == ["ddgan (4 steps)"]
    assert opened.page.locator("#winners .card").count() == 0  # nobody to win against
    opened.page.go_back()
    opened.until(lambda: opened.page.inner_text("#group-title").startswith("gaussians25"))


def test_rows_near_the_front_and_ties_are_marked(browser, tmp_path):
    def timed(name, fid, recall, device="cpu"):
        speed = make_speed(1.0, 1, batch_size=1, raw_seconds=[1 + i / 1000 for i in range(20)], device=device)
        return make_record(name, scores=with_errors({"fid": (fid, 0.3), "recall": (recall, 0.01)}), speed=speed)

    records = [
        timed("best", 5.0, 0.5),
        timed("near", 5.5, 0.49),
        timed("worse", 9.0, 0.4),
        timed("alone", 9, 0.5, "gpu"),
    ]
    found = Opened(browser, write_report(records, tmp_path))
    marks = "document.getElementById('plot').data.find((each) => each.marker?.symbol === 'circle-open').y"
    assert found.page.evaluate(marks) == [5.5]
    assert "Ring: off the Pareto front" in found.page.inner_text("#plot-legend")
    assert found.page.locator("#table tbody .name").all_inner_texts() == ["best\n◆", "near\n◇", "worse"]
    overview = found.page.locator("#groups tbody tr").all_inner_texts()
    assert "best: FID 5.0 (≈ 1 more)" in overview[0]
    assert "nothing to compare" in overview[1]


def test_what_did_not_complete_is_there_with_its_error(opened):
    assert "loss is NaN at step 12" in opened.page.inner_text("#failed")
    assert "not a record" in opened.page.inner_text("#skipped")
    opened.page.click("#failed-table tbody button")
    assert "loss is NaN" in opened.page.inner_text("dialog[open]")


def test_400_pixels_are_wide_enough(browser, demo):
    found = Opened(browser, demo, width=400, height=800)
    for view in views_of(found):
        assert found.overflow() <= 0, view
    found.page.focus("#table tbody button")
    found.page.keyboard.press("Enter")
    found.page.wait_for_selector("#chart-training .main-svg")
    assert found.overflow() <= 0
    assert found.page.locator("#details").evaluate("(dialog) => dialog.scrollWidth - dialog.clientWidth") <= 0
    assert found.complaints == []


def test_a_window_that_changes_its_width_keeps_a_whole_plot(browser, demo):
    found = Opened(browser, demo, width=400, height=800)
    room = "(({ w, h, t }) => [w, h, t])(document.getElementById('plot')._fullLayout._size)"
    wide = "document.getElementById('plot').clientWidth"
    for width in (1200, 400):
        found.page.set_viewport_size({"width": width, "height": 800})
        found.until(lambda: found.page.evaluate(f"document.getElementById('plot')._fullLayout.width === {wide}"))
        found.page.wait_for_timeout(500)
        across, up, _ = found.page.evaluate(room)
        assert across > 0.7 * found.page.evaluate(wide)
        assert up > 200
    assert found.page.evaluate("document.getElementById('plot')._fullLayout.margin.t") == found.page.evaluate(room)[2]


def background(found):
    return found.page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_follows_the_system_and_the_switch(browser, demo):
    light, dark = (Opened(browser, demo, scheme=scheme) for scheme in ("light", "dark"))
    assert background(light) != background(dark)
    assert dark.page.evaluate("document.getElementById('plot').layout.paper_bgcolor") == "#141416"
    dark.page.click("#theme")
    assert dark.page.inner_text("#theme") == "Theme: light"
    assert background(dark) == background(light)
    assert dark.page.evaluate("document.getElementById('plot').layout.paper_bgcolor") == "#fff"
    dark.page.reload()
    dark.page.wait_for_selector("#plot .main-svg")
    assert background(dark) == background(light)
    light.page.emulate_media(color_scheme="dark")
    light.until(lambda: background(light) == "rgb(20, 20, 22)")


def test_nothing_in_a_record_is_run_or_becomes_an_element(browser, tmp_path):
    speed = [make_speed(s, 4, device=ATTACK, precision=ATTACK) for s in (1e-3, 2e-3)]
    protocol = dict.fromkeys(["name", "extractor", "mode_rule", "quantisation", "reference_split"], ATTACK)
    records = [
        make_record(
            ATTACK, f"{ATTACK}{i}", ATTACK, {f"fd_{ATTACK}": 1.0 + i, "recall": 0.5 + i / 9, ATTACK: 2.0}, ATTACK,
            protocol, speed[i], missing={"precision": ATTACK, f"x{ATTACK}": ATTACK}, id=f"{ATTACK}{i}", command=ATTACK,
            environment={ATTACK: ATTACK, "list": [ATTACK]},
        )
        for i in range(2)
    ]  # fmt: skip
    folder = tmp_path / "<b>run"
    folder.mkdir()
    (folder / "training.jsonl").write_text(
        json.dumps({"step": 1, ATTACK: 1}) + "\n" + json.dumps({"step": 2, ATTACK: 2})
    )
    (folder / "samples.png").write_text(ATTACK)
    failed = records[0].model_copy(update={"status": "failed", "error": ATTACK})
    page = write_report([*records, failed], tmp_path / "out", [ATTACK], [folder / "record.json"] * 3)
    found = Opened(browser, page)
    before = found.page.locator("img, b, i, script").count()
    assert "flat" in list(views_of(found))
    found.page.check("input[value=flat]")
    found.page.check("#all-columns")
    found.page.focus("#plot")
    found.page.keyboard.press("ArrowRight")
    assert ATTACK in found.page.text_content("#tip")
    found.page.keyboard.press("Enter")
    found.page.wait_for_selector("#chart-training .main-svg")
    assert ATTACK in found.page.text_content("#details-title")
    assert ATTACK in found.page.text_content("#chart-training")
    assert ATTACK in found.page.text_content("#failed")
    assert found.page.evaluate("typeof hacked") == "undefined"
    # the page's own: a name in the tip, and the cards of who wins
    assert found.page.locator("img, i, script").count() <= before
    assert not any(ATTACK not in text for text in found.page.locator("#winners b, #tip b").all_text_contents())
    assert found.complaints == []


def test_a_script_that_is_not_the_page_s_own_does_not_run(browser, demo):
    found = Opened(browser, demo)
    found.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'hacked = 1' }))"
    )
    assert found.page.evaluate("typeof hacked") == "undefined"
    assert any("Content Security Policy" in text for text in found.complaints)


def test_published_numbers_are_shown_hollow_and_can_be_switched_off(browser, tmp_path):
    records = many_records(12, 1)
    found = Opened(browser, write_report(records, tmp_path / "with", published=True))
    hollow = "document.getElementById('plot').data.filter((each) => each.marker?.symbol === 'square-open').length"
    assert found.page.evaluate(hollow) == 1
    assert "DDGAN paper, Table 1" in found.page.inner_text("#published-part")
    assert "NVAE" not in found.page.inner_text("#table") + found.page.inner_text("#winners")
    found.page.uncheck("#published")
    assert found.page.evaluate(hollow) == 0
    without = Opened(browser, write_report(records, tmp_path / "without"))
    assert not without.page.is_visible("#published-part")
    assert not without.page.is_visible("#published-switch")


@pytest.mark.parametrize(
    ("values", "scale"),
    [({"fid": (1.0, 15.0)}, "log"), ({"fid": (1.0, 9.0)}, "linear"), ({"kid": (1e-3, 0.1)}, "linear")],
)
def test_page_and_figures_choose_the_same_scale(browser, tmp_path, values, scale):
    ((name, pair),) = values.items()
    records = [make_record(f"m{value}", scores={name: value, "recall": 0.5}, speed=make_speed(1, 1)) for value in pair]
    found = Opened(browser, write_report(records, tmp_path))
    (table,) = tables(records)
    assert found.page.evaluate("document.getElementById('plot').layout.yaxis.type") == scale
    assert scatter(table, table.speed, table.quality).axes[0].get_yscale() == scale


def test_a_thousand_runs_are_a_page_like_any_other(browser, tmp_path):
    found = Opened(browser, write_report(many_records(1000, 1), tmp_path))
    assert len(found.names()) == found.points() == 1000
    found.page.click("th[data-column=recall] button")
    found.page.fill("#filter", "model-3 ")
    found.until(lambda: len(found.names()) == 40)
    assert found.points() == 40
    assert found.overflow() <= 0
    assert found.complaints == []


def test_a_page_without_a_complete_run(browser, tmp_path):
    found = Opened(browser, write_report([make_record(status="interrupted", protocol=None, scores={})], tmp_path))
    assert "no complete run" in found.page.inner_text("#count")
    assert found.complaints == []
