"""What a person watches while a network trains: a live bar on a terminal, plain lines everywhere else.

Order: the display, then the words it is made of. Rich is imported only where there is a terminal.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, TextIO

from nnkit.terminal import duration
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


class ProgressDisplay(Callback):
    """Show a training's progress on standard output.

    On a terminal a live line (epoch, bar, loss, samples a second, time left) stands below one finished line
    for each epoch. Elsewhere, or on a terminal that cannot move its cursor, there are the plain lines alone.
    A training of more than 50 epochs leaves about 20 lines, the first, the best and the last among them.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to draw; by default one on `file`.
    file : text file, optional
        Where to write; by default standard output as it is when the training begins. A pickled display leaves
        console and file behind, and writes to the standard output of the process that it comes to.
    """

    def __init__(self, console: Console | None = None, file: TextIO | None = None) -> None:
        self.console = console
        self.file = file
        self._console: Console | None = None  # that of the training under way
        self._progress: Progress | None = None
        self._task: Any = None
        self._best: tuple[int, str] | None = None
        self._last: tuple[int, str] | None = None
        self._best_value = math.inf
        self._begin(None)

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Start the bar."""
        self.close()
        self._begin(figures)
        console = self._terminal()
        if console is not None:
            self._progress = _bar(console)
            # The bar's own look at the clock is not needed: it is drawn when there is something new.
            self._task = self._progress.add_task(
                "", total=max(figures.total_steps, 1), **_fields(figures, "")
            )
            self._progress.start()
            self._advance(figures)

    def on_step_end(self, trainer: Any, figures: Figures) -> None:
        """Move the bar."""
        if figures.seconds - self._drawn_at >= _REFRESH:
            self._advance(figures)

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Leave the epoch's line, or remember it in case it turns out to be the best or the last."""
        value = figures.metrics.get("validation_loss", figures.loss)
        line = _line(figures)
        self._last = (figures.epoch, line)
        if not math.isnan(value) and value < self._best_value:
            self._best_value = value
            self._best = (figures.epoch, line)
        if self._is_shown(figures):
            left = self._time_left(figures)
            self._write(figures.epoch, f"{line}  {left}" if left else line)
            self._line_at = figures.seconds
        if figures.seconds - self._drawn_at >= _REFRESH:
            self._advance(figures)

    def on_train_end(self, trainer: Any, figures: Figures) -> None:
        """Leave the last and the best line where they were passed over, and take the bar away."""
        if self._progress is not None:
            self._advance(figures)
        self.close()
        if self._last is not None and self._last[0] not in self._written:
            self._write(*self._last)
        if self._best is not None and self._best[0] not in self._written:
            self._write(self._best[0], f"{self._best[1]}  (best)")
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

    def _begin(self, figures: Figures | None) -> None:
        """Forget the last training."""
        self._first = figures
        self._drawn_at = -math.inf
        self._line_at = 0.0 if figures is None else figures.seconds
        self._best_value = math.inf
        self._best = None
        self._last = None
        self._written: set[int] = set()

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

    def _is_shown(self, figures: Figures) -> bool:
        """Whether an epoch's line is written: all, or by count and by time where there are many."""
        if figures.epochs <= _MANY_EPOCHS or not self._written:
            return True
        spacing = math.ceil(figures.epochs / _LINES)
        silence = figures.seconds - self._line_at
        return figures.epoch % spacing == 0 or figures.epoch == figures.epochs or silence >= _LONGEST_SILENCE

    def _write(self, epoch: int, line: str) -> None:
        self._written.add(epoch)
        if self._console is not None:
            # Rich would colour the numbers, wrap the line and read [brackets] as markup.
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self.file or sys.stdout, flush=True)

    def _advance(self, figures: Figures) -> None:
        if self._progress is None:
            return
        self._drawn_at = figures.seconds
        left = self._time_left(figures)
        self._progress.update(self._task, completed=figures.step, **_fields(figures, left))
        self._progress.refresh()

    def _time_left(self, figures: Figures) -> str:
        """Return the time to the last step at the speed so far, in words; nothing where none is known."""
        steps = figures.step - (self._first.step if self._first else 0)
        seconds = figures.seconds - (self._first.seconds if self._first else 0.0)
        remaining = figures.total_steps - figures.step
        if steps <= 0 or seconds <= 0 or remaining <= 0:
            return ""
        return f"{duration(seconds / steps * remaining)} left"


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
        TextColumn("{task.fields[left]}"),
    )
    # No thread of its own: it would take turns with the training for the interpreter.
    return Progress(*columns, console=console, auto_refresh=False, transient=True)


def _fields(figures: Figures, left: str) -> dict[str, Any]:
    words = _words(figures) if figures.step else []
    return {"epoch": f"{max(figures.epoch, 1)}/{figures.epochs}", "figures": "  ".join(words), "left": left}


def _line(figures: Figures) -> str:
    """Return the plain line of an epoch."""
    epochs = str(figures.epochs)
    return "  ".join([f"epoch {figures.epoch:>{len(epochs)}}/{epochs}", *_words(figures)])


def _words(figures: Figures) -> list[str]:
    """Return the figures in words: loss, validation and metrics, speed."""
    words = [f"loss {_number(figures.loss)}"]
    words += [f"{_label(name, figures)} {_number(value)}" for name, value in figures.metrics.items()]
    if figures.samples_per_second > 0:
        words.append(f"{_speed(figures.samples_per_second):>9} samples/s")
    return words


def _label(name: str, figures: Figures) -> str:
    """Return a metric's name in words; a validation's accuracy is *the* accuracy where training has none."""
    bare = name.removeprefix("validation_")
    if bare != "loss" and bare not in figures.metrics:
        name = bare
    return name.replace("_", " ")


def _number(value: float) -> str:
    """Return a figure six characters wide wherever it fits, so that the lines align."""
    size = abs(value)
    if not math.isfinite(value) or size == 0 or 1e-3 <= size < 10:
        return f"{value:6.4f}"
    if 10 <= size < 1e4:
        return f"{value:6.{2 if size < 100 else 1 if size < 1000 else 0}f}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def _speed(rate: float) -> str:
    """Return a rate to three digits, with a comma at the thousands."""
    if rate < 1:
        return f"{rate:.2g}"
    digits = max(math.floor(math.log10(rate)) - 2, 0)
    return f"{round(rate / 10**digits) * 10**digits:,}"
