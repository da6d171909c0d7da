"""The names that options take, for the help and for shell completion.

The registries take half a second to import, too long for a help text; a test compares these names with them.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ACTIVATIONS", "LOSSES", "OPTIMIZERS", "PLOTS", "SCHEDULES", "completed", "listed"]

ACTIVATIONS = (
    *("identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "selu", "mish"),
    "softplus",
)
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
SCHEDULES = (
    *("constant", "step", "exponential", "inverse_time", "cosine", "flat_cos", "coslog4", "one_cycle"),
    "reduce_on_plateau",
)
LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "poisson", "poisson_deviance")
PLOTS = (
    "learning",
    "confusion",
    "roc",
    "precision-recall",
    "calibration",
    "predicted",
    "residuals",
    "mistakes",
    "importance",
    "boundary",
    "loss-surface",
    "weights",
    "activations",
)


def listed(names: tuple[str, ...]) -> str:
    """Return names as in a sentence: a, b or c."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


def completed(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Return the function that completes one of the names in a shell."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]
