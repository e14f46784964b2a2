"""The report in real headless Chromium: no complaints, everything visible, also on telephones and paper."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from evaluated import evaluated

from jobs.predictions import Predictions
from jobs.report import write_report

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

    def media(self, kind: str, theme: str = "light", motion: str = "no-preference") -> None:
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.call("Emulation.setEmulatedMedia", media=kind, features=features)

    def value(self, expression: str) -> object:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def do(self, script: str) -> None:
        self.value(f"(() => {{ {script} }})(), 1")

    def write(self, css: str, words: str) -> None:
        """Type into a field, as a person does: the page hears of it by its events."""
        self.do(f"const field = document.querySelector({css!r}); field.focus(); field.select()")
        if words:
            self.call("Input.insertText", text=words)
        else:
            self.press("Backspace")

    def press(self, key: str) -> None:
        code = {"Enter": 13, "Backspace": 8}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

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
ROWS = 700


def write_example(path: Path, classes: int = 2, lang: str = "en") -> None:
    """A report with everything in it that could break the page: markup, endless words, Chinese."""
    draw = np.random.default_rng(5)
    truth = draw.integers(0, classes, ROWS)
    logits = {
        key: (strength * np.eye(classes)[truth] + draw.normal(size=(ROWS, classes))).astype(np.float32)
        for key, strength in (("majority", 0.0), ("frozen_head", 0.8), ("tfidf", 1.5), ("lora", 1.8))
    }
    words = [HOSTILE, "房间很干净，服务员好。", LONG, "https://example.com/" + LONG, "\u202eright to left"]
    labels = ("差评", "好评", HOSTILE, LONG)[:classes]
    texts = tuple(f"{words[row % 5]} row-{row}." for row in range(ROWS))
    predictions = Predictions(labels, texts, truth.astype(np.int64), logits)
    summary = evaluated(
        predictions, warnings=({"kind": "few_rows", "rows": ROWS}, {"kind": "new", "sentence": HOSTILE})
    )
    summary["robustness"]["failures"][0] |= {"text": LONG, "original": HOSTILE, "expected": HOSTILE, "said": LONG}
    for model in summary["robustness"]["models"]:
        model["categories"][0]["category"] = LONG
    check = {"id": HOSTILE, "status": "pass", "detail": LONG, "meaning": "", "todo": "", "required": True}
    write_report(
        path,
        summary,
        predictions,
        facts={"host": {"name": HOSTILE, LONG: LONG}, LONG: {"说明": "酒店评论"}, "rows": {"train": 1}},
        verification={"ok": True, "level": "reproduced here", "checks": [check] * 3},
        training={
            "losses": [{"step": step, "loss": 1 / step} for step in range(1, 90)],
            "evaluations": [{"step": 89, "loss": 0.2}],
        },
        lang=lang,
    )


@pytest.fixture(
    scope="module", params=[(2, "en"), (4, "en"), (2, "zh")], ids=["two labels", "four labels", "in Chinese"]
)
def page(request, browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_example(path, *request.param)
    browser.show(width=1200, theme="light")
    browser.open(path)
    return browser


@pytest.fixture
def fresh(browser, tmp_path):
    """A page of its own for a test that changes it."""
    write_example(tmp_path / "report.html")
    browser.show(width=1200, theme="light")
    browser.open(tmp_path / "report.html")
    yield browser
    assert complaints(browser) == []


def complaints(page: Browser) -> list[str]:
    """What the browser has to say: errors, and breaches of the page's own policy."""
    bad = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    return [json.dumps(event) for event in page.told if event.get("method") in bad]


def test_nothing_is_reported_and_nothing_is_fetched(page):
    page.show(width=1200, theme="light")
    assert complaints(page) == []
    asked = [event for event in page.told if event["method"] == "Network.requestWillBeSent"]
    assert [event["params"]["request"]["url"].split(":")[0] for event in asked] == ["file"]


def test_a_script_of_somebody_else_is_not_run(fresh):
    fresh.do("const one = document.createElement('script'); one.text = 'document.title = 1'; document.body.append(one)")
    assert "evaluation" in str(fresh.value("document.title"))
    assert len(complaints(fresh)) == 1
    fresh.told.clear()


def test_hostile_text_is_text(page):
    assert str(page.value("document.title")).startswith("reviews-k3x7q2mh · ")
    assert page.value("document.querySelectorAll('img, iframe, link, form, object').length") == 0
    assert page.value("document.querySelectorAll('script').length") == 1
    for place in (".errors", ".failures", ".checks", ".facts", ".note + .note"):
        found = f"[...document.querySelectorAll({place!r})].some(e => e.textContent.includes('<script>document.title'))"
        assert page.value(found), place


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 700, 360])
def test_every_plot_is_visible_and_the_page_is_not_wider_than_the_window(page, width, theme, tmp_path):
    page.show(width=width, theme=theme)
    boxes = page.value(
        "[...document.querySelectorAll('svg.plot, table.confusion')].map(e => e.getBoundingClientRect())"
        ".map(box => [box.left, box.width, box.height])"
    )
    assert isinstance(boxes, list) and len(boxes) == 8
    assert all(left >= 0 and across > 200 and height > 100 for left, across, height in boxes)
    assert page.value("document.documentElement.scrollWidth") <= width
    for table in ("metrics", "errors", "groups", "categories"):
        there = f"document.querySelector('.{table}').parentElement"
        assert page.value(f"{there}.scrollWidth <= {there}.clientWidth"), table
    # No column is squeezed to one character a line by its neighbours' endless words.
    assert page.value("document.documentElement.scrollHeight") < 45_000
    assert page.value("Math.max(...[...document.querySelectorAll('td, th')].map(e => e.clientHeight))") < 900
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_lines_are_drawn_in_the_colours_of_the_theme(page):
    strokes = "[...document.querySelectorAll('svg.plot .line')].map(e => getComputedStyle(e).stroke)"
    for theme, lora, paper in (("light", "rgb(11, 107, 125)", 255), ("dark", "rgb(92, 196, 214)", 20)):
        page.show(width=1200, theme=theme)
        found = page.value(strokes)
        # Four models; the line to compare with may look like the majority class.
        assert isinstance(found, list) and lora in found and len(set(found)) >= 4
        assert str(page.value("getComputedStyle(document.body).backgroundColor")).startswith(f"rgb({paper}, ")
    dashes = page.value(
        "['lora', 'tfidf', 'frozen_head', 'majority'].map(key => document.querySelector(`.plot-roc .s-${key}.line`))"
        ".map(e => getComputedStyle(e).strokeDasharray)"
    )
    assert isinstance(dashes, list) and len(set(dashes)) == 4


def test_text_stands_out_from_its_background(page):
    """WCAG AA: 4.5 to 1, for all words on what is behind them, translucent layers included."""
    script = """(() => {
      const parts = colour => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
      const behind = e => {
        const layers = [];
        for (let at = e; at; at = at.parentElement) layers.push(parts(getComputedStyle(at).backgroundColor));
        return layers.reverse().reduce((under, [r, g, b, a]) =>
          [r, g, b].map((v, i) => a * v + (1 - a) * under[i]), [255, 255, 255]);
      };
      const light = rgb => rgb.slice(0, 3).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const ratios = [...document.querySelectorAll("p, th, td, li, dd, dt, figcaption, h1, h2, h3, span, b, ins, del, "
          + "a, summary, label, button")]
        .filter(e => !e.classList.contains("again") && e.textContent.trim())
        .map(e => { const [ink, paper] = [light(parts(getComputedStyle(e).color)), light(behind(e))];
          return [(Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05), e.outerHTML.slice(0, 80)]; });
      return ratios.sort((a, b) => a[0] - b[0])[0];
    })()"""
    for theme in ("light", "dark"):
        page.show(width=1200, theme=theme)
        worst = page.value(script)
        assert isinstance(worst, list) and worst[0] >= 4.5, (theme, worst)


def test_print_is_dark_on_white_also_from_a_dark_screen_and_nothing_is_cut(page):
    page.show(width=717, theme="dark")  # A4 without its margins
    page.media("print", "dark")
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.value("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.value("document.documentElement.scrollWidth") <= 717
    assert page.value("[...document.querySelectorAll('nav, .filters')].every(e => e.offsetHeight === 0)")
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.value(cut) == 0
    for rows, most in ((".errors tbody tr", 30), (".failures:first-of-type tbody tr", 3)):
        shown = f"[...document.querySelectorAll('{rows}')].filter(e => e.offsetHeight > 0).length"
        assert 0 < int(str(page.value(shown))) <= most * (1 if "errors" in rows else 13)
    assert page.value("[...document.querySelectorAll('.on-paper')].every(e => e.offsetHeight > 0)")
    folded = "Math.min(...[...document.querySelectorAll('details table')].map(e => e.getBoundingClientRect().height))"
    assert float(str(page.value(folded))) > 30
    paper = base64.b64decode(
        page.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)["data"]
    )
    assert paper.startswith(b"%PDF-") and len(paper) > 60_000
    page.media("screen")


def visible(page: Browser) -> list[str]:
    """The errors that are shown, in their order, by the number in their text."""
    rows = "[...document.querySelectorAll('.errors tbody tr')].filter(row => row.offsetHeight > 0)"
    found = page.value(f"{rows}.map(row => row.textContent.match(/row-(\\d+)/)[1])")
    assert isinstance(found, list)
    return [str(one) for one in found]


def test_errors_can_be_searched_and_shown_in_full(fresh):
    everything = fresh.value("document.querySelectorAll('.errors tbody tr').length")
    first = visible(fresh)
    assert len(first) == 50 < int(str(everything))
    assert fresh.value("document.querySelector('.found').textContent") == f"50 of {everything} shown"
    fresh.write("[data-filter=search]", f"ROW-{first[7]}.")
    assert visible(fresh) == [first[7]]
    assert fresh.value("document.querySelector('.more').offsetHeight") == 0
    fresh.write("[data-filter=search]", "there is no such text")
    assert visible(fresh) == []
    fresh.write("[data-filter=search]", "")
    assert visible(fresh) == first
    fresh.do("document.querySelector('.more button').click()")
    assert visible(fresh)[:50] == first and len(visible(fresh)) == min(100, int(str(everything)))


def test_errors_can_be_filtered_by_label_group_and_doubt(fresh):
    def choose(name: str, value: str) -> None:
        field = f"document.querySelector('[data-filter={name}]')"
        fresh.do(f"const e = {field}; e.value = {value!r}; e.dispatchEvent(new Event('input', {{bubbles: true}}))")

    def kept(css: str) -> int:
        return int(str(fresh.value(f'document.querySelectorAll(".errors tbody tr{css}").length')))

    choose("label", "1")
    shown = "[...document.querySelectorAll('.errors tbody tr')].filter(row => row.offsetHeight > 0)"
    assert fresh.value(f"{shown}.every(row => row.cells[2].textContent === '好评')")
    assert len(visible(fresh)) == min(50, kept("[data-label='1']")) > 0
    choose("group", "1")
    assert len(visible(fresh)) == min(50, kept("[data-label='1'][data-groups~='1']")) > 0
    choose("label", "")
    fresh.do("document.querySelector('[data-filter=likely]').click()")
    assert len(visible(fresh)) == kept("[data-groups~='1'][data-likely]") > 0
    assert fresh.value(f"{shown}.every(row => row.querySelector('.doubt'))")


def test_errors_can_be_sorted_by_keyboard(fresh):
    def press(column: int) -> tuple[list[object], list[object]]:
        fresh.do(f"document.querySelectorAll('.errors th button')[{column}].focus()")
        fresh.press("Enter")
        cells = "[...document.querySelectorAll('.errors tbody tr')].filter(row => row.offsetHeight > 0)"
        texts = fresh.value(f"{cells}.map(row => row.cells[{column}].textContent)")
        order = fresh.value("[...document.querySelectorAll('.errors th')].map(head => head.ariaSort)")
        assert isinstance(texts, list) and isinstance(order, list)
        return texts, order

    first = visible(fresh)
    assert fresh.value("document.querySelector('.errors th').ariaSort") == "descending"
    confidences, order = press(0)
    numbers = [float(str(one).split()[0]) for one in confidences]
    assert numbers == sorted(numbers) and order == ["ascending", None, None, None]
    assert press(0)[1] == ["descending", None, None, None] and visible(fresh) == first
    labels, order = press(2)
    assert order == [None, None, "ascending", None] and len(list(groupby(labels))) == len(set(labels))
    turned = press(2)[0]
    assert turned != labels and len(list(groupby(turned))) == len(set(turned))


def test_the_contents_lead_to_every_section(fresh):
    sections = fresh.value("[...document.querySelectorAll('section')].map(e => e.id)")
    assert isinstance(sections, list) and len(sections) == 11
    assert fresh.value("[...document.querySelectorAll('nav a')].map(e => e.hash.slice(1))") == sections
    for width in (1200, 360):
        fresh.show(width=width, theme="light")
        fresh.media("screen", motion="reduce")
        for section in sections:
            fresh.do(f"document.querySelector('nav a[href=\"#{section}\"]').click()")
            top = float(str(fresh.value(f"document.getElementById({section!r}).getBoundingClientRect().top")))
            assert 0 <= top < 900
        assert fresh.value("document.querySelector('nav').getBoundingClientRect().top") == 0


def test_the_theme_can_be_changed_and_motion_is_only_for_who_wants_it(fresh):
    background = "getComputedStyle(document.body).backgroundColor"
    fresh.do("document.querySelector('.theme').click()")
    assert fresh.value(background) == "rgb(20, 24, 28)"
    fresh.show(width=1200, theme="dark")
    fresh.do("document.querySelector('.theme').click()")
    assert fresh.value(background) == "rgb(255, 255, 255)"
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert fresh.value(behaviour) == "smooth"
    fresh.media("screen", motion="reduce")
    assert fresh.value(behaviour) == "auto"


def test_without_scripts_everything_is_there_to_be_read(browser, tmp_path):
    write_example(tmp_path / "report.html")
    browser.show(width=1200, theme="light")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(tmp_path / "report.html")
        everything = browser.value("document.querySelectorAll('.errors tbody tr').length")
        assert len(visible(browser)) == everything
        hidden = "[...document.querySelectorAll('.filters, .more, .theme')].every(e => e.offsetHeight === 0)"
        assert browser.value(hidden)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
