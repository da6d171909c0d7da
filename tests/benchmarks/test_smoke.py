"""The smoke test of `bench/gpu.sh` finds what is wrong, and kernels are compiled once each, elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from simulated.runs import TESTS, compiler

from nnkit.backends.cuda_device import CudaDevice
from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import Operation, Product
from nnkit.backends.protocol import Program
from nnkit.benchmarks.figures import Failure, Figure
from nnkit.benchmarks.gpu import agreement, smoke, warm
from nnkit.benchmarks.gpu.settings import Settings
from nnkit.benchmarks.gpu.warm import compile_kernels


class Library(NumpyBackend):
    """The CPU with ReLU products as a GPU's library has them, wrong in one way or right."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    @property
    def products(self) -> Library:
        return self

    def describe(self) -> dict[str, str]:
        return {"products": "cuBLASLt 13.0.0", "captured steps": "yes"}

    def compile(self, operations: Sequence[Operation]) -> Program:
        program = super().compile(operations)
        wrong = [one.out for one in operations if isinstance(one, Product) and one.a.shape[1] == 1]
        if self.fault != "product" or not wrong:
            return program

        def run(count: int = 1) -> None:
            program.run(count)
            for out in wrong:
                out[0, 0] = np.nan

        return cast(Program, SimpleNamespace(run=run))

    def matmul_relu(self, a: Any, b: Any, bias: Any, out: Any, mask: Any) -> Callable[[], None] | None:
        if self.fault == "absent":
            return None

        def run() -> None:
            z = a @ b + (0 if self.fault == "bias" else bias)
            self.passed = z >= 0 if self.fault == "corner" else z > 0
            out[...] = np.where(np.isnan(z), 0 if self.fault == "NaN" else z, np.maximum(z, 0))

        return run

    def matmul_relu_gradient(self, a: Any, b: Any, mask: Any, out: Any, sums: Any) -> Callable[[], None]:
        def run() -> None:
            out[...] = (a @ b) * (True if self.fault == "mask" else self.passed)
            sums[...] = out.sum(axis=0) * (1.001 if self.fault == "sums" else 1)

        return run


def missed(findings: Iterable[Figure | Failure]) -> set[str]:
    """Return what does not keep its aim, each by the start of its name."""
    return {
        finding.name.partition(",")[0] if "ReLU by" not in finding.name else finding.name.partition(":")[0]
        for finding in findings
        if isinstance(finding, Figure) and finding.reached is False
    }


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_right_products_are_found_right_and_counted(precision: str) -> None:
    figures = list(smoke.products(Library(), precision))
    assert len(figures) == 6
    assert missed(figures) == set()
    (count,) = [figure for figure in figures if figure.name.startswith("products that the library does not")]
    assert count.value.median == 0
    (count,) = list(smoke.products(Library("absent"), precision))[1:]
    assert count.value.median == 2 * 5
    assert count.details["product, bias and ReLU"][1] == "(64, 1, 32)"


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("product", {"product"}),
        ("bias", {"product"}),
        ("mask", {"product and gradient of ReLU"}),
        ("sums", {"product and gradient of ReLU"}),
    ],
)
def test_wrong_products_are_found(fault: str, names: set[str]) -> None:
    figures = [f for f in smoke.products(Library(fault), "fp64") if f.reached is False]
    assert missed(figures) == names
    assert len(figures) == {"product": 1, "bias": 2, "mask": 2, "sums": 1}[fault]


def test_corners_of_relu_are_compared_with_the_formulas() -> None:
    kernels, library = smoke.corners(Library())
    assert kernels.reached
    assert library.reached
    # A mask of z ≥ 0 lets the gradient at 0 through, and -0.0 is 0; a library's NaN may become 0.
    (_, library) = smoke.corners(Library("corner"))
    assert library.details == {"value": [], "gradient": ["0.0", "-0.0"]}
    (_, library) = smoke.corners(Library("NaN"))
    assert library.details == {"value": ["nan"], "gradient": []}
    assert missed([library]) == {"ReLU by the library"}
    assert len(list(smoke.corners(Library("absent")))) == 1


@pytest.mark.parametrize(
    ("told", "broken"),
    [
        (
            {"products": "cuBLAS through CuPy", "captured steps": "no (nvmath)"},
            {smoke.PRODUCTS, smoke.CAPTURE},
        ),
        ({"products": "cuBLASLt 13.0.0", "captured steps": "no (a graph)"}, {smoke.CAPTURE}),
        ({"products": "cuBLASLt 13.0.0", "captured steps": "yes"}, set()),
    ],
)
def test_what_everything_needs_is_missed_by_name(
    told: dict[str, str], broken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Library()
    monkeypatch.setattr(backend, "describe", lambda: told)
    monkeypatch.setattr(Settings, "backend", lambda self, precision="fp32": backend)
    parts = {part.name: part for part in smoke.parts(Settings("cuda"))}
    assert list(parts)[:3] == [smoke.PRODUCTS, "kernels", smoke.CAPTURE]
    found = [finding for name in (smoke.PRODUCTS, smoke.CAPTURE) for finding in parts[name].measure()]
    failures = [finding for finding in found if isinstance(finding, Failure)]
    assert {failure.name for failure in failures} == broken
    assert all(told["captured steps"] in failure.error for failure in failures)


def test_each_kernel_is_compiled_once_by_another_process() -> None:
    """Without a GPU that process says that it has none, which is a failure of that kernel alone."""

    def kernel(z):
        z[0] = 1

    entry = SimpleNamespace(py_func=kernel, typeof_pyval=type)
    device: Any = SimpleNamespace(name="tpu")

    def prepare() -> None:
        for values in ([1.0], [2.0], [1]):
            assert CudaDevice.launcher(device, entry, (1, 1), (1, 1), values)() is None

    plain = CudaDevice.launcher
    *failures, figure = compile_kernels("two kernels", prepare)
    assert CudaDevice.launcher is plain
    assert isinstance(figure, Figure)
    assert figure.details["kernels"] == 2
    assert len(failures) == 2
    assert all(isinstance(failure, Failure) and failure.name == "test_smoke" for failure in failures)


@pytest.mark.slow
def test_the_cpus_kernels_are_compiled_beside_those_of_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the smoke test trains on the CPU later finds every kernel in the cache."""
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path))
    on_cpu = [partial(warm.train_on_cpu, agreement.KINDS[0]), partial(warm.train_on_cpu, "no kind")]
    failure, figure = compile_kernels("none but the CPU's", lambda: None, on_cpu)
    assert isinstance(failure, Failure)
    assert failure.name == "the CPU's kernels"
    assert isinstance(figure, Figure)
    compiled = set(tmp_path.rglob("*.nbc"))
    assert len(compiled) >= 10
    program = (
        "from nnkit.benchmarks.gpu import agreement, smoke\nfrom nnkit.backends import select\n"
        "agreement.train(smoke._problem(), select('cpu').backend)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert set(tmp_path.rglob("*.nbc")) == compiled


def test_the_smoke_test_and_warm_compile_the_cpus_kernels_of_what_they_compare_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Settings, "backend", lambda self, precision="fp32": Library())
    for parts, kinds in ((smoke.parts, agreement.KINDS[:1]), (warm.parts, agreement.KINDS)):
        (kernels,) = [part for part in parts(Settings("cuda")) if part.name == "kernels"]
        assert [function.args for function in kernels.measure.args[2]] == [(kind,) for kind in kinds]


@pytest.mark.slow
@pytest.mark.extra("numba_cuda")
@pytest.mark.skipif(compiler() is None, reason="there is no C compiler, for a stand-in of CUDA's driver")
@pytest.mark.parametrize(("section", "first"), [("smoke", smoke.PRODUCTS), ("warm", "kernels")])
def test_a_simulated_device_has_no_failure(section: str, first: str, tmp_path: Path) -> None:
    # Python runs this in each process, those that compile kernels among them.
    (tmp_path / "sitecustomize.py").write_text("import simulated\nsimulated.install()\n")
    path = os.pathsep.join([str(tmp_path), str(TESTS)])
    out = tmp_path / "lines"
    command = [sys.executable, "-m", "nnkit.benchmarks.gpu", section, "--quick", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["end"] for line in lines if "end" in line] == list(range(len(lines[0]["parts"])))
    assert lines[0]["parts"][0] == first
    assert [line for line in lines if "failure" in line] == []
    figures = [Figure.from_json(line["figure"]) for line in lines if "figure" in line]
    assert [figure.name for figure in figures if figure.reached is False] == []
    assert figures[0].details["kernels"] > 0
