"""A product, a bias and a ReLU become one product exactly where that changes no result; else kernels run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnkit.backends import select
from nnkit.backends.cublaslt import CublasLt
from nnkit.backends.cuda_device import Call
from nnkit.backends.cupy import CupyBackend
from nnkit.backends.operations import Array, Copy, Kernel, Product
from nnkit.nn.activations import activation_function
from nnkit.training.precision import half_of

pytestmark = pytest.mark.gpu

ROWS, INPUTS, HIDDEN, OUTPUTS = 6, 5, 8, 3
PLAIN, RELU, MASKED, GRADIENT = "product", "with ReLU", "with ReLU and mask", "with its gradient"
FUSED = [MASKED, PLAIN, GRADIENT]
FORWARD_ALONE = [RELU, PLAIN, PLAIN]
APART = [PLAIN, PLAIN, PLAIN]

Record = Product | Copy | Kernel


@pytest.fixture
def backend() -> CupyBackend:
    chosen = select("cuda").backend
    assert isinstance(chosen, CupyBackend)
    if not isinstance(chosen.products, CublasLt):
        pytest.skip("products are not cuBLASLt's")
    return chosen


class Noting:
    """Products that note what is done by each that runs."""

    def __init__(self, products: Any) -> None:
        self._products = products
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._products, name)

    def matmul(self, *arrays: Array) -> Call | None:
        return self._noting(PLAIN, self._products.matmul(*arrays))

    def matmul_relu(self, *arrays: Array) -> Call | None:
        return self._noting(RELU if arrays[-1] is None else MASKED, self._products.matmul_relu(*arrays))

    def matmul_relu_gradient(self, *arrays: Array) -> Call | None:
        return self._noting(GRADIENT, self._products.matmul_relu_gradient(*arrays))

    def _noting(self, what: str, call: Call | None) -> Call | None:
        def run() -> None:
            assert call is not None
            self.done.append(what)
            call()

        return None if call is None else run


class Layer:
    """A hidden layer, a product above it, and back: five records over arrays with known values."""

    def __init__(self, backend: CupyBackend, dtype: Any = np.float32, inner: int = OUTPUTS) -> None:
        self._backend = backend
        random = np.random.default_rng(0)

        def normal(*shape: int) -> Array:
            return backend.from_host(random.normal(size=shape).astype(dtype))

        self.dtype = dtype
        self.x, self.W, self.V = normal(ROWS, INPUTS), normal(INPUTS, HIDDEN), normal(HIDDEN, inner)
        self.bias, self.delta = normal(HIDDEN), normal(ROWS, inner)
        self.z, self.outputs = self.zeros(ROWS, HIDDEN), self.zeros(ROWS, inner)
        self.onto, self.bias_gradient = self.zeros(ROWS, HIDDEN), self.zeros(HIDDEN)
        self.other = normal(ROWS, HIDDEN)
        self.mask = backend.from_host(random.integers(0, 2, (ROWS, HIDDEN)).astype(np.uint8))

    def zeros(self, *shape: int) -> Array:
        return self._backend.zeros(shape, self.dtype)

    def forward(self, activation: str = "relu", flags: dict | None = None, **changed: Any) -> Kernel:
        arguments = {"z": self.z, "a": self.other, "bias": self.bias, "mask": self.mask}
        arguments |= {"counters": self._backend.zeros(3, np.int64)}
        arguments |= {"layer": 0, "key0": 1, "key1": 2, "threshold": 2**30, "kept_scale": 4 / 3, **changed}
        formulas = {"activation": activation_function(activation).value}
        return Kernel("forward", self.real, formulas, {"BIAS": True, **(flags or {})}, arguments)

    def backward(self, activation: str = "relu", flags: dict | None = None, **changed: Any) -> Kernel:
        arguments = {"delta": self.onto, "z": self.other, "a": self.z, "bias_gradient": self.bias_gradient}
        arguments |= {"mask": self.mask, "kept_scale": 4 / 3, "keep": 0.75, **changed}
        formulas = {"activation_derivative": activation_function(activation).derivative}
        return Kernel("backward", self.real, formulas, {"BIAS": True, **(flags or {})}, arguments)

    @property
    def real(self) -> Any:
        return np.dtype(np.float64 if self.dtype == np.float64 else np.float32)

    @property
    def into(self) -> Product:
        return Product(self.x, self.W, self.z)

    @property
    def above(self) -> Product:
        return Product(self.z, self.V, self.outputs)

    @property
    def back(self) -> Product:
        return Product(self.delta, self.V.T, self.onto)

    def records(self, forward: Kernel | None = None, backward: Kernel | None = None) -> list[Record]:
        forward, backward = forward or self.forward(), backward or self.backward()
        return [self.into, forward, self.above, self.back, backward]


def assert_done(
    backend: CupyBackend, records: list[Record], expected: list[str], tolerance: float = 1e-5
) -> None:
    """Compare what was done, and every result, captured or not, with that of the records one by one."""
    written = {id(array): array for record in records for array in record.writes()}.values()
    first = [backend.to_host(array) for array in written]
    for record in records:
        backend.compile([record]).run()
    one_by_one = [backend.to_host(array).astype(np.float64) for array in written]
    noting = Noting(backend.products)
    program = CupyBackend(backend._device, noting).compile(records)
    for _ in range(3):
        for array, values in zip(written, first, strict=True):
            backend.write(array, values)
        program.run()
        for array, values in zip(written, one_by_one, strict=True):
            found = backend.to_host(array).astype(np.float64)
            np.testing.assert_allclose(found, values, rtol=tolerance, atol=tolerance)
    assert noting.done[: len(expected)] == expected
    assert noting.done.count(expected[0]) == 2 * expected.count(expected[0])  # run, and captured


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bias_and_relu_are_part_of_the_products_in_both_directions(backend: CupyBackend, dtype: Any) -> None:
    assert_done(backend, Layer(backend, dtype).records(), FUSED)


def test_without_a_backward_pass_there_is_no_mask(backend: CupyBackend) -> None:
    layer = Layer(backend)
    assert_done(backend, layer.records()[:3], [RELU, PLAIN])


def interrupted(layer: Layer, place: int) -> list[Record]:
    records = layer.records()
    return [*records[:place], Copy(layer.other, layer.zeros(ROWS, HIDDEN)), *records[place:]]


def of_another_layer(layer: Layer) -> list[Record]:
    """The kernel after the lower product works on another layer's outputs."""
    return layer.records(layer.forward(z=layer.other))


def overwritten(layer: Layer, target: Callable[[Layer], Array]) -> list[Record]:
    """Somebody writes activations, or a part of them, before the backward pass reads them."""
    onto = target(layer)
    into, forward, above, *back = layer.records()
    return [into, forward, above, Copy(layer.other[: onto.shape[0], : onto.shape[1]], onto), *back]


# What the records are, and the products that are then run.
CASES: dict[str, tuple[Callable[[Layer], list[Record]], list[str]]] = {
    "dropout": (lambda one: one.records(one.forward(flags={"DROPOUT": True})), APART),
    "dropout backward": (
        lambda one: one.records(backward=one.backward(flags={"DROPOUT": True})),
        FORWARD_ALONE,
    ),
    "z is kept": (lambda one: one.records(one.forward(flags={"KEEP_Z": True})), APART),
    "the derivative is taken at z": (
        lambda one: one.records(backward=one.backward(flags={"FROM_Z": True})),
        FORWARD_ALONE,
    ),
    "another activation": (lambda one: one.records(one.forward("gelu")), APART),
    "another derivative": (lambda one: one.records(backward=one.backward("tanh")), FORWARD_ALONE),
    "no bias": (lambda one: one.records(one.forward(flags={"BIAS": False})), APART),
    "no gradient of a bias": (
        lambda one: one.records(backward=one.backward(flags={"BIAS": False})),
        FORWARD_ALONE,
    ),
    "a record between": (lambda one: interrupted(one, 1), APART),
    "a record between, backward": (lambda one: interrupted(one, 4), FORWARD_ALONE),
    "another layer's outputs": (of_another_layer, APART),
    "another layer's derivative": (
        lambda one: one.records(backward=one.backward(delta=one.other)),
        FORWARD_ALONE,
    ),
    "another layer's activations": (
        lambda one: one.records(backward=one.backward(a=one.other)),
        FORWARD_ALONE,
    ),
    "activations overwritten": (lambda one: overwritten(one, lambda one: one.z), FORWARD_ALONE),
    "a part overwritten": (lambda one: overwritten(one, lambda one: one.z[2:3, 1:2]), FORWARD_ALONE),
    "something else written": (lambda one: overwritten(one, lambda one: one.zeros(ROWS, HIDDEN)), FUSED),
    "fewer rows backward": (
        lambda one: [
            *one.records()[:3],
            Product(one.delta[:4], one.V.T, one.onto[:4]),
            one.backward(delta=one.onto[:4], a=one.z[:4]),
        ],
        FORWARD_ALONE,
    ),
    "fewer columns backward": (
        lambda one: one.records(
            backward=one.backward(delta=one.onto[:, :7], a=one.z[:, :7], bias_gradient=one.bias_gradient[:7])
        ),
        FORWARD_ALONE,
    ),
    "a product of fewer columns backward": (
        lambda one: [
            *one.records()[:3],
            Product(one.delta, one.V[:7].T, narrow := one.zeros(ROWS, 7)),
            one.backward(delta=narrow, a=one.z[:, :7], bias_gradient=one.bias_gradient[:7]),
        ],
        FORWARD_ALONE,
    ),
    "a bias of another type": (lambda one: one.records(one.forward(bias=one.bias.astype(np.float64))), APART),
    "a bias with gaps": (
        lambda one: one.records(one.forward(bias=one._backend.from_host(np.ones(16, np.float32))[::2])),
        APART,
    ),
    "two backward passes": (
        lambda one: [*one.records(), *one.records()[3:]],
        [*FUSED, PLAIN],
    ),
    "two steps": (lambda one: [*one.records(), *one.records()], [*FUSED, *FUSED]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_part_of_a_product(backend: CupyBackend, case: str) -> None:
    records, expected = CASES[case]
    with backend.active():
        made = records(Layer(backend))
    assert_done(backend, made, expected)


def test_each_of_two_layers_goes_back_through_its_own_mask(backend: CupyBackend) -> None:
    lower, upper = Layer(backend), Layer(backend)
    weight = backend.from_host(np.random.default_rng(1).normal(size=(HIDDEN, HIDDEN)).astype(np.float32))
    records: list[Record] = [
        lower.into,
        lower.forward(),
        Product(lower.z, weight, upper.z),
        upper.forward(),
        upper.above,
        upper.back,
        upper.backward(),
        Product(upper.onto, weight.T, lower.onto),
        lower.backward(),
    ]
    assert_done(backend, records, [MASKED, MASKED, PLAIN, GRADIENT, GRADIENT])


@pytest.mark.parametrize(
    ("refused", "expected"), [((True,), FORWARD_ALONE), ((True, False), APART), ((False,), FUSED)]
)
def test_a_trial_that_failed_leaves_what_it_tried_to_the_kernels(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, refused: tuple[bool, ...], expected: list[str]
) -> None:
    def difference(products: CublasLt, dtype: np.dtype, out_dtype: np.dtype, masked: bool) -> str:
        return "another NaN" if masked in refused else ""

    monkeypatch.setattr(CublasLt, "relu_difference", difference)
    assert_done(backend, Layer(backend).records(), expected)


def test_a_gradient_without_an_algorithm_is_left_to_the_kernel_without_a_mask(
    backend: CupyBackend,
) -> None:
    assert_done(backend, Layer(backend, inner=1).records(), FORWARD_ALONE)


def test_backward_the_product_writes_columns_of_padding(backend: CupyBackend) -> None:
    """Whatever another layer has left there would be multiplied by the layer below."""
    layer = Layer(backend)
    for weights in (layer.W, layer.V.T):
        backend.write(weights[:, 7:], 0)
    backend.write(layer.onto, np.inf)
    records = layer.records(
        layer.forward(z=layer.z[:, :7], bias=layer.bias[:7]),
        layer.backward(delta=layer.onto[:, :7], a=layer.z[:, :7], bias_gradient=layer.bias_gradient[:7]),
    )
    assert_done(backend, records, FORWARD_ALONE)
    assert not backend.to_host(layer.onto)[:, 7].any()


def test_a_ragged_batch_uses_the_first_rows_of_the_same_arrays(backend: CupyBackend) -> None:
    layer, rows = Layer(backend), 1
    records: list[Record] = [
        Product(layer.x[:rows], layer.W, layer.z[:rows]),
        layer.forward(z=layer.z[:rows]),
        Product(layer.z[:rows], layer.V, layer.outputs[:rows]),
        Product(layer.delta[:rows], layer.V.T, layer.onto[:rows]),
        layer.backward(delta=layer.onto[:rows], a=layer.z[:rows]),
    ]
    assert_done(backend, records, FUSED)


HALF_COLUMNS, PADDED = 5, 8


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(
    ("bias_columns", "in_16_bits", "expected"),
    [
        (PADDED, True, FORWARD_ALONE),
        (HALF_COLUMNS, True, FORWARD_ALONE),
        (HALF_COLUMNS, False, APART),
    ],
)
def test_in_16_bits_the_forward_pass_alone_has_the_relu_in_its_products(
    backend: CupyBackend, precision: str, bias_columns: int, in_16_bits: bool, expected: list[str]
) -> None:
    """The bias's gradient is float32, which no epilogue sums in; columns of padding stay zero."""
    if precision not in backend.precisions:
        pytest.skip(f"the card or its libraries have no {precision}")
    half = half_of(precision)
    assert half is not None
    one = backend.with_precision(precision)
    layer = Layer(one, half.dtype)
    weights = one.to_host(layer.W)
    weights[:, HALF_COLUMNS:] = 0
    one.write(layer.W, weights)
    bias = np.zeros(PADDED, half.dtype if in_16_bits else np.float32)
    bias[:HALF_COLUMNS] = np.linspace(-1, 1, HALF_COLUMNS)
    records = layer.records(
        layer.forward(z=layer.z[:, :HALF_COLUMNS], bias=one.from_host(bias)[:bias_columns]),
        layer.backward(
            delta=layer.onto[:, :HALF_COLUMNS],
            a=layer.z[:, :HALF_COLUMNS],
            bias_gradient=one.zeros(HALF_COLUMNS, np.float32),
        ),
    )
    # Apart, the product is rounded once more.
    assert_done(one, records, expected, tolerance=8 * {"fp16": 2.0**-11, "bf16": 2.0**-8}[precision])
    assert not one.to_host(layer.z)[:, HALF_COLUMNS:].astype(np.float32).any()


def test_float32_outputs_of_factors_in_16_bits_have_no_relu(backend: CupyBackend) -> None:
    if "fp16" not in backend.precisions:
        pytest.skip("the card has no fp16")
    layer = Layer(backend, np.float16)
    wide = backend.zeros((ROWS, HIDDEN), np.float32)
    bias = backend.from_host(np.ones(HIDDEN, np.float32))
    records: list[Record] = [Product(layer.x, layer.W, wide), layer.forward(z=wide, bias=bias)]
    assert_done(backend.with_precision("fp16"), records, [PLAIN])
