"""The fused kernels for a CUDA GPU: those of `host`, with the same arguments, flags and formulas.

A thread works on groups of four neighbouring elements, in one access where addresses allow it. Sums follow a
fixed order that depends on shapes alone: over each thread's elements, over the block by a tree in shared
memory, then over the blocks in the order of their indices, by the block that finishes last. So two runs give
the same bits on GPUs of any size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nnkit.kernels import (
    common_parts,
    cuda_arena,
    cuda_embedding,
    cuda_layers,
    cuda_losses,
    cuda_members,
    cuda_norm,
    cuda_numbers,
    cuda_parts,
    cuda_periodic,
    cuda_sorting,
    wide,
)
from nnkit.kernels.catalogue import CATALOGUE
from nnkit.kernels.cuda_geometry import Scratch, geometry, sequence
from nnkit.kernels.lanes import expand_lanes
from nnkit.kernels.specialise import (
    FUNCTIONS,
    MODULES,
    Constant,
    LoadedKernel,
    Target,
    load_kernel,
    split_constants,
)

__all__ = ["TEMPLATES", "Launch", "launch", "launches"]

_MODULES = (
    *(cuda_layers, cuda_norm, cuda_numbers, cuda_periodic, cuda_members, cuda_losses),
    *(cuda_arena, cuda_sorting, cuda_embedding),
)
_PHASES = (
    *("layer_norm_sums", "count_tokens", "start_rows", "list_tokens", "count_digits", "sort_digit"),
    *("count_runs", "find_runs", "add_partials", "sum_places", "periodic_lines"),
)

TEMPLATES: Mapping[str, Callable] = {
    name: getattr(module, name)
    for module in _MODULES
    for name in (*CATALOGUE, *_PHASES)
    if getattr(getattr(module, name, None), "__module__", "") == module.__name__
}
_PARTS = frozenset(module.__name__ for module in (common_parts, cuda_parts, *_MODULES))

_ACCESSES = ("load1", "load4", "store1", "store4")


@dataclass(frozen=True)
class Launch:
    """A kernel, specialised for the shapes and alignments of its arrays, and how to start it.

    Parameters
    ----------
    kernel : LoadedKernel
        Its entry is started as ``entry[grid, block](*values)``; its `bind` returns the values for the given
        arguments, `scratch`, `numbers` and the hyperparameters.
    grid, block : tuple of int
        Blocks, and threads of a block, along x and y.
    scratch : mapping of str to (shape, dtype)
        Arrays of zeros at multiples of 32 bytes, which the caller allocates once. The launches of one
        sequence share those of the same name, and leave them ready for their next start.
    numbers : mapping of str to int
        Further arguments of this launch alone.
    """

    kernel: LoadedKernel
    grid: tuple[int, int]
    block: tuple[int, int]
    scratch: Scratch
    numbers: Mapping[str, int] = field(default_factory=dict)


def launches(
    name: str,
    dtype: DTypeLike,
    formulas: Mapping[str, Callable],
    constants: Mapping[str, Constant],
    arguments: Mapping[str, Any],
    threads: int = 256,
) -> list[Launch]:
    """Specialise the sequence of kernels that does what the host's kernel `name` does; nothing runs.

    Arguments as for `launch`.
    """
    return [
        replace(launch(step, dtype, formulas, constants, arguments, threads), numbers=numbers)
        for step, numbers in sequence(name, arguments, threads)
    ]


def launch(
    name: str,
    dtype: DTypeLike,
    formulas: Mapping[str, Callable],
    constants: Mapping[str, Constant],
    arguments: Mapping[str, Any],
    threads: int = 256,
) -> Launch:
    """Specialise one kernel for given arrays; nothing runs.

    Parameters
    ----------
    name : str
        One of `TEMPLATES`.
    dtype : dtype
        float32 or float64: the type of the arithmetic.
    formulas : mapping of str to function
        The formulas for the template's placeholders.
    constants : mapping of str to bool, int or float
        Its flags, and the formulas' hyperparameters, of which only the names matter here.
    arguments : mapping of str to array or number
        By their names in the catalogue. Only an array's shape, dtype, strides and address are read.
    threads : int
        The maximum number of threads in a block; rounded down to a power of two.
    """
    dtype = np.dtype(dtype)
    shape = geometry(name, dtype, constants, arguments, threads)
    folded, passed = split_constants({**constants, **shape.constants})
    folded["TINY"] = float(np.finfo(dtype).tiny)
    kernel = load_kernel(TEMPLATES[name], formulas, folded, passed, _target(dtype.name))
    scratch = {key: kind for key, kind in shape.scratch.items() if key in kernel.parameters}
    return Launch(kernel, shape.grid, shape.block, scratch)


def _target(dtype: str) -> Target:
    # Numba's cache does not see an edit of the intrinsics: their hash makes it another source.
    digest = hashlib.sha256(Path(wide.__file__).read_bytes()).hexdigest()
    imports = (
        "import math\n\nimport numpy as np\nfrom numba import cuda\n\n"
        f"from nnkit.kernels.wide import {', '.join(_ACCESSES)}  # {digest}\n"
    )
    native = {name: f"math.{name}" for name in FUNCTIONS} | {name: name for name in _ACCESSES}
    native["real"] = f"np.{dtype}"
    return Target(
        f"cuda_{dtype}",
        imports,
        "cuda.jit",
        f"np.{dtype}",
        native,
        parts=_PARTS,
        modules={**MODULES, "numba.cuda": "cuda"},
        rewrite=expand_lanes,
    )
