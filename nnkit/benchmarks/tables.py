"""The records of a section as a table of texts, for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nnkit.benchmarks.records import Record

__all__ = ["Table", "markdown", "section_table"]


@dataclass(frozen=True)
class Table:
    """Texts in rows.

    Parameters
    ----------
    headers : list of str
        Of the columns.
    rows : list of list of str
        As many texts as there are columns; a row of one text more than `names` has says why there are none.
    names : int
        How many columns name what a row is of, before the figures.
    """

    headers: list[str]
    rows: list[list[str]]
    names: int


def section_table(records: Sequence[Record]) -> Table:
    """Return a row for each record: what it is of, then a column for each figure and ratio that occurs."""
    parameters = _all(record.parameters for record in records)
    quantities = _all(record.quantities for record in records)
    several = [name for name in ("device", "precision") if len({getattr(r, name) for r in records}) > 1]
    # Where nothing was measured there is a column for the reasons.
    headers = ["what", *parameters, *several, *(quantities or [""])]
    rows = []
    for record in records:
        row = [record.name, *(_shown(record.parameters.get(name, "")) for name in parameters)]
        row += [getattr(record, name) for name in several]
        if record.skipped:
            row.append(f"not measured: {record.skipped}")
        else:
            found = record.quantities
            row += [str(found[name]) if name in found else "" for name in quantities]
        rows.append(row)
    return Table(headers, rows, 1 + len(parameters) + len(several))


def _all(mappings: Iterable[Iterable[str]]) -> list[str]:
    """Return every key once, in the order of its first occurrence."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown(table: Table) -> str:
    """Return the table in Markdown."""
    width = len(table.headers)
    rows = [table.headers, ["---"] * width]
    rows += [[*row, *[""] * (width - len(row))] for row in table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in rows)
