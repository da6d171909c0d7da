"""Models as ONNX graphs: other runtimes give a model's answers from a user's columns."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from kept.write import as_rows

import nnkit
from nnkit import (
    Activation,
    BatchEnsemble,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    LayerNorm,
    Model,
    Network,
    Periodic,
    PiecewiseLinear,
    Residual,
    Scale,
    Sequential,
    load,
    register_activation,
)
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError
from nnkit.export.onnx import register_skl2onnx, to_onnx, write_onnx
from nnkit.export.onnx.inputs import MISSING_DATE
from nnkit.export.onnx.proof import feeds
from nnkit.feed.features import Bags, Features
from nnkit.nn import activations
from nnkit.nn.activations import activation_names
from nnkit.nn.losses import loss_from
from nnkit.runs.config import Config
from nnkit.runs.run import Run

pytestmark = [pytest.mark.extra("onnx"), pytest.mark.extra("onnxruntime")]
KEPT = sorted((Path(__file__).parent.parent / "kept").glob("*/*.safetensors"))


def session(model: Any) -> Any:
    """Return onnxruntime's session for a file or a graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def plain(layers: list[Any], loss: str = "cross_entropy", inputs: int = 6) -> Model:
    """Return a model of plain rows, with random weights."""
    network = Network(layers, inputs=inputs, seed=3)
    draw = np.random.default_rng(1)
    network.set_parameters({name: draw.normal(size=v.shape) for name, v in network.parameters().items()})
    task = loss_from(loss).task(network.output_width)
    target = TargetEncoder.plain(task, network.output_width)
    tables = tuple(layer.size for layer in network.embeddings)
    from nnkit.data.operations import PlainRows

    return Model(network, Preprocessor((PlainRows(inputs, tables),)), target, loss_from(loss))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_the_graph_of_each_kind_of_model_gives_its_kept_answers(path: Path, tmp_path: Path) -> None:
    kept = json.loads(path.with_suffix(".json").read_text())
    model = load(path)
    write_onnx(path, tmp_path / "m.onnx")
    rows = as_rows(model, kept["rows"])
    if isinstance(rows, pa.Table):
        rows, _ = model.preprocessor.read_table(rows)
    elif rows.dtype == np.float32 and model.preprocessor.input_names is None:
        rows = (
            Features(rows) if "X" in {one.name for one in session(tmp_path / "m.onnx").get_inputs()} else rows
        )
    given = feeds(model.preprocessor, rows)
    declared = {one.name: one.type for one in session(tmp_path / "m.onnx").get_inputs()}
    if "X" in given and declared["X"] != "tensor(float)":
        given["X"] = given["X"].astype(
            {"tensor(double)": np.float64, "tensor(uint8)": np.uint8}[declared["X"]]
        )
    answers = session(tmp_path / "m.onnx").run(None, given)
    if model.task == "regression":
        np.testing.assert_allclose(answers[0], kept["predictions"], rtol=2e-5, atol=2e-6)
    else:
        np.testing.assert_allclose(answers[1], kept["probabilities"], rtol=2e-5, atol=2e-6)
        if not model.target.labels:
            assert answers[0].tolist() == kept["predictions"]


@pytest.mark.parametrize("name", [name for name in activation_names() if name.isidentifier()])
def test_each_activation_is_the_models(name: str) -> None:
    model = plain([Dense(7, name), Dense(2)], "mse")
    rows = np.random.default_rng(0).normal(0, 3, (50, 6)).astype(np.float32)
    (values,) = session(to_onnx(model)).run(None, {"X": rows})
    np.testing.assert_allclose(values, model.predict(rows), rtol=1e-5, atol=1e-5)


EDGES = ((-1.0, 0.0, 2.0), (), (0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    "layers",
    [
        [PiecewiseLinear(4, EDGES), Dense(5, "relu"), Dense(3)],
        [
            PiecewiseLinear(4, EDGES),
            BatchEnsemble(4, "tanh", members=2),
            Ensemble(Dense(3), members=2, link="softmax"),
        ],
        [Periodic(3, 2, columns=4), Dense(3)],
        [Periodic(3, 4), LayerNorm(bias=False), Dense(3, bias=False)],
        [
            Scale(),
            Sequential(Dense(6), Activation("selu"), Dropout(0.5)),
            Residual(Dense(6, "elu")),
            Dense(3),
        ],
        [
            Ensemble(
                PiecewiseLinear(4, EDGES), Dense(4, "silu"), LayerNorm(), Dense(3), members=3, link="softmax"
            )
        ],
    ],
    ids=lambda layers: type(layers[0]).__name__,
)
def test_each_layer_is_the_models(layers: list[Any]) -> None:
    model = plain(layers)
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    _, probabilities = session(to_onnx(model)).run(None, {"X": rows})
    np.testing.assert_allclose(probabilities, model.predict_proba(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_a_bag_is_reduced_as_the_models(reduce: Any) -> None:
    model = plain([Embedding(9, 4, reduce), Dense(3)], inputs=2)
    ids, starts = np.array([1, 8, 8, 0, 3]), np.array([0, 0, 3, 3, 5])
    dense = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    given = {"X": dense, "bags_0.ids": ids, "bags_0.starts": starts}
    _, probabilities = session(to_onnx(model)).run(None, given)
    rows = Features(dense, bags=(Bags(ids.astype(np.int32), starts, 9),))
    np.testing.assert_allclose(probabilities, model.predict_proba(rows), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on columns with awkward names and cells."""
    folder = tmp_path_factory.mktemp("odd")
    draw = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "label": draw.normal(size=200).round(2),
            "größe (m²)": np.where(draw.random(200) < 0.1, -999, draw.normal(5, 2, 200).round(3)),
            "zip": draw.choice(["01", "2", "3.5"], 200),
            "is new": draw.choice([True, False], 200),
            "a/b": draw.choice(["x", "y", ""], 200),
            "sold": pd.date_range("2020-01-01", periods=200).strftime("%d.%m.%Y"),
            "probabilities": draw.choice(["yes", "no"], 200),
        }
    )
    rows.to_csv(folder / "odd.csv", index=False)
    given = ["data.target=probabilities", 'data.missing=["-999"]', 'data.types={zip = "category"}']
    settings = [f"data.train={folder / 'odd.csv'}", f"run.out={folder / 'run'}", "training.epochs=2", *given]
    Run(Config().with_overrides(settings)).train()
    return folder / "run"


def test_columns_keep_their_names_and_cells_mean_what_they_mean_to_the_model(
    odd: Path, tmp_path: Path
) -> None:
    model = load(odd)
    graph = to_onnx(odd)
    names = [one.name for one in graph.graph.input]
    assert names == ["label", "größe (m²)", "zip", "is new", "a/b", "sold"]
    assert [one.name for one in graph.graph.output] == ["predicted_label", "probabilities"]
    cells = [
        ("0.5", "5.25", "01", "true", "x", "02.01.2020"),
        ("", "-999", "2.0", "True", "", "03.01.2020"),
        ("inf", "nan", "3.50", "0", "never seen", ""),
        ("-1", "1e3", "1", "NO", "NA", "31.12.2019"),
    ]
    pd.DataFrame(cells, columns=names).to_csv(tmp_path / "asked.csv", index=False)
    asked = pd.read_csv(tmp_path / "asked.csv", dtype=str, keep_default_na=False)
    wanted = model.predict_proba(asked)
    days = pd.to_datetime(pd.Series([row[5] for row in cells]), format="%d.%m.%Y")
    seconds = np.where(days.isna(), MISSING_DATE, days.astype("datetime64[s]").astype(np.int64))
    given: dict[str, Any] = {"sold": seconds.reshape(-1, 1)}
    for place, name in enumerate(names[:5]):
        column = [row[place] for row in cells]
        is_number = name in names[:2]
        given[name] = np.array(
            [float(cell or "nan") for cell in column] if is_number else column, None if is_number else object
        )
        given[name] = given[name].reshape(-1, 1)
    given["zip"][2, 0] = "3.5"
    _, probabilities = session(graph).run(None, given)
    np.testing.assert_allclose(probabilities, wanted, rtol=1e-5, atol=1e-6)
    # The graph's own answer does not stand for a wrong one: cells change it.
    assert len(np.unique(probabilities[:, 0])) > 1


def test_the_file_tells_what_was_compared_and_of_which_model(odd: Path, tmp_path: Path) -> None:
    import onnx

    done = write_onnx(odd, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    about = {entry.key: entry.value for entry in proto.metadata_props}
    assert about["model_sha256"] == hashlib.sha256((odd / "model.safetensors").read_bytes()).hexdigest()
    proof = json.loads(about["proof"])
    assert proof["rows"] == done.proof.rows == 200
    assert proof["inputs"] == "bit-equal"
    assert 0 < proof["difference"] < proof["bound"]
    assert len(proof["runtimes"]) == 2
    assert (proto.ir_version, {one.domain: one.version for one in proto.opset_import}) == (
        8,
        {"": 17, "ai.onnx.ml": 3},
    )
    assert "ZipMap" not in {node.op_type for node in proto.graph.node}
    assert {one.type.tensor_type.shape.dim[0].dim_param for one in proto.graph.input} == {"N"}
    assert to_onnx(odd, opset=20).opset_import[0].version == 20


def test_a_graph_that_is_wrong_is_refused_by_the_name_of_the_column(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nnkit.export.onnx.inputs as inputs

    number = inputs._number

    def wrong(graph: Any, operation: Any, *others: Any) -> Any:
        x, missing = number(graph, operation, *others)
        return (
            (graph.add("Add", x, graph.constant(1e-4, np.float32)), missing)
            if "gr" in operation.column
            else (x, missing)
        )

    monkeypatch.setattr(inputs, "_number", wrong)
    with pytest.raises(ConfigError, match=r"column 'größe \(m²\)' cannot be exported exactly"):
        write_onnx(odd, tmp_path / "m.onnx")
    monkeypatch.undo()
    monkeypatch.setattr("nnkit.export.onnx.layers._dense", None)
    import nnkit.export.onnx.layers as layers

    emit = layers._LAYERS[Dense]
    monkeypatch.setitem(
        layers._LAYERS, Dense, lambda to, place, x: to.graph.add("Mul", emit(to, place, x), to.number(1.001))
    )
    with pytest.raises(ConfigError, match="the exported graph differs from the model by"):
        write_onnx(odd, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def _twice(z):  # type: ignore[no-untyped-def]
    return 2.0 * z


def _two(z):  # type: ignore[no-untyped-def]
    return 2.0


def test_what_has_no_counterpart_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnkit.nn.activations._REGISTRY", {**activations._REGISTRY})
    register_activation("twice", _twice, _two)
    with pytest.raises(ConfigError, match="the activation 'twice' is your own"):
        to_onnx(plain([Dense(3, "twice"), Dense(2)]))
    with pytest.raises(ConfigError, match="reduced by its maximum"):
        to_onnx(plain([Embedding(9, 4, "max"), Dense(3)], inputs=2))
    with pytest.raises(ConfigError, match="opset = 16 must be a whole number of at least 17"):
        to_onnx(plain([Dense(2)]), opset=16)
    with pytest.raises(ConfigError, match="a Model, an estimator or a path is exported, not int"):
        to_onnx(3)


def test_the_tokenizer_beside_a_graph_gives_the_models_ids_without_nnkit(tmp_path: Path) -> None:
    texts = ["see you at lunch", "win a free prize!!! now", "don't call, 漢字", "", "élan vital café"] * 20
    rows = pd.DataFrame(
        {"text": [f"{text} {n % 4}" for n, text in enumerate(texts)], "kind": ["a", "b"] * 50}
    )
    rows.to_csv(tmp_path / "t.csv", index=False)
    for name, settings in {"words": [], "hashed": ["text.hashing=50"], "tfidf": ["text.tfidf=true"]}.items():
        given = [
            f"data.train={tmp_path / 't.csv'}",
            "data.target=kind",
            "data.text=text",
            "training.epochs=1",
        ]
        run = Run(Config().with_overrides([*given, *settings, f"run.out={tmp_path / name}"]))
        run.train()
        write_onnx(tmp_path / name, tmp_path / name / "m.onnx")
        asked = ["you win lunch", "", "CAFÉ café!!", "unheard-of wörds 漢"]
        program = (
            "import sys, json; sys.path.insert(0, sys.argv[1]); sys.modules['nnkit'] = None\n"
            "from m_tokenizer import encode\n"
            "found = encode('text', json.loads(sys.argv[2]))\n"
            "print(json.dumps({name: values.tolist() for name, values in found.items()}))"
        )
        command = [sys.executable, "-c", program, str(tmp_path / name), json.dumps(asked)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        found = {key: np.array(values) for key, values in json.loads(done.stdout).items()}
        wanted = feeds(run.model.preprocessor, pa.table({"text": asked}))
        assert found.keys() == wanted.keys()
        for key, values in wanted.items():
            np.testing.assert_allclose(found[key], values, rtol=1e-6)


def test_estimators_are_exported_too() -> None:
    X = np.random.default_rng(0).normal(size=(80, 3))
    y = np.array(["lo", "mid", "hi"])[np.digitize(X[:, 0], [-0.5, 0.5])]
    classifier = nnkit.MLPClassifier((5,), max_iter=20, random_state=0).fit(X, y)
    labels, probabilities = session(to_onnx(classifier)).run(None, {"X": X})
    assert labels.tolist() == classifier.predict(X).tolist()
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), atol=1e-6)


@pytest.mark.extra("skl2onnx")
@pytest.mark.filterwarnings("ignore")
def test_pipelines_are_exported_by_skl2onnx() -> None:
    import skl2onnx
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    register_skl2onnx()
    X = np.random.default_rng(0).normal(3, 2, size=(80, 3)).astype(np.float32)
    kinds = np.array(["lo", "mid", "hi"])[np.digitize(X[:, 0], [2, 4])]
    classifier = make_pipeline(StandardScaler(), nnkit.MLPClassifier((5,), max_iter=20, random_state=0)).fit(
        X, kinds
    )
    graph = skl2onnx.to_onnx(classifier, X[:1], target_opset=17, options={"zipmap": False})
    labels, probabilities = session(graph).run(None, {"X": X})
    assert labels.tolist() == classifier.predict(X).tolist()
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), atol=1e-6)
    regressor = make_pipeline(
        StandardScaler(), nnkit.MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, random_state=0)
    )
    regressor.fit(X, X[:, :2])
    (values,) = session(skl2onnx.to_onnx(regressor, X[:1], target_opset=17)).run(None, {"X": X})
    np.testing.assert_allclose(values, regressor.predict(X), rtol=1e-5, atol=1e-5)


def command(*arguments: object) -> tuple[int, str, str]:
    """Run the program here; return its exit code and what it printed."""
    from test_cli import nnkit as program

    done = program(*arguments)
    return done.code, done.out, done.err


def test_the_command_writes_beside_the_model_and_says_what_was_compared(odd: Path, tmp_path: Path) -> None:
    code, out, _ = command("export", odd, "--check", odd.parent / "odd.csv")
    assert code == 0
    assert out.startswith("compared 200 rows in onnxruntime ")
    assert out.endswith(f"export   {odd / 'model.onnx'}\n")
    assert command("export", odd, "--out", tmp_path / "x.onnx", "-q")[1] == f"{tmp_path / 'x.onnx'}\n"
    for arguments, words in {
        (odd, "--to", "tensorflow"): "'tensorflow' is not one of 'onnx'",
        (tmp_path / "none",): "there is no such file or run",
        (odd.parent / "odd.csv",): "odd.csv",
        (odd, "--opset", "9"): "--opset = 9 must be a whole number of at least 17",
        (odd, "--out", "/proc/nowhere/x.onnx"): "/proc/nowhere",
    }.items():
        code, _, err = command("export", *arguments)
        assert code == 2, arguments
        assert words in err.replace("\n", " "), err
        assert "Traceback" not in err


@pytest.mark.slow
def test_raw_columns_of_real_tables_give_the_answers_of_predict(shared_data: Path, tmp_path: Path) -> None:
    """All of them: pandas reads the CSV, onnxruntime answers, and nothing of nnkit stands between."""
    folder = shared_data / "tables"
    for name, about in json.loads((folder / "tables.json").read_text()).items():
        lines = (folder / f"{name}.csv").read_text().splitlines()[:801]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        given = [
            f"data.train={tmp_path / name}.csv",
            f"data.target={about['target']}",
            "training.preset=fast",
        ]
        run = Run(Config().with_overrides([*given, "training.epochs=1", f"run.out={tmp_path / name}"]))
        run.train()
        write_onnx(tmp_path / name, tmp_path / f"{name}.onnx")
        frame = pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False, na_values=[""])
        opened = session(tmp_path / f"{name}.onnx")
        columns = {
            one.name: pd.to_numeric(frame[one.name], errors="coerce").to_numpy(float)
            if one.type == "tensor(double)"
            else frame[one.name].fillna("").astype(str).to_numpy(object)
            for one in opened.get_inputs()
        }
        answers = opened.run(None, {key: values.reshape(-1, 1) for key, values in columns.items()})
        rows = nnkit.read_table(tmp_path / f"{name}.csv", schema=run.model.schema)
        if run.model.task == "regression":
            wanted = run.model.predict(rows)
            np.testing.assert_allclose(
                answers[0], wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max(), err_msg=name
            )
        else:
            np.testing.assert_allclose(answers[1], run.model.predict_proba(rows), atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="node and npm are not installed")
def test_onnxruntime_web_under_node_gives_the_same(odd: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        ["npm", "install", "--silent", "onnxruntime-web"], cwd=tmp_path, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"npm install onnxruntime-web failed: {made.stderr[-200:]}")
    write_onnx(odd, tmp_path / "m.onnx")
    model = load(odd)
    rows = nnkit.read_table(odd.parent / "odd.csv", schema=model.schema).slice(0, 20)
    given = feeds(model.preprocessor, rows)
    columns = {
        name: {"type": str(v.dtype), "data": [str(one) for one in v.ravel().tolist()]}
        for name, v in given.items()
    }
    (tmp_path / "rows.json").write_text(json.dumps(columns))
    (tmp_path / "run.mjs").write_text(PROGRAM)
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout.splitlines()[-1])).reshape(20, -1)
    np.testing.assert_allclose(found, model.predict_proba(rows), atol=1e-5)


PROGRAM = """
import * as ort from 'onnxruntime-web';
import { readFileSync } from 'node:fs';
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync('m.onnx'));
const feeds = {};
for (const [name, { type, data }] of Object.entries(JSON.parse(readFileSync('rows.json')))) {
  const shape = [data.length, 1];
  if (type === 'float64') {
    const numbers = Float64Array.from(data, (x) => x === 'nan' ? NaN : +x);
    feeds[name] = new ort.Tensor('float64', numbers, shape);
  }
  else if (type === 'int64') feeds[name] = new ort.Tensor('int64', BigInt64Array.from(data, BigInt), shape);
  else feeds[name] = new ort.Tensor('string', data, shape);
}
const answers = await session.run(feeds);
console.log(JSON.stringify(Array.from(answers.probabilities.data)));
"""
