"""IDX, NPY and NPZ files that once raised something else than an NnkitError, or took more than they hold."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hostile.checks import Trap, endure
from nnkit.data import limits
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import DataError, FileError

MEBIBYTE = 1 << 20


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory_limit", lambda: MEBIBYTE)


def npy(header: str, body: bytes = bytes(96), version: bytes = b"\1\0", length: int | None = None) -> bytes:
    text = header.encode() + b"\n"
    size = 2 if version == b"\1\0" else 4
    claimed = len(text) if length is None else length
    return b"\x93NUMPY" + version + claimed.to_bytes(size, "little") + text + body


def described(dtype: str, shape: str = "(4, 3)") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}"


def npz(method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def array(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


GOOD = npy(described("'<f8'"))

BAD_ARRAYS = [
    npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 3"),
    npy("(" * 300),
    npy(described("'<f8'", "(9223372036854775807, 9223372036854775807)")),
    npy(described("'<f8'", "(0, 1180591620717411303424)")),
    npy(described("'<f8'", "(-4, -3)")),
    npy(described("'<f8'", f"({'1, ' * 70})")),
    npy(described("'<f8'", "()")),
    npy(described("('<f4', (2, 2))")),
    npy(described("'<U0'")),
    npy(described("'|V8'")),
    npy(described("'<M8[s]'")),
    npy(described("'|O'")),
    npy(described("[('a', '<f8')]"), version=b"\3\0"),
    npy(described("'<f8'"), version=b"\2\0", length=2**32 - 1),
    npy(" " * 20_000 + described("'<f8'"), version=b"\2\0"),
]


@pytest.mark.parametrize("data", BAD_ARRAYS)
def test_a_bad_header_is_refused_alone_and_in_an_archive(data: bytes) -> None:
    assert isinstance(endure("npy", data), DataError)
    assert isinstance(endure("npz", npz(X=data, y=data)), DataError)


def test_a_zip_archive_by_the_name_of_an_array_is_refused() -> None:
    assert isinstance(endure("npy", npz(X=GOOD)), DataError)


def test_a_header_is_not_read_beyond_its_limit(tmp_path: Path) -> None:
    """A few kilobytes of an archive can unpack to a header of any length."""
    path = tmp_path / "x.npz"
    path.write_bytes(npz(X=npy(" " * (64 * MEBIBYTE), version=b"\2\0")))
    tracemalloc.start()
    with pytest.raises(DataError, match="damaged"):
        load_dataset(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MEBIBYTE


def test_damaged_deflate_is_refused() -> None:
    data = bytearray(
        npz(X=array(np.random.default_rng(0).standard_normal((50, 3))), y=array(np.arange(50) % 2))
    )
    for place in range(150, 250):
        data[place] ^= 0x55
    assert isinstance(endure("npz", bytes(data)), DataError)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_that_numpy_does_not_write_is_refused(method: int) -> None:
    error = endure("npz", npz(method, X=GOOD, y=GOOD))
    assert "savez_compressed" in str(error)


@pytest.mark.usefixtures("small_machine")
def test_more_than_fits_is_refused_before_it_is_unpacked() -> None:
    zeros = np.zeros(2 * MEBIBYTE, np.uint8).reshape(-1, 8)
    assert "room for" in str(endure("npz", npz(X=array(zeros), y=array(zeros[:, 0]))))
    idx = struct.pack(">HBB2I", 0, 8, 2, *zeros.shape) + zeros.tobytes()
    packed = gzip.compress(idx)
    assert len(packed) < 3000
    labels = struct.pack(">HBBI", 0, 8, 1, len(zeros)) + bytes(len(zeros))
    assert "room for" in str(endure("idx", struct.pack(">I", len(packed)) + packed + labels))


def test_a_claim_that_the_file_cannot_keep_is_told_as_such() -> None:
    idx = struct.pack(">HBB3I", 0, 8, 3, 2**30, 2**30, 2**30) + bytes(12)
    assert "only 12 bytes follow" in str(endure("idx", struct.pack(">I", len(idx)) + idx))


@pytest.mark.parametrize("code", [0x110000, 0xD800, 0xFFFFFFFF])
@pytest.mark.parametrize("order", "<>")
def test_labels_that_are_not_unicode_are_refused(code: int, order: str) -> None:
    labels = npy(described(f"'{order}U1'", "(4,)"), struct.pack(f"{order}4I", 65, 66, code, 65))
    assert "not Unicode" in str(endure("npz", npz(X=GOOD, y=labels)))


def test_good_labels_are_read(tmp_path: Path) -> None:
    labels = npy(described("'>U1'", "(4,)"), struct.pack(">4I", 65, 0x1F642, 0x10FFFF, 65))
    (tmp_path / "x.npz").write_bytes(npz(X=GOOD, y=labels))
    assert load_dataset(tmp_path / "x.npz").train.target.tolist() == ["A", "🙂", "\U0010ffff", "A"]


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    objects = npy(described("'|O'", "(1,)"), trap.pickled())
    for name, data in (("x.npy", objects), ("x.npz", npz(X=objects, y=objects)), ("y.npy", trap.pickled())):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError if name.startswith("x") else FileError):
            load_dataset(tmp_path / name, target=0)
    assert not (tmp_path / "sprung").exists()


def test_members_that_name_another_folder_are_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("X.npy", "../X.npy", "/tmp/../X.npy", "y.npy"):
            archive.writestr(
                name, array(np.arange(12.0).reshape(4, 3)) if "X" in name else array(np.arange(4) % 2)
            )
    (folder / "x.npz").write_bytes(buffer.getvalue())
    assert load_dataset(folder / "x.npz").train.features.shape == (4, 3)
    assert [path.name for path in tmp_path.rglob("*.np*")] == ["x.npz"]


@pytest.mark.parametrize("shape", [(0, 2, 2), (4, 0), (1,) * 40, (1,) * 255])
def test_an_idx_file_of_no_values_or_too_many_dimensions_is_refused(shape: tuple[int, ...]) -> None:
    data = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(1 if 0 not in shape else 0)
    assert isinstance(endure("idx", struct.pack(">I", len(data)) + data), DataError)


@pytest.mark.parametrize(
    "data",
    [
        npy(described("'<f8'", f"({'9' * 4000}, {'9' * 4000})")),
        npy(described(str([(f"column {number}", "<f4") for number in range(300)]))),
        npy(described("'<f8'", f"({'0, ' * 3000})")),
    ],
)
def test_long_headers_are_told_in_short(data: bytes) -> None:
    assert isinstance(endure("npy", data), DataError)
    assert isinstance(endure("npz", npz(X=data, y=GOOD)), DataError)


def test_a_header_of_python_2_is_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(npy(described("'<f8'", "(4L, 3L)")))
    assert load_dataset(tmp_path / "x.npy", require_target=False).train.features.shape == (4, 3)
    endure("npy", npy(described("'<f8'", "(4L, 3L)")))
    endure("npy", npy(described("'\\d'")))


def test_long_names_in_an_archive_are_told_in_short() -> None:
    assert "name the arrays" in str(
        endure("npz", npz(**{f"{number}{'x' * 5000}": GOOD for number in range(9)}))
    )
    # zipfile quotes the name that stands before the array, whatever its length.
    data = bytearray(npz(X=GOOD))
    data[26:28] = (200).to_bytes(2, "little")
    data[30:31] = b"\xff" * 200
    assert isinstance(endure("npz", bytes(data)), DataError)


def test_a_target_too_far_from_those_of_the_training_is_refused() -> None:
    """Standardised, it overflowed float32 with a warning, and the validation's loss was infinite."""
    features = np.arange(36.0).reshape(12, 3)
    target = np.linspace(0.0, 1e-30, 12)
    found = [
        endure("npz", npz(X=array(features), y=array(np.where(np.arange(12) == row, 1e30, target))))
        for row in range(12)
    ]
    assert any("too far from the targets" in str(error) for error in found)
