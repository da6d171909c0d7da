"""What a caller asks of a source of data: which columns, how a table is written, how pictures are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nnkit.data.pictures.columns import PictureOptions
from nnkit.data.tables.options import TableOptions

if TYPE_CHECKING:
    from nnkit.data.tables.schema import Schema

__all__ = ["Key", "LoadRequest", "split_keys"]

Key = str | int
"""A column's name, or its number: negative ones count from the end."""


@dataclass(frozen=True)
class LoadRequest:
    """What is asked of a source; see `nnkit.data.sources.loading.load_dataset`."""

    target: list[Key] | None = None
    features: Sequence[Key] | None = None
    drop: Sequence[Key] | None = None
    require_target: bool = True
    pictures: PictureOptions = field(default_factory=PictureOptions)
    mapped: bool = False
    table: TableOptions = field(default_factory=TableOptions)
    schema: Schema | None = None
    strict: bool = True
    multilabel: bool = False
    target_like: Sequence[str] = ()


def split_keys(keys: Sequence[Key], names: Sequence[str]) -> list[Key]:
    """Return columns' names and numbers; "a,b" is two of them where no column is called so."""
    found: list[Key] = []
    for key in keys:
        apart = isinstance(key, str) and "," in key and key not in names
        found += [part.strip() for part in str(key).split(",") if part.strip()] if apart else [key]
    return found
