"""The same training on both devices step by step, and twice on one device bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import select
from nnkit.backends.cupy import CupyBackend
from nnkit.backends.protocol import Backend
from nnkit.benchmarks.figures import Aim, Figure, Part
from nnkit.benchmarks.gpu.settings import Settings, data_folder
from nnkit.benchmarks.problem import PIXELS, Problem, generate_problem, training_step
from nnkit.benchmarks.timing import Spread, spread
from nnkit.engine.precision import HalfPrecision
from nnkit.feed.order import epoch_order
from nnkit.nn.layers import Dense
from nnkit.nn.network import Network

__all__ = ["DROPOUT", "KINDS", "Kind", "Trained", "differing", "parts", "relative", "train", "uncaptured"]

DROPOUT = 0.2
_STEPS = 100
_AIM = Aim("<=", 1e-4)
_TITLE = "greatest relative difference of all steps' losses: "


def uncaptured(backend: Backend) -> Backend:
    """Return the device with programs that are never captured; on a CPU none of them is."""
    return backend.uncaptured() if isinstance(backend, CupyBackend) else backend


@dataclass(frozen=True)
class Trained:
    """Every step's loss, and the arrays that a training ended with."""

    losses: NDArray[np.float64]
    arrays: dict[str, NDArray]


@dataclass(frozen=True)
class Kind:
    """The activation of the hidden layers, and the precision."""

    activation: str
    precision: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float64 if self.precision == "fp64" else np.float32)


# A rounding can turn a ReLU on in one training and off in another, after which the two part: the smooth
# activation and float64 show whether anything but that sets the devices apart.
KINDS = (Kind("relu", "fp32"), Kind("gelu", "fp32"), Kind("relu", "fp64"))


def parts(settings: Settings) -> list[Part]:
    """Return the CPU against the device, and the device against itself."""
    across = [
        Part(f"CPU against the device, {kind.activation}, {kind.precision}", partial(_across, settings, kind))
        for kind in KINDS
    ]
    return [
        *across,
        Part("the CPU against itself", partial(_sensitivity, settings)),
        Part("twice", partial(_twice, settings)),
        Part("captured against uncaptured", partial(_uncaptured, settings)),
    ]


def _across(settings: Settings, kind: Kind) -> Iterator[Figure]:
    problem, source = _problem(settings)
    ours = train(problem, settings.backend(), kind)
    host = train(problem, select("cpu").backend, kind)
    name = f"CPU against the device, {kind.activation}, {kind.precision}"
    apart = relative(ours, host)
    greatest, beyond = float(apart.max()), np.flatnonzero(apart > _AIM.value)
    details = {
        "data": source,
        "losses on the device": ours.losses.tolist(),
        "losses on the CPU": host.losses.tolist(),
        "first step beyond the aim": int(beyond[0]) if len(beyond) else None,
        "greatest before it": float(apart[: beyond[0]].max(initial=0.0)) if len(beyond) else greatest,
    }
    yield Figure(_TITLE + name, "", Spread(greatest, greatest, greatest, 1), _AIM, details)


def _sensitivity(settings: Settings) -> Iterator[Figure]:
    """How far the CPU's losses part from its own when each first weight moves by one rounding."""
    problem, source = _problem(settings)
    backend, generator = select("cpu").backend, np.random.default_rng(1)
    host = train(problem, backend)
    greatest = []
    for _ in range(settings.size(9, 2)):
        parameters = {
            name: np.nextafter(weights, generator.standard_normal(weights.shape, dtype=np.float32))
            for name, weights in problem.parameters.items()
        }
        changed = train(replace(problem, parameters=parameters), backend)
        greatest.append(float(relative(changed, host).max()))
    name = f"{_TITLE}CPU against itself, first weights one rounding off, relu, fp32"
    details = {"data": source, "greatest of each training": greatest}
    yield Figure(name, "", spread(np.array(greatest)), details=details)


def relative(ours: Trained, reference: Trained) -> NDArray[np.float64]:
    """Return the relative difference of each step's loss."""
    return np.abs(ours.losses - reference.losses) / np.abs(reference.losses)


def _twice(settings: Settings) -> Iterator[Figure]:
    problem, _ = _problem(settings)
    first, second = (train(problem, settings.backend()) for _ in range(2))
    yield from differing("two runs, values that differ", first, second)


def _uncaptured(settings: Settings) -> Iterator[Figure]:
    problem, _ = _problem(settings)
    captured = train(problem, settings.backend())
    apart = train(problem, uncaptured(settings.backend()))
    yield from differing("captured against uncaptured, values that differ", captured, apart)


def _problem(settings: Settings) -> tuple[Problem, str]:
    """What `Trainer(seed=0)` begins MNIST with, where the data are at hand; else generated pixels."""
    hidden, batch = settings.size(512, 8), settings.size(128, 16)
    widths, steps = (PIXELS, hidden, hidden, 10), settings.size(_STEPS, 4)
    folder = data_folder()
    if settings.quick or folder is None or not (folder / "mnist").is_dir():
        return generate_problem(widths, batch, steps), "generated pixels"
    from nnkit.data.sources.loading import load_dataset

    examples = load_dataset(str(folder / "mnist")).train
    pixels, labels = np.asarray(examples.features), np.asarray(examples.target).astype(np.int32)
    network = Network([Dense(hidden, "relu"), Dense(hidden, "relu"), Dense(10)], inputs=PIXELS, seed=0)
    weights = {name: array for name, array in network.parameters().items() if name.endswith("weight")}
    order = epoch_order(len(pixels), 0, 0)
    steps = -(-len(pixels) // batch)
    return Problem(widths, batch, steps, pixels, labels, order, weights, 1e-3), "MNIST"


def train(
    problem: Problem, backend: Backend, kind: Kind = KINDS[0], half: HalfPrecision | None = None
) -> Trained:
    """Train a step at a time; return every step's loss, the weights and the optimizer's state."""
    step = training_step(problem, backend, DROPOUT, kind.activation, kind.dtype, half)
    losses, before = [], step.read()
    for batch in range(min(problem.steps, _STEPS)):
        step.run(batch, 1)
        now = step.read()
        losses.append(now.since(before).loss)
        before = now
    state = {name: backend.to_host(array) for name, array in step.state.items()}
    return Trained(np.array(losses), {"values": backend.to_host(step.arena.values), **state})


def differing(name: str, first: Trained, second: Trained) -> Iterator[Figure]:
    """Count the values that are not the same bits in two trainings."""
    counts = {"losses": int(np.sum(first.losses != second.losses))}
    for key, array in first.arrays.items():
        # Compared as bytes: a NaN equals itself, and 0 does not equal -0.
        unlike = array.view(np.uint32) != second.arrays[key].view(np.uint32)
        counts[key] = int(np.sum(unlike))
    total = float(sum(counts.values()))
    yield Figure(name, "", Spread(total, total, total, 1), Aim("<=", 0.0), {"differing": counts})
