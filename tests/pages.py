"""A written page, taken apart; and opened in a browser where there is one."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from html.parser import HTMLParser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# software rendering, so that the view in space is drawn on machines without a graphics card
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


class Page(HTMLParser):
    """The tags, attributes and text of a page, its scripts in their order, and the data that they read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._kinds: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._within = tag
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "script":
            self._kinds.append(dict(attrs).get("type", ""))
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._within = ""

    def handle_data(self, data):
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within != "style":
            self.text += data

    @property
    def data(self):
        return json.loads(self.scripts[self._kinds.index("application/json")])

    @property
    def words(self):
        """All that the page's data say."""
        return "\n".join(_strings(self.data))


def _strings(value):
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []


@contextmanager
def browsing():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page in a browser: what it complained about, and what it asked for beside itself."""

    def __init__(self, browser, path, width=1200, height=900, scheme="light"):
        self.page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self._said(message))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.resolve().as_uri())
        self.page.wait_for_selector("#plot .main-svg, #group[hidden]", state="attached")

    def afresh(self):
        """As it was opened, but for the theme: opening takes seconds."""
        self.page.evaluate("document.getElementById('details').close()")
        self.page.fill("#filter", "")
        self.page.uncheck("#only-front")
        self.page.check("input[value=flat]")
        self.page.click("#groups tbody tr:nth-child(1) button")
        self.until(lambda: len(self.names()) == 7)
        return self

    def _said(self, message):
        if message.type == "error":
            self.complaints.append(message.text)

    def until(self, condition):
        """Waits for what follows a delay; the page's policy forbids the browser's own way to wait for a function."""
        for _ in range(100):
            if condition():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("the page did not get there within five seconds")

    @property
    def elsewhere(self):
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def names(self):
        """The models of the table's rows, from top to bottom."""
        return self.page.locator("#table tbody .name button").all_inner_texts()

    def points(self):
        return int(self.page.get_attribute("#plot", "data-points"))

    def overflow(self):
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
