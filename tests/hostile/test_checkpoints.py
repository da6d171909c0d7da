"""Checkpoints that are sealed with a right digest and hold what no training keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostile.checks import endure
from hostile.tensor_files import TRAINED_ON, TensorFile, trainer
from nnkit.backends import blas
from nnkit.checks import Number
from nnkit.errors import ConfigError, DataError, ModelFileError


@pytest.fixture
def parts(tmp_path: Path) -> TensorFile:
    trainer(0).fit(*TRAINED_ON, epochs=2, batch_size=5, validation=0.25, checkpoints=tmp_path)
    # On a busy machine the first epoch takes more than the second after which it leaves one of its own.
    path = max(tmp_path.glob("step-*"), key=lambda one: one.stat().st_mtime_ns)
    return TensorFile.parse(path.read_bytes())


def test_taken_apart_and_put_together_it_is_resumed(parts: TensorFile) -> None:
    assert endure("checkpoint", parts.serialise()) is None


@pytest.mark.parametrize("threads", [["1", "1"], 1, None, "1" * 300])
def test_numerics_that_are_no_short_texts_are_refused(parts: TensorFile, threads: Any) -> None:
    parts.metadata["numerics"]["BLAS threads"] = threads
    assert isinstance(endure("checkpoint", parts.serialise()), ModelFileError)


@pytest.mark.parametrize("threads", ["", "-1", "0", "1e3", "1000000", "²", "9" * 5000])
def test_what_is_no_number_of_threads_changes_none(threads: str) -> None:
    before = blas.describe_blas()["BLAS threads"]
    with blas.blas_threads(threads):
        assert blas.describe_blas()["BLAS threads"] == before


@pytest.mark.parametrize("number", [10**400, -1, float("inf"), float("nan"), 2**63])
@pytest.mark.parametrize("name", ["step", "seconds", "epochs"])
def test_counts_and_times_that_no_training_reaches_are_refused(
    parts: TensorFile, name: str, number: float
) -> None:
    parts.metadata[name] = number
    assert isinstance(endure("checkpoint", parts.serialise()), ModelFileError)


@pytest.mark.parametrize("name", ["epoch", "batch", "best_epoch", "waited"])
def test_a_state_of_counts_that_no_training_reaches_is_refused(parts: TensorFile, name: str) -> None:
    parts.metadata["state"][name] = 10**400
    assert isinstance(endure("checkpoint", parts.serialise()), ModelFileError)


def _setting(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata["settings"]["optimizer"].update(beta1=value)


@pytest.mark.parametrize(
    "alter",
    [
        _setting("x" * 5000),
        _setting([0.9] * 1000),
        lambda metadata: metadata["settings"].update({"x" * 5000: 1}),
        lambda metadata: metadata["settings"].update({f"key {number}": 1 for number in range(500)}),
    ],
)
def test_long_settings_are_told_in_short(parts: TensorFile, alter: Callable[[dict[str, Any]], None]) -> None:
    alter(parts.metadata)
    assert isinstance(endure("checkpoint", parts.serialise()), ConfigError)


@pytest.mark.parametrize(
    "alter",
    [
        lambda data: data.update({"x" * 5000: {}}),
        lambda data: data.update({f"array {number}": {} for number in range(500)}),
        lambda data: data["training features"].update(dtype="x" * 5000),
        lambda data: data["training features"].update(shape=[1] * 3000),
    ],
)
def test_long_fingerprints_are_told_in_short(
    parts: TensorFile, alter: Callable[[dict[str, Any]], None]
) -> None:
    alter(parts.metadata["data"])
    assert isinstance(endure("checkpoint", parts.serialise()), DataError)


@pytest.mark.parametrize("section", ["settings", "state"])
def test_long_values_are_told_in_short(parts: TensorFile, section: str) -> None:
    """One was quoted whole where it is no number, the other in the reason why it is no state."""
    parts.metadata[section] |= {"batch_size": "x" * 5000} if section == "settings" else {"x" * 5000: 1}
    assert isinstance(endure("checkpoint", parts.serialise()), (ConfigError, ModelFileError))


@pytest.mark.parametrize("number", [10**400, -(10**400), float("nan")])
def test_a_number_beyond_all_floats_is_a_config_error(number: float) -> None:
    with pytest.raises(ConfigError, match="must be a finite number"):
        Number(0)("l1", number)
