"""The bytes that a kernel is said to move, against sizes counted by hand from the shapes; and the aims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gpu import aims
from gpu.floors import Variant, step_of

from nnkit.backends import select
from nnkit.bench.kernels import kernels_of
from nnkit.bench.records import Record, Result, once, save_result

ROWS, WIDTH, OUTPUTS = 6, 20, 12
HIDDEN = ROWS * WIDTH * 4  # bytes of float32
LAST = ROWS * OUTPUTS * 4
# Weights and biases, each at the next multiple of 32 elements.
ARENA = (416 + 32 + 256 + 32) * 4


def moved(
    activation: str, loss: str, optimizer: str, pixels: bool = False, dropout: float = 0.0
) -> dict[str, int]:
    variant = Variant("", loss, optimizer, activation, dropout, pixels, True, ROWS, WIDTH, OUTPUTS)
    step = step_of(variant, select("cpu").backend)
    return {name: kernel.moved() for name, kernel in kernels_of(step, ROWS).items()}


def test_bytes_of_a_step_with_pixels_relu_and_adam() -> None:
    labels, order, bias = ROWS * 4, ROWS * 8, WIDTH * 4
    assert moved("relu", "cross_entropy", "adam", pixels=True) == {
        # uint8 rows, their order, shift and scale, and labels in; float32 rows and labels out.
        "gather": ROWS * WIDTH + order + 2 * WIDTH * 4 + labels + HIDDEN + labels,
        "forward": HIDDEN + bias + HIDDEN,
        "softmax_loss": LAST + labels + OUTPUTS * 4 + LAST + OUTPUTS * 4,
        # The derivative and the activation in; the derivative and the bias's gradient out.
        "backward": 2 * HIDDEN + HIDDEN + bias,
        "penalise": 3 * ARENA,
        "squared_norm": ARENA,
        "update": 7 * ARENA,
    }


def test_bytes_of_a_step_with_numbers_gelu_and_sgd() -> None:
    found = moved("gelu", "mse", "sgd")
    # Targets are read and written by the gather, and read by the loss.
    assert found["gather"] == HIDDEN + ROWS * 8 + LAST + HIDDEN + LAST
    # GELU's derivative asks for z, which stays beside the activation.
    assert found["forward"] == HIDDEN + WIDTH * 4 + 2 * HIDDEN
    assert found["elementwise_loss"] == 2 * LAST + OUTPUTS * 4 + LAST + OUTPUTS * 4


@pytest.mark.parametrize(("optimizer", "arrays"), [("momentum", 5), ("sgd", 3), ("adam", 7)])
def test_bytes_of_dropout_and_of_the_optimizers(optimizer: str, arrays: int) -> None:
    found, mask = moved("relu", "binary_cross_entropy", optimizer, dropout=0.2), ROWS * WIDTH
    assert found["forward"] == HIDDEN + WIDTH * 4 + HIDDEN + mask
    assert found["backward"] == 2 * HIDDEN + mask + HIDDEN + WIDTH * 4
    assert found["update"] == arrays * ARENA


def test_bytes_of_an_embedding_are_those_of_the_rows_seen() -> None:
    table, bag = 50, 3
    variant = Variant("", "cross_entropy", "adam", "", 0.0, False, True, ROWS, WIDTH, OUTPUTS, bag, table)
    kernels = kernels_of(step_of(variant, select("cpu").backend), ROWS)
    ids = np.random.default_rng(2).integers(0, table, ROWS * bag)
    seen = len(np.unique(ids))
    assert int(kernels["embed"].arguments["seen"][0]) == seen < ROWS * bag
    tokens, order, starts, totals = ROWS * bag * 4, ROWS * 8, (ROWS + 1) * 8, ROWS * 4
    rows, numbers = seen * WIDTH * 4, seen * 4
    expected = {
        # Each id, where each row's begin, and the rows' order in; each token's row of the batch and of those
        # seen, and each row seen with its first token out.
        "unique_rows": tokens + starts + order + 2 * tokens + 2 * numbers,
        "embed": rows + tokens + starts + order + HIDDEN + totals,
        # On a GPU each token says its row, on the host the rows' order and starts do: both are counted.
        "embed_gradient": HIDDEN + 2 * tokens + numbers + starts + order + totals + rows,
        "penalise_rows": 3 * rows + numbers,
        "squared_norm_rows": rows,
        # Vectors, gradient and both moments in; vectors and moments out.
        "update_rows": 7 * rows + numbers,
    }
    assert {name: kernels[name].moved(seen) for name in expected} == expected


def test_an_aim_is_unmeasured_until_a_full_result_of_a_card_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aims, "RESULTS", tmp_path)
    every = aims.unmeasured().splitlines()
    row = "| small | 20-64-64-1 | step ≤ 25.0 µs |"
    assert row in every
    small = Record("small", "nnkit", "cuda", figures={"step": once("s", 1.0, aims.aim("small"))})
    for size, expected in (("tiny", every), ("full", [line for line in every if line != row])):
        save_result(Result("card", "", {}, size, "", "", [small]), tmp_path / f"gpu-{size}.json")
        assert aims.unmeasured().splitlines() == expected
