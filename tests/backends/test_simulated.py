"""What a GPU is asked for, asked of a simulated one: the contract, and trainings equal to the CPU's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = ("test_contract.py", "test_cuda_device.py", "test_cuda_training.py")


@pytest.mark.extra("numba_cuda")
def test_the_backend_does_on_a_simulated_gpu_what_it_must() -> None:
    paths = [str(TESTS / "backends" / name) for name in FILES]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "simulated",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu",
        *paths,
    ]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(TESTS)}
    result = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-2_000:]
    summary = result.stdout.splitlines()[-1]
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", summary)}
    assert counts["passed"] >= 100
    assert not {"skipped", "failed", "error", "errors", "xfailed"} & set(counts)
