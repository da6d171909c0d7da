"""Write the model files that every later version must read: `python tests/kept/write.py FOLDER`.

The folder is called after the version that writes it, and is never written again. Beside each model,
NAME.json holds rows as users give them, and what the model says of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nnkit import (
    BatchEnsemble,
    Dense,
    Ensemble,
    LayerNorm,
    MLPClassifier,
    MLPRegressor,
    Model,
    Network,
    Periodic,
    Residual,
    Scale,
    load,
)
from nnkit.runs.config import Config
from nnkit.runs.run import Run

ROWS = 120
draw = np.random.default_rng(0)


def table() -> dict[str, list[Any]]:
    """Return columns of every kind, with gaps."""
    x, size = draw.normal(size=(2, ROWS)).round(3)
    colours = np.array(["red", "green", "blue"])[draw.integers(0, 3, ROWS)]
    return {
        "x": [None if value > 2 else float(value) for value in x],
        "size": [float(10 + value) for value in size],
        "colour": [None if row % 17 == 0 else str(colour) for row, colour in enumerate(colours)],
        "town": [f"town {number}" for number in draw.integers(0, 60, ROWS)],
        "is_new": [bool(value) for value in size > 0],
        "sold": [f"20{10 + row % 10}-03-{1 + row % 28:02}" for row in range(ROWS)],
        "note": [
            f"a note on {'good' if value > 0 else 'bad'} things, number {row % 9}"
            for row, value in enumerate(x)
        ],
        "kind": ["no" if a < -0.5 else "yes" if a < 0.5 else "maybe" for a in x],
        "two": [bool(a + b > 0) for a, b in zip(x, size, strict=True)],
        "tags": [
            ";".join(["p"] * int(a > 0) + ["q"] * int(b > 0)) or "r" for a, b in zip(x, size, strict=True)
        ],
        "price": [float(np.exp(a + 2)) for a in x],
    }


TARGETS = ("kind", "two", "tags", "price")


def trained(folder: Path, name: str, target: str, *settings: str) -> tuple[Model, Any]:
    """Train on the table for a few steps; return the model and the rows to ask of."""
    columns = table()
    left_out = [other for other in TARGETS if other != target]
    given = {key: values for key, values in columns.items() if key not in left_out}
    path = folder / f"{name}.jsonl"
    rows = [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
    path.write_text("\n".join(map(json.dumps, rows)))
    config = [f"data.train={path}", f"data.target={target}", f"run.out={folder / name}", "training.epochs=3"]
    run = Run(Config().with_overrides([*config, "model.hidden=[8, 4]", "model.ensemble=2", *settings]))
    run.train()
    asked = [{key: value for key, value in row.items() if key != target} for row in rows[:12]]
    asked[1] = {**asked[1], "colour": "purple", "x": None, "town": None}
    return load(folder / name), asked


def built(layers: list[Any], loss: str, inputs: int = 6) -> Callable[[Path], tuple[Model, Any]]:
    """Return what writes a network that was not trained, and reads it as a model."""

    def make(folder: Path) -> tuple[Model, Any]:
        network = Network(layers, inputs=inputs, seed=1)
        network.save(folder / "network", loss)
        return load(folder / "network"), draw.normal(size=(5, inputs)).round(3).tolist()

    return make


def estimator(kind: Any, **settings: Any) -> Callable[[Path], tuple[Model, Any]]:
    """Return what fits an estimator and reads its file as a model."""

    def make(folder: Path) -> tuple[Model, Any]:
        X = draw.normal(size=(60, 4)).round(3)
        kind(hidden_layer_sizes=(6,), max_iter=3, random_state=0, **settings).fit(X, (X[:, 0] > 0) + 1).save(
            folder / "estimator"
        )
        return load(folder / "estimator"), X[:5].tolist()

    return make


def pictures(folder: Path) -> tuple[Model, Any]:
    """Train on small pictures in folders."""
    from PIL import Image

    for number in range(30):
        place = folder / "pictures" / f"class {number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    out = folder / "of pictures"
    settings = [
        f"data.train={folder / 'pictures'}",
        "data.image_size=8",
        f"run.out={out}",
        "training.epochs=2",
    ]
    Run(Config().with_overrides([*settings, "model.hidden=[4]"])).train()
    return load(out), draw.integers(0, 255, (4, 8, 8, 3)).tolist()


def digits(folder: Path) -> tuple[Model, Any]:
    """Train on the built-in digits, which are pixels."""
    settings = ["data.train=digits", f"run.out={folder / 'digits'}", "training.epochs=2", "model.hidden=[4]"]
    Run(Config().with_overrides(settings)).train()
    return load(folder / "digits"), draw.integers(0, 16, (5, 64)).tolist()


def several(folder: Path) -> tuple[Model, Any]:
    """Return a model of two networks, as a program may build it."""
    one, rows = built([Dense(4, "tanh"), Dense(3)], "cross_entropy")(folder)
    other = Network(one.network.layers, inputs=6, seed=2)
    return Model(one.network, one.preprocessor, one.target, one.loss, others=(other,)), rows


FILES: dict[str, Callable[[Path], tuple[Model, Any]]] = {
    "multiclass": lambda folder: trained(folder, "a", "kind", "data.text=note"),
    "binary": lambda folder: trained(folder, "b", "two", "data.positive=false", "data.scaling=robust"),
    "multilabel": lambda folder: trained(
        folder, "c", "tags", "data.task=multilabel", "data.categories=embed"
    ),
    "regression": lambda folder: trained(
        folder, "d", "price", "data.target_transform=log", "data.clamp_predictions=true"
    ),
    "quantiles": lambda folder: trained(
        folder, "e", "price", "data.target_transform=quantile", "run.precision=fp64"
    ),
    "tabm": lambda folder: trained(folder, "f", "kind", "model.ensemble_kind=tabm"),
    "periodic": lambda folder: trained(
        folder, "g", "price", "model.numbers=periodic", "training.loss=poisson"
    ),
    "tfidf": lambda folder: trained(
        folder, "h", "kind", "data.text=note", "text.tfidf=true", "text.hashing=64"
    ),
    "pictures": pictures,
    "digits": digits,
    "layers": built(
        [Scale(2.0), Residual(LayerNorm(), Dense(6, "gelu")), Dense(5, "mish", bias=False), Dense(3)],
        "cross_entropy",
    ),
    "members": built(
        [BatchEnsemble(4, "selu", members=3), Ensemble(Dense(2), members=3, link="identity")], "huber"
    ),
    "waves": built([Periodic(4, 3, columns=2), Dense(4, "elu"), Dense(1)], "binary_cross_entropy"),
    "several": several,
    "classifier": estimator(MLPClassifier, dropout=0.1),
    "regressor": estimator(MLPRegressor, activation="tanh"),
}


def as_rows(model: Model, rows: Any) -> Any:
    """Return rows from JSON as `Model.predict` takes them."""
    if isinstance(rows[0], dict):
        return pa.Table.from_pylist(rows)
    return np.array(rows, np.uint8 if model.preprocessor.pictures is not None else np.float32)


def answers(model: Model, rows: Any) -> dict[str, Any]:
    """Return what a model says of rows, as JSON has it."""
    X = as_rows(model, rows)
    found = {"predictions": np.asarray(model.predict(X)).tolist()}
    return (
        found if model.task == "regression" else {**found, "probabilities": model.predict_proba(X).tolist()}
    )


def write(folder: Path, scratch: Path) -> Iterator[Path]:
    """Write each model and what it says; yield the files."""
    for name, make in FILES.items():
        place = scratch / name
        place.mkdir(parents=True)
        model, rows = make(place)
        model.details = {}  # paths and versions
        model.save(folder / f"{name}.safetensors")
        kept = {"rows": rows, **answers(load(folder / f"{name}.safetensors"), rows)}
        (folder / f"{name}.json").write_text(json.dumps(kept) + "\n")
        yield folder / f"{name}.safetensors"


if __name__ == "__main__":
    import tempfile

    target = Path(sys.argv[1])
    target.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        for path in write(target, Path(scratch)):
            print(path, path.stat().st_size)
