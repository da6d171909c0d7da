"""Columns of text against scikit-learn's vectorizers, RFC 9923's hashes and naive loops."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from nnkit.data.operations import TextColumn
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import load_dataset
from nnkit.data.text import encoding as text_module
from nnkit.data.text.encoding import fnv1a
from nnkit.data.text.options import TextOptions
from nnkit.data.text.terms import Ragged, chained, find_terms, starts_of
from nnkit.data.text.tokens import tokenise
from nnkit.errors import DataError, ModelFileError
from nnkit.feed.features import Bags

WORDS = ["free", "win", "call", "now", "you", "me", "the", "a", "home", "£", "!", "...", "don't", "😀", "été"]


def documents(count: int = 60, seed: int = 0) -> list[str]:
    """Return texts of the words, some of them empty."""
    random = Random(seed)
    return [" ".join(random.choices(WORDS, k=random.randrange(15))) for _ in range(count)]


def fitted(texts: list[str | None], **options: object) -> tuple[Preprocessor, Bags]:
    table = pa.table({"message": pa.array(texts, pa.string())})
    given = {"columns": ("message",), "char_ngrams": None, "min_count": 1, **options}
    preprocessor = Preprocessor.fit(table, text=TextOptions(**given), dtype=np.float64)  # type: ignore[arg-type]
    return preprocessor, preprocessor.transform(table).bags[0]


def counted(bags: Bags) -> np.ndarray:
    """Return the sums of each id's weights in each bag, (rows, size), by a naive loop."""
    counts = np.zeros((len(bags), bags.size))
    for row in range(len(bags)):
        for place in range(bags.starts[row], bags.starts[row + 1]):
            counts[row, bags.ids[place]] += 1 if bags.weights is None else bags.weights[place]
    return counts


# --- tokens ---


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("You've WON!!! Call 0800, NOW...", ["you've", "won", "!!!", "call", "0800", ",", "now", "..."]),
        ("don’t 'quote'", ["don't", "'", "quote", "'"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("👨\u200d👩\u200d👧 ❤\ufe0f😀😀", ["👨", "👩", "👧", "❤", "😀", "😀"]),
        ("שלום עולם, مرحبا\u200f!", ["שלום", "עולם", ",", "مرحبا", "!"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("私は学生", ["私", "は", "学", "生"]),
        ("a_b-c £5", ["a_b", "-", "c", "£", "5"]),
        (" \t\n\u3000", []),
        ("", []),
        ("a\0b", ["a", "\0", "b"]),
    ],
)
def test_tokens_are_words_and_signs(text: str, tokens: list[str]) -> None:
    assert tokenise(text) == tokens


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_tokens_hold_every_seen_character_once_and_in_order(text: str) -> None:
    """A naive reading: what is neither space nor hidden comes again, lower-cased and composed."""
    hidden = {chr(code) for code in (0xAD, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F))}
    hidden |= {chr(code) for code in (*range(0x2060, 0x206A), *range(0xFE00, 0xFE10))}
    plain = unicodedata.normalize("NFC", text.lower()).replace("’", "'")
    if text.isascii():
        plain = text.lower()
    kept = "".join(sign for sign in plain if not sign.isspace() and sign not in hidden)
    assert "".join(tokenise(text)) == kept


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(max_codepoint=0x24F, exclude_characters="İ"), max_size=60))  # i and a mark
def test_words_are_those_that_a_plain_pattern_finds(text: str) -> None:
    composed = unicodedata.normalize("NFC", text.lower()).replace("\xad", "")
    expected = re.findall(r"\w+(?:'\w+)*", composed)
    assert [token for token in tokenise(text) if re.match(r"\w", token)] == expected


# --- terms ---


@pytest.mark.parametrize("longest", [1, 2, 3, 5])
def test_word_ngrams_are_scikit_learns(longest: int) -> None:
    texts = documents()
    vectorizer = CountVectorizer(
        tokenizer=tokenise, token_pattern=None, lowercase=False, ngram_range=(1, longest)
    )
    expected = vectorizer.fit_transform(texts).toarray()
    preprocessor, bags = fitted(list(texts), word_ngrams=longest)
    [column] = preprocessor.text_columns
    assert set(column.terms) == set(vectorizer.vocabulary_)
    places = [vectorizer.vocabulary_[term] for term in column.terms]
    counts = counted(bags)
    np.testing.assert_array_equal(counts[:, 1:], expected[:, places])
    assert not counts[:, 0].any()  # every word of the training rows is in the vocabulary


@pytest.mark.parametrize("lengths", [(1, 1), (2, 4), (3, 5), (6, 10)])
def test_character_ngrams_are_those_of_a_naive_loop(lengths: tuple[int, int]) -> None:
    texts = documents()
    terms = find_terms(texts, 1, lengths)
    for row, text in enumerate(texts):
        expected = Counter(tokenise(text))
        for token in tokenise(text):
            padded = "<" + token + ">"
            runs = (
                padded[first:last]
                for first in range(len(padded))
                for last in range(first + 1, len(padded) + 1)
                if lengths[0] <= last - first <= lengths[1] and (first, last) not in _ends(padded)
            )
            expected.update(" " + run for run in runs)
        start, end = terms.documents.starts[row : row + 2]
        assert Counter(terms.names[number] for number in terms.documents.values[start:end]) == expected


def _ends(padded: str) -> set[tuple[int, int]]:
    return {(0, 1), (len(padded) - 1, len(padded))}


def test_the_names_of_terms_are_distinct() -> None:
    terms = find_terms(["ab <ab> a b", "< a b >", "ab ab"], 3, (1, 4))
    assert len(set(terms.names)) == len(terms.names)


# --- vocabulary and hashing ---


def test_the_vocabulary_holds_the_frequent_terms_of_the_training_rows() -> None:
    table = pa.table({"message": ["b b a", "a c", "z z z z", "b d"]})
    options = TextOptions(("message",), word_ngrams=1, char_ngrams=None, min_count=2)
    preprocessor = Preprocessor.fit(table, rows=np.array([0, 1, 3]), text=options)
    assert preprocessor.text_columns[0].terms == ("b", "a")
    bags = preprocessor.transform(table).bags[0]
    # b and a have their rows; every other word that of the unseen.
    assert bags.ids.tolist() == [1, 1, 2, 2, 0, 0, 0, 0, 0, 1, 0]
    assert bags.starts.tolist() == [0, 3, 5, 9, 11]
    assert bags.size == 3


def test_unseen_ngrams_are_left_out_and_unseen_words_are_not() -> None:
    preprocessor, _ = fitted(["a b", "b a"], word_ngrams=2, char_ngrams=(3, 3))
    bags = preprocessor.transform(pa.table({"message": ["new words", "", "a new b", None]})).bags[0]
    names = ["(unseen)", *preprocessor.text_columns[0].terms]
    rows = [[names[i] for i in bags.ids[a:b]] for a, b in pairwise(bags.starts)]
    assert rows == [["(unseen)"] * 2, [], ["a", "(unseen)", "b", " <a>", " <b>"], []]


def test_the_size_keeps_the_most_frequent_and_ties_go_by_the_alphabet() -> None:
    preprocessor, _ = fitted(["c c c b b a a d"], word_ngrams=1, vocabulary_size=3)
    assert preprocessor.text_columns[0].terms == ("c", "a", "b")


def test_rare_terms_are_forgotten_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "_MOST_COUNTED", 50)
    monkeypatch.setattr(text_module, "_ROWS_AT_ONCE", 10)
    texts = [f"often word{number} sometimes{number % 5}" for number in range(200)]
    preprocessor, _ = fitted(list(texts), word_ngrams=1)
    terms = preprocessor.text_columns[0].terms
    assert len(terms) < 120
    assert {"often", *(f"sometimes{number}" for number in range(5))} <= set(terms)


def test_stretches_of_rows_give_what_all_rows_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = documents(50)
    for options in ({"tfidf": True}, {"hashing": 32, "tfidf": True}, {"char_ngrams": (2, 3)}):
        monkeypatch.setattr(text_module, "_ROWS_AT_ONCE", 4096)
        whole, bags = fitted(list(texts), **options)
        monkeypatch.setattr(text_module, "_ROWS_AT_ONCE", 7)
        parts, again = fitted(list(texts), **options)
        assert whole.to_json() == parts.to_json()
        np.testing.assert_array_equal(counted(bags), counted(again))


def test_hashes_are_those_of_the_rfc() -> None:
    """The vectors of RFC 9923, and a naive loop for long and short texts."""
    known = {"": 0x811C9DC5, "a": 0xE40C292C, "foobar": 0xBF9CF968}
    texts = [*known, *documents(), "x" * 64, "y" * 65, "é" * 500]
    hashes = fnv1a(texts)
    assert hashes[: len(known)].tolist() == list(known.values())
    for text, found in zip(texts, hashes.tolist(), strict=True):
        expected = 2166136261
        for byte in text.encode():
            expected = ((expected ^ byte) * 16777619) % 2**32
        assert found == expected
    assert fnv1a([]).shape == (0,)


def test_hashed_terms_fall_into_their_buckets() -> None:
    texts = documents()
    preprocessor, bags = fitted(list(texts), word_ngrams=2, hashing=37)
    assert bags.size == preprocessor.embedding_sizes[0] == 37
    expected = np.zeros((len(texts), 37))
    for row, text in enumerate(texts):
        tokens = tokenise(text)
        for term in [*tokens, *(f"{a} {b}" for a, b in pairwise(tokens))]:
            expected[row, int(fnv1a([term])[0]) % 37] += 1
    np.testing.assert_array_equal(counted(bags), expected)


# --- TF-IDF ---


def test_weights_are_scikit_learns() -> None:
    texts = documents()
    preprocessor, bags = fitted(list(texts), word_ngrams=2, tfidf=True)
    vectorizer = TfidfVectorizer(tokenizer=tokenise, token_pattern=None, lowercase=False, ngram_range=(1, 2))
    expected = vectorizer.fit_transform(texts).toarray()
    places = [vectorizer.vocabulary_[term] for term in preprocessor.text_columns[0].terms]
    np.testing.assert_allclose(counted(bags)[:, 1:], expected[:, places], rtol=1e-12, atol=1e-15)


def test_weights_of_rare_words_are_those_of_one_word() -> None:
    texts = documents(200)
    _, bags = fitted(list(texts), word_ngrams=1, tfidf=True, min_count=90)
    rare = {word for word, times in Counter(t for x in texts for t in tokenise(x)).items() if times < 90}
    assert rare
    renamed = [" ".join("\ufffd" if token in rare else token for token in tokenise(text)) for text in texts]
    vectorizer = TfidfVectorizer(tokenizer=str.split, token_pattern=None, lowercase=False)
    expected = vectorizer.fit_transform(renamed).toarray()[:, vectorizer.vocabulary_["\ufffd"]]
    np.testing.assert_allclose(counted(bags)[:, 0], expected, rtol=1e-12, atol=1e-15)


# --- which columns are text ---


def test_free_text_is_found_and_identifiers_and_categories_are_not() -> None:
    rows = 100
    table = pa.table(
        {
            "message": [f"this is message number {row}" for row in range(rows)],
            "id": [f"user-{row}" for row in range(rows)],
            "name": [f"Ann {row}" for row in range(rows)],
            "place": [["New York City Hall", "Rio de Janeiro"][row % 2] for row in range(rows)],
            "japanese": [f"これはメッセージ{row}" for row in range(rows)],
        }
    )
    preprocessor = Preprocessor.fit(table, text=TextOptions())
    assert [column.column for column in preprocessor.text_columns] == ["message", "japanese"]
    assert preprocessor.input_names == ("message", "place", "japanese")
    notes = "\n".join(preprocessor.notes)
    assert "'message': words" in notes
    assert "dropped column 'id'" in notes


def test_without_options_text_is_dropped_and_said() -> None:
    messages = [f"this is message number {row}" for row in range(50)]
    table = pa.table({"message": messages, "x": [7 * row % 50 for row in range(50)]})
    preprocessor = Preprocessor.fit(table)
    assert preprocessor.input_names == ("x",)
    assert "dropped column 'message': it is free text" in preprocessor.notes[0]


def test_columns_named_are_text_and_others_are_not() -> None:
    table = pa.table(
        {
            "message": [f"this is message number {row}" for row in range(50)],
            "tag": ["a", "b"] * 25,
            "x": [7 * row % 50 for row in range(50)],
        }
    )
    preprocessor = Preprocessor.fit(table, text=TextOptions(("tag",)))
    assert [column.column for column in preprocessor.text_columns] == ["tag"]
    assert preprocessor.input_names == ("tag", "x")
    none = Preprocessor.fit(table, text=TextOptions(()))
    assert none.text_columns == ()


@pytest.mark.parametrize("texts", [[None, ""], ["", ""], ["one", "two"]])
def test_a_column_without_frequent_words_is_dropped(texts: list[str | None]) -> None:
    table = pa.table({"message": pa.array(texts, pa.string()), "x": [1, 2]})
    preprocessor = Preprocessor.fit(table, text=TextOptions(("message",), min_count=2))
    assert preprocessor.text_columns == ()
    assert "no word occurs 2 times" in preprocessor.notes[0]
    with pytest.raises(DataError, match="no column is left"):
        Preprocessor.fit(table.select(["message"]), text=TextOptions(("message",), min_count=2))


def test_numbers_dates_and_booleans_are_read_as_text_where_text_was_learnt() -> None:
    preprocessor, _ = fitted(["call 12345", "true", "12345"], word_ngrams=1)
    terms = ["(unseen)", *preprocessor.text_columns[0].terms]
    for values in ([12345, 7], [True, False], [None, None]):
        bags = preprocessor.transform(pa.table({"message": values})).bags[0]
        assert len(bags) == 2
    bags = preprocessor.transform(pa.table({"message": [12345, 7]})).bags[0]
    assert [terms[i] for i in bags.ids] == ["12345", "(unseen)"]


# --- with other columns ---


def mixed_table() -> pa.Table:
    return pa.table(
        {
            "size": [1.0, 2.0, 3.0, 6.0],
            "title": ["a b", "b c", "c d", "d a"],
            "colour": ["red", "blue", "red", None],
            "body": ["x y z", "y z x", None, "z"],
        }
    )


@pytest.mark.parametrize("categories", ["onehot", "embed"])
def test_text_stands_beside_numbers_and_categories(categories: str) -> None:
    table = mixed_table()
    options = TextOptions(("title", "body"), 1, None, 1)
    preprocessor = Preprocessor.fit(table, text=options, categories=categories)
    features = preprocessor.transform(table)
    columns = [operation.column for operation in preprocessor.embedded]
    embedded = categories == "embed"
    assert columns == (["title", "colour", "body"] if embedded else ["title", "body"])
    assert preprocessor.embedding_sizes == tuple(bags.size for bags in features.bags)
    assert preprocessor.width == features.width == (1 if embedded else 1 + 3)
    assert len(preprocessor.output_names) == preprocessor.width
    if embedded:
        assert features.codes is None
        assert features.bags[1].ids.tolist() == [1, 0, 1, 2]
        assert features.bags[1].starts.tolist() == [0, 1, 2, 3, 4]
    rows = np.array([2, 0])
    taken, expected = preprocessor.transform(table, rows), features.take(rows)
    np.testing.assert_array_equal(taken.dense, expected.dense)
    for some, others in zip(taken.bags, expected.bags, strict=True):
        np.testing.assert_array_equal(some.ids, others.ids)
        np.testing.assert_array_equal(some.starts, others.starts)


def test_embedded_categories_may_be_more_than_one_hot_ones() -> None:
    values = [f"c{row % 1500}" for row in range(6000)]
    table = pa.table({"c": values, "x": [7 * row % 6000 for row in range(6000)]})
    assert "dropped column 'c'" in Preprocessor.fit(table).notes[0]
    assert Preprocessor.fit(table, categories="embed").embedding_sizes == (1500,)
    assert "dropped column 'c'" in Preprocessor.fit(table, categories="auto").notes[0]
    often = pa.table({"c": [f"c{row % 1500}" for row in range(15_000)], "x": np.arange(15_000) ** 2 % 777})
    assert Preprocessor.fit(often, categories="auto").embedding_sizes == (1500,)


# --- JSON ---


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"char_ngrams": (2, 3), "word_ngrams": 3},
        {"tfidf": True},
        {"hashing": 64},
        {"hashing": 64, "tfidf": True},
    ],
)
def test_json_brings_the_same_encoding_back(options: dict[str, object]) -> None:
    texts = documents()
    preprocessor, bags = fitted(list(texts), **options)
    again = Preprocessor.from_json(json.loads(json.dumps(preprocessor.to_json())))
    assert again.to_json() == preprocessor.to_json()
    found = again.transform(pa.table({"message": texts})).bags[0]
    np.testing.assert_array_equal(found.ids, bags.ids)
    np.testing.assert_array_equal(found.starts, bags.starts)
    assert (found.weights is None) == (bags.weights is None)
    if bags.weights is not None:
        np.testing.assert_array_equal(found.weights, bags.weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"terms": ["a", "a"]},
        {"terms": []},
        {"terms": [1]},
        {"buckets": 5},
        {"buckets": -1, "terms": []},
        {"buckets": 2**40, "terms": []},
        {"word_ngrams": 0},
        {"word_ngrams": 1000},
        {"word_ngrams": True},
        {"char_ngrams": [3]},
        {"char_ngrams": [5, 3]},
        {"char_ngrams": [3, 10**9]},
        {"char_ngrams": None},
        {"documents": -1},
        {"counts": [1, 1, 1]},
        {"documents": 3, "counts": [1, 1]},
        {"documents": 3, "counts": [1, 1, 4]},
        {"documents": 3, "counts": [1, 1, 0.5]},
    ],
)
def test_json_that_is_no_text_column_is_refused(changes: dict[str, object]) -> None:
    column = TextColumn("message", 2, (3, 5), ("a", "b")).to_json() | changes
    with pytest.raises(ModelFileError, match="damaged"):
        Preprocessor.from_json({"dtype": "float32", "operations": [column], "notes": []})


# --- large and real ---


def test_a_document_of_a_million_tokens_is_encoded() -> None:
    random = Random(1)
    text = " ".join(random.choices(WORDS, k=1_000_000))
    preprocessor, bags = fitted([text, "free"], word_ngrams=1)
    assert len(bags.ids) == len(tokenise(text)) + 1 >= 1_000_000
    expected = Counter(tokenise(text))
    counts = np.bincount(bags.ids[:-1], minlength=bags.size)
    assert {
        term: int(counts[row]) for row, term in enumerate(preprocessor.text_columns[0].terms, 1)
    } == expected


def test_every_message_is_read_and_encoded(shared_data: Path) -> None:
    path = shared_data / "sms_spam.tsv"
    lines = path.read_bytes().decode().rstrip("\n").split("\n")
    dataset = load_dataset(path, target=0)
    assert len(dataset.train) == len(lines) == 5574
    assert dataset.train.target is not None
    assert dataset.train.target.tolist() == [line.split("\t", 1)[0] for line in lines]
    texts = [line.split("\t", 1)[1] for line in lines]
    read = dataset.train.features["1"].to_pylist()
    assert read == texts
    assert any('"' in text for text in texts)
    preprocessor = Preprocessor.fit(dataset.train.features, text=TextOptions(char_ngrams=None, min_count=1))
    bags = preprocessor.transform(dataset.train.features).bags[0]
    vectorizer = CountVectorizer(tokenizer=tokenise, token_pattern=None, lowercase=False, ngram_range=(1, 2))
    expected = vectorizer.fit_transform(texts)
    places = [vectorizer.vocabulary_[term] for term in preprocessor.text_columns[0].terms]
    counts = csr_matrix((np.ones(len(bags.ids)), bags.ids, bags.starts), shape=(len(texts), bags.size))
    assert (counts[:, 1:] != expected[:, places]).nnz == 0


# --- ragged rows ---


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=5, max_size=5), min_size=1, max_size=4
    )
)
def test_ragged_rows_are_lists_of_lists(parts: list[list[list[int]]]) -> None:
    def ragged(rows: list[list[int]]) -> Ragged:
        return Ragged(np.array([v for row in rows for v in row], np.int64), starts_of([len(r) for r in rows]))

    def lists(rows: Ragged) -> list[list[int]]:
        return [part.tolist() for part in np.split(rows.values, rows.starts[1:-1])]

    whole = [[value for part in parts for value in part[row]] for row in range(5)]
    assert lists(chained([ragged(part) for part in parts])) == whole
    first = ragged(parts[0])
    assert lists(first.only(first.values % 2 == 0)) == [[v for v in row if v % 2 == 0] for row in parts[0]]
    spread = [[v] * (v % 3) for v in range(10)]
    assert lists(first.replaced(ragged(spread))) == [[x for v in row for x in spread[v]] for row in parts[0]]
