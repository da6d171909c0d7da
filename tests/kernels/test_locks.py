"""A fork while another thread makes or loads kernels leaves the child able to do the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

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


@pytest.mark.parametrize("lock", ["ours", "Numba's", "llvmlite's"])
def test_a_child_can_take_each_lock_that_a_thread_held(lock: str, tmp_path: Path) -> None:
    assert run(HOLDING, lock, cache=tmp_path) == ["True"] * 3


def test_children_forked_while_a_thread_compiles_load_kernels(tmp_path: Path) -> None:
    assert run(WORKING, "4", "fork", cache=tmp_path) == ["True", "True"]


def test_children_forked_while_a_thread_loads_load_kernels(tmp_path: Path) -> None:
    run(WORKING, "12", cache=tmp_path)
    assert run(WORKING, "12", "fork", cache=tmp_path) == ["True", "True"]


def test_a_child_forked_while_a_thread_imports_the_backend_can_import_it(tmp_path: Path) -> None:
    assert run(IMPORTING, cache=tmp_path) == ["True"]
