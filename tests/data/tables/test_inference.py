"""What is decided about columns, at the edges of the rules; and that the advice of every message works."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from nnkit.data.examples import RawTable
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import load_dataset
from nnkit.data.tables.inference import infer
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.reading import read_columns
from nnkit.data.tables.schema import Column, Schema
from nnkit.errors import ConfigError, DataError


def _schema(columns: Mapping[str, Sequence[Any]], separator: str = ",", **options: Any) -> Schema:
    named = options.pop("named", ())
    targets = options.pop("targets", ())
    table = pa.table({name: pa.array(cells) for name, cells in columns.items()})
    raw = RawTable(table, separator=separator)
    return infer(raw, TableOptions(**options), named=named, targets=targets).schema


def _entry(
    cells: Sequence[Any],
    separator: str = ",",
    others: Mapping[str, Sequence[Any]] | None = None,
    **options: Any,
) -> Column:
    return _schema({"a": cells, **(others or {})}, separator, **options).by_name["a"]


def _plain(count: int) -> list[str]:
    return [str(row * row % 977) for row in range(count)]


@pytest.mark.parametrize(("others", "kind"), [(9, "number"), (10, "number"), (11, "category")])
def test_a_tenth_of_other_cells_makes_numbers_and_no_more(others: int, kind: str) -> None:
    entry = _entry([f"word{row}" for row in range(others)] + _plain(100 - others))
    assert entry.kind.replace("text", "category") == kind
    assert entry.note.startswith("89 of 100 values are numbers; the others such as 'word0'") == (others > 10)
    dates = [f"word{row}" for row in range(others)]
    dates += [f"2024-{row % 12 + 1:02}-{row % 28 + 1:02}" for row in range(100 - others)]
    assert _entry(dates).kind.replace("text", "category") == kind.replace("number", "date")


@pytest.mark.parametrize("rows", [1000, 3370, 99990])
def test_a_tenth_is_exact_however_many_rows(rows: int) -> None:
    for others, kind in ((rows // 10, "number"), (rows // 10 + 1, "category")):
        cells = [f"word {row}" for row in range(others)] + _plain(rows - others)
        assert _entry(cells).kind.replace("text", "category") == kind


def test_blank_and_missing_cells_are_in_no_share() -> None:
    cells = [f"word {row}" for row in range(10)] + _plain(90) + [""] * 300 + ["NA"] * 500 + [" - "] * 77
    entry = _entry(cells)
    assert entry.kind == "number"
    assert "'NA' (500)" in entry.note
    assert "'-' (77)" in entry.note


@pytest.mark.parametrize(("others", "kind"), [(4, "number"), (5, "category")])
def test_few_labels_with_a_twentieth_of_others_are_categories(others: int, kind: str) -> None:
    cells = ["X"] * others + [str(row % 10) for row in range(100 - others)]
    assert _entry(cells).kind == kind


@pytest.mark.parametrize(
    ("cells", "missing"),
    [
        (["EU", "AS", "NA", "SA"], False),
        (["A", "BB", "NA"], False),
        (["yes", "no", "NA"], True),
        (["EU", "NA"], True),
        (["EU", "as", "NA"], True),
        (["EURO", "AS", "NA"], True),
    ],
)
def test_na_is_a_name_among_others_like_it(cells: list[str], missing: bool) -> None:
    columns = {"a": cells * 9, "b": _plain(len(cells) * 9)}
    schema = _schema(columns)
    read, _ = read_columns(pa.table(columns), schema, ["a"])
    assert (read["a"].null_count > 0) == missing
    if not missing:
        read, _ = read_columns(pa.table(columns), _schema(columns, missing=("NA",)), ["a"])
        assert read["a"].null_count == 9


def test_leading_zeros_keep_codes_as_text() -> None:
    assert _entry(["007", "042", "100"] * 30).kind == "category"
    assert _entry(["007", "042", "100"] * 30).note == "numbers that begin with 0 are kept as text"
    assert _entry(["007.5", "042", "100"] * 30).kind == "number"
    assert _entry(["0", "0.5", "0"] * 30).kind == "number"
    assert _entry(["0", "-0", "1"] * 30).kind == "number"
    assert _entry(["007", "042", "100"] * 30, types={"a": "number"}).kind == "number"
    # The last of many rows is enough.
    assert _entry(["1", "42", "100"] * 3000 + ["01"]).kind == "category"


def test_years_are_numbers_and_row_numbers_are_not() -> None:
    other = {"b": ["x", "y"] * 15}
    assert _entry([str(1990 + row) for row in range(30)], others=other).kind == "number"
    assert _entry([str(7 + row) for row in range(30)], others=other).kind == "identifier"
    assert _entry(list(range(30)), others=other).kind == "identifier"
    assert _entry([str(7 + row) for row in range(30)], others=other, named=["a"]).kind == "number"
    assert _entry([str(7 + 2 * row) for row in range(30)], others=other).kind == "number"
    assert _entry([str(row) for row in range(9)], others={"b": ["x", "y", "z"] * 3}).kind == "number"
    assert _entry([str(row) for row in range(30)], types={"a": "number"}, others=other).kind == "number"


@pytest.mark.parametrize("name", ["t", "time", "Time step", "day", "epoch", "timestamp", "Age"])
def test_a_rising_time_is_learnt_from(name: str) -> None:
    columns = {name: [str(row) for row in range(30)], "b": ["x", "y"] * 15}
    assert _schema(columns).by_name[name].kind == "number"


@pytest.mark.parametrize(
    "name", ["PassengerId", "customerID", "id", "ID", "user_id", "row number", "Unnamed: 0", "id.x"]
)
def test_shuffled_identifiers_are_found_by_their_name(name: str) -> None:
    name = name.replace("row number", "row_number")
    ids = Random(0).sample(range(100, 1000), 50)
    columns: dict[str, Sequence[Any]] = {name: [str(number) for number in ids], "b": ["x", "y"] * 25}
    for cells in (columns[name], ids):
        assert _schema({**columns, name: cells}).by_name[name].kind == "identifier"
        assert _schema({**columns, name: cells}, named=[name]).by_name[name].kind == "number"
    # One that stands twice identifies nothing.
    assert _schema({**columns, name: [*map(str, ids[:-1]), str(ids[0])]}).by_name[name].kind == "number"
    assert _schema({**columns, "width": columns[name]}).by_name["width"].kind == "number"


@pytest.mark.parametrize("name", ["paid", "grid", "humid", "valid", "index_of_health", "idea", "Android"])
def test_words_that_end_in_id_are_no_identifiers(name: str) -> None:
    ids = [str(number) for number in Random(0).sample(range(100, 1000), 50)]
    assert _schema({name: ids, "b": ["x", "y"] * 25}).by_name[name].kind == "number"


def test_the_only_feature_is_learnt_from_though_it_rises() -> None:
    rising = [str(row) for row in range(50)]
    columns = {"x": rising, "y": ["u", "v"] * 25}
    assert _schema(columns, targets=["y"]).by_name["x"].kind == "number"
    assert _schema({**columns, "z": _plain(50)}, targets=["y"]).by_name["x"].kind == "identifier"


_GROUPS = ["1.234", "950", "12.345", "7"] * 20


@pytest.mark.parametrize(
    ("separator", "others", "options", "thousands", "said"),
    [
        (",", {}, {}, False, True),
        (";", {}, {}, True, True),
        (";", {"b": ["1,5", "2,25"] * 40}, {}, True, False),
        (",", {"b": ["1.5", "2.25"] * 40}, {}, False, False),
        (";", {"b": ["1.5", "2.25"] * 40}, {}, False, False),
        (";", {}, {"thousands": ""}, False, False),
        (",", {}, {"thousands": "."}, True, False),
        (",", {}, {"decimal": ","}, True, False),
        (";", {}, {"decimal": "."}, False, False),
    ],
)
def test_points_before_three_digits(
    separator: str, others: dict[str, list[str]], options: dict[str, str], thousands: bool, said: bool
) -> None:
    entry = _entry(_GROUPS, separator, others, **options)
    assert (entry.kind, entry.style.thousands == ".") == ("number", thousands)
    assert bool(entry.note) == said


def test_points_after_a_whole_number_of_four_digits_are_decimal() -> None:
    assert _entry([*_GROUPS, "4321"], ";").style.thousands == ""


_COMMAS = ["1,234", "950", "12,345", "7"] * 20


@pytest.mark.parametrize(
    ("separator", "others", "options", "thousands"),
    [
        (",", {}, {}, True),
        (";", {}, {}, True),
        (";", {"b": ["1,5", "2,25"] * 40}, {}, False),
        (",", {"b": ["1.5", "2.25"] * 40}, {}, True),
        (",", {}, {"decimal": ","}, False),
        (",", {}, {"thousands": ""}, False),
        (";", {"b": ["1,5", "2,25"] * 40}, {"thousands": ","}, True),
    ],
)
def test_commas_before_three_digits(
    separator: str, others: dict[str, list[str]], options: dict[str, str], thousands: bool
) -> None:
    entry = _entry(_COMMAS, separator, others, **options)
    assert (entry.kind, entry.style.thousands, entry.style.decimal) == (
        "number",
        "," if thousands else "",
        "." if thousands else ",",
    )


def test_lists_beside_decimal_points() -> None:
    lists, points = ["1,5", "2,7", "3,1"] * 20, [f"{row}.5" for row in range(60)]
    entry = _entry(lists, others={"b": points})
    assert entry.kind == "category"
    assert '`decimal` = ","' in entry.note
    schema = _schema({"a": lists, "b": points}, decimal=",")
    assert [column.kind for column in schema.columns] == ["number", "number"]
    given = _entry(lists, others={"b": points}, types={"a": "number"})
    assert (given.kind, given.style.decimal) == ("number", ",")


def test_an_option_for_all_numbers_leaves_plain_columns_as_they_are() -> None:
    columns = {"a": _GROUPS, "b": ["1.5", "2.25"] * 40, "c": ["1", "22"] * 40}
    for options in ({"thousands": "."}, {"decimal": ","}, {"thousands": ","}):
        assert [column.kind for column in _schema(columns, **options).columns] == ["number"] * 3
    commas = _schema({**columns, "b": ["1,5", "2,25"] * 40}, thousands=".")
    assert [column.style.decimal for column in commas.columns] == [",", ",", ","]


@pytest.mark.parametrize("cells", [_GROUPS, ["1,234", "950", "12,345", "7"] * 20])
@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("other", [["1.5", "2.25"], ["1,5", "2,25"], ["1.234,5", "2"], ["x", "y"]])
def test_the_advice_on_ambiguous_signs_reads_the_column_otherwise_and_no_other(
    cells: list[str], separator: str, other: list[str]
) -> None:
    columns = {"a": cells, "b": other * 40}
    before = _schema(columns, separator)
    note = before.by_name["a"].note
    if not note:
        return
    after = _schema(columns, separator, **_followed(note))
    read, again = (read_columns(pa.table(columns), schema, "ab")[0] for schema in (before, after))
    assert again["a"][0].as_py() == pytest.approx(1234 if read["a"][0].as_py() == 1.234 else 1.234)
    assert again["b"].equals(read["b"])
    assert again["a"].null_count == again["b"].null_count == 0


def test_an_ambiguous_date_says_how_it_is_taken() -> None:
    entry = _entry(["01/02/2024", "03/04/2023"] * 20)
    assert entry.pattern == "%m/%d/%Y"
    assert _followed(entry.note) == {"types": {"a": "date:%d/%m/%Y"}}
    other = _entry(["01/02/2024", "03/04/2023"] * 20, **_followed(entry.note))
    assert other.pattern == "%d/%m/%Y"
    # One day after the twelfth settles it.
    clear = _entry(["01/02/2024", "03/04/2023"] * 20 + ["13/04/2023"])
    assert (clear.pattern, clear.note) == ("%d/%m/%Y", "")
    assert _entry(["01.02.2024", "03.04.2023"] * 20).pattern == "%d.%m.%Y"


def test_units_of_thousands_are_not_mixed_with_plain_numbers() -> None:
    assert _entry(["1.5k", "2k", "3.25k"] * 20).style.after == "k"
    mixed = _entry([f"{row}.5k" if row % 2 else str(row) for row in range(100)])
    assert mixed.kind == "category"
    assert "(k, none)" in mixed.note
    assert "(k, m)" in _entry([f"{row}.5{'km'[row % 2]}" for row in range(100)]).note


@pytest.mark.parametrize(
    ("cells", "given", "kind"),
    [
        (["1", "2"] * 20, "category", "category"),
        (["1", "0"] * 20, "boolean", "boolean"),
        (["2024-01-01", "2023-01-01"] * 20, "category", "category"),
        (["20240101", "20230101"] * 20, "date:%Y%m%d", "date"),
        (["red", "blue"] * 20, "text", "text"),
        (["1,5", "2.5"] * 20, "number", "number"),
        (["red", "blue"] * 20, "dropped", "dropped"),
    ],
)
def test_types_override_what_is_found(cells: list[str], given: str, kind: str) -> None:
    entry = _entry(cells, types={"a": given}, others={"b": _plain(40)})
    assert entry.kind == kind


@pytest.mark.parametrize(
    ("cells", "missing", "absent"),
    [
        (["NA", "-", "red", "blue"], None, ["NA"]),
        (["NA", "-", "red", "blue"], ("red",), ["NA", "red"]),
        (["NA", "-", "red", "blue"], (), []),
        (["-1", "2", "3", "4.5"], ("-1",), ["-1"]),
        (["-1", "2", "NA", "4.5"], ("-1",), ["-1", "NA"]),
        (["-1", "2", "-", "1,5"], ("-1",), ["-1", "-"]),
        (["EU", "AS", "NA", "SA"], ("SA",), ["SA"]),
        (["EU", "AS", "NA", "SA"], ("NA",), ["NA"]),
        (["True", "False", "None"], ("None",), ["None"]),
        (["2024-01-01", "2023-01-01", "9999-12-31"], ("9999-12-31",), ["9999-12-31"]),
    ],
)
def test_missing_adds_to_the_usual_words(cells: list[str], missing: Any, absent: list[str]) -> None:
    columns = {"a": cells * 10, "b": _plain(len(cells) * 10)}
    read, misfits = read_columns(pa.table(columns), _schema(columns, missing=missing), ["a"])
    assert not misfits
    assert read["a"].is_null().to_pylist() == [cell in absent for cell in columns["a"]]


@pytest.mark.parametrize("types", [{"b": "number"}, {"a": "date:%Q"}, {"a": "date:%m/%d"}])
def test_types_that_cannot_be_meant_are_told(types: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="`types`"):
        _entry(["1", "2"], types=types)


# --- the advice of messages ---


def _followed(message: str) -> dict[str, Any]:
    """Return the first option of each name that a message tells to set."""
    found: dict[str, Any] = {}
    for name, value in re.findall(r'`(\w+)` = (\[[^\n]*?\](?= |$|;|,)|\{[^\n]*?\}|"[^"]*")', message):
        parsed = tomllib.loads(f"{name} = {value}")[name]
        found.setdefault(name, tuple(parsed) if name == "missing" else parsed)
    return found


def _write(path: Path, columns: Mapping[str, Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


_NAMES = ["a", 'the "a" column', "it's, a = {x}", "back\\slash", "ä\x7fb\tc"]
_WORDS = ["never", 'said "no"', "it's", "x, y", "back\\slash", "]"]


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("word", _WORDS)
def test_the_advice_on_a_doubtful_column_is_toml_and_works(name: str, word: str, tmp_path: Path) -> None:
    cells = [word if row % 4 == 0 else str(row * 7 % 501) for row in range(200)]
    usual = ["NA" if row % 3 == 0 else str(row * 5 % 301) for row in range(200)]
    path = _write(tmp_path / "t.csv", {name: cells, "b": usual, "y": ["u", "v"] * 100})
    with pytest.raises(DataError) as raised:
        load_dataset(path, target="y")
    message = str(raised.value)
    missing = tomllib.loads(
        "m = " + message.split("`missing` = ")[1].split(";  else")[0].split("; else `types`")[0]
    )["m"]
    types = tomllib.loads("t = " + message.split("`types` = ")[1])["t"]
    assert word in missing
    assert types == {name: "category"}
    dataset = load_dataset(path, target="y", table=TableOptions(missing=tuple(missing)))
    assert dataset.schema is not None
    kinds = dataset.schema.by_name
    assert (kinds[name].kind, kinds["b"].kind) == ("number", "number")
    assert dataset.train.features[name].null_count == 50
    # The column beside it is read as before.
    assert dataset.train.features["b"].null_count == 67
    other = load_dataset(path, target="y", table=TableOptions(types=types))
    assert other.schema is not None
    assert other.schema.by_name[name].kind == "category"


def test_several_doubtful_columns_are_settled_one_after_another(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "t.csv",
        {
            "a": ["never" if row % 4 == 0 else str(row) for row in range(0, 600, 2)],
            "b": ["gone" if row % 3 == 0 else str(row * row) for row in range(300)],
            "c": ["NA" if row % 3 == 0 else str(row * row) for row in range(300)],
            "y": ["u", "v"] * 150,
        },
    )
    options: dict[str, Any] = {}
    for _ in range(4):
        try:
            dataset = load_dataset(path, target="y", table=TableOptions(**options))
            break
        except DataError as error:
            options |= {"missing": _followed(str(error))["missing"]}
    assert dataset.schema is not None
    assert [dataset.schema.by_name[name].kind for name in "abc"] == ["number"] * 3


def test_the_advice_on_a_doubtful_target_works(tmp_path: Path) -> None:
    cells = ["never" if row % 4 == 0 else str(row * 7 % 501) for row in range(200)]
    path = _write(tmp_path / "t.csv", {"a": _plain(200), "y": cells})
    with pytest.raises(DataError, match="target 'y' holds numbers in 150 of 200 rows") as raised:
        load_dataset(path, target="y")
    assert (
        load_dataset(path, target="y", table=TableOptions(types={"y": "category"})).train.target is not None
    )
    assert _followed(str(raised.value))["types"] == {"y": "category"}


def _train_and_check(path: Path, held: Path, options: Mapping[str, Any]) -> None:
    """Read and encode both files as a training does."""
    drop = options.get("drop")
    table = TableOptions(**{name: value for name, value in options.items() if name != "drop"})
    dataset = load_dataset(path, target="y", table=table, drop=drop)
    preprocessor = Preprocessor.fit(dataset.train.features)
    later = load_dataset(held, target="y", table=table, drop=drop, schema=dataset.schema)
    preprocessor.transform(later.train.features, strict=True)


def test_the_advice_on_a_target_of_numbers_and_many_words_works(tmp_path: Path) -> None:
    cells = [f"word{row}" if row % 4 == 0 else str(row * 7 % 501) for row in range(200)]
    path = _write(tmp_path / "t.csv", {"a": _plain(200), "y": cells})
    with pytest.raises(DataError, match="150 of 200 values are numbers") as raised:
        load_dataset(path, target="y")
    types = _followed(str(raised.value))
    assert types == {"types": {"y": "category"}}
    target = load_dataset(path, target="y", table=TableOptions(**types)).train.target
    assert target is not None
    assert target.tolist() == cells


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("word", _WORDS)
def test_the_advice_on_a_later_file_that_does_not_fit_works(name: str, word: str, tmp_path: Path) -> None:
    cells = ["NA" if row % 9 == 0 else cell for row, cell in enumerate(_plain(200))]
    train = {name: cells, "b": ["red", "blue"] * 100, "y": ["u", "v"] * 100}
    path = _write(tmp_path / "t.csv", train)
    held = _write(
        tmp_path / "v.csv",
        {**train, name: [word if row % 5 == 0 else cell for row, cell in enumerate(cells)]},
    )
    with pytest.raises(DataError, match="40 of 200 values of column") as raised:
        _train_and_check(path, held, {})
    _, advice = str(raised.value).split("\n")
    missing, rest = advice.removeprefix("if such are missing values, set `missing` = ").split("; `types` = ")
    types, rest = rest.split(" reads the column as text, `drop` = ")
    options = {
        "missing": tuple(tomllib.loads(f"m = {missing}")["m"]),
        "types": tomllib.loads(f"t = {types}")["t"],
        "drop": tomllib.loads(f"d = {rest.removesuffix(' leaves it out')}")["d"],
    }
    assert options == {"missing": (word,), "types": {name: "category"}, "drop": [name]}
    for option in ("missing", "drop"):
        _train_and_check(path, held, {option: options[option]})


def test_the_advice_on_categories_never_seen_works(tmp_path: Path) -> None:
    train = {"a": _plain(200), "b": ["red", "blue"] * 100, "y": ["u", "v"] * 100}
    path = _write(tmp_path / "t.csv", train)
    held = _write(tmp_path / "v.csv", {**train, "b": ["Red", "blue"] * 100})
    with pytest.raises(DataError, match="where the training had 'red'") as raised:
        _train_and_check(path, held, {})
    assert str(raised.value).endswith('`drop` = ["b"]')
    _train_and_check(path, held, {"drop": ["b"]})


def test_a_preprocessor_is_fit_to_a_frame_of_texts(tmp_path: Path) -> None:
    frame = pa.table({"a": ["1,5", "2,5", "NA"] * 20})
    encoded = Preprocessor.fit(frame).transform(frame)
    assert encoded.dense[2, 0] == pytest.approx(0.5 * (encoded.dense[0, 0] + encoded.dense[1, 0]), abs=1e-6)
