"""The sort of a batch's tokens on CUDA against NumPy's stable sort, in one block and in many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from kernel_devices import CudaDevice
from numpy.typing import NDArray

from nnkit.kernels.cuda import launches
from nnkit.kernels.layout import BATCH, COUNTERS

THREADS = 4  # of a block: a tile has 16 rows or tokens, and one block sorts up to 64
ALL = {"MAX": True, "SHUFFLED": True}


@dataclass(frozen=True)
class Tokens:
    """The second batch of a data set, whose last one it is.

    Parameters
    ----------
    lengths : list of int
        Of the batch's bags.
    size : int
        The table's rows.
    used : int or None
        How many ids there are in the batch; None for those of the whole table.
    zipf : bool
        Whether the id of rank r is as frequent as 1 / r.
    rows : int or None
        The capacity; None for as many as there are bags.
    """

    lengths: list[int]
    size: int
    used: int | None = None
    zipf: bool = False
    rows: int | None = None

    @property
    def capacity(self) -> int:
        return self.rows or len(self.lengths)

    def arguments(self) -> tuple[dict[str, Any], NDArray]:
        """Return what the kernels read and write, and the batch's ids in its order."""
        random = np.random.default_rng(len(self.lengths))
        before = random.integers(0, 4, self.capacity)
        lengths = np.concatenate([before, self.lengths])
        order = random.permutation(len(lengths))
        stored = np.empty_like(lengths)
        stored[order] = lengths
        starts = np.concatenate([[0], np.cumsum(stored)])
        used = random.choice(min(self.size, 10**6), self.used or min(self.size, 10**6), replace=False)
        used[-1] = self.size - 1
        odds = 1 / np.arange(1, len(used) + 1) if self.zipf else np.ones(len(used))
        ids = random.choice(used, starts[-1], p=odds / odds.sum()).astype(np.int32)
        tokens = max(1, int(np.sort(lengths)[-self.capacity :].sum()))
        counters = np.zeros(COUNTERS, np.int64)
        counters[BATCH] = 1
        arguments = {
            "table": np.empty((self.size, 0), np.float32),
            **{"ids": ids, "starts": starts, "order": order, "counters": counters},
            **{"batch_size": self.capacity, "totals": np.zeros(self.capacity, np.float32)},
            **{name: np.full(tokens, -1, np.int32) for name in ("owners", "offsets", "runs")},
            "run_starts": np.full(min(tokens, self.size) + 1, -1, np.int32),
            "rows_seen": np.full(min(tokens, self.size), -1, np.int32),
            "seen": np.full(1, -1, np.int64),
        }
        batch = [ids[starts[row] : starts[row + 1]] for row in order[self.capacity :]]
        return arguments, np.concatenate(batch)


def zipf(tokens: int) -> Tokens:
    """Return documents of several lengths whose most frequent word is a fifth of the tokens."""
    lengths = np.random.default_rng(tokens).integers(0, 2 * tokens // 20, 20)
    return Tokens(lengths.tolist(), 40_000, used=100, zipf=True)


CASES = {
    "no tokens": Tokens([0, 0, 0], 9),
    "no tokens in many rows": Tokens([0] * 70, 9),
    "one token": Tokens([0, 1, 0], 9),
    "one block": Tokens([3, 0, 20, 1, 9], 1000),
    "one full block": Tokens([64], 1000),
    "one token more than a block": Tokens([65], 1000),
    "full tiles": Tokens([32] * 4, 1000),
    "a table of one row": Tokens([30, 0, 41], 1),
    "a table of one row in one block": Tokens([3, 0, 4], 1),
    "one id of many": Tokens([30, 0, 41], 1000, used=1),
    "two digits": Tokens([30, 0, 41], 33),
    "each id once or twice": Tokens([70, 0, 130], 1 << 18),
    "the largest table": Tokens([80], 1 << 31, used=50),
    "words of a language": zipf(400),
    "many rows": Tokens([1, 0, 2, 0, 0, 3] * 20, 300),
    "many rows and few tokens": Tokens([0, 1, 0, 0] * 20, 300),
    "fewer rows than there is room for": Tokens([9, 30, 50], 300, rows=5),
    "few of many rows": Tokens([40, 40], 300, rows=70),
}


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("case", "threads"),
    [*((case, THREADS) for case in CASES.values()), (zipf(9000), 256)],
    ids=[*CASES, "blocks of 256 threads"],
)
def test_tokens_come_together_in_the_order_of_ids_then_of_the_batch(case: Tokens, threads: int) -> None:
    arguments, ids = case.arguments()
    capacity = {key: len(value) for key, value in arguments.items() if isinstance(value, np.ndarray)}
    CudaDevice(threads).run("unique_rows", "float32", {}, ALL, arguments)
    tokens, order = len(ids), np.argsort(ids, kind="stable")
    rows, firsts, runs = np.unique(ids[order], return_index=True, return_inverse=True)
    offsets = np.concatenate([np.arange(length) for length in case.lengths])
    expected = {
        "owners": np.repeat(np.arange(len(case.lengths)), case.lengths)[order],
        "offsets": offsets[order],
        "runs": runs,
        "run_starts": [*firsts, tokens],
        "rows_seen": rows,
        "seen": [len(rows)],
    }
    for key, values in expected.items():
        np.testing.assert_array_equal(arguments[key][: len(values)], values, err_msg=key)
        beyond = arguments[key][len(values) :]
        assert (beyond == -1).all(), f"{key} has more than the batch, which has room for {capacity[key]}"


@pytest.mark.gpu
def test_the_same_sort_twice_finds_what_the_first_left_of_its_scratch_arrays() -> None:
    arguments, _ = CASES["words of a language"].arguments()
    operation = CudaDevice(THREADS).prepare("unique_rows", "float32", {}, ALL, arguments)
    operation()
    first = {key: value.copy() for key, value in arguments.items() if isinstance(value, np.ndarray)}
    operation()
    for key, values in first.items():
        np.testing.assert_array_equal(arguments[key], values, err_msg=key)


@pytest.mark.extra("numba_cuda")
@pytest.mark.parametrize(
    ("rows", "tokens", "size", "names"),
    [
        (64, 64, 1000, ["unique_rows"]),
        (64, 65, 1, ["start_rows", "list_tokens", "count_runs", "find_runs"]),
        (64, 65, 32, ["start_rows", "list_tokens", "sort_digit", "count_runs", "find_runs"]),
        (
            *(65, 10, 33),
            [
                *("count_tokens", "start_rows", "list_tokens", "sort_digit", "count_digits", "sort_digit"),
                *("count_runs", "find_runs"),
            ],
        ),
    ],
)
def test_a_sort_has_as_many_launches_as_its_shapes_ask_for(
    rows: int, tokens: int, size: int, names: list[str]
) -> None:
    arguments, _ = Tokens([0] * rows, size).arguments()
    arguments |= {name: np.zeros(tokens, np.int32) for name in ("owners", "offsets", "runs")}
    found = launches("unique_rows", "float32", {}, ALL, arguments, THREADS)
    assert [launch.kernel.name for launch in found] == names
    passes = [launch.numbers["sort_pass"] for launch in found if launch.kernel.name == "sort_digit"]
    assert passes == list(range(len(passes)))
