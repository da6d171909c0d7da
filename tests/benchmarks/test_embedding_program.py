"""bench/embedding.py: the documents it draws, and what it says of nnkit alone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def program() -> Iterator[ModuleType]:
    """Return the program, which is no part of the package, as a module."""
    specification = importlib.util.spec_from_file_location("bench_embedding", BENCH / "embedding.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["bench_embedding"] = module  # where a dataclass looks for its types
    specification.loader.exec_module(module)
    yield module
    del sys.modules["bench_embedding"]


def test_uniform_words_are_equally_frequent_and_natural_ones_as_rare_as_their_rank(
    program: ModuleType,
) -> None:
    size = program.Size(documents=20_000, tokens=50)
    uniform, natural = (
        np.bincount(program.documents(size, words, 100).reshape(-1), minlength=100)
        for words in ("uniform", "natural")
    )
    assert len(uniform) == len(natural) == 100
    np.testing.assert_allclose(uniform, 10_000, rtol=0.06)
    # The share of rank r is log((r + 2) / (r + 1)) / log(101).
    shares = np.log1p(1 / np.arange(1, 101)) / np.log(101)
    np.testing.assert_allclose(natural / 1e6, shares, rtol=0.1)


def test_nnkit_alone_is_timed_over_all_its_batches(program: ModuleType) -> None:
    size = program.Size(documents=1000, tokens=6, steps=4, repeats=2)
    found = program.alone(size, program.Setting("adam", "uniform", 500, 300))
    assert found["seconds"]["repeats"] == 2
    assert 0 < found["seconds"]["low"] <= found["seconds"]["median"]
    held = found["bytes of its arrays"]
    assert held["arena"] >= 4 * (500 * 64 + 64 * 2 + 2)
    assert held["optimizer"] == 2 * held["arena"]
    assert held["four bytes a row of the table"] == 2000
