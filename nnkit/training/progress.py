"""The progress of a training for people: a live bar on a terminal, plain lines elsewhere.

Order: the display, fitting a line to a width, the text of its parts. Rich is imported only for a terminal.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

from nnkit.terminal import duration, number, number_apart, terminal_width
from nnkit.training.callbacks import Callback, TrainingStatus

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["ProgressDisplay"]

# A longer training leaves about `_LINES` lines instead of one for each epoch.
_MANY_EPOCHS = 50
_LINES = 20
# With slow epochs, a line is written after this time in seconds at the latest.
_LONGEST_SILENCE = 30.0
# Seconds between two drawings of the bar, which take about a millisecond each: 1 % of the time.
_REFRESH = 0.1
_WIDEST_BAR, _NARROWEST_BAR = 24, 8


class ProgressDisplay(Callback):
    """Show a training's progress on standard output.

    Each finished epoch leaves a line; a training of more than 50 epochs leaves about 20 lines, including the
    first, the best and the last epoch. A terminal that can move its cursor also shows a live line below them:
    epoch, bar, loss, samples per second, time left. Lines fit the terminal from 60 columns on, and 80
    columns elsewhere.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to draw; by default a console on `file`.
    file : text file, optional
        Where to write; by default ``sys.stdout`` when the training begins. Pickling drops console and file.
    """

    _first: TrainingStatus | None
    _best: TrainingStatus | None
    _last: TrainingStatus | None
    _drawn_at: float
    _best_value: float

    def __init__(self, console: Console | None = None, file: TextIO | None = None) -> None:
        self.console = console
        self.file = file
        self._console: Console | None = None  # of the current training
        self._progress: Progress | None = None
        self._task: Any = None
        self._begin()

    def on_train_begin(self, trainer: Any, status: TrainingStatus) -> None:
        """Start the bar."""
        self.close()
        self._begin()
        self._line_at = status.seconds
        console = self._terminal()
        if console is not None:
            self._progress = _bar(console)

            head, total = _head(status), max(status.total_steps, 1)
            self._task = self._progress.add_task("", total=total, epoch=head, text="")
            self._progress.start()
            self._advance(status)

    def on_step_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Move the bar."""
        if self._first is None:
            # The time before the first steps are done, which includes loading, says nothing about later ones.
            self._first = status
        if status.seconds - self._drawn_at >= _REFRESH:
            self._advance(status)

    def on_epoch_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Write the epoch's line, or remember it in case it turns out to be the best or the last."""
        value = status.metrics.get("validation_loss", status.loss)
        is_first, self._last = self._last is None, status
        if not math.isnan(value) and value < self._best_value:
            self._best_value = value
            self._best = status
        if self._is_shown(status):
            self._write(status, self._time_left(status))
            self._line_at = status.seconds
        if is_first:
            # The time left is estimated without the first epoch: caches are cold, a checkpoint is written.
            self._first = status
        if status.seconds - self._drawn_at >= _REFRESH:
            self._advance(status)

    def on_train_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Write the last and the best line if they were skipped, and remove the bar."""
        if self._progress is not None:
            self._advance(status)
        self.close()
        if self._last is not None and self._last.epoch not in self._written:
            self._write(self._last)
        if self._best is not None and self._best.epoch not in self._written:
            self._write(self._best, "(best)")
        self._console = None

    def close(self) -> None:
        """Release the terminal, at the end of a training or after an error in it."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the objects of this process."""
        return {**self.__dict__, **dict.fromkeys(("console", "file", "_console", "_progress", "_task"))}

    def __copy__(self) -> ProgressDisplay:
        copied = self.__new__(type(self))
        copied.__dict__.update(self.__getstate__(), console=self.console, file=self.file)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgressDisplay:
        """Return a display on the same console and file, for scikit-learn's `clone`."""
        return self.__copy__()

    def _begin(self) -> None:
        """Forget the last training."""
        self._first = None
        self._drawn_at = -math.inf
        self._line_at = 0.0
        self._best_value = math.inf
        self._best = None
        self._last = None
        self._shown: dict[str, float] = {}
        self._written: set[int] = set()
        self._fit, self._live_fit = _Fit(), _Fit()

    def _terminal(self) -> Console | None:
        """Return a console that a bar can be drawn on, or None."""
        self._console = self.console
        if self._console is None:
            file = self.file or sys.stdout
            if not (hasattr(file, "isatty") and file.isatty()):
                return None
            from rich.console import Console

            self._console = Console(file=file)
        drawable = self._console.is_terminal and not self._console.is_dumb_terminal
        return self._console if drawable else None

    def _width(self) -> int:
        if self.console is not None:
            return int(self.console.width)
        return terminal_width(self.file or sys.stdout)

    def _is_shown(self, status: TrainingStatus) -> bool:
        """Tell whether an epoch's line is written: always, or in a long training by count and time."""
        if status.epochs <= _MANY_EPOCHS or not self._written:
            return True
        spacing = math.ceil(status.epochs / _LINES)
        silence = status.seconds - self._line_at
        return status.epoch % spacing == 0 or status.epoch == status.epochs or silence >= _LONGEST_SILENCE

    def _write(self, status: TrainingStatus, end: str = "") -> None:
        epochs = str(status.epochs)
        head = f"epoch {status.epoch:>{len(epochs)}}/{epochs}"
        line = self._fit.line([_Piece(head, head), *_pieces(status, self._shown, end)], self._width())
        self._shown = _values(status)
        self._written.add(status.epoch)
        if self._console is not None:
            # Rich would colour the numbers, wrap the line and read [brackets] as markup.
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self.file or sys.stdout, flush=True)

    def _advance(self, status: TrainingStatus) -> None:
        if self._progress is None:
            return
        self._drawn_at = status.seconds
        head = _head(status)
        # The metrics of the last epoch are in the line above.
        moment = replace(status, metrics={})
        pieces = _pieces(moment, {}, self._time_left(status)) if status.step else []
        # A terminal may wrap a line that fills it: leave one column free.
        room = self._width() - len(head) - 3
        text = self._live_fit.line(pieces, room - _NARROWEST_BAR)
        bar: Any = self._progress.columns[1]
        bar.bar_width = min(_WIDEST_BAR, room - len(text))
        self._progress.update(self._task, completed=status.step, epoch=head, text=text)
        self._progress.refresh()

    def _time_left(self, status: TrainingStatus) -> str:
        """Return the time to the last step at the speed so far, in words; nothing where none is known."""
        if self._first is None:
            return ""
        steps, seconds = status.step - self._first.step, status.seconds - self._first.seconds
        remaining = status.total_steps - status.step
        if steps <= 0 or seconds <= 0 or remaining <= 0:
            return ""
        return f"{duration(seconds / steps * remaining)} left"


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.fields[epoch]}", markup=False),
        BarColumn(bar_width=_WIDEST_BAR),
        TextColumn("{task.fields[text]}", markup=False),
    )
    # Without a refreshing thread, which would compete with the training for the interpreter.
    return Progress(*columns, console=console, auto_refresh=False, transient=True)


# --- a line that fits ---


@dataclass(frozen=True)
class _Piece:
    """A part of a line, in full and short; parts of the highest rank are dropped first, rank 0 never."""

    full: str
    short: str
    rank: int = 0


@dataclass
class _Fit:
    """Fits the lines of a training to a width; what one line had to drop, later ones drop, too."""

    short: bool = False
    most: int = 9

    def line(self, pieces: list[_Piece], width: int) -> str:
        """Return the pieces in a line: in full if they fit, else short, else without some."""
        while True:
            kept = [piece for piece in pieces if piece.rank <= self.most]
            text = "  ".join(piece.short if self.short else piece.full for piece in kept)
            if len(text) <= width or (self.short and self.most == 0):
                return text[: max(width, 0)]
            if self.short:
                self.most = max((piece.rank for piece in kept), default=1) - 1
            self.short = True


# --- the words ---


def _head(status: TrainingStatus) -> str:
    return f"epoch {max(status.epoch, 1)}/{status.epochs}"


# Ranks of pieces.
_LATER_METRIC, _SPEED, _END, _FIRST_METRIC = 4, 3, 2, 1


def _pieces(status: TrainingStatus, before: Mapping[str, float], end: str) -> list[_Piece]:
    """Return the parts of a line: losses and metrics, speed, and its end."""
    pieces, metrics = [], 0
    for name, value in _values(status).items():
        shown = number_apart(value, before[name]) if name in before else number(value)
        is_loss = name.removeprefix("validation_") == "loss"
        metrics += not is_loss
        rank = 0 if is_loss else _FIRST_METRIC if metrics == 1 else _LATER_METRIC
        label = _label(name, status)
        pieces.append(_Piece(f"{label} {shown}", f"{label.replace('validation', 'val')} {shown}", rank))
    rate = status.samples_per_second
    if rate > 0:
        pieces.append(_Piece(f"{_speed(rate):>9} samples/s", f"{_short_speed(rate):>6}", _SPEED))
    return [*pieces, _Piece(end, end, _END)] if end else pieces


def _values(status: TrainingStatus) -> dict[str, float]:
    return {"loss": status.loss, **status.metrics}


def _label(name: str, status: TrainingStatus) -> str:
    """Return a metric's name; "validation" is omitted for one that training does not have."""
    bare = name.removeprefix("validation_")
    if bare != "loss" and bare not in status.metrics:
        name = bare
    return name.replace("_", " ")


def _speed(rate: float) -> str:
    """Return a rate to three digits, with thousands separators."""
    if rate < 1:
        return f"{rate:.2g}"
    digits = max(math.floor(math.log10(rate)) - 2, 0)
    return f"{round(rate / 10**digits) * 10**digits:,}"


def _short_speed(rate: float) -> str:
    """Return a rate in few characters, such as 412k/s."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= 0.9995 * size:
            return f"{rate / size:.{1 if rate < 9.95 * size else 0}f}{unit}/s"
    return f"{rate:.3g}/s"
