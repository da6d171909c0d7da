"""A CUDA device without one: its kernels run on the CPU, and CuPy and cuBLASLt are stood in for.

As a pytest plugin (``pytest -p simulated``, this folder's parent on the path) it lets ``nnkit.backends.cupy``
run as it is, down to each call of a library. numba-cuda is the real one: it compiles, links and loads every
kernel for the device's compute capability and launches it through a driver of our own (`driver`). Environment
variables choose what kind of device it is, SIMULATED_DRIVER (13000) and SIMULATED_CAPABILITY (90); in which
order threads and blocks run, SIMULATED_ORDER (forward, backward, random); and how many of a test's cases are
run, one in SIMULATED_SAMPLE (1), where kernels are many.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

ORDERS = ("forward", "backward", "random")
# Beside those of the kernels, the tests of which a sample will do.
_SAMPLED = ("test_cuda_training.py",)


def install() -> None:
    """Put the stand-ins where the backend looks for the libraries."""
    from nnkit.backends import cuda_probe
    from simulated import cublaslt, cupy
    from simulated.driver import driver

    driver()
    for module in (cupy.module(), *cublaslt.modules()):
        _install(module)
    cuda_probe._driver_is_there = lambda: True


def _install(module: ModuleType) -> None:
    from importlib.machinery import ModuleSpec

    module.__spec__ = ModuleSpec(module.__name__, None)
    sys.modules[module.__name__] = module


def pytest_configure(config: pytest.Config) -> None:
    install()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is no part of the sample: another one for each order."""
    sample, order = int(os.environ.get("SIMULATED_SAMPLE", 1)), os.environ.get("SIMULATED_ORDER", "forward")
    some = [item for item in items if item.path.name in _SAMPLED or item.path.parent.name == "kernels"]
    first = ORDERS.index(order) * sample // len(ORDERS)
    left_out = set(some) - set(some[first::sample])
    items[:] = [item for item in items if item not in left_out]


def _checked() -> Iterator[None]:
    """Let a phase of a test fail by what went wrong in its launches."""
    from simulated.driver import driver

    errors = driver().errors
    try:
        yield
    except BaseException as error:
        if errors:
            error.add_note(f"on the device: {errors[:3]}")
        raise
    else:
        assert not errors, f"on the device: {errors[:3]}"
    finally:
        errors.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _checked()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _checked()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield from _checked()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from simulated.driver import driver

    found = driver()
    counts = ", ".join(f"{found.count(what)} {what}" for what in ("blocks", "barriers", "divergent"))
    terminalreporter.write_line(
        f"simulated: {len(found.launches)} kernels, {found.launches.total()} launches, {counts}"
    )
