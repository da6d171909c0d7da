"""What `nnkit explain` and `nnkit audit` do between reading their arguments and printing tables."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from nnkit.checks import whole
from nnkit.data.examples import Dataset, Examples
from nnkit.data.pictures import Pictures
from nnkit.errors import ConfigError, DataError
from nnkit.insight.audits import Audit, Difference, GroupFigures, Rate, audit, grouping
from nnkit.insight.explanation import Explanation, number_words
from nnkit.insight.importance import Importance, permutation_importance
from nnkit.insight.subject import drawn_examples
from nnkit.model import Model

__all__ = ["METHODS", "Method", "Settings", "audit_data", "explain_data"]

Method = Literal["permutation", "gradients", "shap", "lime"]
METHODS: tuple[Method, ...] = ("permutation", "gradients", "shap", "lime")
_MOST_SHOWN, _TERMS_SHOWN = 30, 15
# Rows at most, unless said otherwise: drawn by the seed. lime fits 5,000 perturbed rows for each.
_MOST_ROWS: dict[Method, int] = {"permutation": 5000, "gradients": 200, "shap": 50, "lime": 20}
_MOST_BACKGROUND = 1000


@dataclass(frozen=True)
class Settings:
    """How `nnkit explain` was asked.

    Parameters
    ----------
    method : {"permutation", "gradients", "shap", "lime"}, optional
        Gradients for one row, and else permutation, if not given.
    row : int, optional
        Counted from 1.
    label : str, optional
        The class or the target column explained.
    metric : str, optional
        Of permutation importance.
    repeats : int
        Of permutation importance.
    rows : int, optional
        How many rows at most.
    baseline : {"mean", "zero"}
        Of gradients.
    seed : int
    out : Path, optional
        A picture of the row's explanation.
    """

    method: Method | None = None
    row: int | None = None
    label: str | None = None
    metric: str | None = None
    repeats: int = 5
    rows: int | None = None
    baseline: Literal["mean", "zero"] = "mean"
    seed: int = 0
    out: Path | None = None

    @property
    def chosen(self) -> Method:
        """The method."""
        return self.method or ("permutation" if self.row is None else "gradients")

    def check(self) -> None:
        """Raise `ConfigError` where a number is out of its range or two settings do not go together."""
        if self.chosen == "permutation":
            given = {"--row": self.row, "--class": self.label, "--out": self.out}
            why = "permutation importance is of all rows"
        else:
            given, why = {"--metric": self.metric}, f"{self.chosen} explains outputs, not a metric"
        for name, value in given.items():
            if value is not None:
                raise ConfigError(f"{why}: leave out {name}, or choose another --method")
        if self.out is not None and self.row is None:
            raise ConfigError(f"--out {self.out} is a picture of one row: say which with --row")
        whole("--seed", self.seed, 0, 2**32 - 1)
        if self.rows is not None:
            whole("--rows", self.rows, 1)


def explain_data(model: Model, dataset: Dataset, settings: Settings, as_json: bool) -> None:
    """Explain a model on a dataset, its test set where it has one, and print what was found.

    Raises
    ------
    ConfigError
        If the settings do not go together or a package is missing.
    DataError
        If the rows do not match the model, or there is no such row.
    """
    settings.check()
    examples = dataset.train if dataset.test is None else dataset.test
    if settings.chosen == "permutation":
        importance = _importance(model, dataset.name, examples, settings)
        _print_json(importance.to_json()) if as_json else _print_importance(importance)
        return
    explanation = _explanation(model, dataset.name, examples, settings)
    if settings.row is not None and settings.out is not None:
        from nnkit.insight.waterfall import write_waterfall

        title = f"row {settings.row} of {dataset.name}: what contributes ({explanation.method})"
        write_waterfall(explanation, 0, settings.out, title, _values(examples, settings.row - 1))
    if as_json:
        row = {"row": settings.row, **explanation.row_json(0)} if settings.row is not None else None
        _print_json(explanation.to_json() if row is None else row)
    elif settings.row is not None:
        _print_row(explanation, settings.row, _values(examples, settings.row - 1))
    else:
        _print_sizes(explanation)
    if settings.out is not None and not as_json:
        print(f"picture  {settings.out}")


def _importance(model: Model, name: str, examples: Examples, settings: Settings) -> Importance:
    if examples.target is None:
        raise DataError(
            f"{name}: permutation importance compares with the target, and there is no target column "
            f"{', '.join(model.target.names)}; choose --method gradients"
        )
    most = _MOST_ROWS["permutation"] if settings.rows is None else settings.rows
    taken = drawn_examples(examples, most, settings.seed)
    assert taken.target is not None
    return permutation_importance(
        model, taken.features, taken.target, settings.metric, repeats=settings.repeats, seed=settings.seed
    )


def _explanation(model: Model, name: str, examples: Examples, settings: Settings) -> Explanation:
    method = settings.chosen
    background = drawn_examples(examples, _MOST_BACKGROUND, settings.seed).features
    if settings.row is None:
        most = _MOST_ROWS[method] if settings.rows is None else settings.rows
        rows = drawn_examples(examples, most, settings.seed).features
    else:
        if not 1 <= settings.row <= len(examples):
            raise DataError(f"{name} has rows 1 to {len(examples):,}, and no row {settings.row}")
        rows = examples.take(np.array([settings.row - 1])).features
    given: dict[str, Any] = {"background": background, "label": settings.label}
    if method == "gradients":
        from nnkit.insight.attributions import integrated_gradients

        return integrated_gradients(model, rows, baseline=settings.baseline, **given)
    from nnkit.insight.perturbations import lime_values, shap_values

    if isinstance(rows, Pictures):
        raise DataError(
            f"{method} is not for the thousands of pixels of a picture: choose --method gradients"
        )
    return (shap_values if method == "shap" else lime_values)(model, rows, seed=settings.seed, **given)


def _values(examples: Examples, row: int) -> dict[str, str]:
    """Return a row's values in the user's own words."""
    features: Any = examples.features
    if isinstance(features, Pictures):
        return {}
    if isinstance(features, np.ndarray):
        return {str(place): f"{value:g}" for place, value in enumerate(features[row].tolist())}
    return {name: _shown(features[name][row].as_py()) for name in features.column_names}


def _shown(value: Any) -> str:
    if value is None:
        return "(missing)"
    words = f"{value:g}" if isinstance(value, float) else str(value)
    return words if len(words) <= 40 else words[:39] + "…"


def audit_data(
    model: Model,
    dataset: Dataset,
    by: str,
    positive: str | None,
    threshold: float,
    as_json: bool,
) -> None:
    """Audit a model on a dataset, its test set where it has one, and print what was found.

    Raises
    ------
    ConfigError
        If the class is unknown.
    DataError
        If there is no such column or no target.
    """
    examples = dataset.train if dataset.test is None else dataset.test
    if examples.target is None:
        raise DataError(
            f"{dataset.name}: there is no target column {', '.join(model.target.names)} to compare with"
        )
    if isinstance(examples.features, Pictures):
        raise DataError(f"{dataset.name}: pictures have no columns to be grouped by")
    groups = grouping(examples.features, by)
    found = audit(model, examples.features, examples.target, groups, positive=positive, threshold=threshold)
    _print_json(found.to_json()) if as_json else _print_audit(found)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, allow_nan=False))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    return table


def _print(table: Table) -> None:
    Console(soft_wrap=True).print(table)


def _print_importance(importance: Importance) -> None:
    name = importance.metric.replace("_", " ")
    title = f"permutation importance on {importance.rows:,} rows: by how much {name}, "
    title += f"{importance.baseline:,.4f}, gets worse"
    table = _table(title, "column", "importance", "± deviation")
    order = np.argsort(-importance.mean, kind="stable")
    for place in order[:_MOST_SHOWN]:
        mean, deviation = importance.mean[place], importance.deviation[place]
        table.add_row(_plain(importance.columns[place]), f"{mean:,.4f}", f"{deviation:,.4f}")
    _print(table)
    _print_left_out(len(order))


def _print_sizes(explanation: Explanation) -> None:
    what = explanation.to_json()
    title = f"{explanation.method} on {what['rows']:,} rows: contributions to {what['output']}"
    table = _table(_plain(title), "column", "mean size", "mean")
    for column in what["columns"][:_MOST_SHOWN]:
        sizes = [number_words(column[key]) for key in ("mean_size", "mean")]
        table.add_row(_plain(column["column"]), *sizes)
    _print(table)
    _print_left_out(len(what["columns"]))


def _print_row(explanation: Explanation, row: int, values: dict[str, str]) -> None:
    output, base = number_words(explanation.outputs[0]), number_words(explanation.base[0])
    what = f"{explanation.names[0]} {output}, {base} at the baseline"
    table = _table(_plain(f"row {row} ({explanation.method}): {what}"), "column", "value", "contribution")
    ranked = explanation.ranked(0)
    for name, value in ranked[:_MOST_SHOWN]:
        table.add_row(_plain(name), _plain(values.get(name, "")), number_words(value, sign=True))
    gap = float(explanation.gap[0])
    if abs(gap) > 0.01 * float(np.abs(explanation.contributions[0]).sum()):
        table.add_row("(unexplained)", "", number_words(gap, sign=True))
    _print(table)
    _print_left_out(len(ranked))
    for column, terms in (explanation.terms[0] if explanation.terms else {}).items():
        table = _table(_plain(f"the terms of {column!r}"), "term", "contribution")
        for term, value in terms[:_TERMS_SHOWN]:
            table.add_row(_plain(_quoted(term)), number_words(value, sign=True))
        _print(table)
        if len(terms) > _TERMS_SHOWN:
            print(f"and {len(terms) - _TERMS_SHOWN:,} more terms; --json has all")


def _quoted(term: str) -> str:
    """Return a term in quotes, which show its spaces; what kind it is stays outside."""
    bare = term.removesuffix(" (characters)")
    return f"{bare!r}{term[len(bare) :]}"


def _print_left_out(count: int) -> None:
    if count > _MOST_SHOWN:
        print(f"and {count - _MOST_SHOWN:,} more columns; --json has all")


def _print_audit(found: Audit) -> None:
    yes = "" if found.positive is None else f"; a yes is {found.positive!r}"
    groups = [*found.groups, found.overall]
    rates = list(found.overall.rates)
    if rates:
        names = [name.replace("_", " ") for name in rates]
        table = _table(
            _plain(f"by {found.by!r}{yes}; below each rate its 95 % interval"), "group", "rows", *names
        )
        for group in groups:
            table.add_row(*_named(group), *(_rate_words(group.rates[name]) for name in rates))
        _print(table)
    others = [name for name in found.overall.metrics if name not in rates]
    table = _table(
        _plain(f"metrics by {found.by!r}"), "group", "rows", *(n.replace("_", " ") for n in others)
    )
    for group in groups:
        table.add_row(*_named(group), *(number_words(group.metrics[name]) for name in others))
    _print(table)
    for group in found.groups:
        if group.few:
            print(f"* {group.name}: {group.few}; its figures say little")
    for words, differences in (("", found.differences), (" without *", found.without_few)):
        for name, difference in differences.items():
            print(_difference_words(name.replace("_", " ") + words, difference))
    for note in found.notes:
        print(note)


def _named(group: GroupFigures) -> tuple[str, str]:
    return _plain(group.name) + (" *" if group.few else ""), f"{group.rows:,}"


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


def _plain(words: str) -> str:
    """Return words that Rich prints as they are: [brackets] would be markup."""
    return words.replace("[", r"\[")
