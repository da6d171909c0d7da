"""The learning-rate range test: some hundred steps at rising rates, and the rate of the lowest loss.

L. N. Smith 2015, "Cyclical learning rates for training neural networks", arXiv:1506.01186, section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.checks import Number, Whole
from nnkit.errors import AtEnd, ConfigError, DataError
from nnkit.feed.features import Features

if TYPE_CHECKING:
    from nnkit.training.trainer import Trainer

__all__ = ["RateCurve", "find_rate"]

# An exponential mean of the steps' losses, with a correction of its start, as in fastai's `Learner.lr_find`.
# It lags by ten steps: with 200 steps over seven decades, by a third of a decade.
_SMOOTHING = 0.9
_LAG = 10
# The test ends where the smoothed loss is four times its lowest, as in fastai; at 1.5 times it has risen.
_DIVERGED, _RISEN = 3.0, 0.5
# At the rate of the lowest loss it is about to rise: fastai suggests a tenth of that rate (`minimum`), which
# leaves room for a whole training.
_ROOM = 10.0
_BINS = 16  # lines of the curve as text
_BAR = 40


@dataclass(frozen=True, eq=False)
class RateCurve:
    """The losses at rising learning rates, arrays of shape (steps,)."""

    rates: NDArray[np.float64]  # each step's, rising geometrically
    losses: NDArray[np.float64]  # each step's, on its batch before the update
    smoothed: NDArray[np.float64]  # their exponential mean

    @property
    def least(self) -> float:
        """The rate of the lowest smoothed loss."""
        return float(self.rates[int(np.argmin(self.smoothed))])

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest, by the logarithm of the rate.

        The first ten steps are left out, as in fastai's plot: their mean is of few losses.
        """
        least = int(np.argmin(self.smoothed))
        if least - _LAG < 2:
            return float(self.rates[max(least - 1, 0)])
        # The fall over as many steps as the mean lags, for that of a single one is noise.
        span = min(_LAG, (least - _LAG) // 2)
        falls = self.smoothed[_LAG : least - span + 1] - self.smoothed[_LAG + span : least + 1]
        return float(self.rates[_LAG + int(np.argmax(falls)) + span // 2])

    @property
    def suggested(self) -> float:
        """A tenth of the rate of the lowest loss, to two digits."""
        return float(f"{self.least / _ROOM:.1e}")

    @property
    def diverged(self) -> bool:
        """Whether the loss rose at the last rates."""
        least = float(self.smoothed.min())
        return bool(self.smoothed[-1] - least > _RISEN * abs(least))

    def to_json(self) -> dict[str, Any]:
        """Return the curve and its rates as a JSON object."""
        names = ("suggested", "steepest", "least", "diverged")
        losses = [value if math.isfinite(value) else None for value in self.losses.tolist()]
        curve = {"rates": self.rates.tolist(), "losses": losses, "smoothed": self.smoothed.tolist()}
        return {**{name: getattr(self, name) for name in names}, **curve}

    def lines(self) -> list[str]:
        """Return the curve as lines of text, the losses as bars, and the suggestion."""
        places = np.unique(np.linspace(0, len(self.rates) - 1, _BINS).round().astype(int))
        top = float(self.smoothed[: int(np.argmin(self.smoothed)) + 1].max())
        low = float(self.smoothed.min())
        lines = [f"{'rate':>9}  {'loss':>9}"]
        for place in places.tolist():
            value = float(self.smoothed[place])
            share = min(max((value - low) / max(top - low, 1e-300), 0.0), 1.0)
            over = " ↑" if value > top else ""
            lines.append(f"{self.rates[place]:>9.2g}  {value:>9.4g}  {'█' * round(share * _BAR)}{over}")
        lines.append(
            f"the loss is lowest at {self.least:.2g} and falls fastest at {self.steepest:.2g}; a tenth of "
            "the former:"
        )
        lines.append(f"training.learning_rate = {self.suggested:g}")
        if not self.diverged:
            lines.append(f"the loss did not rise up to {self.rates[-1]:.2g}: try higher rates too")
        return lines


def find_rate(
    trainer: Trainer,
    X: ArrayLike | Features,
    y: ArrayLike,
    *,
    batch_size: int = 128,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 200,
    sample_weight: ArrayLike | None = None,
) -> RateCurve:
    """Train at rates that rise geometrically from step to step; the parameters are restored afterwards.

    Parameters
    ----------
    trainer : Trainer
        With the network, loss and optimizer; its schedule and learning rate are not used.
    X, y, sample_weight
        As `Trainer.fit` takes them.
    batch_size : int
        That of the later training: the right rate depends on it.
    lowest, highest : float
        The first and the last rate.
    steps : int
        At least 10. The test ends earlier where the loss has risen to four times its lowest.

    Raises
    ------
    ConfigError
        If a setting is out of its range.
    DataError
        If the loss is not finite at the lowest rate already.
    """
    lowest, highest = Number(above=0)("lowest", lowest), Number(above=0)("highest", highest)
    steps = Whole(10, 100_000)("steps", steps)
    if not lowest < highest < math.inf:
        raise ConfigError(f"`lowest` = {lowest:g} must be less than `highest` = {highest:g}: the rates rise")
    batch_size = Whole(1, 2**24)("batch_size", batch_size)
    rates = np.geomspace(lowest, highest, steps)
    network = trainer.network
    before = None if network.inputs is None else network.parameters()

    def restore() -> None:
        if before is not None:
            network.set_parameters(before)
        elif network.inputs is not None:
            network.initialize(network.inputs, trainer.seed, trainer.dtype, trainer.backend)

    with AtEnd(restore, "restoring the weights"):
        losses = _losses(trainer, X, y, batch_size, rates, sample_weight)
    if len(losses) < 3:
        raise DataError(
            f"the loss is not finite at a learning rate of {lowest:g} already: look for features of large "
            "scale, or take a smaller `lowest`"
        )
    return RateCurve(rates[: len(losses)], np.array(losses), smooth(losses))


def smooth(losses: list[float]) -> NDArray[np.float64]:
    """Return the exponential mean of the losses up to each step, corrected for its start at 0."""
    mean, smoothed = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smoothed.append(mean / (1 - _SMOOTHING**step))
    return np.array(smoothed)


def _losses(
    trainer: Trainer,
    X: ArrayLike | Features,
    y: ArrayLike,
    batch_size: int,
    rates: NDArray[np.float64],
    sample_weight: ArrayLike | None,
) -> list[float]:
    """Return each step's loss, until one is not finite or far above the lowest."""
    step, order_of = trainer.prepared_step(X, y, batch_size, sample_weight)
    per_epoch = step.steps_per_epoch
    losses: list[float] = []
    least, mean = math.inf, 0.0
    with AtEnd(step.rows.close, "closing the rows"):
        for number in range(len(rates)):
            epoch, batch = divmod(number, per_epoch)
            if batch == 0:
                some = rates[number : number + per_epoch]
                # The last epoch may have more batches than there are rates left.
                some = np.pad(some, (0, per_epoch - len(some)), mode="edge")
                step.begin_epoch(epoch, order_of(epoch), some)
                last = step.read()
            step.run(batch, 1)
            now = step.read()
            loss = now.since(last).loss
            last = now
            if not math.isfinite(loss):
                break
            losses.append(loss)
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            smoothed = mean / (1 - _SMOOTHING ** len(losses))
            least = min(least, smoothed)
            if smoothed - least > _DIVERGED * abs(least) + 1e-12:
                break
    return losses
