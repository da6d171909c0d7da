"""What all sections share: how to measure, parts, records, commands and arrays."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nnkit.backends.operations import Kernel
from nnkit.backends.protocol import Array, Backend
from nnkit.bench.records import Quantity, Record
from nnkit.bench.timing import Plan
from nnkit.kernels.formulas import relu

HALVES = ("fp16", "bf16")


@dataclass(frozen=True)
class Settings(Plan):
    """The device, the size, whether peers take part, and the section's time limit in seconds."""

    peers: bool = True
    seconds: float = 600.0
    began: float = field(default_factory=time.monotonic)

    def choose(self, full: int, tiny: int) -> int:
        """Return the full size, or that of a dry run."""
        return self.pick(full, full, tiny)

    def supported(self, *precisions: str) -> list[str]:
        """Return those of the precisions that the device has."""
        return [name for name in precisions if name in self.backend().precisions]

    def deadline(self, share: float) -> float:
        """Return the value of `time.monotonic` when this share of the section's time is over."""
        return self.began + share * self.seconds


@dataclass(frozen=True)
class Part:
    """A piece of a section that can fail alone, with a limit in seconds; 0 leaves it to the section's."""

    name: str
    measure: Callable[[], Iterable[Record]]
    limit: float = 60.0  # most repeat milliseconds: one that takes a minute hangs


def found(
    name: str, figures: dict[str, Quantity], precision: str = "fp32", details: Any = None, **parameters: Any
) -> Record:
    """Return a record of what was measured; the section's process fills in section and device."""
    return Record("", name, "", precision, parameters, figures, details=details or {})


def failure(name: str, error: str, section: str = "", device: str = "", **details: Any) -> Record:
    """Return a record of what could not be measured; its table shows the error's last line."""
    last = error.strip().rpartition("\n")[2][:300]
    return Record(section, name, device, skipped=last, failed=True, details={"error": error, **details})


def run_command(command: Sequence[str], seconds: float, grace: float = 0.0) -> tuple[int | None, str]:
    """Run a command until it ends or its time is over.

    Return its status, None if it was ended, and how it ended with the last of its output. Before it is ended
    it is interrupted, and has `grace` seconds to react.
    """
    status: int | None = None
    # All that it starts, compilers and peers among them, is in its process group, which is ended as one.
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(max(seconds, 0.0))
            if status is None and grace:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(grace)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed.seek(0)
        ending = "ended before it was done" if status is None else f"its process ended with status {status}"
        return status, f"{ending}\n{printed.read()[-1500:]}"


def random_array(backend: Backend, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
    """Return an array of normal numbers, one random block repeated: zeros are faster to work on."""
    block = np.random.default_rng(0).standard_normal(min(math.prod(shape), 2**20 - 3)).astype(dtype)
    return backend.from_host(np.resize(block, shape))


def tiny_kernel(backend: Backend) -> Kernel:
    """Return a ReLU of a few numbers in place."""
    numbers, flags = random_array(backend, (1, 32)), {"BIAS": False, "DROPOUT": False, "KEEP_Z": False}
    arguments = {"z": numbers, "a": numbers, "bias": None, "mask": None, "kept_scale": 1.0}
    return Kernel("forward", np.float32, {"activation": relu}, flags, arguments)


def real_data(name: str) -> Path | None:
    """Return what NNKIT_BENCH_DATA, else ../shared/data beside the checkout, holds by that name, or None."""
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("NNKIT_BENCH_DATA") or shared) / name
    return path if path.exists() else None
