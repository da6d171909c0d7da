"""The pages in `docs`: what they quote is what the source says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nnkit.nn.layers.norm as norm

HOW_TO = Path(__file__).resolve().parent.parent / "docs" / "how-to"


def unindented(text: str) -> str:
    """Return a text without the indentation of its lines: a method may be quoted by itself."""
    return "\n".join(line.strip() for line in text.split("\n"))


@pytest.mark.skipif(not HOW_TO.is_dir(), reason="the docs are those of a checkout")
def test_the_page_on_layers_quotes_the_layer_that_it_follows() -> None:
    source = unindented(Path(norm.__file__).read_text(encoding="utf-8"))
    page = (HOW_TO / "add-a-layer.md").read_text(encoding="utf-8")
    quoted = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(quoted) >= 4
    for block in quoted:
        for part in block.rstrip().split("\n\n"):
            assert unindented(part.strip("\n")) in source
