"""Records of a training with figures that no training has."""

from __future__ import annotations

import pytest

from hostile.checks import endure
from nnkit.errors import DataError


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
@pytest.mark.parametrize("name", ["epoch", "step", "loss"])
def test_whole_numbers_of_more_than_64_bits_are_refused(name: str, number: int) -> None:
    row = {"epoch": 1, "step": 5, "loss": 0.5} | {name: number}
    line = "{" + ", ".join(f'"{key}": {value}' for key, value in row.items()) + "}\n"
    assert isinstance(endure("history", line.encode()), DataError)


def test_long_names_are_told_in_short() -> None:
    assert isinstance(endure("history", b'{"epoch": 1, "' + b"x" * 5000 + b'": "a"}\n'), DataError)
