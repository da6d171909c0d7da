"""What a person watches while a network trains: a live bar on a terminal, plain lines everywhere else.

Order: the display, then how a line is made to fit, then the words it is made of. Rich is imported only where
there is a terminal.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

from nnkit.terminal import duration, number, number_apart, terminal_width
from nnkit.training.callbacks import Callback, Figures

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["ProgressDisplay"]

# Up to so many epochs each leaves a line; of more, about `_LINES` do.
_MANY_EPOCHS = 50
_LINES = 20
# Yet where epochs are slow nobody waits longer than this for a sign of life.
_LONGEST_SILENCE = 30.0
# Drawing the bar costs about a millisecond: ten times a second is under 1 % of the training.
_REFRESH = 0.1
_WIDEST_BAR, _NARROWEST_BAR = 24, 8


class ProgressDisplay(Callback):
    """Show a training's progress on standard output.

    On a terminal a live line (epoch, bar, loss, samples a second, time left) stands below one finished line
    for each epoch. Elsewhere, or on a terminal that cannot move its cursor, there are the plain lines alone.
    A training of more than 50 epochs leaves about 20 lines, the first, the best and the last among them. No
    line is wider than the terminal, or than 80 columns elsewhere, from 60 columns on.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to draw; by default one on `file`.
    file : text file, optional
        Where to write; by default standard output as it is when the training begins. A pickled display leaves
        console and file behind, and writes to the standard output of the process that it comes to.
    """

    _first: Figures | None
    _best: Figures | None
    _last: Figures | None
    _drawn_at: float
    _best_value: float

    def __init__(self, console: Console | None = None, file: TextIO | None = None) -> None:
        self.console = console
        self.file = file
        self._console: Console | None = None  # that of the training under way
        self._progress: Progress | None = None
        self._task: Any = None
        self._begin()

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Start the bar."""
        self.close()
        self._begin()
        self._line_at = figures.seconds
        console = self._terminal()
        if console is not None:
            self._progress = _bar(console)
            # The bar's own look at the clock is not needed: it is drawn when there is something new.
            head, total = _head(figures), max(figures.total_steps, 1)
            self._task = self._progress.add_task("", total=total, epoch=head, text="")
            self._progress.start()
            self._advance(figures)

    def on_step_end(self, trainer: Any, figures: Figures) -> None:
        """Move the bar."""
        if self._first is None:
            # What comes before the first steps are done, such as loading what they need, says nothing about
            # those to come.
            self._first = figures
        if figures.seconds - self._drawn_at >= _REFRESH:
            self._advance(figures)

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Leave the epoch's line, or remember it in case it turns out to be the best or the last."""
        value = figures.metrics.get("validation_loss", figures.loss)
        is_first, self._last = self._last is None, figures
        if not math.isnan(value) and value < self._best_value:
            self._best_value = value
            self._best = figures
        if self._is_shown(figures):
            self._write(figures, self._time_left(figures))
            self._line_at = figures.seconds
        if is_first:
            # Nor does the first epoch, in which caches are cold and the first checkpoint is written.
            self._first = figures
        if figures.seconds - self._drawn_at >= _REFRESH:
            self._advance(figures)

    def on_train_end(self, trainer: Any, figures: Figures) -> None:
        """Leave the last and the best line where they were passed over, and take the bar away."""
        if self._progress is not None:
            self._advance(figures)
        self.close()
        if self._last is not None and self._last.epoch not in self._written:
            self._write(self._last)
        if self._best is not None and self._best.epoch not in self._written:
            self._write(self._best, "(best)")
        self._console = None

    def close(self) -> None:
        """Give the terminal back; done by itself at the end, and by whoever catches an error before it."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        return {**self.__dict__, **dict.fromkeys(("console", "file", "_console", "_progress", "_task"))}

    def __copy__(self) -> ProgressDisplay:
        copied = self.__new__(type(self))
        copied.__dict__.update(self.__getstate__(), console=self.console, file=self.file)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgressDisplay:
        """Return a display on the same console and file: for scikit-learn's `clone`."""
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

    def _is_shown(self, figures: Figures) -> bool:
        """Whether an epoch's line is written: all, or by count and by time where there are many."""
        if figures.epochs <= _MANY_EPOCHS or not self._written:
            return True
        spacing = math.ceil(figures.epochs / _LINES)
        silence = figures.seconds - self._line_at
        return figures.epoch % spacing == 0 or figures.epoch == figures.epochs or silence >= _LONGEST_SILENCE

    def _write(self, figures: Figures, end: str = "") -> None:
        epochs = str(figures.epochs)
        head = f"epoch {figures.epoch:>{len(epochs)}}/{epochs}"
        line = self._fit.line([_Piece(head, head), *_pieces(figures, self._shown, end)], self._width())
        self._shown = _values(figures)
        self._written.add(figures.epoch)
        if self._console is not None:
            # Rich would colour the numbers, wrap the line and read [brackets] as markup.
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self.file or sys.stdout, flush=True)

    def _advance(self, figures: Figures) -> None:
        if self._progress is None:
            return
        self._drawn_at = figures.seconds
        head = _head(figures)
        # The last epoch's metrics stand in its line above.
        moment = replace(figures, metrics={})
        pieces = _pieces(moment, {}, self._time_left(figures)) if figures.step else []
        # One column is left free: a terminal may wrap a line that fills it.
        room = self._width() - len(head) - 3
        text = self._live_fit.line(pieces, room - _NARROWEST_BAR)
        bar: Any = self._progress.columns[1]
        bar.bar_width = min(_WIDEST_BAR, room - len(text))
        self._progress.update(self._task, completed=figures.step, epoch=head, text=text)
        self._progress.refresh()

    def _time_left(self, figures: Figures) -> str:
        """Return the time to the last step at the speed so far, in words; nothing where none is known."""
        if self._first is None:
            return ""
        steps, seconds = figures.step - self._first.step, figures.seconds - self._first.seconds
        remaining = figures.total_steps - figures.step
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
    # No thread of its own: it would take turns with the training for the interpreter.
    return Progress(*columns, console=console, auto_refresh=False, transient=True)


# --- a line that fits ---


@dataclass(frozen=True)
class _Piece:
    """A part of a line: in full, short, and how dispensable it is (0: not at all)."""

    full: str
    short: str
    rank: int = 0


@dataclass
class _Fit:
    """How the lines of a training are made to fit: what one line had to give up, those after it do too."""

    short: bool = False
    most: int = 9

    def line(self, pieces: list[_Piece], width: int) -> str:
        """Return the pieces in a line: all in full where they fit, else short, else without some."""
        while True:
            kept = [piece for piece in pieces if piece.rank <= self.most]
            text = "  ".join(piece.short if self.short else piece.full for piece in kept)
            if len(text) <= width or (self.short and self.most == 0):
                return text[: max(width, 0)]
            if self.short:
                self.most = max((piece.rank for piece in kept), default=1) - 1
            self.short = True


# --- the words ---


def _head(figures: Figures) -> str:
    return f"epoch {max(figures.epoch, 1)}/{figures.epochs}"


# What is left out first where there is no room.
_LATER_METRIC, _SPEED, _END, _FIRST_METRIC = 4, 3, 2, 1


def _pieces(figures: Figures, before: Mapping[str, float], end: str) -> list[_Piece]:
    """Return the figures in words: loss, validation and metrics, speed, and how the line ends."""
    pieces, metrics = [], 0
    for name, value in _values(figures).items():
        shown = number_apart(value, before[name]) if name in before else number(value)
        is_loss = name.removeprefix("validation_") == "loss"
        metrics += not is_loss
        rank = 0 if is_loss else _FIRST_METRIC if metrics == 1 else _LATER_METRIC
        label = _label(name, figures)
        pieces.append(_Piece(f"{label} {shown}", f"{label.replace('validation', 'val')} {shown}", rank))
    rate = figures.samples_per_second
    if rate > 0:
        pieces.append(_Piece(f"{_speed(rate):>9} samples/s", f"{_short_speed(rate):>6}", _SPEED))
    return [*pieces, _Piece(end, end, _END)] if end else pieces


def _values(figures: Figures) -> dict[str, float]:
    return {"loss": figures.loss, **figures.metrics}


def _label(name: str, figures: Figures) -> str:
    """Return a metric's name in words; a validation's accuracy is *the* accuracy where training has none."""
    bare = name.removeprefix("validation_")
    if bare != "loss" and bare not in figures.metrics:
        name = bare
    return name.replace("_", " ")


def _speed(rate: float) -> str:
    """Return a rate to three digits, with a comma at the thousands."""
    if rate < 1:
        return f"{rate:.2g}"
    digits = max(math.floor(math.log10(rate)) - 2, 0)
    return f"{round(rate / 10**digits) * 10**digits:,}"


def _short_speed(rate: float) -> str:
    """Return a rate of samples in few characters: 412k/s."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= 0.9995 * size:
            return f"{rate / size:.{1 if rate < 9.95 * size else 0}f}{unit}/s"
    return f"{rate:.3g}/s"
