"""Model files of earlier versions: each is read, and says of the same rows what it said then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kept.write import FILES, answers

from nnkit import load

FOLDER = Path(__file__).parent
KEPT = sorted(FOLDER.glob("*/*.safetensors"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_kept_model_says_what_it_said(path: Path) -> None:
    kept = json.loads(path.with_suffix(".json").read_text())
    found = answers(load(path), kept.pop("rows"))
    assert found.keys() == kept.keys()
    for name, values in kept.items():
        wanted = np.array(values)
        if wanted.dtype.kind == "f":
            # The matrix products of other machines round differently.
            np.testing.assert_allclose(found[name], wanted, rtol=2e-5, atol=2e-6)
        else:
            assert found[name] == values


def test_there_is_a_file_of_each_kind() -> None:
    assert {path.stem for path in KEPT} == {*FILES}
