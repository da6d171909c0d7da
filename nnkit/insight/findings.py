"""What a diagnosis found in a training, as a run folder or a model's details keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nnkit.errors import DataError, FileError

__all__ = ["Finding", "findings_of", "read_findings"]

_LARGEST_FILE = 2**20  # it is read by people
_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """What a diagnosis found.

    Parameters
    ----------
    name, severity, seen, why, change : str
        What it is called, how bad it is, the figure, why it matters, what to change.
    """

    name: str
    severity: str
    seen: str
    why: str
    change: str


def findings_of(folder: Path, details: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Return what a run folder's ``findings.json``, or else its model's details, holds; the worst first.

    Raises
    ------
    FileError
        If the file cannot be read.
    DataError
        If it holds something else.
    """
    path = folder / "findings.json"
    if path.is_file():
        return read_findings(path)
    return _findings(details.get("findings", []), f"{folder / 'model.safetensors'}: details")


def read_findings(path: Path) -> tuple[Finding, ...]:
    """Return the findings in a file of JSON, the worst first.

    Raises
    ------
    FileError
        If the file cannot be read.
    DataError
        If it holds something else.
    """
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST_FILE))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a list of findings: {error}; remove it") from None
    return _findings(found, str(path))


def _findings(found: Any, where: str) -> tuple[Finding, ...]:
    names = [field.name for field in fields(Finding)]
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise DataError(f"{where}: not a list of findings, each with {', '.join(names)}; remove it")
    read = [Finding(*(_text(item.get(name)) for name in names)) for item in found]
    order = {severity: place for place, severity in enumerate(_SEVERITIES)}
    return tuple(sorted(read, key=lambda finding: order.get(finding.severity, len(order))))


def _text(value: Any) -> str:
    """Return a value as text that can be written; JSON may hold halves of characters."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()
