"""What a document is learnt from: its words, and if asked its word and character n-grams.

Terms are numbered, and only the distinct ones are handled as texts: of a stretch of documents a word that
comes a thousand times is looked up, hashed or cut into character n-grams once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from nnkit.data.text.ragged import Ragged, chained, starts_of
from nnkit.data.text.tokens import tokenise

__all__ = ["Terms", "find_terms", "terms_of_tokens"]


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of some documents.

    Parameters
    ----------
    names : list of str
        The distinct terms. Words come first; a word n-gram's words are divided by a space, and a character
        n-gram begins with one.
    words : int
        How many of them are words.
    documents : Ragged
        Each document's terms, as numbers of `names`: its words in their order, then its n-grams.
    """

    names: list[str]
    words: int
    documents: Ragged


def find_terms(texts: Sequence[str], word_ngrams: int, char_ngrams: tuple[int, int] | None) -> Terms:
    """Return the terms of documents.

    Parameters
    ----------
    texts : sequence of str
        The documents.
    word_ngrams : int
        Up to how many words that follow one another make a term; 1 for words alone.
    char_ngrams : (int, int), optional
        The shortest and the longest run of characters that makes a term, of each token between the signs <
        and >, as in P. Bojanowski et al. 2017, "Enriching word vectors with subword information". Neither of
        these signs alone makes a term.
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
    """Return the terms of one document with the tokens that each covers; arguments as for `find_terms`.

    Returns
    -------
    list of (str, int, int)
        A term's name, the place of the first token that it covers, and how many it covers. Words come first.
    """
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
    """Add to the names and the parts: each n-gram is one that is a word shorter, and a word."""
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
    """Add to the names and the parts, cutting each distinct word once."""
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
