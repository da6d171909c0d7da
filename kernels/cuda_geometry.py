"""The launch geometry of CUDA kernels: blocks, threads, scratch memory, and the flags that follow from them.

It depends on shapes and alignments alone, not on the GPU: the blocks determine the order in which a kernel
sums, and the sums must be the same everywhere. The numbers of blocks are for GPUs of 50 to 150
multiprocessors that hold eight blocks of 256 threads each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnkit.kernels.catalogue import CATALOGUE
from nnkit.kernels.specialise import Constant

__all__ = ["DIGITS", "DIGIT_BITS", "Geometry", "Scratch", "geometry", "sequence"]

Scratch = Mapping[str, tuple[tuple[int, ...], np.dtype]]

# The groups of a row that neighbouring threads read: 8 groups of four float32 are one cache line and leave
# most threads of a block to the rows, whose sums they share; 32 are a whole warp's.
_SUMMING_GROUPS = 8
_STREAMING_GROUPS = 32
_ROWS_OF_A_THREAD = 4  # the fewest, for a sum over rows to be worth another block
_SUMMING_BLOCKS = 1024
_STREAMING_BLOCKS = 4096

# The sort of a batch's tokens. With these tiles 131,072 tokens occupy 128 multiprocessors. One block sorts up
# to the number of tokens for which the sort takes about as long as the launches that it saves.
DIGIT_BITS = 5
DIGITS = 1 << DIGIT_BITS
_ITEMS_OF_A_THREAD = 4
_ITEMS_OF_ONE_BLOCK = 16
# The sorted tokens that a thread sums in turn: the fewer, the more threads hide the memory's latency.
_SHORTEST_SPAN = 4
_LONGEST_SPAN = 32
_LONGEST_SPAN_OF_ONE_TILE = 16
_SUMMING_THREADS = 65536

_DOUBLE: np.dtype = np.dtype(np.float64)
_INDEX: np.dtype = np.dtype(np.int32)

# The phases of the sort of a batch's tokens, and `unique_rows`, which does all of them in one block.
_SORTING = (
    *("unique_rows", "count_tokens", "start_rows", "list_tokens"),
    *("count_digits", "sort_digit", "count_runs", "find_runs"),
)


@dataclass(frozen=True)
class Geometry:
    """A grid of blocks of threads, (x, y) each, the kernel's constants and its scratch arrays."""

    grid: tuple[int, int]
    block: tuple[int, int]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    scratch: Scratch = field(default_factory=dict)


def geometry(
    name: str, dtype: np.dtype, constants: Mapping[str, Constant], arguments: Mapping[str, Any], threads: int
) -> Geometry:
    """Return the geometry of a kernel for its arrays.

    Parameters
    ----------
    name : str
        One of the kernels of `nnkit.kernels.cuda`.
    dtype : dtype
        The type of the arithmetic, in which columns are summed.
    constants, arguments
        As for `nnkit.kernels.cuda.launch`.
    threads : int
        The most threads of a block.
    """
    threads = _power_at_most(threads)
    wide = all(_in_fours(array) for array in _grouped(name, constants, arguments) if _is_grouped(array))
    if name in _SORTING:
        return _sorting(name, arguments, threads)
    if name in ("embed_gradient", "add_partials"):
        whole = name == "add_partials" or arguments["column"] % 4 == 0
        return _over_tokens(arguments, dtype, wide and whole, threads)
    if name == "gather":
        return _over_batch(arguments, constants, wide, threads)
    if name in ("find_bins", "expand", "expand_gradient"):  # a thread for each element
        items = {"find_bins": "places", "expand": "out", "expand_gradient": "x"}[name]
        across = arguments["starts"].shape[0] - 1 if name == "expand_gradient" else arguments[items].shape[1]
        return _over_arena(4 * arguments[items].shape[0] * across, wide, threads)
    if name in ("sum_knots", "interpolate_gradient"):  # a thread for each column of numbers
        units = arguments["weight" if name == "sum_knots" else "gradient"].shape[1]
        return _streaming(arguments["starts"].shape[0] - 1, _fours(units), wide, threads)
    if name == "mark_rows":
        return _over_arena(4 * arguments["rows_seen"].shape[0], wide, threads, WHOLE=wide)
    if name in ("join_members", "join_gradient"):  # a thread for each row
        return _over_arena(4 * arguments["outputs"].shape[0], wide, threads)
    if name.startswith("periodic"):
        return _over_waves(name, arguments, dtype, threads)
    rows, *columns = arguments[_SIZED_BY[name]].shape
    if not columns:
        return _over_arena(rows, wide, threads)
    if name.endswith("_rows"):
        return _over_arena(4 * rows * _fours(columns[0]), wide, threads, WHOLE=wide)
    if name == "embed":
        groups = _fours(arguments["table"].shape[1])
        return _streaming(rows, groups, wide and arguments["column"] % 4 == 0, threads)
    if name in _STREAMED or (name == "backward" and not constants.get("BIAS")):
        return _streaming(rows, _fours(columns[0]), wide, threads)
    if name in ("layer_norm", "layer_norm_gradient"):
        return _normalising(rows, columns[0], wide, threads)
    if name == "softmax_loss":
        return _over_rows(rows, columns[0], dtype, wide, threads)
    members = arguments["scale"].shape[0] if name == "scale_members_gradient" else 1
    return _summing(rows // members, columns[0], dtype, wide, threads, members)


# Each of their threads has a group of columns and some rows.
_STREAMED = (
    *("forward", "add", "interpolate", "sum_places"),
    *("scale_members", "sum_members", "scale_columns"),
)
# The kernels that prepare another one's sums, and take its arrays.
_BEFORE = {"layer_norm_sums": "layer_norm_gradient", "sum_places": "interpolate_gradient"}
# The array over which a kernel is laid: of two dimensions, or of one in the arena.
_SIZED_BY = {
    **dict.fromkeys(("penalise", "squared_norm", "update"), "gradients"),
    "copy_parameters": "values",
    **dict.fromkeys(("penalise_rows", "squared_norm_rows", "update_rows"), "gradient"),
    **{"embed": "inputs", "forward": "z", "add": "target", "backward": "delta", "layer_norm_sums": "delta"},
    **{"interpolate": "z", "sum_places": "slopes"},
    **dict.fromkeys(("layer_norm", "layer_norm_gradient", "scale_columns", "scale_columns_gradient"), "x"),
    **{"scale_members": "out", "scale_members_gradient": "delta", "sum_members": "out"},
    **dict.fromkeys(("softmax_loss", "elementwise_loss"), "outputs"),
}


def _grouped(name: str, constants: Mapping[str, Constant], arguments: Mapping[str, Any]) -> list[Any]:
    """Return the arrays that a kernel reads or writes in groups of four."""
    if name == "add_partials":
        return [arguments["gradient"]]
    name = _BEFORE.get(name, name)
    if name not in CATALOGUE:
        return []  # a phase of the sort or of a periodic embedding
    declared = CATALOGUE[name]
    taken = (one for one in declared.arguments if one.fours and one.taken(constants))
    return [arguments[one.name] for one in taken]


def _streaming(rows: int, groups: int, wide: bool, threads: int) -> Geometry:
    """Each thread has one group of columns and some rows; no block waits for another's result."""
    x = min(_STREAMING_GROUPS, _power_at_least(groups), threads)
    y = threads // x
    across = _quotient(groups, x)
    down = max(1, min(_quotient(rows, y), _STREAMING_BLOCKS // across, 65535))
    return Geometry((across, down), (x, y), _constants(x, y, wide, WHOLE=wide))


def _over_batch(
    arguments: Mapping[str, Any], constants: Mapping[str, Constant], wide: bool, threads: int
) -> Geometry:
    """The numbers' groups, then the one-hot blocks' or those of a sparse matrix."""
    rows, width = arguments["inputs"].shape
    columns = arguments["source"].shape[1]
    features = arguments["codes"].shape[1] if constants.get("CODES") else 1
    # A sparse row has at most as many numbers as there are columns.
    levels = {"FEATURE_LEVELS": max(0, features - 1).bit_length(), "SPARSE_LEVELS": width.bit_length()}
    plan = _streaming(rows, max(1, _fours(columns) + _fours(width - columns)), wide, threads)
    return Geometry(plan.grid, plan.block, {**plan.constants, **levels})


def _summing(
    rows: int, columns: int, dtype: np.dtype, wide: bool, threads: int, members: int = 1
) -> Geometry:
    """The same, with sums of columns: each tile's last block adds the sums of its chunks of rows.

    Where there are members, each has tiles of its own.
    """
    groups = _fours(columns)
    x = min(_SUMMING_GROUPS, _power_at_least(groups), threads)
    y = threads // x
    tiles = members * _quotient(groups, x)
    chunks = max(1, min(_quotient(rows, y * _ROWS_OF_A_THREAD), _SUMMING_BLOCKS // tiles))
    partials = (chunks, columns) if members == 1 else (members, chunks, columns)
    blocks = tiles * chunks
    scratch = {
        **dict.fromkeys(("partials", "weight_partials", "bias_partials"), (partials, dtype)),
        **dict.fromkeys(("tickets", "weight_tickets", "bias_tickets"), ((tiles + 1,), _INDEX)),
        "block_sums": ((2, blocks), _DOUBLE),
    }
    return Geometry(
        (tiles, chunks),
        (x, y),
        _constants(x, y, wide, WHOLE=wide, SPLIT=chunks > 1, MANY=blocks > 1),
        scratch,
    )


def _over_rows(rows: int, columns: int, dtype: np.dtype, wide: bool, threads: int) -> Geometry:
    """Whole rows to a block, as many threads to a row as it has groups; groups of blocks are summed first."""
    groups = _fours(columns)
    x = min(_power_at_least(groups), threads)
    y = threads // x
    one_pass = groups <= x
    single = one_pass and rows <= _ROWS_OF_A_THREAD * y
    turns = 1 if rows <= y * _SUMMING_BLOCKS else _quotient(rows, y * _SUMMING_BLOCKS)
    blocks = 1 if single else _quotient(rows, y * turns)
    # Groups of about the square root: the two sums, one after the other, are then equally long.
    group_levels = (blocks.bit_length() - 1) // 2
    block_groups = _quotient(blocks, 1 << group_levels)
    constants = _constants(
        x, y, wide, WHOLE=wide, SPLIT=blocks > 1, ONE_PASS=one_pass, GROUP_LEVELS=group_levels
    )
    scratch = {
        "group_sums": ((block_groups, columns), dtype),
        "block_sums": ((2, blocks), _DOUBLE),
        "tickets": ((block_groups + 1,), _INDEX),
    }
    return Geometry((blocks, 1), (x, y), constants, scratch)


def _over_waves(name: str, arguments: Mapping[str, Any], dtype: np.dtype, threads: int) -> Geometry:
    """A thread for each output or input, or for four parameters, whose gradient is summed over the rows."""
    rows = arguments["x"].shape[0]
    if name in ("periodic", "periodic_inputs"):
        result = arguments["out" if name == "periodic" else "onto"]
        return _streaming(rows, result.shape[1], False, threads)
    size = arguments["weight_gradient" if name == "periodic_lines" else "frequency"].shape[0]
    return _summing(rows, size, dtype, False, threads)


def _normalising(rows: int, columns: int, wide: bool, threads: int) -> Geometry:
    """Whole rows to a block, as many threads to a row as it has groups; no block waits for another's."""
    groups = _fours(columns)
    x = min(_power_at_least(groups), threads)
    y = threads // x
    blocks = max(1, min(_quotient(rows, y), _STREAMING_BLOCKS))
    return Geometry((blocks, 1), (x, y), _constants(x, y, wide, WHOLE=wide, ONE_PASS=groups <= x))


def _sorting(name: str, arguments: Mapping[str, Any], threads: int) -> Geometry:
    """A block for each tile of rows or tokens, or one block for all of them."""
    rows, tokens = arguments["totals"].shape[0], arguments["owners"].shape[0]
    tile = threads * _ITEMS_OF_A_THREAD
    row_blocks = 1 if _fit_one_block(rows, threads) else _quotient(rows, tile)
    token_blocks = 1 if name == "unique_rows" else _quotient(tokens, tile)
    over_rows = name in ("count_tokens", "start_rows")
    many = row_blocks > 1 if over_rows else name != "unique_rows"
    constants = {
        "MANY": many,
        "ITEMS": _ITEMS_OF_A_THREAD,
        "ROW_LEVELS": max(0, rows - 1).bit_length(),
    }
    scratch = {
        "row_counts": ((row_blocks,), _INDEX),
        "batch_starts": ((rows,), _INDEX),
        "token_count": ((1,), _INDEX),
        "token_owners": ((tokens,), _INDEX),
        "keys": ((2, tokens), _INDEX),
        "tokens": ((2, tokens), _INDEX),
        "digit_counts": ((DIGITS * token_blocks,), _INDEX),
        "run_counts": ((token_blocks,), _INDEX),
        "tickets": ((1,), _INDEX),
    }
    blocks = row_blocks if over_rows else token_blocks
    return Geometry((blocks, 1), (threads, 1), _constants(threads, 1, wide=False, **constants), scratch)


def _over_tokens(arguments: Mapping[str, Any], dtype: np.dtype, wide: bool, threads: int) -> Geometry:
    """Each thread has one group of columns and a span of the sorted tokens; a block's spans form a tile."""
    tokens, width = arguments["owners"].shape[0], arguments["gradient"].shape[1]
    groups = _fours(width)
    x = min(_STREAMING_GROUPS, _power_at_least(groups), threads)
    y = threads // x
    across = _quotient(groups, x)
    span = _power_at_least(_quotient(tokens, y))  # one tile leaves no partials to add
    if span > _LONGEST_SPAN_OF_ONE_TILE:
        span = max(_SHORTEST_SPAN, min(_power_at_least(tokens * groups // _SUMMING_THREADS), _LONGEST_SPAN))
    tiles = _quotient(tokens, y * span)
    down = max(1, min(tiles, _STREAMING_BLOCKS // across, 65535))
    constants = _constants(x, y, wide, WHOLE=wide, SPAN=span)
    return Geometry((across, down), (x, y), constants, {"partials": ((tiles, width), dtype)})


def sequence(name: str, arguments: Mapping[str, Any], threads: int) -> list[tuple[str, dict[str, int]]]:
    """Return the kernels that do what the host's kernel `name` does, each with its own numbers.

    Parameters
    ----------
    name, arguments, threads
        As for `nnkit.kernels.cuda.launches`.
    """
    threads = _power_at_most(threads)
    if name == "unique_rows":
        return _sorting_sequence(arguments, threads)
    if name == "embed_gradient":
        plan = _over_tokens(arguments, _DOUBLE, wide=False, threads=threads)
        tiles = plan.scratch["partials"][0][0]
        return [(name, {}), *([("add_partials", {})] if tiles > 1 else [])]
    if name == "periodic_gradient":
        return [(name, {}), ("periodic_lines", {})]
    # The norm's rows are written in place, once their columns are summed.
    return [*((before, {}) for before, after in _BEFORE.items() if after == name), (name, {})]


def _sorting_sequence(arguments: Mapping[str, Any], threads: int) -> list[tuple[str, dict[str, int]]]:
    rows, tokens = arguments["totals"].shape[0], arguments["owners"].shape[0]
    passes = _quotient((arguments["table"].shape[0] - 1).bit_length(), DIGIT_BITS)
    all_passes = {"passes": passes}
    few_rows = _fit_one_block(rows, threads)
    if few_rows and _fit_one_block(tokens, threads):
        return [("unique_rows", all_passes)]
    found: list[tuple[str, dict[str, int]]] = [] if few_rows else [("count_tokens", {})]
    found += [("start_rows", {}), ("list_tokens", all_passes)]
    for sort_pass in range(passes):
        if sort_pass > 0:  # the digits of the first are counted as the tokens are listed
            found.append(("count_digits", {"sort_pass": sort_pass}))
        found.append(("sort_digit", {"sort_pass": sort_pass}))
    return [*found, ("count_runs", all_passes), ("find_runs", all_passes)]


def _fit_one_block(items: int, threads: int) -> bool:
    return items <= threads * _ITEMS_OF_ONE_BLOCK


def _over_arena(size: int, wide: bool, threads: int, **others: Constant) -> Geometry:
    blocks = max(1, min(_quotient(_fours(size), threads), _SUMMING_BLOCKS))
    scratch: Scratch = {"block_sums": ((blocks,), _DOUBLE), "tickets": ((1,), _INDEX)}
    constants = _constants(threads, 1, wide, MANY=blocks > 1, **others)
    return Geometry((blocks, 1), (threads, 1), constants, scratch)


def _constants(x: int, y: int, wide: bool, **others: Constant) -> dict[str, Constant]:
    return {
        "BLOCK_X": x,
        "BLOCK_Y": y,
        "THREADS": x * y,
        "X_LEVELS": _logarithm(x),
        "Y_LEVELS": _logarithm(y),
        "LEVELS": _logarithm(x * y),
        "WIDE": wide,
        **others,
    }


def _is_grouped(array: Any) -> bool:
    # Integers in one dimension are class indices, which are read one by one; an empty array is not read.
    return 0 not in array.shape and not (array.ndim == 1 and np.dtype(array.dtype).kind in "iu")


def _in_fours(array: Any) -> bool:
    """Whether each group of four elements of any row is aligned to its size."""
    itemsize = np.dtype(array.dtype).itemsize
    *outer, inner = array.strides
    aligned = all(stride % (4 * itemsize) == 0 for stride in (_address(array), *outer))
    return inner == itemsize and aligned and (array.ndim == 1 or array.shape[-1] % 4 == 0)


def _address(array: Any) -> int:
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


def _quotient(count: int, size: int) -> int:
    """Round up."""
    return -(-count // size)


def _fours(columns: int) -> int:
    return _quotient(columns, 4)


def _power_at_least(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _power_at_most(count: int) -> int:
    return 1 << (count.bit_length() - 1)


def _logarithm(power: int) -> int:
    return power.bit_length() - 1
