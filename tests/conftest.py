"""Fixtures that several parts share."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from nnkit.extras import EXTRAS, install_command

# On a machine that does other things too, how long something takes says nothing about whether it is right.
settings.register_profile("nnkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nnkit")

# A shell starts a command in the background with Ctrl-C ignored, which the processes of tests would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Numba makes objects by the million: looking for garbage less often takes an eighth off a test's time.
gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep compiled kernels in a folder of this session's, unless NNKIT_CACHE names one."""
    if "NNKIT_CACHE" in os.environ:
        yield Path(os.environ["NNKIT_CACHE"])
        return
    session = tmp_path_factory.getbasetemp()
    # Each of pytest-xdist's processes has a folder of its own in the session's; what one compiles serves all.
    folder = (session.parent if hasattr(pytestconfig, "workerinput") else session) / "cache"
    os.environ["NNKIT_CACHE"] = str(folder)
    yield folder
    del os.environ["NNKIT_CACHE"]


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def patient_work_line() -> Iterator[None]:
    """Let commands say nothing of work that takes long: how long it takes here is no test's matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnkit.cli.work_line._PATIENCE", float("inf"))
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what lacks something: here, so that one line of the summary counts all that lack the same."""
    for mark in item.iter_markers("extra"):
        if find_spec(mark.args[0]) is None:
            known = any(mark.args[0] in packages for packages in EXTRAS.values())
            how = install_command(mark.args[0]) if known else f"pip install {mark.args[0]}"
            pytest.skip(f"{mark.args[0]} is not installed: {how}")
    if item.get_closest_marker("gpu") and why_no_gpu():
        pytest.skip(why_no_gpu())
    if "shared_data" in getattr(item, "fixturenames", ()) and not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not there")


@cache
def why_no_gpu() -> str:
    """Return why the tests cannot use a GPU; empty where they can."""
    from nnkit.backends import select
    from nnkit.errors import DeviceError

    try:
        select("cuda")
    except DeviceError as error:
        return str(error)
    return ""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the repository; without it, `pytest_runtest_setup` skips."""
    return SHARED_DATA
