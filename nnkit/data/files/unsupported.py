"""File formats that are not supported: how to recognise them, and how to convert them into one that is."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from nnkit.errors import FileError

__all__ = ["ARCHIVE", "LABELLED", "SPARSE", "UNSUPPORTED", "UnsupportedFormat"]


@dataclass(frozen=True)
class UnsupportedFormat:
    """A file format that is not supported."""

    name: str  # with its article
    suffixes: str = ""  # separated by spaces
    magic: bytes = b""  # a regular expression for the beginning of the file; empty for none
    # A command of the shell, or statements of Python that begin with "import" or "from", with <file> for the
    # file and <stem.csv> for its name with another suffix.
    command: str = ""
    advice: str = "convert it: {command}"  # what to do instead

    def error(self, path: Path) -> FileError:
        """Return the error for such a file."""
        is_python = self.command.startswith(("import ", "from "))

        def name(match: re.Match[str]) -> str:
            file = str(path.with_suffix(match[1]) if match[1] else path)
            return json.dumps(file) if is_python else shlex.quote(file)

        command = re.sub(r"<(?:file|stem(\.\w+))>", name, self.command)
        if is_python:
            command = f"python -c {shlex.quote(command)}"
        return FileError(f"{path}: {self.name} is not read: {self.advice.format(command=command)}")


_UNPACK = "unpack it first: {command}"
_PANDAS = "import pandas as pd; pd.read_{}.to_csv(<stem.csv>, index=False)"
_ARRAYS = "convert it, with the names of its arrays for X and y: {command}"
_H5PY = (
    "import h5py, numpy as np; f = h5py.File(<file>); "
    'np.savez(<stem.npz>, X=f["X"][:]{}, y=f["y"][:].ravel())'
)
_R = """Rscript -e 'write.csv({}, "data.csv", row.names = FALSE)' <file>"""
_TABLE = "write one of its tables as CSV: {command}"
_PICTURE = rb"(?s)\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|.{4}ftyp(heic|avif|mif1)"

_Format = UnsupportedFormat
ARCHIVE = _Format("a zip archive", ".zip", command="unzip <file>", advice=_UNPACK)
UNSUPPORTED = (
    # First, what a server sends in place of a file, under that file's suffix.
    _Format(
        "a Git LFS pointer, and not the file it stands for,",
        magic=rb"version https://git-lfs\.github\.com/spec/",
        command="git lfs pull",
        advice="fetch the file: {command}",
    ),
    _Format(
        "a web page (HTML)",
        ".html .htm",
        rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b",
        advice="it may be the login or error page of a download: download the data again, or save its table "
        "as CSV",
    ),
    # Archives and compression.
    ARCHIVE,
    _Format("a file compressed by xz", ".xz", rb"\xfd7zXZ\0", "xz -dk <file>", _UNPACK),
    _Format("a file compressed by LZMA", ".lzma", b"", "xz -dk <file>", _UNPACK),
    _Format("a file compressed by LZ4", ".lz4", rb"\x04\x22M\x18", "lz4 -dk <file>", _UNPACK),
    _Format("a file compressed by compress", ".z", rb"\x1f\x9d", "gzip -dk <file>", _UNPACK),
    _Format("a 7z archive", ".7z", rb"7z\xbc\xaf\x27\x1c", "7z x <file>", _UNPACK),
    _Format("a RAR archive", ".rar", rb"Rar!\x1a\x07", "unrar x <file>", _UNPACK),
    _Format("a tar archive", ".tar .tgz .tbz2", rb"(?s).{257}ustar", "tar -xf <file>", _UNPACK),
    # Databases and the files of other programs.
    _Format(
        "a SQLite database",
        ".sqlite .sqlite3 .db",
        rb"SQLite format 3\0",
        "sqlite3 -header -csv <file> 'select * from TABLE' > <stem.csv>",
        _TABLE,
    ),
    _Format(
        "a DuckDB database",
        ".duckdb",
        rb"(?s).{8}DUCK",
        "duckdb <file> -csv 'select * from TABLE' > <stem.csv>",
        _TABLE,
    ),
    _Format(
        "an ARFF file",
        ".arff",
        rb"(?i)(?:[ \t\r]*(?:%[^\n]*)?\n)*[ \t]*@relation\s",
        """awk '/^%/ || !NF {next} data {print} """
        """tolower($1) == "@attribute" {names = names sep $2; sep = ","} """
        """tolower($1) ~ /^@data/ {print names; data = 1}' <file> > <stem.csv>""",
    ),
    _Format(
        "an HDF5 file",
        ".h5 .hdf5 .hdf .he5",
        rb"\x89HDF\r\n\x1a\n",
        _H5PY.format(""),
        "convert it, with the names of its datasets for X and y: {command}",
    ),
    _Format("a MATLAB file of version 7.3", "", rb"MATLAB 7\.3 MAT-file", _H5PY.format(".T"), _ARRAYS),
    _Format(
        "a MATLAB file",
        ".mat",
        rb"MATLAB 5\.0 MAT-file",
        "import scipy.io, numpy as np; d = scipy.io.loadmat(<file>); "
        'np.savez(<stem.npz>, X=d["X"], y=d["y"].ravel())',
        _ARRAYS,
    ),
    _Format(
        "a pickle, which can run any program when it is read,",
        ".pkl .pickle .p .joblib",
        rb"\x80[\x02-\x05][\x95}\](cKGXU\x8c]",
        _PANDAS.format("pickle(<file>)"),
        "convert it if you trust its source: {command}",
    ),
    _Format(
        "a PyTorch file", ".pt .pth .ckpt", advice="save its arrays from Python by numpy.savez, as X and y"
    ),
    _Format(
        "a safetensors file",
        ".safetensors",
        advice="it holds a model or arrays, and no table: save arrays from Python by numpy.savez, as X and y",
    ),
    _Format(
        "an R object", ".rds", rb"[XA]\n(\0\0\0[\x02\x03]|[23]\n)", _R.format("readRDS(commandArgs(TRUE))")
    ),
    _Format(
        "a file of R objects", ".rdata .rda", rb"RD[XA][23]\n", _R.format("get(load(commandArgs(TRUE))[1])")
    ),
    _Format(
        "a SAS table",
        ".sas7bdat",
        rb"\0{12}\xc2\xea\x81\x60\xb3\x14\x11\xcf\xbd\x92\x08\0",
        _PANDAS.format('sas(<file>, encoding="infer")'),
    ),
    _Format(
        "a SAS transport file",
        ".xpt",
        rb"HEADER RECORD\*{7}LIB",
        _PANDAS.format('sas(<file>, format="xport", encoding="latin-1")'),
    ),
    _Format("a Stata table", ".dta", rb"<stata_dta>", _PANDAS.format("stata(<file>)")),
    _Format(
        "an SPSS table",
        ".sav .zsav",
        rb"\$FL[23]@\(#\)",
        _PANDAS.format("spss(<file>)"),
        "convert it, with pyreadstat installed: {command}",
    ),
    _Format(
        "an ORC file",
        ".orc",
        rb"(?s)ORC(?=.*\0)",  # a text may begin with this word
        "import pyarrow.orc as orc, pyarrow.parquet as pq; "
        "pq.write_table(orc.read_table(<file>), <stem.parquet>)",
    ),
    _Format(
        "an Avro file",
        ".avro",
        rb"Obj\x01",
        "import polars as pl; pl.read_avro(<file>).write_parquet(<stem.parquet>)",
        "convert it, with Polars installed: {command}",
    ),
    _Format("an XML file", ".xml", rb"(\xef\xbb\xbf)?\s*<\?xml\b", _PANDAS.format("xml(<file>)")),
    # Documents and pictures.
    _Format("a PDF file", ".pdf", rb"%PDF-", advice="copy its table into a spreadsheet and save that as CSV"),
    _Format("a text document", ".doc .docx .odt .rtf .ppt .pptx", advice="save its table as CSV"),
    _Format("a Numbers document", ".numbers", advice="export it as CSV"),
    _Format(
        "a picture",
        ".tif .tiff .heic .avif .svg .ico",
        _PICTURE,
        advice="give a folder of PNG or JPEG files with a subfolder for each class, or a table of paths",
    ),
)
SPARSE = _Format(
    "sparse text (svmlight, libsvm)",
    ".svm .svmlight .libsvm",
    command="from sklearn.datasets import load_svmlight_file; import numpy as np; "
    "X, y = load_svmlight_file(<file>); np.savez(<stem.npz>, X=X.toarray(), y=y)",
)
LABELLED = _Format(
    "fastText's labelled text",
    magic=rb"(\xef\xbb\xbf)?__label__\S+[ \t]",
    command="sed -E 's/^__label__([^[:space:]]+)[[:space:]]+/\\1\\t/' <file> > <stem.tsv>",
)
