"""Mistakes in a list of operations that are found without running it.

Order: the check, what is wrong with one operation, memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Array, Copy, Kernel, Operation, Product, Reduce
from nnkit.errors import ConfigError
from nnkit.kernels.catalogue import CATALOGUE, Argument

__all__ = ["check_operations"]

# Beyond this, whether two strided arrays share an element is answered by their first and last addresses.
_MOST_WORK = 10_000


def check_operations(operations: Sequence[Operation], unwritten: Sequence[Array] = ()) -> None:
    """Raise if a list of operations cannot be right, on whatever device it is compiled.

    Every kernel is in the catalogue and is given all that it takes under its flags, in shapes that go
    together; a product's and a copy's shapes and dtypes do; what an operation writes shares no memory with
    what else it reads or writes.

    Parameters
    ----------
    operations : sequence of Product, Copy, Kernel or Reduce
        In their order.
    unwritten : sequence of array, optional
        Arrays that hold nothing at first, such as `Backend.empty` returns: an operation must not read of
        them what no earlier one has written.

    Raises
    ------
    ConfigError
        With a line for each mistake, which begins with the operation's place in the list.
    """
    mistakes: list[str] = []
    written: list[Array] = []
    for place, operation in enumerate(operations):
        one = operation.kernel if isinstance(operation, Reduce) else operation
        found = [*_mistakes(one)]
        if not found:
            found += _unwritten_reads(one, unwritten, written)
            written += one.writes()
        name = one.name if isinstance(one, Kernel) else type(one).__name__
        mistakes += [f"operation {place}, {name}: {mistake}" for mistake in found]
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _mistakes(operation: Product | Copy | Kernel) -> Iterator[str]:
    if isinstance(operation, Kernel):
        return _kernel_mistakes(operation)
    return _product_mistakes(operation) if isinstance(operation, Product) else _copy_mistakes(operation)


def _product_mistakes(product: Product) -> Iterator[str]:
    a, b, out = product.a, product.b, product.out
    if not len(a.shape) == len(b.shape) == len(out.shape) == 2:
        yield f"the shapes {a.shape}, {b.shape} and {out.shape} are not those of matrices"
    elif a.shape[1] != b.shape[0] or out.shape != (a.shape[0], b.shape[1]):
        yield f"a has shape {a.shape}, b {b.shape}, and out {out.shape}"
    wide = a.dtype.itemsize == 2 and out.dtype == np.float32
    if a.dtype != b.dtype or not (out.dtype == a.dtype or wide):
        yield f"a has dtype {a.dtype}, b {b.dtype}, and out {out.dtype}"
    for name, factor in (("a", a), ("b", b)):
        if factor.itemsize not in factor.strides[-2:]:
            yield f"{name} has contiguous elements along no dimension"
        if _overlap(factor, out):
            yield f"out shares memory with {name}"


def _copy_mistakes(copy: Copy) -> Iterator[str]:
    source, target = copy.source, copy.target
    if source.shape != target.shape or source.dtype != target.dtype:
        yield f"source is {source.dtype} {source.shape}, target {target.dtype} {target.shape}"
    if _overlap(source, target):
        yield "source and target share memory"


def _kernel_mistakes(kernel: Kernel) -> Iterator[str]:
    if kernel.name not in CATALOGUE:
        yield "the catalogue has no such kernel"
        return
    taken = [one for one in CATALOGUE[kernel.name].arguments if one.taken(kernel.constants)]
    arrays: list[tuple[Argument, Array]] = []
    lengths: dict[str, tuple[int, str]] = {}
    for one in taken:
        value = kernel.arguments.get(one.name)
        if value is None:
            yield f"{one.name} is not given"
        elif one.use != "number":
            if hasattr(value, "shape"):
                arrays.append((one, value))
            yield from _shape_mistakes(one, value, lengths)
    results = [(one, array) for one, array in arrays if one.use in ("out", "inout", "scratch")]
    others = [(one, array) for one, array in arrays if one.use in ("in", "out", "inout")]
    for one, array in results:
        for other, another in others:
            later = other.use == "in" or other.name > one.name or one.use == "scratch"
            if one.name != other.name and later and _overlap(array, another):
                yield f"{one.name} shares memory with {other.name}"


def _shape_mistakes(argument: Argument, array: Any, lengths: dict[str, tuple[int, str]]) -> Iterator[str]:
    """Compare an array's shape with the declared one; `lengths` has what is known, and of which argument."""
    shape = getattr(array, "shape", None)
    if shape is not None and not argument.shape:
        return
    dimensions = [one for one in argument.shape if one != "..."]
    if shape is None or len(shape) < len(dimensions) or (len(shape) > len(dimensions) == len(argument.shape)):
        words = "is no array" if shape is None else f"has shape {tuple(shape)}"
        yield f"{argument.name} {words}, and should be ({', '.join(argument.shape)})"
        return
    for dimension, length in zip(dimensions, shape, strict=False):
        if dimension == "*":
            continue
        known, of = lengths.setdefault(
            dimension, (int(dimension) if dimension.isdigit() else int(length), argument.name)
        )
        if known != length:
            yield f"{argument.name} has {length} {dimension}, and {of} {known}"


def _unwritten_reads(
    operation: Product | Copy | Kernel, unwritten: Sequence[Array], written: Sequence[Array]
) -> Iterator[str]:
    for array in operation.reads():
        fresh = any(_overlap(array, one) for one in unwritten)
        if fresh and not any(_overlap(array, one) for one in written):
            yield f"an array of shape {tuple(array.shape)} is read that nothing has written"


# ---------------------------------------------------------------------------------------------------------
# Memory.
# ---------------------------------------------------------------------------------------------------------


class _Memory:
    """An array's addresses as NumPy asks for them, wherever the array is: nothing is read from there."""

    def __init__(self, array: Array) -> None:
        interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
        self.__array_interface__ = {
            "data": (interface["data"][0], True),
            "shape": tuple(array.shape),
            "strides": tuple(array.strides),
            "typestr": f"|V{array.itemsize}",
            "version": 3,
        }


def _overlap(one: Array, other: Array) -> bool:
    """Whether two arrays have an element in common; False of arrays that do not say where they lie."""
    if not one.size or not other.size:
        return False
    known = ("__cuda_array_interface__", "__array_interface__")
    if not all(any(hasattr(array, name) for name in known) for array in (one, other)):
        return False
    first, second = _addresses(one), _addresses(other)
    try:
        return np.shares_memory(first, second, max_work=_MOST_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return np.may_share_memory(first, second)


def _addresses(array: Array) -> NDArray:
    return np.asarray(_Memory(array))
