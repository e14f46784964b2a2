"""The report in real headless Chromium: no complaints, everything visible, also on telephones and paper."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.predictions import Predictions
from jobs.report import write_report
from jobs.summary import summarise

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None or os.name != "posix", reason="needs Chromium"),
]

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]  # fmt: skip
# Chromium reads its orders from descriptor 3 and answers on 4; only a process of our own can put them there.
SHIM = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])"""


class Browser:
    """One page of a headless Chromium, spoken to in the DevTools protocol over a pipe."""

    def __init__(self, profile: Path) -> None:
        # Away from 3 and 4, which the shim writes over.
        read, self._orders = (self._high(end) for end in os.pipe())
        answers, write = (self._high(end) for end in os.pipe())
        command = [sys.executable, "-c", SHIM, str(read), str(write), str(CHROMIUM), *FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read, write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._answers = os.fdopen(answers, "rb")
        self._number = 0
        self.told: list[dict] = []
        targets = self.call("Target.getTargets", session=None)["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", session=None, targetId=page, flatten=True)
        self._session = attached["sessionId"]
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    @staticmethod
    def _high(descriptor: int) -> int:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 20)
        os.close(descriptor)
        return moved

    def call(self, method: str, session: str | None = "", **params: object) -> dict:
        """The result of one DevTools method; events that come before it go to `told`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = self._session
        os.write(self._orders, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.told.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict:
        letters = bytearray()
        while (letter := self._answers.read(1)) != b"\0":
            assert letter, "Chromium ended"
            letters += letter
        return json.loads(letters)

    def open(self, page: Path) -> None:
        self.told.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.told):
            self.told.append(self._read())

    def show(self, *, width: int, theme: str) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.media("screen", theme)

    def media(self, kind: str, theme: str = "light") -> None:
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", media=kind, features=features)

    def value(self, expression: str) -> object:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def screenshot(self, path: Path) -> None:
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()
        os.close(self._orders)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


HOSTILE = '<script>document.title="owned"</script><img src=x onerror="document.title=1">'
LONG = "W" * 300


def write_example(path: Path, classes: int = 2) -> None:
    """A report with everything in it that could break the page: markup, endless words, Chinese."""
    draw = np.random.default_rng(5)
    truth = draw.integers(0, classes, 400)
    logits = {
        key: (strength * np.eye(classes)[truth] + draw.normal(size=(400, classes))).astype(np.float32)
        for key, strength in (("majority", 0.0), ("frozen_head", 0.8), ("tfidf", 1.5), ("lora", 2.5))
    }
    words = [HOSTILE, "房间很干净，服务员好。", LONG, "https://example.com/" + LONG, "\u202eright to left"]
    labels = ("差评", "好评", HOSTILE, LONG)[:classes]
    predictions = Predictions(labels, tuple(words[i % 5] for i in range(400)), truth.astype(np.int64), logits)
    summary = summarise(predictions, positive_label="好评", source="inferred here", run_id="reviews-k3x7q2mh")
    check = {"id": HOSTILE, "status": "pass", "detail": LONG, "meaning": "", "todo": "", "required": True}
    write_report(
        path,
        summary,
        predictions,
        facts={"host": HOSTILE, LONG: LONG, "说明": "酒店评论", "rows": {"train": 1}},
        verification={"ok": True, "level": "reproduced here", "checks": [check] * 3},
        training={"losses": [{"step": step, "loss": 1 / step} for step in range(1, 90)]},
    )


@pytest.fixture(scope="module", params=[2, 4], ids=["two labels", "four labels"])
def page(request, browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_example(path, request.param)
    browser.open(path)
    return browser


def test_nothing_is_reported_and_nothing_is_fetched(page):
    page.show(width=1200, theme="light")
    methods = [event["method"] for event in page.told]
    assert "Log.entryAdded" not in methods and "Runtime.consoleAPICalled" not in methods
    assert "Runtime.exceptionThrown" not in methods
    asked = [event for event in page.told if event["method"] == "Network.requestWillBeSent"]
    assert [event["params"]["request"]["url"].split(":")[0] for event in asked] == ["file"]


def test_hostile_text_is_text(page):
    assert page.value("document.title") == "reviews-k3x7q2mh · evaluation"
    assert page.value("document.querySelectorAll('script, img, iframe, link, a, form').length") == 0
    assert "<script>document.title" in str(page.value("document.querySelector('.errors').textContent"))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 700, 360])
def test_every_plot_is_visible_and_the_page_is_not_wider_than_the_window(page, width, theme, tmp_path):
    page.show(width=width, theme=theme)
    boxes = page.value(
        "[...document.querySelectorAll('svg.plot, table.confusion')].map(e => e.getBoundingClientRect())"
        ".map(box => [box.left, box.width, box.height])"
    )
    assert isinstance(boxes, list) and len(boxes) == 4
    assert all(left >= 0 and across > 200 and height > 100 for left, across, height in boxes)
    assert page.value("document.documentElement.scrollWidth") <= width
    table = "document.querySelector('.metrics').parentElement"
    assert page.value(f"{table}.scrollWidth <= {table}.clientWidth")
    # No column is squeezed to one character a line by its neighbours' endless words.
    assert page.value("document.documentElement.scrollHeight") < 20_000
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_lines_are_drawn_in_the_colours_of_the_theme(page):
    strokes = "[...document.querySelectorAll('svg.plot path')].map(e => getComputedStyle(e).stroke)"
    accent, found = {"light": "rgb(11, 107, 125)", "dark": "rgb(92, 196, 214)"}, {}
    for theme, colour in accent.items():
        page.show(width=1200, theme=theme)
        found[theme] = page.value(strokes)
        assert colour in found[theme], found
        assert page.value("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)" if theme == "light" else "rgb(20, 24, 28)"
        )
    assert not any("rgb(1, 2," in stroke for stroke in [*found["light"], *found["dark"]])


def test_text_stands_out_from_its_background(page):
    """WCAG AA: 4.5 to 1, for every colour that words have."""
    script = """(() => {
      const light = c => c.match(/\\d+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return Math.min(...[...document.querySelectorAll('p, th, td, li, dd, dt, figcaption, h1, h2, h3, span')]
        .map(e => light(getComputedStyle(e).color))
        .map(ink => (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05)));
    })()"""
    for theme in ("light", "dark"):
        page.show(width=1200, theme=theme)
        assert float(str(page.value(script))) >= 4.5


def test_print_is_dark_on_white_also_from_a_dark_screen(page):
    page.show(width=700, theme="dark")
    page.media("print", "dark")
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.value("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    paper = page.call("Page.printToPDF", printBackground=True)["data"]
    assert base64.b64decode(paper).startswith(b"%PDF-") and len(paper) > 30_000
