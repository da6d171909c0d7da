"""Options of learning from columns of text, in a file that does not import pyarrow."""

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
    """How columns of text are learnt from."""

    columns: tuple[str, ...] | None = None  # without them, the columns of text by the table's schema
    word_ngrams: int = 2  # the most words in sequence that make a term
    # The shortest and the longest run of characters in a word that makes a term; "auto" takes 3 and 5 for up
    # to about two million tokens, and else none.
    char_ngrams: tuple[int, int] | Literal["auto"] | None = "auto"
    min_count: int = 2  # how often a term must come in the training rows to be in the vocabulary
    vocabulary_size: int = 100_000  # the most terms, which are the most frequent ones
    hashing: int = 0  # the number of buckets that terms are hashed into, instead of a vocabulary
    tfidf: bool = False  # whether a document's terms are weighted by TF-IDF
