"""The folders of runs: found by a name without its time, and made so that no two runs share one."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from nnkit.errors import FileError

__all__ = [
    "CHECKPOINTS",
    "FINDINGS_FILE",
    "HISTORY_FILE",
    "MODEL_FILE",
    "REPORT_FILE",
    "RUN_FILE",
    "began",
    "claim_folder",
    "find_run",
    "model_file",
    "run_folders",
    "timed_name",
    "untimed_name",
]

RUN_FILE = "config.toml"
"""The config that a run was trained with; every run's folder holds it."""
HISTORY_FILE = "metrics.jsonl"
FINDINGS_FILE = "findings.json"
MODEL_FILE = "model.safetensors"
REPORT_FILE = "report.html"
CHECKPOINTS = "checkpoints"
"""A folder, there while the training is under way."""

_TIME_FORMAT = "%Y%m%d-%H%M%S"
# A run's name, its time, and a number where two began in one second.
_TIMED = re.compile(r"(?P<name>.+)-(?P<time>[0-9]{8}-[0-9]{6})(?:-(?P<number>[0-9]{1,4}))?", re.DOTALL)
_MOST_NAMED = 5


def timed_name(name: str) -> str:
    """Return what a run that begins now is called, such as ``mnist-20261123-082514``.

    Signs of patterns, which data may be named by, are left out of it.
    """
    plain = re.sub(r"[*?\[\]]+", "", name).strip(" -_.") or "data"
    return f"{plain}-{datetime.now().strftime(_TIME_FORMAT)}"


def untimed_name(folder: Path) -> str | None:
    """Return the name of a run without its time; None where it has no time in its name."""
    match = _TIMED.fullmatch(folder.name)
    return None if match is None else match["name"]


def claim_folder(path: Path) -> Path:
    """Make a new folder and return it: under this name, or with a number where the name is taken.

    Two processes at once are given different ones.

    Raises
    ------
    FileError
        If it cannot be made.
    """
    folder, number = path, 1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
            folder = path.with_name(f"{path.name}-{number}")
    except OSError as error:
        raise FileError(f"{error.filename}: cannot be made: {error.strerror or error}") from None


def run_folders(folder: Path, holding: str = RUN_FILE) -> list[Path]:
    """Return the runs in a folder, the newest first: by the time in their name, else by that of their change.

    Parameters
    ----------
    folder : Path
        Such as ``runs``; one that is not there has no runs.
    holding : str
        The file that makes a folder a run.
    """
    found = []
    with suppress(OSError):
        found = [path for path in folder.iterdir() if (path / holding).is_file()]
    return sorted(found, key=_age, reverse=True)


def began(folder: Path) -> datetime:
    """Return when a run began: by the time in its name, else by that of its folder's change."""
    match = _TIMED.fullmatch(folder.name)
    if match is not None:
        with suppress(ValueError):
            return datetime.strptime(match["time"], _TIME_FORMAT)
    changed = 0.0
    with suppress(OSError):
        changed = folder.stat().st_mtime
    return datetime.fromtimestamp(changed)


def _age(folder: Path) -> tuple[datetime, int, str]:
    """Return when a run began, which of those of one second it is, and its name."""
    match = _TIMED.fullmatch(folder.name)
    return began(folder), int(match["number"] or 1) if match else 1, folder.name


def find_run(path: Path, holding: str = RUN_FILE) -> Path:
    """Return what the user means by a path: itself, or the newest run of that name.

    Parameters
    ----------
    path : Path
        Whatever is there is returned as it is. Of ``runs/mnist``, where nothing is, the newest
        ``runs/mnist-TIME`` is meant.
    holding : str
        The file that makes a folder a run.

    Raises
    ------
    FileError
        If there is neither; it names the runs whose names are nearest.
    """
    if path.exists():
        return path
    runs = run_folders(path.parent, holding)
    for folder in runs:
        if untimed_name(folder) == path.name:
            return folder
    if path.suffix in (".safetensors", ".json"):
        raise FileError(f"{path}: there is no such file")
    # Who gives a bare name may have left out the folder.
    runs = runs or run_folders(path.parent / "runs", holding)
    raise FileError(f"{path}: there is no such file or run; {_there_are(path, runs)}")


def _there_are(path: Path, runs: list[Path]) -> str:
    """Return the runs that the user may have meant: those with the nearest names, else the newest."""
    names = {folder.name: folder for folder in runs}
    for folder in reversed(runs):
        name = untimed_name(folder)
        if name is not None:
            names[name] = folder
    near = get_close_matches(path.name, names, n=_MOST_NAMED)
    if near:
        nearest = dict.fromkeys(str(names[name]) for name in near)
        return f"did you mean {' or '.join(nearest)}?"
    if not runs:
        return f"there are no runs in {path.parent}"
    more = f" and {len(runs) - _MOST_NAMED} more" if len(runs) > _MOST_NAMED else ""
    shown = [folder.name if folder.parent == path.parent else str(folder) for folder in runs[:_MOST_NAMED]]
    return f"the runs there are {', '.join(shown)}{more}"


def model_file(path: Path) -> Path:
    """Return the model's file that a path means: itself, or that of the run that `find_run` returns.

    Raises
    ------
    FileError
        If there is no such file or run, or the run has no model yet.
    """
    if not path.exists() and path.name == MODEL_FILE:
        path = path.parent
    found = find_run(path)
    if not found.is_dir():
        return found
    if not (found / MODEL_FILE).is_file():
        why = (
            "its training has not ended: resume it"
            if (found / RUN_FILE).is_file()
            else "it is not a run's folder"
        )
        raise FileError(f"{found}: no {MODEL_FILE} is there, for {why}")
    return found / MODEL_FILE
