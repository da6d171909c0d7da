"""Guess the task that a target's values suggest, with notes for the user on what they look like."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from nnkit.data.targets.values import called, listed, looks_like_lists
from nnkit.nn.losses import Task

__all__ = ["MULTILABEL", "guess_task", "notes_on_labels", "notes_on_values"]

# Whole numbers are labels where there are few of them, or where they number the classes without a gap.
_FEW_LABELS = 20
_MOST_NUMBERED_LABELS = 1000
_NUMBERED_SHARE = 0.05
_FEWEST_SKEWED_ROWS = 50
_SKEWED, _EVEN = 1.5, 0.5
MULTILABEL = 'if each cell is a list of labels, set `task` = "multilabel"'


def guess_task(values: NDArray, distinct: NDArray, names: Sequence[str]) -> tuple[Task, tuple[str, ...]]:
    """Apply the rule of `TargetEncoder.fit`, with a note where it was close."""
    count = len(distinct)
    classes: Task = "binary" if count == 2 else "multiclass"
    if values.dtype.kind not in "iuf" or count == 1:
        return classes, ()
    if values.dtype.kind == "f" and np.any(distinct != np.floor(distinct)):
        return "regression", ()
    if count <= 2:
        return classes, ()
    few = count <= min(_FEW_LABELS, len(values) / 2)
    gapless = distinct[0] in (0, 1) and distinct[-1] - distinct[0] == count - 1
    limit = min(_MOST_NUMBERED_LABELS, _NUMBERED_SHARE * len(values))
    task: Task = classes if few or (gapless and count <= limit) else "regression"
    # Close: many classes, or a regression with values that could be labels.
    if task == "regression":
        close, taken, other, choose = (
            count <= 3 * _FEW_LABELS or gapless,
            "a regression",
            "classes",
            "multiclass",
        )
    else:
        close = count > _FEW_LABELS // 2 and not (gapless and few)
        taken, other, choose = "classes", "a regression", "regression"
    note = (
        f"{called(names)}{count} different whole numbers in {len(values)} rows are taken as {taken}; "
        f'if they are {other}, set `task` = "{choose}"'
    )
    return task, (note,) if close else ()


def notes_on_labels(values: NDArray, distinct: NDArray, names: Sequence[str]) -> tuple[str, ...]:
    """Return notes on text labels that differ in capitals or blanks only, or look like lists."""
    labels = distinct.tolist()
    if not all(isinstance(label, str) for label in labels):
        return ()
    groups = defaultdict(list)
    for label in labels:
        groups[" ".join(label.casefold().split())].append(label)
    alike = [group for group in groups.values() if len(group) > 1]
    notes = []
    if alike:
        more = f" (and {len(alike) - 1} more such)" if len(alike) > 1 else ""
        notes.append(
            f"{called(names)}the labels {listed(alike[0])}{more} differ in capitals or blanks only, and are "
            f"classes of their own: write them alike{_as_booleans(groups, names)}"
        )
    if len(labels) > 2 and looks_like_lists(values.tolist()):
        notes.append(
            f"{called(names)}{len(labels)} combinations of labels are taken as classes; {MULTILABEL}"
        )
    return tuple(notes)


def _as_booleans(labels: Collection[str], names: Sequence[str]) -> str:
    """Return the option that reads labels as true and false, if they are words for these."""
    from nnkit.data.tables.reading import FALSE, TRUE

    if len(names) != 1 or not set(labels) <= {*TRUE, *FALSE}:
        return ""
    return (
        f'; `types` = {{{json.dumps(names[0], ensure_ascii=False)} = "boolean"}} reads them as true and false'
    )


def notes_on_values(values: NDArray[np.float64], names: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each column of a regression, shape (samples, k), with less skewed logarithms."""
    notes = []
    for place, column in enumerate(values.T if len(values) >= _FEWEST_SKEWED_ROWS else ()):
        if column.min() <= 0:
            continue
        skewness, log_skewness = _skewness(column), _skewness(np.log(column))
        if skewness > _SKEWED and abs(log_skewness) < _EVEN:
            notes.append(
                f"{called(names[place : place + 1])}a few values are far larger than the others (skewness "
                f"{skewness:.1f}, that of their logarithms {log_skewness:.1f}): its logarithm might be "
                'learnt better, as with `target_transform` = "log"'
            )
    return tuple(notes)


def _skewness(values: NDArray[np.float64]) -> float:
    spread = values.std()
    # Scaled first: the third power of large values may overflow.
    return float(np.mean(((values - values.mean()) / spread) ** 3)) if spread > 0 else 0.0
