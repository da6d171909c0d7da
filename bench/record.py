"""Train from the shell on real data and write it as JSON: `python bench/record.py [NAME]`.

Each training's time, peak memory and metrics, for three seeds. MNIST and California housing are read from
../shared/data, or from the folder NNKIT_BENCH_DATA; what is missing is left out and named.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
DATA = Path(os.environ.get("NNKIT_BENCH_DATA") or BENCH.parents[1] / "shared" / "data")


def measure_command(command: list[str], cache: Path) -> dict[str, float]:
    """Run a command; return its seconds and the peak of its resident memory in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, "NNKIT_CACHE": str(cache)}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status != 0:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    # No library is loaded here before: a child's peak counts its parent's at the fork.
    return {"seconds": seconds, "peak_mebibytes": usage.ru_maxrss / 1024}


def train(source: str, options: list[str], folder: Path, cache: Path) -> dict[str, object]:
    """Train from the shell; return what it cost and the figures of the model that it left."""
    arguments = ["train", source, *options]
    command = [sys.executable, "-c", "from nnkit.cli import main; main()", *arguments, "--out", str(folder)]
    cost = measure_command(command, cache)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    samples = statistics.median(row["samples_per_second"] for row in rows)
    shown = " ".join(["nnkit", *arguments]).replace(str(DATA), "../shared/data")
    return {"command": shown, **cost, "samples_per_second": samples, "metrics": details_of(folder)["metrics"]}


def details_of(folder: Path) -> dict[str, object]:
    """Return what the model file says of its training, read without loading a library here."""
    data = (folder / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["details"])


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
    name = sys.argv[1] if len(sys.argv) > 1 else "trainings"
    with tempfile.TemporaryDirectory() as scratch:
        record = {"train": trainings(Path(scratch) / "cache", Path(scratch) / "run")}
    from nnkit.machine import describe_machine

    path = BENCH / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **record}, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
