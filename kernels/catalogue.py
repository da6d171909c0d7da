"""Every kernel declared once: what it reads and writes, under which flags, and which formulas it inlines.

A kernel's templates, one for each device, say what it computes. From its declaration follow the bytes that it
moves, whether two operations touch one array, and what a CUDA kernel reads in groups of four. A test compares
the declarations with the specialised sources.

Order: the declaration, the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any, Literal

from nnkit.kernels.layout import COPY_COLUMNS, COUNTERS, SCALARS, SCALING, SEGMENT_COLUMNS

__all__ = ["CATALOGUE", "Argument", "Declaration", "Flags", "Use", "holds"]

Flags = Mapping[str, bool | int | float]
Use = Literal["in", "out", "inout", "small", "scratch", "shape", "number"]


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel.

    Parameters
    ----------
    name : str
        Its name in the templates.
    use : {"in", "out", "inout", "small", "scratch", "shape", "number"}
        ``in``, ``out`` and ``inout`` are arrays that are read, written or both. ``small`` is an array of a
        few numbers, such as the step's counters, that may be read and written and does not count as memory
        traffic. The contents of ``scratch`` matter only while the kernel runs. Of ``shape``, only the shape
        is read, by the kernel or by the code that chooses its grid. ``number`` is a scalar.
    when : str
        The condition under which the kernel takes it, an expression over the flags; empty for always.
    fours : bool
        Whether a CUDA kernel reads or writes it in groups of four elements.
    of_rows : bool
        Whether only those rows of an embedding's table that occur in the batch are read or written.
    device : {"", "host", "cuda"}
        The device whose kernel takes it; empty for both.
    shape : tuple of str
        Of an array: a number, a name that stands for one length throughout the kernel, or ``*`` for any
        length; ``...`` for any further dimensions. Empty where it is not declared.
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
    """Whether an expression over the flags is true; an empty one is. Flags that are not given are False."""
    return not condition or bool(eval(_condition(condition), {"__builtins__": {}}, _FlagsOrFalse(flags)))


class _FlagsOrFalse(dict):
    """Flags by name; one that is not given is False."""

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
        The name of its templates.
    flags : tuple of str
        The upper-case names in its templates, which are replaced with constants.
    formulas : tuple of str
        The placeholder functions in its templates, which are replaced with formulas.
    arguments : tuple of Argument
        The arguments on any device, except the arrays that the CUDA backend allocates for itself.
    device : {"", "host"}
        ``host`` for a kernel that exists only there; empty for both devices.
    host_flags : tuple of str
        The flags that are only ever set for arrays in the host's memory.
    """

    name: str
    flags: tuple[str, ...]
    formulas: tuple[str, ...]
    arguments: tuple[Argument, ...]
    device: Literal["", "host"] = ""
    host_flags: tuple[str, ...] = ()

    def reads(self, flags: Flags) -> list[Argument]:
        """Return the arrays that the kernel reads on any device, without the small ones."""
        return self._used(("in", "inout"), flags)

    def writes(self, flags: Flags) -> list[Argument]:
        """Return the arrays that the kernel writes on any device, without small ones and scratch."""
        return self._used(("out", "inout"), flags)

    def _used(self, uses: tuple[Use, ...], flags: Flags) -> list[Argument]:
        taken = {one.name: one for one in self.arguments if one.use in uses and one.taken(flags)}
        return list(taken.values())

    def moved(self, flags: Flags, arguments: Mapping[str, Any], rows_seen: int = 0) -> int:
        """Return the memory traffic in bytes: an array counts once if read, and once if written.

        Gathers and lookups are counted as if the batch were the whole data set. The intermediate arrays of a
        sort are not counted.

        Parameters
        ----------
        flags : mapping of str to bool, int or float
            The flags of the specialised kernel.
        arguments : mapping of str to array or number
            Its arguments by name.
        rows_seen : int
            For a kernel of an embedding, the number of distinct rows of the table that occur in the batch.
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
# The catalogue, as a table: a kernel's name, then indented its flags, formulas and arguments. A line of
# arguments begins with their use; `if` precedes the condition under which the kernel takes them. @fours,
# @of_rows, @host and @cuda are what `Argument` says of `fours`, `of_rows` and `device`; after a kernel's
# name, @host is its device.
# ---------------------------------------------------------------------------------------------------------

_COUNTERS, _SCALARS = f"counters[{COUNTERS}]", f"scalars[{SCALARS}]"
_SEGMENTS, _COPIES = f"segments[segments,{SEGMENT_COLUMNS}]", f"copies[segments,{COPY_COLUMNS}]"
_BATCH = f"""
    small {_COUNTERS}
    in order[*] if SHUFFLED
    number batch_size"""
_SCALED = f"""
    small {_SCALARS}
    small scaling[{SCALING}] if RESCALED"""
_LOSS = f"""
    # `predictions` are the batch's rows; where there are MEMBERS, each row has one of each member.
    in outputs[predictions,columns] @fours
    in labels[rows,...] @fours
    in bias[columns] @fours if BIAS
    in batch_weights[rows] if WEIGHTED
    small count[1]
    out bias_gradient[columns] @fours if BIAS and GRADIENT
    out gradient[predictions,columns] @fours if GRADIENT
    scratch row[columns] @host{_SCALED}
    number batch_size
    number members if MEMBERS"""
_RULE = f"""
    small {_COUNTERS} rates[*]{_SCALED}
    small decay_factors[*] if DECAY_VARIES
    number batch_size weight_decay
    number clip_norm if CLIP"""
_ROWS_SEEN = """
    in rows_seen[seen] @of_rows
    small seen[1]"""
_TOKENS = "owners[tokens] runs[tokens]"
# Each row that the batch saw is one run of sorted tokens; this is where it starts.
_RUN_STARTS = "run_starts[*]"

_TABLE = f"""
gather
    flags AUGMENTED CODES ERASE FLIP INDICES RING SCALED SHUFFLED SPARSE TARGETS WEIGHTED
    host_flags INDEXED SHARD
    in source[*,numbers] @fours
    in index[*] @host if INDEXED
    in codes[placed,features] if CODES
    small offsets[features] if CODES
    in sparse_values[entries] sparse_columns[entries] sparse_starts[*] if SPARSE
    in shift[numbers] scale[numbers] @fours if SCALED
    in targets[placed,...] if TARGETS
    in weights[placed] if WEIGHTED
    small {_COUNTERS}
    # A ring has the rows in their order: only the draws of augmentation need the rows' numbers.
    in order[*] if SHUFFLED and (AUGMENTED or not RING)
    shape order[*] if SHUFFLED and RING and not AUGMENTED
    number batch_size
    number row_offset @host if SHARD
    number height width most_down most_right key0 key1 if AUGMENTED
    number erase_threshold if AUGMENTED and ERASE
    out inputs[rows,*] @fours
    out labels[rows,...] if TARGETS
    out batch_weights[rows] if WEIGHTED
    small count[1]
forward
    flags BIAS DROPOUT DROPOUT_VARIES KEEP_Z
    host_flags SHARD
    formulas activation
    inout z[rows,columns] @fours
    in bias[columns] @fours if BIAS
    out a[rows,columns] @fours if KEEP_Z
    out mask[rows,*] @fours if DROPOUT
    small {_COUNTERS} if DROPOUT
    small dropout_factors[*] if DROPOUT_VARIES
    number layer key0 key1 if DROPOUT
    number threshold kept_scale if DROPOUT and not DROPOUT_VARIES
    number dropout if DROPOUT_VARIES
    number row_offset @host if DROPOUT and SHARD
backward
    flags BIAS DROPOUT DROPOUT_VARIES FROM_Z
    formulas activation_derivative
    inout delta[rows,columns] @fours
    in z[rows,columns] @fours if FROM_Z
    in a[rows,columns] @fours if not FROM_Z
    in mask[rows,*] @fours if DROPOUT
    out bias_gradient[columns] @fours if BIAS
    small {_COUNTERS} dropout_factors[*] if DROPOUT_VARIES
    number kept_scale if DROPOUT and not DROPOUT_VARIES
    number keep if DROPOUT and not (DROPOUT_VARIES or FROM_Z)
    number dropout if DROPOUT_VARIES
layer_norm
    flags BIAS GRADIENT
    in x[rows,columns] weight[columns] @fours
    in bias[columns] @fours if BIAS
    out out[rows,columns] @fours
    out mean[rows] inverse[rows] if GRADIENT
    number epsilon
layer_norm_gradient
    flags BIAS
    inout delta[rows,columns] @fours
    in x[rows,columns] weight[columns] @fours
    in mean[rows] inverse[rows]
    out weight_gradient[columns] @fours
    out bias_gradient[columns] @fours if BIAS
add
    inout target[rows,columns] @fours
    in source[rows,columns] @fours
scale_members
    flags BIAS SHARED
    # A SHARED row of `x` is that of all members, otherwise each has one.
    in x[*,columns] scale[members,columns] @fours
    in bias[members,columns] @fours if BIAS
    out out[predictions,columns] @fours
scale_members_gradient
    flags BIAS SHARED
    inout delta[predictions,columns] @fours
    in x[*,columns] scale[members,columns] @fours
    out scale_gradient[members,columns] @fours
    out bias_gradient[members,columns] @fours if BIAS
sum_members
    in x[predictions,columns] @fours
    out out[rows,columns] @fours
join_members
    flags LINK
    in z[rows,*]
    out outputs[rows,columns]
join_gradient
    flags LINK
    in z[rows,*] delta[rows,columns]
    in outputs[rows,columns] if LINK != 0
    # The mean of values: only the number of columns is read.
    shape outputs[rows,columns] if LINK == 0
    out z_gradient[rows,*]
scale_columns
    in x[rows,columns] weight[columns] @fours
    out out[rows,columns] @fours
scale_columns_gradient
    inout delta[rows,columns] @fours
    in x[rows,columns] weight[columns] @fours
    out weight_gradient[columns] @fours
# Of the layer Periodic; its parameters are flat, as are their gradients.
periodic
    in x[rows,inputs] frequency[waves] phase[waves] weight[*] bias[*]
    out out[rows,*]
    scratch waves[*] @host
    number columns
periodic_gradient
    in x[rows,*] delta[rows,*] frequency[waves] phase[waves] weight[lines]
    out frequency_gradient[waves] phase_gradient[waves] weight_gradient[lines] @fours
    scratch waves[*] @host
    number columns
periodic_inputs
    in x[rows,*] delta[rows,*] frequency[waves] phase[waves] weight[*]
    out onto[rows,*]
    number columns first
multiply @host
    in a[rows,inner] b[inner,columns]
    out out[rows,columns]
find_bins
    in x[rows,*]
    small columns[bins] starts[*]
    in lows[bins] inverses[bins]
    out places[rows,numbers] fractions[rows,numbers]
sum_knots
    in weight[bins,units] @fours
    small starts[*]
    out knots[knots,units] @fours
interpolate
    inout z[rows,units] @fours
    in knots[knots,units] @fours
    in places[rows,numbers] fractions[rows,numbers]
interpolate_gradient
    in delta[rows,units] @fours
    in places[rows,numbers] fractions[rows,numbers]
    small starts[*]
    small owners[knots] @cuda
    scratch slopes[knots,units] @fours @cuda
    out gradient[bins,units] @fours
expand
    in x[rows,*]
    small columns[bins]
    in lows[bins] inverses[bins]
    out out[rows,*]
expand_gradient
    in delta[rows,bins] x[rows,*]
    small columns[bins] starts[*]
    in lows[bins] inverses[bins]
    inout onto[rows,*]
elementwise_loss
    flags BIAS AVERAGE_ROWS GRADIENT MEMBERS RESCALED SUMMED WEIGHTED
    formulas value derivative{_LOSS}
softmax_loss
    flags BIAS AVERAGE_ROWS CEILED GRADIENT INDICES MEMBERS RESCALED WEIGHTED{_LOSS}
    # The host's kernel works in its rows even where no gradient is wanted.
    scratch gradient[predictions,columns] @host if not GRADIENT
penalise
    flags AVERAGE_ROWS PENALTY_ON_SUM RESCALED
    in values[*] @fours
    inout gradients[*] @fours
    small {_SEGMENTS}{_SCALED}
    number batch_size l1 l2
squared_norm
    flags RESCALED
    in gradients[*] @fours
    small {_SEGMENTS}{_SCALED}
update
    flags CLIP COPIED DECAY_VARIES GROUPED PREPARED RESCALED SLOTS
    host_flags FOLDED
    formulas rule prepare
    inout values[size] @fours
    in gradients[dense] @fours
    in last[dense] @host if FOLDED
    out copy[*] @fours if COPIED
    small {_COPIES} if COPIED
    small {_SEGMENTS}
    small rate_factors[segments] if GROUPED
    inout state0[size] @fours if SLOTS > 0
    inout state1[size] @fours if SLOTS > 1{_RULE}
copy_parameters
    in values[*] @fours
    out copy[*] @fours
    small {_SEGMENTS} {_COPIES}
clear @host
    small {_SCALARS}
combine @host
    flags AVERAGE_ROWS FOLDED LEAD
    inout gradients[shards,*]
    small {_SEGMENTS} parts[shards,{SCALARS}] own[{SCALARS}]
    small {_SCALARS} if LEAD
    number rows if AVERAGE_ROWS
reduce_norms @host
    flags LEAD
    small shard_scalars[*,{SCALARS}] own[{SCALARS}]
    small {_SCALARS} if LEAD
unique_rows
    flags MAX SHUFFLED WEIGHTED{_BATCH}
    in ids[*] starts[*]
    # Only lengths are read: the batch's rows, and the table's rows for the number of digits to sort by.
    shape totals[*]
    shape table[vectors,width] @cuda
    scratch slots[vectors] places[tokens] @host
    out {_TOKENS} @cuda
    out {_RUN_STARTS} @cuda @of_rows
    out offsets[tokens] @cuda if MAX or WEIGHTED
    out rows_seen[*] @of_rows
    small seen[1]
embed
    flags GRADIENT MAX MEAN SHUFFLED WEIGHTED{_BATCH}
    in ids[ids] starts[*]
    in id_weights[ids] if WEIGHTED
    in table[vectors,width] @fours @of_rows
    out inputs[rows,*] @fours
    out totals[rows] if MEAN
    out peaks[rows,width] if MAX and GRADIENT
    scratch partial[width] @host if not MAX
    number column
embed_gradient
    flags MAX MEAN SHUFFLED WEIGHTED
    small {_COUNTERS}
    number batch_size column
    # On a GPU the tokens are sorted, and `owners` gives the row of each.
    in starts[*] @host
    in order[*] @host if SHUFFLED
    in starts[*] @cuda if WEIGHTED
    in order[*] @cuda if SHUFFLED and WEIGHTED
    in id_weights[*] if WEIGHTED
    in delta[rows,*] @fours
    in totals[rows] if MEAN
    shape totals[rows] @host if not MEAN
    in peaks[rows,width] if MAX
    scratch places[tokens] @host
    in {_TOKENS} @cuda
    in {_RUN_STARTS} @cuda @of_rows
    in offsets[tokens] @cuda if MAX or WEIGHTED
    out gradient[seen,width] @fours @of_rows
    small seen[1] @cuda
penalise_rows
    flags AVERAGE_ROWS PENALTY_ON_SUM RESCALED
    in table[vectors,width] @fours @of_rows
    inout gradient[seen,width] @fours @of_rows{_ROWS_SEEN}{_SCALED}
    number batch_size l1 l2
squared_norm_rows
    flags RESCALED
    in gradient[seen,width] @fours @of_rows
    small seen[1]{_SCALED}
update_rows
    flags CLIP DECAY_VARIES GROUPED DECAYS_UNSEEN PREPARED RESCALED SLOTS
    formulas rule prepare decay_unseen
    inout table[vectors,width] @fours @of_rows
    in gradient[seen,width] @fours @of_rows{_ROWS_SEEN}
    in last_seen[vectors] @of_rows if DECAYS_UNSEEN
    inout state0[vectors,width] @fours @of_rows if SLOTS > 0
    inout state1[vectors,width] @fours @of_rows if SLOTS > 1{_RULE}
    number rate_factor if GROUPED
mark_rows
    flags RESCALED
    out last_seen[vectors] @of_rows{_ROWS_SEEN}
    small {_COUNTERS} {_SCALARS}
shuffle @host
    out order[*]
    number epoch key0 key1
shuffle_within @host
    inout order[*]
    number window epoch key0 key1
copy_rows @host
    in source[*,bytes] rows[picked]
    out target[*,bytes]
"""


def _declared(name: str, lines: list[str]) -> Declaration:
    """Return the declaration of a kernel from the lines below its name."""
    words: dict[str, tuple[str, ...]] = {}
    arguments: list[Argument] = []
    use: Any
    device: Any
    for line in lines:
        text, _, when = line.partition(" if ")
        use, *rest = text.split()
        if use in ("flags", "host_flags", "formulas"):
            words[use] = tuple(rest)
            continue
        options = {word[1:] for word in rest if word[0] == "@"}
        fours, of_rows = "fours" in options, "of_rows" in options
        device = next(iter(options & {"host", "cuda"}), "")
        for word in rest[: len(rest) - len(options)]:
            argument, _, shape = word.rstrip("]").partition("[")
            lengths = tuple(shape.split(",")) if shape else ()
            arguments.append(Argument(argument, use, when, fours, of_rows, device, lengths))
    host_flags = words.get("host_flags", ())
    flags = tuple(sorted((*words.get("flags", ()), *host_flags)))
    kernel, _, device = name.partition(" @")
    return Declaration(kernel, flags, words.get("formulas", ()), tuple(arguments), device, host_flags)


def _catalogue() -> dict[str, Declaration]:
    kernels: dict[str, list[str]] = {}
    name = ""
    for line in _TABLE.splitlines():
        if line.startswith("    "):
            kernels[name] += [] if line.lstrip().startswith("#") else [line]
        elif line and line[0] != "#":
            name = line
            kernels[name] = []
    declarations = (_declared(name, lines) for name, lines in kernels.items())
    return {one.name: one for one in declarations}


CATALOGUE: Mapping[str, Declaration] = _catalogue()
