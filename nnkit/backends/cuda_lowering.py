"""A list of operations as a GPU's calls: launches of kernels, products by cuBLASLt or CuPy, and copies.

Order: the lowering of each record, then the peephole that makes one product of a product, a bias and a ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from nnkit.backends.cublaslt_plan import mask_shape
from nnkit.backends.cuda_device import Call, CudaDevice
from nnkit.backends.operations import Array, Copy, Kernel, Operation, Product, split_at_reductions
from nnkit.kernels.formulas import relu, relu_derivative

__all__ = ["Products", "lower"]

_Record = Product | Copy | Kernel


class Products(Protocol):
    """How a device multiplies matrices, in one of its precisions; None is returned where it cannot."""

    precisions: tuple[str, ...]
    why_not_captured: str
    """Why steps with these products cannot be captured into a graph; empty where they can."""

    def with_precision(self, precision: str) -> Products:
        """Return the same products in another precision."""

    def describe(self) -> str:
        """Return the library's name and version."""

    def describe_relu(self) -> str:
        """Return whether products include the ReLU that follows them, and why not."""

    def matmul(self, a: Array, b: Array, out: Array) -> Call | None:
        """Prepare ``out = a @ b``."""

    def matmul_relu(self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None) -> Call | None:
        """Prepare ``out = max(a @ b + bias, 0)`` and a bit for each element that is above 0.

        All arrays but the mask are of one dtype. None too where this ReLU differs from nnkit's.

        Parameters
        ----------
        a, b, out : array of shape (m, k), (k, n) and (m, n)
            As `nnkit.backends.operations.Product` takes them.
        bias : array of shape (n,)
            Contiguous.
        mask : array of the shape that `mask_shape` gives, uint8, or None
            For `matmul_relu_gradient`; None if that is not needed.
        """

    def matmul_relu_gradient(
        self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array
    ) -> Call | None:
        """Prepare ``out = (a @ b) * mask`` and ``bias_gradient = out.sum(axis=0)``.

        Shapes and dtypes as for `matmul_relu`, whose mask it reads. None likewise.
        """


def lower(
    operations: Sequence[Operation], device: CudaDevice, products: Products, threads: int
) -> list[Call]:
    """Return the calls that do what the operations say, in their order.

    Parameters
    ----------
    operations : sequence of Operation
        Reductions are of a single worker and do not wait.
    device : CudaDevice
        The device of all arrays.
    products : Products
        Multiplies; CuPy takes the products that it cannot do.
    threads : int
        The maximum number of threads in a block.
    """
    records = [record for stretch in split_at_reductions(operations) for record in stretch]
    fused = _products_with_relu(records, device, products)
    calls: list[Call] = []
    for place, record in enumerate(records):
        if place in fused:
            calls.append(fused[place])
        elif place - 1 not in fused:  # else the product before includes this kernel
            calls += _lowered(record, device, products, threads)
    return calls


def _lowered(record: _Record, device: CudaDevice, products: Products, threads: int) -> list[Call]:
    if isinstance(record, Product):
        operands = (record.a, record.b, record.out)
        return [products.matmul(*operands) or device.matmul(*operands)]
    if isinstance(record, Copy):
        return [device.copy(record.source, record.target)]
    return _launches(record, device, threads)


def _launches(kernel: Kernel, device: CudaDevice, threads: int) -> list[Call]:
    from nnkit.kernels import cuda

    real: type[Any] = np.dtype(kernel.dtype).type
    with device.active():
        launches = cuda.launches(
            kernel.name, kernel.dtype, kernel.formulas, kernel.constants, kernel.arguments, threads
        )
        kinds = {key: kind for launch in launches for key, kind in launch.scratch.items()}
        shared = {**kernel.arguments, **{key: device.zeros(*kind) for key, kind in kinds.items()}}
        calls = []
        for launch in launches:
            bound = launch.kernel.bind({**shared, **launch.numbers}, kernel.constants)
            values = [_argument(value, real, device) for value in bound]
            calls.append(device.launcher(launch.kernel.entry, launch.grid, launch.block, values))
    return calls


def _argument(value: Any, real: type[Any], device: CudaDevice) -> Any:
    if type(value) is float:
        return real(value)
    return value if isinstance(value, int | np.generic) else device.wrap(value)


# ---------------------------------------------------------------------------------------------------------
# The peephole. A product and the kernel of its ReLU become one product with an epilogue, which saves a pass
# over the outputs in each direction. Backward it reads a mask that the forward product has written.
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Relu:
    """A product with the ReLU, or its derivative, that follows it, over the columns of the bias."""

    a: Array
    b: Array
    out: Array
    bias: Array  # or its gradient
    activations: Array | None  # at which the derivative is taken; None for the ReLU itself


def _products_with_relu(
    records: Sequence[_Record], device: CudaDevice, products: Products
) -> dict[int, Call]:
    """Return the products that include the kernel after them, by their places among the records."""
    found = {place: relu for place, pair in enumerate(pairwise(records)) if (relu := _relu_of(*pair))}
    backward_of = _matched(found, records)
    calls: dict[int, Call | None] = {}
    for place, forward in found.items():
        if forward.activations is not None:
            continue
        operands = (forward.a, forward.b, forward.bias, forward.out)
        if place in backward_of:
            backward = found[backward_of[place]]
            mask = device.zeros(mask_shape(*forward.out.shape), np.uint8)
            calls[place] = products.matmul_relu(*operands, mask)
            gradient = products.matmul_relu_gradient(
                backward.a, backward.b, mask, backward.out, backward.bias
            )
            if calls[place] is not None and gradient is not None:
                calls[backward_of[place]] = gradient
                continue
        calls[place] = products.matmul_relu(*operands, None)
    return {place: call for place, call in calls.items() if call is not None}


def _relu_of(product: _Record, kernel: _Record) -> _Relu | None:
    """Return the two records as one product, if an epilogue of cuBLASLt does what the kernel does.

    Factors, bias and outputs are of one type, and only the outputs are kept. There may be columns of padding
    that the kernel does not touch: forward they are zeros, and remain zeros with a bias of zeros and a ReLU.
    """
    if not (isinstance(product, Product) and isinstance(kernel, Kernel) and kernel.name in _KERNELS):
        return None
    placeholder, formula, excluded, onto, name = _KERNELS[kernel.name]
    flags = kernel.constants
    plain = flags.get("BIAS") and not flags.get("DROPOUT") and not flags.get(excluded)
    if not plain or kernel.formulas[placeholder] is not formula:
        return None
    inside, bias, out = kernel.arguments[onto], kernel.arguments[name], product.out
    columns, backward = bias.shape[0], kernel.name == "backward"
    # Backward, the product must write the padding, where another layer's derivative lay before.
    fits = inside.shape[1] <= columns and (columns == out.shape[1] if backward else columns <= out.shape[1])
    of_one_type = product.a.dtype == out.dtype == bias.dtype
    if not (fits and of_one_type and bias.flags.c_contiguous and _is_left_part(inside, out)):
        return None
    activations = kernel.arguments["a"] if backward else None
    return _Relu(product.a, product.b[:, :columns], out[:, :columns], bias, activations)


# By kernel: its formula's placeholder, the formula, the flag with which it does more than an epilogue, and
# the names of two arguments: the product's result, and the bias or its gradient.
_KERNELS: Mapping[str, tuple[str, Callable, str, str, str]] = {
    "forward": ("activation", relu, "KEEP_Z", "z", "bias"),
    "backward": ("activation_derivative", relu_derivative, "FROM_Z", "delta", "bias_gradient"),
}


def _matched(found: Mapping[int, _Relu], records: Sequence[_Record]) -> dict[int, int]:
    """Return, by a forward product's place, the place of the product that goes back through its ReLU.

    The latter reads the outputs of the former, which must not have changed since: the mask is of them.
    """
    matched: dict[int, int] = {}
    unchanged: dict[int, Array] = {}
    for place, record in enumerate(records[1:]):
        relu = found.get(place)  # the record is its kernel
        if relu is not None and relu.activations is not None:
            for source, out in unchanged.items():
                if out.shape == relu.out.shape and _is_left_part(relu.activations, out):
                    matched.setdefault(source, place)
        written = record.writes()
        unchanged = {s: out for s, out in unchanged.items() if not any(_overlap(out, w) for w in written)}
        if relu is not None and relu.activations is None:
            unchanged[place] = relu.out
    return matched


def _is_left_part(view: Array, whole: Array) -> bool:
    """Whether a matrix is another one's first columns, all of them included."""
    return (
        (view.data.ptr, view.dtype, view.strides) == (whole.data.ptr, whole.dtype, whole.strides)
        and view.shape[0] == whole.shape[0]
        and view.shape[1] <= whole.shape[1]
    )


def _overlap(one: Array, other: Array) -> bool:
    """Whether the stretches of memory of two arrays overlap."""
    (start, stop), (other_start, other_stop) = _stretch(one), _stretch(other)
    return start < other_stop and other_start < stop


def _stretch(array: Array) -> tuple[int, int]:
    start = int(array.data.ptr)
    if 0 in array.shape:
        return start, start
    steps = ((length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True))
    return start, start + sum(steps) + array.dtype.itemsize
