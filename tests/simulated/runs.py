"""Processes with the simulated device: the tests in an order of threads and blocks, trainings on devices."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DEVICES", "TestRun", "compiler", "installed_cuda", "run_tests", "run_training"]

TESTS = Path(__file__).resolve().parents[1]
_FILES = (
    "simulated/driver_checks.py",
    "backends/test_contract.py",
    "backends/test_cuda_device.py",
    "backends/test_cuda_lowering.py",
    "backends/test_cuda_training.py",
    "kernels",
)
DEVICES = {
    12: [(70, 12020), (75, 12020), (80, 12040), (86, 12060), (89, 12080), (90, 12090), (100, 12090),
         (103, 12090), (120, 12090), (121, 12090), (70, 12090), (90, 13000), (100, 13000), (121, 13010)],
    13: [(75, 13000), (80, 13000), (86, 13000), (89, 13010), (90, 13000), (100, 13010), (103, 13010),
         (110, 13000), (120, 13010), (121, 13010)],
}  # fmt: skip
"""Compute capabilities and versions of drivers, by the major version of the CUDA that is installed."""


def compiler() -> str | None:
    """Return the C compiler that the stand-in for CUDA's driver is built with, None where there is none."""
    return shutil.which("cc") or shutil.which("gcc")


@dataclass(frozen=True)
class TestRun:
    """What a run of the tests came to.

    Parameters
    ----------
    status : int
        Of the process.
    counts : dict of str to int
        As pytest counts: ``passed``, ``failed``, ...
    device : dict of str to int
        ``kernels``, ``launches``, ``blocks``, ``barriers`` and ``divergent`` ones.
    output : str
        What was printed.
    """

    status: int
    counts: dict[str, int]
    device: dict[str, int]
    output: str


def run_tests(order: str, sample: int = 1) -> TestRun:
    """Run what needs a GPU, one in `sample` of each test's cases, warnings as errors."""
    options = "-m pytest -p simulated -p no:cacheprovider -m gpu -W error".split()
    files = [str(TESTS / name) for name in _FILES]
    done = _python(*options, *files, SIMULATED_ORDER=order, SIMULATED_SAMPLE=str(sample))
    lines = done.stdout.splitlines()
    told = next((line for line in lines if line.startswith("simulated: ")), "")
    output = f"{done.stdout[-20_000:]}{done.stderr[-2_000:]}"
    return TestRun(done.returncode, _counts(lines[-1] if lines else ""), _counts(told), output)


def run_training(capability: int, version: int, cache: Path) -> dict[str, Any]:
    """Train on such a device with this cache of kernels, and return what `simulated.training` prints."""
    chosen = {"SIMULATED_DRIVER": str(version), "SIMULATED_CAPABILITY": str(capability)}
    done = _python("-m", "simulated.training", NNKIT_CACHE=str(cache), **chosen)
    assert done.returncode == 0, done.stderr[-3_000:]
    found = dict(json.loads(done.stdout))
    assert found["products"].startswith("cuBLASLt"), found
    assert found["captured steps"] == "yes", found
    return found


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHONPATH": str(TESTS), **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=given, cwd=TESTS.parent, capture_output=True, text=True, check=False)


def installed_cuda() -> int:
    """Return the major version of the CUDA whose libraries are installed."""
    import cuda.bindings

    return int(cuda.bindings.__version__.partition(".")[0])


def _counts(line: str) -> dict[str, int]:
    return {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", line)}
