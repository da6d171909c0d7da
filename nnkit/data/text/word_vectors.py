"""Read word vectors in the text format of word2vec or GloVe, for the words of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnkit.data.files.text import UNREADABLE, open_text, unreadable
from nnkit.data.targets.values import is_number
from nnkit.errors import DataError

__all__ = ["WordVectors", "read_word_vectors"]

_WIDEST = 2**16
_LONGEST_LINE = 2**22


@dataclass(frozen=True, eq=False)
class WordVectors:
    """The places of the terms that were found, shape (found,), and their vectors, shape (found, width)."""

    places: NDArray[np.int64]
    vectors: NDArray[np.float32]

    @property
    def width(self) -> int:
        """The length of a vector."""
        return int(self.vectors.shape[1])


def read_word_vectors(path: Path, terms: Sequence[str]) -> WordVectors:
    """Read the vectors of the terms that a file has; the file may be compressed.

    A line is a word and its numbers, separated by spaces; word2vec's first line counts words and numbers. A
    word in the spelling of the term has precedence over one that becomes the term in lower case, and among
    equal words the first. Every line must have as many finite numbers as the first; of other words, only the
    number of parts is checked.
    """
    wanted = {term: place for place, term in enumerate(terms)}
    found: dict[int, tuple[bool, NDArray[np.float32]]] = {}
    width = 0
    for number, line in _lines(path):
        if number == 1 and len(counts := line.split()) == 2 and all(part.isdigit() for part in counts):
            continue  # word2vec's first line
        width = width or line.count(b" ")
        if not 0 < width <= _WIDEST:
            raise _malformed(path, number, "it is not a word followed by numbers")
        parts = line.rsplit(b" ", width)
        if len(parts) != width + 1 or b"" in parts:
            raise _malformed(path, number, f"expected a word and {width} numbers, as in the first line")
        word = parts[0].decode("utf-8", "replace")
        exact = word in wanted
        place = wanted.get(word if exact else word.lower())
        if place is None or (place in found and (found[place][0] or not exact)):
            continue
        found[place] = exact, _numbers(path, number, parts[1:])
    if width == 0:
        raise DataError(f"{path}: there is no vector in the file")
    places = sorted(found)
    vectors = np.array([found[place][1] for place in places], np.float32).reshape(len(places), width)
    return WordVectors(np.array(places, np.int64), vectors)


def _numbers(path: Path, number: int, parts: list[bytes]) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            values = np.array([float(part) for part in parts]).astype(np.float32)
    except ValueError:
        wrong = next(part for part in parts if not is_number(part))
        shown = wrong[:40].decode("utf-8", "replace")
        raise _malformed(path, number, f"{shown!r} stands where a number is expected") from None
    if not np.isfinite(values).all():
        raise _malformed(path, number, "it holds a number that is not finite")
    return values


def _malformed(path: Path, number: int, what: str) -> DataError:
    return DataError(
        f"{path}, line {number}: {what}: give word vectors in word2vec's or GloVe's text format, "
        "or correct the line"
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold something, with their numbers from 1."""
    try:
        with open_text(path) as stream:
            number = 0
            while line := stream.readline(_LONGEST_LINE):
                number += 1
                if b"\0" in line or len(line) == _LONGEST_LINE:
                    raise _malformed(path, number, "it is not text (or is word2vec's binary format)")
                line = line.strip(b" \t\r\n").replace(b"\t", b" ")
                if line:
                    yield number, line
    except UNREADABLE as error:
        raise unreadable(path, error) from None
