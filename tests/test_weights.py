"""Weights: found, verified, downloaded, resumed; and one clear line when they cannot be had."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from seeded_weights import install

from trilemma_bench import paths, weights
from trilemma_bench.errors import TrilemmaError, UsageError
from trilemma_bench.weights import Weight, find, load, status

CONTENT = bytes(range(256)) * 300


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT, with ranges; `cut` bytes at most, to play a broken connection.

    sized: whether it says how many bytes there are. shift: by how much it misses the place it is asked for. endless:
    whether it goes on sending after that.
    """

    cut: int | None = None
    ranges = True
    sized = True
    shift = 0
    endless = False
    asked: list[str | None] = []
    body = CONTENT

    def do_GET(self):
        asked = self.headers.get("Range")
        self.asked.append(asked)
        start = int(asked.split("=")[1].rstrip("-")) + self.shift if asked and self.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            size = len(self.body) if self.sized else "*"
            self.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{size}")
        if self.sized:
            self.send_header("Content-Length", str(len(self.body) - start))
        self.end_headers()
        self.wfile.write(self.body[start : self.cut])
        with contextlib.suppress(ConnectionError):
            while self.endless:
                self.wfile.write(bytes(2**16))

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A handler class whose behaviour a test may change, served on this machine, and the weight 'toy' that it has."""
    handler = type("Handler", (Server,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        offer(monkeypatch, f"http://127.0.0.1:{httpd.server_port}/toy.bin")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield handler
        httpd.shutdown()


def offer(monkeypatch, url):
    toy = Weight("toy", "toy.bin", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), url, "none")
    monkeypatch.setattr(weights, "WEIGHTS", {"toy": toy})


def test_missing_weights_are_downloaded_once(server):
    path = find("toy")
    assert path == paths.weights_dir() / "toy.bin"
    assert path.read_bytes() == CONTENT
    assert find("toy") == path
    assert server.asked == [None]
    assert not path.with_name("toy.bin.part").exists()


def test_an_interrupted_download_goes_on(server):
    server.cut = 50_000
    with pytest.raises(TrilemmaError, match="ended after 50,000 of 76,800 bytes"):
        find("toy")
    server.cut = None
    assert find("toy").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=50000-"]


def test_a_server_without_ranges_starts_over(server):
    server.cut, server.ranges = 50_000, False
    with pytest.raises(TrilemmaError):
        find("toy")
    server.cut = None
    assert find("toy").read_bytes() == CONTENT


def test_a_wrong_download_is_never_kept(server):
    server.body = CONTENT[::-1]
    with pytest.raises(TrilemmaError, match="wrong sha256"):
        find("toy")
    assert not list(paths.weights_dir().glob("toy.bin*part"))
    server.body = CONTENT
    assert find("toy").read_bytes() == CONTENT


PAGE = b"<html>Please log in to use this network.</html>"


def test_the_page_of_a_network_that_wants_a_login_is_not_taken_for_weights(server):
    server.body = PAGE
    with pytest.raises(TrilemmaError, match="offers 47 bytes, not the 76,800 of the weights"):
        find("toy")
    server.body = CONTENT
    assert find("toy").read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_such_a_page_of_unknown_size_costs_no_further_try(server):
    """The good download behind it turns out wrong, and is made again in the same call."""
    server.body, server.sized = PAGE, False
    with pytest.raises(TrilemmaError, match="ended after 47 of 76,800 bytes"):
        find("toy")
    server.body = CONTENT
    assert find("toy").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=47-", None]


def test_such_a_page_amid_a_download_leaves_what_there_is(server):
    server.cut = 50_000
    with pytest.raises(TrilemmaError, match="ended after"):
        find("toy")
    server.body, server.cut, server.ranges = PAGE, None, False
    with pytest.raises(TrilemmaError, match="offers 47 bytes"):
        find("toy")
    server.body, server.ranges = CONTENT, True
    assert find("toy").read_bytes() == CONTENT
    assert server.asked[2:] == ["bytes=50000-"]


@pytest.mark.parametrize(("shift", "asked"), [(-20_000, []), (10, [None])])
def test_a_server_that_goes_on_elsewhere_is_followed_or_asked_for_all(shift, asked, server):
    server.cut = 50_000
    with pytest.raises(TrilemmaError, match="ended after"):
        find("toy")
    server.cut, server.shift = None, shift
    assert find("toy").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=50000-", *asked]


@pytest.mark.parametrize("left", [CONTENT, CONTENT + b"more", CONTENT[::-1], CONTENT[:300] * 2])
def test_what_an_earlier_download_left_is_used_or_replaced(left, server):
    partial = paths.weights_dir() / "toy.bin.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(left)
    assert find("toy").read_bytes() == CONTENT
    assert server.asked == {CONTENT: [], CONTENT[:300] * 2: ["bytes=600-", None]}.get(left, [None])


def test_no_more_is_received_than_the_weights_have(server):
    server.sized, server.endless = False, True
    assert find("toy").read_bytes() == CONTENT


def test_a_wrong_file_is_fetched_twice_at_most(server):
    server.cut = 50_000
    with pytest.raises(TrilemmaError, match="ended after"):
        find("toy")
    server.cut, server.body = None, CONTENT[::-1]
    with pytest.raises(TrilemmaError, match="wrong sha256"):
        find("toy")
    assert server.asked == [None, "bytes=50000-", None]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_download_shows_its_name_and_bytes_unless_it_is_to_be_quiet(quiet, server, tmp_path, monkeypatch):
    """From the command line: tqdm decides when it is imported."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)  # which a test of the command line may have set
    plugin = tmp_path / "toy.py"
    plugin.write_text(
        "from trilemma_bench import weights\n"
        f"weights.WEIGHTS['toy'] = weights.{weights.WEIGHTS['toy']!r}\n"
        "weights.find('toy')\n"
    )
    wrong = ["run", "--model", "none", "--dataset", "digits", "--plugin", str(plugin), *["--quiet"] * quiet]
    done = subprocess.run([sys.executable, "-m", "trilemma_bench", *wrong], capture_output=True, text=True, timeout=300)
    assert "unknown model 'none'" in done.stderr
    assert (paths.weights_dir() / "toy.bin").is_file()
    assert ("toy.bin" in done.stderr, "76.8k/76.8k" in done.stderr) == (not quiet, not quiet)


def test_no_network_is_one_line_with_address_and_place(monkeypatch):
    offer(monkeypatch, "http://127.0.0.1:9/toy.bin")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(TrilemmaError) as caught:
        find("toy")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("'toy'", "http://127.0.0.1:9/toy.bin", str(paths.weights_dir() / "toy.bin"), "TRILEMMA_WEIGHTS_DIR"):
        assert part in message


def test_a_damaged_file_is_refused_before_it_is_opened(server):
    path = find("toy")
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(TrilemmaError, match=r"toy\.bin are damaged .* delete the file"):
        find("toy")


def test_unknown_weights_suggest_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'inception'"):
        find("incepton")


def test_status_tells_what_is_there(server):
    assert [entry.found for entry in status()] == [None]
    path = find("toy")
    (entry,) = status()
    assert (entry.name, entry.path, entry.found, entry.size) == ("toy", path, entry.sha256, len(CONTENT))
    path.write_bytes(CONTENT[:-1] + b"!")  # of the right size
    assert status()[0].found not in (None, entry.sha256)


def test_tensors_are_loaded_and_code_is_not():
    state = {"weight": torch.arange(3.0)}
    install("inception", state)
    assert torch.equal(load("inception")["weight"], state["weight"])
    install("inception", Code())
    with pytest.raises(pickle.UnpicklingError):
        load("inception")
    assert not Code.ran


class Code:
    """An object that shows whether it was unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Code, "ran", True)


def test_a_file_is_hashed_once_until_it_changes(server, monkeypatch):
    path = find("toy")
    hashed = []
    monkeypatch.setattr(weights, "sha256_of", lambda path: hashed.append(path) or hashlib.sha256().hexdigest())
    assert find("toy") == path
    assert not hashed
    os.utime(path, ns=(0, 0))
    with pytest.raises(TrilemmaError, match="damaged"):
        find("toy")
    assert hashed == [path]


def test_the_table_is_complete():
    for name, weight in weights.WEIGHTS.items():
        assert weight.name == name
        assert re.fullmatch("[0-9a-f]{64}", weight.sha256)
        if published := re.search(r"-([0-9a-f]{8})\.", weight.filename):  # the start of the hash, by its publisher
            assert weight.sha256.startswith(published[1])
        assert weight.url.startswith("https://")
        assert weight.licence
        assert weight.size > 10**6
    files = [weight.filename for weight in weights.WEIGHTS.values()]
    assert len(set(files)) == len(files)
