"""A training step against its floor: the same step's matrix products alone, measured in turns in one run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnkit.backends import select
from nnkit.benchmarks.timing import REST, Spread, in_turns, ratio, spread
from nnkit.engine.objective import Penalty
from nnkit.engine.step import Step
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.feed.order import epoch_order
from nnkit.nn.layers import Dense
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Adam

__all__ = ["StepTimes", "example_step", "measure_in_processes", "measure_step"]

_TURNS = 12  # in a process of several, with a rest before each


@dataclass(frozen=True)
class StepTimes:
    """What a step costs.

    Parameters
    ----------
    step, floor : Spread
        Seconds for one step, and for its matrix products alone.
    step_over_floor : Spread
        Turn by turn.
    """

    step: Spread
    floor: Spread
    step_over_floor: Spread

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StepTimes:
        """Return what `dataclasses.asdict` made a dictionary of."""
        return cls(**{name: Spread(**fields) for name, fields in value.items()})


def example_step(widths: Sequence[int], batch_size: int, steps: int, device: str = "cpu") -> Step:
    """Return a float32 step with ReLU, cross-entropy (binary for one output) and Adam on generated data.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden units, outputs. 784 inputs and more are uint8 pixels, fewer are float32.
    batch_size : int
        Rows a step.
    steps : int
        Batches in the data set.
    device : str
        As `nnkit.backends.select` takes it.
    """
    backend = select(device).backend
    inputs, *hidden, outputs = widths
    count, generator = steps * batch_size, np.random.default_rng(0)
    network = Network([*(Dense(width, "relu") for width in hidden), Dense(outputs)])
    network.initialize(inputs, backend=backend)
    if inputs >= 784:
        pixels = generator.integers(0, 256, (count, inputs), dtype=np.uint8)
        features = Features(pixels, scale=np.full(inputs, 1 / 255))
    else:
        features = Features(generator.standard_normal((count, inputs), dtype=np.float32))
    targets = generator.integers(0, max(outputs, 2), count).astype(np.int32)
    loss = loss_from("cross_entropy" if outputs > 1 else "binary_cross_entropy")
    encoded = targets if outputs > 1 else targets.astype(np.float32)[:, None]
    rows = Rows(backend, np.float32, features, encoded, shuffled=True)
    step = Step(network.places, network.arena, loss, Penalty(), batch_size, 0, Adam(1e-3), rows)
    step.begin_epoch(0, epoch_order(count, 0, 0), np.full(steps, 1e-3))
    return step


def measure_step(
    widths: Sequence[int], batch_size: int, steps: int, repeats: int = 30, device: str = "cpu"
) -> StepTimes:
    """Measure a step and its floor in turns, each turn `steps` steps long."""
    step = example_step(widths, batch_size, steps, device)
    products, backend = step.products(), step.arena.backend

    def run_steps() -> None:
        step.run(0, steps)
        backend.synchronize()

    def run_products() -> None:
        products.run(steps)
        backend.synchronize()

    whole, floor = in_turns([run_steps, run_products], repeats, rest=REST)
    return StepTimes(spread(whole / steps), spread(floor / steps), ratio(whole, floor))


def measure_in_processes(
    widths: Sequence[int], batch_size: int, steps: int, processes: int = 7
) -> list[StepTimes]:
    """Measure a step on the CPU in several processes of their own, one after the other.

    A shared machine has its slow minutes, which one process alone may fall into whole: the spread between
    processes is wider than within one.
    """
    code = (
        "import dataclasses, json, sys; from nnkit.benchmarks.steps import measure_step; "
        "print(json.dumps(dataclasses.asdict(measure_step(*json.loads(sys.argv[1])))))"
    )
    command = [sys.executable, "-c", code, json.dumps([list(widths), batch_size, steps, _TURNS])]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(processes)]
    return [StepTimes.from_json(run) for run in runs]
