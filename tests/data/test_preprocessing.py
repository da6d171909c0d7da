"""Preprocessing against scikit-learn's transformers, and what it says of data that it cannot use."""

from __future__ import annotations

import datetime as dt
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

from nnkit.data.arrays.reading import as_numbers
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import ConfigError, DataError, ModelFileError
from nnkit.feed.features import Features


def gathered(features: Features) -> np.ndarray:
    """Fill one batch with all rows, in float64, as the definition of `Features` says."""
    dense = features.dense.astype(np.float64)
    if features.shift is not None:
        dense = dense - features.shift
    if features.scale is not None:
        dense = dense * features.scale
    # The code -1 is the last row of a larger identity, which has its 1 in the column that is cut off.
    hot = [np.eye(width + 1)[:, :width] for width in features.cardinalities]
    blocks = [block[features.codes[:, j]] for j, block in enumerate(hot)]
    return np.hstack([dense, *blocks])


def random_table(rows: int = 200) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": generator.normal(40, 10, rows),
            "city": generator.choice(["Rome", "Oslo", "Lima"], rows),
            "rooms": generator.integers(1, 9, rows),
            "new": generator.random(rows) < 0.5,
        }
    )
    frame.loc[generator.choice(rows, 20, replace=False), "age"] = np.nan
    return frame


def test_table_equals_imputer_scaler_and_one_hot() -> None:
    frame = random_table()
    training = np.arange(0, 200, 2)
    encoded = Preprocessor.fit(frame, rows=training, dtype=np.float64).transform(frame)
    numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    numeric.fit(frame.loc[training, ["age", "rooms"]])
    flags = SimpleImputer(add_indicator=True).fit(frame.loc[training, ["age", "rooms"]])
    flags = flags.transform(frame[["age", "rooms"]])[:, 2:]
    one_hot = OneHotEncoder(sparse_output=False).fit(frame.loc[training, ["city", "new"]])
    hot = one_hot.transform(frame[["city", "new"]])
    numbers = numeric.transform(frame[["age", "rooms"]])
    expected = np.hstack([numbers, flags, hot])
    np.testing.assert_allclose(gathered(encoded), expected, rtol=1e-12, atol=1e-12)
    assert encoded.cardinalities == (3, 2)


def test_names_and_width_agree_with_the_encoded_rows() -> None:
    preprocessor = Preprocessor.fit(random_table())
    features = preprocessor.transform(random_table())
    assert preprocessor.input_names == ("age", "city", "rooms", "new")
    assert preprocessor.output_names == (
        *("age", "rooms", "age=(missing)", "city=Lima", "city=Oslo", "city=Rome"),
        *("new=false", "new=true"),
    )
    assert preprocessor.column_names == ("age", "rooms", "age", "city", "new")
    assert preprocessor.width == features.width == 8
    assert features.dense.dtype == np.float32
    assert features.dense.flags.c_contiguous


@pytest.mark.parametrize("convert", [pl.from_pandas, lambda frame: pa.Table.from_pandas(frame), pd.DataFrame])
def test_frames_of_every_library_encode_alike(convert) -> None:  # type: ignore[no-untyped-def]
    frame = random_table()
    expected = Preprocessor.fit(frame).transform(frame)
    features = Preprocessor.fit(convert(frame)).transform(convert(frame))
    np.testing.assert_array_equal(features.dense, expected.dense)
    np.testing.assert_array_equal(features.codes, expected.codes)


def test_polars_categories_and_dictionaries_are_codes() -> None:
    frame = pl.DataFrame({"c": ["u", None, "v", "u"]}).with_columns(pl.col("c").cast(pl.Categorical))
    assert Preprocessor.fit(frame).transform(frame).codes[:, 0].tolist() == [0, 2, 1, 0]
    numbered = pd.DataFrame({"c": pd.Categorical([7, 3, 7])})
    assert Preprocessor.fit(numbered).output_names == ("c=3", "c=7")


def test_only_columns_with_missing_training_rows_have_flags() -> None:
    table = pa.table(
        {
            "late": [1.0, 2.0, 4.0, None],
            "when": pa.array([None, dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 3), None]),
            "x": [5.0, None, 7.0, 9.0],
        }
    )
    rows = np.array([0, 1, 2])
    preprocessor = Preprocessor.fit(table, rows=rows)
    assert [number.column for number in preprocessor.flagged] == ["when", "x"]
    encoded = preprocessor.transform(table).dense
    np.testing.assert_array_equal(encoded[:, 3:], [[1, 0], [0, 1], [0, 0], [1, 0]])
    plain = Preprocessor.fit(table, rows=rows, missing_flags=False)
    np.testing.assert_array_equal(plain.transform(table).dense, encoded[:, :3])
    assert not plain.flagged


def test_a_model_from_before_flags_has_none() -> None:
    data = Preprocessor.fit(random_table(), missing_flags=False).to_json()
    assert isinstance(data, dict)
    for operation in data["operations"]:
        operation.pop("flagged", None)
    assert Preprocessor.from_json(data).transform(random_table()).dense.shape == (200, 2)


def test_columns_are_matched_by_name() -> None:
    frame = random_table()
    preprocessor = Preprocessor.fit(frame)
    shuffled = frame[["new", "rooms", "city", "age"]].assign(extra=1)
    np.testing.assert_array_equal(preprocessor.transform(shuffled).dense, preprocessor.transform(frame).dense)
    with pytest.raises(DataError, match="columns 'age', 'city' missing"):
        preprocessor.transform(frame[["rooms", "new"]])


def test_a_missing_value_is_a_category_if_the_training_has_some_and_an_unseen_one_is_none() -> None:
    later = pa.table({"c": ["y", "z", None]})
    without = Preprocessor.fit(pa.table({"c": ["x", "y", "x"]}))
    assert without.transform(later).codes[:, 0].tolist() == [1, -1, -1]
    with_missing = Preprocessor.fit(pa.table({"c": ["x", "y", None]}))
    assert with_missing.transform(later).codes[:, 0].tolist() == [1, -1, 2]
    assert (without.width, with_missing.output_names) == (2, ("c=x", "c=y", "c=(missing)"))
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit([["x"], ["y"], [None]])
    cells = np.array([["y"], ["z"], [None]], object)
    np.testing.assert_array_equal(gathered(with_missing.transform(later)), encoder.transform(cells))


def test_an_unseen_embedded_value_is_an_empty_bag() -> None:
    later = pa.table({"c": ["y", "z", None, "x"]})
    preprocessor = Preprocessor.fit(pa.table({"c": ["x", "y", None]}), categories="embed")
    [bags] = preprocessor.transform(later).bags
    assert (bags.size, bags.ids.tolist(), bags.starts.tolist()) == (3, [1, 2, 0], [0, 1, 1, 2, 3])


def test_unseen_and_missing_values_share_the_last_place_of_an_older_model() -> None:
    data = Preprocessor.fit(pa.table({"c": ["x", "y", "x"]})).to_json()
    assert isinstance(data, dict)
    del data["operations"][0]["last"]
    older = Preprocessor.from_json(data)
    assert older.transform(pa.table({"c": ["y", "z", None]})).codes[:, 0].tolist() == [1, 2, 2]
    assert older.output_names == ("c=x", "c=y", "c=(other)")


def test_auto_has_vectors_for_categories_of_more_than_fifty_places() -> None:
    full, missing = [f"v{row % 50}" for row in range(900)], [*(f"v{row % 49}" for row in range(899)), None]
    table = pa.table({"a": full, "b": missing, "c": [*full[:899], None], "x": np.arange(900) ** 2})
    preprocessor = Preprocessor.fit(table, categories="auto")
    assert [operation.column for operation in preprocessor.embedded] == ["c"]
    assert preprocessor.transform(table).cardinalities == (50, 50)


def test_other_spellings_of_a_value_have_its_code() -> None:
    numbers = Preprocessor.fit(pa.table({"c": ["1", "x", "2", "y"]}))
    assert numbers.transform(pa.table({"c": [2, 1]})).codes[:, 0].tolist() == [1, 0]


def test_rows_select_as_taking_does() -> None:
    frame, rows = random_table(), np.array([5, 3, 100])
    preprocessor = Preprocessor.fit(frame)
    selected, taken = preprocessor.transform(frame, rows), preprocessor.transform(frame).take(rows)
    np.testing.assert_array_equal(selected.dense, taken.dense)
    np.testing.assert_array_equal(selected.codes, taken.codes)


def test_useless_columns_are_dropped_and_named() -> None:
    count = 1200
    table = pa.table(
        {
            "good": np.arange(count) * 7 % count,
            "same": np.ones(count),
            "nothing": pa.nulls(count),
            "nan": np.full(count, np.nan),
            "word": ["a"] * count,
            "name": [f"person {i}" for i in range(count)],
            "many": [f"street {i // 1.1:.0f}" for i in range(count)],
        }
    )
    preprocessor = Preprocessor.fit(table)
    assert preprocessor.input_names == ("good",)
    notes = "\n".join(preprocessor.notes)
    for words in (
        "'same': every value is the same, 1",
        "'nothing': every value is missing",
        "'nan': every value is missing",
        "'word': every value is the same, 'a'",
        "'name': 1200 different texts in 1200 rows",
        "'many'",
    ):
        assert words in notes
    with pytest.raises(DataError, match=r"no column is left.*'same'"):
        Preprocessor.fit(table.select(["same"]))


def test_missing_numbers_become_the_training_median() -> None:
    table = pa.table({"age": [1.0, None, 3.0, 5.0, 1000.0]})
    preprocessor = Preprocessor.fit(table, rows=np.arange(4), scaling="none")
    assert preprocessor.transform(table).dense[:, 0].tolist() == [1, 3, 3, 5, 1000]
    assert preprocessor.notes == ("1 missing value in 'age' becomes the median 3, beside a flag",)
    assert preprocessor.transform(pa.table({"age": [float("nan")]})).dense.tolist() == [[3, 1]]


def test_robust_scaling_is_scikit_learns_with_a_smooth_clip() -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame({"x": random.standard_cauchy(99), "y": random.exponential(size=99)})
    frame.loc[[4, 9], "x"] = np.nan
    training = np.arange(0, 99, 2)
    preprocessor = Preprocessor.fit(frame, rows=training, scaling="robust", dtype=np.float64)
    scaled = RobustScaler().fit(frame.loc[training]).transform(frame)
    scaled = np.nan_to_num(scaled, nan=0.0)  # a missing number becomes the median
    clipped = scaled / np.sqrt(1 + (scaled / 3) ** 2)
    dense = preprocessor.transform(frame).dense
    np.testing.assert_allclose(dense[:, :2], clipped, rtol=1e-12, atol=1e-15)
    again = Preprocessor.from_json(json.loads(json.dumps(preprocessor.to_json())))
    np.testing.assert_array_equal(again.transform(frame).dense, dense)
    far = preprocessor.transform(pa.table({"x": [1e200, -1e200], "y": [0.0, 0.0]})).dense[:, 0]
    np.testing.assert_allclose(far, [3, -3])


def test_robust_scaling_without_a_spread_in_the_middle_takes_half_of_the_range() -> None:
    table = pa.table({"x": [5.0] * 8 + [1.0, 9.0]})
    preprocessor = Preprocessor.fit(table, scaling="robust", dtype=np.float64)
    ends = 1 / np.sqrt(1 + 1 / 9)
    np.testing.assert_allclose(preprocessor.transform(table).dense[:, 0], [0.0] * 8 + [-ends, ends])


def test_robust_scaling_is_for_tables() -> None:
    with pytest.raises(ConfigError, match=r"robust.* not for an array: set .standardize"):
        Preprocessor.fit(np.ones((3, 2)), scaling="robust")


def test_dates_become_seconds() -> None:
    stamps = pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-05"])
    table = pa.table({"stamp": pa.array(stamps), "day": pa.array(stamps.date)})
    preprocessor = Preprocessor.fit(table, scaling="none", dtype=np.float64)
    seconds = [stamp.timestamp() for stamp in stamps]
    np.testing.assert_array_equal(preprocessor.transform(table).dense, np.column_stack([seconds, seconds]))
    assert "dates or times" in preprocessor.notes[0]
    median = preprocessor.transform(pa.table({"stamp": [1.0], "day": [2.0]})).dense
    assert median.tolist() == [[seconds[1]] * 2]


@pytest.mark.parametrize(
    ("column", "shown"),
    [([1.0, np.inf], "'inf'"), (["1", "abc"], "'abc'"), ([None, dt.date(2024, 1, 1)], "'2024-01-01'")],
)
def test_what_is_no_number_is_missing_and_told_with_its_row(
    column: list, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    preprocessor = Preprocessor.fit(pa.table({"a": [1.0, 2.0, 4.0]}), scaling="none")
    encoded = preprocessor.transform(pa.table({"a": column}))
    assert encoded.dense[1, 0] == 2
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith("1 of 2 values of column 'a' do not fit (number)")
    assert f"the first is {shown} in row 1 (counting from 0)" in record.message
    with pytest.raises(DataError, match=r'`types` = \{"a" = "category"\}'):
        preprocessor.transform(pa.table({"a": column}), strict=True)


@pytest.mark.parametrize(("column", "words"), [([[1], [2]], "list"), ([b"x", b"y"], "binary")])
def test_what_no_column_can_be_is_named(column: list, words: str) -> None:
    preprocessor = Preprocessor.fit(pa.table({"a": [1.0, 2.0]}))
    with pytest.raises(DataError, match=f"'a' holds {words}"):
        preprocessor.transform(pa.table({"a": column}))
    with pytest.raises(DataError, match=f"'a' holds {words}"):
        Preprocessor.fit(pa.table({"a": column, "b": [1, 2]}))


def test_numbers_as_text_are_read() -> None:
    preprocessor = Preprocessor.fit(pa.table({"a": [1.0, 3.0]}), scaling="none")
    encoded = preprocessor.transform(pa.table({"a": [" 2.5", "", "+1e1", None]}))
    assert encoded.dense[:, 0].tolist() == [2.5, 2, 10, 2]


@pytest.mark.parametrize(("largest", "divisor"), [(255, 255), (17, 255), (16, 16), (1, 1)])
def test_pixels_stay_bytes(largest: int, divisor: float) -> None:
    pixels = np.array([[0, largest], [largest, 0]], dtype=np.uint8)
    features = Preprocessor.fit(pixels).transform(pixels)
    assert features.dense.dtype == np.uint8
    np.testing.assert_allclose(gathered(features), pixels / divisor, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, bool])
def test_arrays_are_standardised_as_scikit_learn_does(dtype: type) -> None:
    values = (np.random.default_rng(0).random((3000, 400)) * 200).astype(dtype)
    values[:, 0], rows = 0, np.arange(0, 3000, 3)
    values[:2, 1] = [0, 1]
    scaler = StandardScaler().fit(values[rows].astype(np.float64))
    preprocessor = Preprocessor.fit(values, rows=rows, scaling="standardize", dtype=np.float64)
    encoded = gathered(preprocessor.transform(values, rows))
    np.testing.assert_allclose(encoded, scaler.transform(values[rows].astype(np.float64)), atol=1e-9)


@pytest.mark.parametrize("as_table", [False, True])
def test_unit_scaling_equals_that_of_scikit_learn(as_table: bool) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    features = pd.DataFrame(values, columns=["a", "b", "c"]) if as_table else values
    encoded = Preprocessor.fit(features, scaling="unit", dtype=np.float64).transform(features)
    np.testing.assert_allclose(encoded.dense, MinMaxScaler().fit_transform(values), atol=1e-14)


def test_large_offsets_keep_their_digits() -> None:
    """In float32 the values would all be equal."""
    values = 1e9 + np.arange(100.0)[:, None]
    encoded = Preprocessor.fit(values).transform(values)
    np.testing.assert_allclose(encoded.dense, StandardScaler().fit_transform(values), rtol=1e-5)
    encoded = Preprocessor.fit(pa.table({"a": values[:, 0]})).transform(pa.table({"a": values[:, 0]}))
    np.testing.assert_allclose(encoded.dense, StandardScaler().fit_transform(values), rtol=1e-5)


def test_pixels_given_as_other_numbers_are_scaled_alike() -> None:
    pixels = np.array([[0, 255], [51, 102]], dtype=np.uint8)
    preprocessor = Preprocessor.fit(pixels)
    for dtype in (np.int64, np.float64):
        np.testing.assert_allclose(
            preprocessor.transform(pixels.astype(dtype)).dense, pixels / 255, rtol=1e-6
        )


def test_bad_arrays_are_named() -> None:
    values = np.ones((400, 5000))
    values[399, 7] = np.nan
    with pytest.raises(DataError, match="nan in row 399, column 7"):
        Preprocessor.fit(values, rows=np.array([3, 399]))
    good = np.random.default_rng(0).random((4, 3))
    preprocessor = Preprocessor.fit(good)
    with pytest.raises(DataError, match="2 columns, the model was trained on 3"):
        preprocessor.transform(good[:, :2])
    with pytest.raises(DataError, match="inf in row 0, column 1"):
        preprocessor.transform(np.array([[1, np.inf, 2]]))
    with pytest.raises(DataError, match="too large"):
        Preprocessor.fit(np.array([[1e300], [-1e300]]))
    with pytest.raises(DataError, match="shape"):
        Preprocessor.fit(np.ones(3))
    with pytest.raises(DataError, match="named columns"):
        Preprocessor.fit(pa.table({"a": [1.0, 2.0]})).transform(good)
    with pytest.raises(ConfigError, match="scaling"):
        Preprocessor.fit(good, scaling="minmax")


def test_model_of_an_array_takes_a_table_of_numbers() -> None:
    values = np.random.default_rng(0).random((4, 2))
    preprocessor = Preprocessor.fit(values)
    table = pa.table({"a": values[:, 0], "b": values[:, 1]})
    np.testing.assert_array_equal(preprocessor.transform(table).dense, preprocessor.transform(values).dense)
    with pytest.raises(DataError, match="trained on 2"):
        preprocessor.transform(table.select(["a"]))


@pytest.mark.parametrize("source", ["table", "pixels", "array"])
def test_json_brings_back_the_same_encoding(source: str) -> None:
    values = np.random.default_rng(0).integers(0, 255, (20, 4), dtype=np.uint8)
    features = {"table": random_table(), "pixels": values, "array": values.astype(np.float64)}[source]
    preprocessor = Preprocessor.fit(features)
    again = Preprocessor.from_json(json.loads(json.dumps(preprocessor.to_json())))
    assert (again.notes, again.output_names) == (preprocessor.notes, preprocessor.output_names)
    expected, encoded = preprocessor.transform(features), again.transform(features)
    np.testing.assert_array_equal(encoded.dense, expected.dense)
    np.testing.assert_array_equal(gathered(encoded), gathered(expected))


NUMBER = {"operation": "scale", "column": "a", "kind": "number", "fill": 0, "shift": 0, "scale": 1}
ARRAY = {"operation": "scale_array", "columns": 2, "pixels": False, "shift": 0, "scale": [1, 2]}


@pytest.mark.parametrize(
    "operations",
    [
        None,
        [],
        "scale",
        [1],
        [{"operation": "exec"}],
        [NUMBER, NUMBER],
        [NUMBER, ARRAY],
        [NUMBER | {"fill": float("nan")}],
        [NUMBER | {"scale": 10**400}],
        [NUMBER | {"column": 3}],
        [NUMBER | {"kind": "x"}],
        [NUMBER | {"flagged": 1}],
        [{"operation": "one_hot", "column": "c", "values": []}],
        [{"operation": "one_hot", "column": "c", "values": ["x", "x"]}],
        [{"operation": "one_hot", "column": "c", "values": [1]}],
        [{"operation": "one_hot", "column": "c", "values": ["x"], "last": "first"}],
        [ARRAY | {"columns": 2**60, "scale": 1}],
        [ARRAY | {"columns": True, "scale": 1}],
        [ARRAY | {"scale": [1]}],
        [ARRAY | {"pixels": 1}],
    ],
)
def test_hostile_json_is_refused(operations: object) -> None:
    good = {"dtype": "float32", "notes": []}
    Preprocessor.from_json(good | {"operations": [ARRAY]})
    with pytest.raises(ModelFileError):
        Preprocessor.from_json(good | {"operations": operations})
    with pytest.raises(ModelFileError):
        Preprocessor.from_json({"dtype": "object", "notes": [], "operations": [ARRAY]})
    with pytest.raises(ModelFileError):
        Preprocessor.from_json([])  # type: ignore[arg-type]


def test_pixels_are_never_copied_to_floats() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20_000, 784), dtype=np.uint8)
    for scaling in ("auto", "standardize"):
        tracemalloc.start()
        features = Preprocessor.fit(pixels, scaling=scaling).transform(pixels)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.shares_memory(features.dense, pixels)
        assert peak < 40e6  # a float32 copy has 63 MB


def test_california_housing_is_standardised(shared_data: Path) -> None:
    train = load_dataset(shared_data / "california_housing.csv", target="median_house_value").train
    preprocessor = Preprocessor.fit(train.features)
    features = preprocessor.transform(train.features)
    assert features.cardinalities == (5,)
    [note] = preprocessor.notes
    assert note == "207 missing values in 'total_bedrooms' become the median 435, beside a flag"
    numbers = features.dense[:, :-1].astype(np.float64)
    np.testing.assert_allclose(numbers.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(numbers.std(axis=0), 1, atol=1e-6)
    assert features.dense[:, -1].sum() == 207


@pytest.mark.parametrize("dtype", ["longdouble", "complex128", "datetime64[s]", "U3"])
def test_arrays_that_no_kernel_computes_with_are_refused(dtype: str) -> None:
    with pytest.raises(DataError, match=r"features (of|are numbers, not) "):
        as_numbers(np.ones((3, 2)).astype(dtype))
