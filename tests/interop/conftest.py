"""A table with numbers, categories and missing values, and models trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from nnkit.runs.config import Config
from nnkit.runs.run import Run


def penguins(rows: int = 150) -> pa.Table:
    """Return a table like the penguins': numbers with gaps, categories with gaps, a date."""
    random = np.random.default_rng(0)
    species = np.array(["Adelie", "Gentoo", "Chinstrap"])[random.integers(0, 3, rows)]
    bill = random.normal(40, 3, rows) + 4 * (species == "Gentoo")
    mass = np.where(random.random(rows) < 0.1, np.nan, random.normal(4000, 500, rows).round())
    sex = [None if random.random() < 0.1 else str(random.choice(["female", "male"])) for _ in range(rows)]
    island = [f"island {one}" for one in random.integers(0, 60, rows)]
    seen = np.datetime64("2008-01-01") + random.integers(0, 900, rows)
    columns = {"species": species, "bill": bill.round(2), "sex": sex, "island": island, "seen": seen}
    return pa.table({**columns, "mass": pa.array(mass, from_pandas=True)})


@pytest.fixture(scope="session")
def table(table_file: Path) -> pa.Table:
    from nnkit import read_table

    return read_table(table_file)


@pytest.fixture(scope="session")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "penguins.csv"
    pyarrow.csv.write_csv(penguins(), path)
    return path


@pytest.fixture(scope="session")
def trained(table_file: Path) -> Path:
    """Return the run folder of a classification by the rules for tables, with an embedded category."""
    out = table_file.parent / "run"
    settings = ["training.epochs=3", f"data.train={table_file}", "data.target=species", f"run.out={out}"]
    Run(Config().with_overrides([*settings, "data.categories=embed"])).train()
    return out
