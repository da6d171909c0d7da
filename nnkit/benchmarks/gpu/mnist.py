"""From the shell's prompt to a network that knows MNIST: whole processes, the kernels compiled or not."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np

from nnkit.benchmarks.figures import Aim, Figure, Part
from nnkit.benchmarks.generated import write_images
from nnkit.benchmarks.gpu.settings import Settings, data_folder
from nnkit.benchmarks.timing import Spread, spread
from nnkit.errors import FileError

__all__ = ["parts"]

# Five epochs give 98.3 % and more on a CPU, whichever the seed; no rows are held out.
_OPTIONS = ("--hidden", "512,512", "--epochs", "5", "--validation", "0")


def parts(settings: Settings) -> list[Part]:
    """Return one training that compiles its kernels, then several that find them compiled."""
    return [Part("MNIST", partial(_trainings, settings), math.inf)]


def _trainings(settings: Settings) -> Iterator[Figure]:
    details = {"command": f"nnkit train mnist {' '.join(_OPTIONS)} --device {settings.device}"}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        data = _pixels(settings, scratch / "data")
        cold, _ = _train(settings, data, scratch, 0)
        first = Spread(cold, cold, cold, 1)
        yield Figure("nnkit train, whole process, nothing compiled", "s", first, details=details)
        runs = [_train(settings, data, scratch, 0)]
        for seed in range(1, settings.size(5, 1)):
            if time.monotonic() < settings.deadline(0.8):
                runs.append(_train(settings, data, scratch, seed))
    seconds = spread(np.array([seconds for seconds, _ in runs]))
    accuracies = spread(np.array([accuracy for _, accuracy in runs]))
    yield Figure("nnkit train, whole process, kernels cached", "s", seconds, Aim("<=", 5.0), details)
    yield Figure("its test accuracy", "%", accuracies, Aim(">=", 0.98))


def _train(settings: Settings, data: Path, scratch: Path, seed: int) -> tuple[float, float]:
    """Train in a process of its own; return its seconds and the accuracy on the test set."""
    folder = scratch / f"run-{len(list(scratch.glob('run-*')))}"
    arguments = ["train", str(data), *_OPTIONS, "--device", settings.device, "--seed", str(seed)]
    command = [sys.executable, "-c", "from nnkit.cli import main; main()", *arguments, "--out", str(folder)]
    # Every cache of compiled code in a folder of this measurement's: nnkit's, CuPy's and the driver's.
    caches = {
        "NNKIT_CACHE": str(scratch / "kernels"),
        "CUPY_CACHE_DIR": str(scratch / "cupy"),
        "CUDA_CACHE_PATH": str(scratch / "driver"),
    }
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **caches}, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"nnkit train ended with status {done.returncode}: {done.stderr[-2000:]}")
    from nnkit.model import load

    return seconds, float(load(folder / "model.safetensors").details["metrics"]["test"]["accuracy"])


def _pixels(settings: Settings, folder: Path) -> Path:
    if settings.quick:
        return _generated(folder)
    found = data_folder()
    if found is None or not (found / "mnist").is_dir():
        raise FileError(
            "there is no MNIST: bring its four IDX files (11 MB) along in a folder mnist, and set "
            "NNKIT_BENCH_DATA to the folder that holds it"
        )
    return found / "mnist"


@cache
def _generated(folder: Path) -> Path:
    return write_images(folder, 300, 50, side=4)
