"""The fixture that runs a kernel's test on each device that this process has.

The simulator replaces Numba's CUDA when that is first imported, so it has a process of its own, which
test_simulator.py starts.
"""

from __future__ import annotations

import pytest
from kernel_devices import GPU, SIMULATED, CudaDevice, HostDevice

# Kernels for CUDA run in the simulator or on a GPU; the simulator, in turn, compiles nothing.
collect_ignore = [] if SIMULATED or GPU else ["test_cuda.py", "test_half.py"]
if SIMULATED:
    collect_ignore += ["test_ptx.py", "test_simulator.py"]


if SIMULATED:
    from simulated.blocks import take_turns

    take_turns()


DEVICES = (
    [pytest.param(CudaDevice(), id="simulator")] if SIMULATED else [pytest.param(HostDevice(), id="cpu")]
)
if GPU:
    DEVICES.append(pytest.param(CudaDevice(256), id="gpu", marks=pytest.mark.gpu))


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> HostDevice:
    """What runs a kernel on NumPy arrays: the CPU or the simulator, and a GPU where there is one."""
    return request.param
