"""Files of `nnkit export --to torch`: they predict as the model does, by torch and safetensors alone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from networks import LAYERS, X, moved
from safetensors import safe_open
from test_cli import nnkit

from nnkit import Dense, MLPClassifier, MLPRegressor, Model, load
from nnkit.errors import ConfigError, FileError
from nnkit.export.torch import write_torch
from nnkit.interop.torch import from_module
from nnkit.runs.config import Config
from nnkit.runs.run import Run

# Reads columns or rows as JSON from standard input, and writes predictions; nnkit cannot be imported.
PROGRAM = """
import json, sys
sys.modules["nnkit"] = None
sys.path.insert(0, sys.argv[1])
import torch
import exported
given = json.load(sys.stdin)
rows = given if isinstance(given, dict) else torch.tensor(given)
json.dump(exported.predict(rows).tolist(), sys.stdout)
"""


def exported(folder: Path) -> Any:
    """Return the module of an exported file."""
    spec = importlib.util.spec_from_file_location("exported", folder / "exported.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def predicted(folder: Path, rows: Any) -> np.ndarray:
    """Return what an exported file predicts."""
    torch = pytest.importorskip("torch")
    return exported(folder).predict(rows if isinstance(rows, dict) else torch.tensor(rows)).numpy()


def predicted_alone(folder: Path, rows: Any) -> np.ndarray:
    """Return what an exported file predicts in a process without nnkit."""
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    result = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return np.array(json.loads(result.stdout))


def columns(table: pa.Table, model: Model) -> dict[str, list[Any]]:
    """Return the model's columns of a table as the exported file takes them."""
    found = {}
    for name in model.preprocessor.input_names or ():
        column = table[name]
        if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("s")).cast(pa.int64())
        found[name] = column.to_pylist()
    return found


def raw(path: Path) -> pa.Table:
    """Return a CSV as Arrow reads it, its empty cells missing."""
    return pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True))


@pytest.mark.extra("torch")
def test_the_file_of_a_table_predicts_the_same_without_nnkit(
    trained: Path, table_file: Path, tmp_path: Path
) -> None:
    result = nnkit("export", trained, "--to", "torch", "--out", tmp_path / "exported.py")
    weights, program = tmp_path / "exported.safetensors", tmp_path / "exported.py"
    assert result.out == f"export   {weights}\nexport   {program}\n"
    model = load(trained)
    table = raw(table_file)
    assert table["sex"].null_count
    assert table["mass"].null_count
    found = predicted_alone(tmp_path, columns(table, model))
    np.testing.assert_allclose(found, model.predict_proba(table), rtol=1e-4, atol=1e-6)
    unknown = {**columns(table, model), "island": ["nowhere"] * len(table)}
    others = table.set_column(table.column_names.index("island"), "island", [unknown["island"]])
    np.testing.assert_allclose(
        predicted(tmp_path, unknown), model.predict_proba(others), rtol=1e-4, atol=1e-6
    )
    with safe_open(weights, "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert "1.0.1.weight" in file.keys()  # noqa: SIM118


@pytest.mark.extra("torch")
@pytest.mark.parametrize(
    "settings",
    [
        ["data.target_transform=log", "data.clamp_predictions=true", "data.scaling=robust"],
        ["data.target_transform=quantile", "model.hidden=[8]", "model.ensemble=1", "model.numbers=linear"],
        ["training.loss=poisson", "data.missing_flags=false"],
    ],
)
def test_a_regression_gives_values_in_its_units(
    settings: list[str], table_file: Path, tmp_path: Path
) -> None:
    common = [
        "training.epochs=2",
        f"data.train={table_file}",
        "data.target=bill",
        f"run.out={tmp_path / 'run'}",
    ]
    Run(Config().with_overrides([*common, *settings])).train()
    model = load(tmp_path / "run")
    write_torch(model, tmp_path / "exported")
    table = raw(table_file)
    found = predicted(tmp_path, columns(table, model))
    np.testing.assert_allclose(found[:, 0], model.predict(table), rtol=1e-5)


@pytest.mark.extra("torch")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_files_of_estimators_and_of_arrays(tmp_path: Path) -> None:
    y = X[:, :2] * 3 + 1
    regressor = MLPRegressor(hidden_layer_sizes=(5,), max_iter=30, random_state=0, dtype="float64").fit(X, y)
    regressor.save(tmp_path / "regressor.safetensors")
    write_torch(load(tmp_path / "regressor.safetensors"), tmp_path / "exported")
    np.testing.assert_allclose(predicted(tmp_path, X.tolist()), regressor.predict(X), rtol=1e-12, atol=1e-12)
    labels = X > 0
    classifier = MLPClassifier((5,), max_iter=30, random_state=0).fit(X, labels.astype(int))
    classifier.save(tmp_path / "classifier.safetensors")
    write_torch(load(tmp_path / "classifier.safetensors"), tmp_path / "exported")
    expected = classifier.predict_proba(X)
    np.testing.assert_allclose(predicted(tmp_path, X.tolist()), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.extra("torch")
def test_pixels_are_scaled_as_in_training(tmp_path: Path) -> None:
    settings = ["data.train=digits", "training.epochs=2", "model.hidden=[8]", f"run.out={tmp_path / 'run'}"]
    Run(Config().with_overrides(settings)).train()
    model = load(tmp_path / "run")
    write_torch(model, tmp_path / "exported")
    pixels = np.random.default_rng(0).integers(0, 17, (20, 64)).astype(np.uint8)
    found = predicted(tmp_path, pixels.tolist())
    np.testing.assert_allclose(found, model.predict_proba(pixels), rtol=1e-4, atol=1e-6)


@pytest.mark.extra("torch")
@pytest.mark.parametrize("name", ["residual", "periodic", "batch ensemble", "no bias"])
def test_the_file_builds_every_kind_of_layer(name: str, tmp_path: Path) -> None:
    network = moved(LAYERS[name])
    network.save(tmp_path / "m.safetensors", loss="cross_entropy" if network.output_width > 1 else "mse")
    model = load(tmp_path / "m.safetensors")
    write_torch(model, tmp_path / "exported")
    assert np.array_equal(from_module(exported(tmp_path).load()).outputs(X), network.outputs(X))
    found = predicted(tmp_path, X.tolist())
    expected = model.predict_proba(X) if model.task == "multiclass" else model.predict(X)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.extra("torch")
def test_a_model_of_texts_has_a_network_and_no_predict(tmp_path: Path) -> None:
    lines = [f"{('ham', 'spam')[n % 2]}\tword{n} and {('lunch', 'prize')[n % 2]} now" for n in range(60)]
    (tmp_path / "mails.tsv").write_text("label\tbody\n" + "\n".join(lines) + "\n")
    out = tmp_path / "run"
    settings = [f"data.train={tmp_path / 'mails.tsv'}", "data.target=label", "training.epochs=2"]
    Run(Config().with_overrides([*settings, f"run.out={out}"])).train()
    paths = write_torch(load(out), tmp_path / "exported")
    source = paths[1].read_text()
    assert "def predict" not in source
    assert "nn.EmbeddingBag(" in source
    subprocess.run([sys.executable, str(paths[1])], check=True, capture_output=True)


def test_the_models_own_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    moved([Dense(3)]).save(path, loss="mse")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is a model of nnkit's, which would be lost"):
        write_torch(load(path), path)
    result = nnkit("export", path, "--to", "torch", "--out", path)
    assert result.code == 2
    assert "choose another name" in result.err
    assert path.read_bytes() == before
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(FileError, match="it is a folder"):
        write_torch(load(path), tmp_path / "folder")
    with pytest.raises(FileError, match="it is a folder"):
        write_torch(load(path), tmp_path)


def test_wrong_arguments_of_the_command_are_named(tmp_path: Path) -> None:
    assert nnkit("export", tmp_path, "--to", "torch").code == 2
    result = nnkit("export", tmp_path, "--to", "caffe")
    assert result.code == 2
    assert "'caffe' is not one of" in result.err
