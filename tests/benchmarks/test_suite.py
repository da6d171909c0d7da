"""The suite of `nnkit bench`: every section measures, and what cannot be measured costs itself alone."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from nnkit import cli
from nnkit.benchmarks import sweep
from nnkit.benchmarks.plan import Case, Plan, run_case
from nnkit.benchmarks.records import Quantity, Record, once
from nnkit.benchmarks.suite import (
    SECTIONS,
    Result,
    chosen_sections,
    devices_for,
    load_result,
    run_section,
    run_suite,
    save_result,
)
from nnkit.errors import ConfigError, FileError

pytestmark = pytest.mark.slow

CAN_FAIL = """
import os, time
from nnkit.benchmarks.plan import Case
from nnkit.benchmarks.records import Record, once

def cases(plan):
    return [Case(Record("own", name, plan.device), globals()[name], limit=LIMITS.get(name)) for name in NAMES]

NAMES, LIMITS = ("well", "hangs", "dies", "raises", "last"), {"hangs": 0.5}

def well(blank):
    yield Record("own", "well", "cpu", figures={"x": once("s", 1.0)})

last = well

def hangs(blank):
    time.sleep(60)

def dies(blank):
    print("out of luck", flush=True)
    os._exit(7)

def raises(blank):
    raise ValueError("not so")
"""


@pytest.fixture(scope="module")
def tiny() -> Result:
    saved: list[int] = []
    result = run_suite(list(SECTIONS), ["cpu"], "tiny", save=lambda result: saved.append(len(result.records)))
    # Whatever ends it keeps what was measured until then.
    assert saved == list(range(1, len(result.records) + 1))
    return result


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_yields_records(tiny: Result, section: str) -> None:
    records = tiny.section(section)
    assert [record for record in records if record.figures]
    for record in records:
        assert bool(record.figures) != bool(record.skipped), record
        assert record.device == "cpu"
        for quantity in record.quantities.values():
            assert math.isfinite(quantity.median)
            assert quantity.low <= quantity.median <= quantity.high
            assert quantity.repeats >= 1
        assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert not [record.skipped for record in records if record in tiny.failed]
    assert len({record.key for record in records}) == len(records)


def test_what_was_measured_in_turns_is_measured_five_times_and_more(tiny: Result) -> None:
    for section in ("kernels", "step", "precision", "loading", "predict"):
        records = [r for r in tiny.section(section) if r.figures and "processes" not in r.name]
        assert all(quantity.repeats >= 5 for r in records for quantity in r.quantities.values())


def test_steps_have_a_floor_at_every_width_and_batch(tiny: Result) -> None:
    steps = [r for r in tiny.section("step") if r.figures]
    assert {(r.parameters["width"], r.parameters["batch"]) for r in steps if "width" in r.parameters} == {
        (4, 1),
        (4, 16),
        (8, 1),
        (8, 16),
    }
    assert all(r.figures["step"].unit == "s" and "step / floor" in r.ratios for r in steps)


def test_precisions_and_places_that_are_not_there_have_words_and_no_figures(tiny: Result) -> None:
    by_precision = {record.precision: record for record in tiny.section("precision")}
    assert {name for name, record in by_precision.items() if record.figures} == {"fp32", "fp64"}
    assert "this version of nnkit has fp32, fp64 on cpu" in by_precision["bf16"].skipped
    by_place = {record.name: record for record in tiny.section("loading")}
    assert {name for name, record in by_place.items() if record.figures} == {
        *("on the device", "ahead", "mapped", "mapped, ahead")
    }
    assert by_place["pinned"].skipped


@pytest.mark.parametrize(
    "name",
    [
        "scikit-learn",
        pytest.param("PyTorch eager", marks=pytest.mark.extra("torch")),
        pytest.param("JAX, an epoch a call", marks=pytest.mark.extra("jax")),
    ],
)
def test_peers_do_the_same_work(tiny: Result, name: str) -> None:
    peer = next(record for record in tiny.section("peers") if record.name == name)
    assert peer.details["same work"] is True
    assert peer.ratios["loss apart from nnkit's"].median < 1e-4
    own = next(record for record in tiny.section("peers") if record.name == "nnkit")
    assert own.figures["loss"].median == pytest.approx(peer.figures["loss"].median, rel=1e-4)


def test_peers_that_are_not_installed_say_so(tiny: Result) -> None:
    skipped = {record.name: record.skipped for record in tiny.section("peers")}
    for library, name in (("torch", "PyTorch eager"), ("jax", "JAX, an epoch a call")):
        assert ("No module named" in skipped[name]) == (find_spec(library) is None)


def test_memory_grows_by_what_the_arrays_take(tiny: Result) -> None:
    small, large = tiny.section("memory")
    assert small.parameters["batch"] == 4
    assert large.parameters["batch"] == 16
    assert large.figures["its arrays"].median > small.figures["its arrays"].median
    # 12 rows of 4 bytes for 784 + 8 + 8 + 10 values and two gradients of up to 10, and 784 bytes of pixels.
    grown = large.figures["its arrays"].median - small.figures["its arrays"].median
    assert grown == 12 * (4 * (784 + 8 + 8 + 10 + 2 * 10) + 784)


def test_a_result_is_read_back_as_it_was_written(tiny: Result, tmp_path: Path) -> None:
    save_result(tiny, tmp_path / "bench.json")
    assert load_result(tmp_path / "bench.json") == tiny
    assert load_result(tmp_path) == tiny
    assert tiny.machine["numpy"]
    assert tiny.machine["  BLAS threads"]
    assert float(tiny.machine["load before"]) >= 0


def test_a_case_that_hangs_dies_or_raises_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_cases.py").write_text(CAN_FAIL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    records = list(run_section("own", Plan("cpu", "tiny"), "own_cases"))
    assert [record.name for record in records] == ["well", "hangs", "dies", "raises", "well"]
    assert [record.skipped for record in records] == [
        "",
        "not done after 0 s",
        "its process ended with status 7: out of luck",
        "ValueError: not so",
        "",
    ]
    assert [bool(record.details.get("failed")) for record in records] == [False, True, True, True, False]


def test_a_section_that_cannot_begin_says_why() -> None:
    (record,) = run_section("own", Plan("cpu", "tiny"), "no_such_module")
    assert record.details["failed"]
    assert "No module named 'no_such_module'" in record.skipped


def test_what_is_too_large_is_left_out_with_words() -> None:
    plan, blank = Plan("cpu", "tiny"), Record("step", "large", "cpu")

    def measure(blank: Record) -> Iterator[Record]:
        raise AssertionError("is not measured")
        yield blank

    (slow,) = run_case(Case(blank, measure, seconds=1e6), plan)
    assert slow.skipped == "would take about 1000000 s, more than the 1 s of a case"
    (large,) = run_case(Case(blank, measure, memory=2.0**60), plan)
    assert "GiB, more than the half of what is free" in large.skipped
    assert not large.details


def test_the_full_sweep_names_every_size_and_estimates_the_largest_beyond_a_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "_rates", lambda plan: (4e11, 1e10))
    cases = sweep.cases(Plan("cpu", "full"))
    sizes = {
        (c.blank.parameters["width"], c.blank.parameters["batch"]): c
        for c in cases
        if len(c.blank.parameters) > 1
    }
    assert (64, 1) in sizes
    assert (8192, 8192) in sizes
    # Six operations a weight and row: 3.6e12 a step at 400 GFLOP/s, 15 of them.
    assert sizes[8192, 8192].seconds == pytest.approx(
        15 * 6 * 8192 * (784 + 8192 + 10) * 8192 / 4e11, rel=0.05
    )
    assert sizes[8192, 8192].memory > 4 * 4 * 8192 * 8192


def test_sections_and_devices_are_chosen_by_name() -> None:
    assert chosen_sections([]) == list(SECTIONS)
    assert chosen_sections(["step", "kernels"]) == ["kernels", "step"]
    with pytest.raises(ConfigError, match="unknown section 'stepp'; did you mean step"):
        chosen_sections(["stepp"])
    assert devices_for("cpu") == ["cpu"]
    assert devices_for("auto")[0] == "cpu"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a result of nnkit bench"),
        ('{"format": "other"}', "is not a result of nnkit bench"),
        ('{"format": "nnkit bench 1"}', "is damaged: KeyError"),
        (
            '{"format": "nnkit bench 1", "records": [3], "machine": {}, "seconds": {}}',
            "is damaged: TypeError",
        ),
        (
            '{"format": "nnkit bench 1", "records": [], "machine": 3, "seconds": {}}',
            "is damaged: AttributeError",
        ),
    ],
)
def test_a_file_that_is_no_result_is_refused_in_a_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(FileError, match=words) as raised:
        load_result(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_figure_of_another_type_is_refused() -> None:
    value = Record("step", "x", "cpu", figures={"y": once("s", 1.0)}).to_json()
    assert Record.from_json(value).figures["y"] == Quantity("s", 1.0, 1.0, 1.0, 1)
    for field, wrong in (("median", "1"), ("unit", 3), ("low", None), ("repeats", True)):
        broken = json.loads(json.dumps(value))
        broken["figures"]["y"][field] = wrong
        with pytest.raises(TypeError):
            Record.from_json(broken)


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["nnkit", "bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_measures_compares_and_leaves_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    assert bench(monkeypatch, "loading", "--quick", "--device", "cpu", "--out", out) == 0
    printed = capsys.readouterr()
    assert "Loading batches" in printed.out
    assert "not measured" in printed.out
    assert "loading: on the device" in printed.err
    assert (out / "bench.html").read_text().startswith("<!DOCTYPE html>")
    again = tmp_path / "again"
    arguments = ["loading", "--quick", "--device", "cpu", "--out", again, "--compare", out, "--json"]
    assert bench(monkeypatch, *arguments) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((again / "bench.json").read_text())
    assert "Against the earlier result" in (again / "bench.html").read_text()


def test_wrong_input_ends_with_two_and_a_line_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("words")
    wrong = {
        ("kernel",): "unknown section 'kernel'; did you mean kernels?",
        ("step", "--device", "tpu"): "device 'tpu': there is no such device",
        ("step", "--compare", "absent.json"): "absent.json: there is no such file",
        ("step", "--compare", "file"): "file: is not JSON",
        ("step", "--out", "file"): "file: no such folder can be made",
    }
    for arguments, words in wrong.items():
        began = time.monotonic()
        assert bench(monkeypatch, *arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"error: {words}")
        assert printed.err.count("\n") == 1
        assert time.monotonic() - began < 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_case_that_ended_in_an_error_makes_the_command_end_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Record("step", "x", "cpu", skipped="it broke", details={"failed": True})
    result = Result({"processor": "p"}, "quick", "2026-01-01 00:00", [broken], {"step": 1.0})
    monkeypatch.setattr("nnkit.benchmarks.command.run_suite", lambda *arguments: result)
    assert bench(monkeypatch, "step", "--quick", "--device", "cpu", "--out", tmp_path) == 1
    printed = capsys.readouterr()
    assert "not measured: it broke" in printed.out
    assert "ended in an error" in printed.err


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "own_cases.py").write_text(CAN_FAIL.replace('{"hangs": 0.5}', '{"hangs": 60.0}'))
    code = (
        "import os\n"
        "from nnkit.benchmarks.plan import Plan\n"
        "from nnkit.benchmarks.child import Child\n"
        "child = Child('own_cases', Plan('cpu', 'tiny'), 1)\n"
        "child._lines.recv_bytes()\n"  # the case that hangs has begun
        "print(child._process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    state = Path("/proc") / printed.stdout.decode().strip() / "stat"
    for _ in range(100):
        # Ended and not yet waited for by whoever inherited it is ended, too.
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the child is still there")
