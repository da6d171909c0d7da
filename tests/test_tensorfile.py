"""The tensor file: what goes in comes out, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from nnkit.errors import FileError, ModelFileError
from nnkit.tensorfile import read_tensors, write_tensors

TENSORS: dict[str, NDArray] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([np.pi, -0.0, np.inf]),
    "c": np.arange(256, dtype=np.uint8),
}
METADATA: dict[str, Any] = {"name": "schräg ½", "sizes": [1, 2.5, None, True], "nested": {"x": {"y": "\x7f"}}}


def raw(metadata: dict[str, str], tensors: dict[str, NDArray] | None = None) -> bytes:
    """Return a safetensors file, made by hand, whose digest is right."""
    header: dict[str, Any] = {"__metadata__": {**metadata, "sha256": "0" * 64}}
    body = b""
    for name, array in (tensors or {}).items():
        kind = {"float32": "F32", "float64": "F64"}[array.dtype.name]
        end = len(body) + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(body), end]}
        body += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = len(text).to_bytes(8, "little") + text + body
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "t.safetensors", "some.kind", 3, TENSORS, METADATA)
    return tmp_path / "t.safetensors"


def test_what_is_written_is_read(path: Path) -> None:
    tensors, metadata = read_tensors(path, "some.kind", 3)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype
        assert tensors[name].shape == array.shape
        assert tensors[name].tobytes() == array.tobytes()


def test_it_is_a_safetensors_file_to_others(path: Path) -> None:
    with safe_open(path, "numpy") as file:
        assert file.metadata()["format"] == "some.kind"
        assert file.metadata()["format_version"] == "3"
        np.testing.assert_array_equal(file.get_tensor("a"), TENSORS["a"])


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(path: Path) -> None:
    data = path.read_bytes()
    with safe_open(path, "numpy") as file:
        digest = file.metadata()["sha256"]
    assert data.count(digest.encode()) == 1
    assert hashlib.sha256(data.replace(digest.encode(), b"0" * 64)).hexdigest() == digest


def test_strided_arrays_are_written_in_order(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", "kind", 1, {"a": TENSORS["a"].T, "b": TENSORS["a"][:, ::2]}, {})
    tensors, _ = read_tensors(tmp_path / "t", "kind", 1)
    np.testing.assert_array_equal(tensors["a"], TENSORS["a"].T)
    np.testing.assert_array_equal(tensors["b"], TENSORS["a"][:, ::2])


@pytest.mark.parametrize("zeros", ["0" * 64, f'"sha256":"{"0" * 64}"', f'sha256":"{"0" * 64}'])
def test_metadata_that_looks_like_a_digest_does_no_harm(zeros: str, tmp_path: Path) -> None:
    # The order of the header's keys changes from call to call.
    for number in range(10):
        write_tensors(tmp_path / "t", "kind", 1, TENSORS, {"label": zeros, "number": number, zeros: [zeros]})
        assert read_tensors(tmp_path / "t", "kind", 1)[1] == {
            "label": zeros,
            "number": number,
            zeros: [zeros],
        }


def test_header_and_tensors_are_under_the_digest(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for place in (data.index(b"schr"), data.index(b'"shape":[2,3]') + 9, 8 + length, len(data) - 1):
        altered = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        (tmp_path / "altered").write_bytes(altered)
        with pytest.raises(ModelFileError, match="truncated or altered"):
            read_tensors(tmp_path / "altered", "some.kind", 3)
    (tmp_path / "longer").write_bytes(data + b"\0")
    with pytest.raises(ModelFileError, match="truncated or altered"):
        read_tensors(tmp_path / "longer", "some.kind", 3)


def test_a_safetensors_file_without_a_digest_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(TENSORS, tmp_path / "t", {"format": "kind", "format_version": "1"})
    with pytest.raises(ModelFileError, match="SHA-256"):
        read_tensors(tmp_path / "t", "kind", 1)


def test_another_kind_is_refused(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"not a file of the kind other\.kind"):
        read_tensors(path, "other.kind", 3)


def test_a_later_version_is_refused_and_an_earlier_one_read(path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"format version '3' is newer .* upgrade nnkit"):
        read_tensors(path, "some.kind", 2)
    assert read_tensors(path, "some.kind", 4)[1] == METADATA


@pytest.mark.parametrize("version", ["", "x", "-1", "1.5", "²", "9" * 5000])
def test_a_version_that_is_no_number_is_refused(version: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(raw({"format": "kind", "format_version": version}))
    with pytest.raises(ModelFileError):
        read_tensors(tmp_path / "t", "kind", 1)


def test_a_file_made_by_hand_is_read(tmp_path: Path) -> None:
    array = np.arange(4, dtype=np.float64)
    (tmp_path / "t").write_bytes(raw({"format": "kind", "format_version": "1", "more": "[1]"}, {"a": array}))
    tensors, metadata = read_tensors(tmp_path / "t", "kind", 1)
    assert metadata == {"more": [1]}
    np.testing.assert_array_equal(tensors["a"], array)


@pytest.mark.parametrize("value", ["{", "[" * 100_000, ""])
def test_metadata_that_is_no_json_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(raw({"format": "kind", "format_version": "1", "more": value}))
    with pytest.raises(ModelFileError):
        read_tensors(tmp_path / "t", "kind", 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xff",
        (22).to_bytes(8, "little") + b'{"__metadata__":[1, 2]}'[:22],
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
)
def test_a_beginning_that_is_no_header_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(ModelFileError, match="not a file of the kind"):
        read_tensors(tmp_path / "t", "kind", 1)


def test_a_missing_file_and_a_folder_are_file_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileError, match="cannot be read"):
            read_tensors(path, "kind", 1)


def test_numbers_that_json_lacks_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_tensors(tmp_path / "t", "kind", 1, {}, {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []
