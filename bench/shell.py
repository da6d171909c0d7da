"""Time MNIST from the shell's prompt to a trained network: `python bench/shell.py [NAME]` writes JSON.

nnkit and the scripts in bench/shell train 784-512-512-10 for two epochs in batches of 128 with Adam, the rate
falling from 2e-3 by a cosine (scikit-learn has no schedule), and say their accuracy on the test rows. In
turns, each a process of its own: the seconds from its start to its end, imports and compiling included, with
whatever it keeps between processes kept, and the peak of its resident memory. MNIST is read from
../shared/data/mnist, or from the folder NNKIT_BENCH_DATA.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BENCH = Path(__file__).resolve().parent
MNIST = Path(os.environ.get("NNKIT_BENCH_DATA") or BENCH.parents[1] / "shared" / "data") / "mnist"
NNKIT, ACCURACY, TURNS = "nnkit", 0.975, 5
OPTIONS = "--hidden 512,512 --epochs 2 --learning-rate 2e-3 --validation 0 --device cpu"
NEEDS = {"PyTorch eager": "torch", "JAX": "jax", "scikit-learn": "scikit-learn"}
FASTER, SMALLER = 3.0, 0.5  # aims: times faster than PyTorch and JAX, and of PyTorch's memory


def commands(scratch: Path) -> Mapping[str, list[str]]:
    """Return what each runs, by name; what is not installed is left out and named."""
    found = {
        NNKIT: ["-c", "from nnkit.cli import main; main()", "train", str(MNIST), *OPTIONS.split()],
        "PyTorch eager": [str(BENCH / "shell" / "pytorch_mnist.py"), str(MNIST)],
        "JAX": [str(BENCH / "shell" / "jax_mnist.py"), str(MNIST), str(scratch / "jax")],
        "scikit-learn": [str(BENCH / "shell" / "scikit_learn_mnist.py"), str(MNIST)],
    }
    for name, package in NEEDS.items():
        try:
            version(package)
        except PackageNotFoundError:
            print(f"{package} is not installed: {name} is left out")
            del found[name]
    return found


def measure(arguments: list[str], scratch: Path) -> dict[str, float]:
    """Run Python; return its seconds, its peak of resident bytes, and the accuracy that it printed."""
    arguments = [*arguments, "--out", str(scratch / "run")] if "train" in arguments else arguments
    environment = {**os.environ, "NNKIT_CACHE": str(scratch / "nnkit")}
    # An installed package has its bytecode; one that runs from its sources keeps it from the first turn.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (scratch / "printed").open("w+") as printed:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=printed)
        # No library is loaded here before: a child's peak counts its parent's at the fork.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        printed.seek(0)
        said = printed.read()
    if status != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with status {status}: {said[-1000:]}")
    # A peer prints nothing else; nnkit prints a table.
    accuracy = re.search(r"(?:^|│ accuracy +│ )(0\.\d+)", said, re.MULTILINE)
    assert accuracy is not None, said
    return {"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024, "accuracy": float(accuracy[1])}


def race(scratch: Path) -> dict[str, dict[str, list[float]]]:
    """Run all in turns; the first turn fills what is kept between processes and is not counted."""
    runs: dict[str, dict[str, list[float]]] = {}
    for turn in range(-1, TURNS):
        for name, arguments in commands(scratch).items():
            measured = measure(arguments, scratch)
            print(f"{name}: {measured['seconds']:.2f} s, {100 * measured['accuracy']:.2f} %")
            if turn >= 0:
                for key, value in measured.items():
                    runs.setdefault(name, {}).setdefault(key, []).append(value)
            if name == NNKIT:
                shutil.rmtree(scratch / "run")  # the next one trains into a folder that is not there
    return runs


def ratios(runs: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """Return by peer, turn by turn, its seconds over nnkit's, and nnkit's memory over its."""
    own = runs[NNKIT]
    return {
        name: {
            "times faster": [
                theirs / ours for theirs, ours in zip(run["seconds"], own["seconds"], strict=True)
            ],
            "share of memory": [
                ours / theirs for theirs, ours in zip(run["peak_bytes"], own["peak_bytes"], strict=True)
            ],
        }
        for name, run in runs.items()
        if name != NNKIT
    }


def main() -> None:
    """Write bench/results/NAME.json."""
    name = sys.argv[1] if len(sys.argv) > 1 else "shell"
    if not MNIST.is_dir():
        raise SystemExit(f"{MNIST} is not there: there is nothing to measure")
    with tempfile.TemporaryDirectory() as scratch:
        runs = race(Path(scratch))
    from nnkit.machine import describe_machine

    least = {who: min(run["accuracy"]) for who, run in runs.items()}
    record = {
        "machine": describe_machine(),
        "versions": {package: version(package) for who, package in NEEDS.items() if who in runs},
        "from the shell": runs,
        "ratios": ratios(runs),
        "aims": {"accuracy": ACCURACY, "times faster": FASTER, "share of memory": SMALLER},
        "reached the accuracy": {who: accuracy >= ACCURACY for who, accuracy in least.items()},
    }
    path = BENCH / "results" / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    medians = {who: statistics.median(run["seconds"]) for who, run in runs.items()}
    print(", ".join(f"{who} {seconds:.2f} s" for who, seconds in medians.items()))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
