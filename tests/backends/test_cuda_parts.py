"""The parts of the CUDA backend that need no device: copies of rows, programs, captures that fail."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numba.core.errors import TypingError

from nnkit.backends.cuda_device import CudaDevice, Uncapturable, plan_copy
from nnkit.backends.cuda_program import CudaProgram
from nnkit.errors import DeviceError

VIEWS: dict[str, Callable] = {
    "whole": lambda a: a,
    "rows": lambda a: a[1:3],
    "columns": lambda a: a[:, 1:4],
    "strided rows": lambda a: a[::2],
    "one column": lambda a: a[:, 2],
    "one element": lambda a: a[1:2, 3:4],
    "none": lambda a: a[:0],
}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("view", VIEWS)
def test_a_copy_of_rows_moves_the_bytes_of_the_view_alone(view: str, dtype) -> None:
    source = np.arange(35).reshape(5, 7).astype(dtype)
    for of, to in ((VIEWS[view], VIEWS[view]), (VIEWS[view], None), (None, VIEWS[view])):
        taken = VIEWS[view](source) if of else np.ascontiguousarray(VIEWS[view](source))
        memory = np.full((5, 7), 99, dtype) if to else np.full(taken.shape, 99, dtype)
        target = to(memory) if to else memory
        plan = plan_copy(target.shape, target.itemsize, target.strides, taken.strides)
        assert plan is not None
        for row in range(plan.height):
            ctypes.memmove(
                target.ctypes.data + row * plan.target_pitch,
                taken.ctypes.data + row * plan.source_pitch,
                plan.width,
            )
        expected = np.full_like(memory, 99)
        (to(expected) if to else expected)[...] = taken
        np.testing.assert_array_equal(memory, expected)


def test_a_contiguous_copy_is_one_row() -> None:
    array = np.zeros((2, 3, 4))
    plan = plan_copy(array.shape, 8, array.strides, array.strides)
    assert (plan.width, plan.height) == (192, 1)


@pytest.mark.parametrize(
    "view", [lambda a: a.T, lambda a: a[:, ::2], lambda a: a[::-1], lambda a: a[:, :, 1:]]
)
def test_what_is_no_copy_of_rows_is_none(view) -> None:
    array = view(np.zeros((3, 4, 5)))
    assert plan_copy(array.shape, 8, np.zeros(array.shape).strides, array.strides) is None


class Recording:
    """A device that counts captures and launches; a capture may fail."""

    name = "cuda:0"

    def __init__(self, failure: Exception | None = None) -> None:
        self.capture_failure = ""
        self.captures = self.replays = self.depth = 0
        self.replaying = False
        self._failure = failure

    @contextmanager
    def active(self):
        self.depth += 1
        yield
        self.depth -= 1

    def capture(self, operations: Any) -> Callable[[], None]:
        assert self.depth == 1
        self.captures += 1
        if self._failure is not None:
            raise self._failure

        def replay() -> None:
            self.replays += 1
            self.replaying = True
            for operation in operations:
                operation()
            self.replaying = False

        return replay


def counting(device: Recording) -> tuple[list[int], Callable[[], None]]:
    calls = [0]

    def operation() -> None:
        assert device.depth == 1
        calls[0] += 1

    return calls, operation


def test_the_first_run_goes_one_by_one_the_second_captures_and_all_count() -> None:
    device = Recording()
    calls, operation = counting(device)
    program = CudaProgram(device, [operation, operation], capturable=True)  # type: ignore[arg-type]
    program.run(0)
    assert calls == [0]
    for count, captures, replays in ((1, 0, 0), (1, 1, 1), (3, 1, 4)):
        program.run(count)
        assert (device.captures, device.replays) == (captures, replays)
    assert calls == [10]


def test_many_runs_at_once_are_one_by_one_and_then_replayed() -> None:
    device = Recording()
    calls, operation = counting(device)
    CudaProgram(device, [operation], capturable=True).run(5)  # type: ignore[arg-type]
    assert (calls, device.captures, device.replays) == ([5], 1, 4)


def test_what_cannot_be_captured_runs_between_graphs_of_what_can() -> None:
    device = Recording()
    order: list[str] = []

    def noting(name: str) -> Callable[[], None]:
        return lambda: order.append(f"{name} in a graph" if device.replaying else name)

    plain, product = noting("plain"), Uncapturable(noting("product"))
    program = CudaProgram(device, [plain, plain, product, product, plain], capturable=True)  # type: ignore[arg-type]
    program.run(3)
    replayed = [*["plain in a graph"] * 2, *["product"] * 2, "plain in a graph"]
    assert order == [*["plain"] * 2, *["product"] * 2, "plain", *replayed, *replayed]
    assert (device.captures, device.replays) == (2, 4)
    other = CudaProgram(device, [plain], capturable=True)  # type: ignore[arg-type]
    other.run(2)
    assert device.captures == 3
    assert device.capture_failure == ""
    alone = CudaProgram(device, [product], capturable=True)  # type: ignore[arg-type]
    alone.run(3)
    assert device.captures == 3


def test_an_empty_program_touches_nothing() -> None:
    CudaProgram(None, [], capturable=True).run(3)  # type: ignore[arg-type]


def test_a_capture_that_fails_is_told_once_and_the_steps_go_on(caplog: pytest.LogCaptureFixture) -> None:
    device = Recording(
        RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted\nsecond line")
    )
    calls, operation = counting(device)
    with caplog.at_level(logging.WARNING, "nnkit"):
        for _ in range(2):
            CudaProgram(device, [operation], capturable=True).run(4)  # type: ignore[arg-type]
    assert calls == [8]
    assert device.captures == 1
    [record] = caplog.records
    assert "cuda:0" in record.message
    assert record.message.endswith("cudaErrorStreamCaptureUnsupported: operation not permitted")


@pytest.mark.parametrize("ending_fails", [False, True])
def test_a_capture_never_stays_open(ending_fails: bool) -> None:
    class Stream:
        capturing = False

        def begin_capture(self, mode: int) -> None:
            assert mode == 2
            self.capturing = True

        def end_capture(self) -> None:
            self.capturing = False
            if ending_fails:
                raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    @contextmanager
    def active():
        yield

    def fails() -> None:
        raise ValueError("an operation that allocates")

    device = SimpleNamespace(
        _stream=Stream(), _runtime=SimpleNamespace(streamCaptureModeRelaxed=2), active=active
    )
    with pytest.raises(ValueError, match="an operation that allocates"):
        CudaDevice.capture(device, [fails])  # type: ignore[arg-type]
    assert not device._stream.capturing


class NvvmError(Exception):
    """As Numba's: it derives from no other class."""


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libNVVM cannot be found.\nDo `conda install cudatoolkit`"),
        NvvmError("libNVVM cannot be found."),
    ],
)
def test_a_compiler_that_fails_is_an_error_of_one_line(error: Exception) -> None:
    class Entry:
        typeof_pyval = staticmethod(type)

        def compile(self, types: tuple) -> None:
            raise error

    @contextmanager
    def active():
        yield

    device = SimpleNamespace(active=active, name="cuda:0", _compiler_advice=lambda: "pip install it")
    said = (
        rf"^device cuda:0: kernels cannot be compiled \({type(error).__name__}: libNVVM.*pip install [^\n]*$"
    )
    with pytest.raises(DeviceError, match=said):
        CudaDevice.launcher(device, Entry(), (1, 1), (1, 1), [1.0])  # type: ignore[arg-type]


def test_a_formula_that_does_not_compile_is_no_fault_of_the_device() -> None:
    class Entry:
        typeof_pyval = staticmethod(type)

        def compile(self, types: tuple) -> None:
            raise TypingError("no such function")

    @contextmanager
    def active():
        yield

    with pytest.raises(TypingError):
        CudaDevice.launcher(SimpleNamespace(active=active), Entry(), (1, 1), (1, 1), [1.0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capability", "package"),
    [((9, 0), "cupy-cuda12x"), ((11, 0), "cupy-cuda13x"), ((12, 1), "cupy-cuda12x")],
)
def test_packages_that_can_compile_for_a_card_are_named(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], package: str
) -> None:
    monkeypatch.setattr("nnkit.extras._is_installed", lambda distribution: False)
    advice = CudaDevice._compiler_advice(SimpleNamespace(compute_capability=capability))  # type: ignore[arg-type]
    assert advice.partition("pip install ")[2].split()[0] == package
