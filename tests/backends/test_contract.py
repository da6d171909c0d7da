"""What any backend must do, on each device that works here."""

from __future__ import annotations

import pytest

from nnkit.backends import available
from nnkit.backends.protocol import Backend
from nnkit.errors import DeviceError
from nnkit.testing import BackendContract


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.gpu if name == "cuda" else ()) for name in sorted(available())
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return available()[request.param](request.param)
    except DeviceError as error:
        pytest.skip(str(error))


class TestInstalledBackends(BackendContract):
    """Those that are installed."""
