"""How columns of text are learnt from; apart from what reads them, which imports pyarrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MOST_CHARACTERS", "MOST_WORDS", "TextOptions"]

MOST_WORDS = 5
"""The longest word n-gram."""
MOST_CHARACTERS = 10
"""The longest character n-gram."""


@dataclass(frozen=True)
class TextOptions:
    """How columns of text are learnt from.

    Parameters
    ----------
    columns : tuple of str, optional
        Those that are text; without it, those that the table's schema calls so.
    word_ngrams : int
        Up to how many words that follow one another make a term.
    char_ngrams : (int, int), "auto", or None
        The shortest and the longest run of characters in a word that makes a term; "auto" takes 3 and 5 for
        up to about two million tokens, and else none.
    min_count : int
        How often a term must come in the training rows to have an entry of its own in the vocabulary.
    vocabulary_size : int
        The most entries; the most frequent terms have them.
    hashing : int
        Instead of a vocabulary, so many buckets that terms are hashed into; 0 for a vocabulary.
    tfidf : bool
        Whether a document's terms are weighted by TF-IDF.
    """

    columns: tuple[str, ...] | None = None
    word_ngrams: int = 2
    char_ngrams: tuple[int, int] | Literal["auto"] | None = "auto"
    min_count: int = 2
    vocabulary_size: int = 100_000
    hashing: int = 0
    tfidf: bool = False
