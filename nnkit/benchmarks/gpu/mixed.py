"""Mixed precision: steps against their products, float32 and PyTorch's AMP; memory; what is learnt."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from nnkit.benchmarks.contest import NNKIT, hold_contest
from nnkit.benchmarks.figures import Aim, Failure, Figure, Part
from nnkit.benchmarks.gpu.settings import Settings, data_folder, timed_in_turns
from nnkit.benchmarks.problem import PIXELS, Problem, generate_problem, training_step
from nnkit.benchmarks.timing import Spread, ratio, spread
from nnkit.core.layers import Dense
from nnkit.core.network import Network
from nnkit.training.precision import half_of

__all__ = ["parts"]

_EAGER, _COMPILED = "PyTorch eager", ("PyTorch compiled, reduce-overhead", "PyTorch compiled, max-autotune")
_SMALL_RATE = 1e-5
_SEEDS = 3


def parts(settings: Settings) -> list[Part]:
    """Return the wide network, memory, accuracy, an overflow and the contests."""
    halves = _halves(settings)
    wide, small = partial(_wide, settings), partial(_small, settings)
    contests = [
        Part(f"PyTorch AMP, {title}, {name}", partial(_contest, settings, problem, title, name, aims, share))
        for title, problem, name, aims, share in (
            ("784-512-512-10", small, "fp16", (Aim(">=", 5.0), None), 0.5),
            (_title(settings), wide, "fp16", (Aim(">=", 1.1), Aim(">=", 1.0)), 0.8),
            (_title(settings), wide, "bf16", (None, None), 1.0),
        )
        if name in halves
    ]
    learnt = [
        Part(f"{data}, three seeds", partial(_learnt, settings, data, metric, aim))
        for data, metric, aim in (("mnist", "accuracy", 0.002), ("california_housing.csv", "r2", 0.005))
    ]
    return [
        Part(f"{_title(settings)}, all precisions", partial(_rates, settings)),
        Part("memory of activations", partial(_memory, settings)),
        *learnt,
        *([Part("overflow", partial(_overflow, settings))] if "fp16" in halves else []),
        *contests,
    ]


def _halves(settings: Settings) -> list[str]:
    return [name for name in ("fp16", "bf16") if name in settings.backend().precisions]


def _title(settings: Settings) -> str:
    width = settings.size(8192, 16)
    return f"four hidden layers of {width}, batch {width}"


@cache
def _wide_problem(width: int, steps: int) -> Problem:
    return generate_problem((PIXELS, *[width] * 4, 10), width, steps)


def _wide(settings: Settings) -> Problem:
    return _wide_problem(settings.size(8192, 16), settings.size(3, 2))


def _small(settings: Settings) -> Problem:
    hidden = settings.size(512, 8)
    return generate_problem(
        (PIXELS, hidden, hidden, 10), settings.size(1024, 16), settings.size(58, 3), _SMALL_RATE
    )


def _work(problem: Problem) -> float:
    """The operations of a step's products: forward, by the weights, and by all inputs but the first."""
    sizes = [inputs * outputs for inputs, outputs in pairwise(problem.widths)]
    return 2.0 * problem.batch_size * (3 * sum(sizes) - sizes[0])


def _rates(settings: Settings) -> Iterator[Figure]:
    """Forward, backward and Adam in each precision, and a product of the same width in it, all in turns."""
    problem, names = _wide(settings), ["fp32", *_halves(settings)]
    width, steps = problem.batch_size, problem.steps
    runs, products = [], []
    for name in names:
        backend, half = settings.backend(name), half_of(name)
        runs.append(partial(training_step(problem, backend, half=half).run, 0, steps))
        dtype = np.dtype(np.float32) if half is None else half.dtype
        a, b = (backend.from_host(_random(width).astype(dtype)) for _ in range(2))
        program = backend.program([backend.matmul(a, b, backend.empty((width, width), dtype))])
        products.append(program.run)
    seconds = timed_in_turns(settings.backend(), [*runs, *products], settings.repeats)
    taken = dict(zip(names, (time / steps for time in seconds[: len(names)]), strict=True))
    rates = dict(zip(names, (2.0 * width**3 / time for time in seconds[len(names) :]), strict=True))
    for name in names:
        details = {"flop": _work(problem), "product": {"FLOP/s": float(np.median(rates[name]))}}
        yield Figure(f"{_title(settings)}, {name}", "s", spread(taken[name]), details=details)
        share = _work(problem) / taken[name] / rates[name]
        aim = Aim(">=", 0.7) if name == "fp16" else None
        yield Figure(f"{_title(settings)}, {name}: share of its products' rate", "%", spread(share), aim)
        if name != "fp32":
            over = ratio(taken["fp32"], taken[name])
            yield Figure(f"{_title(settings)}: {name} over fp32", "", over, Aim(">=", 6.0))


def _random(width: int) -> np.ndarray:
    block = np.random.default_rng(0).standard_normal(min(width * width, 2**20 - 3), dtype=np.float32)
    return np.resize(block, (width, width))


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
    from nnkit.config import Config
    from nnkit.training.run import Run

    folder = data_folder()
    found = folder is not None and (folder / data).exists() and not settings.quick
    source = str(folder / data) if folder and found else {"accuracy": "digits", "r2": "diabetes"}[metric]
    seeds = range(settings.size(_SEEDS, 1))
    reached: dict[str, list[float]] = {}
    for name in ("fp32", *_halves(settings)):
        for seed in seeds:
            with tempfile.TemporaryDirectory() as out:
                told = {
                    "data.train": source,
                    "model.hidden": "[512, 512]" if metric == "accuracy" else "[128, 64]",
                    "training.epochs": str(settings.size(10, 1)),
                    "run.device": settings.device,
                    "run.precision": name,
                    "run.seed": str(seed),
                    "run.out": str(Path(out) / "run"),
                }
                if found and metric == "r2":
                    told["data.target"] = "median_house_value"
                run = Run(Config().with_overrides([f"{key}={value}" for key, value in told.items()]))
                run.train()
                reached.setdefault(name, []).append(float(run.trainer.history[f"validation_{metric}"][-1]))
    for name, values in reached.items():
        yield Figure(f"{data}: {metric}, {name}", "", spread(np.array(values)), details={"source": source})
        if name != "fp32":
            apart = abs(float(np.mean(values)) - float(np.mean(reached["fp32"])))
            yield Figure(f"{data}: mean {metric}, {name} from fp32", "", _one(apart), Aim("<=", allowed))


def _overflow(settings: Settings) -> Iterator[Figure]:
    """A training with a row that float16 cannot hold: its batch is skipped in each epoch, and it goes on."""
    from nnkit.training.trainer import Trainer

    random = np.random.default_rng(0)
    X = random.normal(size=(1024, 20)).astype(np.float32)
    y = X[:, :5].argmax(axis=1)
    X[17] *= 1e6
    network = Network([Dense(64, "relu"), Dense(64, "relu"), Dense(5)])
    trainer = Trainer(network, "cross_entropy", device=settings.device, precision="fp16")
    history = trainer.fit(X, y, epochs=10, batch_size=64)
    details = {"rows": history.rows}
    skipped = _one(history["skipped_steps"][-1])
    yield Figure("overflow: updates skipped in 10 epochs", "", skipped, Aim(">=", 10.0), details)
    fallen = float(history["loss"][-1] / history["loss"][0])
    yield Figure("overflow: last epoch's loss over the first's", "", _one(fallen), Aim("<=", 0.8))


def _contest(
    settings: Settings,
    problem: partial[Problem],
    title: str,
    precision: str,
    aims: tuple[Aim | None, ...],
    share: float,
) -> Iterator[Figure | Failure]:
    names = [NNKIT, *((_EAGER, *_COMPILED) if settings.peers else ())]
    times = settings.contest_times(share)
    outcome = hold_contest(names, problem(), settings.device, precision, settings.repeats, **times)
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
