"""Arrow arrays from and to NumPy, and of a few texts; pyarrow's own ways import pandas (0.6 s)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = [
    "arrow_array",
    "null_of",
    "nulled",
    "numpy_array",
    "text_array",
    "text_bytes",
    "text_scalar",
    "without_words",
]


def arrow_array(values: NDArray) -> pa.Array:
    """Wrap plain numbers without a copy; `pa.array` would import pandas (0.6 s)."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def numpy_array(column: pa.Array | pa.ChunkedArray) -> NDArray:
    """Return plain numbers or booleans, not masking the missing.

    `to_numpy` would import pandas, and so would `to_pandas_dtype` before pyarrow 26.
    """
    if pa.types.is_boolean(column.type):
        return numpy_array(column.cast(pa.uint8())).view(np.bool_)
    types = pa.types
    kind = "f" if types.is_floating(column.type) else "u" if types.is_unsigned_integer(column.type) else "i"
    dtype = np.dtype(f"{kind}{column.type.bit_width // 8}")
    parts = [np.empty(0, dtype)]
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        data = chunk.buffers()[1]
        if data is None:
            parts.append(np.zeros(len(chunk), dtype))
        else:
            parts.append(np.frombuffer(data, dtype, len(chunk), chunk.offset * dtype.itemsize))
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def null_of(type_: pa.DataType) -> pa.Scalar:
    """Return a null; `pa.scalar` would import pandas."""
    return pa.nulls(1, type_)[0]


def text_array(texts: Sequence[str], type_: pa.DataType | None = None) -> pa.Array:
    """Return texts as an Arrow array; `pa.array` would import pandas."""
    data = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, data)], dtype=np.int32)
    made = pa.Array.from_buffers(
        pa.string(), len(data), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(data))]
    )
    return made if type_ is None else made.cast(type_)


def text_scalar(text: str, type_: pa.DataType | None = None) -> pa.Scalar:
    """Return a text as an Arrow scalar."""
    return text_array([text], type_)[0]


def text_bytes(column: pa.ChunkedArray) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.integer]]]:
    """Yield the bytes of each chunk's texts, all together, and where each text begins and the last ends."""
    for chunk in column.drop_null().chunks if column.null_count else column.chunks:
        _, offsets, data = chunk.buffers()
        if data is not None:
            dtype = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
            ends = np.frombuffer(offsets, dtype, len(chunk) + 1, chunk.offset * np.dtype(dtype).itemsize)
            yield np.frombuffer(data, np.uint8)[ends[0] : ends[-1]], ends - ends[0]


def nulled(values: pa.Array, fits: NDArray[np.bool_]) -> pa.Array:
    """Return values with a null where one does not fit."""
    return pc.if_else(arrow_array(fits.view(np.uint8)).cast(pa.bool_()), values, null_of(values.type))


def without_words(column: pa.ChunkedArray, words: pa.Array) -> tuple[pa.ChunkedArray, pa.Array] | None:
    """Return a column of numbers, written out, with nulls in place of words, and the texts that are null now.

    Only cells that do not begin as a number are looked at, and no text is copied. None where one of them is
    neither blank nor among the words, or too many are there for this to be cheaper.
    """
    parts, found = [], []
    for chunk in column.chunks:
        validity, offsets, data = chunk.buffers()
        if validity is not None and chunk.null_count:
            return None
        size = 8 if pa.types.is_large_string(chunk.type) else 4
        ends = np.frombuffer(offsets, f"i{size}", len(chunk) + 1, chunk.offset * size)
        letters = np.frombuffer(data, np.uint8) if data is not None and len(data) else np.zeros(1, np.uint8)
        first = letters[np.minimum(ends[:-1], len(letters) - 1)]
        odd = (ends[1:] == ends[:-1]) | ~_BEGINS[first]
        places = np.flatnonzero(odd)
        if 2 * len(places) > len(chunk):
            return None
        texts = pc.utf8_trim_whitespace(chunk.take(arrow_array(places)))
        blank = pc.equal(texts, text_scalar("", texts.type))
        if not pc.all(pc.or_(pc.is_in(texts, words), blank)).as_py():
            return None
        found.append(texts)
        valid = pa.py_buffer(np.packbits(~odd, bitorder="little"))
        buffers = [valid, offsets.slice(chunk.offset * size), data]
        parts.append(pa.Array.from_buffers(chunk.type, len(chunk), buffers, len(places)))
    if not parts:
        return None
    return pa.chunked_array(parts), pa.concat_arrays(found)


_BEGINS = np.isin(np.arange(256), np.frombuffer(b"0123456789+-.", np.uint8))
