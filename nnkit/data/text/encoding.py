"""Columns of text: which columns are, the vocabulary of the training rows, and documents as bags of ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nnkit.data.operations import TextColumn
from nnkit.data.tables.arrow import arrow_array
from nnkit.data.tables.columns import column_kind
from nnkit.data.text.hashing import fnv1a
from nnkit.data.text.options import TextOptions
from nnkit.data.text.ragged import Ragged, starts_of
from nnkit.data.text.terms import Terms, find_terms
from nnkit.data.text.tokens import tokenise
from nnkit.errors import DataError
from nnkit.feed.features import Bags
from nnkit.working import working

__all__ = ["as_texts", "encode_texts", "fit_texts", "is_free_text", "term_rows"]

_SAMPLED_ROWS = 2000
_SEVERAL_WORDS = 3
# With character n-grams a document has about six times as many terms; what they teach, many words teach too.
_FEW_TOKENS = 2_000_000
_AUTOMATIC_LENGTHS = (3, 5)
_ROWS_AT_ONCE = 4096
_BEGINNING = 1000  # characters of a text in which words are looked for
# Distinct terms that are counted before the rarest are forgotten: about a gigabyte.
_MOST_COUNTED = 5_000_000


def is_free_text(sample: Iterable[str]) -> bool:
    """Tell whether texts are free text rather than categories or identifiers.

    They are if more than half are different and at least half of these have three words or more.
    """
    texts = list(sample)
    distinct = set(texts)
    if 2 * len(distinct) <= len(texts):
        return False
    # An address such as 10.0.0.1 or a URL has no blank; Chinese and Japanese have none either.
    apart = [text for text in distinct if " " in text.strip() or not text.isascii()]
    several = sum(_words(text) >= _SEVERAL_WORDS for text in apart)
    return 2 * several >= len(distinct)


def _sample(column: pa.ChunkedArray) -> list[str | None]:
    """Return up to 2,000 values, taken evenly."""
    rows = np.unique(np.linspace(0, len(column) - 1, min(len(column), _SAMPLED_ROWS)).astype(np.int64))
    return column.take(arrow_array(rows)).to_pylist()


def _words(text: str) -> int:
    return sum(token[0].isalnum() for token in tokenise(text[:_BEGINNING]))


def fit_texts(
    name: str, column: pa.ChunkedArray, rows: NDArray[np.integer] | None, options: TextOptions
) -> tuple[TextColumn | None, str]:
    """Return a text column's operation, None where no term is frequent enough, and a note for the user."""
    texts = as_texts(name, column)
    count = len(column) if rows is None else len(rows)
    lengths = options.char_ngrams
    if lengths == "auto":
        lengths = _AUTOMATIC_LENGTHS if _few_tokens(texts, count) else None
    operation = TextColumn(name, options.word_ngrams, lengths, buckets=options.hashing)
    counts, tokens, missing = _count(texts, rows, operation)
    if not options.hashing:
        frequent = [(-times, term) for term, times in counts.items() if times >= options.min_count]
        kept = tuple(term for _, term in sorted(frequent)[: options.vocabulary_size])
        if not kept:
            return None, (
                f"dropped column {name!r}: it is text, and no word comes {options.min_count} times or more"
            )
        operation = replace(operation, terms=kept)
    if options.tfidf:
        operation = _weighted(operation, texts, rows, count)
    empty = f", {missing:,} of them missing and taken as empty" if missing else ""
    return operation, f"text     {operation}; {tokens:,} tokens in {count:,} rows{empty}"


def _few_tokens(texts: pa.ChunkedArray, count: int) -> bool:
    sample = [text or "" for text in _sample(texts)]
    tokens = sum(len(tokenise(text)) for text in sample)
    return tokens * count <= _FEW_TOKENS * max(1, len(sample))


def _count(
    texts: pa.ChunkedArray, rows: NDArray[np.integer] | None, operation: TextColumn
) -> tuple[Counter[str], int, int]:
    """Return how often each term comes, the number of tokens and that of missing documents."""
    counts: Counter[str] = Counter()
    tokens, missing, rarest = 0, 0, 0
    grams = (1, None) if operation.buckets else operation.grams
    for documents in _documents(texts, rows, "building a vocabulary"):
        missing += sum(text is None for text in documents)
        found = find_terms([text or "" for text in documents], *grams)
        times = np.bincount(found.documents.values, minlength=len(found.names))
        tokens += int(times[: found.words].sum())
        if not operation.buckets:
            counts.update(dict(zip(found.names, times.tolist(), strict=True)))
        while len(counts) > _MOST_COUNTED:
            rarest += 1
            counts = Counter({term: times for term, times in counts.items() if times > rarest})
    return counts, tokens, missing


def _weighted(
    operation: TextColumn, texts: pa.ChunkedArray, rows: NDArray[np.integer] | None, count: int
) -> TextColumn:
    """Return the operation with the number of training documents that hold each entry."""
    holding = np.zeros(operation.size, np.int64)
    for documents in _documents(texts, rows, "weighting terms"):
        ids = _ids(operation, find_terms([text or "" for text in documents], *operation.grams))
        holding += np.bincount(
            np.unique(_pairs(ids, operation.size)) % operation.size, minlength=len(holding)
        )
    return replace(operation, documents=count, counts=tuple(holding.tolist()))


def as_texts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as texts: what is text in one file may be read as numbers in another."""
    column_kind(name, column.type)  # raises for what is neither a number nor a text
    try:
        # One chunk, for `take` would join several anew at each call.
        return pa.chunked_array([column.cast(pa.large_string()).combine_chunks()])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"column {name!r} cannot be read as text: {str(error)[:160]}") from None


def _documents(
    texts: pa.ChunkedArray, rows: NDArray[np.integer] | None, what: str
) -> Iterator[list[str | None]]:
    """Yield the rows' texts, a stretch at a time; `what` says to a listener what is done with them."""
    count = len(texts) if rows is None else len(rows)
    with working(what, count, "rows") as work:
        for first in range(0, count, _ROWS_AT_ONCE):
            if rows is None:
                found = texts.slice(first, _ROWS_AT_ONCE)
            else:
                found = texts.take(arrow_array(rows[first : first + _ROWS_AT_ONCE]))
            yield found.to_pylist()
            work.advance(len(found))


def encode_texts(
    operation: TextColumn, column: pa.ChunkedArray, rows: NDArray[np.integer] | None, dtype: np.dtype
) -> Bags:
    """Return a bag of ids for each row.

    A word that has no entry of its own has the first, 0; an n-gram that has none is left out. With TF-IDF
    each id comes once in a bag, with its weight: how often it comes times ``ln((1 + n) / (1 + d)) + 1``,
    where d of the n training documents hold it; a bag's weights are scaled to length 1, as scikit-learn's.
    """
    ids, lengths, weights = [np.empty(0, np.int32)], [np.empty(0, np.int64)], [np.empty(0, dtype)]
    for documents in _documents(as_texts(operation.column, column), rows, "encoding texts"):
        found = _ids(operation, find_terms([text or "" for text in documents], *operation.grams))
        if operation.inverse_frequencies is not None:
            found, weight = _tfidf(found, operation.size, operation.inverse_frequencies)
            weights.append(weight.astype(dtype))
        ids.append(found.values.astype(np.int32))
        lengths.append(found.lengths)
    starts = starts_of(np.concatenate(lengths))
    weighted = operation.inverse_frequencies is not None
    return Bags(np.concatenate(ids), starts, operation.size, np.concatenate(weights) if weighted else None)


def _ids(operation: TextColumn, terms: Terms) -> Ragged:
    """Return each document's entries of the table."""
    places = term_rows(operation, terms.names, terms.words)
    ids = Ragged(places[terms.documents.values], terms.documents.starts)
    return ids.only(ids.values >= 0)


def term_rows(operation: TextColumn, names: Sequence[str], words: int) -> NDArray[np.int64]:
    """Return the row of the embedding's table that each term has, -1 where an n-gram has none.

    Parameters
    ----------
    operation : TextColumn
    names : sequence of str
        Terms as `find_terms` names them.
    words : int
        How many of them, at the beginning, are words: one that has no row of its own has row 0.
    """
    if operation.buckets:
        return fnv1a(names).astype(np.int64) % operation.buckets
    found = operation.places
    rows = [found.get(name, 0) for name in names[:words]]
    return np.array(rows + [found.get(name, -1) for name in names[words:]], np.int64)


def _pairs(ids: Ragged, size: int) -> NDArray[np.int64]:
    """Return a number for each row and id."""
    return ids.rows * size + ids.values


def _tfidf(
    ids: Ragged, size: int, inverse_frequencies: NDArray[np.float64]
) -> tuple[Ragged, NDArray[np.float64]]:
    """Return the distinct ids of each row, ascending, and their weights."""
    distinct, times = np.unique(_pairs(ids, size), return_counts=True)
    rows, values = np.divmod(distinct, size)
    weights = times * inverse_frequencies[values]
    count = len(ids.starts) - 1
    lengths = np.sqrt(np.bincount(rows, weights**2, minlength=count))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
    return Ragged(values, starts), weights / lengths[rows]
