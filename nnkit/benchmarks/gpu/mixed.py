"""Mixed precision: steps against their products, float32 and PyTorch's AMP; memory; what is learnt."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from nnkit.benchmarks.contest import NNKIT, hold_contest
from nnkit.benchmarks.figures import Aim, Failure, Figure, Part
from nnkit.benchmarks.gpu.settings import Settings, data_folder
from nnkit.benchmarks.gpu.widths import HALVES, narrower_parts, title, wide_problem, widest_parts
from nnkit.benchmarks.problem import PIXELS, Problem, generate_problem, training_step
from nnkit.benchmarks.timing import Spread, ratio, spread
from nnkit.nn.layers import Dense
from nnkit.nn.network import Network
from nnkit.training.precision import half_of

__all__ = ["parts", "small_network"]

_EAGER, _COMPILED = "PyTorch eager", ("PyTorch compiled, reduce-overhead", "PyTorch compiled, max-autotune")
_SMALL_RATE = 1e-5
_SEEDS = 3


def parts(settings: Settings) -> list[Part]:
    """Return the widest network, memory, overflows, accuracy, the other widths and the contests.

    What an aim is set on comes first, and last the contests, which compile for as long as they are let.
    """
    halves = _halves(settings)
    wide, small = partial(wide_problem, settings), partial(_small, settings)
    contests = [
        Part(
            f"PyTorch AMP, {what}, {name}",
            partial(_contest, settings, problem, what, name, aims, share),
            math.inf,
        )
        for what, problem, name, aims, share in (
            ("784-512-512-10, batch 1024", small, "fp16", (Aim(">=", 5.0), None), 0.65),
            (title(settings), wide, "fp16", (Aim(">=", 1.1), Aim(">=", 1.0)), 0.85),
            (title(settings), wide, "bf16", (None, None), 1.0),
        )
        if name in halves
    ]
    learnt = [
        Part(f"{data}, three seeds", partial(_learnt, settings, data, metric, aim), seconds=120.0)
        for data, metric, aim in (("mnist", "accuracy", 0.002), ("california_housing.csv", "r2", 0.005))
    ]
    overflows = [Part("overflow", partial(_overflow, settings)), Part("logits", partial(_logits, settings))]
    return [
        *widest_parts(settings),
        Part("memory of activations", partial(_memory, settings)),
        *(overflows if "fp16" in halves else []),
        *learnt,
        *narrower_parts(settings),
        *contests,
    ]


def _halves(settings: Settings) -> list[str]:
    return [name for name in HALVES if name in settings.backend().precisions]


def small_network(settings: Settings) -> tuple[tuple[int, ...], int]:
    """Return the layers of the network that is not wide, and its batch."""
    hidden = settings.size(512, 8)
    return (PIXELS, hidden, hidden, 10), settings.size(1024, 16)


def _small(settings: Settings) -> Problem:
    return generate_problem(*small_network(settings), settings.size(58, 3), _SMALL_RATE)


def _memory(settings: Settings) -> Iterator[Figure]:
    """What the forward pass leaves for the backward pass, in bytes of the buffers that are allocated."""
    problem = _small(settings)
    held = {
        name: training_step(problem, settings.backend(name), half=half_of(name)).passes.activation_bytes
        for name in ("fp32", *_halves(settings))
    }
    for name, count in held.items():
        yield Figure(f"activations of 784-512-512-10, {name}", "B", _one(count))
        if name != "fp32":
            aim = Aim("<=", 0.55)
            yield Figure(f"activations' memory, {name} over fp32", "", _one(count / held["fp32"]), aim)


def _learnt(settings: Settings, data: str, metric: str, allowed: float) -> Iterator[Figure]:
    """Whole trainings by the command line's own code; the held-out metric in float32 and in 16 bits."""
    folder = data_folder()
    found = folder is not None and (folder / data).exists() and not settings.quick
    source = str(folder / data) if folder and found else {"accuracy": "digits", "r2": "diabetes"}[metric]
    whole: list[float] = []
    for name in ("fp32", *_halves(settings)):
        told = {
            "data.train": source,
            "model.hidden": "[512, 512]" if metric == "accuracy" else "[128, 64]",
            "training.epochs": str(settings.size(10, 1)),
            "run.device": settings.device,
            "run.precision": name,
        }
        if found and metric == "r2":
            told["data.target"] = "median_house_value"
        reached = [_train(told, seed, f"validation_{metric}") for seed in range(settings.size(_SEEDS, 1))]
        details = {"source": Path(source).name, "of each seed": reached}
        yield Figure(f"{data}: {metric}, {name}", "", spread(np.array(reached)), details=details)
        if name == "fp32":
            whole = reached
            continue
        apart = abs(float(np.mean(reached)) - float(np.mean(whole)))
        yield Figure(f"{data}: mean {metric}, {name} from fp32", "", _one(apart), Aim("<=", allowed))


def _train(told: dict[str, str], seed: int, metric: str) -> float:
    """Train as the command line does; return the last epoch's metric."""
    from nnkit.runs.config import Config
    from nnkit.runs.run import Run

    with tempfile.TemporaryDirectory() as out:
        settings = {**told, "run.seed": str(seed), "run.out": str(Path(out) / "run")}
        run = Run(Config().with_overrides([f"{key}={value}" for key, value in settings.items()]))
        run.train()
        return float(run.trainer.history[metric][-1])


def _overflow(settings: Settings) -> Iterator[Figure]:
    """A training with a row that float16 cannot hold: its batch is skipped in each epoch, and it goes on."""
    from nnkit.training.trainer import Trainer

    X, y = _table()
    X[17] *= 1e6
    network = Network([Dense(64, "relu"), Dense(64, "relu"), Dense(5)])
    trainer = Trainer(network, "cross_entropy", device=settings.device, precision="fp16")
    history = trainer.fit(X, y, epochs=10, batch_size=64)
    details = {"rows": history.rows}
    skipped = _one(history["skipped_steps"][-1])
    yield Figure("overflow: updates skipped in 10 epochs", "", skipped, Aim(">=", 10.0), details)
    fallen = float(history["loss"][-1] / history["loss"][0])
    yield Figure("overflow: last epoch's loss over the first's", "", _one(fallen), Aim("<=", 0.8))


def _logits(settings: Settings) -> Iterator[Figure]:
    """Logits alone beyond float16's 65504, which are kept in float32: the loss is finite and falls."""
    from nnkit.training.trainer import Trainer

    X, y = _table()
    network = Network([Dense(64, "relu"), Dense(5)], inputs=X.shape[1])
    network.set_parameters({"layers.1.weight": 3e4 * network.parameters()["layers.1.weight"]})
    greatest = float(abs(network.outputs(X)).max())
    trainer = Trainer(network, "cross_entropy", device=settings.device, precision="fp16")
    history = trainer.fit(X, y, epochs=10, batch_size=64)
    yield Figure("logits beyond float16: greatest before training", "", _one(greatest), Aim(">=", 65_504))
    fallen = float(history["loss"][-1] / history["loss"][0])
    details = {"rows": history.rows}
    yield Figure("logits beyond float16: last loss over the first", "", _one(fallen), Aim("<=", 0.8), details)


def _table() -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(1024, 20)).astype(np.float32)
    return X, X[:, :5].argmax(axis=1)


def _contest(
    settings: Settings,
    problem: partial[Problem],
    title: str,
    precision: str,
    aims: tuple[Aim | None, ...],
    share: float,
) -> Iterator[Figure | Failure]:
    names = [NNKIT, *((_EAGER, *_COMPILED) if settings.peers else ())]
    deadline, finish = settings.contest_times(share)
    outcome = hold_contest(
        names, problem(), settings.device, precision, settings.repeats, deadline, finish=finish
    )
    yield from outcome.failures
    for name, seconds in outcome.seconds.items():
        details = {**outcome.details[name], "loss of the first epoch's last step": outcome.losses[name]}
        yield Figure(f"{name}, {title}, {precision}", "s", spread(seconds), details=details)
    for group, aim in zip(((_EAGER,), _COMPILED), aims, strict=True):
        present = [name for name in group if name in outcome.seconds]
        if present and NNKIT in outcome.seconds:
            best = min(present, key=lambda name: float(np.median(outcome.seconds[name])))
            over = ratio(outcome.seconds[best], outcome.seconds[NNKIT])
            yield Figure(f"speed against {best} with AMP, {title}, {precision}", "", over, aim)


def _one(value: float) -> Spread:
    return Spread(float(value), float(value), float(value), 1)
