"""How CUDA kernels are laid over arrays: what blocks cover, how sums are shared, when accesses are wide."""

from __future__ import annotations

from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnkit.kernels import wide
from nnkit.kernels.catalogue import CATALOGUE
from nnkit.kernels.cuda import launch
from nnkit.kernels.cuda_geometry import Geometry, geometry, sequence
from nnkit.nn.activations import activation_function

FLOAT32 = np.dtype(np.float32)


def array(*shape: int, dtype: str = "float32", address: int = 512, leading: int | None = None):
    """Return what `geometry` looks at of an array on a GPU; `leading` is the distance between its rows."""
    itemsize = np.dtype(dtype).itemsize
    strides = (itemsize,) if len(shape) == 1 else ((leading or shape[1]) * itemsize, itemsize)
    return SimpleNamespace(
        shape=shape,
        ndim=len(shape),
        dtype=np.dtype(dtype),
        strides=strides,
        __cuda_array_interface__={"data": (address, False)},
    )


def backward(rows: int, columns: int, threads: int = 256) -> Geometry:
    arguments = {"delta": array(rows, columns), "a": array(rows, columns), "bias_gradient": array(columns)}
    return geometry("backward", FLOAT32, {"BIAS": True}, arguments, threads)


def softmax(rows: int, columns: int, threads: int = 256) -> Geometry:
    arguments = {"outputs": array(rows, columns), "labels": array(rows, dtype="int32")}
    return geometry("softmax_loss", FLOAT32, {}, arguments, threads)


@pytest.mark.parametrize("rows", [1, 100, 128, 8192, 1_000_000])
@pytest.mark.parametrize("columns", [1, 10, 512, 8192, 100_000])
def test_blocks_cover_the_columns_and_are_not_more_than_gpus_take(rows: int, columns: int) -> None:
    for plan in (backward(rows, columns), softmax(rows, columns)):
        assert prod(plan.block) == plan.constants["THREADS"] <= 256
        assert plan.grid[1] <= 65535
    tiles, block = backward(rows, columns), softmax(rows, columns)
    assert 4 * tiles.grid[0] * tiles.block[0] >= columns
    assert 4 * block.block[0] >= columns or not block.constants["ONE_PASS"]
    assert block.grid[0] <= 1024


def test_sums_over_rows_have_enough_blocks_for_a_large_gpu_and_one_for_a_small_batch() -> None:
    assert prod(backward(8192, 8192).grid) >= 1024
    assert prod(backward(128, 512).grid) >= 16
    assert backward(128, 512).grid[1] == 1
    assert prod(backward(128, 10).grid) == prod(softmax(128, 10).grid) == 1


def test_the_two_sums_of_a_softmaxs_blocks_are_about_equally_long() -> None:
    plan = softmax(1024, 1000)
    groups = plan.scratch["group_sums"][0][0]
    assert plan.grid[0] == 1024
    assert groups == 1 << plan.constants["GROUP_LEVELS"] == 32


def normalising(rows: int, columns: int) -> dict:
    vectors = ("weight", "bias", "weight_gradient", "bias_gradient")
    return {
        **{name: array(rows, columns) for name in ("x", "out", "delta")},
        **{name: array(columns) for name in vectors},
        **{name: array(rows) for name in ("mean", "inverse")},
    }


@pytest.mark.parametrize("rows", [1, 128, 1_000_000])
@pytest.mark.parametrize(("columns", "one_pass"), [(1, True), (512, True), (1024, True), (1028, False)])
def test_a_normalised_rows_threads_hold_it_where_there_are_enough(
    rows: int, columns: int, one_pass: bool
) -> None:
    for name in ("layer_norm", "layer_norm_gradient"):
        plan = geometry(name, FLOAT32, {}, normalising(rows, columns), 256)
        assert plan.constants["ONE_PASS"] == one_pass
        assert (4 * plan.block[0] >= columns) == one_pass
        assert plan.grid[0] == min(-(-rows // plan.block[1]), 4096)
        assert prod(plan.block) == plan.constants["THREADS"] <= 256


def test_the_sums_of_a_normalisation_come_before_its_rows_are_overwritten() -> None:
    arguments = normalising(8192, 512)
    names = [name for name, _ in sequence("layer_norm_gradient", arguments, 256)]
    assert names == ["layer_norm_sums", "layer_norm_gradient"]
    plan = geometry("layer_norm_sums", FLOAT32, {}, arguments, 256)
    tiles, chunks = plan.grid
    assert chunks > 1
    for kind in ("weight", "bias"):
        assert plan.scratch[f"{kind}_partials"] == ((chunks, 512), FLOAT32)
        assert plan.scratch[f"{kind}_tickets"][0][0] >= tiles


def test_threads_are_rounded_down_to_a_power_of_two() -> None:
    assert prod(backward(1000, 40, threads=100).block) == 64


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (array(9, 8), True),
        (array(9, 10), False),
        (array(9, 8, address=520), False),
        (array(9, 8, address=528), True),
        (array(9, 8, leading=12), True),
        (array(9, 8, leading=9), False),
    ],
    ids=["rows of fours", "rows that are none", "address of 8", "address of 16", "padded", "padded by one"],
)
def test_accesses_are_wide_only_where_every_four_elements_are_aligned(given, expected: bool) -> None:
    constants = geometry("forward", FLOAT32, {}, {"z": given}, 256).constants
    assert constants["WIDE"] == expected


# A periodic embedding's gradients are of any length: its kernel never accesses four at once.
WITH_FOURS = [
    name
    for name in CATALOGUE
    if name != "periodic_gradient" and any(one.fours for one in CATALOGUE[name].arguments)
]


@pytest.mark.parametrize("kernel", WITH_FOURS)
def test_every_array_that_is_accessed_in_fours_must_be_aligned_if_it_is_taken(kernel: str) -> None:
    declared = CATALOGUE[kernel]
    aligned = {one.name: array(8, 8) for one in declared.arguments} | {"column": 0}

    def wide(flags: dict, **changed: object) -> bool:
        return bool(geometry(kernel, FLOAT32, flags, {**aligned, **changed}, 256).constants["WIDE"])

    fours = [one for one in declared.arguments if one.fours]
    every = {"SLOTS": 2, **dict.fromkeys(set(declared.flags) - {"SLOTS", "FROM_Z", "RING"}, True)}
    for flags in ({}, every):
        assert wide(flags)
        for one in fours:
            assert wide(flags, **{one.name: array(8, 8, address=516)}) != one.taken(flags)


def test_class_indices_need_no_alignment() -> None:
    arguments = {"outputs": array(9, 8), "labels": array(9, dtype="int32", address=516)}
    assert geometry("softmax_loss", FLOAT32, {}, arguments, 256).constants["WIDE"]


def test_an_edit_of_the_wide_accesses_makes_another_kernel(tmp_path: Path, monkeypatch) -> None:
    def path() -> Path:
        formulas = {"activation": activation_function("relu").value}
        constants = {"BIAS": False, "DROPOUT": False, "KEEP_Z": False}
        return launch("forward", "float32", formulas, constants, {"z": array(9, 8)}).kernel.path

    before = path()
    edited = tmp_path / "wide.py"
    edited.write_text(Path(wide.__file__).read_text() + "\n")
    monkeypatch.setattr(wide, "__file__", str(edited))
    assert path() != before


def tokens_of(count: int, width: int, rows: int = 128, size: int = 20_000) -> dict:
    """Return what `geometry` and `sequence` look at for a batch of so many tokens."""
    return {
        **{name: array(count, dtype="int32") for name in ("owners", "offsets", "runs")},
        **{"gradient": array(min(count, size), width), "delta": array(rows, width), "column": 0},
        **{"totals": array(rows), "table": array(size, width)},
    }


@pytest.mark.parametrize("width", [1, 8, 64, 300, 10_000])
@pytest.mark.parametrize("count", [1, 64, 1000, 131_072, 100_000_000])
def test_the_tiles_of_a_tables_gradient_cover_the_tokens(count: int, width: int) -> None:
    arguments = tokens_of(count, width)
    plan = geometry("embed_gradient", FLOAT32, {}, arguments, 256)
    tiles, columns = plan.scratch["partials"][0]
    tile = plan.block[1] * plan.constants["SPAN"]
    assert (tiles - 1) * tile < count <= tiles * tile
    assert 4 * plan.grid[0] * plan.block[0] >= columns == width
    assert 1 <= plan.grid[1] <= min(tiles, 65535)
    assert geometry("add_partials", FLOAT32, {}, arguments, 256).constants == plan.constants
    names = [name for name, _ in sequence("embed_gradient", arguments, 256)]
    assert names == ["embed_gradient", "add_partials"][: 1 + (tiles > 1)]


def test_many_tokens_are_summed_by_as_many_threads_as_a_large_gpu_holds_and_few_by_one_block() -> None:
    plan = geometry("embed_gradient", FLOAT32, {}, tokens_of(131_072, 64), 256)
    assert prod(plan.grid) * prod(plan.block) >= 65_536
    assert geometry("embed_gradient", FLOAT32, {}, tokens_of(256, 64), 256).grid == (1, 1)
    assert [name for name, _ in sequence("unique_rows", tokens_of(4096, 64), 256)] == ["unique_rows"]


def test_the_tiles_of_a_sort_cover_the_tokens_and_the_rows() -> None:
    arguments = tokens_of(131_073, 64, rows=10_000)
    for name, count in (("start_rows", 10_000), ("list_tokens", 131_073), ("find_runs", 131_073)):
        plan = geometry(name, FLOAT32, {}, arguments, 256)
        assert (plan.grid[0] - 1) * 1024 < count <= plan.grid[0] * plan.constants["ITEMS"] * 256
    # 20,000 ids have 15 bits: three digits, of which the first is counted as the tokens are listed.
    found = [name for name, _ in sequence("unique_rows", arguments, 256)]
    assert len(found) == 10
    assert found.count("sort_digit") == 3
