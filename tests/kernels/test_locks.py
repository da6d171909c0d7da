"""Kernels are made and loaded whole, beside a fork and under Ctrl-C.

A fork while another thread makes or loads kernels leaves the child able to do the same; Ctrl-C waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit.kernels import native
from nnkit.kernels.locks import uninterrupted
from nnkit.kernels.modules import load_source, source_name
from nnkit.kernels.native import Loop

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

BEGIN = """
import os, signal, threading, time, warnings
warnings.simplefilter("ignore")  # that forking beside threads may hang

def ends(process):
    for _ in range(300):
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False
"""

HOLDING = """
import llvmlite.binding as llvm
from llvmlite.binding.ffi import lib
from numba.core.compiler_lock import global_compiler_lock
from nnkit.kernels.locks import loading
lock = {"ours": loading, "Numba's": global_compiler_lock, "llvmlite's": lib._lock}[sys.argv[1]]
held = threading.Event()

def hold():
    with lock:
        held.set()
        time.sleep(0.5)

def use():
    with loading, global_compiler_lock:
        llvm.parse_assembly("")

thread = threading.Thread(target=hold)
thread.start()
held.wait()
process = os.fork()
if process == 0:
    use()
    os._exit(0)
print(ends(process))
thread.join()
with lock:  # a thread may fork while it holds it
    process = os.fork()
    if process == 0:
        use()
        os._exit(0)
    print(ends(process))
thread = threading.Thread(target=use)  # and the parent has let go of it
thread.start()
thread.join(30)
print(not thread.is_alive())
"""

WORKING = """
import numpy as np
from nnkit.kernels.modules import load_source, source_name
from nnkit.kernels.native import Loop

SOURCE = '''from numba import njit


@njit(error_model="numpy", nogil=True)
def double(x):
    for i in range(x.size):
        x[i] *= 2  # {}
'''

def doubled(number):
    source = SOURCE.format(number)
    x = np.ones(3)
    Loop(source_name("double", source), source, "double")(x)
    return x.tolist() == [2, 2, 2]

def work():
    for number in range(int(sys.argv[1])):
        doubled(number)

if len(sys.argv) == 2:
    work()
else:
    assert doubled("first")
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    children = []
    while thread.is_alive() and len(children) < 25:
        time.sleep(0.01)
        process = os.fork()
        if process == 0:
            os._exit(0 if doubled("first") and doubled(0) else 1)
        children.append(process)
    thread.join()
    print(len(children) > 0, all(map(ends, children)))
"""

IMPORTING = """
from nnkit.backends import select

class Slow:
    begun = threading.Event()

    def find_spec(self, name, path, target=None):
        if name == "nnkit.backends.compiled":  # in the midst of importing nnkit.backends.numpy
            self.begun.set()
            time.sleep(0.5)

sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=select, args=("cpu",))
thread.start()
Slow.begun.wait()
process = os.fork()
if process == 0:
    select("cpu")
    os._exit(0)
print(ends(process))
"""


def run(program: str, *arguments: str, cache: Path) -> list[str]:
    environment = {**os.environ, "NNKIT_CACHE": str(cache)}
    command = [sys.executable, "-c", f"import sys{BEGIN}{program}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    return done.stdout.split()


@forks
@pytest.mark.parametrize("lock", ["ours", "Numba's", "llvmlite's"])
def test_a_child_can_take_each_lock_that_a_thread_held(lock: str, tmp_path: Path) -> None:
    assert run(HOLDING, lock, cache=tmp_path) == ["True"] * 3


@forks
def test_children_forked_while_a_thread_compiles_load_kernels(tmp_path: Path) -> None:
    assert run(WORKING, "4", "fork", cache=tmp_path) == ["True", "True"]


@forks
def test_children_forked_while_a_thread_loads_load_kernels(tmp_path: Path) -> None:
    run(WORKING, "12", cache=tmp_path)
    assert run(WORKING, "12", "fork", cache=tmp_path) == ["True", "True"]


def test_a_child_forked_while_a_thread_imports_the_backend_can_import_it(tmp_path: Path) -> None:
    assert run(IMPORTING, cache=tmp_path) == ["True"]


# --- Ctrl-C ---


@pytest.fixture
def _pythons_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press() -> None:
    """Send the signal of Ctrl-C and let Python see it."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("_pythons_handler")
def test_an_interrupt_comes_at_the_end_of_the_outermost_context() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            with uninterrupted():
                press()
                done.append("inner")
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner", "outer"]


def test_a_handler_of_the_users_own_is_called_as_often_and_what_is_ignored_stays_so() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with uninterrupted():
            press()
            press()
            assert seen == []
        assert seen == [signal.SIGINT] * 2
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with uninterrupted():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            press()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_the_handler() -> None:
    seen: list[Any] = []

    def look() -> None:
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


@pytest.mark.usefixtures("_pythons_handler")
def test_a_module_is_executed_whole() -> None:
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhole = True\n"
    name = source_name("interrupted", source)
    with pytest.raises(KeyboardInterrupt):
        load_source(name, source)
    assert load_source(name, source).whole


@pytest.mark.usefixtures("_pythons_handler")
@pytest.mark.parametrize("moment", ["compiled", "kept", "loaded"])
def test_a_kernel_is_made_and_loaded_whole(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path))
    place, name = {
        "compiled": (Loop, "compiled_for"),
        "kept": (native, "_object_of"),
        "loaded": (native, "_address_of"),
    }[moment]
    function, ended = getattr(place, name), []

    def pressed(*arguments: Any) -> Any:
        press()
        found = function(*arguments)
        ended.append(name)
        return found

    source = f"from numba import njit\n\n\n@njit\ndef double(x):\n    x *= 2  # {moment}\n"
    x = np.ones(3)
    monkeypatch.setattr(place, name, pressed)
    with pytest.raises(KeyboardInterrupt):
        Loop(source_name("double", source), source, "double")(x)
    assert ended
    monkeypatch.undo()
    Loop(source_name("double", source), source, "double")(x)
    assert x.tolist() == [2, 2, 2]
