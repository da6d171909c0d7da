"""`nnkit audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from nnkit.cli.loading import decision_threshold, load_model, load_rows
from nnkit.cli.options import AsJson, Data, ModelPath, OnBad, Threshold


def audit(
    model: ModelPath,
    data: Data,
    by: Annotated[str, typer.Option(help="The column whose values part the rows, by name or number.")],
    positive: Annotated[
        str | None, typer.Option(help="The class that is a yes.", show_default="a binary model's second")
    ] = None,
    threshold: Threshold = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model group by group: figures, rates of yes, and how far apart the groups are."""
    from nnkit.insight.command import audit_data

    loaded = load_model(model)
    decision = decision_threshold(loaded, threshold)
    dataset = load_rows(loaded, data, OnBad.error)
    audit_data(loaded, dataset, by, positive, decision, as_json)
