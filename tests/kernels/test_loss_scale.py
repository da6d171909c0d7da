"""Dynamic loss scaling: the formula against an independent model of it, and the update's kernel around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_devices import HostDevice

from nnkit.kernels import formulas
from nnkit.kernels.layout import (
    BATCH,
    CLEAN_STEPS,
    COUNTERS,
    LOSS_SCALE,
    SCALARS,
    SCALING,
    SKIPPED_STEPS,
    SQUARED_NORM,
    STEP,
    WEIGHT_SUM,
)


@dataclass
class Model:
    """What is asked for: start at 65536, halve on overflow, double after 2000 clean steps."""

    scale: int = 65536
    clean: int = 0

    def step(self, overflowed: bool) -> None:
        if overflowed:
            self.scale = max(self.scale // 2, 1)
            self.clean = 0
            return
        self.clean += 1
        if self.clean == 2000:
            self.scale = min(self.scale * 2, 2**64)
            self.clean = 0


def run(history: list[tuple[bool, int]]) -> tuple[list[tuple[float, float]], Model]:
    """Go through stretches of steps that overflow or do not; give what the formula said, and a model."""
    scale, clean, model, said = formulas.FIRST_LOSS_SCALE, 0.0, Model(), []
    for overflowed, length in history:
        for _ in range(length):
            scale, clean = formulas.scale_after(overflowed, scale, clean)
            model.step(overflowed)
            assert (scale, clean) == (model.scale, model.clean)
        said.append((scale, clean))
    return said, model


def test_an_overflow_at_the_first_step_halves() -> None:
    assert run([(True, 1)])[0] == [(32768.0, 0.0)]


def test_it_doubles_after_2000_clean_steps_and_not_before() -> None:
    assert run([(False, 1999), (False, 1), (False, 2000)])[0] == [(65536, 1999), (131072, 0), (262144, 0)]


def test_an_overflow_begins_the_count_of_clean_steps_anew() -> None:
    assert run([(False, 1999), (True, 1), (False, 1999), (False, 1)])[0] == [
        (65536, 1999),
        (32768, 0),
        (32768, 1999),
        (65536, 0),
    ]


def test_it_falls_to_1_and_no_further_and_grows_again() -> None:
    assert run([(True, 16), (True, 5), (False, 4000)])[0] == [(1, 0), (1, 0), (4, 0)]


def test_it_stays_where_float32_can_divide_by_it() -> None:
    (scale, _), *_ = run([(False, 2000 * 60)])[0]
    assert scale == 2.0**64
    assert 0 < np.float32(1 / scale) >= np.finfo(np.float32).tiny


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([1, 2, 7, 500, 1999, 2000, 2001])), max_size=12))
def test_it_is_the_model_after_any_history(history: list[tuple[bool, int]]) -> None:
    _, model = run(history)
    assert model.scale >= 1
    assert model.scale & (model.scale - 1) == 0, "a power of two: scaling loses no bit"


def arguments(norm: float, weight: float = 4.0, scale: float = 8.0, clean: float = 0.0) -> dict:
    scalars, scaling = np.zeros(SCALARS), np.zeros(SCALING)
    scalars[WEIGHT_SUM], scalars[SQUARED_NORM] = weight, norm
    scaling[LOSS_SCALE], scaling[CLEAN_STEPS], scaling[SKIPPED_STEPS] = scale, clean, 3
    return {
        "values": np.full(64, 2, np.float32),
        "gradients": np.full(64, 16, np.float32),
        "segments": np.array([[0, 45, 0]]),
        "copy": np.zeros(256, np.float32),
        "copies": np.array([[64, 5, 8]]),
        "counters": np.array([0, 5, 7])[:COUNTERS],
        "rates": np.full(9, 0.5),
        "scalars": scalars,
        "scaling": scaling,
        "batch_size": 4,
        "clip_norm": np.float64(0.0),
        "weight_decay": 0.0,
    }


CONSTANTS = {"SLOTS": 0, "CLIP": False, "PREPARED": False, "FOLDED": False, "RESCALED": True, "COPIED": True}


def update(device: HostDevice, given: dict) -> None:
    device.run("update", "float32", {"rule": formulas.sgd}, CONSTANTS, given)


def test_an_update_divides_by_the_scale_and_writes_both_copies(device: HostDevice) -> None:
    given = arguments(1.0)
    update(device, given)
    # 2 − ½ · 16/8
    assert np.all(given["values"][:45] == 1)
    assert np.all(given["values"][45:] == 2)
    copy = given["copy"][64 : 64 + 72].reshape(9, 8)
    assert np.all(copy[:, :5] == 1)
    assert not copy[:, 5:].any(), "the padding is touched"
    assert not given["copy"][:64].any()
    assert not given["copy"][64 + 72 :].any()
    assert list(given["counters"]) == [0, 6, 8]
    assert list(given["scaling"]) == [8, 1, 3]


@pytest.mark.parametrize("norm", [np.inf, np.nan])
def test_an_overflow_skips_the_update_and_the_optimizers_step_alone(device: HostDevice, norm: float) -> None:
    given = arguments(norm, clean=1999)
    update(device, given)
    assert np.all(given["values"] == 2)
    assert not given["copy"].any()
    assert given["counters"][BATCH] == 6
    assert given["counters"][STEP] == 7
    assert list(given["scaling"]) == [4, 0, 4]


def test_the_2000th_clean_step_doubles_after_its_own_update(device: HostDevice) -> None:
    given = arguments(1.0, clean=1999)
    update(device, given)
    assert np.all(given["values"][:45] == 1)
    assert list(given["scaling"]) == [16, 0, 3]


def test_a_batch_that_weighs_nothing_says_nothing_of_the_scale(device: HostDevice) -> None:
    given = arguments(np.nan, weight=0.0, clean=1999)
    update(device, given)
    assert np.all(given["values"] == 2)
    assert list(given["counters"]) == [0, 6, 7]
    assert list(given["scaling"]) == [8, 1999, 3]


@pytest.mark.parametrize("width", [8, 5])
def test_parameters_are_copied_to_their_places(device: HostDevice, width: int) -> None:
    given = arguments(1.0)
    given["values"] = np.arange(64, dtype=np.float32)
    given["segments"] = np.array([[0, 40, 0], [40, 40 + width, 0]])
    given["copies"] = np.array([[0, width, 8], [128, width, 8]])
    device.run("copy_parameters", "float32", {}, {}, given)
    expected = np.zeros(256, np.float32)
    rows = 40 // width
    expected[: 8 * rows].reshape(rows, 8)[:, :width] = np.arange(40).reshape(rows, width)
    expected[128 : 128 + width] = np.arange(40, 40 + width)
    assert np.array_equal(given["copy"], expected)


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_norm_is_that_of_the_gradient_without_the_scale(device: HostDevice, scale: float) -> None:
    given = arguments(0.0, scale=scale)
    given["gradients"] = np.random.default_rng(0).normal(size=64).astype(np.float32) * np.float32(scale)
    device.run("squared_norm", "float32", {}, {"RESCALED": True}, given)
    expected = np.sum((given["gradients"][:45].astype(np.float64) / scale) ** 2)
    assert given["scalars"][SQUARED_NORM] == pytest.approx(expected, rel=1e-12)
    given["gradients"][44] = np.inf
    device.run("squared_norm", "float32", {}, {"RESCALED": True}, given)
    assert given["scalars"][SQUARED_NORM] == np.inf
