"""The BLAS at its best: which core type is asked for, and a number of threads that is measured once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit.backends import tuning
from nnkit.backends.blas import describe_blas
from nnkit.backends.tuning import better_core_type, fastest_threads, processor_flags

AVX2 = frozenset({"avx", "avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("chosen", "flags", "better"),
    [
        ("Haswell", AVX512, "SkylakeX"),
        ("Zen", AVX512, "SkylakeX"),
        ("Prescott", AVX512, "SkylakeX"),
        ("Nehalem", AVX2, "Haswell"),
        ("Haswell", AVX2, None),
        ("Zen", AVX2, None),
        ("SkylakeX", AVX512, None),
        ("SapphireRapids", AVX512, None),
        ("Cooperlake", AVX512, None),
        ("Haswell", AVX512 - {"avx512vl"}, None),
        ("Prescott", frozenset(), None),
        ("neoversen1", frozenset(), None),
        ("not known", AVX512, None),
        ("", frozenset(), None),
    ],
)
def test_the_core_type_is_the_greatest_that_the_processor_runs(
    chosen: str, flags: frozenset[str], better: str | None
) -> None:
    assert better_core_type(chosen, flags) == better


def test_the_processors_flags_are_read_where_linux_tells_them() -> None:
    flags = processor_flags()
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert ("avx2" in flags) == (" avx2 " in text)


CORE_TYPE = """
import os, sys
from nnkit.backends import blas, tuning
real = blas.describe_blas()
lesser = {**real, "BLAS core type": "Prescott"}
if "OPENBLAS_CORETYPE" not in os.environ:
    blas.describe_blas = lambda: lesser
    tuning.processor_flags = lambda: frozenset({"avx2", "fma"})
from nnkit.cli.processor import take_the_processors_blas
take_the_processors_blas()
print(os.environ.get("OPENBLAS_CORETYPE"), *sys.argv[1:])
"""


@pytest.mark.skipif("avx2" not in processor_flags(), reason="this processor has no AVX2")
def test_the_command_line_begins_anew_with_the_core_type_and_its_arguments(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(CORE_TYPE)
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    command = [sys.executable, str(script), "a b", "--c"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["Haswell", "a", "b", "--c"]
    given = {**environment, "OPENBLAS_CORETYPE": "Sandybridge"}
    told = subprocess.run(command, env=given, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split()[0] == "Sandybridge"


class Clock:
    """Says how many threads a pass was timed with; a pass takes what is given for that many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.passes: list[str] = []
        self._now = 0.0
        self._seconds = seconds
        self._threads = "4"
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        blas = {**describe_blas(), "BLAS threads": "4"}
        monkeypatch.setattr(tuning, "describe_blas", lambda: blas)
        monkeypatch.setattr(tuning, "blas_threads", self)
        monkeypatch.setattr(tuning.time, "perf_counter", self.read)

    def __call__(self, threads: str) -> Clock:
        self._threads = threads
        return self

    def __enter__(self) -> None:
        self.passes.append(self._threads)

    def __exit__(self, *error: Any) -> None:
        pass

    def read(self) -> float:
        self._now += self._seconds["one" if self._threads == "1" else "four"] / 2
        return 2 * self._now


@pytest.mark.parametrize(("one", "four", "best"), [(1e-3, 5e-4, 4), (1e-3, 1e-3, 1), (1e-3, 3e-3, 1)])
def test_threads_are_taken_where_they_pay(
    one: float, four: float, best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, one=one, four=four)
    memory = tmp_path / "cache" / "threads.json"
    assert fastest_threads([20, 8, 3], 16, np.float32, memory) == best
    assert {"1", "4"} == set(clock.passes)
    clock.passes.clear()
    assert fastest_threads([20, 8, 3], 16, np.float32, memory) == best
    assert clock.passes == []  # remembered
    fastest_threads([20, 8, 3], 17, np.float32, memory)
    assert clock.passes != []  # another shape
    assert len(json.loads(memory.read_text())) == 2


def test_products_that_take_long_get_all_threads_unmeasured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, one=0.5, four=0.4)
    assert fastest_threads([20, 8, 3], 16, np.float64, tmp_path / "threads.json") == 4
    assert clock.passes == ["4"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "b"}', "[" * 5000])
def test_a_memory_that_is_damaged_is_measured_anew(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, one=1e-3, four=5e-4)
    memory = tmp_path / "threads.json"
    memory.write_text(text)
    assert fastest_threads([20, 8, 3], 16, np.float32, memory) == 4
    assert list(json.loads(memory.read_text()).values()) == [4]


def test_a_number_that_the_environment_gives_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, one=1e-3, four=5e-4)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert fastest_threads([20, 8, 3], 16, np.float32, tmp_path / "threads.json") is None
    assert clock.passes == []


def test_a_real_measurement_gives_a_number_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    found = fastest_threads([30, 20, 1], 8, np.float32, tmp_path / "threads.json")
    assert found in (None, 1, int(describe_blas()["BLAS threads"]))
