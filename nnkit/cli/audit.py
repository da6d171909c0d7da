"""`nnkit audit`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from nnkit.cli.loading import decision_threshold, load_model, load_rows, no_target
from nnkit.cli.options import AsJson, Data, ModelPath, OnBad, Threshold, TrueValues, option
from nnkit.cli.printing import made_table, plain, print_object, print_table

if TYPE_CHECKING:
    from nnkit.insight.audits import Audit, Difference, GroupFigures, Rate


def audit(
    model: ModelPath,
    data: Data,
    by: Annotated[str, option("Group the rows by this column, by name or number.", metavar="COLUMN")],
    positive: Annotated[
        str | None,
        option("The class that counts as a yes.", metavar="CLASS", default="a binary model's second"),
    ] = None,
    target: TrueValues = None,
    threshold: Threshold = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on groups of rows and compare the groups.

    It prints metrics, rates of yes with 95 % intervals, and how far apart the groups are.
    """
    from nnkit.data.pictures.columns import Pictures
    from nnkit.errors import DataError
    from nnkit.insight.audits import audit as audited
    from nnkit.insight.audits import grouping

    loaded = load_model(model)
    decision = decision_threshold(loaded, threshold)
    dataset = load_rows(loaded, data, OnBad.error, target=target)
    examples = dataset.train if dataset.test is None else dataset.test
    if examples.target is None:
        raise no_target(loaded, dataset.name)
    if isinstance(examples.features, Pictures):
        raise DataError(f"{dataset.name}: pictures have no columns to be grouped by")
    groups = grouping(examples.features, by)
    found = audited(loaded, examples.features, examples.target, groups, positive=positive, threshold=decision)
    print_object(found.to_json()) if as_json else _print_audit(found)


def _print_audit(found: Audit) -> None:
    from nnkit.insight.explanation import number_words

    yes = "" if found.positive is None else f"; a yes is {found.positive!r}"
    groups = [*found.groups, found.overall]
    rates = list(found.overall.rates)
    if rates:
        names = [name.replace("_", " ") for name in rates]
        table = made_table(
            f"by {found.by!r}{yes}; below each rate its 95 % interval", "group", "rows", *names
        )
        for group in groups:
            table.add_row(*_named(group), *(_rate_words(group.rates[name]) for name in rates))
        print_table(table)
    others = [name for name in found.overall.metrics if name not in rates]
    table = made_table(f"metrics by {found.by!r}", "group", "rows", *(n.replace("_", " ") for n in others))
    for group in groups:
        table.add_row(*_named(group), *(number_words(group.metrics[name]) for name in others))
    print_table(table)
    for group in found.groups:
        if group.few:
            typer.echo(f"* {group.name}: {group.few}; its figures say little")
    for words, differences in (("", found.differences), (" without *", found.without_few)):
        for name, difference in differences.items():
            typer.echo(_difference_words(name.replace("_", " ") + words, difference))
    for note in found.notes:
        typer.echo(note)


def _named(group: GroupFigures) -> tuple[str, str]:
    return plain(group.name) + (" *" if group.few else ""), f"{group.rows:,}"


def _rate_words(rate: Rate) -> str:
    low, high = rate.interval
    return "–" if math.isnan(rate.value) else f"{rate.value:.3f}\n{low:.2f}–{high:.2f}"


def _difference_words(name: str, found: Difference) -> str:
    if math.isnan(found.value):
        return f"{name}: fewer than two groups have rows for it"
    if found.value == 0:
        return f"{name} 0: all groups have one {found.rate.replace('_', ' ')}"
    pair = f"the {found.rate.replace('_', ' ')} of {found.most!r} over that of {found.least!r}"
    return f"{name} {found.value:.4f} ({found.low:.2f} to {found.high:.2f}), {pair}"
