"""Time MNIST from the shell's prompt to a trained network, beside other libraries: `python bench/shell.py`.

nnkit and the scripts in bench/shell train 784-512-512-10 for two epochs in batches of 128 with Adam, the
rate falling from 2e-3 by a cosine (scikit-learn has no schedule). In turns, each a process from its start
to its end, imports and compiling included, with whatever it keeps between processes kept. Ratios are of
turns. MNIST is read from ../shared/data/mnist.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from program import BENCH, DATA, is_installed, parser, require, run_python, save

from nnkit.bench.records import Aim, Record, measured

NNKIT, TORCH, JAX, SCIKIT_LEARN = "nnkit", "PyTorch eager", "JAX", "scikit-learn"
OPTIONS = "--hidden 512,512 --epochs 2 --learning-rate 2e-3 --validation 0 --device cpu"
MODULES = {TORCH: "torch", JAX: "jax", SCIKIT_LEARN: "sklearn"}
SLOWER = {TORCH: Aim(">=", 3.0), JAX: Aim(">=", 3.0)}
SMALLER = {TORCH: Aim("<=", 0.5)}


def commands(scratch: Path) -> dict[str, list[str]]:
    """Return the arguments of Python by contender."""
    mnist, scripts = str(DATA / "mnist"), BENCH / "shell"
    nnkit = ["-c", "from nnkit.cli import main; main()", "train", mnist, *OPTIONS.split()]
    return {
        NNKIT: [*nnkit, "--out", str(scratch / "run")],
        TORCH: [str(scripts / "pytorch_mnist.py"), mnist],
        JAX: [str(scripts / "jax_mnist.py"), mnist, str(scratch / "jax")],
        SCIKIT_LEARN: [str(scripts / "scikit_learn_mnist.py"), mnist],
    }


def race(turns: int) -> dict[str, np.ndarray]:
    """Return seconds, peak bytes and accuracies by contender, shape (3, turns); the first fills caches."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for _ in range(turns + 1):
            for name, arguments in commands(scratch).items():
                if name == NNKIT or is_installed(MODULES[name]):
                    ended = run_python(arguments, scratch / "nnkit")
                    # A peer prints nothing else; nnkit prints a table.
                    said = re.search(r"(?:^|│ accuracy +│ +)(0\.\d+)", ended.printed, re.MULTILINE)
                    assert said is not None, ended.printed
                    found.setdefault(name, []).append((ended.seconds, ended.peak, float(said[1])))
            shutil.rmtree(scratch / "run")
    return {name: np.array(runs[1:]).T for name, runs in found.items()}


def records(tiny: bool) -> Iterator[Record]:
    """Yield a record for each contender."""
    require("mnist")
    runs = race(1 if tiny else 5)
    own = runs[NNKIT]
    for name in commands(Path()):
        if name not in runs:
            yield Record("shell", name, skipped=f"{MODULES[name]} is not installed")
            continue
        taken, peak, accuracy = runs[name]
        figures = {
            "process": measured("s", taken),
            "peak memory": measured("B", peak),
            "accuracy": measured("%", accuracy, Aim(">=", 0.975)),
        }
        if name != NNKIT:
            figures["its time / nnkit's"] = measured("", taken / own[0], SLOWER.get(name))
            figures["nnkit's memory / its"] = measured("", own[1] / peak, SMALLER.get(name))
        details = {"seconds": taken.tolist(), "peak bytes": peak.tolist(), "accuracy": accuracy.tolist()}
        yield Record("shell", name, figures=figures, details=details)


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    title = "From the shell's prompt to a trained network"
    save(given, title, __doc__, records(given.tiny), ["torch", "jax"])
