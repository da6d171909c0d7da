"""A test that decides whether to measure the rest: libraries, captured steps, and correct numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import select
from nnkit.backends.cublaslt_plan import mask_shape
from nnkit.backends.cuda_lowering import Products
from nnkit.backends.operations import Kernel, Product
from nnkit.backends.protocol import Backend
from nnkit.benchmarks.clocks import on_stream
from nnkit.benchmarks.figures import Aim, Failure, Figure, Part
from nnkit.benchmarks.gpu.agreement import DROPOUT, KINDS, differing, relative, train, uncaptured
from nnkit.benchmarks.gpu.settings import Settings
from nnkit.benchmarks.gpu.warm import compile_kernels, train_on_cpu
from nnkit.benchmarks.problem import Problem, generate_problem, training_step
from nnkit.benchmarks.timing import Spread
from nnkit.kernels.formulas import relu, relu_derivative
from nnkit.training.precision import half_of

__all__ = ["CAPTURE", "PRODUCTS", "parts"]

PRODUCTS = "cuBLASLt multiplies"
CAPTURE = "a step is captured"

# Rows, terms of each sum, columns: an ordinary layer, the edges, and odd numbers.
_SHAPES = ((128, 784, 512), (64, 1, 32), (64, 48, 1), (128, 512, 10), (129, 77, 131))
_CORNERS = (0.0, -0.0, math.nan, math.inf, -math.inf, 1.5, -1.5, 1e-30, -1e-30)
_STEPS = 20


def parts(settings: Settings) -> list[Part]:
    """Return the parts; on a GPU, `PRODUCTS` and `CAPTURE`, which every other section needs, come first."""
    backend = settings.backend()
    precisions = [name for name in ("fp32", "fp64", "fp16", "bf16") if name in backend.precisions]
    on_gpu = settings.device.startswith("cuda")
    on_cpu = [partial(train_on_cpu, KINDS[0])] if on_gpu else []
    prepare = partial(_prepare, settings, precisions)
    kernels = Part("kernels", partial(compile_kernels, "the smoke test's kernels", prepare, on_cpu))
    on_card = [
        Part(PRODUCTS, partial(_library, backend)),
        kernels,
        Part(CAPTURE, partial(_captured, settings)),
    ]
    return [
        *(on_card if on_gpu else [kernels]),
        *(Part(f"products, {name}", partial(products, backend, name)) for name in precisions),
        Part("corners of ReLU", partial(corners, backend)),
        Part(f"{_STEPS} steps", partial(_steps, settings)),
        *(Part(f"{_STEPS} steps, {name}", partial(_half, settings, name)) for name in precisions[2:]),
    ]


def _library(backend: Backend) -> Iterator[Failure]:
    described = backend.describe()
    library, captured = described["products"], described["captured steps"]
    if not library.startswith("cuBLASLt"):
        yield Failure(PRODUCTS, f"products are by {library}; captured steps: {captured}")


def _captured(settings: Settings) -> Iterator[Figure | Failure]:
    backend, problem = settings.backend(), _problem()
    captured = train(problem, backend)
    if (answer := backend.describe()["captured steps"]) != "yes":
        yield Failure(CAPTURE, f"captured steps: {answer}")
    apart = train(problem, uncaptured(backend))
    yield from differing(f"{_STEPS} steps captured against uncaptured, values that differ", captured, apart)


def _prepare(settings: Settings, precisions: Sequence[str]) -> None:
    for name in precisions:
        training_step(_problem(), settings.backend(name), DROPOUT, half=half_of(name))
    _by_kernels(settings.backend(), np.zeros((8, len(_CORNERS)), np.float32))


def _problem() -> Problem:
    return generate_problem((784, 96, 64, 10), 64, _STEPS)


@dataclass
class _Errors:
    """By epilogue, the greatest error over what rounding allows, and the shapes without an algorithm."""

    greatest: dict[str, float] = field(default_factory=dict)
    absent: dict[str, list[str]] = field(default_factory=dict)

    def compare(self, epilogue: str, result: NDArray, exact: NDArray, allowed: NDArray) -> None:
        """Compare an array with its float64 values; a NaN is an infinite error."""
        ratio = np.abs(result.astype(np.float64) - exact) / allowed
        worst = float(np.max(np.where(np.isnan(ratio), np.inf, ratio)))
        self.greatest[epilogue] = max(worst, self.greatest.get(epilogue, 0.0))


def products(backend: Backend, precision: str) -> Iterator[Figure | Failure]:
    """Compare products, with and without bias, ReLU, its mask and its gradient, with NumPy's in float64."""
    half = half_of(precision)
    plain = np.dtype(np.float64 if precision == "fp64" else np.float32)
    dtype, errors = plain if half is None else half.dtype, _Errors()
    for shape in _SHAPES:
        _compare(backend.with_precision(precision), shape, dtype, errors)
    for epilogue, value in errors.greatest.items():
        name = f"{epilogue}, {precision}: error over what rounding allows"
        yield Figure(name, "", Spread(value, value, value, 1), Aim("<=", 1.0))
    missing = sum(map(len, errors.absent.values()))
    name = f"products that the library does not have, {precision}"
    yield Figure(name, "", Spread(missing, missing, missing, 1), details=errors.absent)


def _compare(backend: Backend, shape: tuple[int, int, int], dtype: np.dtype, errors: _Errors) -> None:
    (m, k, n), generator = shape, np.random.default_rng(0)
    a, b, bias = (generator.standard_normal(size).astype(dtype) for size in ((m, k), (k, n), n))
    placed_a, placed_b, placed_bias = map(backend.from_host, (a, b, bias))
    out = backend.empty((m, n), dtype)
    exact, sizes = _exact(a, b)
    allowed = _rounding(dtype, k) * (sizes + np.abs(bias.astype(np.float64)))
    backend.compile([Product(placed_a, placed_b, out)]).run()
    errors.compare("product", backend.to_host(out), exact, allowed)
    exact = np.maximum(exact + bias.astype(np.float64), 0)
    for name, mask in (
        ("product, bias and ReLU", None),
        ("product, bias, ReLU and mask", backend.zeros(mask_shape(m, n), np.uint8)),
    ):
        library = _library_of(backend)
        call = None if library is None else library.matmul_relu(placed_a, placed_b, placed_bias, out, mask)
        if call is None:
            errors.absent.setdefault(name, []).append(str(shape))
            continue
        on_stream(backend, call)
        through = backend.to_host(out)
        errors.compare(name, through, exact, allowed)
        if mask is not None:
            assert library is not None
            _compare_gradient(backend, library, through > 0, k, mask, dtype, errors)


def _library_of(backend: Backend) -> Products | None:
    """Return a GPU's products, which may include a bias and a ReLU; None on a CPU, which has none such."""
    library: Products | None = getattr(backend, "products", None)
    return library


def _compare_gradient(
    backend: Backend,
    library: Products,
    passed: NDArray[np.bool_],
    k: int,
    mask: Any,
    dtype: np.dtype,
    errors: _Errors,
) -> None:
    (m, n), name = passed.shape, "product and gradient of ReLU"
    generator = np.random.default_rng(1)
    a, b = (generator.standard_normal(size).astype(dtype) for size in ((m, k), (n, k)))
    onto, sums = backend.empty((m, n), dtype), backend.empty(n, dtype)
    call = library.matmul_relu_gradient(backend.from_host(a), backend.from_host(b).T, mask, onto, sums)
    if call is None:
        errors.absent.setdefault(name, []).append(str((m, k, n)))
        return
    on_stream(backend, call)
    exact, sizes = _exact(a, b.T)
    allowed = _rounding(dtype, k) * sizes
    errors.compare(name, backend.to_host(onto), exact * passed, allowed)
    summed = _rounding(dtype, k + m) * sizes.sum(axis=0)
    errors.compare(f"{name}, its sums", backend.to_host(sums), (exact * passed).sum(axis=0), summed)


def _exact(a: NDArray, b: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a product in float64, and the same of the magnitudes, to which rounding errors are relative."""
    first, second = a.astype(np.float64), b.astype(np.float64)
    return first @ second, np.abs(first) @ np.abs(second)


def _rounding(dtype: np.dtype, terms: int) -> float:
    """How far a sum of so many terms and its rounding to a type may be off; 16 bits are summed in float32."""
    unit = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype.name]
    return 2 * unit + (terms + 2) * min(unit, 2.0**-24)


def corners(backend: Backend) -> Iterator[Figure]:
    """Compare ReLU and its gradient at 0, NaN and infinity with the formulas, by kernels and by products."""
    z = np.tile(np.array(_CORNERS, np.float32), (8, 1))
    with np.errstate(invalid="ignore"):
        value = np.vectorize(relu, otypes=[np.float32])(z)
        slope = np.vectorize(relu_derivative, otypes=[np.float32])(value)
    for name, (result, gradient) in {"kernels": _by_kernels(backend, z), **_by_products(backend, z)}.items():
        same = {
            "value": (result == value) | (np.isnan(result) & np.isnan(value)),
            "gradient": gradient == slope,
        }
        wrong = {part: [str(x) for x in z[0][~equal.all(axis=0)]] for part, equal in same.items()}
        count = sum(map(len, wrong.values()))
        title = f"ReLU by {name}: corners that are not the formula's"
        yield Figure(title, "", Spread(count, count, count, 1), Aim("<=", 0.0), wrong)


def _by_kernels(backend: Backend, z: NDArray) -> tuple[NDArray, NDArray]:
    # A copy: the CPU's arrays are the host's.
    a, delta = backend.from_host(z.copy()), backend.from_host(np.ones_like(z))
    flags = {"BIAS": False, "DROPOUT": False}
    given = {"z": a, "a": a, "bias": None, "mask": None, "kept_scale": 1.0, "keep": 1.0, "delta": delta}
    given["bias_gradient"] = None
    for kernel, formulas, flag in (
        ("forward", {"activation": relu}, "KEEP_Z"),
        ("backward", {"activation_derivative": relu_derivative}, "FROM_Z"),
    ):
        operation = Kernel(kernel, np.float32, formulas, {**flags, flag: False}, given)
        backend.compile([operation]).run()
    return backend.to_host(a), backend.to_host(delta)


def _by_products(backend: Backend, z: NDArray) -> dict[str, tuple[NDArray, NDArray]]:
    """Return the library's ReLU of a product of zeros with the corners as its bias; {} if it has none."""
    library, (m, n), terms = _library_of(backend), z.shape, 16
    if library is None:
        return {}
    left, right = (backend.zeros(shape, np.float32) for shape in ((m, terms), (terms, n)))
    a, onto, sums = (backend.zeros(shape, np.float32) for shape in ((m, n), (m, n), n))
    mask = backend.zeros(mask_shape(m, n), np.uint8)
    forward = library.matmul_relu(left, right, backend.from_host(z[0]), a, mask)
    # Products of ones and a sixteenth, which are summed to 1 exactly.
    ones = backend.from_host(np.ones((m, terms), np.float32))
    parts_of_one = backend.from_host(np.full((n, terms), 1 / terms, np.float32))
    backward = library.matmul_relu_gradient(ones, parts_of_one.T, mask, onto, sums)
    if forward is None or backward is None:
        return {}
    on_stream(backend, forward)
    on_stream(backend, backward)
    return {"the library": (backend.to_host(a), backend.to_host(onto))}


def _steps(settings: Settings) -> Iterator[Figure]:
    ours, host = (train(_problem(), backend) for backend in (settings.backend(), select("cpu").backend))
    greatest = float(relative(ours, host).max())
    name = f"{_STEPS} steps: greatest relative difference of the losses from the CPU's"
    yield Figure(name, "", Spread(greatest, greatest, greatest, 1), Aim("<=", 1e-4))


def _half(settings: Settings, precision: str) -> Iterator[Figure]:
    """The last of some steps' losses over the first, in 16 bits: below 1, and no NaN."""
    losses = train(_problem(), settings.backend(precision), half=half_of(precision)).losses
    fallen = float(np.mean(losses[-5:]) / np.mean(losses[:5]))
    name = f"{_STEPS} steps in {precision}: the last five losses over the first five"
    yield Figure(name, "", Spread(fallen, fallen, fallen, 1), Aim("<=", 0.99), {"losses": losses.tolist()})
