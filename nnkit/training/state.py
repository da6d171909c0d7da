"""The state of a training between two steps, and of its optimizer for continued training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nnkit.backends.protocol import Array
from nnkit.errors import ModelFileError, shown
from nnkit.nn.schedules import PlateauState

__all__ = ["OptimizerState", "TrainingState"]


@dataclass(frozen=True)
class OptimizerState:
    """The state of the optimizer and the schedule at the end of a training, for continuing it.

    Parameters
    ----------
    steps : int
        The number of updates done.
    epochs : int
        The number of epochs begun.
    slots : dict of str to array of shape (size,)
        The optimizer's state, in the arena's layout and on its device.
    plateau : PlateauState
        The state of a reduce-on-plateau schedule.
    """

    steps: int
    epochs: int
    slots: dict[str, Array]
    plateau: PlateauState = field(default_factory=PlateauState)


@dataclass
class TrainingState:
    """The progress of a training, except for the arrays on the device.

    Attributes
    ----------
    epoch : int
        The current epoch, from 0.
    epochs_before : int
        Epochs of the trainings that this one continues; orders, random draws and schedule count them.
    schedule_epochs : int
        The length of the schedule in epochs, including `epochs_before`; 0 ends it with this training.
    batch : int
        The next batch of the epoch.
    best : float
        The best monitored value so far; infinity before the first.
    best_epoch : int
        The epoch of `best`, from 1; 0 means the initial weights.
    waited : int
        Epochs since `best_epoch`.
    plateau : PlateauState
        The state of a reduce-on-plateau schedule.
    rate_factor : float
        A factor of the learning rate, see `Trainer.scale_learning_rate`.
    cooldown_from, cooldown_epochs : int
        The epoch after which the rate began to fall to 0, and for how many epochs it does; 0 before that.
    cooldown_rate : float
        The rate that it falls from.
    stopped_early : bool
        Whether early stopping ended the training.
    restored : bool
        Whether the training is over and the weights are those of `best_epoch`.
    """

    epoch: int = 0
    epochs_before: int = 0
    schedule_epochs: int = 0
    batch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    waited: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)
    rate_factor: float = 1.0
    cooldown_from: int = 0
    cooldown_epochs: int = 0
    cooldown_rate: float = 0.0
    stopped_early: bool = False
    restored: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {**asdict(self), "best": self.best if math.isfinite(self.best) else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingState:
        """Invert `to_json`; raise `ModelFileError` for anything else."""
        try:
            plateau = PlateauState(**value["plateau"])
            best = math.inf if value["best"] is None else float(value["best"])
            state = cls(**{**value, "best": best, "plateau": plateau})
            best_seen = 0.0 if plateau.best is None else plateau.best
            numbers = [state.rate_factor, state.cooldown_rate, plateau.factor, plateau.waited, best_seen]
            counts = [state.epoch, state.epochs_before, state.batch, state.best_epoch, state.waited]
            counts += [state.schedule_epochs, state.cooldown_from, state.cooldown_epochs]
            known = set(map(type, counts)) <= {int} and 0 <= min(counts) <= max(counts) < 2**53
            if not known or not all(map(math.isfinite, numbers)):
                raise ValueError("a number is out of range")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelFileError(
                f"the checkpoint's state is not valid: {shown(error)}; use another checkpoint"
            ) from error
        return state
