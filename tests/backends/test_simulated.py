"""The CUDA backend and its kernels, executed on the CPU: see `simulated`."""

from __future__ import annotations

import pytest
from simulated.runs import compiler, run_tests

pytestmark = [
    pytest.mark.extra("numba_cuda"),
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler, for a stand-in of CUDA's driver"),
]

# One in so many of the cases with kernels of their own, in one order of the threads; all are in
# bench/simulation.py.
SAMPLE = 32


def test_the_backend_and_its_kernels_do_what_they_must() -> None:
    done = run_tests("random", SAMPLE)
    assert done.status == 0, done.output
    assert done.counts["passed"] >= 120
    assert not {"skipped", "failed", "error", "errors", "xfailed"} & set(done.counts)
    assert done.device["kernels"] >= 80
