"""A table as its source holds it, before a schema says what its cells mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RawTable"]


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as its source holds it.

    Parameters
    ----------
    table : pyarrow.Table
        From text every cell is a string as it stands there, blanks and words for missing values included;
        from other formats the columns have types of their own, and null is missing.
    named : bool
        Whether the source names its columns; else they are called "0", "1", and so on.
    separator : str
        The character between the cells of delimited text, "whitespace" for runs of spaces or tabs; "" for one
        column and for other formats.
    index : tuple of str
        Columns that only number or name the rows, such as pandas writes them.
    notes : tuple of str
        Words for the user on how the source was read.
    """

    table: pa.Table
    named: bool = True
    separator: str = ""
    index: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
