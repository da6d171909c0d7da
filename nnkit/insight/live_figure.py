"""A figure in a notebook that follows a training: its learning curves, updated as epochs end."""

from __future__ import annotations

import math
import time
from typing import Any

from nnkit.errors import ConfigError
from nnkit.insight.drawing import check_matplotlib, png_of, together
from nnkit.insight.learning_plots import learning_plots
from nnkit.training.callbacks import Callback, TrainingStatus

__all__ = ["LiveFigure"]

_INCH = 96  # CSS pixels


class LiveFigure(Callback):
    """Draw the learning curves in a notebook, in one figure below the cell that trains.

    It is updated at the ends of epochs, and once more at the end of the training. A copy in a process
    without a notebook, such as a worker of ``cross_val_score(n_jobs=2)``, draws nothing.

    Parameters
    ----------
    seconds : float
        The least time between two updates, which take at most a twentieth of the training's time.

    Raises
    ------
    ConfigError
        If there is no notebook, or matplotlib is not installed.

    Examples
    --------
    >>> trainer.fit(X, y, validation=0.1, epochs=50, callbacks=[LiveFigure()])  # doctest: +SKIP
    """

    def __init__(self, seconds: float = 1.0) -> None:
        check_matplotlib()
        self.seconds = seconds
        _display()
        self._handle: Any = None
        self._due = -math.inf

    def on_train_begin(self, trainer: Any, status: TrainingStatus) -> None:
        """Begin a new figure."""
        self._handle = None
        self._due = -math.inf

    def on_epoch_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Update the figure, unless that was done just now."""
        if time.monotonic() >= self._due:
            self._draw(trainer)

    def on_train_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Draw the curves of the whole training."""
        self._draw(trainer)
        self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the figure of the current training."""
        return {**self.__dict__, "_handle": None}

    def _draw(self, trainer: Any) -> None:
        from IPython import get_ipython
        from IPython.display import Image

        if not len(trainer.history) or get_ipython() is None:
            return
        began = time.monotonic()
        # Two in a line; the learning rate is left out.
        plots = learning_plots(trainer.history, trainer.loss.name)
        curves = [plot for plot in plots if "rate" not in plot.key.split("-")]
        title = f"After epoch {int(trainer.history['epoch'][-1])}"
        plot = together(curves, "learning", title, columns=2)
        picture = Image(data=png_of(plot), width=round(_INCH * plot.size[0]), alt=plot.description)
        if self._handle is None:
            self._handle = _display()(picture, display_id=True)
        else:
            self._handle.update(picture)
        now = time.monotonic()
        self._due = now + max(self.seconds, 20 * (now - began))


def _display() -> Any:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        raise ConfigError(
            "LiveFigure draws in a notebook, and IPython is not installed: pip install ipython, or use "
            "ProgressDisplay"
        ) from None
    if get_ipython() is None:
        raise ConfigError("LiveFigure draws in a notebook, and this is none: use ProgressDisplay")
    return display
