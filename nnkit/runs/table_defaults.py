"""The settings of a training on a table, where the user sets none: they follow from its rows and its task.

The rules were chosen on tables of 300 to 20,000 rows; bench/LEARNT.md says how, and what each one gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FOLLOW_TABLE", "MOST_DECAY", "table_defaults"]

# A classifier's probabilities gain from strong decay and larger batches, a regression's outputs lose by both.
_CLASSIFIER: Mapping[str, Any] = {"batch_size": 256, "optimizer": "adamw"}
_REGRESSION: Mapping[str, Any] = {"batch_size": 128, "optimizer": "adam"}
# Decay acts in each step, so that fewer steps need more of it; fewer rows need more in all.
# More classes take larger weights, and so less of it.
_DECAY, _STEPS, MOST_DECAY = 1.0, 1500, 4.0
_ROWS_SEEN = 3000 * 128  # by a training on a small table, which passes over its rows many times
_FEWEST_EPOCHS, _MOST_EPOCHS = 20, 400
# Epochs without improvement, after which a training stops: 20 steps are too few to judge.
_PATIENCE, _FEWEST_STEPS = 20, 100
# By preset: the factors of the epochs and of the patience, and the members of an ensemble. Four networks
# of half the widths take as long as one.
_PRESETS = {"fast": (0.25, 0.5, 1), "default": (1.0, 1.0, 4), "best": (2.0, 1.5, 8)}
_HIDDEN_OF_MEMBER = [128, 64]
_MOST_BINS, _FEWEST_BINS, _BINS_OF_ALL = 16, 4, 8192


def table_defaults(
    rows: int, columns: int, task: str, outputs: int, preset: str, held_out: bool
) -> dict[str, dict[str, Any]]:
    """Return values of [model] and [training] for a table.

    Parameters
    ----------
    rows, columns : int
        The number of training rows, and of columns of numbers.
    task : str
        Such as ``binary``.
    outputs : int
        The number of the network's outputs: of a multiclass task, of the classes.
    preset : {"fast", "default", "best"}
        How much time they may take.
    held_out : bool
        Whether rows are held out, on which a training stops early.
    """
    length, patience, members = _PRESETS[preset]
    epochs = round(length * min(max(_ROWS_SEEN / rows, _FEWEST_EPOCHS), _MOST_EPOCHS))
    bins = min(max(_BINS_OF_ALL // max(1, columns), _FEWEST_BINS), _MOST_BINS)
    kind = _REGRESSION if task == "regression" else _CLASSIFIER
    steps = -(-rows // kind["batch_size"])  # of an epoch
    training: dict[str, Any] = {**kind, "learning_rate": 2e-3, "epochs": epochs}
    if held_out:
        waiting = max(_PATIENCE, -(-_FEWEST_STEPS // steps))
        training |= {"early_stopping": round(patience * waiting), "cooldown": 1.0}
    if task != "regression":
        few = _STEPS / (epochs / length * steps)
        decay = min(_DECAY * few * max(1.0, few), MOST_DECAY)
        if task == "multiclass":
            decay *= 2 / outputs
        training["weight_decay"] = float(f"{decay:.2g}")
    return {
        "model": {
            "numbers": "piecewise",
            "bins": bins,
            "activation": "silu",
            "dropout": 0.1,
            **({"hidden": _HIDDEN_OF_MEMBER, "ensemble": members} if members > 1 else {}),
        },
        "training": training,
    }


FOLLOW_TABLE = frozenset(
    f"{section}.{key}"
    for section, values in table_defaults(1, 1, "binary", 1, "best", held_out=True).items()
    for key in values
)
"""The keys of a config whose defaults follow from a table."""
