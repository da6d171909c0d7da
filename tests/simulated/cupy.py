"""What the backend calls of CuPy, over NumPy: arrays, copies by address, and streams that capture."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from simulated.driver import driver
from simulated.streams import Event, LazyStream

MEMORY = 2**30
_state = threading.local()
_streams: dict[int, Any] = {}
# As CuPy's pool aligns arrays. What lies around them is NaN to whoever reads it.
_ALIGNMENT, _GUARD = 512, 0xFF
_guarded_memory: dict[int, tuple[weakref.ref, int, int]] = {}


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class CompileException(Exception):
    """As CuPy's, of NVRTC's messages."""


class DeviceArray(np.ndarray):
    """An array that slices, reshapes and transposes, and that NumPy's functions refuse, as they do CuPy's.

    What makes another array of it, or writes into it, would run on CuPy's current stream: it must be the
    device's own.
    """

    __array_ufunc__ = None

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"{function.__name__} of an array on a device")

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(one, np.ndarray | list) for one in keys):
            _on_the_stream("indexed by an array")
        return super().__getitem__(key)

    def fill(self, value: Any) -> None:
        _on_the_stream("filled")
        current_stream().submit(lambda: super(DeviceArray, self).fill(value))

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        _on_the_stream("asked for its address")
        return {**self.__array_interface__, "stream": current_stream().ptr}


def _on_the_stream(what: str) -> None:
    assert current_stream() is not None, f"{what} outside the device's own stream"


def _guarded(name: str) -> Callable:
    plain = getattr(np.ndarray, name)

    def method(self: DeviceArray, *arguments: Any, **options: Any) -> Any:
        _on_the_stream(name)
        return plain(self, *arguments, **options)

    return method


_MAKING = """
__setitem__ argmax argmin argsort astype copy cumsum dot flatten nonzero put repeat searchsorted sort take
"""
for _name in _MAKING.split():
    setattr(DeviceArray, _name, _guarded(_name))


class Stream:
    """A stream: calls run at once, or become part of a graph."""

    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking, "the default stream waits for others, and they for it"
        self.ptr = 0x5000 + len(_streams)
        self._captured: list[Callable[[], None]] | None = None
        _streams[self.ptr] = self

    def __enter__(self) -> Stream:
        _state.streams = [*getattr(_state, "streams", []), self]
        return self

    def __exit__(self, *_: object) -> None:
        assert _state.streams.pop() is self

    def submit(self, call: Callable[[], None]) -> None:
        """Run, or record."""
        if self._captured is None:
            call()
        else:
            self._captured.append(call)

    def begin_capture(self, mode: int) -> None:
        assert mode == _runtime.streamCaptureModeRelaxed
        assert self._captured is None
        self._captured = []

    def end_capture(self) -> Graph:
        graph, self._captured = Graph(self._captured), None
        return graph

    def synchronize(self) -> None:
        assert self._captured is None, "nothing may wait during a capture"

    def record(self, event: Event) -> None:
        assert self._captured is None, "an event of the host's in a graph"
        event.reached_now()

    def wait_event(self, event: Event) -> None:
        assert self._captured is None, "a wait for a copy in a graph"
        event.synchronize()


def _new_stream(non_blocking: bool = False) -> Stream | CopyStream:
    """Return a device's own stream, the first; those after it are for copies, as late as they may come."""
    return CopyStream() if _streams else Stream(non_blocking)


class CopyStream(LazyStream):
    """A stream whose copies are made when somebody waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.ptr = 0x5000 + len(_streams)
        self._captured = None
        _streams[self.ptr] = self


class Graph:
    """What was captured."""

    launches = 0

    def __init__(self, calls: list[Callable[[], None]] | None) -> None:
        assert calls is not None
        self._calls = calls

    def launch(self, stream: Stream) -> None:
        type(self).launches += 1
        for call in self._calls:
            stream.submit(call)


class Device:
    """A device that is made current, as CUDA's runtime does it: by its context."""

    def __init__(self, device: int) -> None:
        self.id = device

    def __enter__(self) -> Device:
        _state.devices = [*getattr(_state, "devices", []), self.id]
        driver().make_current(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        *_state.devices, _ = _state.devices
        driver().make_current((_state.devices or [0])[-1])


def current_stream() -> Stream | None:
    """Return the innermost stream that was entered."""
    streams = getattr(_state, "streams", [])
    return streams[-1] if streams else None


def stream_of(pointer: int) -> Stream:
    """Return the stream of that address."""
    return _streams[pointer]


def _empty(shape: Any, dtype: Any) -> DeviceArray:
    array = _zeros(shape, dtype)
    array.view(np.uint8).fill(0xA5) if array.size else None  # what nobody has written is recognised
    return array


def _zeros(shape: Any, dtype: Any) -> DeviceArray:
    _on_the_stream("allocated")
    stream = current_stream()
    assert stream._captured is None, "nothing may be allocated during a capture"
    if np.prod(shape) * np.dtype(dtype).itemsize > MEMORY:
        raise OutOfMemoryError
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(count + 3 * _ALIGNMENT, _GUARD, np.uint8)
    start = _ALIGNMENT + -raw.ctypes.data % _ALIGNMENT
    raw[start : start + count] = 0
    key = id(raw)
    _guarded_memory[key] = weakref.ref(raw, lambda _: _guarded_memory.pop(key)), start, count
    return raw[start : start + count].view(dtype).reshape(shape).view(DeviceArray)


def overrun() -> Iterator[str]:
    """Yield what was written beside an array since it was allocated."""
    for memory, start, count in list(_guarded_memory.values()):
        raw = memory()
        if raw is not None and ((raw[:start] != _GUARD).any() or (raw[start + count :] != _GUARD).any()):
            raw[:start] = raw[start + count :] = _GUARD
            yield f"it writes beside an array of {count} bytes"


def _matmul(a: DeviceArray, b: DeviceArray, out: DeviceArray) -> None:
    """Multiply by cuBLAS, which CuPy refuses while its stream captures."""
    stream = current_stream()
    assert stream is not None, "multiplied outside the device's own stream"
    if stream._captured is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    np.matmul(*(array.view(np.ndarray) for array in (a, b)), out=out.view(np.ndarray))


def _copy(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    _copy_rows(dst, size, src, size, size, 1, kind, stream)


def _copy_rows(
    dst: int, dpitch: int, src: int, spitch: int, width: int, height: int, kind: int, stream: int
) -> None:
    assert kind in (1, 2, 3)
    assert min(dpitch, spitch) >= width

    def copy() -> None:
        for row in range(height):
            ctypes.memmove(dst + row * dpitch, src + row * spitch, width)

    capturing = _streams[stream]._captured is not None
    assert kind == _runtime.memcpyDeviceToDevice or not capturing, "the host's memory in a graph"
    _streams[stream].submit(copy)


_runtime = SimpleNamespace(
    memcpyHostToDevice=1,
    memcpyDeviceToHost=2,
    memcpyDeviceToDevice=3,
    streamCaptureModeRelaxed=2,
    CUDARuntimeError=RuntimeError,
    memcpyAsync=_copy,
    memcpy2DAsync=_copy_rows,
    memGetInfo=lambda: (MEMORY, MEMORY),
    getDeviceCount=lambda: 1,
    driverGetVersion=lambda: driver().version,
    runtimeGetVersion=lambda: 12090,
    getDeviceProperties=lambda device: {
        "name": b"simulated",
        "major": driver().capability // 10,
        "minor": driver().capability % 10,
        "multiProcessorCount": 1,
    },
)


def module() -> ModuleType:
    """Return the module that stands for CuPy."""
    made = ModuleType("cupy")
    made.__version__ = "0"
    made.empty, made.zeros, made.ascontiguousarray = _empty, _zeros, None
    made.matmul = _matmul
    made.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    made.cuda = SimpleNamespace(
        runtime=_runtime,
        Device=Device,
        Stream=_new_stream,
        Event=Event,
        alloc_pinned_memory=bytearray,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        compiler=SimpleNamespace(CompileException=CompileException),
    )
    return made
