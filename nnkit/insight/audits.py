"""A model's figures group by group: whether it is less accurate, or more often positive, for some."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.errors import ConfigError, DataError, unknown_name
from nnkit.model import Model

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Audit",
    "Difference",
    "GroupFigures",
    "Grouping",
    "Rate",
    "audit",
    "difference_interval",
    "grouping",
]

# Below 30 rows the interval of a rate of one half is about 36 points wide; below 10 it is over 50.
_FEW_ROWS, _FEW_OF_A_KIND = 30, 10
_MOST_GROUPS = 100
_MISSING = "(missing)"
_MOST_VALUES = 20  # a column of numbers with more is cut at its quartiles


@dataclass(frozen=True)
class Rate:
    """The share `hits` of `rows`, with its 95 % interval; all NaN where there are no rows."""

    hits: int
    rows: int

    @property
    def value(self) -> float:
        """The share."""
        return self.hits / self.rows if self.rows else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % score interval of Wilson 1927."""
        from scipy.stats import binomtest

        if not self.rows:
            return math.nan, math.nan
        found = binomtest(self.hits, self.rows).proportion_ci(0.95, "wilson")
        return float(found.low), float(found.high)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        value, low, high = map(_or_none, (self.value, *self.interval))
        return {"value": value, "low": low, "high": high, "hits": self.hits, "rows": self.rows}


@dataclass(frozen=True)
class GroupFigures:
    """The figures of one group.

    The rates are ``accuracy``, and where there is a positive class ``selection_rate``, ``true_positive_rate``
    and ``false_positive_rate``; a regression has none.
    """

    name: str  # the value that its rows share
    rows: int
    rates: dict[str, Rate]
    metrics: dict[str, float]  # all that apply to the task
    few: str = ""  # why the group is too small to judge; empty where it is not

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return {
            "group": self.name,
            "rows": self.rows,
            "rates": {name: rate.to_json() for name, rate in self.rates.items()},
            "metrics": {name: _or_none(value) for name, value in self.metrics.items()},
            "small": self.few or None,
        }


@dataclass(frozen=True)
class Difference:
    """The largest difference of a rate between two groups, with its 95 % interval.

    The groups were picked as the extremes: where there are many groups, the interval is too narrow.
    """

    value: float  # NaN where fewer than two groups have the rate
    low: float
    high: float
    rate: str  # its name
    most: str  # the group with the highest rate
    least: str  # the group with the lowest

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        found = asdict(self)
        return {**found, **{name: _or_none(found[name]) for name in ("value", "low", "high")}}


@dataclass(frozen=True)
class Audit:
    """The result of `audit`.

    Parameters
    ----------
    by : str
        The column.
    positive : object
        The positive class; None where there is none.
    groups : list of GroupFigures
    overall : GroupFigures
        Of all rows.
    differences : dict of str to Difference
        ``demographic_parity_difference``, ``equalized_odds_difference`` and ``accuracy_difference``.
    without_few : dict of str to Difference
        The same without the groups that are too small; empty where no group is.
    notes : tuple of str
        Notes for the user.
    """

    by: str
    positive: Any
    groups: list[GroupFigures]
    overall: GroupFigures
    differences: dict[str, Difference] = field(default_factory=dict)
    without_few: dict[str, Difference] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values; a number that is not finite is null."""
        return {
            "by": self.by,
            "positive": self.positive,
            "groups": [group.to_json() for group in self.groups],
            "overall": self.overall.to_json(),
            "differences": {name: found.to_json() for name, found in self.differences.items()},
            "differences_without_small_groups": {
                name: found.to_json() for name, found in self.without_few.items()
            },
            "notes": list(self.notes),
        }


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def difference_interval(first: Rate, second: Rate) -> tuple[float, float]:
    """Return the 95 % interval of the first share less the second, of independent samples.

    References
    ----------
    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    low1, high1 = first.interval
    low2, high2 = second.interval
    difference = first.value - second.value
    return (
        difference - math.hypot(first.value - low1, high2 - second.value),
        difference + math.hypot(high1 - first.value, second.value - low2),
    )


@dataclass(frozen=True, eq=False)
class Grouping:
    """The group of each row."""

    by: str  # the column's name
    groups: NDArray  # texts, shape (samples,)
    order: list[str]  # the groups, in the order to show them
    notes: tuple[str, ...] = ()  # for the user, on how the groups were made


def audit(
    model: Model,
    X: Any,
    y: ArrayLike,
    groups: Grouping | ArrayLike,
    *,
    positive: str | None = None,
    threshold: float = 0.5,
) -> Audit:
    """Measure a model on each group of rows.

    Parameters
    ----------
    model : Model
    X, y : array or table, array_like
        Rows and their true targets, as `Model.evaluate` takes them.
    groups : Grouping, or array_like of shape (samples,)
        The group of each row.
    positive : str, optional
        The positive class: the second of a binary task if not given. With more classes there are rates of
        positives only if it is given.
    threshold : float
        The probability above which a binary model predicts the positive class.

    Raises
    ------
    ConfigError
        If `positive` is no class of the model's.
    DataError
        If the rows do not match the model, or there are too many groups.

    References
    ----------
    Hardt, Price and Srebro 2016, "Equality of Opportunity in Supervised Learning", arXiv:1610.02413. The
    differences are those of fairlearn's functions of the same names.
    """
    # Long for its documentation.
    if not isinstance(groups, Grouping):
        given = np.asarray(groups).astype(str)
        groups = Grouping("group", given, sorted(set(given.tolist())))
    names, truth = groups.groups, np.asarray(y)
    _check_groups(groups, len(truth))
    yes = _positive(model, positive)
    outputs = model.outputs(X)
    marks = _marks(model, outputs, truth, yes, threshold)

    def figures(name: str, rows: NDArray[np.bool_]) -> GroupFigures:
        rates = _rates(rows, *marks)
        metrics = model.measure(outputs[rows], truth[rows], threshold=threshold)
        return GroupFigures(name, int(rows.sum()), rates, metrics, _few(int(rows.sum()), rates))

    found = [figures(name, names == name) for name in groups.order]
    overall = figures("(all)", np.ones(len(names), bool))
    large = [group for group in found if not group.few]
    without_few = _differences(large) if len(large) < len(found) else {}
    notes = groups.notes
    if len(found) == 1:
        notes += (
            f"all rows have one {groups.by}, {found[0].name!r}: there is no other group to compare it with",
        )
    yes = yes.item() if hasattr(yes, "item") else yes
    return Audit(groups.by, yes, found, overall, _differences(found), without_few, notes)


def _check_groups(groups: Grouping, targets: int) -> None:
    if len(groups.groups) != targets:
        raise DataError(f"there are {targets} targets and {len(groups.groups)} rows with a group")
    if len(groups.order) > _MOST_GROUPS:
        raise DataError(
            f"{groups.by!r} has {len(groups.order):,} different values, and at most {_MOST_GROUPS} groups "
            "are compared: group it first"
        )


def _positive(model: Model, positive: str | None) -> Any:
    """Return the positive class, or None."""
    if model.task not in ("binary", "multiclass"):
        if positive is not None:
            raise ConfigError(f"a {model.task} model has no classes: leave out `positive`")
        return None
    if positive is None:
        return model.target.positive
    assert model.classes is not None
    labels = model.classes.tolist()
    known = [str(label) for label in labels]
    if positive not in known:
        raise unknown_name("class", positive, known)
    return labels[known.index(positive)]


def _marks(
    model: Model, outputs: NDArray, truth: NDArray, yes: Any, threshold: float
) -> tuple[NDArray[np.bool_] | None, ...]:
    """Return which rows are predicted right, predicted as `yes`, and truly `yes`; None if undefined."""
    if model.classes is None or model.task not in ("binary", "multiclass"):
        return None, None, None
    # In the model's own labels: a file may hold as numbers what another holds as text.
    predicted, decoded = model.target.predict(outputs, threshold), model.classes[model.target.codes(truth)]
    return predicted == decoded, *((None, None) if yes is None else (predicted == yes, decoded == yes))


def _rates(
    rows: NDArray[np.bool_],
    right: NDArray[np.bool_] | None,
    selected: NDArray[np.bool_] | None,
    true: NDArray[np.bool_] | None,
) -> dict[str, Rate]:
    """Return the rates of some rows: of right predictions, and of positive ones."""
    rates: dict[str, Rate] = {}
    if right is not None:
        rates["accuracy"] = Rate(int(right[rows].sum()), int(rows.sum()))
    if selected is not None and true is not None:
        among = {"selection": rows, "true_positive": rows & true, "false_positive": rows & ~true}
        for name, part in among.items():
            rates[f"{name}_rate"] = Rate(int(selected[part].sum()), int(part.sum()))
    return rates


def _few(rows: int, rates: Mapping[str, Rate]) -> str:
    """Return why a group is too small to judge."""
    if rows < _FEW_ROWS:
        return f"fewer than {_FEW_ROWS} rows"
    for name, kind in (("true_positive_rate", "positive"), ("false_positive_rate", "negative")):
        if name in rates and rates[name].rows < _FEW_OF_A_KIND:
            return f"fewer than {_FEW_OF_A_KIND} {kind} rows"
    return ""


def _differences(groups: list[GroupFigures]) -> dict[str, Difference]:
    if len(groups) < 2 or not groups[0].rates:
        return {}
    found = {"accuracy_difference": _difference(groups, "accuracy")}
    if "selection_rate" in groups[0].rates:
        odds = [_difference(groups, name) for name in ("true_positive_rate", "false_positive_rate")]
        defined = [one for one in odds if not math.isnan(one.value)] or odds
        found["demographic_parity_difference"] = _difference(groups, "selection_rate")
        found["equalized_odds_difference"] = max(defined, key=lambda one: one.value)
    return found


def _difference(groups: list[GroupFigures], name: str) -> Difference:
    rates = {group.name: group.rates[name] for group in groups if group.rates[name].rows}
    if len(rates) < 2:
        return Difference(math.nan, math.nan, math.nan, name, "", "")
    most = max(rates, key=lambda group: rates[group].value)
    least = min(rates, key=lambda group: rates[group].value)
    interval = difference_interval(rates[most], rates[least])
    return Difference(rates[most].value - rates[least].value, *interval, name, most, least)


def grouping(features: pa.Table | NDArray, by: str) -> Grouping:
    """Return the groups of a column's values; more than 20 different numbers are cut at their quartiles.

    Parameters
    ----------
    features : pyarrow.Table or ndarray of shape (samples, columns)
        Rows as a source has them, with the columns that the model does not use.
    by : str
        A column's name, or its number.

    Raises
    ------
    DataError
        If there is no such column.
    """
    from nnkit.data.arrays.reading import column_index
    from nnkit.data.tables.columns import column_kind, numbers, texts
    from nnkit.data.tables.frames import column_name

    if isinstance(features, np.ndarray):
        place = column_index(by, features.shape[1], "`by`")
        return _numeric_groups(features[:, place].astype(np.float64), str(place))
    name = column_name(by, features.column_names)
    kind = column_kind(name, features[name].type)
    if kind in ("number", "time"):
        return _numeric_groups(numbers(name, features[name], kind), name)
    encoded = texts(name, features[name])
    labels = [_MISSING if label is None else label for label in encoded.dictionary.to_pylist()]
    places = encoded.indices.to_numpy(zero_copy_only=False)
    return Grouping(name, np.array(labels, dtype=object)[places], sorted(set(labels)))


def _numeric_groups(values: NDArray[np.float64], name: str) -> Grouping:
    missing = np.isnan(values)
    distinct = np.unique(values[~missing])
    notes: tuple[str, ...] = ()
    if len(distinct) <= _MOST_VALUES:
        words = [f"{value:.15g}" for value in distinct]
        places = np.searchsorted(distinct, values)
    else:
        cuts = np.unique(np.quantile(values[~missing], [0.25, 0.5, 0.75]))
        edges = [f"{cut:.4g}" for cut in cuts]
        if len(set(edges)) < len(edges):
            edges = [f"{cut:.17g}" for cut in cuts]
        words = [f"up to {edges[0]}", *(f"{a} to {b}" for a, b in pairwise(edges)), f"above {edges[-1]}"]
        places = np.searchsorted(cuts, values, side="left")  # an equal value is in the lower group
        notes = (f"{name!r} has {len(distinct):,} different numbers: its four quarters are compared",)
    words.append(_MISSING)
    places[missing] = len(words) - 1
    groups = np.array(words, dtype=object)[places]
    found = set(places.tolist())
    return Grouping(name, groups, [word for place, word in enumerate(words) if place in found], notes)
