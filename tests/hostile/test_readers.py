"""Altered and random input ends in a result or an NnkitError, for every reader."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile.checks import RANDOMS, SETTINGS, endure
from hostile.readers import READERS

TEXTS = "csv", "tsv", "messages", "jsonl", "json", "text file", "word vectors", "toml", "history", "findings"
FILES = {name: reader for name, reader in READERS.items() if reader.split is None}


@pytest.mark.parametrize("name", READERS)
@given(seed=RANDOMS)
@SETTINGS
def test_an_altered_file_gives_a_result_or_an_error_of_nnkit(name: str, seed: int) -> None:
    endure(name, READERS[name].make(Random(seed)))


@pytest.mark.parametrize("name", FILES)
@given(data=st.binary(max_size=300))
@SETTINGS
def test_random_bytes_give_a_result_or_an_error_of_nnkit(name: str, data: bytes) -> None:
    endure(name, data)


@pytest.mark.parametrize("name", TEXTS)
@given(text=st.text(st.characters(exclude_categories=()), max_size=300))
@SETTINGS
def test_random_text_gives_a_result_or_an_error_of_nnkit(name: str, text: str) -> None:
    endure(name, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", READERS)
def test_some_altered_files_are_read_to_the_end(name: str) -> None:
    """Were all refused at once, what comes after the first check would not be reached."""
    assert any(endure(name, READERS[name].input(0, index)) is None for index in range(100))


@pytest.mark.parametrize("name", READERS)
def test_an_input_is_the_same_each_time(name: str) -> None:
    assert READERS[name].input(5, 7) == READERS[name].input(5, 7)
