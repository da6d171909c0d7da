"""`nnkit bench`: every section measures, and a case that fails costs only itself."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from nnkit import cli
from nnkit.bench import command
from nnkit.bench.command import SECTIONS, changes, devices_for, run_suite
from nnkit.bench.records import Aim, Quantity, Record, Result, load_result, markdown, once, save_result
from nnkit.bench.timing import Case, Plan
from nnkit.errors import FileError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny() -> Result:
    saved: list[int] = []
    result = run_suite([*SECTIONS], ["cpu"], "tiny", lambda result: saved.append(len(result.records)))
    # Whatever ends it keeps what was measured until then.
    assert saved == list(range(1, len(result.records) + 1))
    return result


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_yields_records(tiny: Result, section: str) -> None:
    records = tiny.sections[section]
    assert [record for record in records if record.figures]
    for record in records:
        assert bool(record.figures) != bool(record.skipped), record
        for quantity in record.figures.values():
            assert math.isfinite(quantity.median)
            assert quantity.low <= quantity.median <= quantity.high
            assert quantity.repeats in (1, 5, 15)
        assert not record.failed
    assert len({record.key for record in records}) == len(records)


def test_precisions_that_are_not_there_are_skipped_with_the_reason(tiny: Result) -> None:
    by_precision = {record.precision: record for record in tiny.sections["precision"]}
    assert {name for name, record in by_precision.items() if record.figures} == {"fp32", "fp64"}
    assert by_precision["bf16"].skipped == "cpu has fp32, fp64"


@pytest.mark.parametrize(
    "name",
    [
        "scikit-learn",
        pytest.param("PyTorch eager", marks=pytest.mark.extra("torch")),
        pytest.param("JAX, an epoch a call", marks=pytest.mark.extra("jax")),
    ],
)
def test_peers_do_the_same_work(tiny: Result, name: str) -> None:
    peers = {record.name: record.figures for record in tiny.sections["peers"]}
    assert peers[name]["loss apart from nnkit's"].median < 1e-4
    assert peers["nnkit"]["loss"].median == pytest.approx(peers[name]["loss"].median, rel=1e-4)


def test_peers_that_are_not_installed_say_so(tiny: Result) -> None:
    skipped = {record.name: record.skipped for record in tiny.sections["peers"]}
    for library, name in (("torch", "PyTorch eager"), ("jax", "JAX, an epoch a call")):
        assert ("No module named" in skipped[name]) == (find_spec(library) is None)


def test_a_result_is_read_back_as_it_was_written(tiny: Result, tmp_path: Path) -> None:
    save_result(tiny, tmp_path / "bench.json")
    assert load_result(tmp_path / "bench.json") == tiny
    assert load_result(tmp_path) == tiny
    assert tiny.machine["numpy"]
    assert float(tiny.machine["load before"]) >= 0


def test_a_case_that_fails_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def well(blank: Record) -> list[Record]:
        return [replace(blank, figures={"x": once("s", 1.0)})]

    def fails(blank: Record) -> list[Record]:
        raise ValueError("not so")

    def cases(plan: Plan) -> Iterator[Case]:
        yield Record("own", "well"), well
        yield Record("own", "fails"), fails
        yield Record("own", "absent", skipped="no such thing"), fails
        yield Record("own", "last"), well

    monkeypatch.setattr(command, "SECTIONS", {"own": ("Own", cases)})
    records = run_suite(["own"], ["cpu"]).records
    assert [record.skipped for record in records] == ["", "ValueError: not so", "no such thing", ""]
    assert [record.failed for record in records] == [False, True, False, False]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a result of nnkit bench"),
        ('{"format": "nnkit bench 1"}', "is not a result of nnkit bench"),
        ('{"format": "nnkit bench 2"}', "is damaged: KeyError"),
        ('{"format": "nnkit bench 2", "records": [3]}', "is damaged: KeyError"),
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
    value = asdict(Record("step", "x", figures={"y": once("s", 1.0, Aim("<=", 2.0))}))
    assert Record.from_json(value).figures["y"] == Quantity("s", 1.0, 1.0, 1.0, 1, Aim("<=", 2.0))
    for field, wrong in (("median", "1"), ("unit", 3), ("low", None), ("repeats", True), ("aim", 3)):
        broken = json.loads(json.dumps(value))
        broken["figures"]["y"][field] = wrong
        with pytest.raises(TypeError):
            Record.from_json(broken)


def test_a_table_has_a_column_for_each_parameter_and_figure() -> None:
    slow = Quantity("s", 2e-3, 1e-3, 3e-3, 5, Aim("<=", 1e-3))
    records = [
        Record("step", "a", parameters={"batch": 1024}, figures={"step": slow}),
        Record("step", "b", figures={"ratio": once("", 1.5)}),
        Record("step", "c", skipped="too large", failed=True),
    ]
    assert markdown(records).splitlines() == [
        "| what | batch | step | ratio |",
        "| --- | --- | --- | --- |",
        "| a | 1,024 | 2.00 (1.00 to 3.00) ms; aim ≤ 1.00 ms: **no** |  |",
        "| b |  |  | 1.50 |",
        "| c |  | failed: too large |  |",
    ]


def test_only_differences_larger_than_the_spreads_are_changes() -> None:
    def result(*medians: float, repeats: int = 5) -> Result:
        figures = {str(i): Quantity("s", x, 0.9 * x, 1.1 * x, repeats) for i, x in enumerate(medians)}
        return Result("", "", {}, "full", "", records=[Record("step", "x", figures=figures)])

    (change,) = changes(result(1.0, 1.0, 1.0), result(1.1, 2.0))
    assert change == ["x, cpu, fp32", "1", "1.00 (0.90 to 1.10) s", "2.00 (1.80 to 2.20) s", "× 2.00"]
    assert not list(changes(result(1.0, repeats=1), result(2.0)))


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["nnkit", "bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_measures_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "new" / "folder", tmp_path / "again"
    assert bench(monkeypatch, "kernels", "--quick", "--device", "cpu", "--out", out) == 0
    printed = capsys.readouterr()
    assert "Fused kernels beside NumPy" in printed.out
    assert "kernels: update" in printed.err
    assert devices_for("auto")[0] == "cpu"
    arguments = ("kernels", "--quick", "--device", "cpu", "--out", again, "--compare", out)
    assert bench(monkeypatch, *arguments) == 0
    assert "differ by more than their spreads" in capsys.readouterr().out
    assert bench(monkeypatch, *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((again / "bench.json").read_text())


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
    broken = Record("step", "x", skipped="it broke", failed=True)
    result = Result("", "", {"processor": "p"}, "quick", "2026-01-01 00:00", records=[broken])
    monkeypatch.setattr(command, "run_suite", lambda *arguments: result)
    assert bench(monkeypatch, "step", "--quick", "--device", "cpu", "--out", tmp_path) == 1
    printed = capsys.readouterr()
    assert "it broke" in printed.out
    assert "ended in an error" in printed.err
