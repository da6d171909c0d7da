"""bench/embedding.py: the documents it draws, and what it measures of nnkit alone."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def embedding(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("embedding")


def test_uniform_words_are_equally_frequent_and_natural_ones_as_rare_as_their_rank(
    embedding: ModuleType,
) -> None:
    size = embedding.Size(documents=20_000, tokens=50)
    uniform, natural = (
        np.bincount(embedding.documents(size, words, 100).reshape(-1), minlength=100)
        for words in ("uniform", "natural")
    )
    assert len(uniform) == len(natural) == 100
    np.testing.assert_allclose(uniform, 10_000, rtol=0.06)
    # The share of rank r is log((r + 2) / (r + 1)) / log(101).
    shares = np.log1p(1 / np.arange(1, 101)) / np.log(101)
    np.testing.assert_allclose(natural / 1e6, shares, rtol=0.1)


def test_nnkit_alone_is_timed_over_all_its_batches(embedding: ModuleType) -> None:
    size = embedding.Size(documents=3000, tokens=6, steps=4, turns=2)
    found = embedding.alone(size, embedding.Setting("adam", "uniform", 500, 300))
    batch, held = found.figures["a batch"], found.details["bytes of its arrays"]
    assert batch.repeats == 2
    assert 0 < batch.low <= batch.median
    assert held["arena"] >= 4 * (500 * 64 + 64 * 2 + 2)
    assert held["optimizer"] == 2 * held["arena"]
    assert held["four bytes a row of the table"] == 2000
