"""A formula as a plain Python function, made by the rules of the kernels: to check it before it is compiled.

It has been inlined as a kernel inlines it, so that what `specialise` refuses is refused here, and a name such
as `exp` means what it means in a kernel. It computes in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nnkit.kernels.specialise import FUNCTIONS, Constant, Target, specialise

__all__ = ["plain_function"]

_TARGET = Target(
    "python",
    "import math\n\nimport numpy as np\n",
    "staticmethod",
    "np.float64",
    {name: f"math.{name}" for name in FUNCTIONS},
)


def formula(*values: Any) -> Any:
    """Stand for the formula."""


def of_one(x):  # type: ignore[no-untyped-def]
    return formula(x)


def of_two(x, y):  # type: ignore[no-untyped-def]
    return formula(x, y)


def plain_function(
    function: Callable, arguments: int, constants: Mapping[str, Constant] | None = None
) -> Callable[..., Any]:
    """Return a formula as a Python function of one or two numbers.

    Parameters
    ----------
    function : function
        The formula.
    arguments : {1, 2}
        How many values a kernel gives it by position.
    constants : mapping of str to bool, int or float, optional
        Its further parameters.

    Raises
    ------
    ConfigError
        If a kernel could not be made of it.
    """
    template = of_one if arguments == 1 else of_two
    made = specialise(template, {"formula": function}, constants or {}, (), _TARGET)
    namespace: dict[str, Any] = {}
    exec(made.source, namespace)
    entry, names = namespace[template.__name__], ("x", "y")[:arguments]

    def called(*values: Any) -> Any:
        # A parameter that is not read is left out, as a kernel leaves it out.
        return entry(*(value for name, value in zip(names, values, strict=True) if name in made.parameters))

    return called
