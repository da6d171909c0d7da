"""What can be done, and what is said, where torch and Keras are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from networks import LAYERS, moved

from nnkit import load
from nnkit.errors import ConfigError
from nnkit.export.torch import write_torch
from nnkit.interop.keras import from_keras, to_keras
from nnkit.interop.torch import from_module, module_inputs, to_module


@pytest.fixture(autouse=True)
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "keras"):
        monkeypatch.setitem(sys.modules, name, None)


def test_the_message_says_what_to_install() -> None:
    network = moved(LAYERS["bins"])
    for call in (
        lambda: to_module(network),
        lambda: from_module(None),
        lambda: module_inputs(network, [[0.0] * 6]),
    ):
        with pytest.raises(ConfigError, match=r"^torch is not installed: pip install torch$"):
            call()
    for call in (lambda: to_keras(network), lambda: from_keras(None)):
        with pytest.raises(ConfigError, match=r"^keras is not installed: pip install keras$"):
            call()


def test_files_for_torch_are_written_without_it(tmp_path: Path) -> None:
    moved(LAYERS["bins"]).save(tmp_path / "m.safetensors", loss="mse")
    weights, program = write_torch(load(tmp_path / "m.safetensors"), tmp_path / "out")
    assert weights.is_file()
    source = program.read_text()
    assert "class PiecewiseLinear(nn.Module):" in source
    assert "class Periodic" not in source
