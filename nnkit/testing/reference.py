"""What a kernel computes, as plain Python in float64: the host's template, without a compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnkit.backends.operations import Kernel
from nnkit.kernels import common_parts, host, host_parts
from nnkit.kernels.specialise import FUNCTIONS, Target, specialise, split_constants

__all__ = ["in_python"]

_IMPORTS = """import math

import numpy as np


def dot_of(a, b, center):
    return np.dot(a, b - center)


"""
_TARGET = Target(
    "python",
    _IMPORTS,
    "staticmethod",
    "np.float64",
    {
        **{name: f"np.{name}" for name in FUNCTIONS},
        **{"erf": "math.erf", "total_of": "np.sum", "greatest_of": "np.max", "dot_of": "dot_of"},
        "real": "np.float64",
    },
    parts=frozenset({common_parts.__name__, host_parts.__name__}),
)


def in_python(kernel: Kernel) -> Callable[[], object]:
    """Return a kernel as a plain Python function without arguments.

    Parameters
    ----------
    kernel : Kernel
        Its arrays are NumPy's, and are written in place. All numbers in between are float64's: with arrays of
        float64 the results are as exact as float64 allows.
    """
    folded, passed = split_constants(kernel.constants)
    folded["TINY"] = float(np.finfo(np.dtype(kernel.dtype)).tiny)
    made = specialise(host.TEMPLATES[kernel.name], kernel.formulas, folded, passed, _TARGET)
    given: Mapping[str, Any] = {**kernel.arguments, **made.values(passed)}
    namespace: dict[str, Any] = {}
    exec(made.source, namespace)
    arguments = [given[name] for name in made.parameters]

    def run() -> None:
        with np.errstate(all="ignore"):
            namespace[kernel.name](*arguments)

    return run
