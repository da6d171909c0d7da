"""bench/program.py: what the benchmark programs share."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nnkit.bench.records import Aim, Record, load_result, once

BENCH = Path(__file__).resolve().parents[2] / "bench"
RECORDED = ("diagnosis", "embedding", "estimators", "faults", "hostile", "pictures")
RECORDED += ("reading", "shell", "tables", "text", "trainings")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("program")
    monkeypatch.setattr(module, "describe_machine", lambda packages: {"python": "3"})
    return module


def test_a_result_keeps_the_records_that_were_not_measured_again(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["bench/some.py", "--out", str(path), "one"])
    options = program.parser("What it is.\n\nHow to\nread it.", ("one", "two")).parse_args()
    first = [Record("a", name, figures={"x": once("s", 1.0, Aim("<=", 2.0))}) for name in ("one", "two")]
    program.save(options, "Title", "What it is.\n\nHow to\nread it.", first)
    again = Record("a", "one", figures={"x": once("s", 3.0)})
    program.save(options, "Title", "What it is.", [again], keep=True)
    assert load_result(path).records == [first[1], again]
    program.save(options, "Title", "What it is.\n\nHow to\nread it.\n", [again])
    result = load_result(path)
    assert (result.records, result.about, result.size) == ([again], "How to read it.", "full")
    assert result.command == "python bench/some.py"


def test_a_part_that_there_is_not_is_named(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.parser("It.", ("one", "two")).parse_args(["three"])
    assert "there is no three; there are one, two" in capsys.readouterr().err


def test_turns_alternate_and_the_warm_up_does_not_count(program: ModuleType) -> None:
    calls: list[str] = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: (calls.append("b"), time.sleep(0.01))}
    taken = program.in_turns(functions, 2, warmup=1, rest=0.0)
    assert calls == ["a", "b"] * 3
    assert [len(values) for values in taken.values()] == [2, 2]
    assert np.all(taken["b"] >= 0.01)


def test_a_child_that_fails_ends_the_program_with_its_output(program: ModuleType, tmp_path: Path) -> None:
    ended = program.run_python(["-c", "import os; print(os.environ['NNKIT_CACHE'])"], tmp_path)
    assert ended.printed == f"{tmp_path}\n"
    assert ended.peak > 2**20
    with pytest.raises(SystemExit, match="ended with 3: so"):
        program.run_python(["-c", "print('so', flush=True); raise SystemExit(3)"], tmp_path)


@pytest.mark.parametrize("name", RECORDED)
def test_the_recorded_results_can_be_read(name: str) -> None:
    assert load_result(BENCH / "results" / f"{name}.json").records
