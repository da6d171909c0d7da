"""What the words of a text contribute: that it adds up, which words a term is of, where words stand."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from nnkit.cli.explain import tinted
from nnkit.data.operations import TextColumn
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.data.text.options import TextOptions
from nnkit.data.text.terms import find_terms, terms_of_tokens
from nnkit.data.text.tokens import located_tokens, tokenise
from nnkit.insight.attributions import integrated_gradients
from nnkit.insight.words import ExplainedText, Word, explained_text
from nnkit.model import Model
from nnkit.nn.layers import Dense, Embedding
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network

TEXTS = [
    "Free entry! FREE entry, win £1000 now",
    "you don’t say... see you at home",
    "",
    "win win win",
    "nie gehört: Straße, cafe\u0301 and 東京 🎉🎉",
    "home at last, see you now",
]


def text_model(reduce: Any, **options: Any) -> Model:
    preprocessor = Preprocessor.fit(
        pa.table({"body": TEXTS * 2}), text=TextOptions(("body",), min_count=1, **options), dtype="float64"
    )
    net = Network([Embedding(preprocessor.embedding_sizes[0], 6, reduce), Dense(8, "tanh"), Dense(1)])
    net.initialize(0, seed=0, dtype=np.float64)
    target = TargetEncoder("binary", 1, np.array(["ham", "spam"]), names=("label",))
    return Model(net, preprocessor, target, loss_from("binary_cross_entropy"))


@pytest.mark.parametrize(
    ("reduce", "options"),
    [
        ("mean", {"word_ngrams": 1, "char_ngrams": None}),
        ("mean", {"word_ngrams": 3, "char_ngrams": (2, 4)}),
        ("max", {"word_ngrams": 2, "char_ngrams": (3, 5)}),
        ("sum", {"word_ngrams": 2, "char_ngrams": (3, 5), "tfidf": True}),
        ("sum", {"word_ngrams": 2, "char_ngrams": (3, 3), "hashing": 50}),
    ],
)
def test_the_words_of_a_text_add_up_to_its_column(reduce: str, options: dict[str, Any]) -> None:
    # In the last text most terms are not in the vocabulary, or are hashed.
    texts = [*TEXTS, "quite unknown words, entry"]
    found = integrated_gradients(text_model(reduce, **options), pa.table({"body": texts}))
    for row, text in enumerate(texts):
        explained = found.texts[row]["body"]
        total = sum(word.contribution for word in explained.words)
        assert total == pytest.approx(found.contributions[row, 0], rel=1e-9, abs=1e-12)
        assert all(text[word.start :].startswith(word.text) for word in explained.words)
        words = found.row_json(row)["words"]["body"]
        assert [entry["word"] for entry in words] == [word.text for word in explained.words]
        assert sum(entry["contribution"] for entry in words) == pytest.approx(total)
        by_word = explained.by_word()
        assert sum(value for _, value in by_word) == pytest.approx(total, abs=1e-12)
        assert [abs(value) for _, value in by_word] == sorted((abs(v) for _, v in by_word), reverse=True)


def test_a_term_counts_to_the_words_that_it_covers() -> None:
    # Rows of the table: 1 "free", 2 "win", 3 "free entry", 4 the run "fre" of "free", 0 for other words.
    operation = TextColumn("body", 2, (3, 3), ("free", "win", "free entry", " <fr"))
    values = {0: 5.0, 1: 4.0, 2: 6.0, 3: 2.0, 4: 10.0}
    text = explained_text(operation, "Free entry: win, free", values)
    # Two occurrences of "free" and of "<fr", and two unknown words and a sign that share row 0: entry : ,
    assert [(word.text, word.contribution) for word in text.words] == [
        ("Free", 4 / 2 + 2 / 2 + 10 / 2),
        ("entry", 5 / 3 + 2 / 2),
        (":", 5 / 3),
        ("win", 6.0),
        (",", 5 / 3),
        ("free", 4 / 2 + 10 / 2),
    ]
    assert text.by_word()[0] == ("free", 8.0 + 7.0)


def test_stretches_have_the_tokens_of_the_whole_text() -> None:
    signs = "aAéE\u0301ßŞ İςΣ東京カ🎉\u200d'’!?.. \t\n\u00ad£9_-\u3000x"
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices(signs, k=draw.randrange(20)))
        found = located_tokens(text)
        assert [token for tokens, _, _ in found for token in tokens] == tokenise(text)
        ends = [0, *(end for _, _, end in found)]
        assert all(before <= start <= end for before, (_, start, end) in zip(ends, found, strict=False))
        if text.isascii():
            assert all(tokens == [text[start:end].lower()] for tokens, start, end in found)


def test_terms_of_tokens_are_those_of_the_document() -> None:
    for text in TEXTS:
        for grams in ((1, None), (3, None), (2, (1, 4))):
            terms = find_terms([text], *grams)
            names = Counter(terms.names[number] for number in terms.documents.values.tolist())
            found = terms_of_tokens(tokenise(text), *grams)
            assert Counter(name for name, _, _ in found) == names


def test_words_are_tinted_by_the_sign_and_size_of_their_contribution() -> None:
    words = (Word("good", 0, -2.0), Word("free", 5, 4.0), Word("so", 10, 0.01))
    console = Console(force_terminal=True, color_system="truecolor", width=80, highlight=False)
    with console.capture() as capture:
        console.print(tinted(ExplainedText("good free so", words)))
    # Red of half strength, green of full strength, and no colour at all.
    assert capture.get() == (
        "\x1b[38;2;0;0;0;48;2;235;156;152mgood\x1b[0m \x1b[38;2;0;0;0;48;2;46;160;67mfree\x1b[0m so\n"
    )
