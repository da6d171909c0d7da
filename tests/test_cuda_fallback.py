"""Where CUDA does not work: one line says why and what to do, and ``auto`` trains on the CPU."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnkit import Dense, Network, Trainer
from nnkit.backends import cuda_probe, cupy, select
from nnkit.errors import DeviceError, DeviceMemoryError
from nnkit.extras import install_command

INSTALL = install_command("cupy")
LAST_RESORT = "install one, or use device 'cpu'"


class CublasLtError(Exception):
    """As nvmath's: it derives from no other class."""


class CudaError(RuntimeError):
    """As CuPy's: a runtime error with CUDA's number."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaErrorOf{status}: words")
        self.status = status


def libraries(monkeypatch: pytest.MonkeyPatch, **runtime) -> None:
    """Let CuPy and numba-cuda be there, with such a CUDA runtime."""

    def count() -> int:
        outcome = runtime.get("count", 1)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    made = SimpleNamespace(
        getDeviceCount=count,
        driverGetVersion=lambda: runtime.get("driver", 13000),
        runtimeGetVersion=lambda: 12090,
    )
    numba = SimpleNamespace(
        is_available=lambda: runtime.get("numba", True), cuda_error=lambda: runtime.get("error")
    )
    modules = {"cupy": SimpleNamespace(cuda=SimpleNamespace(runtime=made)), "numba.cuda": numba}
    monkeypatch.setattr(cuda_probe, "_is_installed", lambda module: module not in runtime.get("missing", ()))
    monkeypatch.setattr(cuda_probe, "_driver_is_there", lambda: runtime.get("driver", 13000) > 0)
    monkeypatch.setattr(cuda_probe, "_imported", modules.__getitem__)


def refusal(device: str) -> str:
    with pytest.raises(DeviceError) as caught:
        select(device)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"device {device!r}: ")
    return message


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ({"missing": ["cupy"]}, f"CuPy is not installed; {INSTALL}"),
        ({"missing": ["numba_cuda"]}, f"numba-cuda is not installed; {INSTALL}"),
        ({"driver": 0}, f"there is no NVIDIA driver on this machine; {LAST_RESORT}"),
        ({"count": CudaError(35), "driver": 11080}, "the driver is for CUDA 11.8 and CuPy for CUDA 12.9; up"),
        ({"count": CudaError(100)}, "there is no GPU that CUDA may use"),
        ({"count": 0}, "there is no GPU that CUDA may use"),
        ({"count": CudaError(999)}, "CUDA does not work here (cudaErrorOf999: words)"),
        ({"numba": False}, "numba-cuda cannot use this GPU (it finds no libNVVM); pip install"),
        ({"numba": False, "error": "\nno driver:\nline"}, "numba-cuda cannot use this GPU (no driver:); pip"),
    ],
)
def test_what_is_missing_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch, runtime, words) -> None:
    libraries(monkeypatch, **runtime)
    monkeypatch.setattr(cuda_probe, "_CARD_FILES", ("/",))
    assert words in refusal("cuda")
    selection = select("auto")
    assert selection.backend.name == "cpu"
    assert selection.reason.startswith(f"device   cpu ({words}")
    assert "\n" not in selection.reason


def test_without_a_card_nothing_is_said_of_what_would_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries(monkeypatch, missing=["cupy"], driver=0)
    monkeypatch.setattr(cuda_probe, "_CARD_FILES", ())
    assert select("auto").reason == "device   cpu"
    assert "CuPy is not installed" in refusal("cuda")  # where it was asked for


def test_a_card_is_seen_by_its_files_or_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cuda_probe, "_CARD_FILES", (tmp_path / "nvidia0",))
    for driver in (True, False):
        monkeypatch.setattr(cuda_probe, "_driver_is_there", lambda driver=driver: driver)
        assert cuda_probe.has_nvidia_card() is driver
    (tmp_path / "nvidia0").touch()
    assert cuda_probe.has_nvidia_card()


@pytest.mark.extra("cupy")
def test_cupy_itself_without_a_driver_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    if cuda_probe._driver_is_there():
        pytest.skip("there is a driver")
    monkeypatch.setattr(cuda_probe, "_driver_is_there", lambda: True)
    monkeypatch.setattr(cuda_probe, "_is_installed", lambda module: True)
    assert refusal("cuda").endswith(f"there is no NVIDIA driver on this machine; {LAST_RESORT}")


def test_a_number_beyond_the_last_says_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries(monkeypatch, count=1)
    assert refusal("cuda:7").endswith("there is no such GPU; the only one is 'cuda:0'")
    libraries(monkeypatch, count=4)
    assert refusal("cuda:7").endswith("there is no such GPU; they are 'cuda:0' to 'cuda:3'")


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1", "cuda:1.5", "cuda:²"])
def test_what_is_no_number_says_how_to_write_one(device: str) -> None:
    assert "write 'cuda', or 'cuda:1'" in refusal(device)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CudaError(46), "cudaErrorOf46: words"),
        (
            AttributeError("module 'cupy.cuda' has no attribute 'Graph'"),
            "module 'cupy.cuda' has no attribute",
        ),
        (MemoryError("out of memory\nin CuPy"), "out of memory)"),
    ],
)
def test_a_gpu_that_cannot_be_opened_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    libraries(monkeypatch)

    def fails(index: int) -> None:
        raise error

    monkeypatch.setattr(cupy, "CudaDevice", fails)
    assert refusal("cuda:0").startswith(f"device 'cuda:0': it cannot be opened ({words}")
    assert select("auto").backend.name == "cpu"


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libcublasLt.so.12: cannot open shared object file"),
        OSError("libcublasLt.so.12: cannot open shared object file"),
        RuntimeError("libcublasLt.so.12: cannot open shared object file\nand advice"),
        AttributeError("module 'nvmath.bindings.cublasLt' has no attribute 'matmul'"),
        CublasLtError("CUBLAS_STATUS_ALLOC_FAILED (3)"),
        DeviceError("device cuda:0: cuBLASLt failed (CUBLAS_STATUS_ARCH_MISMATCH)"),
    ],
)
def test_without_nvmath_steps_are_not_captured_and_it_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fails(device: object) -> None:
        raise error

    device: Any = SimpleNamespace(name="cuda:0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    products = cupy._products(device)
    assert products.why_not_captured == f"nvmath-python is not installed: {INSTALL}"
    assert products.precisions == ("fp32", "fp64")
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(cupy, "load_cublaslt", fails)
    assert caplog.records == []  # who has not installed it knows
    products = cupy._products(device)
    assert products.why_not_captured == f"nvmath-python cannot be used: {str(error).splitlines()[0]}"
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert warning.message == (
        f"device cuda:0: steps take longer and are not captured, because {products.why_not_captured}"
    )


def test_a_gpu_whose_memory_is_taken_is_an_error_of_one_line_and_auto_takes_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(device: object) -> None:
        raise DeviceMemoryError(
            "device cuda:0: an array of 32.0 MiB does not fit, 1.0 MiB of 8.0 GiB are free"
        )

    libraries(monkeypatch)
    monkeypatch.setattr(cuda_probe, "_CARD_FILES", ("/",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(cupy, "CudaDevice", lambda index: SimpleNamespace(name="cuda:0"))
    monkeypatch.setattr(cupy, "load_cublaslt", full)
    with pytest.raises(
        DeviceMemoryError, match=r"^device cuda:0: .* are free; free the GPU's memory, or use"
    ):
        select("cuda")
    selection = select("auto")
    assert selection.backend.name == "cpu"
    assert "32.0 MiB does not fit" in selection.reason
    assert "\n" not in selection.reason


@pytest.mark.parametrize(
    "error",
    [ValueError("numpy.dtype size changed\nand advice"), AttributeError("numpy.dtype size changed")],
)
def test_a_library_built_for_another_numpy_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(module: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(
        DeviceError, match=r"^cupy cannot be loaded \(numpy.dtype size changed\); pip install"
    ):
        cuda_probe._imported("cupy")


def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: str) -> None:
        raise ImportError("=====\nadvice") from OSError("libnvrtc.so.12: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(
        DeviceError, match=r"^cupy cannot be loaded \(libnvrtc.so.12: cannot .*\); pip install"
    ):
        cuda_probe._imported("cupy")


def test_a_trainer_takes_the_cpu_and_logs_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    libraries(monkeypatch, missing=["cupy"])
    with caplog.at_level(logging.INFO, "nnkit"):
        trainer = Trainer(Network([Dense(2)], inputs=3), "mse")
    assert trainer.backend.name == "cpu"
    assert [r.message for r in caplog.records] == [f"device   cpu (CuPy is not installed; {INSTALL})"]
    with pytest.raises(DeviceError, match="'cuda:1': CuPy is not installed"):
        Trainer(Network([Dense(2)], inputs=3), "mse", device="cuda:1")


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process where CuPy cannot be found."""
    blocked = (
        f"import sys; sys.modules['cupy'] = None; from nnkit import cli; sys.argv = {program!r}.split()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", blocked + "cli.main()"], cwd=folder, capture_output=True, text=True
    )


def test_the_command_line_ends_with_2_or_trains_on_the_cpu(tmp_path: Path) -> None:
    result = run("nnkit train iris --device cuda", tmp_path)
    assert result.returncode == 2
    # A slow import is told of as well.
    assert [line for line in result.stderr.splitlines() if not line.endswith(" ...")] == [
        f"error: device 'cuda': CuPy is not installed; {INSTALL}"
    ]
    assert list(tmp_path.iterdir()) == []
    result = run("nnkit train iris --device auto --epochs 1 --hidden 4 --out run", tmp_path)
    assert result.returncode == 0
    [line] = [line for line in result.stdout.splitlines() if line.startswith("device ")]
    why = f" (CuPy is not installed; {INSTALL})" if cuda_probe.has_nvidia_card() else ""
    assert line == f"device   cpu{why}"
    assert (tmp_path / "run" / "model.safetensors").is_file()
    result = run("nnkit info", tmp_path)
    assert result.returncode == 0
    assert "device cuda       not usable: CuPy is not installed; " in result.stdout


def test_the_cpu_needs_no_part_of_cuda() -> None:
    program = """
import sys
import nnkit
from nnkit.backends import select
from nnkit import Network, Dense, Trainer
Trainer(Network([Dense(2)]), "mse", device="cpu").fit([[1.0], [2.0]], [[1.0, 2.0]] * 2, epochs=1)
print(*sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "nnkit.backends.numpy" in loaded
    assert loaded.isdisjoint({"cupy", "nvmath", "numba.cuda", "nnkit.backends.cupy", "nnkit.kernels.cuda"})


def test_info_shows_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnkit import machine

    def chosen(name: str) -> SimpleNamespace:
        backend = SimpleNamespace(precisions=("fp32", "tf32"), describe=lambda: {"name": f"card of {name}"})
        return SimpleNamespace(backend=backend)

    monkeypatch.setattr(cuda_probe, "cuda_device_names", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(machine, "select", chosen)
    rows = machine.describe_machine()
    assert rows["device cuda:1"] == "precisions fp32, tf32"
    assert rows["  cuda:0 name"] == "card of cuda:0"
    assert rows["  cuda:1 name"] == "card of cuda:1"
    assert "device cuda" not in rows
