"""How tables are read, as the command line tells it: what columns are, what did not fit, what to set."""

from __future__ import annotations

import json
import re
from itertools import takewhile
from pathlib import Path
from random import Random

import pytest
from test_cli import nnkit, read_csv_text, succeed

from nnkit import load, read_table

ROWS = 120


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows] if header else rows) + "\n")
    return path


def homes(count: int = ROWS, seed: int = 0, price: str = "${:,}") -> list[str]:
    """Return rows of an identifier, an area with a unit, a zip code, a colour and a price."""
    random = Random(seed)
    rows = []
    for row in range(count):
        area, colour = random.randrange(30, 200), random.choice(["red", "blue"])
        zip_code = random.choice(["01067", "04109", "10115"])
        rows.append(f'{row + 1},{area} m²,{zip_code},{colour},"{price.format(1000 + 37 * area)}"')
    return rows


HEADER = "id,area,zip,colour,price"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("homes") / "homes.csv", HEADER, homes())


@pytest.fixture(scope="module")
def run(table: Path) -> Path:
    folder = table.parent / "run"
    printed = succeed("train", table, "--target", "price", "--hidden", "8", "--epochs", "2", "--out", folder)
    assert "dropped column 'id': it rises by one from row to row" in printed
    assert 'data.types = {"id" = "number"} keeps it' in printed
    assert "column 'zip': numbers that begin with 0 are kept as text" in printed
    assert "(regression)" in printed
    return folder


COLUMNS = {
    "id": "identifier; it rises by one from row to row",
    "area": "number, unit m²",
    "zip": "category; numbers that begin with 0 are kept as text",
    "colour": "category",
    "price": "number, thousands ',', unit $",
}


def lines_of(printed: str) -> dict[str, str]:
    """Return what a listing of columns says of each."""
    first = re.search("^columns  .* (number|identifier)", printed, re.MULTILINE)
    assert first is not None
    listed = printed[first.start() :].splitlines()
    lines = [listed[0], *takewhile(lambda line: line.startswith(" " * 9), listed[1:])]
    return dict(line[9:].split(maxsplit=1) for line in lines)  # type: ignore[misc]


def test_check_and_info_tell_each_column_in_a_line(run: Path, table: Path) -> None:
    assert lines_of(succeed("check", table, "--target", "price")) == COLUMNS
    # A model keeps how a column is read, not why.
    kept = {name: words.split(";")[0] for name, words in COLUMNS.items() if name != "id"}
    printed = succeed("info", run)
    assert lines_of(printed) == kept
    assert printed.endswith("not used id\n")
    found = json.loads(succeed("info", run, "--json"))["schema"]["columns"]
    assert [column["name"] for column in found] == list(COLUMNS)
    assert load(run).schema.by_name["area"].kind == "number"  # type: ignore[union-attr]
    told = json.loads(succeed("check", table, "--target", "price", "--json"))["columns"]
    assert [column["kind"] for column in told] == [
        words.split(",")[0].split(";")[0] for words in COLUMNS.values()
    ]


def test_little_that_does_not_fit_is_told_and_much_is_a_warning_either_way(run: Path, tmp_path: Path) -> None:
    rows = homes(40, seed=1)
    few = write(tmp_path / "few.csv", HEADER, [rows[0].replace(" m²", " feet"), *rows[1:]])
    result = nnkit("predict", run, few)
    assert result.code == 0
    assert len(read_csv_text(result.out)["price"]) == 40
    assert "1 of 40 values of column 'area' do not fit (number, unit m²)" in result.err
    assert "in row 0 (counting from 0)" in result.err
    assert nnkit("predict", run, few, "--quiet").err == ""
    many = write(tmp_path / "many.csv", HEADER, [row.replace("red", "Red") for row in rows])
    for command in ("predict", "evaluate"):
        result = nnkit(command, run, many, "--quiet")
        assert result.code == 0
        assert "values of column 'colour' were not in the training" in result.err
        assert "the first is 'Red'" in result.err
        assert "where the training had 'red'" in result.err


@pytest.mark.parametrize("option", ["--validation", "--set"])
def test_a_file_whose_columns_do_not_fit_ends_a_training(option: str, table: Path, tmp_path: Path) -> None:
    rows = [row.replace("m²", "feet") for row in homes(40, seed=1)]
    other = write(tmp_path / "other.csv", HEADER, rows)
    given = [option, other] if option == "--validation" else [option, f"data.test={other}"]
    result = nnkit("train", table, "--target", "price", "--epochs", 1, *given, "--out", tmp_path / "run")
    assert result.code == 2
    assert "40 of 40 values of column 'area' do not fit (number, unit m²)" in result.err
    assert "data.missing = " in result.err
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_identifiers_are_learnt_from_where_they_are_named(table: Path, tmp_path: Path) -> None:
    succeed(
        *("train", table, "--target", "price", "--set", 'data.features=["id", "area"]', "--epochs", 1),
        *("--hidden", "4", "--out", tmp_path / "run"),
    )
    assert load(tmp_path / "run").preprocessor.input_names == ("id", "area")


def test_a_column_is_kept_beside_predictions_as_its_file_writes_it(run: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "new.csv", "area,zip,colour,code", ["80 m²,01067,red,007", "90 m²,01067,red,008"])
    found = read_csv_text(succeed("predict", run, rows, "--keep", "code", "--keep", "area"))
    assert found["code"] == ["007", "008"]
    assert found["area"] == ["80 m²", "90 m²"]


def test_rows_without_names_are_matched_by_place_where_the_target_is_absent(tmp_path: Path) -> None:
    random = Random(0)
    values = [(random.gauss(0, 1), random.gauss(0, 1)) for _ in range(60)]
    rows = [f"{'yes' if x > 0 else 'no'},{x:.3f},{z:.3f}" for x, z in values]
    source = write(tmp_path / "rows.csv", "", rows)
    succeed("train", source, "--target", 0, "--hidden", 8, "--epochs", 2, "--out", tmp_path / "run")
    without = write(tmp_path / "new.csv", "", [row.partition(",")[2] for row in rows])
    model = load(tmp_path / "run")
    probabilities = read_csv_text(succeed("predict", tmp_path / "run", without, "--proba"))
    same = read_csv_text(succeed("predict", tmp_path / "run", source, "--proba"))
    assert probabilities == same
    assert model.schema is not None
    assert not model.schema.named
    short = write(tmp_path / "short.csv", "", ["1.5", "2.5"])
    result = nnkit("predict", tmp_path / "run", short)
    assert result.code == 2
    assert "there are 1 columns without names, and the model was trained on 3, or 2 without the" in result.err


def test_read_table_returns_what_a_training_sees(table: Path, run: Path) -> None:
    found = read_table(table)
    assert found["area"][0].as_py() == float(homes()[0].split(",")[1].removesuffix(" m²"))
    assert str(found["zip"].type) == "string"
    assert found["price"].to_pylist() == [1000 + 37 * area for area in found["area"].to_pylist()]
    model = load(run)
    assert model.predict(found).tolist() == model.predict(read_table(table, schema=model.schema)).tolist()
    as_text = read_table(table, types={"area": "category"})
    assert as_text["area"][0].as_py().endswith(" m²")
