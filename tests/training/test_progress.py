"""Periods, and what a person sees of a training: on a terminal, and in a file."""

from __future__ import annotations

import copy
import io
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from nnkit.errors import ConfigError
from nnkit.training.callbacks import Callback, TrainingStatus
from nnkit.training.periods import Period, parse_period
from nnkit.training.progress import ProgressDisplay

STEPS = 10


def figures(
    epoch: int, step: int, epochs: int, seconds_each: float, loss: float = 0.0812, **metrics
) -> TrainingStatus:
    return TrainingStatus(
        epoch=epoch,
        epochs=epochs,
        step=step,
        steps_per_epoch=STEPS,
        total_steps=epochs * STEPS,
        samples=128 * step,
        seconds=step / STEPS * seconds_each,
        samples_per_second=412_345.6 if step else 0.0,
        learning_rate=1e-3,
        loss=loss,
        metrics=metrics,
    )


def train(
    display: Callback, epochs: int, stop: int | None = None, best: int = -1, seconds_each: float = 0.1
) -> None:
    """Run through a training whose validation loss is smallest in the epoch `best`."""
    display.on_train_begin(None, figures(0, 0, epochs, seconds_each))
    last = stop or epochs
    for epoch in range(1, last + 1):
        for step in range(1, STEPS + 1):
            display.on_step_end(None, figures(epoch, (epoch - 1) * STEPS + step, epochs, seconds_each))
        loss = 0.05 if epoch == best else 0.092 + epoch * 1e-4
        display.on_epoch_end(
            None,
            figures(
                epoch, epoch * STEPS, epochs, seconds_each, validation_loss=loss, validation_accuracy=0.9731
            ),
        )
    display.on_train_end(None, figures(last, last * STEPS, epochs, seconds_each))


def plain(epochs: int, **options) -> list[str]:
    file = io.StringIO()
    train(ProgressDisplay(file=file), epochs, **options)
    return file.getvalue().splitlines()


def test_plain_lines_one_an_epoch_without_control_codes() -> None:
    lines = plain(20)
    assert len(lines) == 20
    assert lines[2] == "epoch  3/20  loss 0.0812  val loss 0.0923  accuracy 0.9731  412k/s  1.7 s left"
    assert lines[-1].endswith("412k/s")
    assert all(line.isprintable() and line.isascii() for line in lines)
    assert len({line.index("412k/s") for line in lines}) == 1


def test_a_wide_line_says_its_words_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert plain(20)[2] == (
        "epoch  3/20  loss 0.0812  validation loss 0.0923  accuracy 0.9731    412,000 samples/s  1.7 s left"
    )


REGRESSION = {"validation_r2": 0.99987, "validation_rmse": 45_123.4, "validation_mae": 0.00001234}


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("loss", [0.0812, 0.00001234, float("nan"), 1e300])
@pytest.mark.parametrize(("epochs", "metrics"), [(1000, {"validation_accuracy": 0.9731}), (20, REGRESSION)])
def test_no_line_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, loss: float, metrics: dict[str, float], epochs: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    file = io.StringIO()
    live = Console(file=io.StringIO(), force_terminal=True, width=width, _environ={"TERM": "xterm"})
    for display in (ProgressDisplay(file=file), ProgressDisplay(live)):
        display.on_train_begin(None, figures(0, 0, epochs, 90.0))
        for epoch in range(1, 4):
            changed = loss * (1 + epoch * 1e-7)
            done = epoch * STEPS
            display.on_step_end(None, figures(epoch, done - 1, epochs, 90.0, changed))
            display.on_epoch_end(
                None, figures(epoch, done, epochs, 90.0, changed, validation_loss=changed, **metrics)
            )
        display.close()
    assert isinstance(live.file, io.StringIO)
    for line in [*file.getvalue().splitlines(), *drawn_lines(live.file.getvalue())]:
        assert len(line) <= width, line
        assert "loss" in line or line.startswith("epoch 1/")


def drawn_lines(text: str) -> list[str]:
    """Return what was on a terminal's line each time that it was drawn anew or left."""
    return [
        shown
        for part in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
        if (shown := part.rstrip())
    ]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((12_345.678, 12_345.612), ("12,346", "12,345.6")),
        ((0.00001234, 0.00001235), ("1.234e-5", "1.235e-5")),
        ((0.99987, 0.99991), ("0.99987", "0.999910")),
        ((0.12345, 0.12346), ("0.1235", "0.12346")),
        ((0.5, 0.5), ("0.5000", "0.5000")),
    ],
)
def test_figures_of_epochs_that_follow_one_another_are_told_apart(
    values: tuple[float, float], shown: tuple[str, str]
) -> None:
    file = io.StringIO()
    display = ProgressDisplay(file=file)
    display.on_train_begin(None, figures(0, 0, 9, 0.1))
    for epoch, loss in enumerate(values, start=1):
        display.on_epoch_end(None, figures(epoch, epoch * STEPS, 9, 0.1, loss=loss))
    assert tuple(re.findall(r"loss +(\S+)", file.getvalue())) == shown


def test_the_first_time_left_does_not_count_what_came_before_the_first_steps() -> None:
    file = io.StringIO()
    display = ProgressDisplay(file=file)
    display.on_train_begin(None, figures(0, 0, 11, 0.0))
    # Ten seconds pass until the first step is done, and then a tenth of a second for each.
    for step in range(1, STEPS + 1):
        moment = TrainingStatus(1, 11, step, STEPS, 11 * STEPS, step, 10 + step / 10, 1.0, 1e-3, 0.5)
        display.on_step_end(None, moment)
    display.on_epoch_end(None, moment)
    assert file.getvalue().rstrip().endswith("10 s left")


def test_standard_output_as_it_is_when_the_training_begins_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = ProgressDisplay()
    train(display, 2)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_many_fast_epochs_leave_about_twenty_lines_with_first_last_and_best() -> None:
    lines = plain(1000, best=333)
    epochs = [int(re.match(r"epoch +(\d+)/1000", line)[1]) for line in lines]  # type: ignore[index]
    assert 20 <= len(lines) <= 24
    assert epochs[0] == 1
    assert 1000 in epochs
    assert epochs.count(333) == 1
    assert lines[epochs.index(333)].endswith("(best)")
    assert "val loss 0.0500" in lines[epochs.index(333)]


def test_the_last_epoch_of_a_training_stopped_early_is_shown() -> None:
    lines = plain(1000, stop=123, best=100)
    assert sum(line.startswith("epoch  123/1000") for line in lines) == 1
    assert sum(line.startswith("epoch  100/1000") for line in lines) == 1


def test_many_slow_epochs_are_not_silent_for_long() -> None:
    assert len(plain(100, seconds_each=60.0)) == 100


def test_a_second_training_begins_anew() -> None:
    file = io.StringIO()
    display = ProgressDisplay(file=file)
    train(display, 100)
    first = file.getvalue()
    train(display, 100)
    assert file.getvalue() == 2 * first


def test_a_copied_display_writes_to_the_same_file_and_a_pickled_one_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = io.StringIO()
    display = ProgressDisplay(file=file)
    train(display, 2)
    for copied in (copy.deepcopy(display), copy.copy(display)):
        before = len(file.getvalue())
        train(copied, 2)
        assert file.getvalue()[before:] == file.getvalue()[:before]
        file.truncate(before), file.seek(before)
    train(pickle.loads(pickle.dumps(display)), 2)
    assert capsys.readouterr().out == file.getvalue()


@pytest.mark.parametrize("given", ["console", "file"])
def test_a_display_on_a_terminal_can_be_copied_and_pickled_also_while_it_draws(
    given: str, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w") as file:
        made = {"console": Console(file=file, force_terminal=True), "file": file}[given]
        display = ProgressDisplay(**{given: made})
        display.on_train_begin(None, figures(0, 0, 2, 0.1))
        try:
            for copied in (pickle.loads(pickle.dumps(display)), copy.deepcopy(display)):
                assert copied._progress is None
            assert getattr(copied, given) is made
        finally:
            display.close()


def test_a_metric_of_training_and_validation_is_told_apart() -> None:
    file = io.StringIO()
    display = ProgressDisplay(file=file)
    display.on_train_begin(None, figures(0, 0, 1, 0.1))
    display.on_epoch_end(None, figures(1, STEPS, 1, 0.1, accuracy=0.9, validation_accuracy=0.8))
    assert "accuracy 0.9000  val accuracy 0.8000" in file.getvalue()


def test_odd_losses_can_be_read_and_are_never_the_best() -> None:
    file = io.StringIO()
    display = ProgressDisplay(file=file)
    display.on_train_begin(None, figures(0, 0, 9, 0.1))
    for epoch, loss in enumerate([float("nan"), float("inf"), 1e-9, 0.0, 123.456, 54321.0, -0.5], start=1):
        display.on_epoch_end(None, figures(epoch, epoch * STEPS, 9, 0.1, loss=loss))
    found = re.findall(r"loss +(\S+)", file.getvalue())
    assert found == ["nan", "inf", "1.000e-9", "0.0000", "123.5", "54,321", "-0.5000"]


def test_time_left_counts_from_where_a_resumed_training_began() -> None:
    file = io.StringIO()
    display = ProgressDisplay(file=file)
    begin = figures(5, 50, 10, 0.0)
    display.on_train_begin(None, begin)
    display.on_step_end(None, begin)
    later = TrainingStatus(6, 10, 60, STEPS, 100, 0, 3600.0, 1.0, 1e-3, 0.5)
    display.on_epoch_end(None, later)
    assert file.getvalue().rstrip().endswith("4 h 00 min left")


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0.25, "0.25"), (3.2, "3"), (999.7, "1,000"), (412_345.6, "412,000"), (9_876_543, "9,880,000")],
)
def test_speeds_have_three_digits(rate: float, words: str) -> None:
    file = io.StringIO()
    ProgressDisplay(file=file).on_epoch_end(None, TrainingStatus(1, 1, 1, 1, 1, 1, 1.0, rate, 1e-3, 0.5))
    assert re.search(r"(\S+) samples/s", file.getvalue())[1] == words  # type: ignore[index]


@pytest.mark.parametrize(
    ("rate", "words"), [(0.25, "0.25/s"), (999.7, "1.0k/s"), (412_345.6, "412k/s"), (9_876_543, "9.9M/s")]
)
def test_speeds_are_short_where_there_is_little_room(
    rate: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    file = io.StringIO()
    ProgressDisplay(file=file).on_epoch_end(None, TrainingStatus(1, 1, 1, 1, 1, 1, 1.0, rate, 1e-3, 0.5))
    assert file.getvalue().rstrip().endswith(f" {words}")


def terminal_output(epochs: int, width: int = 120) -> str:
    file = io.StringIO()
    train(
        ProgressDisplay(Console(file=file, force_terminal=True, width=width, _environ={"TERM": "xterm"})),
        epochs,
    )
    return file.getvalue()


def test_terminal_has_a_live_line_and_leaves_one_an_epoch() -> None:
    text = terminal_output(4)
    left = [line.split("\r\x1b[2K")[-1] for line in text.split("\n")]
    left = [line for line in left if line.startswith("epoch") and "\x1b" not in line]
    assert [line[:9] for line in left] == ["epoch 1/4", "epoch 2/4", "epoch 3/4", "epoch 4/4"]
    assert "accuracy 0.9731" in left[0]
    assert "━" in text
    assert "s left" in text


def test_terminal_gets_its_cursor_back() -> None:
    text = terminal_output(2)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")

    file = io.StringIO()
    display = ProgressDisplay(Console(file=file, force_terminal=True, _environ={"TERM": "xterm"}))
    display.on_train_begin(None, figures(0, 0, 3, 0.1))
    display.close()
    display.close()
    assert file.getvalue().count("\x1b[?25h") == 1


def test_a_narrow_terminals_live_line_stays_one_line() -> None:
    text = terminal_output(3, width=40)
    for redraw in re.findall(r"\r\x1b\[2K(.*?)(?=\r|\n)", text):
        visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", redraw)
        assert len(visible) <= 40 or "validation loss" in visible  # the line that an epoch leaves may wrap
    assert "\x1b[1A\x1b[2K\r\x1b[1A" not in text


def test_rich_is_imported_for_a_terminal_only() -> None:
    code = """
import sys
from nnkit.training.callbacks import TrainingStatus
from nnkit.training.progress import ProgressDisplay
display = ProgressDisplay()
moment = TrainingStatus(1, 1, 1, 1, 1, 1, 1.0, 1.0, 1.0, 0.5)
display.on_train_begin(None, moment); display.on_epoch_end(None, moment); display.on_train_end(None, moment)
assert "rich" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("500 steps", Period(500, "steps")),
        ("1 epochs", Period(1, "epochs")),
        ("1 epoch", Period(1, "epochs")),
        (" 2.5 Minutes ", Period(2.5, "minutes")),
        ("30 seconds", Period(30, "seconds")),
        ("1 hour", Period(1, "hours")),
        ("10_000 steps", Period(10_000, "steps")),
    ],
)
def test_periods_are_read_and_written(text: str, period: Period) -> None:
    assert parse_period(text) == period
    assert parse_period(str(period)) == period
    assert parse_period(period) is period


def test_periods_in_steps_and_seconds() -> None:
    assert Period(500, "steps").steps(STEPS) == 500
    assert Period(3, "epochs").steps(STEPS) == 30
    assert Period(5, "minutes").steps(STEPS) is None
    assert [Period(2, unit).seconds for unit in ("seconds", "minutes", "hours")] == [2, 120, 7200]
    assert Period(2, "steps").seconds is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("often", "a period is a number and a unit"),
        ("5", "a period is a number and a unit"),
        ("5 parsecs", "a period is a number and a unit"),
        ("-5 steps", "a period is a number and a unit"),
        (5, "a period is a number and a unit"),
        ("0 steps", "a period in steps = 0 must be a whole number of at least 1"),
        ("1e400 minutes", "greater than 0"),
        ("1.5 epochs", "a whole number"),
        ("1__0 steps", "is not a number"),
    ],
)
def test_what_is_no_period_is_refused(text, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_period(text)
