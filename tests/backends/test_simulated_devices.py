"""Small trainings on simulated devices of every kind, each in a process of its own: see `simulated`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simulated.runs import DEVICES, compiler, installed_cuda, run_training

pytestmark = [
    pytest.mark.extra("numba_cuda"),
    pytest.mark.skipif(compiler() is None, reason="there is no C compiler, for a stand-in of CUDA's driver"),
]


def test_a_second_process_compiles_and_links_nothing(tmp_path: Path) -> None:
    first, second = (run_training(90, 13000, tmp_path) for _ in range(2))
    assert min(first["calls"][name] for name in ("compile_cuda", "compile_ir", "_Linker")) > 0
    assert second["calls"] == {}
    assert second["losses"] == first["losses"]
    assert first["errors"] == second["errors"] == []


@pytest.mark.slow
def test_trainings_on_several_devices_are_the_cpus(kernel_cache: Path) -> None:
    """Some of those that bench/simulation.py tries."""
    for capability, version in DEVICES[installed_cuda()][::3]:
        found = run_training(capability, version, kernel_cache)
        assert found["errors"] == [], (capability, version)
        np.testing.assert_allclose(found["losses"], found["cpu"], rtol=1e-6)
