"""Assemble the CUDA kernels for five architectures: `python bench/registers.py [--processes N] [KERNEL ...]`.

It needs no GPU: Numba compiles the cases of tests/kernels/ptx_cases.py to PTX, and ptxas, of NVIDIA's wheel
nvidia-cuda-nvcc, tells what each takes of the architectures that both know. Writes bench/results/ptxas.json,
where the records of other kernels stay if some are named; its status is 1 where a case is above its ceiling.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "kernels"))

from ptx_cases import cases, usage  # noqa: E402
from ptxas import architecture, assembler, assembler_version, exceeding, recorded, summarised  # noqa: E402

from nnkit.bench.records import Result, load_result, save_result  # noqa: E402
from nnkit.extras import install_command  # noqa: E402
from nnkit.kernels.cuda import TEMPLATES  # noqa: E402

ABOUT = (
    "The most registers of a thread over the cases of a kernel, in float32 and mixed precision and in "
    "float64, and the most shared memory of a block. Of the 65,536 registers of a multiprocessor its "
    "threads can have 32 each where it holds 2,048 of them, and 40 where it holds 1,536, as on sm_89 and "
    "sm_120: with more, fewer are resident."
)


def measured(name: str) -> dict[str, list[int]]:
    """Return what a case takes by architecture, in the order of the fields of `Usage`."""
    return {architecture(capability): list(astuple(used)) for capability, used in sorted(usage(name).items())}


def main() -> int:
    """Write the result; return 1 where something is above its ceiling."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("kernels", nargs="*", choices=sorted(TEMPLATES), metavar="KERNEL")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if assembler() is None:
        parser.error(f"there is no ptxas: {install_command('numba_cuda')}")
    names, path = options.kernels or sorted(TEMPLATES), ROOT / "bench" / "results" / "ptxas.json"
    kernels = recorded(load_result(path)) if options.kernels else {}
    kernels |= {name: {} for name in names}
    wanted = [case for case in cases().values() if case.kernel in names]
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        taken = pool.map(measured, [case.name for case in wanted])
        for case, used in zip(wanted, taken, strict=True):
            kernels[case.kernel][case.name] = used
            print(case.name, {name: numbers[0] for name, numbers in used.items()}, flush=True)
    machine = {"ptxas": assembler_version(), "numba-cuda": version("numba-cuda")}
    title, when = "Registers of the CUDA kernels", time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    result = Result(title, "python bench/registers.py", machine, "full", when, ABOUT)
    result.records = [summarised(name, kernels[name]) for name in sorted(kernels)]
    save_result(result, path)
    print("\n".join(above := list(exceeding(kernels))))
    return int(bool(above))


if __name__ == "__main__":
    sys.exit(main())
