"""The page on backends: its backend passes its tests, and trains a network as the CPU's does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit import Dense, Dropout, Network, Trainer
from nnkit.backends import available, select

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-backend.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are those of a checkout")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the page's two modules."""
    backend, tests = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    (tmp_path / "python_backend.py").write_text(backend, encoding="utf-8")
    (tmp_path / "test_python_backend.py").write_text(tests, encoding="utf-8")
    return tmp_path


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_pages_backend_passes_the_pages_tests(folder: Path) -> None:
    result = pytest_in(folder)
    assert result.returncode == 0, result.stdout
    passed = re.fullmatch(r"(\d+) passed in .*", result.stdout.splitlines()[-1])
    assert passed is not None, result.stdout
    assert int(passed[1]) > 150


# What a backend might do wrong, and a test that finds it.
FAULTS = {
    "a product added to what was there": (
        "np.matmul(operation.a, operation.b, out=operation.out)",
        "np.add(operation.a @ operation.b, operation.out, out=operation.out)",
        "products",
    ),
    "one worker to its end, then the next": (
        "Calls([one for stretch in stretches for operations in stretch for one in operations])",
        "Calls([one for w in workers for s in split_at_reductions(w) for one in s])",
        "workers",
    ),
    "a program that runs once": ("for _ in range(count):", "for _ in range(1):", "as_often_as_told"),
    "memory of the host that is not copied": (
        "np.array(array if rows is None else array[rows])",
        "array if rows is None else array[rows]",
        "to_the_host",
    ),
    "a kernel that does not run": (
        "return in_python(operation)",
        "return in_python(operation) if operation.name != 'backward' else lambda: None",
        "plain_python",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_one_of_them(folder: Path, fault: str) -> None:
    right, wrong, _ = FAULTS[fault]
    module = folder / "python_backend.py"
    text = module.read_text(encoding="utf-8")
    assert right in text
    module.write_text(text.replace(right, wrong), encoding="utf-8")
    result = pytest_in(folder, "-x", "-k", FAULTS[fault][2])
    assert result.returncode == 1, result.stdout
    assert "1 failed" in result.stdout


def test_it_trains_as_the_cpu_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("python_backend", folder / "python_backend.py")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = (X[:, 0] > 0).astype(int)
    monkeypatch.setattr(
        "nnkit.backends.available", lambda: {"cpu": available()["cpu"], "python": module.create}
    )
    weights = []
    for device in ("cpu", "python"):
        assert select(device).backend.name == device
        network = Network([Dense(4, "tanh"), Dropout(0.2), Dense(2)], seed=1)
        trainer = Trainer(network, "cross_entropy", device=device, seed=3)
        trainer.fit(X, y, epochs=2, batch_size=16)
        weights.append(np.concatenate([array.ravel() for array in network.parameters().values()]))
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-4, atol=1e-5)
