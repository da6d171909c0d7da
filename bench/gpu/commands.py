"""Sections `tests` and `mnist`, whole commands: the tests that need a GPU, and trainings from the prompt."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from gpu.aims import aim
from gpu.common import HALVES, Part, Settings, failure, found, real_data, run_command
from nnkit.bench.records import Aim, Record, measured, once
from nnkit.errors import FileError
from nnkit.model import load

_GRACE = 15.0  # seconds in which pytest ends its processes and writes what it has
# Five epochs give 98.3 % and more on a CPU, with any seed; no rows are held out.
_MNIST = ("--hidden", "512,512", "--epochs", "5", "--validation", "0")
_TINY = ("digits", "--hidden", "8", "--epochs", "1")


def test_parts(settings: Settings) -> list[Part]:
    """Return one part."""
    return [Part("pytest -m gpu", partial(run_tests, settings, gpu_test_paths()), 0.0)]


def run_tests(settings: Settings, paths: list[str]) -> Iterator[Record]:
    """Run the tests of some files; on a GPU it is a failure if none passes."""
    outcomes: dict[str, tuple[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        options = ["-q", "-n", "8", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", "-m", "gpu", *options, *paths]
        seconds = settings.deadline(1.0) - time.monotonic() - _GRACE - 5
        status, output = run_command(command, seconds, _GRACE)
        # A test that is interrupted has no name.
        for case in ElementTree.parse(report).iterfind(".//testcase[@name]") if report.exists() else ():
            name, ends = f"{case.get('classname')}::{case.get('name')}", {end.tag: end for end in case}
            outcome = next((tag for tag in ("error", "failure", "skipped") if tag in ends), "passed")
            outcomes[name] = (outcome, float(case.get("time", 0)))
            if outcome in ("error", "failure"):
                yield failure(name, (ends[outcome].text or "")[-1500:])
    counts = Counter(outcome for outcome, _ in outcomes.values())
    # Statuses that the counts tell as well: 1, tests failed, and 5, there are none.
    if status not in (0, 1, 5) or (settings.on_gpu and not counts["passed"]):
        yield failure("pytest -m gpu", f"{output}\n{counts['passed']} tests passed")
    figures = {name: once("", counts[name]) for name in ("passed", "skipped")}
    figures["failed"] = once("", counts["error"] + counts["failure"], aim("tests"))
    yield found("tests", figures, details={"tests": outcomes})


def gpu_test_paths() -> list[str]:
    """Return the test files with the mark `gpu`, and the folders whose conftest.py gives it to fixtures."""
    # Only what pytest collects itself: the simulated device's own checks would load its driver.
    files = sorted(file for name in ("test_*.py", "conftest.py") for file in Path("tests").rglob(name))
    marked = [file for file in files if "mark.gpu" in file.read_text("utf-8")]
    return [str(file.parent if file.name == "conftest.py" else file) for file in marked]


def mnist_parts(settings: Settings) -> list[Part]:
    """Return one training that compiles its kernels, then several that find them compiled."""
    return [Part("MNIST", partial(_trainings, settings), 0.0)]


def _trainings(settings: Settings) -> Iterator[Record]:
    data, tiny = real_data("mnist"), settings.size == "tiny"
    if data is None and not tiny:
        raise FileError("there is no MNIST: NNKIT_BENCH_DATA names a folder that holds it in a folder mnist")
    arguments = _TINY if tiny else (str(data), *_MNIST)
    with tempfile.TemporaryDirectory() as scratch:
        # Every cache of compiled code in a folder of this measurement's: nnkit's, CuPy's and the driver's.
        names = ("NNKIT_CACHE", "CUPY_CACHE_DIR", "CUDA_CACHE_PATH")
        caches = {name: str(Path(scratch) / name) for name in names}
        cold, _ = _train(arguments, settings.device, 0, **caches)
        yield found("nnkit train, nothing compiled", {"time": once("s", cold)})
        runs = [_train(arguments, settings.device, 0, **caches)]
        for seed in range(1, settings.choose(5, 1)):
            if time.monotonic() < settings.deadline(0.8):
                runs.append(_train(arguments, settings.device, seed, **caches))
    accuracies = np.array([metrics["validation" if tiny else "test"]["accuracy"] for _, metrics in runs])
    figures = {
        "time": measured("s", np.array([seconds for seconds, _ in runs]), aim("command")),
        "test accuracy": measured("%", accuracies, aim("accuracy")),
    }
    yield found("nnkit train, kernels cached", figures, details={"arguments": arguments[1:]})


def learnt(settings: Settings, name: str, metric: str, bound: Aim) -> Iterator[Record]:
    """Whole trainings: the metric of the held-out rows in float32 and in 16 bits."""
    data, images = None if settings.size == "tiny" else real_data(name), metric == "accuracy"
    source, epochs = str(data or ("digits" if images else "diabetes")), str(settings.choose(10, 1))
    arguments = [source, "--epochs", epochs, "--hidden", "512,512" if images else "128,64"]
    arguments += ["--target", "median_house_value"] if data and not images else []
    whole = 0.0
    for precision in ("fp32", *settings.supported(*HALVES)):
        told, seeds = (*arguments, "--precision", precision), range(settings.choose(3, 1))
        trained = [_train(told, settings.device, seed)[1]["validation"][metric] for seed in seeds]
        whole = float(np.mean(trained)) if precision == "fp32" else whole
        apart = once("", abs(float(np.mean(trained)) - whole), bound if precision in HALVES else None)
        figures = {metric: measured("", np.array(trained)), "from fp32": apart}
        yield found(f"held-out rows of {Path(source).name}", figures, precision)


def _train(arguments: Sequence[str], device: str, seed: int, **environment: str) -> tuple[float, Any]:
    """Train in a process of its own; return its seconds and the model's metrics."""
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-c", "from nnkit.cli import main; main()", "train", *arguments]
        options = ["--device", device, "--seed", str(seed), "--out", str(Path(folder) / "run")]
        began, given = time.perf_counter(), {**os.environ, **environment}
        done = subprocess.run([*program, *options], env=given, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            raise RuntimeError(f"nnkit train ended with status {done.returncode}: {done.stderr[-2000:]}")
        return seconds, load(Path(folder) / "run" / "model.safetensors").details["metrics"]
