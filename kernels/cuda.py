"""The fused kernels for a CUDA GPU: those of `host`, with the same parameters, flags and formulas.

A thread works on groups of four neighbouring elements, in one access where addresses allow it. Sums follow a
fixed order that depends on shapes alone: each thread's own, a tree over the block in shared memory, then the
blocks' results in the order of their indices, by whichever block finishes last. So two runs give the same
bits on GPUs of any size.
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
    cuda_norm,
    cuda_parts,
    cuda_sorting,
    wide,
)
from nnkit.kernels.cuda_geometry import Scratch, geometry, sequence
from nnkit.kernels.specialise import MODULES, Constant, LoadedKernel, Target, load_kernel, split_constants

__all__ = ["TEMPLATES", "Launch", "launch", "launches"]

TEMPLATES: Mapping[str, Callable] = {
    template.__name__: template
    for template in (
        cuda_layers.gather,
        cuda_layers.forward,
        cuda_layers.backward,
        cuda_layers.add,
        cuda_norm.layer_norm,
        cuda_norm.layer_norm_sums,
        cuda_norm.layer_norm_gradient,
        cuda_losses.elementwise_loss,
        cuda_losses.softmax_loss,
        cuda_arena.penalise,
        cuda_arena.squared_norm,
        cuda_arena.update,
        cuda_arena.copy_parameters,
        cuda_sorting.number,
        cuda_sorting.count_tokens,
        cuda_sorting.start_rows,
        cuda_sorting.list_tokens,
        cuda_sorting.count_digits,
        cuda_sorting.sort_digit,
        cuda_sorting.count_runs,
        cuda_sorting.find_runs,
        cuda_embedding.embed,
        cuda_embedding.embed_gradient,
        cuda_embedding.add_partials,
        cuda_embedding.penalise_rows,
        cuda_embedding.squared_norm_rows,
        cuda_embedding.update_rows,
        cuda_embedding.mark_rows,
    )
}
_PARTS = frozenset(
    module.__name__
    for module in (
        *(common_parts, cuda_parts, cuda_layers, cuda_norm, cuda_losses),
        *(cuda_arena, cuda_sorting, cuda_embedding),
    )
)

_ACCESSES = ("load1", "load4", "store1", "store4")


@dataclass(frozen=True)
class Launch:
    """A kernel, specialised for the shapes and alignments of its arrays, and how to start it.

    Parameters
    ----------
    kernel : LoadedKernel
        Its entry, started as ``entry[grid, block](*values)`` with what its `bind` returns for the arguments
        that were given, those of `scratch` and `numbers`, and the hyperparameters.
    grid, block : tuple of int
        Blocks, and threads of a block, along x and y.
    scratch : mapping of str to (shape, dtype)
        Arrays of zeros, at addresses that are multiples of 32 bytes, which the caller allocates once. The
        launches of one sequence share those of the same name, and leave them ready for their next start.
    numbers : mapping of str to int
        Further arguments, which belong to this launch alone.
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
    """Specialise the sequence of kernels that does what one kernel of the host does; nothing runs.

    Parameters
    ----------
    name : str
        One of the kernels of `nnkit.kernels.host`.
    dtype, formulas, constants, arguments, threads
        As for `launch`.
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
        By the names of the host's loops. Of an array only shape, dtype, strides and address are looked at.
    threads : int
        The most threads of a block; the power of two below is taken.
    """
    dtype = np.dtype(dtype)
    shape = geometry(name, dtype, constants, arguments, threads)
    folded, passed = split_constants({**constants, **shape.constants})
    folded["TINY"] = float(np.finfo(dtype).tiny)
    kernel = load_kernel(TEMPLATES[name], formulas, folded, passed, _target(dtype.name))
    scratch = {key: kind for key, kind in shape.scratch.items() if key in kernel.parameters}
    return Launch(kernel, shape.grid, shape.block, scratch)


def _target(dtype: str) -> Target:
    functions = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt")
    casts = {
        "real": f"np.{dtype}",
        "double": "np.float64",
        "int32": "np.int32",
        "u8": "np.uint8",
        "u32": "np.uint32",
        "u64": "np.uint64",
    }
    native = {**{name: f"math.{name}" for name in functions}, **casts, **{name: name for name in _ACCESSES}}
    # Numba's cache does not see an edit of the intrinsics: their hash makes it another source.
    digest = hashlib.sha256(Path(wide.__file__).read_bytes()).hexdigest()
    imports = (
        "import math\n\nimport numpy as np\nfrom numba import cuda\n\n"
        f"from nnkit.kernels.wide import {', '.join(_ACCESSES)}  # {digest}\n"
    )
    return Target(
        f"cuda_{dtype}",
        imports,
        "cuda.jit",
        f"np.{dtype}",
        native,
        {},
        parts=_PARTS,
        modules={**MODULES, "numba.cuda": "cuda"},
    )
