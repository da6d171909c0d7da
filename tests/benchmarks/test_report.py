"""bench/RESULTS.md is what bench/report.py writes, and its first paragraph says where nnkit loses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nnkit.benchmarks.records import Quantity, Record, once
from nnkit.benchmarks.suite import Result, save_result

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def report() -> ModuleType:
    """Return bench/report.py, which is no part of the package, as a module."""
    specification = importlib.util.spec_from_file_location("bench_report", BENCH / "report.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "LEARNT.md").write_text("- **Something.**\n")
    return tmp_path


def about(median: float, unit: str = "", spread: float = 0.1) -> Quantity:
    return Quantity(unit, median, median * (1 - spread), median * (1 + spread), 7)


def peer(name: str, ratio: float, same: bool = True) -> Record:
    ratios = {"step / nnkit's": about(ratio)}
    parameters = {"network": "20-64-64-1", "batch": 32}
    figures = {"step": about(ratio * 1e-5, "s")}
    return Record("peers", name, "cpu", "fp32", parameters, figures, ratios, details={"same work": same})


def write(folder: Path, records: list[Record]) -> None:
    seconds = dict.fromkeys((record.section for record in records), 1.0)
    machine = {"processor": "Some CPU", "  BLAS threads": "4", "load before": "0.10"}
    save_result(Result(machine, "full", "2026-01-01", records, seconds), folder / "results" / "cpu.json")


def test_the_committed_page_is_what_the_generator_makes(report: ModuleType) -> None:
    assert (BENCH / "RESULTS.md").read_text(encoding="utf-8") == report.generate(BENCH)


def test_every_committed_record_is_in_the_page(report: ModuleType) -> None:
    page = report.generate(BENCH)
    for path in (BENCH / "results").glob("*.json"):
        assert f"results/{path.name}" in page
    assert (BENCH / "LEARNT.md").read_text(encoding="utf-8").strip() in page


def test_the_first_paragraph_says_where_nnkit_stands_and_loses(report: ModuleType, folder: Path) -> None:
    name = "784-512-512-10 in processes of their own"
    step = Record("step", name, "cpu", "fp32", {"batch": 128})
    step.figures["step"], step.ratios["step / floor"] = about(4e-3, "s"), about(1.2)
    kernel = Record("kernels", "cross_entropy", "cpu", "fp32", {"rows": 128, "columns": 512})
    kernel.figures["fused"], kernel.ratios["unfused / fused"] = about(4e-6, "s"), about(0.4)
    predict = Record("predict", "latency", "cpu", "fp32", {"network": "20-64-64-1", "batch": 1})
    predict.figures["median"], predict.ratios["median / NumPy's"] = about(4e-6, "s"), about(1.5)
    peers = [peer("PyTorch", 5.0), peer("JAX", 1.05), peer("Faster", 0.5), peer("Idle", 0.1, same=False)]
    write(folder, [step, kernel, predict, *peers])
    page = report.generate(folder)
    first = " ".join(page.split("\n\n")[1].split())
    assert "On Some CPU with 4 BLAS threads" in first
    assert (
        "4.00 (3.60 to 4.40) ms for 784-512-512-10 at batch 128, 1.20 (1.08 to 1.32) times its own" in first
    )
    assert "others take this many times as long as nnkit: PyTorch 5.00." in first
    assert "level, within the spread, with JAX" in first
    assert "Where it loses: Faster trains 20-64-64-1 at batch 32 in 0.50 of nnkit's time" in first
    assert "(Idle came to another loss for 20-64-64-1 at batch 32, so it is no comparison)" in first
    assert "the plain expression is faster than the fused kernel for cross_entropy at 128 × 512" in first
    assert "plain NumPy predicts faster for 20-64-64-1 at batch 1" in first
    assert "Nothing here comes from a GPU" in first
    assert "On a GPU: not yet measured" in page
    assert "| 784-512-512-10 in processes of their own, batch 128 | step / floor | 1.20" in page
    assert "| ≤ 1.15 | not reached |" in page


def test_a_page_can_be_made_of_nothing(report: ModuleType, folder: Path) -> None:
    page = report.generate(folder)
    assert "Nothing has been measured by the suite yet." in page
    assert "- **Something.**" in page


def test_each_kind_of_record_is_told_by_its_keys(report: ModuleType, folder: Path) -> None:
    spread = {"median": 2.0, "low": 1.0, "high": 3.0, "repeats": 5}
    fit = {
        "seconds": {"scikit-learn": spread, "nnkit": spread},
        "times faster": spread,
        "aim": 2,
        "reached": True,
    }
    accuracy = {"medians": {"scikit-learn": 0.9, "nnkit": 0.91}, "reached": True}
    figure = {"name": "a step", "unit": "s", "value": spread, "aim": None, "details": {}}
    training = {"command": "nnkit train x", "seconds": 3.0, "peak_mebibytes": 5.0}
    records: dict[str, dict[str, Any]] = {
        "estimators": {"machine": {}, "made": {"fit": fit, "test accuracy": accuracy}},
        "gpu-h100": {
            "machine": {"card": "H100"},
            "sections": {"step": {"figures": [figure], "failures": []}},
        },
        "hostile": {
            "csv": {"inputs": 10, "results": 4, "nnkit_errors": 6, "findings": []},
            "coverage-guided": {
                "toml": {"executions": 20, "results": 1, "nnkit_errors": 17, "findings": [{"count": 2}]}
            },
        },
        "faults": {"sections": {"kill": {"asked for": 200, "seconds": 5.0, "deviations": ["one"]}}},
        "trainings": {"train": {"x": {**training, "metrics": {"test": {"accuracy": 0.985}}}}},
        "shell": {
            "versions": {"torch": "2.13.0"},
            "from the shell": {
                "nnkit": {"seconds": [2.0, 4.0], "peak_bytes": [2**20, 2**20], "accuracy": [0.98, 0.98]},
                "PyTorch eager": {"seconds": [8.0, 8.0], "peak_bytes": [2**21] * 2, "accuracy": [0.98, 0.98]},
            },
            "ratios": {"PyTorch eager": {"times faster": [4.0, 2.0], "share of memory": [0.5, 0.5]}},
            "aims": {"accuracy": 0.975, "times faster": 3.5, "share of memory": 0.5},
        },
        "words": {
            "machine": {"torch": "9.9"},
            "size": {"documents": 1000, "tokens": 7},
            "comparisons": [
                {
                    **{"optimizer": "adam", "words": "natural", "vocabulary": 500, "aim": 1.0},
                    "seconds": {"nnkit": spread, "PyTorch": spread},
                    "times faster": {"PyTorch": spread},
                    "reached": False,
                }
            ],
            "vocabularies": [
                {
                    **{"optimizer": "sgd", "vocabulary": 2000, "used": 200, "seconds": spread},
                    **{"bytes taken": 3 << 20, "taken / its arrays": 1.25},
                }
            ],
        },
        "text": {
            "rows": 5574,
            "splits": {"nnkit": [{"f1": f, "accuracy": 0.99, "seconds": 2.0} for f in (0.95, 0.96, 0.9)]},
            "medians": {"nnkit": {"f1": 0.95, "accuracy": 0.99, "seconds": 2.0}},
            "aims": {"f1": 0.94, "accuracy": 0.985, "seconds": 20.0},
            "reached": {"f1": True, "accuracy": True, "seconds": False},
        },
        "strange": {"a": 1},
    }
    for name, record in records.items():
        (folder / "results" / f"{name}.json").write_text(json.dumps(record))
    page = report.generate(folder)
    assert (
        "| made | fit | 2.00 (1.00 to 3.00) s | 2.00 (1.00 to 3.00) s | 2.00 (1.00 to 3.00) | ≥ 2: reached |"
        in page
    )
    assert "| made | test accuracy | 0.9000 | 0.9100 |  | no less: reached |" in page
    assert "## H100" in page
    assert "| step | a step | 2.00 (1.00 to 3.00) s |" in page
    assert "Nothing here comes from a GPU" not in page
    assert "not yet measured" not in page
    assert "| csv | altered and random | 10 | 4 | 6 | 0 |" in page
    assert "| toml | guided by coverage | 20 | 1 | 17 | 2 |" in page
    assert "| kill | 200 | 1 | 5.00 s |" in page
    assert "| `nnkit train x` | accuracy 98.50 % of the test rows | 3.00 s | 5.00 MiB |" in page
    assert "3.5 times as fast as PyTorch and JAX, not reached; 0.5 of PyTorch's memory, reached." in " ".join(
        page.split()
    )
    assert "| 98.00 % | 3.00 (2.20 to 3.80) | 0.50 (0.50 to 0.50) |" in page
    assert (
        "| adam, natural words | 2.00 (1.00 to 3.00) s | 2.00 (1.00 to 3.00) s "
        "| 2.00 (1.00 to 3.00) than PyTorch | ≥ 1: not reached |"
    ) in page
    assert "| sgd | 2,000 | 200 | 2.00 (1.00 to 3.00) s | 3.00 MiB | 1.25 |" in page
    assert "| nnkit | 0.9500 (0.9000 to 0.9600) | 0.9900 (0.9900 to 0.9900) | 2.00 (2.00 to 2.00) s |" in page
    aims = "F1 ≥ 0.94: reached; accuracy ≥ 0.985: reached; each training's seconds ≤ 20: not reached"
    assert aims in " ".join(page.split())
    assert "- [results/strange.json](results/strange.json)" in page


def test_an_aim_is_of_one_network_where_several_are_measured(report: ModuleType, folder: Path) -> None:
    ratios = {"step / nnkit's": once("", 1.25)}
    networks = [
        Record(
            "peers", "JAX, an epoch a call", "cpu", parameters={"network": network, "batch": 1}, ratios=ratios
        )
        for network in ("784-512-512-10", "20-64-64-1")
    ]
    write(folder, networks)
    page = report.generate(folder)
    assert (
        "| JAX, an epoch a call, network 784-512-512-10, batch 1 | step / nnkit's | 1.25 | ≥ 1.30 | not"
        in page
    )
    assert (
        "| JAX, an epoch a call, network 20-64-64-1, batch 1 | step / nnkit's | 1.25 | ≥ 1.20 | reached"
        in page
    )


def test_a_figure_measured_once_is_reported_without_a_spread(report: ModuleType, folder: Path) -> None:
    write(folder, [Record("start", "import nnkit", "cpu", figures={"process": once("s", 0.04)})])
    assert "| import nnkit | process | 40.0 ms | ≤ 300.0 ms | reached |" in report.generate(folder)


def test_the_diagnosis_is_told_with_its_alarms_misses_and_cost(report: ModuleType, folder: Path) -> None:
    alarm = {"data": "iris", "seed": 1, "findings": [{"name": "dead_relus", "severity": "serious"}]}
    record = {
        "sound": {
            "trainings": 6,
            "kinds": 2,
            "seeds": 3,
            "with a serious alarm": 1,
            "with any finding": 1,
            "those": [alarm],
        },
        "mistakes": [
            {
                "mistake": "a rate far too small",
                "data": ["iris", "mnist*"],
                "committed": 6,
                "named": 5,
                "missed": [{"data": "iris", "seed": 0}],
            }
        ],
        "cost": [
            {
                "what": "20-64-64-1",
                "seconds without": [1.0, 1.1, 1.2],
                "with / without": [1.0, 1.01, 1.02],
                "checks before, seconds": 0.004,
                "looks, seconds": 0.005,
                "share": 0.0082,
            }
        ],
        "rates": [
            {
                "data": "iris",
                "suggested": 0.004,
                "metric": {"0.1": [0.8, 0.7, 0.9], "1": [0.95] * 3, "10": [None, 0.9, 0.8]},
            }
        ],
    }
    (folder / "results" / "diagnosis.json").write_text(json.dumps(record))
    page = report.generate(folder)
    assert "1 had a serious finding, 1 any (dead relus)" in " ".join(page.split())
    assert "| a rate far too small | iris, mnist | 5 of 6 | iris |" in " ".join(page.split())
    assert "0.82 %" in page
    assert "0.800 [0.700, 0.900]" in page
    assert "0.850 [0.800, 0.900] (1 diverged)" in page


def test_registers_are_told_by_kernel_and_what_spills_by_name(report: ModuleType, folder: Path) -> None:
    record = {
        "machine": {"ptxas": "13.5.37", "numba-cuda": "0.30.4"},
        "architectures": ["sm_80", "sm_90"],
        "not assembled for": ["sm_70"],
        "fields": ["registers", "shared", "stack", "spill_stores", "spill_loads"],
        "kernels": {
            "number": {"number-float32": {"sm_80": [30, 0, 0, 0, 0], "sm_90": [31, 0, 0, 0, 0]}},
            "update": {
                "update-a-float32": {"sm_80": [40, 1024, 0, 0, 0], "sm_90": [32, 2048, 0, 0, 0]},
                "update-b-bfloat16": {"sm_80": [41, 0, 0, 0, 0], "sm_90": [30, 0, 0, 0, 0]},
                "update-a-float64": {"sm_80": [64, 0, 0, 0, 0], "sm_90": [255, 0, 8, 4, 4]},
            },
        },
    }
    (folder / "results" / "ptxas.json").write_text(json.dumps(record))
    page = report.generate(folder)
    words = " ".join(page.split())
    assert "4 cases of 2 kernels" in words
    assert "by ptxas 13.5.37, which does not know sm_70." in words
    assert "What is spilled: update-a-float64 on sm_90." in words
    assert "| number | 1 | 30 | 31 | none |" in words
    assert "| update | 3 | 41 / 64 | 32 / 255 | 2.00 KiB |" in words
