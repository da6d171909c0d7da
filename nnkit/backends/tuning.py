"""Settings of BLAS: the core type of the processor, and the best number of threads for a network's products.

For the command line's own process: the core type must be set before OpenBLAS is loaded, and the number of
threads is the process's.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.blas import blas_threads, describe_blas
from nnkit.errors import FileError
from nnkit.files import write_whole

__all__ = ["begin_anew_with", "better_core_type", "fastest_threads", "processor_flags"]

logger = logging.getLogger("nnkit")

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_AVX2 = frozenset({"avx2", "fma"})
# OpenBLAS's names of the core types whose kernels use neither, and those that use AVX2 alone.
_OLD = frozenset({"Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Sandybridge", "Bulldozer"})
_WITH_AVX2 = frozenset({"Haswell", "Zen", "Excavator"})

_WORTH_A_THREAD = 0.95  # of one thread's time, for more threads to be taken
_LARGE_SECONDS = 0.1  # a pass over the products that takes longer uses all threads
_TURNS = 7


def better_core_type(chosen: str, flags: frozenset[str]) -> str | None:
    """Return the core type to ask OpenBLAS for, or None where its choice is right.

    It falls back to an older one on processors newer than itself: with Haswell's kernels 184 GFLOP/s at
    1024³ where SkylakeX's gave 383.

    Parameters
    ----------
    chosen : str
        As OpenBLAS names it.
    flags : frozenset of str
        The processor's, as Linux lists them.
    """
    if chosen in _WITH_AVX2 | _OLD and flags >= _AVX512 | _AVX2:
        return "SkylakeX"
    return "Haswell" if chosen in _OLD and flags >= _AVX2 else None


def processor_flags() -> frozenset[str]:
    """Return the processor's flags; none where this is not Linux."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return next((frozenset(value.split()) for key, _, value in lines if key.strip() == "flags"), frozenset())


def begin_anew_with(core_type: str) -> None:
    """Replace this process by itself, with the core type in its environment."""
    os.environ["OPENBLAS_CORETYPE"] = core_type
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def fastest_threads(
    widths: Sequence[int], batch_size: int, dtype: DTypeLike, memory: Path | None
) -> int | None:
    """Return the best number of BLAS threads, measured once and then remembered.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden units, outputs.
    batch_size : int
        Rows a step.
    dtype : dtype
        float32 or float64.
    memory : Path, optional
        The file that remembers, by machine, BLAS and shapes; None where there is none.

    Returns
    -------
    int or None
        None where there is no choice: one core, or a number that the environment gives.
    """
    blas = describe_blas()
    if any(name in os.environ for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")):
        return None
    if not blas.get("BLAS threads", "").isdecimal() or int(blas["BLAS threads"]) < 2:
        return None
    shape = f"{'-'.join(map(str, widths))}, batch {batch_size}, {np.dtype(dtype).name}"
    key = ", ".join([*blas.values(), f"NumPy {np.__version__}", shape])
    known = {} if memory is None else _remembered(memory)
    if key not in known:
        known[key] = _measured(widths, batch_size, dtype, int(blas["BLAS threads"]))
        if memory is not None:
            try:
                write_whole(memory, json.dumps(known, indent=1).encode())
            except FileError:
                logger.debug("the number of BLAS threads could not be remembered")
    return known[key]


def _remembered(memory: Path) -> dict[str, int]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: count for key, count in known.items() if isinstance(count, int) and 0 < count < 1000}


def _measured(widths: Sequence[int], batch_size: int, dtype: DTypeLike, most: int) -> int:
    """Time a step's products with one thread and with `most`, in turns; return the better number."""
    products = _products(widths, batch_size, dtype)

    def seconds(threads: int) -> float:
        with blas_threads(str(threads)):
            began = time.perf_counter()
            for product in products:
                product()
            return time.perf_counter() - began

    first = seconds(most)
    if first > _LARGE_SECONDS:
        return most
    turns = [(seconds(1), seconds(most)) for _ in range(_TURNS)]
    one, all_of_them = np.median(turns, axis=0)
    return most if all_of_them < _WORTH_A_THREAD * one else 1


def _products(widths: Sequence[int], batch_size: int, dtype: DTypeLike) -> list[Callable[[], NDArray]]:
    """Return a step's products: forward, and for each weight and each input of a layer backward."""
    products: list[Callable[[], NDArray]] = []

    def add(a: NDArray, b: NDArray) -> None:
        out = np.empty((a.shape[0], b.shape[1]), dtype)
        products.append(lambda: np.dot(a, b, out))

    for layer, (fan_in, units) in enumerate(pairwise(widths)):
        x, w, delta = (
            np.ones(shape, dtype) for shape in ((batch_size, fan_in), (fan_in, units), (batch_size, units))
        )
        add(x, w)
        add(x.T, delta)
        if layer:
            add(delta, w.T)
    return products
