"""The pages in `docs`: quotes are as in the source, links find their files, the picture has all packages."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import nnkit.nn.layers.norm as norm

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HOW_TO, PICTURES = DOCS / "how-to", DOCS / "pictures"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the docs are those of a checkout")


def unindented(text: str) -> str:
    """Return a text without the indentation of its lines: a method may be quoted by itself."""
    return "\n".join(line.strip() for line in text.split("\n"))


def test_the_page_on_layers_quotes_the_layer_that_it_follows() -> None:
    source = unindented(Path(norm.__file__).read_text(encoding="utf-8"))
    page = (HOW_TO / "add-a-layer.md").read_text(encoding="utf-8")
    quoted = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(quoted) >= 4
    for block in quoted:
        for part in block.rstrip().split("\n\n"):
            assert unindented(part.strip("\n")) in source


def test_the_picture_of_the_architecture_has_a_box_for_each_package() -> None:
    spec = importlib.util.spec_from_file_location("architecture", PICTURES / "architecture.py")
    assert spec is not None
    assert spec.loader is not None
    architecture = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = architecture  # dataclasses look their module up
    spec.loader.exec_module(architecture)
    drawn = re.findall(r'class="box"[^>]*>([^<]+)<', architecture.PICTURE.read_text(encoding="utf-8"))
    assert sorted(drawn) == sorted(architecture.packages()), "run: python docs/pictures/architecture.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_finds_it(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_table_of_contents_has_every_page() -> None:
    contents = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if page.name != "README.md"]
    assert [page for page in pages if f"({page})" not in contents] == []
