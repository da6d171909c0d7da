"""Rows of features: bags of ids, pixels and plain numbers, and what is refused."""

import numpy as np
import pytest
from scipy import sparse

from nnkit import Dense, MLPClassifier, Network, Trainer
from nnkit.errors import DataError
from nnkit.feed.features import Bags, Features, features_from, is_mapped


def _bags(weights=None):
    return Bags(np.array([4, 1, 1, 0], np.int32), np.array([0, 2, 2, 4]), 5, weights)


def test_rows_of_bags_are_taken_in_the_order_asked_for_and_more_than_once():
    bags = _bags(np.array([1.0, 2.0, 3.0, 4.0], np.float32)).take(np.array([2, 1, 0, 2]))
    assert bags.ids.tolist() == [1, 0, 4, 1, 1, 0]
    assert bags.starts.tolist() == [0, 2, 2, 4, 6]
    assert bags.weights is not None
    assert bags.weights.tolist() == [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]
    assert bags.size == 5


def test_features_take_their_bags_along():
    features = Features(np.arange(3, dtype=np.float32)[:, None], bags=(_bags(), _bags())).take(np.array([2]))
    assert len(features) == 1
    assert features.width == 1
    assert [bags.ids.tolist() for bags in features.bags] == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("ids", "starts", "weights", "said"),
    [
        ([5], [0, 1], None, "outside the embedding's 5 rows"),
        ([-1], [0, 1], None, "outside the embedding's 5 rows"),
        ([1, 2], [0, 1], None, "do not divide"),
        ([1, 2], [0, 2, 1, 2], None, "do not divide"),
        ([1, 2], [1, 2], None, "do not divide"),
        ([1, 2], [], None, "do not divide"),
        ([1, 2], [0, 2], [1.0], "2 ids in bags and 1 weights"),
    ],
)
def test_bags_that_do_not_fit_are_refused(ids, starts, weights, said):
    given = None if weights is None else np.array(weights)
    with pytest.raises(DataError, match=said):
        Bags(np.array(ids, np.int32), np.array(starts, np.int64), 5, given)


def test_as_many_bags_as_rows_are_wanted():
    with pytest.raises(DataError, match="2 rows of numbers and 3 bags"):
        Features(np.zeros((2, 1), np.float32), bags=(_bags(),))


def test_a_view_of_a_file_is_mapped_and_a_copy_of_it_is_not(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(3, 4))
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    for view in (rows, np.asarray(rows), rows[:, 1:], rows[::-1], rows.reshape(4, 3)):
        assert is_mapped(view)
    # A memmap's copies are memmaps by their class.
    for copy in (rows.copy(), rows.astype(np.float32), np.array(rows), rows[[0, 2]], rows + 1):
        assert not is_mapped(copy)


def _frames():
    """Return what makes each library's data frame of named columns."""
    pandas, polars, pyarrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    return {"pandas": pandas.DataFrame, "polars": polars.DataFrame, "arrow": pyarrow.table}


BYTES = np.array([[0, 255, 3], [7, 0, 51]], np.uint8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_of_bytes_is_pixels_dense_or_sparse_to_the_bit(dtype):
    pixels = BYTES * np.dtype(dtype).type(1 / 255)
    network = Network([Dense(2)])
    network.initialize(3, dtype=dtype)
    expected = network.outputs(pixels)
    np.testing.assert_array_equal(network.outputs(BYTES), expected)
    for form in (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix, sparse.csr_array):
        np.testing.assert_array_equal(features_from(form(BYTES), dtype).sparse.values, pixels[pixels > 0])
        np.testing.assert_array_equal(network.outputs(form(BYTES)), expected)
    for other in (np.int8, np.uint16, np.bool_):
        given = BYTES.astype(other)
        plain = network.outputs(given.astype(dtype))
        np.testing.assert_array_equal(network.outputs(given), plain)
        np.testing.assert_array_equal(network.outputs(sparse.csr_matrix(given)), plain)


@pytest.mark.parametrize("library", ["pandas", "polars", "arrow"])
def test_the_columns_of_a_data_frame_are_numbers_whatever_their_types(library):
    frame = _frames()[library]
    for types in ([np.uint8] * 3, [np.uint8, np.float32, np.uint8], [np.uint8, np.bool_, np.int64]):
        columns = {name: BYTES[:, j].astype(types[j]) for j, name in enumerate("abc")}
        expected = np.stack(list(columns.values()), axis=1).astype(np.float32)
        np.testing.assert_array_equal(features_from(frame(columns), np.float32).dense, expected)


@pytest.mark.parametrize("library", ["pandas", "polars", "arrow"])
def test_a_data_frames_texts_are_refused_by_their_column(library):
    with pytest.raises(DataError, match=r"column 1 of X .* no numbers"):
        features_from(_frames()[library]({"a": [1.0, 2.0], "b": ["1", "2"]}), np.float32)


def test_bytes_are_pixels_in_training_validation_and_gradients_too():
    generator = np.random.default_rng(1)
    X, y = generator.integers(0, 256, (40, 3)).astype(np.uint8), generator.integers(0, 2, 40)
    results = []
    for given in (X, X * np.float32(1 / 255), sparse.csr_matrix(X)):
        trainer = Trainer(Network([Dense(4, "tanh"), Dense(1)]), "binary_cross_entropy", device="cpu")
        history = trainer.fit(given, y, epochs=2, batch_size=8, validation=(given[:10], y[:10]))
        gradients = trainer.network.gradients(given, y, "binary_cross_entropy")
        values = {**trainer.network.parameters(), **gradients}
        results.append([history["validation_loss"], *values.values()])
    for found in results[1:]:
        for one, other in zip(results[0], found, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_numbers_too_large_for_the_type_are_named_as_they_were_given(form):
    with pytest.raises(DataError, match=r"1e\+39 at row 1, column 0 .* too large for float32"):
        features_from(form(np.array([[1.0, 2.0], [1e39, 0.0]])), np.float32)
    with pytest.raises(DataError, match=r"nan at row 1, column 0 .* not finite"):
        features_from(form(np.array([[1.0, 2.0], [np.nan, 0.0]])), np.float32)


def test_an_estimator_takes_bytes_as_numbers_as_scikit_learn_does():
    generator = np.random.default_rng(1)
    X, y = generator.integers(0, 5, (40, 3)).astype(np.uint8), generator.integers(0, 2, 40)
    settings = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0, "device": "cpu"}
    plain = MLPClassifier(**settings).fit(X.astype(float), y)
    expected = plain.predict_proba(X.astype(float))
    for form in (np.asarray, sparse.csr_matrix):
        fitted = MLPClassifier(**settings).fit(form(X), y)
        np.testing.assert_array_equal(fitted.predict_proba(form(X)), expected)
        np.testing.assert_array_equal(plain.predict_proba(form(X)), expected)


@pytest.mark.parametrize("kind", ["Int64", "Float64", "boolean", "int64[pyarrow]"])
def test_a_missing_value_of_a_nullable_column_is_named_by_its_row(kind: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"whole": [1.0, 2, 3], "part": pandas.array([1, 0, None], dtype=kind)})
    with pytest.raises(DataError, match=r"^X has no value at row 2, column 1 \(counting from 0\)"):
        features_from(frame, np.float32)


def test_a_column_of_texts_is_to_be_encoded_also_where_values_are_missing() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"number": [1.0, 2, 3], "text": ["a", None, "b"]})
    with pytest.raises(DataError, match=r"^column 1 of X \(counting from 0\) holds no numbers; encode it$"):
        features_from(frame, np.float32)
