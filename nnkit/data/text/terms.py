"""The terms of documents: words, and optionally word and character n-grams.

Terms are numbered, and only the distinct ones are handled as texts: a word that comes a thousand times in a
batch of documents is looked up, hashed or cut into character n-grams once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.data.text.tokens import tokenise

__all__ = ["Ragged", "Terms", "chained", "find_terms", "starts_of", "terms_of_tokens"]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of whole numbers: their entries, row by row, and where each row begins and the last ends."""

    values: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of entries of each row, shape (rows,)."""
        return np.diff(self.starts)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each entry, shape (entries,)."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)

    def only(self, kept: NDArray[np.bool_]) -> Ragged:
        """Return the rows with only the entries that have the flag True."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return Ragged(self.values[kept], before[self.starts])

    def replaced(self, rows: Ragged) -> Ragged:
        """Return each entry v replaced by all entries of ``rows``' row v."""
        lengths = rows.lengths[self.values]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(ends[-1]) + np.repeat(rows.starts[:-1][self.values] - ends[:-1], lengths)
        return Ragged(rows.values[places], ends[self.starts])


def starts_of(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return where rows of these lengths begin, and where the last ends."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))])


def chained(parts: Sequence[Ragged]) -> Ragged:
    """Return rows with the entries of the first part's row, then of the second's, and so on."""
    if len(parts) == 1:
        return parts[0]
    starts = np.sum([part.starts for part in parts], axis=0)
    values = np.empty(int(starts[-1]), np.int64)
    places = starts[:-1].copy()
    for part in parts:
        values[np.arange(len(part.values)) + np.repeat(places - part.starts[:-1], part.lengths)] = part.values
        places += part.lengths
    return Ragged(values, starts)


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of some documents."""

    # The distinct terms, words first. The words of a word n-gram are separated by a space, and a character
    # n-gram begins with one.
    names: list[str]
    words: int  # the number of words among them
    documents: (
        Ragged  # each document's terms as places in `names`: its words in their order, then its n-grams
    )


def find_terms(texts: Sequence[str], word_ngrams: int, char_ngrams: tuple[int, int] | None) -> Terms:
    """Return the terms of documents.

    `word_ngrams` is the most words in sequence that make a term, 1 for words alone. `char_ngrams` are the
    shortest and the longest character n-gram of a token between the signs < and >, as in P. Bojanowski et al.
    2017, "Enriching word vectors with subword information"; neither of these signs alone makes a term.
    """
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    codes, lengths = [], []
    for text in texts:
        tokens = tokenise(text)
        lengths.append(len(tokens))
        codes.append(np.fromiter(map(numbers.__getitem__, tokens), np.int64, len(tokens)))
    words = Ragged(np.concatenate([np.empty(0, np.int64), *codes]), starts_of(lengths))
    parts, names = [words], list(numbers)
    if word_ngrams > 1:
        _add_word_ngrams(words, word_ngrams, names, parts)
    if char_ngrams is not None:
        _add_char_ngrams(words, list(numbers), char_ngrams, names, parts)
    return Terms(names, len(numbers), chained(parts))


def terms_of_tokens(
    tokens: Sequence[str], word_ngrams: int, char_ngrams: tuple[int, int] | None
) -> list[tuple[str, int, int]]:
    """Return one document's terms: name, place of the first token, number of tokens; words come first."""
    places = range(len(tokens))
    found = [
        (" ".join(tokens[first : first + length]), first, length)
        for length in range(1, word_ngrams + 1)
        for first in range(len(tokens) - length + 1)
    ]
    if char_ngrams is None:
        return found
    return found + [
        (gram, place, 1) for place in places for gram in _char_ngrams(tokens[place], *char_ngrams)
    ]


def _add_word_ngrams(words: Ragged, longest: int, names: list[str], parts: list[Ragged]) -> None:
    """Add word n-grams to the names and the parts; each is an n-gram that is a word shorter, and a word."""
    distinct, place = names.copy(), np.arange(len(words.values)) - words.starts[words.rows]
    shorter, ending = distinct, words.values  # the shorter one's number that ends at each word
    for length in range(2, longest + 1):
        whole = place >= length - 1
        last = np.flatnonzero(whole)
        pairs = ending[last - 1] * len(distinct) + words.values[last]
        found, numbers = np.unique(pairs, return_inverse=True)
        heads, tails = (part.tolist() for part in np.divmod(found, max(1, len(distinct))))
        shorter = [f"{shorter[head]} {distinct[tail]}" for head, tail in zip(heads, tails, strict=True)]
        ending = np.zeros_like(words.values)
        ending[last] = numbers
        parts.append(Ragged(numbers + len(names), words.only(whole).starts))
        names += shorter


def _add_char_ngrams(
    words: Ragged, distinct: list[str], lengths: tuple[int, int], names: list[str], parts: list[Ragged]
) -> None:
    """Add character n-grams to the names and the parts; each distinct word is cut once."""
    numbers: defaultdict[str, int] = defaultdict(count(len(names)).__next__)
    cut = [[numbers[gram] for gram in _char_ngrams(word, *lengths)] for word in distinct]
    values = np.array([number for grams in cut for number in grams], np.int64)
    parts.append(words.replaced(Ragged(values, starts_of([len(grams) for grams in cut]))))
    names += numbers


def _char_ngrams(word: str, shortest: int, longest: int) -> list[str]:
    padded = f"<{word}>"
    return [
        f" {padded[first : first + length]}"
        for length in range(shortest, longest + 1)
        for first in range(length == 1, len(padded) - length + 1 - (length == 1))
    ]
