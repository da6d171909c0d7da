"""The unfused expressions come to what the fused kernels come to: neither is measured on less work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnkit.backends import select
from nnkit.benchmarks.gpu.kernels import Variant, record
from nnkit.benchmarks.kernels import NETWORKS
from nnkit.benchmarks.unfused import unfused
from nnkit.kernels.layout import LOSS_SUM, SEGMENT_DECAYS, SEGMENT_START, SEGMENT_STOP

SIZE = 16
# Rows and columns; at the second, training parts a step among the cores.
SIZES = ((SIZE, SIZE), (128, 256))
CASES = [(network, kernel) for network in NETWORKS for kernel in network.kernels]
IDS = [network.name_of(kernel) for network, kernel in CASES]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize(("network", "kernel"), CASES, ids=IDS)
def test_fused_and_unfused_agree(network: Variant, kernel: str, rows: int, columns: int) -> None:
    backend = select("cpu").backend
    call = record(replace(network, rows=rows, width=columns, outputs=columns), backend)[kernel]
    if kernel == "update":
        call.arguments["rates"][:] = 1e-6
    expected = unfused(call, network.activation, network.loss, network.optimizer)()
    # What is only written must be written: a kernel that met no rows would leave it as it was.
    written = {one.name for one in call.declaration.writes(call.constants)}
    for name in written - {one.name for one in call.declaration.reads(call.constants)}:
        call.arguments[name][...] = 77
    if call.arguments.get("scalars") is not None:
        call.arguments["scalars"][LOSS_SUM] = 0.0
    backend.compile([call]).run()
    compared = 0
    for name, values in expected.items():
        # Dropout draws its own numbers; a loss and a norm stand among the scalars.
        if name in written and not (kernel == "forward" and network.dropout):
            fused, plain = call.arguments[name], values
            if "segments" in call.arguments:
                segments = call.arguments["segments"]
                if kernel == "penalise":
                    segments = segments[segments[:, SEGMENT_DECAYS] != 0]
                fused, plain = (trained(segments, array) for array in (fused, plain))
            # 1 + erf loses digits where it is near 0.
            absolute = 2e-6 if network.activation == "gelu" else 2e-7
            np.testing.assert_allclose(fused, plain, rtol=2e-5, atol=absolute)
            compared += 1
        if name == "loss":
            np.testing.assert_allclose(call.arguments["scalars"][LOSS_SUM], values, rtol=1e-5)
            compared += 1
    assert compared or kernel == "squared_norm" or network.dropout


def trained(segments: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Return the parts of an arena that are parameters."""
    return np.concatenate([array[row[SEGMENT_START] : row[SEGMENT_STOP]] for row in segments])


def test_a_recorded_step_stands_before_its_batch() -> None:
    # The update counts the batch: a gather that was recorded after it would find no rows.
    network = replace(NETWORKS[0], rows=SIZE, width=SIZE, outputs=SIZE)
    backend = select("cpu").backend
    call = record(network, backend)["gather"]
    backend.compile([call]).run()
    assert call.arguments["count"].tolist() == [SIZE]
