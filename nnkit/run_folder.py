"""The folders of runs: their names and files, finding one by its name, making one that is new."""

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
"""The config of a run; a folder without it is no run."""
HISTORY_FILE = "metrics.jsonl"
FINDINGS_FILE = "findings.json"
MODEL_FILE = "model.safetensors"
REPORT_FILE = "report.html"
CHECKPOINTS = "checkpoints"
"""The folder of checkpoints; it is there until the training is finished."""

_TIME_FORMAT = "%Y%m%d-%H%M%S"
# A run's name, its time, and a number where two began in one second.
_TIMED = re.compile(r"(?P<name>.+)-(?P<time>[0-9]{8}-[0-9]{6})(?:-(?P<number>[0-9]{1,4}))?", re.DOTALL)
_MOST_NAMED = 5


def timed_name(name: str) -> str:
    """Return the name of a run that begins now, such as ``mnist-20261123-082514``.

    The signs of file patterns (``*?[]``) are left out.
    """
    plain = re.sub(r"[*?\[\]]+", "", name).strip(" -_.") or "data"
    return f"{plain}-{datetime.now().strftime(_TIME_FORMAT)}"


def untimed_name(folder: Path) -> str | None:
    """Return the name of a run without its time; None if there is no time in it."""
    match = _TIMED.fullmatch(folder.name)
    return None if match is None else match["name"]


def claim_folder(path: Path) -> Path:
    """Make a new folder and return it, with a number behind its name if the name is taken.

    Two processes never get the same folder.

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
    """Return the runs in a folder that may not exist, the newest first.

    Parameters
    ----------
    folder : Path
        For example ``runs``.
    holding : str
        The file that every run has.
    """
    found = []
    with suppress(OSError):
        found = [path for path in folder.iterdir() if (path / holding).is_file()]
    return sorted(found, key=_age, reverse=True)


def began(folder: Path) -> datetime:
    """Return when a run began: the time in its name, else the folder's time of change."""
    match = _TIMED.fullmatch(folder.name)
    if match is not None:
        with suppress(ValueError):
            return datetime.strptime(match["time"], _TIME_FORMAT)
    changed = 0.0
    with suppress(OSError):
        changed = folder.stat().st_mtime
    return datetime.fromtimestamp(changed)


def _age(folder: Path) -> tuple[datetime, int, str]:
    """Return the key that runs are sorted by: begin, number among the runs of that second, name."""
    match = _TIMED.fullmatch(folder.name)
    return began(folder), int(match["number"] or 1) if match else 1, folder.name


def find_run(path: Path, holding: str = RUN_FILE) -> Path:
    """Return a path that exists, or else the newest run of that name.

    Parameters
    ----------
    path : Path
        ``runs/mnist`` means the newest ``runs/mnist-TIME`` if there is no ``runs/mnist``.
    holding : str
        The file that every run has.

    Raises
    ------
    FileError
        If there is neither; it names the runs with the nearest names.
    """
    if path.exists():
        return path
    runs = run_folders(path.parent, holding)
    for folder in runs:
        if untimed_name(folder) == path.name:
            return folder
    if path.suffix in (".safetensors", ".json"):
        raise FileError(f"{path}: there is no such file")
    # The user may have left out the folder.
    runs = runs or run_folders(path.parent / "runs", holding)
    raise FileError(f"{path}: there is no such file or run; {_there_are(path, runs)}")


def _there_are(path: Path, runs: list[Path]) -> str:
    """Return the runs that the user may have meant: with the nearest names, else the newest."""
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
    """Return the model file at a path, or the one of the run that `find_run` returns for it.

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
        is_run = (found / RUN_FILE).is_file()
        why = "its training has not ended: resume it" if is_run else "it is not a run's folder"
        raise FileError(f"{found}: there is no {MODEL_FILE}, as {why}")
    return found / MODEL_FILE
