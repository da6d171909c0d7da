"""ptxas: what a kernel takes of each architecture's registers and shared memory, and the most that it may.

Order: the assembler, what it says, the ceilings.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from tempfile import TemporaryDirectory

from nnkit.bench.records import Aim, Record, Result, once

Capability = tuple[int, int]
Cases = Mapping[str, Mapping[str, list[int]]]
"""By case and architecture, the values of a `Usage`."""

NEWEST = (9, 0)
ARCHITECTURES: tuple[Capability, ...] = ((7, 0), (8, 0), (8, 9), NEWEST, (12, 0))
# CUDA 13's wheel first: it assembles what CUDA 12's NVVM makes, and the other way round it need not.
_WHEELS = ("nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12")


def architecture(capability: Capability) -> str:
    """Return a compute capability's name: (9, 0) is ``sm_90``."""
    return "sm_{}{}".format(*capability)


@cache
def assembler() -> str | None:
    """Return the path of ptxas: in one of NVIDIA's wheels, where Numba's compiler is too, or on the PATH."""
    return next(filter(None, map(_in_wheel, _WHEELS)), None) or shutil.which("ptxas")


def _in_wheel(package: str) -> str | None:
    try:
        found = [file.locate() for file in files(package) or [] if file.name == "ptxas"]
    except PackageNotFoundError:
        return None
    return str(found[0]) if found else None


@cache
def assembled_for() -> tuple[Capability, ...]:
    """Return those of the architectures that this ptxas knows: CUDA 13's has dropped sm_70."""
    known = set(re.findall(r"'(sm_\d+)'", _run("--help")))
    return tuple(capability for capability in ARCHITECTURES if architecture(capability) in known)


def assembler_version() -> str:
    """Return the version of ptxas, such as ``12.9.86``."""
    found = re.search(r"V(\d+(?:\.\d+)+)", _run("--version"))
    assert found is not None
    return found[1]


@dataclass(frozen=True)
class Usage:
    """What a kernel takes on one architecture.

    Parameters
    ----------
    registers : int
        Of a thread.
    shared : int
        Bytes of a block's static shared memory.
    stack, spill_stores, spill_loads : int
        Bytes of a thread's memory for what has no place in registers, and written to and read from it.
    """

    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int

    @property
    def unspilled(self) -> bool:
        """Whether all that a thread has is in its registers."""
        return self.stack == self.spill_stores == self.spill_loads == 0


def assembled(ptx: str, capability: Capability) -> Usage:
    """Assemble a kernel and return what ptxas says of it; raises `ValueError` with its words if it cannot."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        chosen = f"-arch={architecture(capability)}"
        return usage_in(_run("-v", chosen, str(source), "-o", str(source.with_suffix(".cubin"))))


def usage_in(text: str) -> Usage:
    """Return what ``ptxas -v`` has said of a file with one kernel, and of functions that it calls."""
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", text)
    used = re.findall(r"Used (\d+) registers(.*)", text)
    if not frames or len(used) != 1:
        raise ValueError(f"no report on one kernel: {text}")
    stack, stores, loads = (sum(map(int, column)) for column in zip(*frames, strict=True))
    registers, others = used[0]
    shared = re.search(r"(\d+) bytes smem", others)
    return Usage(int(registers), int(shared[1]) if shared else 0, stack, stores, loads)


def _run(*arguments: str) -> str:
    ptxas = assembler()
    assert ptxas is not None
    done = subprocess.run([ptxas, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"ptxas {arguments[0]}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Ceiling:
    """The most that a kernel may take, over its cases.

    Parameters
    ----------
    registers, in_float64 : tuple of int
        Of a thread on each of the `ARCHITECTURES`, in float32 or mixed precision and in float64: as many as
        let as many blocks of 256 threads be resident as what was measured, one of `STEPS`.
    shared : int
        Bytes of a block's static shared memory.
    """

    registers: tuple[int, ...]
    in_float64: tuple[int, ...]
    shared: int

    def admits(self, usage: Usage, dtype: str, capability: Capability) -> bool:
        """Tell whether a case of this dtype keeps to it on an architecture."""
        most = self.in_float64 if dtype == "float64" else self.registers
        within = usage.registers <= most[ARCHITECTURES.index(capability)]
        return within and usage.shared <= self.shared


# With so many registers a thread, 8, 6, 5, 4, 3, 2 and 1 blocks of 256 threads are resident: a multiprocessor
# has 65,536, given to threads in eights, and at most 6 such blocks on sm_89 and sm_120 (CUDA C++ programming
# guide, "Technical specifications per compute capability").
STEPS = (32, 40, 48, 64, 80, 128, 255)
# Measured by bench/registers.py, rounded up to the next step.
CEILINGS: Mapping[str, Ceiling] = {
    "add": Ceiling((32, 32, 40, 32, 40), (40, 40, 40, 40, 40), 0),
    "add_partials": Ceiling((48, 40, 40, 40, 48), (64, 48, 40, 48, 48), 8192),
    "backward": Ceiling((48, 48, 48, 48, 48), (64, 64, 64, 255, 255), 16392),
    "copy_parameters": Ceiling((64, 40, 48, 40, 48), (64, 48, 48, 48, 48), 0),
    "count_digits": Ceiling((32, 32, 40, 32, 64), (32, 32, 40, 32, 64), 35844),
    "count_runs": Ceiling((40, 40, 40, 40, 48), (40, 40, 40, 40, 48), 2052),
    "count_tokens": Ceiling((40, 40, 40, 40, 48), (40, 40, 40, 40, 48), 2052),
    "elementwise_loss": Ceiling((64, 64, 64, 64, 80), (128, 128, 128, 128, 128), 24592),
    "embed": Ceiling((80, 64, 64, 64, 64), (80, 64, 64, 80, 64), 0),
    "embed_gradient": Ceiling((128, 128, 80, 80, 48), (80, 80, 80, 128, 64), 8256),
    "expand": Ceiling((32, 32, 40, 32, 32), (32, 32, 40, 32, 32), 0),
    "expand_gradient": Ceiling((32, 32, 40, 40, 40), (32, 40, 40, 40, 40), 0),
    "find_bins": Ceiling((40, 40, 40, 40, 40), (40, 40, 40, 40, 40), 0),
    "find_runs": Ceiling((40, 40, 40, 64, 64), (40, 40, 40, 64, 64), 1024),
    "forward": Ceiling((80, 48, 48, 48, 64), (80, 64, 64, 128, 128), 0),
    "gather": Ceiling((128, 128, 128, 128, 128), (128, 128, 128, 128, 128), 0),
    "interpolate": Ceiling((64, 48, 48, 48, 48), (64, 64, 64, 64, 64), 0),
    "interpolate_gradient": Ceiling((40, 40, 40, 48, 48), (48, 48, 40, 64, 48), 0),
    "join_gradient": Ceiling((80, 48, 48, 48, 64), (80, 64, 64, 128, 80), 0),
    "join_members": Ceiling((64, 64, 64, 64, 64), (80, 64, 64, 80, 80), 0),
    "layer_norm": Ceiling((80, 64, 64, 64, 64), (80, 80, 64, 80, 64), 6144),
    "layer_norm_gradient": Ceiling((80, 80, 64, 64, 48), (128, 80, 80, 80, 64), 4096),
    "layer_norm_sums": Ceiling((48, 40, 40, 48, 64), (64, 64, 48, 64, 64), 32784),
    "list_tokens": Ceiling((32, 32, 40, 32, 48), (32, 32, 40, 32, 48), 35844),
    "mark_rows": Ceiling((32, 32, 32, 32, 32), (32, 32, 32, 32, 32), 0),
    "penalise": Ceiling((48, 40, 40, 32, 40), (64, 48, 48, 48, 48), 4104),
    "penalise_rows": Ceiling((40, 40, 40, 40, 40), (48, 48, 48, 48, 40), 4104),
    "periodic": Ceiling((64, 64, 48, 48, 48), (64, 64, 48, 48, 48), 0),
    "periodic_gradient": Ceiling((128, 128, 80, 80, 64), (128, 128, 128, 128, 80), 32784),
    "periodic_inputs": Ceiling((128, 128, 128, 128, 48), (128, 128, 128, 128, 64), 0),
    "periodic_lines": Ceiling((64, 64, 64, 64, 48), (64, 64, 64, 64, 48), 16392),
    "scale_columns": Ceiling((32, 32, 40, 32, 40), (40, 40, 40, 40, 40), 0),
    "scale_columns_gradient": Ceiling((40, 40, 40, 40, 48), (64, 64, 64, 64, 64), 16392),
    "scale_members": Ceiling((48, 40, 40, 40, 40), (48, 48, 48, 48, 64), 0),
    "scale_members_gradient": Ceiling((48, 48, 48, 48, 48), (80, 80, 64, 64, 80), 32784),
    "softmax_loss": Ceiling((128, 128, 128, 128, 80), (255, 255, 128, 128, 128), 30736),
    "sort_digit": Ceiling((32, 32, 40, 40, 48), (32, 32, 40, 40, 48), 34944),
    "squared_norm": Ceiling((40, 40, 40, 32, 40), (40, 40, 40, 32, 40), 4104),
    "squared_norm_rows": Ceiling((40, 40, 40, 40, 40), (40, 40, 40, 40, 48), 4104),
    "start_rows": Ceiling((32, 32, 40, 32, 40), (32, 32, 40, 32, 40), 1024),
    "sum_knots": Ceiling((40, 40, 40, 40, 40), (40, 40, 40, 48, 40), 0),
    "sum_members": Ceiling((64, 48, 48, 40, 48), (64, 48, 64, 64, 64), 0),
    "sum_places": Ceiling((64, 48, 48, 64, 48), (64, 48, 48, 64, 48), 0),
    "unique_rows": Ceiling((64, 64, 48, 64, 48), (64, 64, 48, 64, 48), 36864),
    "update": Ceiling((64, 64, 64, 64, 64), (128, 80, 80, 80, 80), 44),
    "update_rows": Ceiling((64, 64, 64, 64, 64), (128, 80, 80, 80, 80), 40),
}


def exceeding(kernels: Mapping[str, Cases]) -> Iterator[str]:
    """Yield what of a record is above its kernel's ceiling, or spilled."""
    for kernel, some in kernels.items():
        for case in some:
            dtype = "float64" if case.endswith("float64") else "float32"
            for one in ARCHITECTURES:
                taken = some[case].get(architecture(one))
                usage = None if taken is None else Usage(*taken)
                if usage is not None and not (usage.unspilled and CEILINGS[kernel].admits(usage, dtype, one)):
                    yield f"{case} on {architecture(one)}: {usage}, and at most {CEILINGS[kernel]}"


def summarised(kernel: str, cases: Cases) -> Record:
    """Return a record of the most that a kernel takes, with its ceilings, and of each case in its details."""
    ceiling, figures = CEILINGS[kernel], {}
    of_each = [(name, on, Usage(*taken)) for name, some in cases.items() for on, taken in some.items()]
    for place, on in enumerate(map(architecture, ARCHITECTURES)):
        for double, most in ((False, ceiling.registers), (True, ceiling.in_float64)):
            taken = [
                usage.registers
                for name, where, usage in of_each
                if where == on and name.endswith("float64") == double
            ]
            if taken:
                title = f"{on}, fp64" if double else on
                figures[title] = once("", max(taken), Aim("<=", most[place]))
    shared = max(usage.shared for _, _, usage in of_each)
    figures["shared memory"] = once("B", shared, Aim("<=", ceiling.shared))
    spilled = sum(not usage.unspilled for _, _, usage in of_each)
    figures["spilled"] = once("", spilled, Aim("<=", 0))
    texts = {
        name: "; ".join(f"{on} {' '.join(map(str, taken))}" for on, taken in some.items())
        for name, some in cases.items()
    }
    details = {"fields": [field.name for field in fields(Usage)], "cases": texts}
    return Record("registers", kernel, "cuda", "", {"cases": len(cases)}, figures, details=details)


def recorded(result: Result) -> dict[str, Cases]:
    """Return the cases of a result's records, by kernel."""
    return {
        record.name: {
            name: {on: list(map(int, taken)) for on, *taken in map(str.split, text.split("; "))}
            for name, text in record.details["cases"].items()
        }
        for record in result.records
    }
