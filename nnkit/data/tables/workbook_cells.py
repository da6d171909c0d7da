"""A program that reads a workbook's cells, run by `workbooks` in its own process.

A workbook with a far cell may take more memory than there is, and a damaged one may crash its reader: either
would end nnkit's process. The program is run as a file, so that nnkit is not imported.

Arguments: the workbook, and the most bytes of memory to take. Writes the first sheet as an Arrow stream to
the standard output, with the sheets' names in its metadata.
"""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any

import pyarrow as pa

Cell = Any  # a str ("" for an empty cell), a number, a boolean, a date, a time or a duration


def sheet_table(rows: list[list[Cell]]) -> tuple[pa.Table, dict[str, Any]]:
    """Return a sheet as a table, whether its first row names the columns, and which columns number the rows.

    The first row names the columns if it holds a text. A first column without a name beside others that
    have one numbers the rows, as pandas writes it. Empty rows, and columns without a name or a value, are
    left out.
    """
    rows = [row for row in rows if any(cell != "" for cell in row)]
    named = bool(rows) and any(isinstance(cell, str) and cell.strip() for cell in rows[0])
    header = [text(cell) or "" for cell in rows[0]] if named else [""] * len(rows[0] if rows else [])
    body = rows[1:] if named else rows
    kept = [
        (name.strip() or str(place), [row[place] for row in body])
        for place, name in enumerate(header)
        if name.strip() or any(row[place] != "" for row in body)
    ]
    names = [name for name, _ in kept]
    index = ["0"] if "0" in names and len(header) > 1 and not header[0] and all(header[1:]) else []
    table = pa.Table.from_arrays([column(values) for _, values in kept], names=names)
    return table, {"named": named, "index": index}


def column(values: list[Cell]) -> pa.Array:
    """Return a column's cells with their common type, or as texts where they have several types."""
    present = [None if value == "" else value for value in values]
    kinds = {type(value) for value in present if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if kinds <= {int, float}:
        # Spreadsheets know no whole numbers: 1 comes as 1.0.
        if all(value is None or (abs(value) < 2**53 and value == int(value)) for value in present):
            return pa.array([None if value is None else int(value) for value in present], pa.int64())
        return pa.array(present, pa.float64())
    if kinds == {datetime.date, datetime.datetime}:
        midnight = datetime.time()
        return pa.array(
            [
                datetime.datetime.combine(value, midnight) if type(value) is datetime.date else value
                for value in present
            ]
        )
    return pa.array(present if len(kinds) == 1 else [text(value) for value in present])


def text(cell: Cell) -> str | None:
    """Return a cell as a spreadsheet shows it: without the decimals of a whole number."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell.isoformat(" ") if isinstance(cell, datetime.datetime) else str(cell)


class _WithoutPandas:
    """Hide pandas from pyarrow, which would import it (1 s)."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)


def main(path: str, most: int) -> None:
    """Write the first sheet; if it cannot, write a message to the standard error and end with status 3."""
    import resource

    from python_calamine import CalamineWorkbook, PasswordError

    sys.meta_path.insert(0, _WithoutPandas)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        workbook = CalamineWorkbook.from_path(path)
    except PasswordError:
        sys.stderr.write("the workbook is protected by a password: save it without one")
        sys.exit(3)
    if not workbook.sheet_names:
        sys.stderr.write("the workbook has no sheets")
        sys.exit(3)
    table, about = sheet_table(workbook.get_sheet_by_index(0).to_python())
    about |= {"sheets": workbook.sheet_names}
    table = table.replace_schema_metadata({"workbook": json.dumps(about)})
    with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as writer:
        writer.write_table(table)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
