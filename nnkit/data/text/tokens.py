"""Split texts into tokens: words, single characters of scripts without spaces, and signs."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import groupby

__all__ = ["located_tokens", "tokenise"]

_WORD_OR_SIGN = r"{word}+(?:'{word}+)*|!+|\?+|\.+|[^\w\s]"
_PLAIN = re.compile(_WORD_OR_SIGN.format(word=r"\w"))
# Chinese characters, their extensions and the Japanese syllabaries: no space divides their words.
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# Hidden signs that join emoji or letters, mark a direction or a byte order, or choose how a sign is drawn.
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]")
_FIRST_MARK, _LAST_MARK = 0x300, 0x1EFFF


def tokenise(text: str) -> list[str]:
    """Return the tokens of a text, in their order.

    The text is brought to lower case (`str.lower`) and to the composed form NFC, and ’ becomes '. A token is
    then

    - a word: letters, digits, underscores (Python's ``\\w``) and the marks that stand above, below or beside
      letters (Unicode's category M), and an apostrophe between two of them: ``don't``;
    - one character of Chinese or of the Japanese syllabaries, which write no spaces between words;
    - a run of one of the signs ``! ? .``; or
    - any other sign that is no space, alone: ``£``, ``😀``.

    Signs that are not seen (joiners, directions, variation selectors, soft hyphens) are left out, so that a
    sequence of joined emoji gives its parts.
    """
    if text.isascii():
        return _PLAIN.findall(text.lower())
    text = _HIDDEN.sub("", unicodedata.normalize("NFC", text.lower())).replace("’", "'")
    text = _UNSPACED.sub(r" \g<0> ", text)
    pattern = _with_marks() if _marks().search(text) else _PLAIN
    return pattern.findall(text)


def located_tokens(text: str) -> list[tuple[list[str], int, int]]:
    """Return the tokens of a text with the beginning and the end of the part in which each is written.

    A part has several tokens where its characters are not those of the tokens, such as an accent that stands
    after its letter.
    """
    found: list[tuple[list[str], int, int]] = []
    # No token crosses a space, so that each part between spaces can be split alone.
    for part in re.finditer(r"\S+", text):
        tokens, begin = tokenise(part[0]), part.start()
        ends = _ends(tokens, part[0])
        if ends is None:
            found.append((tokens, begin, part.end()))
        else:
            pairs = zip(tokens, ends, strict=True)
            found += [([token], begin + end - len(token), begin + end) for token, end in pairs]
    return found


def _ends(tokens: list[str], part: str) -> list[int] | None:
    """Return where each token ends in a part of a text; None where a token is not found as it is."""
    lowered, ends, end = part.lower().replace("’", "'"), [], 0
    for token in tokens:
        begin = lowered.find(token, end)
        if begin < 0 or len(lowered) != len(part):
            return None
        end = begin + len(token)
        ends.append(end)
    return ends


@cache
def _mark_ranges() -> str:
    """Return the characters of Unicode's category M as the inside of a regular expression's set (40 ms)."""
    marks = [code for code in range(_FIRST_MARK, _LAST_MARK) if unicodedata.category(chr(code))[0] == "M"]
    runs = [list(run) for _, run in groupby(enumerate(marks), lambda pair: pair[1] - pair[0])]
    return "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)


@cache
def _marks() -> re.Pattern[str]:
    return re.compile(f"[{_mark_ranges()}]")


@cache
def _with_marks() -> re.Pattern[str]:
    return re.compile(_WORD_OR_SIGN.format(word=rf"[\w{_mark_ranges()}]"))
