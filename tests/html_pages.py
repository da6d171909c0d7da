"""What a page of one file must be: valid, with names that are there, and nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

__all__ = ["Checker", "check"]

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Checker(HTMLParser):
    """Keeps what is open, and notes whatever is not right."""

    def __init__(self, active: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.active = active
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.names: list[str] = []
        self.references: list[str] = []
        self.cells: list[int] = []
        self.columns = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._note(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._note(tag, attributes)
        if "svg" not in self.open:
            self.wrong.append(f"<{tag}/> outside of SVG")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.wrong.append(f"</{tag}> within {self.open[-3:]}")
        else:
            self.open.pop()
        if tag == "thead" and not self.open.count("svg"):
            self.columns, self.cells = sum(self.cells), []
        if tag == "tr" and "tbody" in self.open:
            if sum(self.cells) != self.columns:
                self.wrong.append(f"{sum(self.cells)} cells under {self.columns} headers")
            self.cells = []

    def _note(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if len(given) != len(attributes):
            self.wrong.append(f"an attribute of <{tag}> twice")
        self.names += [given["id"]] if "id" in given else []
        links = [given[name] for name in ("href", "xlink:href") if name in given]
        inside = tag == "image" and self.active
        self.references += [
            link.removeprefix("#") for link in links if not (inside and link.startswith("data:image/"))
        ]
        self.references += given.get("aria-labelledby", "").split()
        self.references += re.findall(r"url\(#([^)]*)\)", " ".join(given.values()))
        if tag in ("td", "th"):
            self.cells.append(int(given.get("colspan", "1")))
        if tag in ("link", "iframe", "object", "embed") or (tag in ("script", "img") and not self.active):
            self.wrong.append(f"<{tag}>")
        if tag == "script" and "src" in given:
            self.wrong.append("a script from elsewhere")
        if tag == "img" and not (given.get("src", "").startswith("data:image/") and given.get("alt")):
            self.wrong.append("a picture from elsewhere, or without words")


def check(text: str, active: bool = False) -> Checker:
    """Return what was noted of a page that is valid and asks nothing of any host.

    Parameters
    ----------
    text : str
        The page.
    active : bool
        Whether it may hold scripts of its own, and pictures in itself.
    """
    checker = Checker(active)
    checker.feed(text)
    checker.close()
    assert checker.wrong == []
    assert checker.open == []
    assert len(set(checker.names)) == len(checker.names)
    assert set(checker.references) <= set(checker.names)
    assert text.startswith("<!DOCTYPE html>")
    # Base64 may hold two slashes.
    outside = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]*", "data:", text.replace("\n", ""))
    assert not re.search(r"https?:|//[a-z]|@import", outside)
    assert not re.search(r'src="(?!data:)', outside)
    assert "prefers-color-scheme: dark" in text
    return checker
