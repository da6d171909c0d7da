"""A contest: contenders train the same problem, each in a process of its own, and are timed in turns.

A process of its own keeps one contender's libraries from another's, and its crash or endless compilation from
the contest. While one is timed the others wait for their turn, idle.
"""

from __future__ import annotations

import math
import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import select
from nnkit.benchmarks import peers
from nnkit.benchmarks.clocks import Clock, clock_for
from nnkit.benchmarks.figures import Failure
from nnkit.benchmarks.problem import Problem, last_loss_of_epoch, training_step
from nnkit.benchmarks.timing import REST
from nnkit.training.precision import half_of

__all__ = ["CONTENDERS", "NNKIT", "Contender", "Outcome", "hold_contest"]

NNKIT = "nnkit"


class Contender(Protocol):
    """Somebody's training of a problem."""

    clock: Clock

    def run(self) -> None:
        """Begin an epoch's steps; the device may still be working when this returns."""

    def last_loss(self) -> float:
        """Wait, and return the loss of the last step."""

    def details(self) -> dict[str, Any]:
        """Return JSON values that say what ran."""


class Nnkit:
    """nnkit's step; on a GPU the first epoch's second step captures it."""

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        backend = select(device).backend.with_precision(precision)
        self._step = training_step(problem, backend, half=half_of(precision))
        self._steps = problem.steps
        self._loss = float("nan")
        self._begun = False
        self.clock = clock_for(self._step.arena.backend)

    def run(self) -> None:
        """Train for an epoch."""
        if self._begun:
            self._step.run(0, self._steps)
        else:
            self._loss = last_loss_of_epoch(self._step, self._steps)
            self._begun = True

    def last_loss(self) -> float:
        """Return the loss of the first epoch's last step."""
        return self._loss

    def details(self) -> dict[str, Any]:
        """Return what the device says of itself."""
        return self._step.arena.backend.describe()


CONTENDERS: Mapping[str, Callable[[Problem, str, str], Any]] = {
    NNKIT: Nnkit,
    "scikit-learn": peers.ScikitLearn,
    "PyTorch eager": peers.TorchEager,
    "PyTorch CUDA graph": peers.TorchGraph,
    "PyTorch compiled, reduce-overhead": partial(peers.TorchCompiled, mode="reduce-overhead"),
    "PyTorch compiled, max-autotune": partial(peers.TorchCompiled, mode="max-autotune"),
    "JAX, a step a call": peers.JaxStep,
    "JAX, an epoch a call": peers.JaxEpoch,
}


@dataclass
class Outcome:
    """What came of a contest.

    Parameters
    ----------
    seconds : dict of str to ndarray of shape (repeats,)
        By contender, the time of one step, turn by turn; contenders that failed are not in it.
    losses : dict of str to float
        By contender, the loss of the first epoch's last step.
    details : dict of str to dict
        By contender, what it says of itself, its clock and the seconds of its first epoch, compiling
        included.
    failures : list of Failure
        Contenders that could not take part.
    """

    seconds: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


class _Lost(Exception):
    """A contender failed, died or took too long."""


class _Process:
    """A contender in its process, which does as it is asked and answers."""

    def __init__(self, name: str, problem: Problem, device: str, precision: str) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, name, device, precision), daemon=False)
        self._process.start()
        other.close()
        self._connection.send(problem)

    def ask(self, request: str, seconds: float) -> Any:
        """Send a request and return the answer, or raise `_Lost` if none comes in time."""
        try:
            self._connection.send(request)
            if not self._connection.poll(max(seconds, 0)):
                raise _Lost(f"not done after {seconds:.0f} s: {request}")
            fine, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise _Lost(f"its process ended with status {self._process.exitcode}") from None
        if not fine:
            raise _Lost(answer)
        return answer

    def end(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, name: str, device: str, precision: str) -> None:
    """Be a contender until the other end closes. A function of the module, for a new process imports it."""
    problem = connection.recv()
    contender: Contender | None = None
    # Libraries are imported while others train: what compiles or chooses by timing waits to be asked.
    try:
        contender = CONTENDERS[name](problem, device, precision)
    except Exception:
        unable = traceback.format_exc()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if contender is None:
            connection.send((False, unable))
            continue
        try:
            connection.send((True, _answer(contender, request, problem.steps)))
        except Exception:
            connection.send((False, traceback.format_exc()))


def _answer(contender: Contender, request: str, steps: int) -> Any:
    if request == "train an epoch":
        began = time.perf_counter()
        contender.run()
        loss = contender.last_loss()
        details = {"clock": contender.clock.name, "first epoch, seconds": time.perf_counter() - began}
        return loss, details | contender.details()
    assert request == "time an epoch"
    return contender.clock(contender.run) / steps


def hold_contest(
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
        Of `CONTENDERS`, in the order in which they make themselves ready.
    problem : Problem
        What they train.
    device, precision : str
        As `nnkit.Trainer` takes them.
    repeats, warmup : int
        Turns that count, and turns before them that do not.
    deadline : float
        The value of `time.monotonic` at which whoever is not ready is left out.
    finish : float
        The value from which no turn begins any more, but the first that counts.
    """
    outcome = Outcome()
    processes: list[_Process] = []
    try:
        for name in names:
            processes.append(_Process(name, problem, device, precision))
        ready = [process for process in processes if _is_ready(process, outcome, deadline)]
        _time_in_turns(ready, outcome, repeats, warmup, finish)
    finally:
        for process in processes:
            process.end()
    return outcome


def _is_ready(process: _Process, outcome: Outcome, deadline: float) -> bool:
    try:
        loss, details = process.ask("train an epoch", deadline - time.monotonic())
    except _Lost as lost:
        process.end()
        outcome.failures.append(Failure(process.name, str(lost)))
        return False
    outcome.losses[process.name] = loss
    outcome.details[process.name] = details
    return True


def _time_in_turns(ready: list[_Process], outcome: Outcome, repeats: int, warmup: int, finish: float) -> None:
    seconds: dict[str, list[float]] = {process.name: [] for process in ready}
    for turn in range(-warmup, repeats):
        if turn > 0 and time.monotonic() >= finish:
            break
        for process in list(ready):
            # The threads of whoever was timed before may still spin for their next product.
            time.sleep(REST)
            try:
                passed = process.ask("time an epoch", 60.0)
            except _Lost as lost:
                ready.remove(process)
                outcome.failures.append(Failure(process.name, str(lost)))
                continue
            if turn >= 0:
                seconds[process.name].append(passed)
    for process in ready:
        outcome.seconds[process.name] = np.array(seconds[process.name])
