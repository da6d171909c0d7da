"""The smoke test of `bench/gpu.sh` finds what is wrong, and kernels are compiled once each, elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gpu import smoke
from gpu.common import Settings
from gpu.smoke import compile_kernels
from simulated import rounding
from simulated.runs import TESTS, compiler

from nnkit.backends.cuda_device import CudaDevice
from nnkit.backends.numpy import NumpyBackend
from nnkit.bench.records import load_result

ROOT = Path(__file__).resolve().parents[3]


class Described(NumpyBackend):
    """The CPU, which describes itself as a GPU does."""

    def __init__(self, products: str, captured: str) -> None:
        self.described = {"products": products, "captured steps": captured}

    def describe(self) -> dict[str, str]:
        return self.described


@pytest.mark.parametrize(
    ("products", "captured", "broken"),
    [
        ("cuBLAS through CuPy", "no (nvmath)", {smoke.PRODUCTS, smoke.CAPTURE}),
        ("cuBLASLt 13.0.0", "no (a graph)", {smoke.CAPTURE}),
        ("cuBLASLt 13.0.0", "yes", set()),
    ],
)
def test_what_everything_needs_is_missed_by_name(
    products: str, captured: str, broken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Described(products, captured)
    monkeypatch.setattr(Settings, "backend", lambda self, precision="fp32": backend)
    parts = {part.name: part for part in smoke.parts(Settings("cuda"))}
    assert list(parts)[:3] == [smoke.PRODUCTS, "kernels", smoke.CAPTURE]
    records = [record for name in (smoke.PRODUCTS, smoke.CAPTURE) for record in parts[name].measure()]
    assert {record.name for record in records} == {smoke.PRODUCTS, smoke.CAPTURE}
    failures = [record for record in records if record.failed]
    assert {failure.name for failure in failures} == broken
    assert all(captured in failure.skipped for failure in failures)


@pytest.mark.slow
def test_steps_are_compared_with_the_cpus_and_learn_in_16_bits() -> None:
    with rounding.installed() as device:
        parts = smoke.parts(Settings(device, "tiny"))
        records = [record for part in parts for record in part.measure()]
    assert [record.precision for record in records] == ["fp32", "fp32", "fp64", "fp16", "bf16"]
    assert all(figure.reached for record in records[1:] for figure in record.figures.values())


def test_each_kernel_is_compiled_once_by_another_process() -> None:
    """Without a GPU that process says that it has none, which is a failure of that kernel alone."""

    def kernel(z):
        z[0] = 1

    entry = SimpleNamespace(py_func=kernel, typeof_pyval=type)
    device: Any = SimpleNamespace(name="tpu")

    def prepare() -> None:
        for values in ([1.0], [2.0], [1]):
            assert CudaDevice.launcher(device, entry, (1, 1), (1, 1), values)() is None

    plain: Callable = CudaDevice.launcher
    *failures, record = compile_kernels(prepare)
    assert CudaDevice.launcher is plain
    assert record.details["kernels"] == len(failures) == 2
    assert all(failure.failed and failure.name == "test_smoke" for failure in failures)


@pytest.mark.slow
@pytest.mark.extra("numba_cuda")
@pytest.mark.skipif(compiler() is None, reason="there is no C compiler, for a stand-in of CUDA's driver")
def test_a_simulated_device_has_no_failure(tmp_path: Path) -> None:
    # Python runs this in each process, those that compile kernels among them.
    (tmp_path / "sitecustomize.py").write_text("import simulated\nsimulated.install()\n")
    path = os.pathsep.join([str(tmp_path), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": path, "NNKIT_BENCH_OUT": str(tmp_path)}
    command = [
        sys.executable,
        str(ROOT / "bench" / "gpu"),
        "run",
        "smoke",
        "warm",
        "--quick",
        "--minutes",
        "60",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("gpu-*-quick.json")
    sections = load_result(path).sections
    names = [record.name for record in sections["smoke"]]
    assert names[:3] == [smoke.PRODUCTS, "compiling kernels", smoke.CAPTURE]
    records = [*sections["smoke"], *sections["warm"]]
    assert not [figure for record in records for figure in record.figures.values() if figure.reached is False]
    assert sections["smoke"][1].details["kernels"] > 0
    assert sections["warm"][0].details["kernels"] > 0
