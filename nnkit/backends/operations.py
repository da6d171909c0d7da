"""Operations as data: a step is a list of these records, which a backend compiles.

A record holds every array that it touches. What it reads and writes is known without running it: for a kernel
from `nnkit.kernels.catalogue`, for the others from their fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import DTypeLike

from nnkit.kernels.catalogue import CATALOGUE, Argument, Declaration

__all__ = ["Array", "Copy", "Kernel", "Operation", "Product", "Reduce", "split_at_reductions"]

Array = Any


@dataclass(frozen=True, eq=False)
class Product:
    """``out = a @ b``.

    Parameters
    ----------
    a, b : array of shape (m, k) and (k, n)
        Of one dtype, with contiguous rows or contiguous columns, which may be apart.
    out : array of shape (m, n)
        Of the same dtype; where the factors have 16 bits, sums are float32's and `out` may be float32.
    """

    a: Array
    b: Array
    out: Array

    def reads(self) -> list[Array]:
        """Return the arrays that are read."""
        return [self.a, self.b]

    def writes(self) -> list[Array]:
        """Return the arrays that are written."""
        return [self.out]

    def moved(self) -> int:
        """Return the bytes of all arrays."""
        return int(self.a.nbytes + self.b.nbytes + self.out.nbytes)


@dataclass(frozen=True, eq=False)
class Copy:
    """``target[...] = source``, two arrays of one shape and dtype."""

    source: Array
    target: Array

    def reads(self) -> list[Array]:
        """Return the array that is read."""
        return [self.source]

    def writes(self) -> list[Array]:
        """Return the array that is written."""
        return [self.target]

    def moved(self) -> int:
        """Return the bytes of both arrays."""
        return int(self.source.nbytes + self.target.nbytes)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A fused kernel of `nnkit.kernels`.

    Parameters
    ----------
    name : str
        As the catalogue has it.
    dtype : dtype
        float32 or float64: the type of the arithmetic.
    formulas : mapping of str to function
        The formula for each of the kernel's placeholders.
    constants : mapping of str to bool, int or float
        A bool or an int is a flag, which makes a kernel of its own; a float, a hyperparameter of a formula,
        is one more argument.
    arguments : mapping of str to array or number
        Those that the kernel does not take under its flags are ignored.
    """

    name: str
    dtype: DTypeLike
    formulas: Mapping[str, Callable] = field(default_factory=dict)
    constants: Mapping[str, bool | int | float] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def declaration(self) -> Declaration:
        """What the catalogue says of the kernel."""
        return CATALOGUE[self.name]

    def reads(self) -> list[Array]:
        """Return the arrays that are read, but for a step's figures."""
        return self._given(self.declaration.reads(self.constants))

    def writes(self) -> list[Array]:
        """Return the arrays that are written, but for a step's figures."""
        return self._given(self.declaration.writes(self.constants))

    def _given(self, declared: Sequence[Argument]) -> list[Array]:
        # What another device alone takes need not be there.
        arrays = (self.arguments.get(one.name) for one in declared)
        return [array for array in arrays if array is not None]

    def moved(self, rows_seen: int = 0) -> int:
        """Return the bytes that it moves; see `Declaration.moved`."""
        return self.declaration.moved(self.constants, self.arguments, rows_seen)

    def given(self, **arguments: Any) -> Kernel:
        """Return the same kernel with some of its arguments changed."""
        return replace(self, arguments={**self.arguments, **arguments})


@dataclass(frozen=True, eq=False)
class Reduce:
    """Combine what several workers have computed: they wait for each other, then each runs its kernel.

    Parameters
    ----------
    kernel : Kernel
        It reads what all workers have written, and writes what is this worker's share.
    """

    kernel: Kernel

    def reads(self) -> list[Array]:
        """Return the arrays that are read."""
        return self.kernel.reads()

    def writes(self) -> list[Array]:
        """Return the arrays that are written."""
        return self.kernel.writes()

    def moved(self) -> int:
        """Return the bytes that the kernel moves."""
        return self.kernel.moved()


Operation = Product | Copy | Kernel | Reduce


def split_at_reductions(operations: Sequence[Operation]) -> list[list[Product | Copy | Kernel]]:
    """Return the stretches between which workers wait for each other; each reduction begins one."""
    stretches: list[list[Product | Copy | Kernel]] = [[]]
    for operation in operations:
        if isinstance(operation, Reduce):
            stretches.append([operation.kernel])
        else:
            stretches[-1].append(operation)
    return stretches
