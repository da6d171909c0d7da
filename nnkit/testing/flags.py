"""The flags of kernels: the combinations that make sense, and a sample of them.

Order: impossible combinations, all others, a sample of them, the formulas that go with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations, product
from typing import Any

from nnkit.kernels.catalogue import CATALOGUE, holds
from nnkit.kernels.layout import EXP, IDENTITY, SIGMOID, SOFTMAX
from nnkit.nn.activations import ActivationFunction, activation_function, activation_names
from nnkit.nn.losses import Loss, loss_from, loss_names
from nnkit.nn.optimizers import Optimizer, optimizer_from, optimizer_names

__all__ = ["covering_sample", "flag_sets", "formulas_for"]

Flags = dict[str, bool | int]

# By kernel: a condition that never holds in a training or a prediction, and why.
_IMPOSSIBLE: Mapping[str, Mapping[str, str]] = {
    "gather": {
        "INDICES and not TARGETS": "indices of classes are targets",
        "(FLIP or ERASE) and not AUGMENTED": "both are augmentations",
        "SPARSE and (SCALED or CODES or AUGMENTED)": "sparse rows have numbers of their own alone",
        "SPARSE and (RING or INDEXED)": "sparse rows lie on the device as they are",
        "RING and INDEXED": "a ring holds rows that have been picked",
    },
    "forward": {"DROPOUT_VARIES and not DROPOUT": "what varies is the rate of dropout"},
    "backward": {"DROPOUT_VARIES and not DROPOUT": "what varies is the rate of dropout"},
    "elementwise_loss": {"BIAS and MEMBERS": "members add biases of their own"},
    "softmax_loss": {"BIAS and MEMBERS": "members add biases of their own"},
    "unique_rows": {"MAX and WEIGHTED": "a maximum takes no weights"},
    "embed": {
        "MAX and MEAN": "a bag is reduced in one way",
        "MAX and WEIGHTED": "a maximum takes no weights",
    },
    "embed_gradient": {
        "MAX and MEAN": "a bag is reduced in one way",
        "MAX and WEIGHTED": "a maximum takes no weights",
    },
    "update": {
        "PREPARED != (SLOTS == 2)": "Adam alone has two states, and it alone is prepared",
        "FOLDED and (COPIED or RESCALED)": "a step in 16 bits has no shards",
        "FOLDED and CLIP": "a norm needs the sum of the shards' gradients",
    },
    "update_rows": {
        "PREPARED != (SLOTS == 2)": "Adam alone has two states, and it alone is prepared",
        "DECAYS_UNSEEN and SLOTS != 1": "RMSprop alone shrinks its state at every step",
    },
}
_VALUES: Mapping[str, tuple[int, ...]] = {"SLOTS": (0, 1, 2), "LINK": (IDENTITY, SIGMOID, SOFTMAX, EXP)}


def flag_sets(name: str) -> list[Flags]:
    """Return every combination of a kernel's flags that makes sense."""
    flags = CATALOGUE[name].flags
    every = (
        dict(zip(flags, values, strict=True))
        for values in product(*(_VALUES.get(flag, (False, True)) for flag in flags))
    )
    impossible = _IMPOSSIBLE.get(name, {})
    return [one for one in every if not any(holds(condition, one) for condition in impossible)]


def covering_sample(sets: list[Flags], strength: int = 2) -> list[Flags]:
    """Return a sample that covers all values that any `strength` flags have together in the combinations.

    Greedily: each time the combination that covers the most of what is missing.
    """
    shown = [frozenset(combinations(sorted(one.items()), min(strength, len(one)))) for one in sets]
    missing: set[Any] = set().union(*shown)
    sample = []
    while missing:
        best = max(range(len(sets)), key=lambda k: len(missing & shown[k]))
        missing -= shown[best]
        sample.append(sets[best])
    return sample


def formulas_for(
    name: str, flags: Mapping[str, bool | int], turn: int = 0
) -> tuple[dict[str, Callable], dict[str, Any]]:
    """Return formulas for a kernel's placeholders, and their hyperparameters.

    Parameters
    ----------
    name : str
        Of the kernel.
    flags : mapping of str to bool or int
        A combination that makes sense.
    turn : int
        Chooses among the activations, losses or rules, cyclically.
    """
    if name in ("forward", "backward"):
        functions = [one for one in _activations() if name == "forward" or one.needs_z == flags["FROM_Z"]]
        function = functions[turn % len(functions)]
        return {"activation": function.value, "activation_derivative": function.derivative}, {}
    if name == "elementwise_loss":
        losses = [one for one in _losses() if one.value is not None]
        loss = losses[turn % len(losses)]
        extra = {} if loss.ceiling is None else {"ceiling": loss.ceiling}
        return loss.formulas, {**loss.constants, **extra}
    if name == "softmax_loss":
        return {}, {"label_smoothing": 0.1, "ceiling": 2.0}
    if name in ("update", "update_rows"):
        rules = [one for one in _rules() if len(one.state) == flags["SLOTS"]]
        if name == "update_rows":
            rules = [one for one in rules if (type(one).decay_unseen is not None) == flags["DECAYS_UNSEEN"]]
        rule = rules[turn % len(rules)]
        return rule.formulas_of_rows, rule.constants
    return {}, {}


def _activations() -> list[ActivationFunction]:
    # The identity last: with it, and no bias, a kernel that does nothing would be right.
    names = sorted(activation_names(), key="identity".__eq__)
    return [activation_function(name) for name in names]


def _losses() -> list[Loss]:
    return [*map(loss_from, loss_names()), loss_from({"name": "binary_cross_entropy", "ceiling": 2.0})]


def _rules() -> list[Optimizer]:
    forms = [{"name": "nesterov", "rate_in_velocity": True}, {"name": "adam", "epsilon_hat": True}]
    return [*map(optimizer_from, optimizer_names()), *map(optimizer_from, forms)]
