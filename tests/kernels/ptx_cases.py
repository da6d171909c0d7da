"""Every CUDA kernel with the flags that matter, and its compilation to PTX, which needs no GPU.

Apart from the tests, for `compiled` runs in processes that test_ptx.py starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import ml_dtypes
import numpy as np
from ptxas import ARCHITECTURES, NEWEST, Capability, Usage, assembled, assembled_for, assembler

from nnkit.feed.augmentation import Augmentation
from nnkit.kernels.catalogue import CATALOGUE
from nnkit.kernels.layout import COPY_COLUMNS, COUNTERS, EXP, IDENTITY, SCALARS, SCALING, SIGMOID, SOFTMAX
from nnkit.nn.activations import activation_function, activation_names
from nnkit.nn.losses import loss_from, loss_names
from nnkit.nn.optimizers import optimizer_from, optimizer_names

if TYPE_CHECKING:
    from nnkit.kernels.cuda import Launch

CAPABILITIES = ((7, 0), (8, 0), NEWEST)
DTYPES = ("float32", "float64")
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
# What has 16 bits in mixed precision, kernel by kernel.
IN_16_BITS = {
    "gather": ("inputs",),
    "forward": ("z", "a", "bias"),
    "backward": ("delta", "z", "a"),
    "add": ("target", "source"),
    "layer_norm": ("x", "out"),
    "layer_norm_sums": ("x", "delta"),
    "layer_norm_gradient": ("x", "delta"),
    "find_bins": ("x",),
    "interpolate": ("z",),
    "sum_places": ("delta",),
    "expand": ("x", "out"),
    "expand_gradient": ("delta", "x", "onto"),
    "scale_members": ("x", "out"),
    "scale_members_gradient": ("x", "delta"),
    "sum_members": ("x", "out"),
    "scale_columns": ("x", "out"),
    "scale_columns_gradient": ("x", "delta"),
    "periodic": ("x", "out"),
    "periodic_gradient": ("x", "delta"),
    "periodic_lines": ("x", "delta"),
    "periodic_inputs": ("delta", "onto"),
    "elementwise_loss": ("gradient",),
    "softmax_loss": ("gradient",),
    "embed": ("inputs",),
    "embed_gradient": ("delta",),
    "update": ("copy",),
    "copy_parameters": ("copy",),
}
# What takes numbers one by one, however they lie.
PERIODIC = ("periodic", "periodic_gradient", "periodic_lines", "periodic_inputs")
NARROW = (*PERIODIC, "find_bins", "expand", "expand_gradient")
# What sorts a batch's tokens reads and writes whole numbers.
IDS_ALONE = (
    *("unique_rows", "count_tokens", "start_rows", "list_tokens"),
    *("count_digits", "sort_digit", "count_runs", "find_runs"),
)


@dataclass(frozen=True)
class Case:
    """A kernel and what it is launched with."""

    name: str
    kernel: str
    dtype: str
    formulas: Mapping[str, Callable]
    constants: Mapping[str, bool | int | float]
    arguments: Mapping[str, Any]
    wide: bool
    storage: str = ""  # what is in 16 bits, if anything is

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The compute capabilities that a test compiles it for."""
        older = CAPABILITIES if self.name in representatives() else ()
        every = ARCHITECTURES if self.name in firsts() else ()
        return self.possible({NEWEST, *older, *every})

    def possible(self, capabilities: Collection[Capability]) -> frozenset[Capability]:
        """Return those of the capabilities that it can be compiled for: bfloat16 begins at 8.0."""
        return frozenset(set(capabilities) - dropped() - ({(7, 0)} if self.storage == "bfloat16" else set()))


@dataclass(frozen=True)
class Compiled:
    """A case's PTX by compute capability, and what it takes on those that ptxas assembles it for, if any."""

    ptx: Mapping[Capability, str]
    usage: Mapping[Capability, Usage]


def layer_cases() -> Iterator[Case]:
    """Each activation, over rows of 512 (wide) and 510 in turn; dropout with one derivative of each kind."""
    for (index, name), dropout, dtype in product(enumerate(activation_names()), (False, True), DTYPES):
        if dropout and name not in ("relu", "gelu"):
            continue
        function = activation_function(name)
        columns = 510 if (index + dropout + (dtype == "float64")) % 2 else 512
        z, a, delta = np.empty((3, 8192, columns), dtype)
        arguments = {
            "z": z,
            "a": a if function.needs_z else z,
            "delta": delta,
            "bias": np.empty(columns, dtype),
            "bias_gradient": np.empty(columns, dtype),
            "mask": np.empty((8192, -(-columns // 4) * 4), np.uint8),
            "counters": np.zeros(COUNTERS, np.int64),
            **{"layer": 1, "key0": 1, "key1": 2, "threshold": 3, "kept_scale": 1.25, "keep": 0.8},
            **{"dropout": np.float64(0.2), "dropout_factors": np.ones(9)},
        }
        flags = {"BIAS": True, "DROPOUT": dropout, "KEEP_Z": function.needs_z, "FROM_Z": function.needs_z}
        formulas = {"activation": function.value, "activation_derivative": function.derivative}
        for kernel in ("forward", "backward"):
            label = f"{kernel}-{name}-{'dropout-' if dropout else ''}{dtype}"
            yield Case(label, kernel, dtype, formulas, flags, arguments, columns == 512)
            if dropout:
                varied, label = {**flags, "DROPOUT_VARIES": True}, f"varied-{label}"
                yield Case(label, kernel, dtype, formulas, varied, arguments, columns == 512)


def norm_cases() -> Iterator[Case]:
    """Rows of 512 (wide) and 510, which stay in registers, and longer ones; the sum of two arrays."""
    for columns, dtype in ((512, "float32"), (510, "float32"), (5000, "float32"), (512, "float64")):
        x, out, delta = np.empty((3, 8192, columns), dtype)
        statistics, parameters = np.empty((2, 8192), dtype), np.empty((4, columns), dtype)
        arguments = {
            **{"x": x, "out": out, "delta": delta, "target": out, "source": x},
            **dict(zip(("mean", "inverse"), statistics, strict=True)),
            **dict(zip(("weight", "bias", "weight_gradient", "bias_gradient"), parameters, strict=True)),
            "epsilon": 1e-5,
        }
        flags = {"BIAS": True, "GRADIENT": True}
        for kernel in ("layer_norm", "layer_norm_sums", "layer_norm_gradient", "add"):
            if columns <= 512 or kernel in ("layer_norm", "layer_norm_gradient"):
                label = f"{kernel}-{columns}-{dtype}"
                yield Case(label, kernel, dtype, {}, flags, arguments, columns % 4 == 0)


def number_cases() -> Iterator[Case]:
    """The lookup of piecewise-linear numbers for 256 units (wide) and 250; all their shares."""
    for units, dtype in ((256, "float32"), (250, "float32"), (256, "float64")):
        bins, knots, features = 300, 320, 20
        x, onto = np.empty((2, 128, 24), dtype)
        arguments = {
            **{"x": x, "onto": onto, "out": np.empty((128, 24 + bins), dtype)},
            **{"columns": np.zeros(bins, np.int32), "starts": np.zeros(features + 1, np.int32)},
            **{"lows": np.empty(bins, dtype), "inverses": np.empty(bins, dtype)},
            **{"owners": np.zeros(knots, np.int32), "places": np.zeros((128, features), np.int32)},
            "fractions": np.empty((128, features), dtype),
            **{"weight": np.empty((bins, units), dtype), "gradient": np.empty((bins, units), dtype)},
            **{"knots": np.empty((knots, units), dtype), "slopes": np.empty((knots, units), dtype)},
            **{"z": np.empty((128, units), dtype), "delta": np.empty((128, units), dtype)},
        }
        for kernel in ("sum_knots", "interpolate", "sum_places", "interpolate_gradient"):
            yield Case(f"{kernel}-{units}-{dtype}", kernel, dtype, {}, {}, arguments, units == 256)
        shares = {**arguments, "delta": np.empty((128, bins), dtype)}
        for kernel in ("find_bins", "expand", "expand_gradient") if units == 256 else ():
            yield Case(f"{kernel}-{dtype}", kernel, dtype, {}, {}, shares, False)


def member_cases() -> Iterator[Case]:
    """Members' rows of 512 (wide) and 510; joined outputs of each link."""
    for columns, dtype in ((512, "float32"), (510, "float32"), (512, "float64")):
        x, out, delta = np.empty((3, 8192, columns), dtype)
        scale, bias, *gradients = np.empty((4, 32, columns), dtype)
        arguments = {
            **{"x": x, "out": out, "delta": delta, "scale": scale, "bias": bias},
            **dict(zip(("scale_gradient", "bias_gradient"), gradients, strict=True)),
        }
        for kernel in ("scale_members", "scale_members_gradient"):
            label = f"{kernel}-{columns}-{dtype}"
            yield Case(label, kernel, dtype, {}, {"BIAS": True}, arguments, columns == 512)
        summed = {"x": x, "out": out[:256]}
        yield Case(f"sum_members-{columns}-{dtype}", "sum_members", dtype, {}, {}, summed, columns == 512)
    for dtype, link in product(DTYPES, (IDENTITY, SIGMOID, SOFTMAX, EXP)):
        z, z_gradient = np.empty((2, 8192, 320), dtype)
        outputs, delta = np.empty((2, 8192, 10), dtype)
        arguments = {"z": z, "outputs": outputs, "delta": delta, "z_gradient": z_gradient}
        for kernel in ("join_members", "join_gradient"):
            yield Case(f"{kernel}-{link}-{dtype}", kernel, dtype, {}, {"LINK": link}, arguments, False)


def input_cases() -> Iterator[Case]:
    """The scale of 512 (wide) and 510 inputs, and the periodic embedding of 30 of them."""
    for columns, dtype in ((512, "float32"), (510, "float32"), (512, "float64")):
        x, out, delta = np.empty((3, 8192, columns), dtype)
        weight, gradient = np.empty((2, columns), dtype)
        arguments = {"x": x, "out": out, "delta": delta, "weight": weight, "weight_gradient": gradient}
        for kernel in ("scale_columns", "scale_columns_gradient"):
            yield Case(f"{kernel}-{columns}-{dtype}", kernel, dtype, {}, {}, arguments, columns == 512)
    for dtype in DTYPES:
        frequency, phase, *gradients = np.empty((4, 30 * 16), dtype)
        weight, weight_gradient = np.empty((2, 30 * 3 * 16), dtype)
        arguments = {
            **{"x": np.empty((256, 40), dtype), "onto": np.empty((256, 40), dtype)},
            **{"out": np.empty((256, 130), dtype), "delta": np.empty((256, 130), dtype)},
            **{"frequency": frequency, "phase": phase, "weight": weight, "bias": np.empty(90, dtype)},
            **dict(zip(("frequency_gradient", "phase_gradient"), gradients, strict=True)),
            **{"weight_gradient": weight_gradient, "columns": 30, "first": 0},
        }
        for kernel in PERIODIC:
            yield Case(f"{kernel}-{dtype}", kernel, dtype, {}, {}, arguments, False)


def loss_cases() -> Iterator[Case]:
    """Each loss, for one block and for many; the softmax for rows in registers and for longer ones."""
    shapes = {"one-block": (128, 10), "blocks": (8192, 512), "long-rows": (128, 20_000)}
    for name, dtype, gradient in product(loss_names(), DTYPES, (True, False)):
        loss = loss_from(name)
        for shape, indices in product(shapes, (True, False)):
            if loss.kernel == "elementwise_loss" and (indices or shape == "long-rows"):
                continue
            if dtype == "float64" and (shape != "blocks" or not gradient):
                continue
            if shape == "one-block" and (not gradient or name not in ("mse", "cross_entropy")):
                continue
            if not gradient and name not in ("poisson", "cross_entropy"):
                continue
            rows, columns = shapes[shape]
            outputs, targets, derivatives = np.empty((3, rows, columns), dtype)
            arguments = {
                "outputs": outputs,
                "labels": np.empty(rows, np.int32) if indices else targets,
                "gradient": derivatives,
                "batch_weights": np.empty(rows, dtype),
                "bias": np.empty(columns, dtype),
                "bias_gradient": np.empty(columns, dtype),
                "count": np.zeros(1, np.int64),
                "scalars": np.zeros(SCALARS),
                "batch_size": rows,
            }
            flags = {"BIAS": True, "GRADIENT": gradient, "WEIGHTED": True, "INDICES": indices}
            label = f"{name}-{shape}-{'indices-' if indices else ''}{'' if gradient else 'value-'}{dtype}"
            constants = {**flags, **loss.kernel_constants}
            yield Case(label, loss.kernel, dtype, loss.formulas, constants, arguments, columns % 4 == 0)
            if name not in ("cross_entropy", "binary_cross_entropy") or shape == "one-block" or not gradient:
                continue
            ceiled = loss_from({"name": name, "ceiling": 16.0, "reduction": "sum"})
            constants = {**flags, "AVERAGE_ROWS": True, **ceiled.kernel_constants}
            label = f"ceiled-{label}"
            yield Case(label, ceiled.kernel, dtype, ceiled.formulas, constants, arguments, columns % 4 == 0)


def gather_cases() -> Iterator[Case]:
    """Sources of several types, with and without categories, sparse, in rows of fours and not."""
    for dtype, (source, codes), columns in product(
        DTYPES,
        (("uint8", False), ("uint8", True), ("float32", False), ("int64", True), ("sparse", False)),
        (784, 30),
    ):
        sparse = source == "sparse"
        width = columns + (16 if codes else 0)
        arguments = {
            "source": np.empty((1000, 0 if sparse else columns), "float32" if sparse else source),
            "sparse_values": np.empty(5000, dtype),
            "sparse_columns": np.zeros(5000, np.int64),
            "sparse_starts": np.zeros(1001, np.int64),
            "codes": np.zeros((1000, 3), np.int32) if codes else None,
            "offsets": np.zeros(3, np.int64),
            "shift": np.empty(columns, dtype),
            "scale": np.empty(columns, dtype),
            "targets": np.empty(1000, np.int32),
            "labels": np.empty(128, np.int32),
            "weights": np.empty(1000, dtype),
            "batch_weights": np.empty(128, dtype),
            "order": np.zeros(1000, np.int64),
            "counters": np.zeros(COUNTERS, np.int64),
            "count": np.zeros(1, np.int64),
            "inputs": np.empty((128, width), dtype),
            "batch_size": 128,
        }
        flags = dict.fromkeys(("SHUFFLED", "TARGETS", "INDICES", "WEIGHTED"), True)
        flags |= {"SCALED": not sparse, "SPARSE": sparse}
        label = f"gather-{source}-{columns}-{'codes-' if codes else ''}{dtype}"
        yield Case(label, "gather", dtype, {}, {**flags, "CODES": codes}, arguments, columns == 784)
        if not sparse and columns == 784:
            ring = {**flags, "CODES": codes, "RING": True}
            yield Case(f"ring-{label}", "gather", dtype, {}, ring, arguments, columns == 784)
        if source == "uint8" and not codes:
            pictures = Augmentation(0.1, True, 0.2)
            shape = (1, 28, 28) if columns == 784 else (3, 5, 2)
            constants = {**flags, "CODES": False, **pictures.constants()}
            given = {**arguments, **pictures.arguments(shape, 5)}
            yield Case(f"augmented-{label}", "gather", dtype, {}, constants, given, columns == 784)


def arena_cases() -> Iterator[Case]:
    """Penalty, norm and each optimizer, in many blocks; SGD in one block as well."""
    for dtype, size in product(DTYPES, (1 << 20, 128)):
        values, gradients, state0, state1 = np.empty((4, size), dtype)
        arguments = {
            **{"values": values, "gradients": gradients, "state0": state0, "state1": state1},
            "segments": np.zeros((3, 3), np.int64),
            "rate_factors": np.ones(3),
            "counters": np.zeros(COUNTERS, np.int64),
            "scalars": np.zeros(SCALARS),
            **{"rates": np.zeros(9), "decay_factors": np.ones(9)},
            **{"batch_size": 128, "l1": 0.1, "l2": 0.1, "weight_decay": 0.1, "clip_norm": np.float64(1.0)},
            **{"copy": np.empty(size, dtype), "copies": np.zeros((3, COPY_COLUMNS), np.int64)},
        }
        blocks = "one-block" if size == 128 else "blocks"
        for kernel in ("penalise", "squared_norm", "copy_parameters"):
            yield Case(f"{kernel}-{blocks}-{dtype}", kernel, dtype, {}, {}, arguments, True)
        for name in optimizer_names() if size > 128 else ("sgd",):
            optimizer = optimizer_from(name)
            prepared = type(optimizer).prepare is not None
            flags = {"SLOTS": len(optimizer.state), "CLIP": True, "PREPARED": prepared}
            constants = {**flags, **optimizer.constants}
            label = f"update-{name}-{blocks}-{dtype}"
            yield Case(label, "update", dtype, optimizer.formulas, constants, arguments, True)
            if name == "adamw":
                groups = {**constants, "GROUPED": True, "DECAY_VARIES": True}
                label = f"update-{name}-grouped-{dtype}"
                yield Case(label, "update", dtype, optimizer.formulas, groups, arguments, True)
        if size > 128:
            divided = {"PENALTY_ON_SUM": True, "AVERAGE_ROWS": True}
            yield Case(f"penalise-divided-{dtype}", "penalise", dtype, {}, divided, arguments, True)
        for name, form in (("nesterov", "rate_in_velocity"), ("adam", "epsilon_hat")) if size > 128 else ():
            optimizer = optimizer_from({"name": name, form: True})
            flags = {"SLOTS": len(optimizer.state), "CLIP": True, "PREPARED": name == "adam"}
            constants = {**flags, **optimizer.constants}
            label = f"update-{name}-{form}-{dtype}"
            yield Case(label, "update", dtype, optimizer.formulas, constants, arguments, True)


def embedding_cases() -> Iterator[Case]:
    """Each kernel of an embedding, rows of 64 (wide) and 50, each reduction, and rules of each kind."""
    for dtype, width in (("float32", 64), ("float32", 50), ("float64", 64)):
        table, state0, state1 = np.empty((3, 20_000, width), dtype)
        arguments = {
            **{
                "table": table,
                "state0": state0,
                "state1": state1,
                "gradient": np.empty((6400, width), dtype),
            },
            **{"ids": np.zeros(100_000, np.int32), "starts": np.zeros(1001, np.int64)},
            **{"id_weights": np.empty(100_000, dtype), "order": np.zeros(1000, np.int64)},
            **{"inputs": np.empty((128, width + 4), dtype), "delta": np.empty((128, width + 4), dtype)},
            **{"totals": np.empty(128, dtype), "peaks": np.zeros((128, width), np.int32)},
            **{name: np.zeros(6400, np.int32) for name in ("owners", "offsets", "runs")},
            **{"run_starts": np.zeros(6401, np.int32), "passes": 3, "sort_pass": 0},
            **{"rows_seen": np.zeros(6400, np.int32), "seen": np.zeros(1, np.int64)},
            **{"last_seen": np.zeros(20_000, np.int64), "counters": np.zeros(COUNTERS, np.int64)},
            **{
                "scalars": np.zeros(SCALARS),
                "rates": np.zeros(9),
                "decay_factors": np.ones(9),
                "column": 4,
                "batch_size": 128,
            },
            "rate_factor": 0.1,
            **{"l1": 0.1, "l2": 0.1, "weight_decay": 0.1, "clip_norm": np.float64(1.0)},
        }
        for reduce, kernel in product(("mean", "sum", "max"), ("embed", "embed_gradient")):
            flags = {"MAX": reduce == "max", "MEAN": reduce == "mean", "WEIGHTED": reduce == "sum"}
            flags |= {"GRADIENT": True, "SHUFFLED": True}
            name = f"{kernel}-{reduce}-{width}-{dtype}"
            yield Case(name, kernel, dtype, {}, flags, arguments, width == 64)
        for kernel in (*IDS_ALONE, "mark_rows") if width == 64 else ():
            flags = {"SHUFFLED": True, "MAX": True}
            yield Case(f"{kernel}-{dtype}", kernel, dtype, {}, flags, arguments, False)
        for kernel in ("add_partials", "penalise_rows", "squared_norm_rows"):
            yield Case(f"{kernel}-{width}-{dtype}", kernel, dtype, {}, {}, arguments, width == 64)
        for name in ("sgd", "rmsprop", "adam"):
            rule = optimizer_from(name)
            flags = {"SLOTS": len(rule.state), "CLIP": True, "PREPARED": type(rule).prepare is not None}
            constants = {**flags, "DECAYS_UNSEEN": type(rule).decay_unseen is not None, **rule.constants}
            formulas = rule.formulas_of_rows
            label = f"update_rows-{name}-{width}-{dtype}"
            yield Case(label, "update_rows", dtype, formulas, constants, arguments, width == 64)
            if name == "adam" and width == 64:
                groups = {**constants, "GROUPED": True, "DECAY_VARIES": True}
                label = f"update_rows-{name}-grouped-{width}-{dtype}"
                yield Case(label, "update_rows", dtype, formulas, groups, arguments, True)


def half_cases(others: list[Case]) -> Iterator[Case]:
    """Each kernel that mixed precision changes: with wide accesses and, in float16, without them."""
    chosen: dict[tuple[str, bool], Case] = {}
    for case in others:
        if case.dtype == "float32" and case.constants.get("GRADIENT", True) and "augmented" not in case.name:
            chosen.setdefault((case.kernel, case.wide), case)
    for case, (storage, dtype) in product(chosen.values(), HALVES.items()):
        halves = {key: np.empty(case.arguments[key].shape, dtype) for key in IN_16_BITS.get(case.kernel, ())}
        flags = CATALOGUE[case.kernel].flags if case.kernel in CATALOGUE else ()
        rescaled = storage == "float16" and "RESCALED" in flags
        if not (halves or rescaled) or not (case.wide or storage == "float16" or case.kernel in NARROW):
            continue
        yield replace(
            case,
            name=case.name.replace("float32", storage),
            constants={**case.constants, "RESCALED": rescaled, "COPIED": case.kernel == "update"},
            arguments={**case.arguments, "scaling": np.zeros(SCALING), **halves},
            storage=storage,
        )


@cache
def cases() -> dict[str, Case]:
    """Return all cases by their names."""
    found = [
        *layer_cases(),
        *norm_cases(),
        *number_cases(),
        *member_cases(),
        *input_cases(),
        *loss_cases(),
        *gather_cases(),
        *arena_cases(),
        *embedding_cases(),
    ]
    found += list(half_cases(found))
    assert len({case.name for case in found}) == len(found)
    return {case.name: case for case in found}


@cache
def representatives() -> frozenset[str]:
    """Return the first case of each kernel and dtype: these are compiled for the older capabilities too."""
    first: dict[tuple[str, ...], str] = {}
    for name, case in cases().items():
        first.setdefault((case.kernel, case.dtype, case.storage), name)
    return frozenset(first.values())


@cache
def firsts() -> frozenset[str]:
    """Return the first case of each kernel: these are compiled and assembled for every architecture."""
    first: dict[str, str] = {}
    for name, case in cases().items():
        first.setdefault(case.kernel, name)
    return frozenset(first.values())


def compiled(name: str) -> Compiled:
    """Compile a case, and assemble it if there is a ptxas: for the newest, or for every architecture."""
    ptx = made_of_one(*entry_and_types(name), cases()[name].capabilities)
    return Compiled(ptx, _assembled(ptx if name in firsts() else {NEWEST: ptx[NEWEST]}))


def usage(name: str) -> Mapping[Capability, Usage]:
    """Return what a case takes on each architecture that it can be compiled and assembled for."""
    return _assembled(made_of_one(*entry_and_types(name), cases()[name].possible(assembled_for())))


def _assembled(ptx: Mapping[Capability, str]) -> Mapping[Capability, Usage]:
    if assembler() is None:
        return {}
    return {one: assembled(text, one) for one, text in ptx.items() if one in assembled_for()}


def compiled_for(name: str, capability: Capability) -> str:
    """Return the PTX of a case that is compiled for that capability alone."""
    from numba import cuda

    return cuda.compile_ptx(*entry_and_types(name), cc=capability)[0]


def launched(case: Case) -> Launch:
    """Return a case's kernel, specialised for its arrays."""
    from nnkit.kernels.cuda import launch

    return launch(case.kernel, case.dtype, case.formulas, case.constants, _aligned(case.arguments))


def entry_and_types(name: str) -> tuple[Callable, tuple[Any, ...]]:
    """Return a case's Python function, and Numba's types of what it is launched with."""
    from numba.cuda.typing.typeof import typeof

    case = cases()[name]
    started = launched(case)
    real = np.dtype(case.dtype).type
    scratch = {key: np.zeros([1] * len(shape), kind) for key, (shape, kind) in started.scratch.items()}
    given = started.kernel.bind({**case.arguments, **scratch}, case.constants)
    types = tuple(typeof(real(value) if type(value) is float else value) for value in given)
    return started.kernel.entry.py_func, types


def made_of_one(
    entry: Callable, types: tuple[Any, ...], capabilities: Collection[Capability]
) -> dict[Capability, str]:
    """Return a kernel's PTX for each capability, the newest among them; Python is compiled for that alone.

    It takes nearly all the time, and what NVVM is handed is the same for the others.
    """
    from numba import cuda
    from numba.cuda.cudadrv import nvvm

    with patch.object(nvvm, "compile_ir", wraps=nvvm.compile_ir) as handed:
        found = {NEWEST: cuda.compile_ptx(entry, types, cc=NEWEST)[0]}
    (ir,), options = handed.call_args
    for major, minor in set(capabilities) - {NEWEST}:
        text = nvvm.compile_ir(ir, **{**options, "arch": f"compute_{major}{minor}"})
        found[major, minor] = text.decode().strip("\0").strip()
    return found


@cache
def dropped() -> frozenset[Capability]:
    """Return the capabilities that this NVVM no longer compiles for: CUDA 13 begins at 7.5."""
    from numba import cuda, float32
    from numba.cuda.cudadrv.error import NvvmError

    def nothing(x):
        x[0] = x[1]

    try:
        cuda.compile_ptx(nothing, (float32[::1],), cc=(7, 0))
    except NvvmError as error:
        if "compute_70" not in str(error):
            raise
        return frozenset({(7, 0)})
    return frozenset()


class _Aligned:
    """An array as `launch` sees it, at the address that a GPU's allocator would give it."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.dtype, self.strides, self.ndim = array.shape, array.dtype, array.strides, array.ndim
        self.__cuda_array_interface__ = {"data": (512, False)}


def _aligned(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _Aligned(value) if isinstance(value, np.ndarray) else value for key, value in arguments.items()
    }
