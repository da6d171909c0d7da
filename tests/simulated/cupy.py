"""What the backend calls of CuPy, over NumPy: arrays, copies by address, and streams that capture."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from simulated.streams import Event, LazyStream

MEMORY = 2**30
_state = threading.local()
_streams: dict[int, Any] = {}


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class DeviceArray(np.ndarray):
    """An array that slices, reshapes and transposes, and that NumPy's functions refuse, as they do CuPy's."""

    __array_ufunc__ = None

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"{function.__name__} of an array on a device")

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        assert current_stream() is not None, "asked for outside the device's own stream"
        return {**self.__array_interface__, "stream": current_stream().ptr}


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
    """A device that is made current."""

    def __init__(self, index: int) -> None:
        self.id = index

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


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
    stream = current_stream()
    assert stream is not None, "allocated outside the device's own stream"
    assert stream._captured is None, "nothing may be allocated during a capture"
    if np.prod(shape) * np.dtype(dtype).itemsize > MEMORY:
        raise OutOfMemoryError
    # Aligned as CuPy's pool does.
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(count + 512, np.uint8)
    start = -raw.ctypes.data % 512
    return raw[start : start + count].view(dtype).reshape(shape).view(DeviceArray)


def _copy(target: int, source: int, count: int, kind: int, stream: int) -> None:
    _copy_rows(target, count, source, count, count, 1, kind, stream)


def _copy_rows(
    target: int, to: int, source: int, of: int, width: int, height: int, kind: int, stream: int
) -> None:
    assert kind in (1, 2, 3)
    assert min(to, of) >= width

    def copy() -> None:
        for row in range(height):
            ctypes.memmove(target + row * to, source + row * of, width)

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
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 12090,
    getDeviceProperties=lambda index: {
        "name": b"simulated",
        "major": 9,
        "minor": 0,
        "multiProcessorCount": 1,
    },
)


def module() -> ModuleType:
    """Return the module that stands for CuPy."""
    made = ModuleType("cupy")
    made.__version__ = "0"
    made.empty, made.zeros, made.ascontiguousarray = _empty, _zeros, None
    made.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    made.cuda = SimpleNamespace(
        runtime=_runtime,
        Device=Device,
        Stream=_new_stream,
        Event=Event,
        alloc_pinned_memory=bytearray,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    )
    return made
