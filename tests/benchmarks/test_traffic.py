"""The bytes that a kernel is said to move, against sizes counted by hand from the shapes."""

from __future__ import annotations

import numpy as np
import pytest

from nnkit.backends import select
from nnkit.benchmarks.gpu.kernels import Variant, record

ROWS, WIDTH, OUTPUTS = 6, 20, 12
HIDDEN = ROWS * WIDTH * 4  # bytes of float32
LAST = ROWS * OUTPUTS * 4
KERNELS_OF_A_TABLE = (
    *("number", "embed", "embed_gradient"),
    *("penalise_rows", "squared_norm_rows", "update_rows"),
)
# Weights and biases, each at the next multiple of 32 elements.
ARENA = (416 + 32 + 256 + 32) * 4


def moved(pixels: bool, activation: str, loss: str, optimizer: str, dropout: float = 0.0) -> dict[str, int]:
    variant = Variant(pixels, activation, loss, optimizer, (), ROWS, WIDTH, OUTPUTS, dropout, penalty=True)
    return {name: kernel.moved() for name, kernel in record(variant, select("cpu").backend).items()}


def test_bytes_of_a_step_with_pixels_relu_and_adam() -> None:
    labels, order, bias = ROWS * 4, ROWS * 8, WIDTH * 4
    found = moved(True, "relu", "cross_entropy", "adam")
    assert found == {
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
    found = moved(False, "gelu", "mse", "sgd")
    # Targets are read and written by the gather, and read by the loss.
    assert found["gather"] == HIDDEN + ROWS * 8 + LAST + HIDDEN + LAST
    # GELU's derivative asks for z, which stays beside the activation.
    assert found["forward"] == HIDDEN + WIDTH * 4 + 2 * HIDDEN
    assert found["elementwise_loss"] == 2 * LAST + OUTPUTS * 4 + LAST + OUTPUTS * 4
    assert found["update"] == 3 * ARENA


@pytest.mark.parametrize(("optimizer", "arrays"), [("momentum", 5), ("sgd", 3), ("adam", 7)])
def test_bytes_of_dropout_and_of_the_optimizers(optimizer: str, arrays: int) -> None:
    found = moved(False, "relu", "binary_cross_entropy", optimizer, dropout=0.2)
    mask = ROWS * WIDTH
    assert found["forward"] == HIDDEN + WIDTH * 4 + HIDDEN + mask
    assert found["backward"] == 2 * HIDDEN + mask + HIDDEN + WIDTH * 4
    assert found["update"] == arrays * ARENA


def test_bytes_of_an_embedding_are_those_of_the_rows_seen() -> None:
    table, bag = 50, 3
    variant = Variant(
        False, None, "cross_entropy", "adam", (), ROWS, WIDTH, OUTPUTS, penalty=True, bag=bag, table=table
    )
    kernels = record(variant, select("cpu").backend)
    ids = np.random.default_rng(2).integers(0, table, ROWS * bag)
    seen = len(np.unique(ids))
    assert int(kernels["embed"].arguments["seen"][0]) == seen < ROWS * bag
    found = {name: kernels[name].moved(seen) for name in kernels if name in KERNELS_OF_A_TABLE}
    tokens, order, starts, totals = ROWS * bag * 4, ROWS * 8, (ROWS + 1) * 8, ROWS * 4
    rows, numbers = seen * WIDTH * 4, seen * 4
    assert found == {
        # Each id, where each row's begin, and the rows' order in; each token's row of the batch and of those
        # seen, and each row seen with its first token out.
        "number": tokens + starts + order + 2 * tokens + 2 * numbers,
        "embed": rows + tokens + starts + order + HIDDEN + totals,
        # On a GPU each token says its row, on the host the rows' order and starts do: both are counted.
        "embed_gradient": HIDDEN + 2 * tokens + numbers + starts + order + totals + rows,
        "penalise_rows": 3 * rows + numbers,
        "squared_norm_rows": rows,
        # Vectors, gradient and both moments in; vectors and moments out.
        "update_rows": 7 * rows + numbers,
    }
