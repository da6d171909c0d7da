"""Model files that are sealed with a right digest and describe what no training writes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hostile.checks import endure
from hostile.tensor_files import TensorFile, models
from nnkit.errors import ModelFileError
from nnkit.model import load


@pytest.fixture
def parts(tmp_path: Path) -> TensorFile:
    models()[0].save(tmp_path / "model")
    return TensorFile.parse((tmp_path / "model").read_bytes())


def test_taken_apart_and_put_together_it_is_read(parts: TensorFile) -> None:
    assert endure("model", parts.serialise()) is None


@pytest.mark.parametrize("bias", [[], 1, -1e308, "yes", '"); import os; ("', None])
def test_a_bias_that_is_neither_true_nor_false_reaches_no_kernel(parts: TensorFile, bias: Any) -> None:
    """It became a constant of the generated source, and a kernel of its own in the cache."""
    parts.metadata["network"]["layers"][0]["bias"] = bias
    assert isinstance(endure("model", parts.serialise()), ModelFileError)


def test_layers_that_claim_more_than_the_file_holds_allocate_nothing(
    parts: TensorFile, tmp_path: Path
) -> None:
    parts.metadata["network"]["layers"][0]["units"] = 2**27
    (tmp_path / "model").write_bytes(parts.serialise())
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=r"layers\.0\.weight"):
        load(tmp_path / "model")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def _details(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata["details"].update(data=value)


@pytest.mark.parametrize(
    "alter",
    [
        _details(float("nan")),
        _details(float("inf")),
        _details([[[]] * 3]),
        lambda metadata: metadata.update(dtype="float64"),
        lambda metadata: metadata["preprocessing"].update(dtype="float64"),
        lambda metadata: metadata["network"].update(inputs=10**30),
        lambda metadata: metadata["network"].update(inputs=float("inf")),
        lambda metadata: metadata["network"]["layers"][0].update(units=10**30),
        lambda metadata: metadata["network"]["layers"][0].update(activation="x" * 5000),
        lambda metadata: metadata["network"]["layers"][0].update(activation=["relu"]),
        lambda metadata: metadata["network"]["layers"].append({"kind": ["Dense"]}),
        lambda metadata: metadata["target"].update(names=["y" * 10_000]),
        lambda metadata: metadata["target"]["classes"].update(values=["a", "a"]),
        lambda metadata: metadata["target"]["classes"].update(values=[1, "a"], dtype="object"),
        lambda metadata: metadata["loss"].update(name=7),
    ],
)
def test_a_description_that_is_none_gives_a_result_or_a_short_error(
    parts: TensorFile, alter: Callable[[dict[str, Any]], None]
) -> None:
    alter(parts.metadata)
    endure("model", parts.serialise())


def test_details_that_json_lacks_are_refused(parts: TensorFile) -> None:
    """Read, they could not be saved again."""
    parts.metadata["details"]["data"] = float("nan")
    assert isinstance(endure("model", parts.serialise()), ModelFileError)


@pytest.mark.parametrize("reader", ["model", "tensorfile", "checkpoint"])
@pytest.mark.parametrize("levels", [101, 900, 100_000])
def test_deep_metadata_are_refused(reader: str, levels: int, parts: TensorFile) -> None:
    """At some depths JSON is parsed, and then too deep for whatever shows it."""
    parts.raw["format"] = {
        "model": "nnkit.model",
        "tensorfile": "some.kind",
        "checkpoint": "nnkit.checkpoint",
    }[reader]
    parts.raw["details"] = "[" * levels + "]" * levels
    assert isinstance(endure(reader, parts.serialise()), ModelFileError)


@pytest.mark.parametrize("number", [np.inf, np.nan, 3e38, -3e38])
def test_weights_that_overflow_give_predictions_without_a_warning(number: float, tmp_path: Path) -> None:
    for place, model in enumerate(models()):
        model.save(tmp_path / "model")
        file = TensorFile.parse((tmp_path / "model").read_bytes())
        dtype = model.network.arena.dtype
        file.body = np.full(len(file.body) // dtype.itemsize, number, dtype).tobytes()
        assert endure("model", file.serialise()) is None, place


@pytest.mark.parametrize(
    "alter", [lambda entry: entry.update(dtype="I32"), lambda entry: entry.update(shape=[4, 5])]
)
def test_parameters_of_another_type_or_shape_are_refused(
    parts: TensorFile, alter: Callable[[dict[str, Any]], None]
) -> None:
    alter(parts.entries["layers.0.weight"])
    assert isinstance(endure("model", parts.serialise()), ModelFileError)


def test_parameters_wider_than_what_the_network_computes_in_are_refused(tmp_path: Path) -> None:
    """They overflowed the narrower type, with a warning."""
    models()[2].save(tmp_path / "model")
    file = TensorFile.parse((tmp_path / "model").read_bytes())
    file.metadata["dtype"] = file.metadata["preprocessing"]["dtype"] = "float32"
    file.body = np.full(len(file.body) // 8, 1e300).tobytes()
    assert isinstance(endure("model", file.serialise()), ModelFileError)


def test_a_parameter_that_no_layer_has_is_refused(parts: TensorFile) -> None:
    end = len(parts.body)
    parts.entries["scalar"] = {"dtype": "F32", "shape": [], "data_offsets": [end, end + 4]}
    parts.body += bytes(4)
    assert isinstance(endure("model", parts.serialise()), ModelFileError)
