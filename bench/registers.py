"""Assemble the CUDA kernels for five architectures: `python bench/registers.py [--processes N] [KERNEL ...]`.

It needs no GPU: Numba compiles the cases of tests/kernels/ptx_cases.py to PTX, and ptxas, of NVIDIA's wheel
nvidia-cuda-nvcc, tells the registers, the spills and the shared memory of each. An architecture that this
ptxas, or Numba's compiler, no longer knows is left out and named. Writes bench/results/ptxas.json, where the
figures of other kernels stay if some are named, and prints what is above the ceilings of
tests/kernels/ptxas.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, fields
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "kernels"))

from ptx_cases import cases, usage  # noqa: E402
from ptxas import (  # noqa: E402
    ARCHITECTURES,
    Record,
    Usage,
    architecture,
    assembler,
    assembler_version,
    exceeding,
)

from nnkit.extras import install_command  # noqa: E402
from nnkit.kernels.cuda import TEMPLATES  # noqa: E402


def measured(name: str) -> dict[str, list[int]]:
    """Return what a case takes by architecture, in the order of the fields of `Usage`."""
    return {architecture(capability): list(astuple(used)) for capability, used in sorted(usage(name).items())}


def written(kernels: Record) -> str:
    """Return the record as JSON, a line for each case."""
    found = {name for some in kernels.values() for taken in some.values() for name in taken}
    head = {
        "machine": {"ptxas": assembler_version(), "numba-cuda": version("numba-cuda")},
        "architectures": [name for name in map(architecture, ARCHITECTURES) if name in found],
        "not assembled for": [name for name in map(architecture, ARCHITECTURES) if name not in found],
        "fields": [field.name for field in fields(Usage)],
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    parts = [
        f"  {json.dumps(kernel)}: {{\n"
        + ",\n".join(f"   {json.dumps(name)}: {json.dumps(taken)}" for name, taken in some.items())
        + "\n  }"
        for kernel, some in kernels.items()
    ]
    return "\n".join(["{", *lines, ' "kernels": {', ",\n".join(parts), " }", "}", ""])


def main() -> int:
    """Write the record; return 1 where something is above its ceiling."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("kernels", nargs="*", choices=sorted(TEMPLATES), metavar="KERNEL")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "ptxas.json")
    options = parser.parse_args()
    if assembler() is None:
        parser.error(f"there is no ptxas: {install_command('numba_cuda')}")
    wanted = [case for case in cases().values() if not options.kernels or case.kernel in options.kernels]
    kernels = json.loads(options.out.read_text(encoding="utf-8"))["kernels"] if options.kernels else {}
    kernels = {name: some for name, some in kernels.items() if name not in options.kernels}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context) as pool:
        names = [case.name for case in wanted]
        for case, taken in zip(wanted, pool.map(measured, names), strict=True):
            kernels.setdefault(case.kernel, {})[case.name] = taken
            print(case.name, {name: used[0] for name, used in taken.items()}, flush=True)
    options.out.write_text(written(dict(sorted(kernels.items()))), encoding="utf-8")
    above = list(exceeding(kernels))
    print("\n".join(above))
    return int(bool(above))


if __name__ == "__main__":
    sys.exit(main())
