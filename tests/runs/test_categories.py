"""Categories as a run encodes them: one-hot inputs for few values, learnt vectors for many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from nnkit import load
from nnkit.nn.layers import Embedding
from nnkit.runs.config import Config
from nnkit.runs.run import Run

ROWS = 900


def run_on_categories(folder: Path, *settings: str) -> Run:
    """Return a run on a category of 3 values, one of 60, and the number that each of the 60 stands for."""
    random = np.random.default_rng(0)
    many, few = random.integers(0, 60, ROWS), random.integers(0, 3, ROWS)
    worth = random.normal(size=60)
    table = pa.table(
        {
            "few": [f"f{value}" for value in few],
            "many": [f"m{value}" for value in many],
            "x": random.normal(size=ROWS),
            "y": worth[many] + few,
        }
    )
    pa.csv.write_csv(table, folder / "rows.csv")
    given = [f"data.train={folder / 'rows.csv'}", "data.target=y", "run.device=cpu"]
    return Run(Config().with_overrides([*given, f"run.out={folder / 'run'}", *settings]))


def test_many_values_have_vectors_of_width_8_and_unit_length(tmp_path: Path) -> None:
    run = run_on_categories(tmp_path)
    embedding = run.model.network.layers[0]
    assert isinstance(embedding, Embedding)
    assert (embedding.size, embedding.width) == (60, 8)
    assert run.model.preprocessor.width == 3 + 1
    run.model.network.initialize(4, seed=1)
    table = run.model.network.parameters()["layers.0.weight"]
    assert np.square(table).sum(axis=1).mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("categories", ["auto", "onehot", "embed"])
def test_every_encoding_learns_and_takes_values_that_the_training_lacks(
    tmp_path: Path, categories: str
) -> None:
    settings = ("training.epochs=60", "training.learning_rate=0.005", f"data.categories={categories}")
    assert run_on_categories(tmp_path, *settings).train().metrics["r2"] > 0.9
    model = load(tmp_path / "run")
    rows = pa.table({"few": ["f0", "f1"], "many": ["m1", "unknown"], "x": [0.0, 0.0]})
    inputs = model.preprocessor.transform(rows)
    assert np.isfinite(model.predict(rows)).all()
    if categories == "onehot":
        assert inputs.codes is not None
        assert inputs.codes[1].tolist() == [1, -1]
    else:
        assert inputs.bags[-1].starts.tolist() == [0, 1, 1]
