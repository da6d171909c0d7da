"""Open reports in headless Chromium: `python bench/browser.py [FOLDER]` writes bench/results/browser.json.

Networks are trained on MNIST, California housing, SMS spam (from ../shared/data, or the folder
NNKIT_BENCH_DATA) and on rows with several labels, and their reports opened, light and dark, on a
screen and on a phone: what the console says, what is asked of any host, how much wider than the screen the
page is, what has no name for those who do not see it. With a FOLDER the pages and their pictures stay there.
Chromium is driven over its DevTools protocol by a pipe, so that nothing but the browser is needed. Order: the
browser, a page's figures, the runs, the command.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

BENCH = Path(__file__).resolve().parent
DATA = Path(os.environ.get("NNKIT_BENCH_DATA") or BENCH.parents[1] / "shared" / "data")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCREENS = {"screen": (1280, 900), "phone": (375, 800)}
SCHEMES = ("light", "dark")
MOST_BYTES = 3_000_000  # a page that can be mailed
_SECONDS = 60.0
# What a screen reader would pass over in silence.
_NAMELESS = """
[...document.querySelectorAll("svg, img, button, table")].filter((element) =>
  !(element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || element.alt ||
    element.textContent.trim())).length
"""


class Browser:
    """Headless Chromium, spoken to by a pipe.

    Parameters
    ----------
    program : str
        Chromium's.
    profile : Path
        An empty folder for what it keeps.
    """

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
        self._number = 0
        self._unread = b""
        self._session: str | None = None
        self.events: list[Mapping[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result; events on the way are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, url: str) -> None:
        """Go to a page, and wait until it and its scripts are there."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']['text']}")
        return found["result"].get("value")

    def picture(self) -> bytes:
        """Return the whole page as a PNG."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def close(self) -> None:
        """End it."""
        with suppress(OSError, RuntimeError):
            self.call("Browser.close")
        self._process.wait(_SECONDS)
        os.close(self._requests)
        os.close(self._answers)

    def _next(self) -> Mapping[str, Any]:
        while b"\0" not in self._unread:
            more = os.read(self._answers, 1 << 20)
            if not more:
                raise RuntimeError("Chromium has ended")
            self._unread += more
        text, self._unread = self._unread.split(b"\0", 1)
        message: Mapping[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def browser() -> Iterator[Browser]:
    """Give a browser of its own profile; a FileNotFoundError where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is installed")
    with tempfile.TemporaryDirectory() as profile:
        opened = Browser(program, Path(profile))
        try:
            yield opened
        finally:
            opened.close()


def look(opened: Browser, page: Path, pictures: Path | None = None) -> dict[str, Any]:
    """Return what a page is like on each surface and screen.

    Parameters
    ----------
    opened : Browser
    page : Path
        A file.
    pictures : Path, optional
        A folder for a PNG of each.
    """
    found: dict[str, Any] = {"bytes": page.stat().st_size, "messages": [], "requests": []}
    for screen, (width, height) in SCREENS.items():
        for scheme in SCHEMES:
            phone = screen == "phone"
            metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1}
            opened.call("Emulation.setDeviceMetricsOverride", mobile=phone, **metrics)
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            opened.call("Emulation.setEmulatedMedia", features=media)
            opened.open(page.resolve().as_uri())
            opened.value("[...document.querySelectorAll('button')].slice(0, 50).forEach((b) => b.click())")
            found["messages"] += messages(opened.events)
            found["requests"] += requests(opened.events)
            wider = opened.value(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            back = opened.value("getComputedStyle(document.body).backgroundColor")
            found[f"{screen}, {scheme}"] = {"pixels too wide": wider, "background": back}
            if pictures is not None:
                (pictures / f"{page.stem}-{screen}-{scheme}.png").write_bytes(opened.picture())
    found["nameless"] = opened.value(_NAMELESS)
    return found


def messages(events: list[Mapping[str, Any]]) -> list[str]:
    """Return what a console was told."""
    said = []
    for event in events:
        given = event["params"]
        if event["method"] == "Runtime.consoleAPICalled":
            said.append(" ".join(str(argument.get("value")) for argument in given["args"]))
        elif event["method"] == "Runtime.exceptionThrown":
            said.append(given["exceptionDetails"]["text"])
        elif event["method"] == "Log.entryAdded":
            said.append(given["entry"]["text"])
    return said


def requests(events: list[Mapping[str, Any]]) -> list[str]:
    """Return what was asked of anything but the file itself."""
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith(("file:", "data:"))]


def runs(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Return each training's settings, by name; what is not there is named and left out."""
    sources = {
        "mnist": (DATA / "mnist", ["training.epochs=3"]),
        "california": (DATA / "california_housing.csv", ["data.target=median_house_value"]),
        "sms": (DATA / "sms_spam.tsv", ["data.target=0"]),
    }
    for name, (path, settings) in sources.items():
        if path.exists():
            yield name, [f"data.train={path}", *settings]
        else:
            print(f"{path} is not there: {name} is left out")
    X = np.random.default_rng(0).normal(size=(400, 3))
    lines = [f"{a},{b},{c},{int(a > 0)},{int(b + c > 0)},{int(a * b > 0)}" for a, b, c in X]
    (folder / "tags.csv").write_text("a,b,c,warm,wet,wild\n" + "\n".join(lines))
    yield "labels", [f"data.train={folder / 'tags.csv'}", "data.target=['warm', 'wet', 'wild']"]


def measured(folder: Path) -> dict[str, Any]:
    """Train, write each report into a folder, and open it."""
    from nnkit.insight.report import write_report
    from nnkit.runs.config import Config
    from nnkit.runs.run import Run

    pages = {}
    with browser() as opened:
        for name, settings in runs(folder):
            run = Run(Config().with_overrides([*settings, f"run.out={folder / name}"]))
            run.train()
            page = folder / f"{name}.html"
            write_report(run.folder, page)
            pages[name] = look(opened, page, folder)
            print(name, {key: pages[name][key] for key in ("bytes", "messages", "requests", "nameless")})
        product = opened.call("Browser.getVersion")["product"]
    return {"browser": product, "pages": pages, "most bytes": MOST_BYTES}


def main() -> None:
    """Write bench/results/browser.json."""
    from nnkit.machine import describe_machine

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        folder.mkdir(parents=True, exist_ok=True)
        record = {"machine": describe_machine(), **measured(folder)}
    path = BENCH / "results" / "browser.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
