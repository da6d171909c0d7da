"""What `nnkit bench` does: measure, write bench.json and bench.html, and print tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnkit.benchmarks.compare import Change, Comparison, compare
from nnkit.benchmarks.page import TITLES, notes, page
from nnkit.benchmarks.records import Record
from nnkit.benchmarks.suite import (
    Result,
    chosen_sections,
    devices_for,
    load_result,
    run_suite,
    save_result,
)
from nnkit.errors import FileError
from nnkit.files import write_whole
from nnkit.run_folder import claim_folder, timed_name
from nnkit.working import hide_work

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["bench"]


def bench(
    sections: Sequence[str],
    quick: bool = False,
    device: str = "auto",
    out: Path | None = None,
    earlier: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> bool:
    """Run the suite; return whether nothing ended in an error.

    Parameters
    ----------
    sections : sequence of str
        Names; all if there are none.
    quick : bool
        Small sizes, within a minute.
    device : str
        ``auto`` (every device that works here), ``cpu`` or ``cuda``.
    out : Path or None
        The folder for bench.json and bench.html; None for one under runs/.
    earlier : Path or None
        An earlier bench.json, or its folder, to compare with.
    as_json : bool
        Print the result as JSON and nothing else on the standard output.
    quiet : bool
        Print nothing but the result.

    Raises
    ------
    NnkitError
        If a section, a device or a file is not what it should be; before anything is measured.
    """
    names, devices = chosen_sections(sections), devices_for(device)
    before = None if earlier is None else load_result(earlier)
    folder = _folder(out)

    def save(result: Result) -> None:
        save_result(result, folder / "bench.json")

    result = run_suite(names, devices, "quick" if quick else "full", _ignore if quiet else _tell, save)
    comparison = None if before is None else compare(before, result)
    write_whole(folder / "bench.html", page(result, comparison).encode())
    if as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        _print(result, comparison)
        if not quiet:
            print(f"written to {folder / 'bench.json'} and {folder / 'bench.html'}")
    return not result.failed


def _ignore(line: str) -> None:
    pass


def _tell(line: str) -> None:
    hide_work()
    print(line, file=sys.stderr, flush=True)


def _folder(out: Path | None) -> Path:
    """Make the folder now: it must not turn out at the end that nothing can be written there."""
    if out is None:
        return claim_folder(Path("runs") / timed_name("bench"))
    folder = out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: no such folder can be made: {error.strerror or error}") from None
    return folder


def _print(result: Result, comparison: Comparison | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    for section in result.seconds:
        table = Table(title=TITLES[section], title_justify="left")
        for header in ("what", "device", "median (10 % to 90 %)", "ratio"):
            table.add_column(header)
        for record in result.section(section):
            table.add_row(*_row(record))
        console.print(table)
    if comparison is not None:
        _print_comparison(console, comparison)


def _row(record: Record) -> list[str]:
    """Return the record's first figure, and its ratios."""
    device = f"{record.device}, {record.precision}"
    if record.skipped:
        return [record.label, device, f"not measured: {record.skipped}", ""]
    name, quantity = next(iter(record.figures.items()))
    ratios = [f"{name} {quantity}" for name, quantity in record.ratios.items()]
    return [record.label, device, f"{name} {quantity}", "\n".join(ratios)]


def _print_comparison(console: Console, comparison: Comparison) -> None:
    from rich.table import Table

    marked = comparison.marked
    for note in notes(comparison):
        console.print(note)
    title = f"{len(marked)} of {len(comparison.changes)} figures differ by more than their spreads"
    table = Table(title=title, title_justify="left")
    for header in ("section", "what", "figure", "before", "now", "ratio", ""):
        table.add_column(header)
    for change in marked:
        table.add_row(*_change_row(change))
    console.print(table if marked else title)


def _change_row(change: Change) -> list[str]:
    names = [change.section, change.what, change.figure]
    return [*names, str(change.before), str(change.now), f"× {change.ratio:.2f}", change.verdict]
