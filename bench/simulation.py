"""Run every test of the CUDA backend on a simulated device: `python bench/simulation.py [--no-tests]`.

All cases of the tests with threads and blocks in each order (forward, backward, random), and a small
training on each compute capability under each driver that the installed CUDA serves. numba-cuda compiles the
kernels and the CPU executes them, see tests/simulated; the first order compiles them all, half an hour.
Written to bench/results/simulated-cuda12.json, or 13.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "tests"))

from simulated import ORDERS  # noqa: E402
from simulated.runs import DEVICES, installed_cuda, run_tests, run_training  # noqa: E402

from nnkit.bench.records import Aim, Record, Result, once, save_result  # noqa: E402

ABOUT = (
    "numba-cuda compiles, links, loads and launches every kernel against a stand-in for CUDA's driver, and "
    "the CPU executes its LLVM IR in the launch's blocks and threads, with real barriers. NumPy stands in "
    "for CuPy and cuBLASLt. Writes beside an array are found. Not shown: PTX and machine code, fused "
    "multiply-adds, the last bits of CUDA's functions, a missing fence, misaligned accesses, threads that "
    "interleave between two barriers, CuPy's and cuBLASLt's own code, time."
)


def measured(with_tests: bool) -> Iterator[Record]:
    """Run the tests in each order, then the trainings on each device."""
    none = Aim("<=", 0)
    for order in ORDERS if with_tests else ():
        began = time.perf_counter()
        done = run_tests(order)
        if done.status:
            print(done.output)
        figures = {name: once("", count) for name, count in {**done.counts, **done.device}.items()}
        figures["failed"] = once("", done.counts.get("failed", 0), none)
        figures["time"] = once("s", round(time.perf_counter() - began))
        yield Record("tests", order, "cuda", figures=figures)
    with TemporaryDirectory() as cache:
        for capability, driver in DEVICES[installed_cuda()]:
            found = run_training(capability, driver, Path(cache))
            pairs = zip(found["losses"], found["cpu"], strict=True)
            difference = max(abs(ours - cpu) / abs(cpu) for ours, cpu in pairs)
            figures = {
                "errors": once("", len(found["errors"]), none),
                "launches": once("", found["launches"]),
                "difference": once("", difference, Aim("<=", 1e-6)),
            }
            named = f"{driver // 1000}.{driver % 1000 // 10}"
            kind: dict[str, int | float | str] = {"compute capability": capability / 10, "driver": named}
            details = {"errors": found["errors"]}
            yield Record("trainings", "training", "cuda", "fp32", kind, figures, details=details)


def main() -> None:
    """Write the result."""
    cuda, when = installed_cuda(), time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    packages = ["numba-cuda", "llvmlite", "cuda-bindings", f"nvidia-nvjitlink{'-cu12' * (cuda == 12)}"]
    title = f"The CUDA backend on a simulated device, CUDA {cuda}"
    command = " ".join(["python bench/simulation.py", *sys.argv[1:]])
    result = Result(title, command, {name: version(name) for name in packages}, "full", when, ABOUT)
    result.records = list(measured("--no-tests" not in sys.argv))
    save_result(result, BENCH / "results" / f"simulated-cuda{cuda}.json")


if __name__ == "__main__":
    main()
