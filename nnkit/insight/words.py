"""The contribution of each word of a text: each of its terms' is divided among the words it covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnkit.data.operations import TextColumn
from nnkit.data.text.encoding import term_rows
from nnkit.data.text.terms import terms_of_tokens
from nnkit.data.text.tokens import located_tokens

__all__ = ["ExplainedText", "Word", "explained_text"]


@dataclass(frozen=True)
class Word:
    """A word or sign of a text, and its contribution."""

    text: str
    start: int  # its place in the text
    contribution: float


@dataclass(frozen=True)
class ExplainedText:
    """A text, and its words in their order; their contributions add up to that of the column."""

    text: str
    words: tuple[Word, ...]

    def by_word(self) -> list[tuple[str, float]]:
        """Return each distinct word, in lower case, with its summed contribution, the largest first."""
        sums: dict[str, float] = {}
        for word in self.words:
            name = word.text.lower()
            sums[name] = sums.get(name, 0.0) + word.contribution
        return sorted(sums.items(), key=lambda pair: -abs(pair[1]))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the words in their order as JSON values."""
        return [{"word": word.text, "contribution": word.contribution} for word in self.words]


def explained_text(operation: TextColumn, text: str, contributions: Mapping[int, float]) -> ExplainedText:
    """Return the contribution of each word of a text.

    A term's contribution is divided equally among its occurrences in the text, and that of an occurrence
    among the words it covers: a character n-gram covers one word, a word bigram two.

    `contributions` are by the term's row of the embedding's table, as `embedded_terms` returns them.
    """
    stretches = located_tokens(text)
    tokens = [token for group, _, _ in stretches for token in group]
    terms = terms_of_tokens(tokens, *operation.grams)
    rows = term_rows(operation, [name for name, _, _ in terms], len(tokens)).tolist()
    occurrences = Counter(rows)
    values = [0.0] * len(tokens)
    for row, (_, first, count) in zip(rows, terms, strict=True):
        for place in range(first, first + count):
            values[place] += contributions.get(row, 0.0) / (occurrences[row] * count)
    words, place = [], 0
    for group, start, end in stretches:
        if group:
            words.append(Word(text[start:end], start, sum(values[place : place + len(group)])))
        place += len(group)
    return ExplainedText(text, tuple(words))
