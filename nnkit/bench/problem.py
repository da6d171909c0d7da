"""The training problem of every benchmark: data, order of the rows, initial weights and learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.protocol import Backend
from nnkit.engine.objective import Penalty
from nnkit.engine.parameters import Arena
from nnkit.engine.places import parameter_name
from nnkit.engine.precision import HalfPrecision
from nnkit.engine.segments import segments_for
from nnkit.engine.step import Step
from nnkit.feed.batch import Placement, Rows
from nnkit.feed.features import Features
from nnkit.nn.layers import Dense, Dropout, Layer, place_layers
from nnkit.nn.losses import loss_from
from nnkit.nn.optimizers import Adam

__all__ = ["PIXELS", "Problem", "generate_problem", "last_loss_of_epoch", "training_step"]

PIXELS = 784
"""Rows of at least this width are uint8 pixels, narrower ones float32 numbers."""


@dataclass(frozen=True)
class Problem:
    """An epoch of a dense ReLU network with Adam (β₁ = 0.9, β₂ = 0.999, ε = 1e-8) and cross-entropy.

    Parameters
    ----------
    widths : tuple of int
        Inputs, hidden units, outputs.
    batch_size, steps : int
        Rows in a step, and steps in an epoch.
    inputs : ndarray of shape (rows, inputs), uint8 or float32
        Pixels are divided by 255.
    labels : ndarray of shape (rows,), int32
        Classes; 0 and 1 for one output, trained with binary cross-entropy.
    order : ndarray of shape (rows,), int64
        The order of the rows in every epoch.
    parameters : mapping of str to ndarray, float32
        Initial weights, ``layers.0.weight`` (in, out) and so on; biases begin at zero.
    learning_rate : float
        Constant.
    """

    widths: tuple[int, ...]
    batch_size: int
    steps: int
    inputs: NDArray
    labels: NDArray[np.int32]
    order: NDArray[np.int64]
    parameters: Mapping[str, NDArray[np.float32]]
    learning_rate: float

    @property
    def binary(self) -> bool:
        """Whether there is one output."""
        return self.widths[-1] == 1


def generate_problem(
    widths: tuple[int, ...], batch_size: int, steps: int, learning_rate: float = 1e-3
) -> Problem:
    """Return a problem that can be learned: a random linear teacher labels random rows."""
    generator = np.random.default_rng(0)
    rows = steps * batch_size
    inputs: NDArray = generator.standard_normal((rows, widths[0]), dtype=np.float32)
    if widths[0] >= PIXELS:
        inputs = generator.integers(0, 256, (rows, widths[0]), dtype=np.uint8)
    teacher = generator.standard_normal((widths[0], max(widths[-1], 2)), dtype=np.float32)
    centred = inputs.astype(np.float32) - inputs.mean(axis=0, dtype=np.float64).astype(np.float32)
    labels = (centred @ teacher).argmax(axis=1).astype(np.int32)
    order = generator.permutation(rows)
    parameters = {}
    for layer, (fan_in, units) in enumerate(pairwise(widths)):
        weights = generator.standard_normal((fan_in, units), dtype=np.float32)
        parameters[parameter_name(layer, "weight")] = weights * np.float32((2 / fan_in) ** 0.5)
    return Problem(widths, batch_size, steps, inputs, labels, order, parameters, learning_rate)


def training_step(
    problem: Problem,
    backend: Backend,
    dropout: float = 0.0,
    activation: str = "relu",
    dtype: DTypeLike = np.float32,
    half: HalfPrecision | None = None,
    placement: Placement = "device",
) -> Step:
    """Return nnkit's step for a problem, ready to run its first epoch.

    `dropout` and `activation` are the hidden layers'; `dtype` is float32 or float64; `half` says what is kept
    in 16 bits; `placement` is where the rows lie.
    """
    inputs, *hidden, outputs = problem.widths
    layers: list[Layer] = []
    for width in hidden:
        layers += [Dense(width, activation), Dropout(dropout)]
    places = place_layers([*layers, Dense(outputs)], inputs)
    arena = Arena(segments_for(places), backend, dtype)
    for name, values in problem.parameters.items():
        backend.write(arena.view(name), values)
    pixels = problem.inputs.dtype == np.uint8
    features = Features(problem.inputs, scale=np.full(inputs, 1 / 255) if pixels else None)
    targets = problem.labels.astype(dtype)[:, None] if problem.binary else problem.labels
    rows = Rows(backend, dtype, features, targets, shuffled=True, placement=placement)
    loss = loss_from("binary_cross_entropy" if problem.binary else "cross_entropy")
    optimizer = Adam(problem.learning_rate)
    step = Step(places, arena, loss, Penalty(), problem.batch_size, 0, optimizer, rows, half=half)
    step.begin_epoch(0, problem.order, np.full(problem.steps, problem.learning_rate))
    return step


def last_loss_of_epoch(step: Step, steps: int) -> float:
    """Train for `steps` steps of an epoch that has just begun; return the loss of the last one alone."""
    if steps > 1:
        step.run(0, steps - 1)
    before = step.read()
    step.run(steps - 1, 1)
    return step.read().since(before).loss
