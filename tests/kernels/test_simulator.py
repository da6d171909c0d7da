"""The CUDA kernels in Numba's simulator: a process where it is on runs the fused kernels' tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

FILES = (
    "test_fused.py",
    "test_cuda.py",
    "test_embedding_kernels.py",
    "test_half.py",
    "test_loss_scale.py",
)
# What they hold at least; fewer would mean that some are no longer collected.
EXPECTED = 290


@pytest.mark.extra("numba_cuda")
def test_the_cuda_kernels_meet_the_expectations_in_the_simulator(tmp_path: Path) -> None:
    here, report = Path(__file__).parent, tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--junitxml={report}", *(str(here / name) for name in FILES)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    assert int(suite.get("tests", 0)) >= EXPECTED
    assert suite.get("skipped") == suite.get("failures") == suite.get("errors") == "0"
    assert "[cpu" not in report.read_text(), "the simulator was off"
