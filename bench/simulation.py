"""Run every test of the CUDA backend on a simulated device: `python bench/simulation.py [--no-tests]`.

All cases of the tests with threads and blocks in each order (forward, backward, random), and a small
training on each compute capability under each driver that the installed CUDA serves. numba-cuda compiles the
kernels and the CPU executes them, see tests/simulated; the first order compiles them all, half an hour.
Written to bench/results/simulated-cuda12.json, or 13.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "tests"))

from simulated.runs import DEVICES, installed_cuda, run_tests, run_training  # noqa: E402


def order(name: str) -> dict[str, Any]:
    """Return what the tests came to in one order."""
    began = time.perf_counter()
    done = run_tests(name)
    if done.status:
        print(done.output)
    return {"order": name, "seconds": round(time.perf_counter() - began), **done.counts, **done.device}


def device(capability: int, driver: int, cache: Path) -> dict[str, Any]:
    """Return what a training on one device came to: its largest difference from the CPU's losses."""
    found = run_training(capability, driver, cache)
    pairs = zip(found["losses"], found["cpu"], strict=True)
    return {
        "capability": capability / 10,
        "driver": f"{driver // 1000}.{driver % 1000 // 10}",
        "errors": found["errors"],
        "launches": found["launches"],
        "difference": max(abs(ours - cpu) / abs(cpu) for ours, cpu in pairs),
    }


def main() -> None:
    """Write the record."""
    cuda, orders = installed_cuda(), () if "--no-tests" in sys.argv else ("forward", "backward", "random")
    path = BENCH / "results" / f"simulated-cuda{cuda}.json"
    linker = "nvidia-nvjitlink-cu12" if cuda == 12 else "nvidia-nvjitlink"
    packages = ("numba-cuda", "llvmlite", "cuda-bindings", linker)
    record: dict[str, Any] = {
        "simulated": {name: version(name) for name in packages},
        "orders": [order(name) for name in orders],
    }
    with TemporaryDirectory() as cache:
        record["devices"] = [device(*kind, Path(cache)) for kind in DEVICES[cuda]]
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
