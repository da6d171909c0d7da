"""A report in headless Chromium, where there is one: it is silent, asks for nothing, and fits a phone.

Chromium is driven over its DevTools protocol through a pipe, so that nothing but the browser is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nnkit.insight.report import write_report
from nnkit.runs.config import Config
from nnkit.runs.run import Run

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCREENS = {"screen": (1280, 900), "phone": (375, 800)}
MOST_BYTES = 3_000_000  # a page that can be mailed
# What a screen reader passes over in silence.
NAMELESS = """
[...document.querySelectorAll("svg, img, button, table")].filter((element) =>
  !(element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || element.alt ||
    element.textContent.trim())).length
"""


class Browser:
    """Headless Chromium with an empty profile folder."""

    def __init__(self, program: str, profile: Path) -> None:
        (command, self._requests), (self._answers, answer) = os.pipe(), os.pipe()

        def arrange() -> None:
            # Chromium reads requests from 3 and writes answers to 4.
            for held, wanted in ((command, 13), (answer, 14)):
                os.dup2(held, wanted)
            os.dup2(13, 3)
            os.dup2(14, 4)

        options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        self._process = subprocess.Popen(
            [program, *options.split(), "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            preexec_fn=arrange,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command)
        os.close(answer)
        self._number, self._unread = 0, b""
        self._session: dict[str, str] = {}
        self.events: list[Mapping[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; events on the way are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, page: Path) -> None:
        """Load a page and wait until it is drawn."""
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, f"{expression}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            os.write(self._requests, b'{"id": 0, "method": "Browser.close"}\0')
        self._process.wait(60.0)
        os.close(self._requests)
        os.close(self._answers)

    def _next(self) -> Mapping[str, Any]:
        while b"\0" not in self._unread:
            more = os.read(self._answers, 1 << 20)
            assert more, "Chromium has ended"
            self._unread += more
        text, self._unread = self._unread.split(b"\0", 1)
        message: Mapping[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def look(browser: Browser, page: Path) -> dict[str, Any]:
    """Return what a page is like on each screen, light and dark, with its first buttons pressed."""
    found: dict[str, Any] = {"messages": [], "requests": [], "too wide": {}, "backgrounds": set()}
    for screen, (width, height) in SCREENS.items():
        for scheme in ("light", "dark"):
            phone = screen == "phone"
            metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1}
            browser.call("Emulation.setDeviceMetricsOverride", mobile=phone, **metrics)
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.call("Emulation.setEmulatedMedia", features=media)
            browser.open(page)
            browser.value("[...document.querySelectorAll('button')].slice(0, 50).forEach((b) => b.click())")
            wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            found["too wide"][screen, scheme] = browser.value(wider)
            found["backgrounds"].add(browser.value("getComputedStyle(document.body).backgroundColor"))
            for event in browser.events:
                record(event["method"], event["params"], found)
    return {**found, "nameless": browser.value(NAMELESS)}


def record(method: str, given: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Add what an event tells of the console, or of a request for anything but the file itself."""
    if method == "Runtime.consoleAPICalled":
        found["messages"].append(" ".join(str(argument.get("value")) for argument in given["args"]))
    elif method == "Runtime.exceptionThrown":
        found["messages"].append(given["exceptionDetails"]["text"])
    elif method == "Log.entryAdded":
        found["messages"].append(given["entry"]["text"])
    elif method == "Network.requestWillBeSent":
        url = given["request"]["url"]
        if not url.startswith(("file:", "data:")):
            found["requests"].append(url)


def report(data: Path | str, folder: Path, *settings: str) -> Path:
    run = Run(Config().with_overrides([f"data.train={data}", f"run.out={folder / 'run'}", *settings]))
    run.train()
    return write_report(run.folder)


def assert_fits(browser: Browser, page: Path) -> None:
    found = look(browser, page)
    assert (found["messages"], found["requests"], found["nameless"]) == ([], [], 0)
    assert page.stat().st_size < MOST_BYTES
    assert set(found["too wide"].values()) == {0}
    assert len(found["backgrounds"]) == 2


def test_a_report_is_silent_and_fits(browser: Browser, tmp_path: Path) -> None:
    assert_fits(browser, report("digits", tmp_path, "training.epochs=3"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mnist", ["training.epochs=1"]),
        ("california_housing.csv", ["data.target=median_house_value", "training.epochs=5"]),
        ("sms_spam.tsv", ["data.target=0", "training.epochs=3"]),
    ],
)
def test_a_report_of_real_data_is_silent_and_fits(
    browser: Browser, shared_data: Path, tmp_path: Path, name: str, settings: list[str]
) -> None:
    assert_fits(browser, report(shared_data / name, tmp_path, *settings))


def test_what_is_wrong_with_a_page_is_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "faulty.html"
    page.write_text(
        "<body style='background: white'><div style='width: 2000px'>x</div><svg></svg>"
        "<img src='http://nobody.invalid/x.png' alt='x'><script>console.log('hello'); missing()</script>"
    )
    found = look(browser, page)
    assert "hello" in found["messages"]
    assert any("ncaught" in message for message in found["messages"])
    assert "http://nobody.invalid/x.png" in found["requests"]
    assert found["nameless"] == 1
    assert found["too wide"]["phone", "dark"] > 1000
