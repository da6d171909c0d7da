"""NumPy's expressions compute what the fused kernels compute: neither is measured on less work."""

from __future__ import annotations

import numpy as np
import pytest

from nnkit.backends import select
from nnkit.backends.operations import Kernel
from nnkit.bench.kernels import EXPRESSIONS, Expression, kernels_of
from nnkit.bench.problem import generate_problem, training_step
from nnkit.kernels.layout import LOSS_SUM, SEGMENT_DECAYS, SEGMENT_START, SEGMENT_STOP

SIZES = pytest.mark.parametrize(("rows", "columns"), [(16, 16), (128, 256)])  # the second in shards


@SIZES
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_fused_and_unfused_agree(name: str, rows: int, columns: int) -> None:
    step = training_step(generate_problem((columns, columns, columns), rows, 1), select("cpu").backend)
    assert_agree(kernels_of(step, rows)[name], EXPRESSIONS[name])


def assert_agree(call: Kernel, expression: Expression, absolute: float = 2e-7) -> None:
    if call.name == "update":
        call = call.given(rates=np.full(1, 1e-6))
    arrays = {key: one for key, one in call.arguments.items() if isinstance(one, np.ndarray)}
    kept = {key: array.copy() for key, array in arrays.items()}
    expected = {key: np.array(values) for key, values in expression(call, np).items()}
    for key, values in kept.items():
        arrays[key][...] = values
    # What is only written must be written: a kernel that met no rows would leave it as it was.
    written = {one.name for one in call.declaration.writes(call.constants)}
    for key in written - {one.name for one in call.declaration.reads(call.constants)}:
        arrays[key][...] = 77
    if "scalars" in arrays:
        arrays["scalars"][LOSS_SUM] = 0.0
    select("cpu").backend.compile([call]).run()
    compared = written & set(expected)
    assert compared
    for key in compared:
        fused, plain = arrays[key], expected[key]
        if "segments" in arrays:
            segments = arrays["segments"]
            if call.name == "penalise":
                segments = segments[segments[:, SEGMENT_DECAYS] != 0]
            fused, plain = (
                np.concatenate([array[row[SEGMENT_START] : row[SEGMENT_STOP]] for row in segments])
                for array in (fused, plain)
            )
        np.testing.assert_allclose(fused, plain, rtol=2e-5, atol=absolute)
    if "loss" in expected:
        np.testing.assert_allclose(arrays["scalars"][LOSS_SUM], expected["loss"], rtol=1e-5)
