"""Files of `nnkit export --to c`, compiled: they predict as the model does, or say what C cannot express."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from networks import LAYERS, X, moved
from test_cli import nnkit

from nnkit import Dense, Embedding, MLPClassifier, Model, Network, load, register_activation
from nnkit.data.operations import CategoryColumn, PlainRows
from nnkit.data.preprocessing import Preprocessor
from nnkit.errors import ConfigError
from nnkit.export.c import write_c
from nnkit.runs.config import Config
from nnkit.runs.run import Run

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
CHECKED = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-O2")


def compiled(path: Path, rows: np.ndarray, outputs: int) -> np.ndarray:
    """Compile a file without a warning, and return what its function gives for rows of columns."""
    library = path.with_suffix(".so")
    subprocess.run(["gcc", *CHECKED, "-shared", "-fPIC", path, "-o", library, "-lm"], check=True)
    predict = getattr(ctypes.CDLL(str(library)), f"{path.stem}_predict")
    found = np.zeros((len(rows), outputs), np.float32)
    for row, to_row in zip(np.ascontiguousarray(rows, np.float64), found, strict=True):
        pointers = (row.ctypes.data_as(ctypes.c_void_p), to_row.ctypes.data_as(ctypes.c_void_p))
        predict(*pointers)
    return found


def expected(model: Model, rows: Any) -> np.ndarray:
    """Return the model's probabilities or values, (rows, outputs)."""
    if model.task == "regression":
        values = model.predict(rows)
        return values.reshape(len(values), -1)
    return model.predict_proba(rows)


def agree(model: Model, path: Path, rows: Any, columns: np.ndarray) -> None:
    """Check a file's predictions: within 1e-5 of their scale, or four roundings of float32."""
    wanted = expected(model, rows)
    wide = []
    for member in model.members:
        wide.append(Network(member.layers))
        values = member.parameters()
        wide[-1].initialize(member.inputs or 0, dtype=np.float64, values=values)
    preprocessor = replace(model.preprocessor, dtype="float64")
    exact = replace(model, network=wide[0], others=tuple(wide[1:]), preprocessor=preprocessor)
    rounding = np.abs(wanted - expected(exact, rows)).max()
    found = compiled(path, columns, wanted.shape[1])
    assert np.abs(found - wanted).max() <= max(1e-5 * np.abs(wanted).max(), 4 * rounding)


def encoded(model: Model, table: pa.Table) -> np.ndarray:
    """Return a table's columns as the C function takes them: NaN where missing, codes for categories."""
    columns = []
    for operation in model.preprocessor.operations:
        column = table[operation.column]
        if isinstance(operation, CategoryColumn):
            codes = {value: code for code, value in enumerate(operation.values)}
            cells = [np.nan if text is None else codes.get(text, -9) for text in column.to_pylist()]
        else:
            if pa.types.is_date(column.type):
                column = column.cast(pa.timestamp("s")).cast(pa.int64())
            cells = [np.nan if value is None else value for value in column.to_pylist()]
        columns.append(np.array(cells, np.float64))
    return np.stack(columns, axis=1)


IN_C = [name for name in LAYERS if name not in ("periodic", "batch ensemble", "batch ensemble, flat")]


@needs_gcc
@pytest.mark.parametrize("name", IN_C)
def test_every_layer_that_c_has_predicts_the_same(name: str, tmp_path: Path) -> None:
    network = moved(LAYERS[name])
    losses = {"ensemble, sigmoid": "binary_cross_entropy", "ensemble, softmax": "cross_entropy"}
    losses["ensemble, exp"] = "poisson"
    network.save(tmp_path / "m.safetensors", loss=losses.get(name, "mse"))
    model = load(tmp_path / "m.safetensors")
    [path] = write_c(model, tmp_path / "net.c")
    agree(model, path, X, X)


@needs_gcc
@pytest.mark.parametrize(
    "settings",
    [
        ["data.target=species"],
        ["data.target=sex", "model.hidden=[8]", "data.drop=['island']", "data.missing_flags=false"],
        ["data.target=bill", "data.target_transform=log", "data.clamp_predictions=true"],
        ["data.target=bill", "data.target_transform=quantile", "data.scaling=robust", "model.hidden=[8]"],
        ["data.target=bill", "training.loss=poisson", "model.hidden=[]"],
    ],
)
def test_a_table_is_imputed_scaled_and_flagged(settings: list[str], table_file: Path, tmp_path: Path) -> None:
    whole = pyarrow.csv.read_csv(
        table_file, convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    )
    target = settings[0].partition("=")[2]
    known = whole.filter(whole[target].is_valid())
    pyarrow.csv.write_csv(known, tmp_path / "rows.csv")
    common = [f"data.train={tmp_path / 'rows.csv'}", "training.epochs=2", f"run.out={tmp_path / 'run'}"]
    onehot = "data.categories=onehot"
    Run(Config().with_overrides([*common, onehot, *settings])).train()
    result = nnkit("export", tmp_path / "run", "--to", "c", "--out", tmp_path / "table.c")
    assert (result.code, result.out) == (0, f"export   {tmp_path / 'table.c'}\n")
    model = load(tmp_path / "run")
    agree(model, tmp_path / "table.c", known, encoded(model, known))
    if "island" in known.column_names and "island" in (model.preprocessor.input_names or ()):
        others = known.set_column(known.column_names.index("island"), "island", [["nowhere"] * len(known)])
        agree(model, tmp_path / "table.c", others, encoded(model, others))


@needs_gcc
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_and_pixels(tmp_path: Path) -> None:
    classifier = MLPClassifier((5,), max_iter=30, random_state=0).fit(X.astype(float), (X > 0).astype(int))
    classifier.save(tmp_path / "classifier.safetensors")
    model = load(tmp_path / "classifier.safetensors")
    [path] = write_c(model, tmp_path / "estimator.c")
    np.testing.assert_allclose(compiled(path, X, 6), classifier.predict_proba(X), rtol=1e-4, atol=1e-6)
    settings = ["data.train=digits", "training.epochs=2", "model.hidden=[8]", f"run.out={tmp_path / 'run'}"]
    Run(Config().with_overrides(settings)).train()
    model = load(tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 17, (20, 64)).astype(np.uint8)
    agree(model, write_c(model, tmp_path / "pixels.c")[0], pixels, pixels)


@needs_gcc
def test_several_networks_are_averaged(tmp_path: Path) -> None:
    first, second = moved([Dense(5, "relu"), Dense(3)]), moved([Dense(5, "relu"), Dense(3)])
    second.set_parameters({"layers.0.bias": np.ones(5)})
    first.save(tmp_path / "m.safetensors", loss="cross_entropy")
    model = replace(load(tmp_path / "m.safetensors"), others=(second,))
    [path] = write_c(model, tmp_path / "two networks.c")
    path = path.rename(tmp_path / "two_networks.c")
    agree(model, path, X, X)


@needs_gcc
def test_names_end_no_comment(tmp_path: Path) -> None:
    names = ["a */ int x = 1; /*", "b\\\n", "c??/\n", 'd"', "e\u2028", "f"]
    table = pa.table({name: X[:, place].astype(float) for place, name in enumerate(names)} | {"y": X[:, 0]})
    plan = MLPClassifier(preset="tables", max_iter=2, random_state=0)
    plan.fit(table.drop_columns(["y"]), X[:, 0] > 0)
    plan.save(tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    agree(model, write_c(model, tmp_path / "names.c")[0], table, X)


def saved(network: Network, path: Path) -> Model:
    network.save(path, loss="mse")
    return load(path)


def test_what_c_cannot_express_is_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no place for 'sex', an embedded category: train with data\.cat"):
        write_c(load(trained), tmp_path / "x.c")
    for name, words in (
        ("periodic", "the layer Periodic"),
        ("batch ensemble, flat", "the layer BatchEnsemble, relu"),
    ):
        with pytest.raises(ConfigError, match=f"no place for {words}: choose another format"):
            write_c(saved(moved(LAYERS[name]), tmp_path / "m.safetensors"), tmp_path / "x.c")

    def square(z):
        return z * z

    def square_derivative(z):
        return 2.0 * z

    register_activation("squared", square, square_derivative)
    with pytest.raises(ConfigError, match="no activation 'squared'"):
        write_c(saved(moved([Dense(3, "squared"), Dense(1)]), tmp_path / "m.safetensors"), tmp_path / "x.c")
    embedding = moved([Embedding(5, 2), Dense(1)], 0)
    model = saved(embedding, tmp_path / "m.safetensors")
    assert model.preprocessor.operations == (PlainRows(0, (5,)),)
    with pytest.raises(ConfigError, match="no place for an Embedding"):
        write_c(model, tmp_path / "x.c")
    plain = saved(moved([Dense(1)]), tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match=r"x\.h: a C file ends in \.c"):
        write_c(plain, tmp_path / "x.h")
    assert isinstance(plain.preprocessor, Preprocessor)
    network = moved([Dense(1)])
    network.set_parameters({"layers.0.bias": np.array([np.inf])})
    with pytest.raises(ConfigError, match="not a finite number"):
        write_c(saved(network, tmp_path / "m.safetensors"), tmp_path / "x.c")
    assert not (tmp_path / "x.c").exists()
    result = nnkit("export", trained, "--to", "c")
    assert result.code == 2
    assert result.err.count("\n") == 1


def test_texts_and_pictures_are_refused_by_name(tmp_path: Path) -> None:
    from PIL import Image

    lines = [f"{('ham', 'spam')[n % 2]}\tword{n} and {('lunch', 'prize')[n % 2]} now" for n in range(60)]
    (tmp_path / "mails.tsv").write_text("label\tbody\n" + "\n".join(lines) + "\n")
    for label, shade in (("cats", 20), ("dogs", 220)):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 8), (shade + number, 0, 0)).save(tmp_path / f"pets/{label}/{number}.png")
    for data, extra, words in (
        ("mails.tsv", ["data.target=label"], "'body', a column of texts"),
        ("pets", ["data.image_size=8", "model.hidden=[4]"], "pictures"),
    ):
        out = tmp_path / f"run {data}"
        settings = [f"data.train={tmp_path / data}", "training.epochs=1", f"run.out={out}", *extra]
        Run(Config().with_overrides(settings)).train()
        with pytest.raises(ConfigError, match=f"no place for {words}"):
            write_c(load(out), tmp_path / "x.c")
