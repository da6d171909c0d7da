"""`nnkit check`."""

from __future__ import annotations

from typing import Annotated

import typer

from nnkit.cli.loading import training_plan
from nnkit.cli.options import AsJson, Assignments, Source, Target, option
from nnkit.cli.printing import print_columns, print_findings, print_plan


def check(
    source: Source = None,
    target: Target = None,
    assignments: Assignments = None,
    strict: Annotated[bool, option("Exit with code 1 if anything is found.", "--strict")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with data and settings before training."""
    plan = training_plan(source, target, assignments, quiet=as_json)
    findings = plan.check()
    if as_json:
        import json

        schema = plan.dataset.schema
        columns = [] if schema is None else [column.to_json() for column in schema.columns]
        typer.echo(json.dumps({"findings": [finding.to_json() for finding in findings], "columns": columns}))
    else:
        print_plan(plan)
        print_columns(plan.dataset.schema)
        print_findings(findings)
        if not findings:
            typer.echo("nothing was found that is wrong before training")
    if findings and strict:
        raise typer.Exit(1)
