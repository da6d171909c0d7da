"""Measure what `bench/RESULTS.md` states of the CPU, and write it as JSON: `python bench/record.py [NAME]`.

A step against its floor, what starting costs, and whole trainings from the shell on real data, each with its
time and its peak memory. The real data are read from ../shared/data; what is missing is left out and named.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

BENCH = Path(__file__).resolve().parent
DATA = BENCH.parents[1] / "shared" / "data"

# Trains digits as the command line does, and leaves when the first epoch is over.
FIRST_EPOCH = """
import os, sys
from nnkit import Callback
from nnkit.config import Config, DataConfig
from nnkit.training.run import Run

class Leave(Callback):
    def on_epoch_end(self, trainer, figures):
        os._exit(0)

Run(Config(data=DataConfig(train="digits")).with_overrides([f"run.out={sys.argv[1]}"])).train([Leave()])
"""


def measure_command(command: list[str], cache: Path, repeats: int = 1) -> dict[str, float]:
    """Run a command in turns; return the median seconds and the largest peak of resident memory in MiB."""
    seconds, peaks = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, "NNKIT_CACHE": str(cache)}, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - began)
        peaks.append(usage.ru_maxrss / 1024)
        if status != 0:
            raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return {"seconds": statistics.median(seconds), "peak_mebibytes": max(peaks), "repeats": repeats}


def train(source: str, options: list[str], folder: Path, cache: Path, repeats: int = 1) -> dict[str, object]:
    """Train from the shell; return what it cost and the figures of the model that it left."""
    arguments = ["train", source, *options]
    command = [sys.executable, "-c", "from nnkit.cli import main; main()", *arguments, "--out", str(folder)]
    cost = measure_command(command, cache, repeats)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    samples = statistics.median(row["samples_per_second"] for row in rows)
    shown = " ".join(["nnkit", *arguments]).replace(str(DATA), "../shared/data")
    return {"command": shown, **cost, "samples_per_second": samples, "metrics": details_of(folder)["metrics"]}


def steps() -> dict[str, object]:
    """A step against its floor. Imported here, for a child's peak memory counts its parent's at the fork."""
    from nnkit.benchmarks.steps import measure_in_processes

    results: dict[str, object] = {}
    for widths, batch_size, count in (([784, 512, 512, 10], 128, 20), ([20, 64, 64, 1], 32, 2000)):
        runs = [asdict(times) for times in measure_in_processes(widths, batch_size, count)]
        middle = {key: statistics.median(run[key]["median"] for run in runs) for key in runs[0]}
        name = f"{'-'.join(map(str, widths))}, batch {batch_size}"
        results[name] = {"median over processes": middle, "processes": runs}
    return results


def details_of(folder: Path) -> dict[str, object]:
    """Return what the model file says of its training, read without loading a library here."""
    data = (folder / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["details"])


def starting(cache: Path, folder: Path) -> dict[str, object]:
    """What it costs to import, to ask for help, and to train an epoch for the first and the second time."""
    python = [sys.executable, "-c"]
    help_command = [*python, "import sys; sys.argv = ['nnkit', '--help']; from nnkit.cli import main; main()"]
    first_epoch = [*python, FIRST_EPOCH, str(folder)]
    return {
        "python alone": measure_command([*python, "pass"], cache, 9),
        "import nnkit": measure_command([*python, "import nnkit"], cache, 9),
        "nnkit --help": measure_command(help_command, cache, 9),
        "to the end of the first epoch of digits, nothing compiled": measure_command(first_epoch, cache),
        "to the end of the first epoch of digits, kernels cached": measure_command(first_epoch, cache, 9),
        "nnkit train, nothing asked": train("digits", [], folder, cache, 3),
    }


def trainings(cache: Path, folder: Path) -> dict[str, object]:
    """Whole trainings on real data."""
    if not DATA.is_dir():
        print(f"{DATA} is not there: MNIST and California housing are left out")
        return {}
    mnist = ["--hidden", "512,512", "--dropout", "0.2", "--epochs", "10"]
    housing = ["--target", "median_house_value", "--epochs", "60"]
    california = str(DATA / "california_housing.csv")
    results: dict[str, object] = {}
    for seed in range(3):
        options = ["--seed", str(seed)]
        results[f"mnist, seed {seed}"] = train(str(DATA / "mnist"), [*mnist, *options], folder, cache)
        results[f"california, seed {seed}"] = train(california, [*housing, *options], folder, cache)
    return results


def main() -> None:
    """Write bench/results/NAME.json."""
    name = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        cache, folder = Path(scratch) / "cache", Path(scratch) / "run"
        record = {"start": starting(cache, folder), "train": trainings(cache, folder), "step": steps()}
    from nnkit.machine import describe_machine

    record = {"machine": describe_machine(), **record}
    path = BENCH / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
