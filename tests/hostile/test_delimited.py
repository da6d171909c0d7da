"""Altered delimited texts, read with options that may not fit: a table of strings, or an error of nnkit."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from random import Random

import pyarrow as pa
from hypothesis import given

from hostile.checks import LONGEST_MESSAGE, RANDOMS, SETTINGS
from hostile.mutations import random_bytes
from hostile.text_files import delimited_file, messages_file
from nnkit.data.tables.delimited import read_delimited
from nnkit.data.tables.options import TableOptions
from nnkit.errors import NnkitError

_MAKERS = (delimited_file, delimited_file, messages_file, random_bytes)
_ABOVE = (b"# c,d\n", b"Report\n\n", b"sep=;\n", b"\n\n", b'"', b'\\"', b"\xff\xfe", b" ,\t\n")
_OPTIONS = {
    "separator": (*",;\t |a'\"\\\x1f1#", "whitespace"),
    "header": (True, False, 0, 1, 3, 100),
    "encoding": (
        "utf-8",
        "latin-1",
        "utf-16",
        "utf-7",
        "cp932",
        "base64",
        "idna",
        "unicode_escape",
        "undefined",
    ),
    "comment": tuple('#%",a '),
    "skip_rows": (0, 1, 2, 50),
    "quote": ("", *"'\"\\,a |\t"),
}


@SETTINGS
@given(RANDOMS)
def test_altered_text_is_a_table_or_an_error(seed: int) -> None:
    random = Random(seed)
    data = random.choice(_MAKERS)(random)
    if random.random() < 0.2:
        data = random.choice(_ABOVE) + data
    options = {name: random.choice(values) for name, values in _OPTIONS.items() if random.random() < 0.2}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder, "data.csv")
        path.write_bytes(data)
        try:
            raw = read_delimited(path, TableOptions(**options))  # type: ignore[arg-type]
        except NnkitError as raised:
            error = str(raised)
        else:
            error = None
    if error is not None:
        assert 0 < len(error) <= LONGEST_MESSAGE
        return
    raw.table.validate(full=True)
    assert len(raw.table) > 0
    assert all(column.type == pa.string() and column.null_count == 0 for column in raw.table.columns)
    assert len(set(raw.table.column_names)) == raw.table.num_columns
    assert set(raw.index) <= set(raw.table.column_names)
