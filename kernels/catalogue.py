"""Every kernel declared once: what it reads and writes, under which flags, and which formulas it inlines.

What a kernel computes stands in its templates, one for each device; what is known of it without reading them
stands here. The bytes that it moves, whether two operations touch one array, and what a CUDA kernel reads in
groups of four all follow from these declarations. A test compares them with the specialised sources.

Order: the declaration, the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import CodeType
from typing import Any, Literal

from nnkit.kernels.layout import COPY_COLUMNS, COUNTERS, SCALARS, SCALING, SEGMENT_COLUMNS

__all__ = ["CATALOGUE", "Argument", "Declaration", "Flags", "Use", "holds"]

Flags = Mapping[str, bool | int | float]
Use = Literal["in", "out", "inout", "figures", "scratch", "shape", "number"]


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel.

    Parameters
    ----------
    name : str
        As the templates call it.
    use : {"in", "out", "inout", "figures", "scratch", "shape", "number"}
        Arrays that are read, written or both; ``figures`` are arrays of a handful of numbers, such as the
        step's counters, which count neither as traffic nor as results; ``scratch`` holds nothing before or
        after; of ``shape`` the shape alone is read, by the kernel or by what lays it over its arrays;
        ``number`` is a scalar.
    when : str
        The condition under which the kernel takes it, an expression over the flags; empty for always.
    fours : bool
        Whether a CUDA kernel reads or writes it in groups of four elements.
    of_rows : bool
        Whether only the rows that a batch saw are touched.
    device : {"", "host", "cuda"}
        The device whose kernel takes it; empty for both.
    shape : tuple of str
        Of an array: a number, a name that stands for one length throughout the kernel, or ``*`` for any
        length; ``...`` for any further dimensions. Empty where nothing is said of it.
    """

    name: str
    use: Use
    when: str = ""
    fours: bool = False
    of_rows: bool = False
    device: Literal["", "host", "cuda"] = ""
    shape: tuple[str, ...] = ()

    def taken(self, flags: Flags, device: str = "") -> bool:
        """Whether the kernel takes the argument under these flags; with a device's name, on that one."""
        return holds(self.when, flags) and device in ("", self.device or device)


def holds(condition: str, flags: Flags) -> bool:
    """Whether an expression over the flags is true, as an empty one is; flags not given are False."""
    return not condition or bool(eval(_condition(condition), {"__builtins__": {}}, _Folded(flags)))


class _Folded(dict):
    def __missing__(self, key: str) -> bool:
        return False


@cache
def _condition(text: str) -> CodeType:
    return compile(text, "<flags>", "eval")


@dataclass(frozen=True)
class Declaration:
    """A kernel.

    Parameters
    ----------
    name : str
        Of its templates.
    flags : tuple of str
        The upper-case constants that are folded into its source.
    formulas : tuple of str
        The placeholders that it inlines formulas for.
    arguments : tuple of Argument
        All that any device's kernel takes, but for what a device allocates for itself.
    device : {"", "host"}
        ``host`` for a kernel that no other device is asked for.
    host_flags : tuple of str
        The flags that are on for arrays in the host's memory alone.
    """

    name: str
    flags: tuple[str, ...]
    formulas: tuple[str, ...]
    arguments: tuple[Argument, ...]
    device: Literal["", "host"] = ""
    host_flags: tuple[str, ...] = ()

    def reads(self, flags: Flags) -> list[Argument]:
        """Return the arrays that hold what the kernel reads on any device, apart from figures."""
        return self._used(("in", "inout"), flags)

    def writes(self, flags: Flags) -> list[Argument]:
        """Return the arrays that hold what the kernel computes on any device, apart from figures."""
        return self._used(("out", "inout"), flags)

    def _used(self, uses: tuple[Use, ...], flags: Flags) -> list[Argument]:
        taken = {one.name: one for one in self.arguments if one.use in uses and one.taken(flags)}
        return list(taken.values())

    def moved(self, flags: Flags, arguments: Mapping[str, Any], rows_seen: int = 0) -> int:
        """Return the bytes of each array read, once, and of each array written, once.

        A gather is taken to read every row of its source, and a lookup every bag: a batch as large as the
        data set. What a sort holds in between is not counted.

        Parameters
        ----------
        flags : mapping of str to bool, int or float
            What the kernel is specialised by.
        arguments : mapping of str to array or number
            What it is given.
        rows_seen : int
            How many rows of its table a kernel of an embedding sees; the others are not touched.
        """
        total = 0
        for argument in (*self.reads(flags), *self.writes(flags)):
            array = arguments.get(argument.name)
            if array is not None:
                total += (
                    rows_seen * int(array.nbytes) // len(array) if argument.of_rows else int(array.nbytes)
                )
        return total


# ---------------------------------------------------------------------------------------------------------
# The catalogue.
# ---------------------------------------------------------------------------------------------------------


def _arrays(use: Use, texts: str, **how: Any) -> tuple[Argument, ...]:
    """Return arguments of one use, each written as a name with its shape, as in ``bias[columns]``."""
    parts = (text.rstrip("]").partition("[") for text in texts.split())
    return tuple(
        Argument(name, use, shape=tuple(shape.split(",") if shape else ()), **how) for name, _, shape in parts
    )


def _declared(
    name: str,
    flags: str,
    formulas: str,
    *arguments: tuple[Argument, ...],
    device: Literal["", "host"] = "",
    host_flags: str = "",
) -> Declaration:
    flat = tuple(argument for group in arguments for argument in group)
    every = tuple(sorted((*flags.split(), *host_flags.split())))
    return Declaration(name, every, tuple(formulas.split()), flat, device, tuple(host_flags.split()))


_COUNTERS, _SCALARS = f"counters[{COUNTERS}]", f"scalars[{SCALARS}]"
_SEGMENTS, _COPIES = f"segments[segments,{SEGMENT_COLUMNS}]", f"copies[segments,{COPY_COLUMNS}]"
_BATCH = (
    *_arrays("figures", _COUNTERS),
    *_arrays("in", "order[*]", when="SHUFFLED"),
    *_arrays("number", "batch_size"),
)
_SCALED = (
    *_arrays("figures", _SCALARS),
    *_arrays("figures", f"scaling[{SCALING}]", when="RESCALED"),
)
_LOSS = (
    *_arrays("in", "outputs[rows,columns] labels[rows,...]", fours=True),
    *_arrays("in", "bias[columns]", when="BIAS", fours=True),
    *_arrays("in", "batch_weights[rows]", when="WEIGHTED"),
    *_arrays("figures", "count[1]"),
    *_arrays("out", "bias_gradient[columns]", when="BIAS and GRADIENT", fours=True),
    *_arrays("scratch", "row[columns]", device="host"),
    *_SCALED,
    *_arrays("number", "batch_size"),
)
_STATES = (
    *_arrays("inout", "state0[size]", when="SLOTS > 0", fours=True),
    *_arrays("inout", "state1[size]", when="SLOTS > 1", fours=True),
)
_RULE = (
    *_arrays("figures", f"{_COUNTERS} rates[*]"),
    *_SCALED,
    *_arrays("number", "batch_size weight_decay"),
    *_arrays("number", "clip_norm", when="CLIP"),
)
_TABLE, _GRADIENT = "table[vectors,width]", "gradient[seen,width]"
_SEEN = _arrays("figures", "seen[1]")
_ROWS_SEEN = (*_arrays("in", "rows_seen[seen]", of_rows=True), *_SEEN)
# Where a run starts is known of each row that the batch saw, which is one run.
_TOKENS, _RUN_STARTS = "owners[tokens] runs[tokens]", "run_starts[*]"

CATALOGUE: Mapping[str, Declaration] = {
    one.name: one
    for one in (
        _declared(
            "gather",
            "AUGMENTED CODES ERASE FLIP INDICES RING SCALED SHUFFLED SPARSE TARGETS WEIGHTED",
            "",
            _arrays("in", "source[*,numbers]", fours=True),
            _arrays("in", "index[*]", when="INDEXED", device="host"),
            _arrays("in", "codes[placed,features]", when="CODES"),
            _arrays("figures", "offsets[features]", when="CODES"),
            _arrays("in", "sparse_values[entries] sparse_columns[entries] sparse_starts[*]", when="SPARSE"),
            _arrays("in", "shift[numbers] scale[numbers]", when="SCALED", fours=True),
            _arrays("in", "targets[placed,...]", when="TARGETS"),
            _arrays("in", "weights[placed]", when="WEIGHTED"),
            _arrays("figures", _COUNTERS),
            # A ring has the rows in their order: only the draws ask which they are.
            _arrays("in", "order[*]", when="SHUFFLED and (AUGMENTED or not RING)"),
            _arrays("shape", "order[*]", when="SHUFFLED and RING and not AUGMENTED"),
            _arrays("number", "batch_size"),
            _arrays("number", "row_offset", when="SHARD", device="host"),
            _arrays("number", "height width most_down most_right key0 key1", when="AUGMENTED"),
            _arrays("number", "erase_threshold", when="AUGMENTED and ERASE"),
            _arrays("out", "inputs[rows,*]", fours=True),
            _arrays("out", "labels[rows,...]", when="TARGETS"),
            _arrays("out", "batch_weights[rows]", when="WEIGHTED"),
            _arrays("figures", "count[1]"),
            host_flags="INDEXED SHARD",
        ),
        _declared(
            "forward",
            "BIAS DROPOUT KEEP_Z",
            "activation",
            _arrays("inout", "z[rows,columns]", fours=True),
            _arrays("in", "bias[columns]", when="BIAS", fours=True),
            _arrays("out", "a[rows,columns]", when="KEEP_Z", fours=True),
            _arrays("out", "mask[rows,*]", when="DROPOUT", fours=True),
            _arrays("figures", _COUNTERS, when="DROPOUT"),
            _arrays("number", "layer key0 key1 threshold kept_scale", when="DROPOUT"),
            _arrays("number", "row_offset", when="DROPOUT and SHARD", device="host"),
            host_flags="SHARD",
        ),
        _declared(
            "backward",
            "BIAS DROPOUT FROM_Z",
            "activation_derivative",
            _arrays("inout", "delta[rows,columns]", fours=True),
            _arrays("in", "z[rows,columns]", when="FROM_Z", fours=True),
            _arrays("in", "a[rows,columns]", when="not FROM_Z", fours=True),
            _arrays("in", "mask[rows,*]", when="DROPOUT", fours=True),
            _arrays("out", "bias_gradient[columns]", when="BIAS", fours=True),
            _arrays("number", "kept_scale", when="DROPOUT"),
            _arrays("number", "keep", when="DROPOUT and not FROM_Z"),
        ),
        _declared(
            "layer_norm",
            "BIAS GRADIENT",
            "",
            _arrays("in", "x[rows,columns] weight[columns]", fours=True),
            _arrays("in", "bias[columns]", when="BIAS", fours=True),
            _arrays("out", "out[rows,columns]", fours=True),
            _arrays("out", "mean[rows] inverse[rows]", when="GRADIENT"),
            _arrays("number", "epsilon"),
        ),
        _declared(
            "layer_norm_gradient",
            "BIAS",
            "",
            _arrays("inout", "delta[rows,columns]", fours=True),
            _arrays("in", "x[rows,columns] weight[columns]", fours=True),
            _arrays("in", "mean[rows] inverse[rows]"),
            _arrays("out", "weight_gradient[columns]", fours=True),
            _arrays("out", "bias_gradient[columns]", when="BIAS", fours=True),
        ),
        _declared(
            "add",
            "",
            "",
            _arrays("inout", "target[rows,columns]", fours=True),
            _arrays("in", "source[rows,columns]", fours=True),
        ),
        _declared(
            "multiply",
            "",
            "",
            _arrays("in", "a[rows,inner] b[inner,columns]"),
            _arrays("out", "out[rows,columns]"),
            device="host",
        ),
        _declared(
            "elementwise_loss",
            "BIAS BY_ROWS GRADIENT RESCALED SUMMED WEIGHTED",
            "value derivative",
            _LOSS,
            _arrays("out", "gradient[rows,columns]", when="GRADIENT", fours=True),
        ),
        _declared(
            "softmax_loss",
            "BIAS BY_ROWS CEILED GRADIENT INDICES RESCALED WEIGHTED",
            "",
            _LOSS,
            _arrays("out", "gradient[rows,columns]", when="GRADIENT", fours=True),
            # The host's kernel works in its rows even where no gradient is wanted.
            _arrays("scratch", "gradient[rows,columns]", when="not GRADIENT", device="host"),
        ),
        _declared(
            "penalise",
            "BY_ROWS DIVIDED RESCALED",
            "",
            _arrays("in", "values[*]", fours=True),
            _arrays("inout", "gradients[*]", fours=True),
            _arrays("figures", _SEGMENTS),
            _SCALED,
            _arrays("number", "batch_size l1 l2"),
        ),
        _declared(
            "squared_norm",
            "RESCALED",
            "",
            _arrays("in", "gradients[*]", fours=True),
            _arrays("figures", _SEGMENTS),
            _SCALED,
        ),
        _declared(
            "update",
            "CLIP COPIED GROUPED PREPARED RESCALED SLOTS",
            "rule prepare",
            _arrays("inout", "values[size]", fours=True),
            _arrays("in", "gradients[dense]", fours=True),
            _arrays("in", "last[dense]", when="FOLDED", device="host"),
            _arrays("out", "copy[*]", when="COPIED", fours=True),
            _arrays("figures", _COPIES, when="COPIED"),
            _arrays("figures", _SEGMENTS),
            _arrays("figures", "rate_factors[segments]", when="GROUPED"),
            _STATES,
            _RULE,
            host_flags="FOLDED",
        ),
        _declared(
            "copy_parameters",
            "",
            "",
            _arrays("in", "values[*]", fours=True),
            _arrays("out", "copy[*]", fours=True),
            _arrays("figures", f"{_SEGMENTS} {_COPIES}"),
        ),
        _declared("clear", "", "", _arrays("figures", _SCALARS), device="host"),
        _declared(
            "combine",
            "BY_ROWS FOLDED LEAD",
            "",
            _arrays("inout", "gradients[shards,*]"),
            _arrays("figures", f"{_SEGMENTS} parts[shards,{SCALARS}] own[{SCALARS}]"),
            _arrays("figures", _SCALARS, when="LEAD"),
            _arrays("number", "rows", when="BY_ROWS"),
            device="host",
        ),
        _declared(
            "settle",
            "LEAD",
            "",
            _arrays("figures", f"figures[*,{SCALARS}] own[{SCALARS}]"),
            _arrays("figures", _SCALARS, when="LEAD"),
            device="host",
        ),
        _declared(
            "number",
            "MAX SHUFFLED WEIGHTED",
            "",
            _BATCH,
            _arrays("in", "ids[*] starts[*]"),
            _arrays("shape", "totals[*]"),  # its length is the batch's rows
            _arrays("shape", _TABLE, device="cuda"),  # its length says how many digits are sorted by
            _arrays("scratch", "slots[vectors] places[tokens]", device="host"),
            _arrays("out", _TOKENS, device="cuda"),
            _arrays("out", _RUN_STARTS, device="cuda", of_rows=True),
            _arrays("out", "offsets[tokens]", when="MAX or WEIGHTED", device="cuda"),
            _arrays("out", "rows_seen[*]", of_rows=True),
            _SEEN,
        ),
        _declared(
            "embed",
            "GRADIENT MAX MEAN SHUFFLED WEIGHTED",
            "",
            _BATCH,
            _arrays("in", "ids[ids] starts[*]"),
            _arrays("in", "id_weights[ids]", when="WEIGHTED"),
            _arrays("in", _TABLE, fours=True, of_rows=True),
            _arrays("out", "inputs[rows,*]", fours=True),
            _arrays("out", "totals[rows]", when="MEAN"),
            _arrays("out", "peaks[rows,width]", when="MAX and GRADIENT"),
            _arrays("scratch", "partial[width]", when="not MAX", device="host"),
            _arrays("number", "column"),
        ),
        _declared(
            "embed_gradient",
            "MAX MEAN SHUFFLED WEIGHTED",
            "",
            _arrays("figures", _COUNTERS),
            _arrays("number", "batch_size column"),
            # On a GPU the tokens are sorted, and say themselves which row each is of.
            _arrays("in", "starts[*]", device="host"),
            _arrays("in", "order[*]", when="SHUFFLED", device="host"),
            _arrays("in", "starts[*]", when="WEIGHTED", device="cuda"),
            _arrays("in", "order[*]", when="SHUFFLED and WEIGHTED", device="cuda"),
            _arrays("in", "id_weights[*]", when="WEIGHTED"),
            _arrays("in", "delta[rows,*]", fours=True),
            _arrays("in", "totals[rows]", when="MEAN"),
            _arrays("shape", "totals[rows]", when="not MEAN", device="host"),
            _arrays("in", "peaks[rows,width]", when="MAX"),
            _arrays("scratch", "places[tokens]", device="host"),
            _arrays("in", _TOKENS, device="cuda"),
            _arrays("in", _RUN_STARTS, device="cuda", of_rows=True),
            _arrays("in", "offsets[tokens]", when="MAX or WEIGHTED", device="cuda"),
            _arrays("out", _GRADIENT, fours=True, of_rows=True),
            _arrays("figures", "seen[1]", device="cuda"),
        ),
        _declared(
            "penalise_rows",
            "BY_ROWS DIVIDED RESCALED",
            "",
            _arrays("in", _TABLE, fours=True, of_rows=True),
            _arrays("inout", _GRADIENT, fours=True, of_rows=True),
            _ROWS_SEEN,
            _SCALED,
            _arrays("number", "batch_size l1 l2"),
        ),
        _declared(
            "squared_norm_rows",
            "RESCALED",
            "",
            _arrays("in", _GRADIENT, fours=True, of_rows=True),
            _SEEN,
            _SCALED,
        ),
        _declared(
            "update_rows",
            "CLIP GROUPED LINGERS PREPARED RESCALED SLOTS",
            "rule prepare linger",
            _arrays("inout", _TABLE, fours=True, of_rows=True),
            _arrays("in", _GRADIENT, fours=True, of_rows=True),
            _ROWS_SEEN,
            _arrays("in", "last_seen[vectors]", when="LINGERS", of_rows=True),
            tuple(replace(one, of_rows=True, shape=("vectors", "width")) for one in _STATES),
            _RULE,
            _arrays("number", "rate_factor", when="GROUPED"),
        ),
        _declared(
            "mark_rows",
            "RESCALED",
            "",
            _arrays("out", "last_seen[vectors]", of_rows=True),
            _ROWS_SEEN,
            _arrays("figures", f"{_COUNTERS} {_SCALARS}"),
        ),
        _declared(
            "shuffle", "", "", _arrays("out", "order[*]"), _arrays("number", "epoch key0 key1"), device="host"
        ),
        _declared(
            "shuffle_within",
            "",
            "",
            _arrays("inout", "order[*]"),
            _arrays("number", "window epoch key0 key1"),
            device="host",
        ),
        _declared(
            "copy_rows",
            "",
            "",
            _arrays("in", "source[*,bytes] rows[picked]"),
            _arrays("out", "target[*,bytes]"),
            device="host",
        ),
    )
}
