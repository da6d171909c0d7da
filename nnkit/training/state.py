"""The state of a training between two steps, and that of its optimizer, from which another continues."""

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
    """The state of the optimizer and the schedule at the end of a training, from which another continues.

    Parameters
    ----------
    steps : int
        Updates done.
    epochs : int
        Epochs begun.
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
    """Where a training stands, apart from what the step keeps on the device.

    Attributes
    ----------
    epoch : int
        The current epoch, from 0.
    epochs_before : int
        Epochs of the trainings that this one continues: orders, draws and the schedule count from the first.
    schedule_epochs : int
        The length of the schedule in epochs, counted from the first; 0 for all up to this training's end.
    batch : int
        The next batch of it.
    best : float
        The best monitored value so far; infinity before the first.
    best_epoch : int
        Its epoch, from 1; 0 stands for the initial weights.
    waited : int
        Epochs since.
    plateau : PlateauState
        The state of a reduce-on-plateau schedule.
    rate_factor : float
        What callbacks multiply the learning rate by, see `Trainer.scale_learning_rate`.
    stopped_early : bool
        Whether the training is over because validation no longer improved.
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
    stopped_early: bool = False
    restored: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {**asdict(self), "best": self.best if math.isfinite(self.best) else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingState:
        """Return the state that `to_json` wrote; raises `ModelFileError` if it is none."""
        try:
            plateau = PlateauState(**value["plateau"])
            best = math.inf if value["best"] is None else float(value["best"])
            state = cls(**{**value, "best": best, "plateau": plateau})
            best_seen = 0.0 if plateau.best is None else plateau.best
            numbers = [state.rate_factor, plateau.factor, plateau.waited, best_seen]
            counts = [state.epoch, state.epochs_before, state.batch, state.best_epoch, state.waited]
            counts.append(state.schedule_epochs)
            known = set(map(type, counts)) <= {int} and 0 <= min(counts) <= max(counts) < 2**53
            if not known or not all(map(math.isfinite, numbers)):
                raise ValueError("a number is out of its range")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelFileError(
                f"no state of a training: {shown(error)}; take another checkpoint"
            ) from error
        return state
