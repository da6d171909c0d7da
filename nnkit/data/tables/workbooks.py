"""Read spreadsheets: Excel's .xlsx, .xlsb and .xls, and OpenDocument's .ods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from nnkit.data.limits import memory_limit
from nnkit.data.tables.frames import as_table
from nnkit.data.tables.raw import RawTable
from nnkit.errors import DataError
from nnkit.extras import extra_module

__all__ = ["read_workbook"]

_PROGRAM = Path(__file__).with_name("workbook_cells.py")
_REFUSED = 3  # the program's status where its words are for the user
_LEAST_MEMORY = 1 << 31  # what Python and its libraries map
_LONGEST_REASON = 160


def read_workbook(path: Path, sheet: str | int | None = None) -> RawTable:
    """Read a sheet of a workbook; its first row names the columns if it holds a text.

    Numbers, booleans, dates and texts keep their types; a column of several becomes texts. A formula is
    read as its last value, a cell with an error as a missing value.

    Parameters
    ----------
    path : Path
    sheet : str or int, optional
        The name or the number (from 0) of the sheet; without it the first.

    Raises
    ------
    ConfigError
        Where python-calamine is not installed.
    DataError
        Where the workbook is damaged, or there is no such sheet or nothing in it.
    """
    extra_module("python_calamine")
    most = max(memory_limit(), _LEAST_MEMORY)
    command = [sys.executable, "-P", str(_PROGRAM), str(path), "" if sheet is None else str(sheet), str(most)]
    found = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RUST_BACKTRACE": "0"},
    )
    if found.returncode == _REFUSED:
        raise DataError(f"{path}: {found.stderr.decode(errors='replace')}")
    if found.returncode != 0:
        raise DataError(f"{path}: {_reason(found)}")
    with pa.ipc.open_stream(found.stdout) as reader:
        table = reader.read_all()
    about = json.loads(table.schema.metadata[b"workbook"])
    if table.num_rows == 0:
        raise DataError(f"{path}: there is not a single row of data in the sheet {about['sheet']!r}")
    others = [name for name in about["sheets"] if name != about["sheet"]]
    note = f"{path.name}: read is the sheet {about['sheet']!r} of {len(others) + 1}"
    try:
        table = as_table(table.replace_schema_metadata(None))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    notes = (note,) if others and sheet is None else ()
    return RawTable(table, named=about["named"], index=tuple(about["index"]), notes=notes)


def _reason(found: subprocess.CompletedProcess[bytes]) -> str:
    """Return why the program failed, by the last line it wrote or the signal that ended it."""
    lines = found.stderr.decode(errors="replace").split("\n")
    if found.returncode < 0 or any("memory allocation" in line or "MemoryError" in line for line in lines):
        return (
            "the workbook is damaged, or a cell far below or right of the others makes it too large: "
            "save its table as CSV"
        )
    said = next((line for line in reversed(lines) if "Error: " in line), "").partition("Error: ")[2]
    said = said[:_LONGEST_REASON] or "it cannot be read"
    return f"no workbook, or a damaged one: {said}: save it again, or as CSV"
