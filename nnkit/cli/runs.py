"""`nnkit runs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnkit.cli.options import AsJson
from nnkit.run_folder import run_folders, untimed_name
from nnkit.terminal import number
from nnkit.working import working

if TYPE_CHECKING:
    from nnkit.runs.folder import RunSummary


def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that the runs are in.")] = Path(
        "runs"
    ),
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder, the newest first.

    It shows how each ended and its main metric; when it began and its data, unless the name says so.
    """
    from nnkit.errors import FileError

    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder; trainings make it, or give the one they are in")
    found = run_folders(folder)
    with working("looking at runs", len(found), "runs") as work:
        from nnkit.runs.folder import summary_of

        summaries = []
        for path in found:
            summaries.append(summary_of(path))
            work.advance()
    if as_json:
        import json

        typer.echo(json.dumps({"runs": [summary.to_json() for summary in summaries]}))
    elif not summaries:
        typer.echo(f"there are no runs in {folder}")
    else:
        _print(summaries)


def _print(summaries: list[RunSummary]) -> None:
    rows = [_row(summary) for summary in summaries]
    # A column that is empty in every row is left out. The last cell of a row does not widen its column.
    columns = [place for place in range(len(rows[0])) if any(row[place] for row in rows)]
    widths = {
        place: max((len(row[place]) for row in rows if any(row[place + 1 :])), default=0) for place in columns
    }
    for row in rows:
        typer.echo("  ".join(f"{row[place]:<{widths[place]}}" for place in columns).rstrip())


def _row(summary: RunSummary) -> tuple[str, ...]:
    metric = summary.main_metric
    state, data = summary.state, summary.data
    name = untimed_name(summary.folder)
    if name in (data, Path(data).stem):
        data = ""  # the folder's name says it
    if not summary.finished:
        state += f", epoch {summary.epoch} of {summary.epochs}"
    return (
        summary.folder.name,
        f"{summary.began:%Y-%m-%d %H:%M}" if name is None else "",
        ", ".join(filter(None, (data, summary.task))),
        state,
        f"{metric.replace('_', ' ')} {number(summary.metrics[metric]).strip()}" if metric else "",
    )
