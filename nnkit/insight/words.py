"""What the words of a text contribute: the contributions of its terms, each dealt to the words it covers."""

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
    """A word of a text, or a sign, and what it contributes.

    Parameters
    ----------
    text : str
        As it is written.
    start : int
        Where it begins in the text.
    contribution : float
    """

    text: str
    start: int
    contribution: float


@dataclass(frozen=True)
class ExplainedText:
    """A text, and its words in their order; their contributions add up to that of the column."""

    text: str
    words: tuple[Word, ...]

    def by_word(self) -> list[tuple[str, float]]:
        """Return each distinct word, in lower case, with its contributions added up, the greatest first."""
        sums: dict[str, float] = {}
        for word in self.words:
            name = word.text.lower()
            sums[name] = sums.get(name, 0.0) + word.contribution
        return sorted(sums.items(), key=lambda pair: -abs(pair[1]))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the words in their order as JSON values."""
        return [{"word": word.text, "contribution": word.contribution} for word in self.words]


def explained_text(operation: TextColumn, text: str, contributions: Mapping[int, float]) -> ExplainedText:
    """Return what each word of a text contributes.

    A term's contribution is divided equally among its occurrences in the text, and that of an occurrence
    among the words it covers: a character n-gram is of one word, a word bigram of two.

    Parameters
    ----------
    operation : TextColumn
        How the text becomes terms.
    text : str
    contributions : mapping of int to float
        By the term's row of the embedding's table, as `nnkit.insight.columns.embedded_terms` returns them.
    """
    stretches = located_tokens(text)
    tokens = [token for group, _, _ in stretches for token in group]
    terms = terms_of_tokens(tokens, *operation.grams)
    rows = term_rows(operation, [name for name, _, _ in terms], len(tokens)).tolist()
    occurrences = Counter(rows)
    values = [0.0] * len(tokens)
    for row, (_, first, count) in zip(rows, terms, strict=True):
        if row in contributions:
            for place in range(first, first + count):
                values[place] += contributions[row] / (occurrences[row] * count)
    words, place = [], 0
    for group, start, end in stretches:
        value = sum(values[place : place + len(group)])
        place += len(group)
        if group:
            words.append(Word(text[start:end], start, value))
    return ExplainedText(text, tuple(words))
