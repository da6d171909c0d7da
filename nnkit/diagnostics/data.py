"""Findings of the rows, before training, on a sample that is the same each time.

What the sample shows of a column is confirmed in all rows where they are quickly read; else the finding says
that it is of a sample.

Order: the checks together, the sample, the checks of columns, of the classes, of rows in both shares. The
pixels of pictures, texts and sparse columns are not checked one by one: only whole rows are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nnkit.diagnostics.findings import Finding
from nnkit.feed.features import Features

__all__ = ["check_data", "sample_rows"]

# The sample of rows: with 2,000 a share is known within two percent (binomial, two standard deviations).
_SAMPLE = 2_000
# Rows compared between training and validation; the first are held in memory.
_MOST_COMPARED, _MOST_HELD_OUT = 20_000, 2_000
_MOST_BYTES = 2**26  # of rows that may lie on a disk
_MOST_COLUMNS = 2_000  # looked at one by one; of more, as many evenly spread
_MOST_VALUES = 2**23  # of suspected columns that are read in all rows, not in the sample alone
_MOST_NAMED = 3  # in a message

# The error surface of a linear unit is as many times steeper in one direction than in another as the
# features' variances differ (LeCun et al. 1998, "Efficient BackProp", sections 4.3 and 5): two orders of
# magnitude in scale make that ten thousand.
_SCALE_RATIO = 100.0
# Initial weights suit inputs of about unit variance (Glorot and Bengio 2010; He et al. 2015); with inputs 100
# times as large, outputs and loss begin 100 times too large.
_LARGE_SCALE = 100.0
# |correlation| of two columns that differ in their unit only: float32 has seven digits. The closest different
# pair in the built-in data, radius and perimeter of breast_cancer, has 0.9979.
_SAME = 1 - 1e-6
# The strength of a feature that alone decides nearly all classes, or ranks nearly all values: "surprisingly
# strong" single features are how leaks are found (Kaufman et al. 2012, "Leakage in data mining", section
# 5). The strongest in the built-in data, which have no leaks: 0.91 in iris, and of regressions 0.68.
_LEAK = 0.98
_LEAK_RANK = 0.998
_FEWEST_LEAK_ROWS = 40  # two rows in a class tell nothing
# From the largest to the smallest class: KEEL files data sets under "imbalanced, ratio higher than 9"
# (Alcalá-Fdez et al. 2011), and Google's machine-learning guide calls less than 1 % extreme.
_IMBALANCE, _EXTREME_IMBALANCE = 9.0, 99.0
# What balanced weights do (one split of each table; log loss, then F1 at a probability of 0.5, and in
# brackets without weights at the threshold that validation chose): caravan 0.204 to 0.378, F1 0 to 0.126
# (0.206); email 0.234 to 0.247, F1 0.291 to 0.597 (0.435). Of more than two classes, hpc: log loss 0.493 to
# 0.507, balanced accuracy 0.757 to 0.759; so there the weights are not advised.
_OF_TWO = (
    "Judge by f1 or average_precision, and decide by a threshold: nnkit evaluate tells the best on the "
    'validation rows. training.class_weight = "balanced" moves decisions too, but its probabilities are no '
    "frequencies: log_loss grows."
)
_OF_MORE = "Judge by balanced_accuracy, which counts each class alike."
_FEWEST_OF_CLASS = 100  # rows; with fewer in all, ratios are chance
# A tenth of CIFAR-100's test pictures had a duplicate among those to train on, and published errors were 9 to
# 14 % too low (Barz and Denzler 2020, "Do we train on test data?", arXiv:1902.00423).
_SHARED = 0.10
# Rows that repeat anyway, as short messages do, repeat in both shares: what counts is how much more often
# validation rows have duplicates than training rows, unless there are so many that they must have been
# copied. (Measured: 14 % in SMS spam, and as many within its training rows.)
_COPIED = 0.30


def check_data(
    features: Features,
    targets: NDArray,
    validation: tuple[Features, NDArray] | None = None,
    names: Sequence[str] = (),
    scaled: bool = True,
    classes: Sequence[str] | None = None,
    constant: Sequence[str] = (),
    flags: int = 0,
) -> list[Finding]:
    """Return the findings of a sample of the rows.

    Parameters
    ----------
    features, targets
        The rows to train on, encoded.
    validation : (Features, targets), optional
        Those held out.
    names : sequence of str
        The names of the columns of numbers, of those that their flags belong to, then of those of codes.
    scaled : bool
        Whether the features were scaled.
    classes : sequence of str, optional
        The labels, in a classification without class weights.
    constant : sequence of str
        Columns with one value, which the preprocessing has left out.
    flags : int
        How many of the last dense columns are flags of missing numbers. They are not compared with others:
        one may be 0 in every row of a sample, and columns are often missing together.
    """
    rows = sample_rows(len(features), _SAMPLE)
    found = []
    if constant:
        named, keys = _listed(list(map(repr, constant))), _listed([f'"{name}"' for name in constant], "...")
        change = f"Set data.drop = [{keys}] if that is intended; else correct the file."
        found.append(_constant(named, len(constant), f"{len(features):,} rows", ", and is left out", change))
    by_column = features.picture is None and len(features) > 1
    if (features.dense.shape[1] > 0 or features.codes is not None) and (by_column or not scaled):
        table = _Table(features, rows, names, flags)
        found += [] if scaled else _scales(table, features)
        if by_column:
            found += [*_constants(table), *_duplicated(table), *_leaks(table, targets[rows])]
    if classes is not None:
        found += _imbalance(targets, classes)
    if validation is not None:
        found += _shared_rows(features, targets, *validation)
    return found


# --- the sample ---


def sample_rows(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` row numbers, ascending: one from each of equal stretches, always the same.

    With stretches, a data set sorted by class keeps its proportions; with a random row from each, a periodic
    one does.
    """
    if count <= most:
        return np.arange(count, dtype=np.int64)
    edges = np.arange(most + 1, dtype=np.int64) * count // most
    drawn = np.random.Generator(np.random.Philox(0)).random(most)
    return edges[:-1] + (drawn * np.diff(edges)).astype(np.int64)


class _Table:
    """Sampled rows as columns of float64: the numbers as the network receives them, flags, then codes."""

    def __init__(self, features: Features, rows: NDArray[np.int64], names: Sequence[str], flags: int) -> None:
        numbers = features.dense.shape[1]
        width = numbers + (0 if features.codes is None else features.codes.shape[1])
        self.columns = sample_rows(width, _MOST_COLUMNS)
        self.values = _values(features.take(rows), self.columns)
        self._features = features
        of_numbers = self.columns[self.columns < numbers]
        self.numbers = int(np.sum(of_numbers < numbers - flags))
        self.compared = np.ones(len(self.columns), bool)
        self.compared[self.numbers : len(of_numbers)] = False
        self.all = width - flags
        self._names = names if len(names) == width else [f"column {column}" for column in range(width)]

    def name(self, column: int) -> str:
        name = self._names[int(self.columns[column])]
        return name if name.startswith("column ") else repr(name)

    @property
    def rows(self) -> str:
        """What rows `values` has: all, or a sample."""
        count, all_rows = len(self.values), len(self._features)
        return f"{count:,} rows" if count == all_rows else f"a sample of {count:,} of {all_rows:,} rows"

    def confirming(self, columns: NDArray[np.intp]) -> tuple[NDArray[np.float64], str]:
        """Return columns in all rows, or in the sample where that takes long; and what rows these are."""
        count = len(self._features)
        if len(self.values) == count or self._features.mapped or count * len(columns) > _MOST_VALUES:
            return self.values[:, columns], self.rows
        return _values(self._features, self.columns[columns]), f"{count:,} rows"

    def told(self, column: int) -> str:
        """Return what a column says: its name, or for a flag that the column is missing."""
        name = self.name(column)
        return name if self.compared[column] else f"whether {name} is missing"

    def listed(self, columns: Sequence[int]) -> str:
        return _listed([self.name(column) for column in columns])


def _values(features: Features, columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return columns of numbers, as the network receives them, and of codes, which come after them."""
    width = features.dense.shape[1]
    of_numbers, of_codes = columns[columns < width], columns[columns >= width] - width
    rows = slice(None) if features.rows is None else features.rows[:, None]
    numbers: NDArray[np.float64] = features.dense[rows, of_numbers].astype(np.float64)
    if features.shift is not None:
        numbers -= features.shift[of_numbers]
    if features.scale is not None:
        numbers *= features.scale[of_numbers]
    return numbers if features.codes is None else np.hstack([numbers, features.codes[:, of_codes]])


def _listed(names: Sequence[str], more: str = "") -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(names[:_MOST_NAMED])
    rest = len(names) - _MOST_NAMED
    if rest <= 0:
        return shown
    return f"{shown}, {more}" if more else f"{shown} and {rest} more"


def _drop(table: _Table, columns: Sequence[int]) -> str:
    """Return the setting that leaves columns out."""
    # A column and its flag have one name.
    keys = list(dict.fromkeys(table.name(column).removeprefix("column ") for column in columns))
    keys = [f'"{key[1:-1]}"' if key[:1] in "'\"" else key for key in keys]
    return f"data.drop = [{_listed(keys, '...')}]"


# --- columns ---


def _scales(table: _Table, features: Features) -> list[Finding]:
    numbers: NDArray[np.float64] = table.values[:, : table.numbers]
    scales = np.sqrt(np.mean(numbers**2, axis=0)) if len(numbers) else np.zeros(0)
    present = np.flatnonzero(scales > 0)
    if not len(present):
        return []
    least, most = (int(present[pick(scales[present])]) for pick in (np.argmin, np.argmax))
    ratio = float(scales[most] / scales[least])
    picture = features.picture is not None
    if (picture or ratio < _SCALE_RATIO) and scales[most] < _LARGE_SCALE:
        return []
    if picture or ratio < _SCALE_RATIO:
        seen = f"features of a size of up to {scales[most]:.3g} (root mean square in {table.rows})"
        why = "Initial weights suit inputs of a size near 1; larger ones make outputs and gradients explode."
    else:
        sizes = f"{scales[least]:.3g} in {table.name(least)} and {scales[most]:.3g} in {table.name(most)}"
        seen = f"features differ {ratio:,.0f}-fold in scale (root mean square in {table.rows}: {sizes})"
        why = (
            "One learning rate cannot suit all of them: too large for the largest feature, it is too small "
            "for the others."
        )
    return [Finding("unscaled_features", "serious", seen, why, 'Set data.scaling = "standardize".')]


def _constants(table: _Table) -> list[Finding]:
    if not table.all:
        return []
    suspects = np.flatnonzero(table.compared & (np.ptp(table.values, axis=0) == 0))
    values, rows = table.confirming(suspects)
    constant = suspects[np.ptp(values, axis=0) == 0].tolist()
    change = f"Leave them out: {_drop(table, constant)}."
    return [_constant(table.listed(constant), len(constant), rows, "", change)] if constant else []


def _constant(named: str, count: int, rows: str, left_out: str, change: str) -> Finding:
    seen = f"{named} {'has one value' if count == 1 else 'have one value each'} in {rows}"
    why = f"A constant cannot tell one row from another{left_out}."
    return Finding("constant_features", "notice", seen, why, change)


def _duplicated(table: _Table) -> list[Finding]:
    """Find columns that differ in shift and scale only.

    Equal columns have equal products with a random vector: sorted by them, they are neighbours.
    """
    varied = np.flatnonzero(table.compared & (np.ptp(table.values, axis=0) > 0))
    if len(varied) < 2 or len(table.values) < 3:
        return []
    units = _units(table.values[:, varied])
    probe = np.random.Generator(np.random.Philox(1)).standard_normal(len(units))
    order = np.argsort(np.abs(probe @ units), kind="stable")
    alike = np.abs(np.einsum("ij,ij->j", units[:, order[:-1]], units[:, order[1:]])) > _SAME
    neighbours = np.stack([varied[order[:-1]], varied[order[1:]]], axis=1)[alike]
    suspects, places = np.unique(neighbours, return_inverse=True)
    values, rows = table.confirming(suspects)
    firsts, seconds = _units(values)[:, places.reshape(-1, 2).T].swapaxes(0, 1)
    alike = np.abs(np.einsum("ij,ij->j", firsts, seconds)) > _SAME
    pairs = sorted(sorted(pair) for pair in neighbours[alike].tolist())
    if not pairs:
        return []
    repeats = _listed([f"{table.name(second)} repeats {table.name(first)}" for first, second in pairs])
    copies = sorted({second for _, second in pairs})
    return [
        Finding(
            "duplicated_features",
            "notice",
            f"{repeats} in {rows}",
            "A copy counts one feature twice, and its importance is divided between the two.",
            f"Leave it out: {_drop(table, copies)}.",
        )
    ]


def _units(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return columns, none of them constant, with mean 0 and length 1: products are correlations."""
    centred = values - values.mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=0), np.finfo(np.float64).tiny)


def _leaks(table: _Table, targets: NDArray) -> list[Finding]:
    """Find features that alone predict the target; not where there is only one."""
    values = table.values
    if table.all < 2 or len(values) < _FEWEST_LEAK_ROWS:
        return []
    # Ties are in random order, not in that of the file.
    shuffled = np.random.Generator(np.random.Philox(2)).permutation(len(values))
    order = np.argsort(values[shuffled], axis=0, kind="stable")
    found = []
    for target in (targets[:, None] if targets.ndim == 1 else targets).T:
        chosen = target[shuffled]
        labels = np.unique(chosen)
        few = np.issubdtype(target.dtype, np.integer) or len(labels) <= 2
        strength = _agreement(chosen, order) if few else _rank_correlation(chosen, order)
        leaking = np.flatnonzero(strength >= (_LEAK if few else _LEAK_RANK)).tolist()
        if leaking:
            best = max(leaking, key=lambda column: strength[column])
            how = "its neighbours by this column have the same class" if few else "rank correlation"
            figure = f"{how}: {strength[best]:.4f} of 1, in {table.rows}"
            others = [column for column in leaking if table.name(column) != table.name(best)]
            found.append(
                Finding(
                    "target_leak",
                    "serious",
                    f"{table.told(best)} alone predicts the target ({figure})"
                    + (f"; so does {table.listed(others)}" if others else ""),
                    "A column that knows the answer is often derived from it, and missing when the model is "
                    "used.",
                    f"If it is not known beforehand, leave it out: {_drop(table, leaking)}.",
                )
            )
    return found[:_MOST_NAMED]


def _agreement(labels: NDArray, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how often neighbours by a column have the same class, (columns,): 0 by chance, 1 always."""
    ordered = labels[order]
    agree = np.mean(ordered[1:] == ordered[:-1], axis=0)
    _, counts = np.unique(labels, return_counts=True)
    chance = float(np.sum((counts / len(labels)) ** 2))
    if chance >= 1:
        return np.zeros(order.shape[1])
    # With a leak, neighbours differ only between classes: once less than there are classes.
    changes = (len(counts) - 1) / (len(labels) - 1)
    return np.minimum((agree + changes - chance) / (1 - chance), 1.0)


def _rank_correlation(target: NDArray, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return |Spearman's correlation| of the target with each column, (columns,)."""
    count = len(target)
    ranks = np.empty(count)
    ranks[np.argsort(target, kind="stable")] = np.arange(count)
    ranks -= ranks.mean()
    places = np.arange(count) - (count - 1) / 2
    return np.abs(places @ ranks[order]) / float(places @ places)


# --- classes ---


def _imbalance(targets: NDArray, classes: Sequence[str]) -> list[Finding]:
    if targets.size != len(targets) or len(targets) < _FEWEST_OF_CLASS:
        return []
    codes = targets.reshape(-1)
    if not np.array_equal(codes, np.round(codes)):
        return []
    counts = np.bincount(codes.astype(np.int64), minlength=len(classes))
    present = np.flatnonzero(counts)
    least, most = (int(present[pick(counts[present])]) for pick in (np.argmin, np.argmax))
    ratio = counts[most] / counts[least]
    if ratio <= _IMBALANCE:
        return []
    return [
        Finding(
            "class_imbalance",
            "serious" if ratio >= _EXTREME_IMBALANCE else "notice",
            f"class {classes[least]} has {counts[least]:,} of {len(codes):,} rows "
            f"({counts[least] / len(codes):.2%}), class {classes[most]} {ratio:,.0f} times as many",
            "The loss can be small, and accuracy high, without the rare class ever being predicted.",
            _OF_TWO if len(classes) == 2 else _OF_MORE,
        )
    ]


# --- rows in both shares ---


def _shared_rows(
    features: Features, targets: NDArray, held_out: Features, held_targets: NDArray
) -> list[Finding]:
    size = max(1, features.dense.shape[1] * features.dense.itemsize)
    most = min(_MOST_COMPARED, max(_SAMPLE, _MOST_BYTES // size))
    compared = sample_rows(len(features), most)
    tested = sample_rows(len(held_out), min(_MOST_HELD_OUT, most))
    if len(features) < 2 or features.dense.dtype != held_out.dense.dtype:
        return []
    whole = len(compared) == len(features)
    known: Counter[bytes] = Counter(
        _keys(features, targets) if whole else _keys(features.take(compared), targets[compared])
    )
    duplicates = sum(key in known for key in _keys(held_out.take(tested), held_targets[tested]))
    among = len(features) / len(compared)
    share = duplicates / len(tested) * among
    repeated = sum(count for count in known.values() if count > 1) / len(compared) * among
    if share < _COPIED and share - repeated < _SHARED:
        return []
    looked = "" if whole else f", estimated from {len(compared):,} of them"
    return [
        Finding(
            "rows_in_both_shares",
            "serious",
            f"about {min(share, 1.0):.0%} of the validation rows, their targets included, are also among the "
            f"rows to train on ({duplicates:,} of {len(tested):,} looked at{looked})",
            "The validation figures are too good: rows that the network was trained on do not test it.",
            "Remove repeated rows before the split, or give data.validation a file of other rows.",
        )
    ]


def _keys(features: Features, targets: NDArray) -> list[bytes]:
    """Return each row as bytes, with a hash of bags and sparse numbers; not rows without any input."""
    dense = features.dense if features.rows is None else features.dense[features.rows]
    parts = [dense, targets] if features.codes is None else [dense, features.codes, targets]
    ragged = [(bags.starts, _mixed(bags.ids)) for bags in features.bags]
    if features.sparse is not None:
        sparse = features.sparse
        bits: NDArray[np.unsignedinteger] = sparse.values.view(f"u{sparse.values.itemsize}")
        ragged.append((sparse.starts, _mixed(_mixed(sparse.columns) ^ bits)))
    parts += [_sums(starts, hashes) for starts, hashes in ragged]
    flat = np.hstack([_bytes_of(part) for part in parts])
    keys = cast("list[bytes]", flat.view(np.dtype((np.void, flat.shape[1]))).reshape(-1).tolist())
    if dense.shape[1] or features.codes is not None or not ragged:
        return keys
    lengths = np.sum([np.diff(starts) for starts, _ in ragged], axis=0)
    return [keys[row] for row in np.flatnonzero(lengths).tolist()]


def _mixed(numbers: NDArray) -> NDArray[np.uint64]:
    """Return a hash of each number: splitmix64's finaliser (Steele et al. 2014)."""
    z = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _sums(starts: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the sum of each row's hashes, modulo 2⁶⁴, which does not depend on their order."""
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
    return running[starts[1:]] - running[starts[:-1]]


def _bytes_of(part: NDArray) -> NDArray[np.uint8]:
    rows = np.ascontiguousarray(part).reshape(len(part), -1)
    return rows.view(np.uint8).reshape(len(part), rows.shape[1] * rows.itemsize)
