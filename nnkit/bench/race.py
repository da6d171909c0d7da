"""A race: libraries train the same problem, each in a separate process, timed in turns."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.bench.contenders import CONTENDERS, NNKIT, Contender
from nnkit.bench.problem import Problem
from nnkit.bench.timing import REST

__all__ = ["CONTENDERS", "NNKIT", "Outcome", "race"]


@dataclass
class Outcome:
    """The result of a race, by contender.

    Parameters
    ----------
    seconds : dict of str to ndarray of shape (repeats,)
        The time of one step, turn by turn; contenders that failed are missing.
    losses, first_epoch : dict of str to float
        The loss of the first epoch's last step, and the epoch's seconds, compiling included.
    failures : dict of str to str
        Why a contender could not take part.
    """

    seconds: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    first_epoch: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class _Lost(Exception):
    """A contender failed, died or took too long."""


class _Process:
    """A contender in its process."""

    def __init__(self, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        # A daemon could start no processes, as compilers do.
        self._process = context.Process(target=_serve, args=(other, *arguments), daemon=False)
        self._process.start()
        other.close()

    def ask(self, request: str, seconds: float) -> Any:
        """Send a request and return the answer; raise `_Lost` if none comes in time."""
        try:
            self._connection.send(request)
            if not self._connection.poll(max(seconds, 0)):
                raise _Lost(f"not done after {seconds:.0f} s: {request}")
            succeeded, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise _Lost(f"its process ended with status {self._process.exitcode}") from None
        if not succeeded:
            raise _Lost(answer)
        return answer

    def end(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, name: str, problem: Problem, device: str, precision: str) -> None:
    """Be a contender until the other end closes."""
    os.dup2(2, 1)  # what libraries print must not get into the JSON on the standard output
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    contender: Contender | None = None
    while True:
        try:
            request = connection.recv()
            contender = contender or CONTENDERS[name](problem, device, precision)
            contender.wait()
            began = time.perf_counter()
            contender.epoch()
            contender.wait()
            seconds = time.perf_counter() - began
            answer = (contender.last_loss(), seconds) if request == "train an epoch" else seconds
            connection.send((True, answer))
        except EOFError:
            return
        except Exception as error:
            if not isinstance(error, ImportError):
                traceback.print_exc()
            connection.send((False, f"{type(error).__name__}: {str(error).strip()[:300]}"))


def race(
    names: Sequence[str],
    problem: Problem,
    device: str,
    precision: str,
    repeats: int,
    deadline: float,
    warmup: int = 2,
    finish: float = math.inf,
) -> Outcome:
    """Let contenders train an epoch one after the other, then time epochs in turns.

    Parameters
    ----------
    names : sequence of str
        Keys of `CONTENDERS`, in the order in which they train their first epoch.
    problem : Problem
        The problem they train.
    device, precision : str
        As `nnkit.Trainer` takes them.
    repeats, warmup : int
        Turns that count, and turns before them that do not.
    deadline, finish : float
        Values of `time.monotonic`: contenders that are not ready by `deadline` are left out; after `finish`
        no turn begins, except those that do not count and the first that does.
    """
    outcome, seconds = Outcome(), {}
    processes = {name: _Process(name, problem, device, precision) for name in names}

    def ask(name: str, request: str, limit: float) -> Any:
        try:
            return processes[name].ask(request, limit)
        except _Lost as lost:
            outcome.failures[name] = str(lost)
            processes.pop(name).end()
            return None

    try:
        for name in names:
            trained = ask(name, "train an epoch", deadline - time.monotonic())
            if trained is not None:
                outcome.losses[name], outcome.first_epoch[name] = trained
        for turn in range(-warmup, repeats):
            if turn > 0 and time.monotonic() >= finish:
                break
            for name in list(processes):
                time.sleep(REST)
                seconds[name, turn] = ask(name, "time an epoch", 60.0)
    finally:
        for process in processes.values():
            process.end()
    for name in processes:
        taken = [passed for (whose, turn), passed in seconds.items() if whose == name and turn >= 0]
        outcome.seconds[name] = np.array(taken) / problem.steps
    return outcome
