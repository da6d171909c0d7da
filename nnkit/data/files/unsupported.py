"""File formats that are not supported: how to recognise them, and how to convert them into one that is."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from nnkit.errors import FileError

__all__ = ["ARCHIVE", "LABELLED", "SPARSE", "UNSUPPORTED", "UnsupportedFormat"]


@dataclass(frozen=True)
class UnsupportedFormat:
    """A file format that is not supported.

    Parameters
    ----------
    name : str
        With its article.
    advice : str
        What to do instead, in which ``{command}`` stands for the command.
    command : str
        Of the shell, with ``<file>`` for the file and ``<stem.csv>`` for its name with another suffix.
    python : str
        Instead of a command, statements of Python with the same placeholders, which become strings.
    magic : bytes
        A regular expression for the file's beginning.
    binary : bool
        Whether the magic is a plain word, so that it counts only in a file that is no text.
    suffixes : tuple of str
    """

    name: str
    advice: str = "convert it: {command}"
    command: str = ""
    python: str = ""
    magic: bytes = b""
    binary: bool = False
    suffixes: tuple[str, ...] = ()

    def error(self, path: Path) -> FileError:
        """Return the error for such a file."""
        quote = json.dumps if self.python else shlex.quote
        names = {
            "<file>": path,
            "<stem.csv>": path.with_suffix(".csv"),
            "<stem.tsv>": path.with_suffix(".tsv"),
        }
        names |= {"<stem.npz>": path.with_suffix(".npz"), "<stem.parquet>": path.with_suffix(".parquet")}
        command = self.python or self.command
        for placeholder, name in names.items():
            command = command.replace(placeholder, quote(str(name)))
        if self.python:
            command = f"python -c {shlex.quote(command)}"
        return FileError(f"{path}: {self.name} is not read: {self.advice.format(command=command)}")


_UNPACK = "unpack it first: {command}"
_PANDAS = "import pandas as pd; pd.read_{}.to_csv(<stem.csv>, index=False)"
_H5PY = (
    "import h5py, numpy as np; f = h5py.File(<file>); "
    'np.savez(<stem.npz>, X=f["X"][:]{0}, y=f["y"][:].ravel())'
)
_R = """Rscript -e 'write.csv({}, "data.csv", row.names = FALSE)' <file>"""
ARCHIVE = UnsupportedFormat("a zip archive", _UNPACK, "unzip <file>", suffixes=(".zip",))
UNSUPPORTED = (
    # What stands in the place of a file comes first: it has that file's suffix.
    UnsupportedFormat(
        "a Git LFS pointer, and not the file it stands for,",
        "fetch the file: {command}",
        "git lfs pull",
        magic=rb"version https://git-lfs\.github\.com/spec/",
    ),
    UnsupportedFormat(
        "a web page (HTML)",
        "it may be the login or error page of a download: download the data again, or save its table as CSV",
        magic=rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b",
        suffixes=(".html", ".htm"),
    ),
    # Archives and compression.
    ARCHIVE,
    UnsupportedFormat(
        "a file compressed by xz", _UNPACK, "xz -dk <file>", magic=rb"\xfd7zXZ\0", suffixes=(".xz",)
    ),
    UnsupportedFormat("a file compressed by LZMA", _UNPACK, "xz -dk <file>", suffixes=(".lzma",)),
    UnsupportedFormat(
        "a file compressed by LZ4", _UNPACK, "lz4 -dk <file>", magic=rb"\x04\x22M\x18", suffixes=(".lz4",)
    ),
    UnsupportedFormat(
        "a file compressed by compress", _UNPACK, "gzip -dk <file>", magic=rb"\x1f\x9d", suffixes=(".z",)
    ),
    UnsupportedFormat(
        "a 7z archive", _UNPACK, "7z x <file>", magic=rb"7z\xbc\xaf\x27\x1c", suffixes=(".7z",)
    ),
    UnsupportedFormat("a RAR archive", _UNPACK, "unrar x <file>", magic=rb"Rar!\x1a\x07", suffixes=(".rar",)),
    UnsupportedFormat(
        "a tar archive",
        _UNPACK,
        "tar -xf <file>",
        magic=rb"(?s).{257}ustar",
        suffixes=(".tar", ".tgz", ".tbz2"),
    ),
    # Databases and the files of other programs.
    UnsupportedFormat(
        "a SQLite database",
        "write one of its tables as CSV: {command}",
        "sqlite3 -header -csv <file> 'select * from TABLE' > <stem.csv>",
        magic=rb"SQLite format 3\0",
        suffixes=(".sqlite", ".sqlite3", ".db"),
    ),
    UnsupportedFormat(
        "a DuckDB database",
        "write one of its tables as CSV: {command}",
        "duckdb <file> -csv 'select * from TABLE' > <stem.csv>",
        magic=rb"(?s).{8}DUCK",
        suffixes=(".duckdb",),
    ),
    UnsupportedFormat(
        "an ARFF file",
        command="""awk '/^%/ || !NF {next} data {print} """
        """tolower($1) == "@attribute" {names = names sep $2; sep = ","} """
        """tolower($1) ~ /^@data/ {print names; data = 1}' <file> > <stem.csv>""",
        magic=rb"(?i)(?:[ \t\r]*(?:%[^\n]*)?\n)*[ \t]*@relation\s",
        suffixes=(".arff",),
    ),
    UnsupportedFormat(
        "an HDF5 file",
        "convert it, with the names of its datasets for X and y: {command}",
        python=_H5PY.format(""),
        magic=rb"\x89HDF\r\n\x1a\n",
        suffixes=(".h5", ".hdf5", ".hdf", ".he5"),
    ),
    UnsupportedFormat(
        "a MATLAB file of version 7.3",
        "convert it, with the names of its arrays for X and y: {command}",
        python=_H5PY.format(".T"),
        magic=rb"MATLAB 7\.3 MAT-file",
    ),
    UnsupportedFormat(
        "a MATLAB file",
        "convert it, with the names of its arrays for X and y: {command}",
        python="import scipy.io, numpy as np; d = scipy.io.loadmat(<file>); "
        'np.savez(<stem.npz>, X=d["X"], y=d["y"].ravel())',
        magic=rb"MATLAB 5\.0 MAT-file",
        suffixes=(".mat",),
    ),
    UnsupportedFormat(
        "a pickle, which can run any program when it is read,",
        "convert it if you trust its source: {command}",
        python=_PANDAS.format("pickle(<file>)"),
        magic=rb"\x80[\x02-\x05][\x95}\](cKGXU\x8c]",
        suffixes=(".pkl", ".pickle", ".p", ".joblib"),
    ),
    UnsupportedFormat(
        "a PyTorch file",
        "save its arrays from Python by numpy.savez, as X and y",
        suffixes=(".pt", ".pth", ".ckpt"),
    ),
    UnsupportedFormat(
        "a safetensors file",
        "it holds a model or arrays without a table: save arrays from Python by numpy.savez, as X and y",
        suffixes=(".safetensors",),
    ),
    UnsupportedFormat(
        "an R object",
        command=_R.format("readRDS(commandArgs(TRUE))"),
        magic=rb"[XA]\n(\0\0\0[\x02\x03]|[23]\n)",
        suffixes=(".rds",),
    ),
    UnsupportedFormat(
        "a file of R objects",
        command=_R.format("get(load(commandArgs(TRUE))[1])"),
        magic=rb"RD[XA][23]\n",
        suffixes=(".rdata", ".rda"),
    ),
    UnsupportedFormat(
        "a SAS table",
        python=_PANDAS.format('sas(<file>, encoding="infer")'),
        magic=rb"\0{12}\xc2\xea\x81\x60\xb3\x14\x11\xcf\xbd\x92\x08\0",
        suffixes=(".sas7bdat",),
    ),
    UnsupportedFormat(
        "a SAS transport file",
        python=_PANDAS.format('sas(<file>, format="xport", encoding="latin-1")'),
        magic=rb"HEADER RECORD\*{7}LIB",
        suffixes=(".xpt",),
    ),
    UnsupportedFormat(
        "a Stata table",
        python=_PANDAS.format("stata(<file>)"),
        magic=rb"<stata_dta>",
        suffixes=(".dta",),
    ),
    UnsupportedFormat(
        "an SPSS table",
        "convert it, with pyreadstat installed: {command}",
        python=_PANDAS.format("spss(<file>)"),
        magic=rb"\$FL[23]@\(#\)",
        suffixes=(".sav", ".zsav"),
    ),
    UnsupportedFormat(
        "an ORC file",
        python="import pyarrow.orc as orc, pyarrow.parquet as pq; "
        "pq.write_table(orc.read_table(<file>), <stem.parquet>)",
        magic=rb"ORC",
        binary=True,
        suffixes=(".orc",),
    ),
    UnsupportedFormat(
        "an Avro file",
        "convert it, with Polars installed: {command}",
        python="import polars as pl; pl.read_avro(<file>).write_parquet(<stem.parquet>)",
        magic=rb"Obj\x01",
        suffixes=(".avro",),
    ),
    UnsupportedFormat(
        "an XML file",
        python=_PANDAS.format("xml(<file>)"),
        magic=rb"(\xef\xbb\xbf)?\s*<\?xml\b",
        suffixes=(".xml",),
    ),
    # Documents and pictures.
    UnsupportedFormat(
        "a PDF file",
        "copy its table into a spreadsheet and save that as CSV",
        magic=rb"%PDF-",
        suffixes=(".pdf",),
    ),
    UnsupportedFormat(
        "a text document",
        "save its table as CSV",
        suffixes=(".doc", ".docx", ".odt", ".rtf", ".ppt", ".pptx"),
    ),
    UnsupportedFormat("a Numbers document", "export it as CSV", suffixes=(".numbers",)),
    UnsupportedFormat(
        "a picture",
        "give a folder of PNG or JPEG files with a subfolder for each class, or a table of their paths",
        magic=rb"(?s)\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|.{4}ftyp(heic|avif|mif1)",
        suffixes=(".tif", ".tiff", ".heic", ".avif", ".svg", ".ico"),
    ),
)
SPARSE = UnsupportedFormat(
    "sparse text (svmlight, libsvm)",
    python="from sklearn.datasets import load_svmlight_file; import numpy as np; "
    "X, y = load_svmlight_file(<file>); np.savez(<stem.npz>, X=X.toarray(), y=y)",
    suffixes=(".svm", ".svmlight", ".libsvm"),
)
LABELLED = UnsupportedFormat(
    "fastText's labelled text",
    command="sed -E 's/^__label__([^[:space:]]+)[[:space:]]+/\\1\\t/' <file> > <stem.tsv>",
    magic=rb"(\xef\xbb\xbf)?__label__\S+[ \t]",
)
