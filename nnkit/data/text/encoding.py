"""Columns of text: which columns are text, the vocabulary of the training rows, documents as bags of ids.

Order: free text recognised, the vocabulary, documents encoded, a hash of terms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nnkit.data.operations import Rows, TextColumn
from nnkit.data.tables.arrow import arrow_array
from nnkit.data.tables.columns import column_kind
from nnkit.data.text.options import TextOptions
from nnkit.data.text.terms import Ragged, Terms, find_terms, starts_of
from nnkit.data.text.tokens import tokenise
from nnkit.errors import DataError
from nnkit.feed.features import Bags
from nnkit.working import working

__all__ = ["as_texts", "encode_texts", "fit_texts", "fnv1a", "is_free_text", "term_rows"]

_SAMPLED_ROWS = 2000
_SEVERAL_WORDS = 3
# By default, character n-grams are used up to this number of tokens. They make about six times as many terms
# of a document, and with many documents the words alone are as good.
_FEW_TOKENS = 2_000_000
_AUTOMATIC_LENGTHS = (3, 5)
_ROWS_AT_ONCE = 4096
_BEGINNING = 1000  # the characters of a text whose words are counted
# The maximum number of distinct terms that are counted, about a gigabyte; beyond it, the rarest are dropped.
_MOST_COUNTED = 5_000_000
_OFFSET_BASIS, _PRIME = 2166136261, 16777619
# Longer texts are hashed one by one: in one array, all would be as wide as the longest.
_LONGEST_TOGETHER = 64


def is_free_text(sample: Iterable[str]) -> bool:
    """Tell whether texts are free text rather than categories or identifiers.

    They are if more than half are distinct and at least half of these have three words or more.
    """
    texts = list(sample)
    distinct = set(texts)
    if 2 * len(distinct) <= len(texts):
        return False
    # Without a space, a text is an identifier such as 10.0.0.1 or a URL, unless it is Chinese or Japanese.
    candidates = [text for text in distinct if " " in text.strip() or not text.isascii()]
    words = (sum(token[0].isalnum() for token in tokenise(text[:_BEGINNING])) for text in candidates)
    several = sum(count >= _SEVERAL_WORDS for count in words)
    return 2 * several >= len(distinct)


def fit_texts(
    name: str, column: pa.ChunkedArray, rows: Rows, options: TextOptions
) -> tuple[TextColumn | None, str]:
    """Return a text column's operation (None where no term is frequent enough) and a note for the user."""
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
                f"dropped column {name!r}: it is text, and no word occurs {options.min_count} times or more"
            )
        operation = replace(operation, terms=kept)
    if options.tfidf:
        operation = _with_document_counts(operation, texts, rows, count)
    empty = f", {missing:,} of them missing and taken as empty" if missing else ""
    return operation, f"text     {operation}; {tokens:,} tokens in {count:,} rows{empty}"


def _few_tokens(texts: pa.ChunkedArray, count: int) -> bool:
    """Tell by up to 2,000 rows, evenly spaced, whether `count` rows have few tokens."""
    rows = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _SAMPLED_ROWS)).astype(np.int64))
    sample = [text or "" for text in texts.take(arrow_array(rows)).to_pylist()]
    tokens = sum(len(tokenise(text)) for text in sample)
    return tokens * count <= _FEW_TOKENS * max(1, len(sample))


def _count(texts: pa.ChunkedArray, rows: Rows, operation: TextColumn) -> tuple[Counter[str], int, int]:
    """Return the count of each term, and the numbers of tokens and of missing documents."""
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


def _with_document_counts(
    operation: TextColumn, texts: pa.ChunkedArray, rows: Rows, count: int
) -> TextColumn:
    """Return the operation with the number of training documents that contain each term."""
    document_counts = np.zeros(operation.size, np.int64)
    for documents in _documents(texts, rows, "weighting terms"):
        ids = _ids(operation, find_terms([text or "" for text in documents], *operation.grams))
        distinct = np.unique(_row_id_keys(ids, operation.size)) % operation.size
        document_counts += np.bincount(distinct, minlength=len(document_counts))
    return replace(operation, documents=count, counts=tuple(document_counts.tolist()))


def as_texts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as texts: another file may hold numbers where the training had texts."""
    column_kind(name, column.type)  # raises for what is neither a number nor a text
    try:
        # One chunk, for `take` would join several at each call.
        return pa.chunked_array([column.cast(pa.large_string()).combine_chunks()])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"column {name!r} cannot be read as text: {str(error)[:160]}") from None


def _documents(texts: pa.ChunkedArray, rows: Rows, what: str) -> Iterator[list[str | None]]:
    """Yield the rows' texts in batches; `what` is the work as it is shown to the user."""
    count = len(texts) if rows is None else len(rows)
    with working(what, count, "rows") as work:
        for first in range(0, count, _ROWS_AT_ONCE):
            if rows is None:
                found = texts.slice(first, _ROWS_AT_ONCE)
            else:
                found = texts.take(arrow_array(rows[first : first + _ROWS_AT_ONCE]))
            yield found.to_pylist()
            work.advance(len(found))


def encode_texts(operation: TextColumn, column: pa.ChunkedArray, rows: Rows, dtype: np.dtype) -> Bags:
    """Return a bag of ids for each row.

    A word outside the vocabulary gets the id 0; a character n-gram outside it gets none. With TF-IDF, each
    distinct id occurs once in a bag, with a weight: its count times ``ln((1 + n) / (1 + d)) + 1``, where d of
    the n training documents contain it. As in scikit-learn, a bag's weights have a Euclidean norm of 1.
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
    """Return the ids of each document's terms, without those of n-grams outside the vocabulary."""
    places = term_rows(operation, terms.names, terms.words)
    ids = Ragged(places[terms.documents.values], terms.documents.starts)
    return ids.only(ids.values >= 0)


def term_rows(operation: TextColumn, names: Sequence[str], words: int) -> NDArray[np.int64]:
    """Return the row of the embedding's table for each term, -1 for an n-gram outside the vocabulary.

    The terms are named as by `find_terms`, the first `words` of them are words, and a word outside the
    vocabulary has row 0.
    """
    if operation.buckets:
        return fnv1a(names).astype(np.int64) % operation.buckets
    found = operation.places
    rows = [found.get(name, 0) for name in names[:words]]
    return np.array(rows + [found.get(name, -1) for name in names[words:]], np.int64)


def _row_id_keys(ids: Ragged, size: int) -> NDArray[np.int64]:
    """Return a key for each entry, equal for equal pairs of row and id: row · size + id."""
    return ids.rows * size + ids.values


def _tfidf(
    ids: Ragged, size: int, inverse_frequencies: NDArray[np.float64]
) -> tuple[Ragged, NDArray[np.float64]]:
    """Return the distinct ids of each row, ascending, and their weights."""
    distinct, times = np.unique(_row_id_keys(ids, size), return_counts=True)
    rows, values = np.divmod(distinct, size)
    weights = times * inverse_frequencies[values]
    count = len(ids.starts) - 1
    lengths = np.sqrt(np.bincount(rows, weights**2, minlength=count))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
    return Ragged(values, starts), weights / lengths[rows]


def fnv1a(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return the 32-bit FNV-1a hash of each text's UTF-8 bytes, shape (texts,).

    The hash begins at 2166136261; each byte is XORed into it, and it is multiplied by 16777619, modulo 2³².
    G. Fowler, L. C. Noll, K.-P. Vo, D. Eastlake, "The FNV Non-Cryptographic Hash Algorithm" (RFC 9923).
    """
    encoded = [text.encode() for text in texts]
    lengths = np.array([len(data) for data in encoded], np.int64)
    hashes = np.full(len(encoded), _OFFSET_BASIS, np.uint32)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] <= _LONGEST_TOGETHER]
    for place in np.flatnonzero(lengths > _LONGEST_TOGETHER).tolist():
        hashes[place] = _hash_of(encoded[place])
    if len(order) == 0:
        return hashes
    widest = int(lengths[order[0]])
    together = b"".join(encoded[place].ljust(widest, b"\0") for place in order.tolist())
    columns = np.frombuffer(together, np.uint8).reshape(len(order), widest)
    found, prime = hashes[order], np.uint32(_PRIME)
    # The texts are in order from the longest to the shortest: the first `count` have a byte in a column.
    counts = np.searchsorted(-lengths[order], -np.arange(widest), side="left")
    for column, count in enumerate(counts.tolist()):
        found[:count] = (found[:count] ^ columns[:count, column]) * prime
    hashes[order] = found
    return hashes


def _hash_of(data: bytes) -> int:
    value = _OFFSET_BASIS
    for byte in data:
        value = (value ^ byte) * _PRIME & 0xFFFFFFFF
    return value
