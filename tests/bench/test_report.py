"""bench/RESULTS.md is what bench/report.py writes: the aims, then a section for each result."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from nnkit.bench.records import Aim, Quantity, Record, Result, once, save_result

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def report() -> ModuleType:
    """Return bench/report.py, which is not part of the package, as a module."""
    specification = importlib.util.spec_from_file_location("bench_report", BENCH / "report.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_committed_page_is_what_the_generator_makes(report: ModuleType) -> None:
    page = (BENCH / "RESULTS.md").read_text(encoding="utf-8")
    assert page == report.generate(BENCH)
    for path in (BENCH / "results").glob("*.json"):
        assert f"results/{path.name}" in page
    assert (BENCH / "LEARNT.md").read_text(encoding="utf-8").strip() in page


def test_aims_are_kept_not_kept_or_not_measured(report: ModuleType, tmp_path: Path) -> None:
    slow = Quantity("s", 2e-3, 1e-3, 3e-3, 5, Aim("<=", 1e-3))
    records = [
        Record("step", "small", parameters={"batch": 8}, figures={"step": slow, "ratio": once("", 1.0)}),
        Record("step", "small", "cuda:0", "fp16", {"batch": 8}, skipped="there is no GPU"),
        Record("step", "large", skipped="it broke", failed=True),
        Record("other", "slow", figures={"rate": once("B/s", 5e8, Aim(">=", 1e9))}),
        *(
            Record("other", f"fast {i}", figures={"rate": once("B/s", i * 1e9, Aim(">=", 1e9))})
            for i in range(1, 9)
        ),
        Record("other", "absent", skipped="has no aim"),
    ]
    machine = {"processor": "Some CPU", "  cores": "2"}
    result = Result(
        "Steps", "nnkit bench step", machine, "quick", "2026-01-01 10:00", "How.\n\nMore.", records
    )
    (tmp_path / "results").mkdir()
    save_result(result, tmp_path / "results" / "cpu.json")
    (tmp_path / "results" / "strange.json").write_text('{"a": 1}')
    (tmp_path / "LEARNT.md").write_text("- **Something.**\n")
    aims, section, *rest = report.generate(tmp_path).split("\n## ")[1:]
    if "On a GPU" in section:
        section, *rest = rest
    assert aims.splitlines()[4:] == [
        "| Steps | small, batch 8 | step | 2.00 (1.00 to 3.00) ms | ≤ 1.00 ms | **not kept** |",
        "| Steps | small, batch 8, cuda:0, fp16 | there is no GPU | | | not measured |",
        "| Steps | large | it broke | | | not measured |",
        "| Steps | slow | rate | 500.0 MB/s | ≥ 1.00 GB/s | **not kept** |",
        "| Steps | other: 8 of 9 figures | | | | kept |",
    ]
    said = "UTC by `nnkit bench step` in quick sizes. processor Some CPU; cores 2. How. More."
    assert said in " ".join(section.split())
    assert "### Step" in section
    assert "| small | 8 | cpu | fp32 | 2.00 (1.00 to 3.00) ms; aim ≤ 1.00 ms: **no** | 1 |" in section
    assert "- [results/strange.json](results/strange.json)" in rest[0]
    assert "- **Something.**" in rest[1]
