"""Disks that are full, and checkpoints that were altered."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from faults.trainings import Case, Child, Record, Workshop, different, draw_case, end_of, unwhole

__all__ = ["altered", "disk", "small_disk"]

_UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_DISK_BYTES = 128 * 2**20


def disk(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """Fill the disk at a random moment, in half of the trainings for good, and resume when there is space.

    In turns a limit on the size of files, which is set from outside (writes fail with EFBIG), and a file
    system in memory that another file fills (ENOSPC); the latter needs the right to mount.
    """
    record = Record()
    with small_disk(workshop.folder / "disk") as mounted:
        record.count("a small file system could be mounted", int(mounted))
        for number in range(count):
            case, limited, for_good = (
                draw_case(draw, workshop),
                number % 2 == 0 or not mounted,
                number % 4 < 2,
            )
            doing = f"disk {number}: {case.name}, {'size limit' if limited else 'file system full'}"
            doing += f", {'for good' if for_good else 'for a while'}"
            folder = workshop.new_folder() if limited else workshop.folder / "disk" / f"run-{number}"
            _fill_once(record, doing, case, folder, limited, for_good, draw)
    return record


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system in memory; yield whether that is allowed here."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(options, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill_once(
    record: Record, doing: str, case: Case, folder: Path, limited: bool, for_good: bool, draw: random.Random
) -> None:
    child = Child(case.train(folder))
    time.sleep(draw.uniform(0, 0.7 * case.seconds))
    room = int(draw.choice([0.0, draw.random() ** 3]) * 2**24)
    ballast = folder.parent / "ballast"
    _take_space(child, ballast, limited, room)
    if not for_good:
        time.sleep(draw.uniform(0, 0.3 * case.seconds))
        _give_space(child, ballast, limited)
    code, printed = child.finish()
    for what in unwhole(folder):
        record.deviate(doing, f"after the full disk: {what}")
    _check_end(record, doing, code, printed)
    before = sum(path.stat().st_size for path in folder.glob("checkpoints/step-*"))
    record.count("trainings with a whole checkpoint when they ended", int(before > 0))
    _give_space(child, ballast, limited)
    if code == 0:
        # The last checkpoint may be missing, with a warning: then the model and the figures are there.
        found = different(folder, case.reference, with_checkpoint="could not be written" not in printed)
        if found:
            record.deviate(doing, f"it ended with 0 but is not whole: {'; '.join(found)}; {printed[-2000:]}")
    end_of(record, doing, case, folder)


def _take_space(child: Child, ballast: Path, limited: bool, room: int) -> None:
    if not limited:
        with open(ballast, "wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(2**16)):
                pass
        os.truncate(ballast, max(0, ballast.stat().st_size - room))
    elif child.poll() is None:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def _give_space(child: Child, ballast: Path, limited: bool) -> None:
    if not limited:
        ballast.unlink(missing_ok=True)
    elif child.poll() is None:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, _UNLIMITED)


def _check_end(record: Record, doing: str, code: int, printed: str) -> None:
    """Either the training went on with a warning, or one error of at most two lines ended it with 2."""
    warned = "could not be written" in printed or "the training goes on" in printed
    record.count(f"ended with {code}, {'warned' if warned else 'not warned'}")
    lines = [line for line in printed[printed.rfind("error:") :].splitlines() if line.strip()]
    if code not in (0, 2) or "Traceback" in printed or (code == 2 and len(lines) > 2):
        record.deviate(doing, f"ended with {code}: {printed[-3000:]}")


DAMAGES = ("a bit flipped", "cut short", "emptied", "other bytes", "removed")


def altered(workshop: Workshop, count: int, draw: random.Random) -> Record:
    """Alter the newest checkpoint of a killed training: the one before it is taken, with a line."""
    record = Record()
    for number in range(count):
        case, damage = draw_case(draw, workshop), DAMAGES[number % len(DAMAGES)]
        doing = f"altered {number}: {case.name}, {damage}"
        folder = workshop.new_folder()
        child = Child(case.train(folder))
        while child.poll() is None and len(_checkpoints(folder)) < 2:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.2 * case.seconds))
        killed = child.send(signal.SIGKILL)
        child.finish()
        if not killed:
            record.count("trainings that ended before the kill")
        older, newest = _checkpoints(folder)[-2:]
        _damage(newest, damage, draw)
        _check_taken(record, doing, case, folder, newest, older, damage)
        record.count(damage)
    return record


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoints/step-*"))


def _damage(path: Path, damage: str, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    contents = {
        "a bit flipped": bytes(data),
        "cut short": bytes(data[: draw.randrange(1, len(data))]),
        "emptied": b"",
        "other bytes": draw.randbytes(len(data)),
    }
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(contents[damage])


def _check_taken(
    record: Record, doing: str, case: Case, folder: Path, newest: Path, older: Path, damage: str
) -> None:
    printed = end_of(record, doing, case, folder)
    # What is gone cannot be named.
    if damage != "removed":
        lines = [line for line in printed.splitlines() if newest.name in line]
        if len(lines) == 1 and f"taking the checkpoint before it, {older.name}" in lines[0]:
            record.count("lines that name the damaged checkpoint and the one taken")
        else:
            record.deviate(doing, f"the damage is not told in one line: {printed[-2000:]}")
