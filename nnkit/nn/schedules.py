"""Learning-rate schedules: frozen descriptions that turn step numbers into multipliers of the base rate.

A schedule has no state, so that the trainer uploads one table of multipliers an epoch. The state of
`ReduceOnPlateau` is a separate record, `PlateauState`, which a checkpoint stores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Check, Number, Whole
from nnkit.errors import ConfigError
from nnkit.nn.options import check_parameters, named_options

__all__ = [
    "SCHEDULES",
    "Constant",
    "CosLog4",
    "Cosine",
    "Exponential",
    "FlatCosine",
    "InverseTime",
    "OneCycle",
    "PlateauState",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "schedule_from",
]

_MOST = 2**53  # steps and epochs: a float holds every smaller count exactly
Steps = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """Base class of the schedules, with a linear warm-up before the schedule's first step.

    With a warm-up of w steps, the multiplier of step s < w is (s + 1) / (w + 1). The schedule's steps and
    epochs count from s = w. Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2
    (https://arxiv.org/abs/1706.02677).

    Parameters
    ----------
    warmup : int, keyword only
        The warm-up's length in steps.
    warmup_epochs : float, keyword only
        Its length in epochs; give only one of the two.
    """

    warmup: int = field(default=0, kw_only=True)
    warmup_epochs: float = field(default=0.0, kw_only=True)

    name: ClassVar[str] = ""
    checks: ClassVar[Mapping[str, Check]] = {}
    """The checks of a schedule's own fields."""

    def __post_init__(self) -> None:
        for key, check in {"warmup": Whole(0, _MOST), "warmup_epochs": Number(0), **self.checks}.items():
            check(f"schedule {self.name}: {key}", getattr(self, key))
        if self.warmup and self.warmup_epochs:
            raise ConfigError(f"schedule {self.name}: give warmup (steps) or warmup_epochs, not both")

    def factors(self, first_step: int, count: int, total_steps: int, steps_per_epoch: int) -> Steps:
        """Return the multipliers of the base learning rate for some steps, shape (count,).

        Parameters
        ----------
        first_step : int
            Counted from 0 over the whole training.
        count : int
            The number of steps.
        total_steps : int
            The steps of the whole training. A schedule that depends on it keeps its last multiplier beyond
            it.
        steps_per_epoch : int
            Batches in an epoch.
        """
        warmup = self.warmup or round(self.warmup_epochs * steps_per_epoch)
        steps = np.arange(first_step, first_step + count, dtype=np.float64)
        ramp = np.minimum((steps + 1.0) / (warmup + 1.0), 1.0)
        since = np.maximum(steps - warmup, 0.0)
        return ramp * self._decay(since, max(total_steps - warmup, 1), max(steps_per_epoch, 1))

    def _decay(self, steps: Steps, total_steps: int, steps_per_epoch: int) -> Steps:
        """Return the multipliers for steps that are counted from the end of the warm-up: by default 1."""
        return np.ones_like(steps)

    def to_json(self) -> dict[str, Any]:
        """Return the table that `schedule_from` reads."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Constant(Schedule):
    """The base learning rate throughout."""

    name: ClassVar[str] = "constant"


@dataclass(frozen=True)
class StepDecay(Schedule):
    """``factor ** (epoch // every)``: PyTorch's StepLR.

    Parameters
    ----------
    every : int
        Epochs between reductions.
    factor : float
        The factor of each reduction.
    """

    every: int = 10
    factor: float = 0.1

    name: ClassVar[str] = "step"
    checks: ClassVar[Mapping[str, Check]] = {"every": Whole(1, _MOST), "factor": Number(above=0)}

    def _decay(self, steps: Steps, total_steps: int, steps_per_epoch: int) -> Steps:
        return self.factor ** (steps // (self.every * steps_per_epoch))


@dataclass(frozen=True)
class Exponential(Schedule):
    """``rate ** epoch``, smoothly between epochs: optax's exponential_decay without staircase.

    Parameters
    ----------
    rate : float
        The factor of an epoch.
    """

    rate: float = 0.95

    name: ClassVar[str] = "exponential"
    checks: ClassVar[Mapping[str, Check]] = {"rate": Number(above=0)}

    def _decay(self, steps: Steps, total_steps: int, steps_per_epoch: int) -> Steps:
        return self.rate ** (steps / steps_per_epoch)


@dataclass(frozen=True)
class InverseTime(Schedule):
    """``1 / (1 + decay * epoch)``, smoothly between epochs: Keras's InverseTimeDecay.

    Parameters
    ----------
    decay : float
        The learning rate is halved after 1 / decay epochs.
    """

    decay: float = 0.1

    name: ClassVar[str] = "inverse_time"
    checks: ClassVar[Mapping[str, Check]] = {"decay": Number(0)}

    def _decay(self, steps: Steps, total_steps: int, steps_per_epoch: int) -> Steps:
        return 1.0 / (1.0 + self.decay * (steps / steps_per_epoch))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 down to `minimum` over the training.

    ``minimum + (1 - minimum) · ½(1 + cos(π t / T))``, for the steps t = 0 … T − 1.
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5
    (https://arxiv.org/abs/1608.03983).

    Parameters
    ----------
    minimum : float
        The final multiplier.
    """

    minimum: float = 0.0

    name: ClassVar[str] = "cosine"
    checks: ClassVar[Mapping[str, Check]] = {"minimum": Number(0, 1)}

    def _decay(self, steps: Steps, total_steps: int, steps_per_epoch: int) -> Steps:
        return _cosine(1.0, self.minimum, np.minimum(steps, total_steps - 1) / total_steps)


@dataclass(frozen=True)
class FlatCosine(Schedule):
    """1 for half of the training, then half a cosine down to 0.

    RealMLP's schedule of dropout and weight decay: Holzmüller et al. 2024 (arXiv:2407.04491).
    """

    name: ClassVar[str] = "flat_cos"

    def _decay(self, steps: Steps, total_steps: int, steps_per_epoch: int) -> Steps:
        progress = np.minimum(steps, total_steps - 1) / total_steps
        return _cosine(1.0, 0.0, np.maximum(2.0 * progress - 1.0, 0.0))


@dataclass(frozen=True)
class CosLog4(Schedule):
    """Four cycles up from 0 and down again, each twice as long as the one before.

    ``½(1 − cos(2π log₂(1 + 15 t / T)))``, for the steps t = 0 … T − 1: RealMLP's schedule of the learning
    rate, Holzmüller et al. 2024 (arXiv:2407.04491).
    """

    name: ClassVar[str] = "coslog4"

    def _decay(self, steps: Steps, total_steps: int, steps_per_epoch: int) -> Steps:
        progress = np.minimum(steps, total_steps - 1) / total_steps
        return _cosine(0.0, 1.0, 2.0 * np.log2(1.0 + 15.0 * progress))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to the base learning rate and down again, both along half a cosine: PyTorch's OneCycleLR.

    Smith and Topin, "Super-convergence", 2017 (https://arxiv.org/abs/1708.07120).

    Parameters
    ----------
    pct_start : float
        The fraction of the steps on the way up: the multiplier is 1 at step ``pct_start * total - 1``.
    div_factor : float
        The first multiplier is 1 / div_factor.
    final_div_factor : float
        The last multiplier is 1 / (div_factor · final_div_factor).
    """

    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    name: ClassVar[str] = "one_cycle"
    checks: ClassVar[Mapping[str, Check]] = {
        "pct_start": Number(0, 1),
        "div_factor": Number(1),
        "final_div_factor": Number(1),
    }

    def _decay(self, steps: Steps, total_steps: int, steps_per_epoch: int) -> Steps:
        first = 1.0 / self.div_factor
        last = first / self.final_div_factor
        end = total_steps - 1.0
        peak = max(self.pct_start * total_steps - 1.0, 0.0)
        up = _cosine(first, 1.0, np.minimum(steps / peak, 1.0) if peak > 0 else np.ones_like(steps))
        down = _cosine(1.0, last, np.clip((steps - peak) / max(end - peak, 1.0), 0.0, 1.0))
        return np.where(steps <= peak, up, down)


@dataclass(frozen=True)
class PlateauState:
    """The state of `ReduceOnPlateau` between epochs; ``PlateauState(**state.to_json())`` restores it.

    Parameters
    ----------
    factor : float
        The current multiplier of the learning rate.
    best : float or None
        The best value so far, None before the first.
    waited : int
        Epochs since the best value, or since the last reduction.
    """

    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """Multiply the learning rate by `factor` after `patience` epochs without an improvement, as in Keras.

    `factors` returns only the warm-up. The trainer multiplies it by the ``factor`` of the state, which it
    updates by `observe` once an epoch.

    Parameters
    ----------
    factor : float
        The factor of a reduction.
    patience : int
        Epochs to wait.
    min_delta : float
        The smallest change that counts as an improvement is greater than this.
    minimum : float
        The smallest multiplier.
    """

    factor: float = 0.5
    patience: int = 5
    min_delta: float = 1e-4
    minimum: float = 0.0

    name: ClassVar[str] = "reduce_on_plateau"
    checks: ClassVar[Mapping[str, Check]] = {
        "factor": Number(above=0, most=1),
        "patience": Whole(1, _MOST),
        "min_delta": Number(0),
        "minimum": Number(0, 1),
    }

    def observe(self, state: PlateauState, value: float, mode: Literal["min", "max"] = "min") -> PlateauState:
        """Return the state after an epoch that ended with `value`.

        Parameters
        ----------
        state : PlateauState
            The previous state; ``PlateauState()`` at the start.
        value : float
            The epoch's validation loss or score. A value that is not finite is no improvement.
        mode : {"min", "max"}
            Whether lower or higher is better.
        """
        gain = None if state.best is None else (state.best - value if mode == "min" else value - state.best)
        if math.isfinite(value) and (gain is None or gain > self.min_delta):
            return PlateauState(state.factor, float(value), 0)
        waited = state.waited + 1
        if waited < self.patience:
            return PlateauState(state.factor, state.best, waited)
        # A factor that is already below the minimum stays.
        reduced = min(state.factor, max(state.factor * self.factor, self.minimum))
        return PlateauState(reduced, state.best, 0)


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (
        *(Constant, StepDecay, Exponential, InverseTime, Cosine, FlatCosine, CosLog4),
        *(OneCycle, ReduceOnPlateau),
    )
}


def schedule_from(value: str | Mapping[str, Any] | Schedule) -> Schedule:
    """Return the schedule for a name or a table such as ``{"name": "step", "every": 10}``.

    A `Schedule` is returned unchanged.

    Raises
    ------
    ConfigError
        If the name or a parameter is unknown, or a parameter is of the wrong type or out of its range.
    """
    if isinstance(value, Schedule):
        return value
    name, options = named_options("schedule", value, SCHEDULES, '{"name": "step", "every": 10}')
    check_parameters("schedule", name, options, [item.name for item in fields(SCHEDULES[name])])
    return SCHEDULES[name](**options)


def _cosine(start: float, end: float, progress: Steps) -> Steps:
    """Interpolate from `start` to `end` along half a cosine; `progress` lies in [0, 1].

    Beyond 1 the cosine goes on, and returns to `start` at 2.
    """
    return end + (start - end) * 0.5 * (1.0 + np.cos(np.pi * progress))
