"""An embedding's kernels in their order over one batch, on any device, and the same in plain loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from kernel_devices import HostDevice

from nnkit.kernels.layout import BATCH, COUNTERS, PENALTY_SUM, SCALARS, SQUARED_NORM, STEP, WEIGHT_SUM
from nnkit.nn.optimizers import optimizer_from

L1, L2, CLIP, RATE, DECAY, STEPS = 0.01, 0.1, 0.5, 0.05, 0.3, 7


@dataclass(frozen=True)
class Case:
    """A batch of bags and how it is trained on.

    Parameters
    ----------
    reduce : {"mean", "sum", "max"}
        The reduction.
    width : int
        Of the table's rows.
    weighted, shuffled : bool
        Whether ids have weights, and rows an order.
    batch : int
        Of 3: the last is ragged.
    longest : int
        The most tokens of a bag.
    column : int
        Where the bags' vectors begin in the inputs.
    size : int
        The table's rows.
    capacity : int
        The batch's.
    frequent : float
        How many of the tokens name one and the same row, beside those that do so by chance.
    """

    reduce: str = "mean"
    width: int = 8
    weighted: bool = False
    shuffled: bool = True
    batch: int = 1
    longest: int = 6
    column: int = 4
    size: int = 23
    capacity: int = 5
    frequent: float = 0.0

    @property
    def samples(self) -> int:
        return 2 * self.capacity + 2

    @property
    def flags(self) -> dict[str, bool]:
        return {
            "GRADIENT": True,
            "MAX": self.reduce == "max",
            "MEAN": self.reduce == "mean",
            "SHUFFLED": self.shuffled,
            "WEIGHTED": self.weighted,
        }

    def arguments(self, dtype: str) -> dict[str, Any]:
        """Return what the kernels read and write; NaN and −1 where they shall write."""
        random = np.random.default_rng(self.width + 100 * self.longest)
        lengths = random.integers(0, self.longest + 1, self.samples)
        lengths[[0, 6, -1]] = 0, self.longest, 1
        starts = np.concatenate([[0], np.cumsum(lengths)])
        tokens = max(1, int(np.sort(lengths)[-self.capacity :].sum()))
        seen = min(tokens, self.size)
        counters = np.zeros(COUNTERS, np.int64)
        counters[[BATCH, STEP]] = self.batch, STEPS
        scalars = np.zeros(SCALARS)
        scalars[[WEIGHT_SUM, SQUARED_NORM, PENALTY_SUM]] = 3.5, 0.25, 2.0
        ids = random.integers(0, self.size, starts[-1]).astype(np.int32)
        ids[random.random(len(ids)) < self.frequent] = self.size // 2
        inputs = self.column + self.width + 4
        table, state0, state1 = random.normal(size=(3, self.size, self.width)).astype(dtype)
        return {
            "ids": ids,
            "starts": starts,
            "id_weights": random.uniform(0.3, 2, starts[-1]).astype(dtype),
            "order": random.permutation(self.samples),
            "table": table,
            "state0": abs(state0),
            "state1": abs(state1),
            "last_seen": random.integers(0, STEPS, self.size),
            "counters": counters,
            "scalars": scalars,
            "rates": np.full(3, RATE),
            "inputs": np.full((self.capacity, inputs), np.nan, dtype),
            "delta": random.normal(size=(self.capacity, inputs)).astype(dtype),
            "totals": np.full(self.capacity, np.nan, dtype),
            "partial": np.zeros(self.width, dtype),
            "peaks": np.full((self.capacity, self.width), -1, np.int32),
            "slots": random.integers(0, seen, self.size).astype(np.int32),
            "places": np.full(tokens, -1, np.int32),
            "owners": np.full(tokens, -1, np.int32),
            "offsets": np.full(tokens, -1, np.int32),
            "runs": np.full(tokens, -1, np.int32),
            "run_starts": np.full(seen + 1, -1, np.int32),
            "rows_seen": random.integers(0, self.size, seen).astype(np.int32),
            "seen": np.full(1, -1, np.int64),
            "gradient": np.full((seen, self.width), np.nan, dtype),
            **{"batch_size": self.capacity, "column": self.column, "l1": L1, "l2": L2},
            **{"clip_norm": np.float64(CLIP), "weight_decay": DECAY},
        }


def trained(device: HostDevice, case: Case, dtype: str, optimizer: str = "rmsprop") -> dict[str, Any]:
    """Return the arguments after all kernels of a step have run."""
    arguments = case.arguments(dtype)
    rule = optimizer_from(optimizer)
    update = {
        "SLOTS": len(rule.state),
        "CLIP": True,
        "PREPARED": type(rule).prepare is not None,
        "DECAYS_UNSEEN": type(rule).decay_unseen is not None,
        **rule.constants,
    }
    for name in ("unique_rows", "embed", "embed_gradient"):
        device.run(name, dtype, {}, case.flags, arguments)
    device.run("penalise_rows", dtype, {}, {}, arguments)
    device.run("squared_norm_rows", dtype, {}, {}, arguments)
    device.run("update_rows", dtype, rule.formulas_of_rows, update, arguments)
    device.run("mark_rows", dtype, {}, {}, arguments)
    return arguments


def expected(case: Case, dtype: str, optimizer: str = "rmsprop") -> dict[str, np.ndarray]:
    """Return the same from loops over rows, in float64; ``gradient`` by the table's rows, ``seen`` which."""
    given = case.arguments(dtype)
    table = given["table"].astype(float)
    order = given["order"] if case.shuffled else np.arange(case.samples)
    taken = order[case.batch * case.capacity :][: case.capacity]
    inputs, gradient, seen = given["inputs"].copy(), np.zeros(table.shape), np.zeros(case.size, bool)
    columns = slice(case.column, case.column + case.width)
    for i, row in enumerate(taken):
        span = slice(given["starts"][row], given["starts"][row + 1])
        ids, delta = given["ids"][span], given["delta"][i, columns]
        weights = given["id_weights"][span] if case.weighted else np.ones(len(ids))
        weights = weights / weights.sum() if case.reduce == "mean" and len(ids) else weights
        seen[ids] = True
        if case.reduce == "max" and len(ids):
            inputs[i, columns] = table[ids].max(axis=0)
            winners = ids[table[ids].argmax(axis=0)]
            np.add.at(gradient, (winners, np.arange(case.width)), delta)
        else:
            inputs[i, columns] = weights @ table[ids]
            np.add.at(gradient, ids, np.outer(weights, delta))
    scale = 3.5 / case.capacity
    penalty = (L1 * abs(table) + L2 / 2 * table**2)[seen].sum()
    gradient[seen] += scale * (L1 * np.sign(table) + L2 * table)[seen]
    norm = 0.25 + (gradient**2).sum()
    factor = case.capacity / 3.5
    factor *= min(1.0, CLIP / (np.sqrt(norm) * factor))
    return {
        "inputs": inputs,
        "gradient": gradient,
        "seen": seen,
        "penalty": 2.0 + 3.5 * penalty,
        "norm": norm,
        **_updated(given, gradient * factor, seen, optimizer),
    }


def _updated(given: dict[str, Any], g: np.ndarray, seen: np.ndarray, optimizer: str) -> dict[str, np.ndarray]:
    table, first, second = (given[name].astype(float) for name in ("table", "state0", "state1"))
    old = table * (1 - RATE * DECAY)
    if optimizer == "sgd":
        new = old - RATE * g
    elif optimizer == "rmsprop":
        left = 0.9 ** (STEPS - given["last_seen"])[:, None]
        square = 0.9 * left * first + 0.1 * g**2
        new, moments = old - RATE * g / (np.sqrt(square) + 1e-8), (square, second)
    else:
        mean, square = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        corrected = np.sqrt(square / (1 - 0.999 ** (STEPS + 1))) + 1e-8
        new, moments = old - RATE * mean / (1 - 0.9 ** (STEPS + 1)) / corrected, (mean, square)
    states = (first, second) if optimizer == "sgd" else moments
    at = seen[:, None]
    return {
        "table": np.where(at, new, table),
        "state0": np.where(at, states[0], first),
        "state1": np.where(at, states[1], second),
    }
