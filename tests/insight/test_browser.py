"""A report in a real browser, where there is one: it is silent, asks for nothing, and fits a phone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from nnkit.insight.report import write_report
from nnkit.runs.config import Config
from nnkit.runs.run import Run

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench() -> ModuleType:
    """Return bench/browser.py as a module."""
    specification = importlib.util.spec_from_file_location("bench_browser", BENCH / "browser.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_report_is_silent_and_fits(bench: ModuleType, tmp_path: Path) -> None:
    run = Run(
        Config().with_overrides(["data.train=digits", "training.epochs=3", f"run.out={tmp_path / 'run'}"])
    )
    run.train()
    page = write_report(run.folder)
    faulty = tmp_path / "faulty.html"
    faulty.write_text(
        "<body style='background: white'><div style='width: 2000px'>x</div><svg></svg>"
        "<img src='http://nobody.invalid/x.png' alt='x'><script>console.log('hello'); missing()</script>"
    )
    try:
        with bench.browser() as opened:
            found, fault = bench.look(opened, page), bench.look(opened, faulty)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert (found["messages"], found["requests"], found["nameless"]) == ([], [], 0)
    assert found["bytes"] < bench.MOST_BYTES
    kinds = [found[f"{screen}, {scheme}"] for screen in bench.SCREENS for scheme in bench.SCHEMES]
    assert [kind["pixels too wide"] for kind in kinds] == [0, 0, 0, 0]
    assert len({kind["background"] for kind in kinds}) == 2
    # What is wrong with a page is seen.
    assert "hello" in fault["messages"]
    assert any("ncaught" in message for message in fault["messages"])
    assert "http://nobody.invalid/x.png" in fault["requests"]
    assert fault["nameless"] == 1
    assert fault["phone, dark"]["pixels too wide"] > 1000
