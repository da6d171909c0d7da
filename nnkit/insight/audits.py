"""A model's figures group by group: whether it serves some worse, or says yes to some more often."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    "wilson_interval",
]

_Z = 1.959963984540054  # of the standard normal distribution, 97.5 % lie below
# Below 30 rows a rate's interval is some 36 points wide, at one half; of fewer than 10 of a kind, over 50.
_FEW_ROWS, _FEW_OF_A_KIND = 30, 10
_MOST_GROUPS = 100
_MISSING = "(missing)"
_MOST_VALUES = 20  # a column of numbers with more is cut at its quartiles


@dataclass(frozen=True)
class Rate:
    """A share of counted rows, with Wilson's 95 % interval; all NaN where there are none.

    Parameters
    ----------
    hits, rows : int
        So many, of so many.
    """

    hits: int
    rows: int

    @property
    def value(self) -> float:
        """The share."""
        return self.hits / self.rows if self.rows else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """From where to where it may well lie."""
        return wilson_interval(self.hits, self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        low, high = self.interval
        shown = [None if math.isnan(number) else number for number in (self.value, low, high)]
        return {"value": shown[0], "low": shown[1], "high": shown[2], "hits": self.hits, "rows": self.rows}


@dataclass(frozen=True)
class GroupFigures:
    """The figures of one group.

    Parameters
    ----------
    name : str
        The value that its rows share.
    rows : int
        How many those are.
    rates : dict of str to Rate
        ``accuracy``; of a decision also ``selection_rate``, ``true_positive_rate``, ``false_positive_rate``.
        None for a regression.
    metrics : dict of str to float
        All that apply to the task.
    few : str
        Why the group is too small to be judged by its figures; empty where it is not.
    """

    name: str
    rows: int
    rates: dict[str, Rate]
    metrics: dict[str, float]
    few: str = ""


@dataclass(frozen=True)
class Difference:
    """The greatest difference of a rate between two groups.

    Parameters
    ----------
    value : float
        NaN where fewer than two groups have the rate.
    rate : str
        Which rate.
    most, least : str
        The groups.
    low, high : float
        The 95 % interval of the difference of these two; since they were picked as the extremes, it is too
        narrow where there are many groups.
    """

    value: float
    rate: str
    most: str
    least: str
    low: float
    high: float


@dataclass(frozen=True)
class Audit:
    """What `audit` found.

    Parameters
    ----------
    by : str
        The column.
    positive : object
        The class that counts as a yes; None where nothing is decided.
    groups : list of GroupFigures
    overall : GroupFigures
        Of all rows.
    differences : dict of str to Difference
        ``demographic_parity_difference``, ``equalized_odds_difference`` and ``accuracy_difference``.
    without_few : dict of str to Difference
        The same without the groups that are too small; empty where none is.
    notes : tuple of str
        Words for the user.
    """

    by: str
    positive: Any
    groups: list[GroupFigures]
    overall: GroupFigures
    differences: dict[str, Difference] = field(default_factory=dict)
    without_few: dict[str, Difference] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values; what is not a number is null."""
        return {
            "by": self.by,
            "positive": self.positive,
            "groups": [_group_json(group) for group in self.groups],
            "overall": _group_json(self.overall),
            "differences": {name: _difference_json(found) for name, found in self.differences.items()},
            "differences_without_small_groups": {
                name: _difference_json(found) for name, found in self.without_few.items()
            },
            "notes": list(self.notes),
        }


def _group_json(group: GroupFigures) -> dict[str, Any]:
    return {
        "group": group.name,
        "rows": group.rows,
        "rates": {name: rate.to_json() for name, rate in group.rates.items()},
        "metrics": {name: _or_none(value) for name, value in group.metrics.items()},
        "small": group.few or None,
    }


def _difference_json(found: Difference) -> dict[str, Any]:
    numbers = {"value": found.value, "low": found.low, "high": found.high}
    words = {"rate": found.rate, "most": found.most, "least": found.least}
    return {**{name: _or_none(number) for name, number in numbers.items()}, **words}


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def wilson_interval(hits: int, rows: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share; NaN and NaN of no rows.

    References
    ----------
    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if rows == 0:
        return math.nan, math.nan
    share, z = hits / rows, _Z
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    reach = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    # At no hits and at nothing but hits rounding would leave the bounds a hair off 0 and 1.
    return (0.0 if hits == 0 else middle - reach), (1.0 if hits == rows else middle + reach)


def difference_interval(first: Rate, second: Rate) -> tuple[float, float]:
    """Return the 95 % interval of the difference between two independent shares, the first less the second.

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
    """The group of each row.

    Parameters
    ----------
    by : str
        What they are grouped by, in words.
    groups : ndarray of str, shape (samples,)
    order : list of str
        The groups, in the order to show them.
    notes : tuple of str
        Words for the user on how the groups were made.
    """

    by: str
    groups: NDArray
    order: list[str]
    notes: tuple[str, ...] = ()


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
        A trained one.
    X : array or table
        As `Model.predict` takes it.
    y : array_like
        The truth, as `Model.evaluate` takes it.
    groups : Grouping, or array_like of shape (samples,)
        The group of each row.
    positive : str, optional
        The class that counts as a yes: of a binary task the second one if not given. With more classes there
        are rates of yes and no only if it is given.
    threshold : float
        The probability above which a binary model says yes.

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
    if not isinstance(groups, Grouping):
        given = np.asarray(groups).astype(str)
        groups = Grouping("group", given, sorted(set(given.tolist())))
    names, distinct, by = groups.groups, groups.order, groups.by
    truth = np.asarray(y)
    if len(names) != len(truth):
        raise DataError(f"there are {len(truth)} targets and {len(names)} rows with a group")
    if len(distinct) > _MOST_GROUPS:
        raise DataError(
            f"{by!r} has {len(distinct):,} different values, and at most {_MOST_GROUPS} groups are compared: "
            "group it first"
        )
    yes = _positive(model, positive)
    outputs = model.outputs(X)
    said = asked = None
    if yes is not None:
        labels = model.target.predict(outputs, threshold)
        said, asked = labels == yes, _decoded(model, truth) == yes
    right = None
    if model.task in ("binary", "multiclass"):
        right = model.target.predict(outputs, threshold) == _decoded(model, truth)

    def figures(name: str, rows: NDArray[np.bool_]) -> GroupFigures:
        rates = _rates(rows, right, said, asked)
        metrics = model.measure(outputs[rows], truth[rows], threshold=threshold)
        return GroupFigures(name, int(rows.sum()), rates, metrics, _few(int(rows.sum()), rates))

    found = [figures(name, names == name) for name in distinct]
    overall = figures("(all)", np.ones(len(names), bool))
    large = [group for group in found if not group.few]
    some = len(large) < len(found)
    alone: tuple[str, ...] = ()
    if len(found) == 1:
        alone = (f"all rows have one {by}, {distinct[0]!r}: there is no other group to compare it with",)
    return Audit(
        by,
        None if yes is None else (yes.item() if hasattr(yes, "item") else yes),
        found,
        overall,
        _differences(found),
        _differences(large) if some else {},
        (*groups.notes, *alone),
    )


def _positive(model: Model, positive: str | None) -> Any:
    """Return the class that counts as a yes, or None."""
    if model.task not in ("binary", "multiclass"):
        if positive is not None:
            raise ConfigError(f"a {model.task} model gives no classes: leave out `positive`")
        return None
    assert model.classes is not None
    if positive is None:
        return model.target.positive
    labels = model.classes.tolist()
    known = [str(label) for label in labels]
    if positive not in known:
        raise unknown_name("class", positive, known)
    return labels[known.index(positive)]


def _decoded(model: Model, truth: NDArray) -> NDArray:
    """Return the truth in the model's own labels: a file may hold as numbers what another holds as text."""
    assert model.classes is not None
    return model.classes[model.target.codes(truth)]


def _rates(
    rows: NDArray[np.bool_],
    right: NDArray[np.bool_] | None,
    said: NDArray[np.bool_] | None,
    asked: NDArray[np.bool_] | None,
) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    count = int(rows.sum())
    if right is not None:
        rates["accuracy"] = Rate(int(right[rows].sum()), count)
    if said is not None and asked is not None:
        yes, no = rows & asked, rows & ~asked
        rates["selection_rate"] = Rate(int(said[rows].sum()), count)
        rates["true_positive_rate"] = Rate(int(said[yes].sum()), int(yes.sum()))
        rates["false_positive_rate"] = Rate(int(said[no].sum()), int(no.sum()))
    return rates


def _few(rows: int, rates: Mapping[str, Rate]) -> str:
    if rows < _FEW_ROWS:
        return f"fewer than {_FEW_ROWS} rows"
    for name, kind in (("true_positive_rate", "yes"), ("false_positive_rate", "no")):
        if name in rates and rates[name].rows < _FEW_OF_A_KIND:
            return f"fewer than {_FEW_OF_A_KIND} rows whose truth is {kind}"
    return ""


def _differences(groups: list[GroupFigures]) -> dict[str, Difference]:
    """Return the differences there are between groups."""
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
    having = [group for group in groups if group.rates[name].rows]
    if len(having) < 2:
        return Difference(math.nan, name, "", "", math.nan, math.nan)
    most = max(having, key=lambda group: group.rates[name].value)
    least = min(having, key=lambda group: group.rates[name].value)
    low, high = difference_interval(most.rates[name], least.rates[name])
    value = most.rates[name].value - least.rates[name].value
    return Difference(value, name, most.name, least.name, low, high)


def grouping(features: pa.Table | NDArray, by: str) -> Grouping:
    """Return the groups that a column parts the rows in; many different numbers are cut at their quartiles.

    Parameters
    ----------
    features : pyarrow.Table or ndarray of shape (samples, columns)
        Rows as a source has them, columns that the model does not take among them.
    by : str
        A name, or a number.

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
        places = np.searchsorted(cuts, values, side="left")  # an equal value is of the lower group
        notes = (f"{name!r} has {len(distinct):,} different numbers: its quarters are compared",)
    words.append(_MISSING)
    places[missing] = len(words) - 1
    groups = np.array(words, dtype=object)[places]
    found = set(places.tolist())
    return Grouping(name, groups, [word for place, word in enumerate(words) if place in found], notes)
