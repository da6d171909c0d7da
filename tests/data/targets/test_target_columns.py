"""The target's columns, weights and options of tables: what is read, and what mistakes are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nnkit.data.examples import Dataset
from nnkit.data.sources.loading import load_dataset
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.schema import Schema
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError, ModelFileError


def table(tmp_path: Path, text: str, **given: Any) -> Dataset:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
    path.write_text(text)
    return load_dataset(path, **given)


def told(tmp_path: Path, text: str, **given: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        table(tmp_path, text, **given)
    return str(caught.value)


def rows(*cells: str, header: str = "x,y") -> str:
    """Return a table of one feature that does not rise by one, and the given cells."""
    return "\n".join([header, *(f"{(7 * row) % 11}.5,{cell}" for row, cell in enumerate(cells))]) + "\n"


# --- options that a model keeps ---


@pytest.mark.parametrize(
    "options",
    [
        TableOptions(),
        TableOptions(header=False, missing=(), quote="", thousands=""),
        TableOptions(header=True, index=0, weight=0, missing=("-", "n/a"), skip_rows=3),
        TableOptions(";", 0, "latin-1", ",", ".", ("x",), "#", 1, "'", "id", "w", {"a": "date:%d.%m.%Y"}),
    ],
)
def test_a_schema_keeps_the_options(options: TableOptions) -> None:
    kept = json.loads(json.dumps(Schema((), options=options).to_json()))
    again = Schema.from_json(kept).options
    assert again == options
    # False is a header that is not there, and 0 the number of its row.
    assert type(again.header) is type(options.header)


@pytest.mark.parametrize("given", [{"header": "x"}, {"index": True}, {"weight": []}, {"encoding": 5}])
def test_options_that_no_model_has_are_a_damaged_file(given: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match="invalid table options"):
        Schema.from_json({"columns": [], "named": True, "options": given})


@pytest.mark.parametrize("index", ["n", 1, -2])
def test_the_index_may_be_a_number_or_a_name(tmp_path: Path, index: str | int) -> None:
    found = table(tmp_path, "x,n,y\n1.5,9,2.5\n2.5,7,1.5\n", target="y", table=TableOptions(index=index))
    assert found.train.features.column_names == ["x"]
    assert found.schema is not None
    assert found.schema.options.index == "n"


def test_an_index_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "there is no column 'm'" in told(tmp_path, rows("1", "2"), table=TableOptions(index="m"))


# --- weights ---

WEIGHED = "x,w,y\n1.5,2,a\n2.5,0,b\n0.5,0.25,a\n"


@pytest.mark.parametrize("weight", ["w", 1])
def test_weights_are_read_and_not_learnt_from(tmp_path: Path, weight: str | int) -> None:
    found = table(tmp_path, WEIGHED, table=TableOptions(weight=weight))
    assert found.train.weight is not None
    assert found.train.weight.tolist() == [2, 0, 0.25]
    assert found.train.features.column_names == ["x"]
    assert found.train.take(np.array([2, 0])).weight.tolist() == [0.25, 2]  # type: ignore[union-attr]
    later = table(tmp_path, "w,x,y\n3,1.5,a\n", target="y", schema=found.schema)
    assert later.train.weight is not None
    assert later.train.weight.tolist() == [3]
    assert "w" not in later.train.features.column_names
    assert table(tmp_path, "x,y\n1.5,a\n", target="y", schema=found.schema).train.weight is None


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("-1", "weight 'w' of row 1 (counting from 0) is -1"),
        ("", "weight 'w' of row 1 (counting from 0) is missing"),
        ("much", "weight 'w' of row 1 (counting from 0) is 'much'"),
        ("inf", "weight 'w' of row 1 (counting from 0) is 'inf'"),
    ],
)
def test_a_weight_that_is_none_names_its_row(tmp_path: Path, cell: str, words: str) -> None:
    text = WEIGHED.replace("2.5,0,b", f"2.5,{cell},b")
    assert words in told(tmp_path, text, table=TableOptions(weight="w"))
    found = table(tmp_path, WEIGHED, table=TableOptions(weight="w"))
    assert words in told(tmp_path, text, target="y", schema=found.schema)


def test_weights_that_cannot_be_are_told(tmp_path: Path) -> None:
    zeros = "x,w,y\n1.5,0,a\n2.5,0,b\n"
    assert "all weights in column 'w' are 0" in told(tmp_path, zeros, table=TableOptions(weight="w"))
    assert "the target and `weight`" in told(tmp_path, WEIGHED, table=TableOptions(weight="y"))
    with pytest.raises(ConfigError, match="`weight` is a column of a table"):
        load_dataset("digits", table=TableOptions(weight="w"))


# --- targets of several columns, of lists ---


@pytest.mark.parametrize("target", ["y1,y2", "1, 2", ["y1", "y2"]])
def test_names_with_a_comma_are_several_targets(tmp_path: Path, target: Any) -> None:
    text = "x,y1,y2\n1.5,2.5,3.5\n0.5,4.5,5.5\n"
    found = table(tmp_path, text, target=target)
    assert found.target_names == ("y1", "y2")
    assert found.train.target is not None
    assert found.train.target.tolist() == [[2.5, 3.5], [4.5, 5.5]]


def test_numbers_with_a_comma_are_several_columns_of_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(3, 4))
    found = load_dataset(tmp_path / "a.npy", target="1,-1")
    assert found.train.target is not None
    assert found.train.target.tolist() == [[1, 3], [5, 7], [9, 11]]
    assert found.train.array.tolist() == [[0, 2], [4, 6], [8, 10]]


def test_a_column_whose_name_has_a_comma_is_one_target(tmp_path: Path) -> None:
    found = table(tmp_path, 'x,"a,b",a,b\n1.5,2.5,3.5,4.5\n0.5,7.5,8.5,9.5\n', target="a,b")
    assert found.target_names == ("a,b",)


@pytest.mark.parametrize("separator", [";", "|", ","])
def test_cells_of_labels_become_outputs(tmp_path: Path, separator: str) -> None:
    cells = [separator.join(labels) for labels in (("b", "a "), ("c",), ("a", "a"), ("c", "b"))]
    found = table(tmp_path, rows(*(f'"{cell}"' for cell in cells)), multilabel=True)
    encoder = TargetEncoder.fit(found.train.target, "multilabel", ("y",))  # type: ignore[arg-type]
    assert (encoder.labels, encoder.separator) == (("a", "b", "c"), separator)
    expected = [[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1]]
    assert encoder.transform(found.train.target).tolist() == expected  # type: ignore[arg-type]
    again = TargetEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert again.transform(found.train.target).tolist() == expected  # type: ignore[arg-type]
    logits = 9.0 * (2 * np.array(expected) - 1)
    assert again.predict(logits).tolist() == [separator.join(words) for words in ("ab", "c", "a", "bc")]
    assert again.predict(-9.0 * np.ones((1, 3))).tolist() == [""]


def test_numbers_apart_by_commas_are_labels_when_asked(tmp_path: Path) -> None:
    found = table(tmp_path, rows(*['"1,5"', "3", '"5,3"', "1"] * 5), multilabel=True)
    assert found.train.target is not None
    assert found.train.target.tolist()[:4] == ["1,5", "3", "5,3", "1"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_lists_in_a_column_are_labels(tmp_path: Path, suffix: str) -> None:
    lists = [["b", "a"], ["c"], [], ["a"]]
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"x": [1.5, 0.5, 2.5, 0.25], "y": lists}), path)
    else:
        path.write_text("".join(json.dumps({"x": 0.5 * len(y), "y": y}) + "\n" for y in lists))
    found = load_dataset(path, target="y", multilabel=True)
    encoder = TargetEncoder.fit(found.train.target, "multilabel", ("y",))  # type: ignore[arg-type]
    encoded = encoder.transform(found.train.target)  # type: ignore[arg-type]
    assert encoded.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    # Another file may write them as text.
    later = table(tmp_path, rows("a;c"), target="y", schema=found.schema)
    assert encoder.transform(later.train.target).tolist() == [[1, 0, 1]]  # type: ignore[arg-type]
    with pytest.raises(DataError, match='set `task` = "multilabel"'):
        TargetEncoder.fit(found.train.target)  # type: ignore[arg-type]


def test_an_unknown_label_of_a_list_names_its_row() -> None:
    encoder = TargetEncoder.fit(np.array(["a;b", "b"], object), "multilabel", ("y",))
    with pytest.raises(DataError, match=r"label 'c' is not among .* first in row 2 .*: they are 'a', 'b'"):
        encoder.transform(np.array(["a", "b;a", "c;b"], object))


def test_single_labels_are_no_lists() -> None:
    with pytest.raises(DataError, match="no row has more than one label"):
        TargetEncoder.fit(np.array(["a", "b"], object), "multilabel")


# --- what is told of cells ---


def test_a_missing_target_names_its_row_and_its_word(tmp_path: Path) -> None:
    assert "missing in row 1 (counting from 0)" in told(tmp_path, rows("a", "", "b"))
    words = told(tmp_path, rows("a", "bb", "NA", "b"))
    assert "missing in row 2 (counting from 0), where 'NA' stands" in words
    assert "`missing`" in words
    found = table(tmp_path, rows("a", "bb", "NA", "b"), table=TableOptions(missing=()))
    assert found.train.target is not None
    assert found.train.target.tolist() == ["a", "bb", "NA", "b"]


def test_the_option_that_a_note_names_makes_labels_one(tmp_path: Path) -> None:
    text = rows("yes", "yes ", "No", " no", "YES")
    found = table(tmp_path, text)
    [note] = TargetEncoder.fit(found.train.target, names=("y",)).notes[:1]  # type: ignore[arg-type]
    assert '`types` = {"y" = "boolean"}' in note
    found = table(tmp_path, text, table=TableOptions(types={"y": "boolean"}))
    assert found.train.target is not None
    assert found.train.target.tolist() == [True, True, False, False, True]


def test_dates_are_no_target(tmp_path: Path) -> None:
    assert '`types` = {"y" = "category"}' in told(tmp_path, rows("2024-01-05", "2024-02-03"))
    found = table(tmp_path, rows("2024-01-05", "2024-02-03"), table=TableOptions(types={"y": "category"}))
    assert found.train.target is not None
    assert found.train.target.tolist() == ["2024-01-05", "2024-02-03"]


@pytest.mark.parametrize("cells", [("tbd", "4"), ("", "3"), ("2024-01-01", "2024-01-02"), ("", "")])
def test_no_target_stops_a_prediction(tmp_path: Path, cells: tuple[str, ...]) -> None:
    found = table(tmp_path, rows("1.5", "2.5", "0.5"))
    later = table(tmp_path, rows(*cells), target="y", schema=found.schema, require_target=False)
    assert later.train.features["x"].to_pylist() == [0.5, 7.5]
    assert later.train.target is None


def test_another_column_is_read_as_the_target_was(tmp_path: Path) -> None:
    found = table(tmp_path, "x;y\n1,5;1.000,5\n2,5;2.000,25\n0,5;3,5\n", target="y")
    # By themselves these would be numbers with decimal points.
    later = table(
        tmp_path, "x;z\n1,5;1.000\n2,5;2.500\n", target="z", schema=found.schema, target_like=("y",)
    )
    assert later.train.target is not None
    assert later.train.target.tolist() == [1000, 2500]


def test_large_whole_numbers_stay_exact_or_are_refused(tmp_path: Path) -> None:
    large = 2**53 + 1
    found = table(tmp_path, rows(str(large), str(large + 1), str(large)))
    encoder = TargetEncoder.fit(found.train.target)  # type: ignore[arg-type]
    assert encoder.classes is not None
    assert encoder.classes.tolist() == [large, large + 1]
    beyond = table(tmp_path, rows(str(2**64 + 2), str(2**65), str(2**65)))
    with pytest.raises(DataError, match=r"target 'y'.*float64 cannot distinguish.*`types`"):
        TargetEncoder.fit(beyond.train.target, names=("y",))  # type: ignore[arg-type]
