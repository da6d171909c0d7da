"""A tokenizer for an exported model with text: one file of Python without nnkit, and its vocabulary."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from nnkit.data.operations import TextColumn
from nnkit.data.text import terms, tokens

__all__ = ["tokenizer_files"]

_END = '''

def _fnv1a(text):
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def encode(column, texts):
    """Return the inputs of the graph for a column's texts, by name: arrays of ids, starts and weights."""
    import numpy as np

    about = COLUMNS[column]
    rows, chars = about["rows"], about["char_ngrams"]
    ids, starts, weights = [], [0], []
    for text in texts:
        found = terms_of_tokens(tokenise(text or ""), about["word_ngrams"], tuple(chars) if chars else None)
        if about["buckets"]:
            row = [_fnv1a(name) % about["buckets"] for name, _, _ in found]
        else:
            row = [rows.get(name, 0 if length == 1 and name[0] != " " else -1) for name, _, length in found]
            row = [number for number in row if number >= 0]
        if about["inverse_frequencies"]:
            counts = {number: row.count(number) for number in sorted(set(row))}
            weight = [count * about["inverse_frequencies"][number] for number, count in counts.items()]
            norm = sum(value * value for value in weight) ** 0.5
            weights += [value / norm for value in weight]
            row = list(counts)
        ids += row
        starts.append(len(ids))
    found = {f"{column}.ids": np.array(ids, np.int64), f"{column}.starts": np.array(starts, np.int64)}
    if about["inverse_frequencies"]:
        found[f"{column}.weights"] = np.array(weights, about["dtype"])
    return found
'''


def tokenizer_files(columns: Sequence[TextColumn], out: Path, dtype: str = "float32") -> dict[Path, bytes]:
    """Return the files beside an exported graph, by path."""
    about = {
        column.column: {
            "word_ngrams": column.word_ngrams,
            "char_ngrams": list(column.char_ngrams or ()),
            "buckets": column.buckets,
            "rows": column.places,
            "inverse_frequencies": None
            if column.inverse_frequencies is None
            else column.inverse_frequencies.tolist(),
            "dtype": dtype,
        }
        for column in columns
    }
    script, vocabulary = (out.with_name(f"{out.stem}_tokenizer.{suffix}") for suffix in ("py", "json"))
    source = inspect.getsource(tokens).split("\n", 1)[1]
    parts = [
        f'"""The tokenizer of {out.name}: encode(column, texts) returns inputs of its graph."""\n',
        source,
        "\n\n",
        inspect.getsource(terms.terms_of_tokens),
        "\n\n",
        inspect.getsource(terms._char_ngrams),
        "\n\nimport json\nfrom collections.abc import Sequence\nfrom pathlib import Path\n",
        f'\nCOLUMNS = json.loads(Path(__file__).with_name("{vocabulary.name}").read_text("utf-8"))\n',
        _END,
    ]
    return {
        script: "".join(parts).encode(),
        vocabulary: json.dumps(about, ensure_ascii=False).encode(),
    }
