"""The CUDA backend and its kernels, executed on the CPU: see `simulated`."""

from __future__ import annotations

import pytest
from simulated.runs import compiler, run_tests

pytestmark = [
    pytest.mark.extra("numba_cuda"),
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler, for a stand-in of CUDA's driver"),
]

# Of the cases with kernels of their own one in so many: all take half an hour, see bench/simulation.py.
SAMPLE = 16


@pytest.mark.parametrize(
    "order",
    ["random", *(pytest.param(order, marks=pytest.mark.slow) for order in ("forward", "backward"))],
)
def test_the_backend_and_its_kernels_do_what_they_must(order: str) -> None:
    done = run_tests(order, SAMPLE)
    assert done.status == 0, done.output
    assert done.counts["passed"] >= 120
    assert not {"skipped", "failed", "error", "errors", "xfailed"} & set(done.counts)
    assert done.device["kernels"] >= 80
