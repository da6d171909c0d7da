"""Long work: what listeners hear of it, and the line that the command line shows."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from nnkit import Dense, Network
from nnkit.cli.work_line import WorkLine
from nnkit.working import Work, hide_work, listening, working


class Recorder:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self, work: Work) -> None:
        self.heard.append(f"begin {work.what}")

    def end(self, work: Work) -> None:
        self.heard.append(f"end {work.what} {work.done}/{work.total}")

    def hide(self) -> None:
        self.heard.append("hide")


def test_listeners_hear_of_works_inside_one_another_and_of_those_that_fail() -> None:
    recorder = Recorder()

    def fail() -> None:
        with working("outer", 3, "rows") as outer:
            outer.advance(2)
            with working("inner") as inner:
                inner.advance()
            hide_work()
            raise ZeroDivisionError

    with listening(recorder), pytest.raises(ZeroDivisionError):
        fail()
    assert recorder.heard == ["begin outer", "begin inner", "end inner 1/None", "hide", "end outer 2/3"]


def test_without_a_listener_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with working("something"):
        pass
    assert capfd.readouterr() == ("", "")


def test_a_listener_hears_nothing_after_its_context() -> None:
    recorder = Recorder()
    with listening(recorder):
        pass
    with working("later"):
        pass
    assert recorder.heard == []


def test_predicting_many_rows_counts_them() -> None:
    network = Network([Dense(3, "relu"), Dense(1)])
    network.initialize(4, 0)
    recorder = Recorder()
    with listening(recorder):
        network.outputs(np.zeros((40_000, 4), np.float32))
    [ended] = [line for line in recorder.heard if line.startswith("end predicting")]
    done, total = map(int, ended.split()[-1].split("/"))
    assert total == 40_000 <= done


# --- the line ---


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the second before a work is shown."""
    monkeypatch.setattr("nnkit.cli.work_line._PATIENCE", 0.1)
    monkeypatch.setattr("nnkit.cli.work_line._REFRESH", 0.02)


def written(wanted: str, file: io.StringIO) -> str:
    """Wait until a text has been written, for ten seconds at most."""
    end = time.monotonic() + 10
    while wanted not in file.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    return file.getvalue()


@pytest.mark.usefixtures("impatient")
def test_off_a_terminal_a_slow_work_leaves_one_plain_line_and_a_fast_one_none() -> None:
    file = io.StringIO()
    line = WorkLine(file)
    with listening(line):
        with working("quick"):
            pass
        for _ in range(2):
            with working("reading houses.csv"):
                assert written("houses", file) == "reading houses.csv ...\n"
    line.close()
    assert file.getvalue() == "reading houses.csv ...\n"


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


def drawn(file: io.StringIO) -> list[str]:
    return [text for text in re.split(r"\r\x1b\[2K", file.getvalue()) if text]


@pytest.mark.usefixtures("impatient")
def test_on_a_terminal_the_line_is_live_fits_and_is_taken_away(terminal: Terminal) -> None:
    line = WorkLine(terminal)
    with listening(line), working("predicting", 1_000_000, "rows") as work:
        work.advance(250_000)
        text = written("left", terminal)
        with working("compiling " + "very " * 30 + "long kernels"):
            written("compiling", terminal)
    line.close()
    assert re.search(r"predicting, 250,000 of 1,000,000 rows  0\.\d s, \d\.\d s left", text)
    assert max(map(len, drawn(terminal))) < 60
    assert any(": compiling very" in shown and "…" in shown for shown in drawn(terminal))
    assert terminal.getvalue().endswith("\r\x1b[2K")
    assert "\n" not in terminal.getvalue()


@pytest.mark.usefixtures("impatient")
def test_works_of_the_same_words_are_shown_as_one(terminal: Terminal) -> None:
    line = WorkLine(terminal)
    with listening(line):
        for _ in range(40):  # none of them lasts until it would be shown
            with working("compiling kernels", unit="done") as work:
                time.sleep(0.02)
                work.advance()
    line.close()
    counts = [int(count) for count in re.findall(r"compiling kernels, (\d+) done", terminal.getvalue())]
    assert counts == sorted(counts)
    assert counts[-1] > 20


@pytest.mark.usefixtures("impatient")
def test_a_terminal_that_cannot_move_its_cursor_has_plain_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    line = WorkLine(terminal)
    with listening(line), working("reading"):
        assert written("reading", terminal) == "reading ...\n"
    line.close()


@pytest.fixture
def closed_terminal() -> Iterator[io.TextIOWrapper]:
    """Return a terminal whose other end is gone."""
    ours, theirs = pty.openpty()
    os.close(ours)
    file = os.fdopen(theirs, "w")
    yield file
    with suppress(OSError):  # of what it has not got rid of
        file.close()


@pytest.mark.usefixtures("impatient")
def test_a_terminal_that_is_gone_ends_nothing(
    closed_terminal: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    line = WorkLine(closed_terminal)
    line._live = True  # it no longer says so itself
    with listening(line), working("reading"):
        time.sleep(0.3)
    line.close()
    assert not [thread for thread in threading.enumerate() if thread is line._thread]


class BrokenTerminal(io.StringIO):
    """A terminal that a line was written to, and that is gone when the line is to be taken away."""

    gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            raise BrokenPipeError
        return super().write(text)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("method", ["end", "hide", "close"])
def test_a_terminal_that_goes_while_the_line_is_shown_ends_nothing(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file, work = BrokenTerminal(), Work("reading")
    line = WorkLine(file)
    line.begin(work)
    time.sleep(0.3)
    assert "reading" in file.getvalue()
    with line._changed:
        file.gone = True
        line._drawn = True
        line.end(work) if method == "end" else getattr(line, method)()
    line.close()
