"""The fixture that runs a kernel's test on the CPU and on CUDA's device."""

from __future__ import annotations

import pytest
from kernel_devices import CudaDevice, HostDevice

DEVICES = [
    pytest.param(HostDevice(), id="cpu"),
    pytest.param(CudaDevice(), id="cuda", marks=pytest.mark.gpu),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> HostDevice:
    """What runs a kernel on NumPy arrays."""
    return request.param
