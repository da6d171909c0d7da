"""Read spreadsheets: Excel's .xlsx, .xlsb and .xls, and OpenDocument's .ods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from nnkit.data.examples import RawTable
from nnkit.data.limits import memory_limit
from nnkit.data.messages import about
from nnkit.data.tables.frames import as_table
from nnkit.errors import DataError
from nnkit.extras import extra_module

__all__ = ["read_workbook"]

_PROGRAM = Path(__file__).with_name("workbook_cells.py")
_REFUSED = 3  # the program's status where its words are for the user
_LEAST_MEMORY = 1 << 31  # what Python and its libraries map
_LONGEST_REASON = 160


def read_workbook(path: Path) -> RawTable:
    """Read the first sheet of a workbook; its first row names the columns if it holds a text.

    Numbers, booleans, dates and texts keep their types; a column of several types becomes texts. A formula is
    read as its last value, a cell with an error as a missing value.
    """
    extra_module("python_calamine")
    ended = subprocess.run(
        [sys.executable, "-P", str(_PROGRAM), str(path), str(max(memory_limit(), _LEAST_MEMORY))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RUST_BACKTRACE": "0"},
    )
    if ended.returncode == _REFUSED:
        raise DataError(f"{path}: {ended.stderr.decode(errors='replace')}")
    if ended.returncode != 0:
        raise DataError(f"{path}: {_reason(ended)}")
    with pa.ipc.open_stream(ended.stdout) as reader:
        table = reader.read_all()
    found = json.loads(table.schema.metadata[b"workbook"])
    if table.num_rows == 0:
        raise DataError(f"{path}: there is not a single row of data in the sheet {found['sheets'][0]!r}")
    note = f"{path.name}: read is the sheet {found['sheets'][0]!r} of {len(found['sheets'])}"
    notes = (note,) if len(found["sheets"]) > 1 else ()
    with about(path):
        table = as_table(table.replace_schema_metadata(None))
    return RawTable(table, named=found["named"], index=tuple(found["index"]), notes=notes)


def _reason(ended: subprocess.CompletedProcess[bytes]) -> str:
    """Return why the program failed, by the last line it wrote or the signal that ended it."""
    lines = ended.stderr.decode(errors="replace").split("\n")
    if ended.returncode < 0 or any("memory allocation" in line or "MemoryError" in line for line in lines):
        return (
            "the workbook is damaged, or a cell far below or right of the others makes it too large: "
            "save its table as CSV"
        )
    said = next((line for line in reversed(lines) if "Error: " in line), "").partition("Error: ")[2]
    said = said[:_LONGEST_REASON] or "it cannot be read"
    return f"no workbook, or a damaged one: {said}: save it again, or as CSV"
