"""Every kernel on small arrays: its arguments by name, and the results to compare with.

Order: the case, its arguments by kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.operations import Kernel
from nnkit.kernels.catalogue import CATALOGUE
from nnkit.kernels.layout import (
    BATCH,
    BATCH_SHARE,
    CLEAN_STEPS,
    COUNTERS,
    EPOCH,
    LOSS_SCALE,
    LOSS_SUM,
    LOSS_WEIGHT,
    PENALTY_SUM,
    SCALARS,
    SKIPPED_STEPS,
    SQUARED_NORM,
    STEP,
    WEIGHT_SUM,
)
from nnkit.testing.flags import covering_sample, flag_sets, formulas_for
from nnkit.testing.reference import in_python

__all__ = ["KernelCase", "kernel_cases"]

Arguments = dict[str, Any]

# `embed_gradient` reads results of the kernels before it, which differ between devices.
_BEFORE: Mapping[str, tuple[str, ...]] = {"embed_gradient": ("unique_rows", "embed")}


@dataclass(frozen=True)
class KernelCase:
    """A kernel, or several that depend on each other, with its flags.

    Parameters
    ----------
    name : str
        The kernel, or the last of them.
    dtype : str
        The type of the arithmetic, and of all arrays of real numbers except small ones.
    flags : mapping of str to bool or int
        Of the kernel.
    turn : int
        Chooses the formulas and the sizes.
    """

    name: str
    dtype: str
    flags: Mapping[str, bool | int]
    turn: int

    def __str__(self) -> str:
        """Return the name, the dtype and the flags that are on, as a test's id."""
        on = [flag if value is True else f"{flag}{value}" for flag, value in self.flags.items() if value]
        return "-".join([self.name, self.dtype, *on])

    def arguments(self) -> Arguments:
        """Return new NumPy arrays and numbers; the outputs hold wrong values."""
        random = np.random.default_rng(self.turn)
        return _ARGUMENTS[self.name](random, self.dtype, dict(self.flags), self.turn)

    def kernels(self, arguments: Mapping[str, Any]) -> list[Kernel]:
        """Return the operations over arguments such as `arguments` returns, on any device."""
        formulas, hyperparameters = formulas_for(self.name, self.flags, self.turn)
        constants = {"GRADIENT": True, **self.flags, **hyperparameters}
        names = (*_BEFORE.get(self.name, ()), self.name)
        return [Kernel(name, self.dtype, formulas, constants, arguments) for name in names]

    def expected(self) -> Arguments:
        """Return plain Python's results in float64."""
        arguments = {
            key: value.astype(np.float64) if _is_real(value) else value
            for key, value in self.arguments().items()
        }
        for kernel in self.kernels(arguments):
            in_python(kernel)()
        return self.results(arguments)

    def results(self, arguments: Mapping[str, Any]) -> dict[str, NDArray]:
        """Return the arrays that are the same on every device, from NumPy arrays after a run."""
        taken = [one for one in CATALOGUE[self.name].arguments if one.taken(self.flags)]
        private = {one.name for one in taken if one.device or one.use in ("scratch", "shape", "number")}
        results = {one.name: arguments[one.name] for one in taken if one.name not in private}
        if self.name not in ("unique_rows", "embed", "embed_gradient"):
            return results
        # Each device numbers the rows and the maxima in its own order.
        results.pop("peaks", None)
        seen = int(arguments["seen"][0])
        if self.name != "embed":
            order = np.argsort(arguments["rows_seen"][:seen])
            for key in results.keys() & {"rows_seen", "gradient"}:
                results[key] = results[key][:seen][order]
        return results


def kernel_cases(where: Literal["everywhere", "shared memory", "host"] = "everywhere") -> list[KernelCase]:
    """Return cases that cover all sensible values of any two flags, and of a flag and the dtype.

    Parameters
    ----------
    where : {"everywhere", "shared memory", "host"}
        The cases that every device must support; that a device must support which shares the host's memory;
        or that only nnkit's own host supports.
    """
    cases = []
    for name, declaration in CATALOGUE.items():
        if bool(declaration.device) != (where == "host"):
            continue
        sets = [
            {**one, "WIDE": wide}
            for one in flag_sets(name)
            if any(one[flag] for flag in declaration.host_flags) == (where == "shared memory")
            for wide in (False, True)
        ]
        for turn, flags in enumerate(covering_sample(sets)):
            wide = flags.pop("WIDE")
            cases.append(KernelCase(name, "float64" if wide else "float32", flags, turn))
    return cases


def _is_real(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


# ---------------------------------------------------------------------------------------------------------
# Arguments.
# ---------------------------------------------------------------------------------------------------------

_SAMPLES, _ROWS = 15, 6  # the third batch has three rows
_SEGMENTS = ((0, 20, 1), (32, 45, 0), (64, 95, 1))
_COPIES = ((0, 5, 8), (32, 13, 16), (48, 31, 32))  # start, width and pitch of the segments' copies
_SIZE = 96


def _small_arrays(batch: int) -> Arguments:
    counters, scalars, scaling = np.zeros(COUNTERS, np.int64), np.zeros(SCALARS), np.zeros(3)
    counters[[EPOCH, BATCH, STEP]] = 4, batch, 7
    scalars[[WEIGHT_SUM, LOSS_SUM, LOSS_WEIGHT, PENALTY_SUM, SQUARED_NORM, BATCH_SHARE]] = (
        *(3.5, 1.25, 2.0, 0.5, 0.25, 0.75),
    )
    scaling[[LOSS_SCALE, CLEAN_STEPS, SKIPPED_STEPS]] = 8.0, 3.0, 1.0
    return {
        **{"counters": counters, "scalars": scalars, "scaling": scaling, "rates": np.full(3, 0.05)},
        **{"decay_factors": np.array([1.0, 0.5, 0.25]), "dropout_factors": np.array([1.0, 0.6, 0.2])},
        **{"key0": 0x9E3779B1, "key1": 12, "batch_size": _ROWS},
        **{"l1": 0.01, "l2": 0.1, "clip_norm": np.float64(0.3), "weight_decay": 0.3},
    }


def _poison(shape: int | tuple[int, ...], dtype: Any) -> NDArray:
    return np.full(shape, 77, dtype)


def _columns(turn: int) -> int:
    return (12, 10)[turn % 2]  # a multiple of four, which a GPU reads as such, and none


def _gather(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    height, width = 2, 3 if turn % 2 else 4
    columns = 0 if flags["SPARSE"] else 2 * height * width
    cardinalities = (3, 2)
    others = sum(cardinalities) if flags["CODES"] else 11 if flags["SPARSE"] else 0
    stored = 2 * _ROWS if flags["RING"] else _SAMPLES
    lengths = random.integers(0, 5, _SAMPLES)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    sparse_columns = [np.sort(random.choice(11, length, replace=False)) for length in lengths]
    pixels = random.integers(0, 256, (stored + (9 if flags["INDEXED"] else 0), columns), np.uint8)
    kind = (np.uint8, np.float32, np.dtype(dtype))[turn % 3]
    rows = _ROWS - 4 if flags["SHARD"] else _ROWS
    targets = random.random((stored, 3)).astype(dtype)
    if flags["INDICES"]:
        targets = random.integers(0, 3, stored).astype(np.int32)
    return {
        **_small_arrays(1 if flags["RING"] or flags["SHARD"] else 2),
        "source": pixels.astype(kind),
        "index": random.permutation(len(pixels))[:stored],
        "codes": np.stack([random.integers(-1, n, stored) for n in cardinalities], axis=1).astype(np.int32),
        "offsets": np.cumsum((0, *cardinalities[:-1])),
        "sparse_values": random.normal(size=starts[-1]).astype(dtype),
        "sparse_columns": np.concatenate(sparse_columns),
        "sparse_starts": starts,
        "shift": random.normal(size=columns).astype(dtype),
        "scale": random.random(columns).astype(dtype),
        "targets": targets,
        "weights": random.random(stored).astype(dtype),
        "order": random.permutation(_SAMPLES),
        "row_offset": 4,
        **{"height": height, "width": width, "most_down": 1, "most_right": 1, "erase_threshold": 2**31},
        "inputs": _poison((rows, columns + others), dtype),
        "labels": _poison((rows, *targets.shape[1:]), targets.dtype),
        "batch_weights": _poison(rows, dtype),
        "count": _poison(1, np.int64),
    }


def _layer(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    columns = _columns(turn)
    draws = -(-columns // 4) * 4
    z, a, delta = random.normal(size=(3, _ROWS, columns)).astype(dtype)
    return {
        **_small_arrays(1),
        "z": z,
        # Between 0 and 1, where every derivative of an activation is defined.
        "a": abs(np.tanh(a)) if "FROM_Z" in flags else _poison(z.shape, dtype),
        "delta": delta,
        "bias": random.normal(size=columns).astype(dtype),
        "bias_gradient": _poison(columns, dtype),
        "mask": random.integers(0, 2, (_ROWS, draws), np.uint8),
        **{"layer": 2, "threshold": 2**30, "kept_scale": 1.5, "keep": 0.75, "row_offset": 4},
        "dropout": np.float64(0.5),
    }


def _norm(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    columns = _columns(turn)
    x, delta = random.normal(size=(2, _ROWS, columns)).astype(dtype)
    weight, bias = random.normal(size=(2, columns)).astype(dtype)
    mean, inverse = x.mean(axis=1), 1 / x.std(axis=1)
    if "GRADIENT" in flags:  # of the forward kernel, which fills them
        mean, inverse = _poison(_ROWS, dtype), _poison(_ROWS, dtype)
    return {
        **{"x": x, "delta": delta, "weight": weight, "bias": bias, "epsilon": 1e-5},
        **{"mean": mean, "inverse": inverse, "out": _poison(x.shape, dtype)},
        **{"weight_gradient": _poison(columns, dtype), "bias_gradient": _poison(columns, dtype)},
        **{"target": x, "source": delta},
    }


def _numbers(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    edges, columns, units = ((-1.0, 0.25, 0.5), (-2.0, 3.0), (0.0, 0.5, 1.0, 4.0)), (0, 2, 3), _columns(turn)
    counts = [len(one) - 1 for one in edges]
    starts = np.cumsum([0, *counts]).astype(np.int32)
    bins, knots = sum(counts), sum(map(len, edges))
    x = random.normal(size=(_ROWS, 5)).astype(dtype)
    of_bins = np.concatenate([random.integers(0, count, (_ROWS, 1)) for count in counts], axis=1)
    return {
        **{"x": x, "onto": x.copy(), "delta": random.normal(size=(_ROWS, units)).astype(dtype)},
        "columns": np.repeat(columns, counts).astype(np.int32),
        "starts": starts,
        "lows": np.concatenate([one[:-1] for one in edges]).astype(dtype),
        "inverses": np.concatenate([1 / np.diff(one) for one in edges]).astype(dtype),
        "owners": np.repeat(np.arange(3), [len(one) for one in edges]).astype(np.int32),
        "places": (of_bins + starts[:-1] + np.arange(3)).astype(np.int32),
        "fractions": random.random((_ROWS, 3)).astype(dtype),
        **{
            "weight": random.normal(size=(bins, units)).astype(dtype),
            "gradient": _poison((bins, units), dtype),
        },
        "knots": random.normal(size=(knots, units)).astype(dtype),
        "slopes": _poison((knots, units), dtype),
        "z": random.normal(size=(_ROWS, units)).astype(dtype),
        "out": _poison((_ROWS, 5 + bins), dtype),
    }


def _shares(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    given = _numbers(random, dtype, flags, turn)
    return {**given, "delta": random.normal(size=(_ROWS, len(given["columns"]))).astype(dtype)}


def _waves(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    columns, count, width, inputs = 3, 5, 2, 4 + turn % 2
    out = columns * width + inputs
    frequency, phase = random.normal(size=(2, columns * count)).astype(dtype)
    weight, bias = (random.normal(size=n * columns * width).astype(dtype) for n in (count, 1))
    gradients = {"frequency": frequency, "phase": phase, "weight": weight}
    return {
        **{"frequency": frequency, "phase": 3 * phase, "weight": weight, "bias": bias},
        **{"x": random.normal(size=(_ROWS, inputs)).astype(dtype), "out": _poison((_ROWS, out), dtype)},
        **{"delta": random.normal(size=(_ROWS, out)).astype(dtype), "waves": _poison(2 * count, dtype)},
        **{f"{name}_gradient": _poison(array.shape, dtype) for name, array in gradients.items()},
        **{"onto": _poison((_ROWS, inputs - 1), dtype), "first": 1, "columns": columns},
    }


def _product(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    a, b = random.normal(size=(_ROWS, 7)), random.normal(size=(7, _columns(turn)))
    return {"a": a.astype(dtype), "b": b.astype(dtype), "out": _poison((_ROWS, _columns(turn)), dtype)}


def _loss(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    columns = _columns(turn)
    predictions = 3 * _ROWS if flags["MEMBERS"] else _ROWS
    outputs = random.normal(size=(predictions, columns)).astype(dtype)
    labels = random.random((_ROWS, columns)).astype(dtype)
    if flags.get("INDICES"):
        labels = random.integers(0, columns, _ROWS).astype(np.int32)
    return {
        **_small_arrays(1),
        "outputs": outputs,
        "labels": labels,
        "bias": random.normal(size=columns).astype(dtype),
        "batch_weights": random.random(_ROWS).astype(dtype),
        "count": np.array([_ROWS - 1]),
        "gradient": _poison(outputs.shape, dtype),
        "bias_gradient": _poison(columns, dtype),
        "row": _poison(columns, dtype),
        "members": 3,
    }


def _members(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    columns = _columns(turn)
    z = random.normal(size=(_ROWS, 3 * columns)).astype(dtype)
    outputs, delta = random.normal(size=(2, _ROWS, columns)).astype(dtype)
    x, by_out = random.normal(size=(2, 3 * _ROWS, columns)).astype(dtype)
    scale, bias = random.normal(size=(2, 3, columns)).astype(dtype)
    joined = {"z": z, "outputs": outputs, "delta": delta, "z_gradient": _poison(z.shape, dtype)}
    scaled = {
        **{"x": x[:_ROWS] if flags.get("SHARED") else x, "scale": scale, "bias": bias, "delta": by_out},
        **{"scale_gradient": _poison(scale.shape, dtype), "bias_gradient": _poison(scale.shape, dtype)},
    }
    if "LINK" in flags:
        return joined
    return {**scaled, "out": _poison(x.shape if "SHARED" in flags else (_ROWS, columns), dtype)}


def _arena(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    values, gradients, last, state0, state1 = random.normal(size=(5, _SIZE)).astype(dtype)
    return {
        **_small_arrays(1),
        **{"values": values, "gradients": gradients, "last": last},
        **{"state0": abs(state0), "state1": abs(state1)},
        "segments": np.array(_SEGMENTS),
        "rate_factors": np.array([0.5, 1.0, 3.0]),
        "copy": _poison(_SIZE, dtype),
        "copies": np.array(_COPIES),
    }


def _shards(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    return {
        **_small_arrays(1),
        "gradients": random.normal(size=(3, _SIZE)).astype(dtype),
        "segments": np.array(_SEGMENTS),
        "parts": random.random((3, SCALARS)),
        "shard_scalars": random.random((3, SCALARS)),
        "own": _poison(SCALARS, np.float64),
        "rows": 11,
    }


def _embedding(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    vectors, width, column = 23, _columns(turn), 4
    lengths = random.integers(0, 6, _SAMPLES)
    lengths[[0, 6]] = 0, 600  # more tokens than are summed at once
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = int(np.sort(lengths)[-_ROWS:].sum())
    seen = min(tokens, vectors)
    table, state0, state1 = random.normal(size=(3, vectors, width)).astype(dtype)
    shape = (_ROWS, column + width + 4)
    gradient, rows_seen, count = _poison((seen, width), dtype), _poison(seen, np.int32), 77
    if "GRADIENT" not in flags and "SHUFFLED" not in flags:
        # The kernels over the rows that a batch saw, which others have listed.
        gradient = random.normal(size=(seen, width)).astype(dtype)
        rows_seen, count = random.permutation(vectors)[:seen].astype(np.int32), seen - 3
    return {
        **_small_arrays(2 if turn % 2 else 1),
        **{"table": table, "state0": abs(state0), "state1": abs(state1)},
        "last_seen": random.integers(0, 7, vectors),
        "rate_factor": 3.0,
        "ids": random.integers(0, vectors, starts[-1]).astype(np.int32),
        "starts": starts,
        "id_weights": random.uniform(0.3, 2, starts[-1]).astype(dtype),
        "order": random.permutation(_SAMPLES),
        "column": column,
        "inputs": _poison(shape, dtype),
        "delta": random.normal(size=shape).astype(dtype),
        "totals": _poison(_ROWS, dtype),
        "peaks": _poison((_ROWS, width), np.int32),
        "partial": np.zeros(width, dtype),
        "slots": random.integers(0, seen, vectors).astype(np.int32),
        **{key: _poison(tokens, np.int32) for key in ("places", "owners", "offsets", "runs")},
        "run_starts": _poison(seen + 1, np.int32),
        "gradient": gradient,
        "rows_seen": rows_seen,
        "seen": np.full(1, count),
    }


def _orders(random: np.random.Generator, dtype: str, flags: dict, turn: int) -> Arguments:
    return {
        **_small_arrays(1),
        **{"order": np.arange(_SAMPLES), "window": 4, "epoch": 3},
        "source": random.integers(0, 256, (9, 7), np.uint8),
        "rows": random.integers(0, 9, 4),
        "target": _poison((4, 7), np.uint8),
    }


_ARGUMENTS: Mapping[str, Callable[[np.random.Generator, str, dict, int], Arguments]] = {
    "gather": _gather,
    **dict.fromkeys(("forward", "backward"), _layer),
    **dict.fromkeys(("layer_norm", "layer_norm_gradient", "add"), _norm),
    **dict.fromkeys(("find_bins", "sum_knots", "interpolate", "interpolate_gradient", "expand"), _numbers),
    "expand_gradient": _shares,
    **dict.fromkeys(("scale_columns", "scale_columns_gradient"), _norm),
    **dict.fromkeys(("periodic", "periodic_gradient", "periodic_inputs"), _waves),
    "multiply": _product,
    **dict.fromkeys(("join_members", "join_gradient"), _members),
    **dict.fromkeys(("scale_members", "scale_members_gradient", "sum_members"), _members),
    **dict.fromkeys(("elementwise_loss", "softmax_loss"), _loss),
    **dict.fromkeys(("penalise", "squared_norm", "update", "copy_parameters", "clear"), _arena),
    **dict.fromkeys(("combine", "reduce_norms"), _shards),
    **dict.fromkeys(("unique_rows", "embed", "embed_gradient"), _embedding),
    **dict.fromkeys(("penalise_rows", "squared_norm_rows", "update_rows", "mark_rows"), _embedding),
    **dict.fromkeys(("shuffle", "shuffle_within", "copy_rows"), _orders),
}
