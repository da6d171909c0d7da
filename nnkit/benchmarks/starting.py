"""Section `start`: importing, the first step ever, and the first step with the kernels in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.records import Record, measured

__all__ = ["cases"]

_IMPORTS = {
    "python alone": ["-c", "pass"],
    "import nnkit": ["-c", "import nnkit"],
    "nnkit --help": ["-c", "import sys; sys.argv = ['nnkit', '-h']; from nnkit.cli import main; main()"],
}
# One step of 784-512-512-10 from nothing; the process leaves when it is done.
_FIRST_STEP = """
import os, sys
import numpy as np
from nnkit import Adam, Dense, Network, Trainer

pixels = np.random.default_rng(0).integers(0, 256, (128, 784), np.uint8)
network = Network([Dense(512, "relu"), Dense(512, "relu"), Dense(10)])
trainer = Trainer(network, loss="cross_entropy", optimizer=Adam(1e-3), device=sys.argv[1])
trainer.fit(pixels, np.arange(128) % 10, epochs=1, batch_size=128)
os._exit(0)
"""
_EVER, _CACHED, _TRAIN = "first step ever", "first step, kernels cached", "nnkit train digits, kernels cached"


def cases(plan: Plan) -> list[Case]:
    """Return a case for each start; imports do not depend on the device and are measured with the CPU."""
    steps = [
        _case(plan, _EVER, partial(_first_step, plan, False)),
        _case(plan, _CACHED, partial(_first_step, plan, True)),
    ]
    if plan.on_gpu or plan.size == "tiny":
        return steps
    imports = [_case(plan, name, partial(_imports, plan, name)) for name in _IMPORTS]
    return [*imports, *steps, *plan.pick([_case(plan, _TRAIN, partial(_train, plan))], [], [])]


def _case(plan: Plan, name: str, measure: partial[Iterable[Record]]) -> Case:
    return Case(Record("start", name, plan.device), measure, limit=300.0)


def _imports(plan: Plan, name: str, blank: Record) -> Iterable[Record]:
    yield _timed(blank, [_seconds(_IMPORTS[name], {}) for _ in range(plan.pick(11, 5, 1))])


def _first_step(plan: Plan, cached: bool, blank: Record) -> Iterable[Record]:
    """Every cache of compiled code in a folder of its own: nnkit's, CuPy's and the driver's."""
    command = ["-c", _FIRST_STEP, plan.device]
    passed = []
    if cached:
        with _caches() as caches:
            _seconds(command, caches)
            passed += [_seconds(command, caches) for _ in range(plan.pick(11, 5, 1))]
    else:
        for _ in range(plan.pick(5, 1, 1)):
            with _caches() as caches:
                passed.append(_seconds(command, caches))
    yield _timed(blank, passed)


def _train(plan: Plan, blank: Record) -> Iterable[Record]:
    passed = []
    with _caches() as caches, tempfile.TemporaryDirectory() as scratch:
        for turn in range(-1, 5):
            arguments = ["train", "digits", "--device", plan.device, "--out", str(Path(scratch) / str(turn))]
            seconds = _seconds(["-c", "from nnkit.cli import main; main()", *arguments], caches)
            if turn >= 0:
                passed.append(seconds)
    yield _timed(blank, passed)


def _timed(blank: Record, seconds: list[float]) -> Record:
    details = {"of": "a whole process, from its start to its end"}
    return replace(blank, figures={"process": measured("s", np.array(seconds))}, details=details)


@contextmanager
def _caches() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        names = ("NNKIT_CACHE", "CUPY_CACHE_DIR", "CUDA_CACHE_PATH")
        yield {name: str(Path(folder) / name.lower()) for name in names}


def _seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Run Python; return the seconds from its start to its end."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"python ended with status {done.returncode}: {done.stderr[-1000:]}")
    return seconds
