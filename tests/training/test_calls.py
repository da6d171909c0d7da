"""Who is called when, and how long the steps may run before somebody is."""

from __future__ import annotations

from typing import Any

import pytest

from nnkit.engine.objective import StepSums
from nnkit.training.callbacks import Callback, TrainingStatus
from nnkit.training.calls import Calls, Moment
from nnkit.training.periods import Period

TRAINER = object()


def figures(step: int = 0) -> TrainingStatus:
    return TrainingStatus(1, 1, step, 10, 10, step, 0.0, 0.0, 0.1, 0.0)


def moment(step: int, seconds: float) -> Moment:
    return Moment(step, seconds, StepSums())


def since(now: Moment, last: Moment) -> TrainingStatus:
    return figures(now.step)


def nobody(now: Moment, last: Moment) -> TrainingStatus:
    pytest.fail("nobody is due")


class Listener(Callback):
    """Notes every call in a list that it may share with others."""

    def __init__(self, every: Period | None = None, calls: list | None = None, name: str = "") -> None:
        self.every = every
        self.calls: list[tuple[str, str, int]] = [] if calls is None else calls
        self.name = name

    def _note(self, call: str, trainer: Any, moment: TrainingStatus) -> None:
        assert trainer is TRAINER
        self.calls.append((self.name, call, moment.step))

    def on_train_begin(self, trainer: Any, figures: TrainingStatus) -> None:
        self._note("begin", trainer, figures)

    def on_step_end(self, trainer: Any, figures: TrainingStatus) -> None:
        self._note("step", trainer, figures)

    def on_epoch_end(self, trainer: Any, figures: TrainingStatus) -> None:
        self._note("epoch", trainer, figures)

    def on_train_end(self, trainer: Any, figures: TrainingStatus) -> None:
        self._note("end", trainer, figures)

    @property
    def steps(self) -> list[int]:
        return [step for _, call, step in self.calls if call == "step"]


class Silent(Callback):
    """Overrides nothing, but has a period."""

    every = Period(1, "steps")


def grown(calls: Calls, times: int = 20) -> Calls:
    """Teach the calls that steps take no time, so that only periods cut their stretches."""
    for _ in range(times):
        calls.measured(1 << 30, 1e-9)
    return calls


def run(calls: Calls, steps: int) -> list[int]:
    """Go through the steps as a training does; return where the stretches ended."""
    step, ends = 0, []
    while step < steps:
        step += calls.stretch(step, steps - step)
        ends.append(step)
        calls.step_end(moment(step, float(step)), since)
    return ends


def test_every_call_reaches_every_callback_in_their_order() -> None:
    noted: list = []
    calls = Calls(TRAINER, [Listener(calls=noted, name="a"), Listener(calls=noted, name="b")], 10)
    calls.train_begin(figures(0))
    calls.step_end(moment(3, 0.1), since)
    calls.epoch_end(figures(10))
    for _, end in calls.train_ends(figures(11)):
        end()
    moments = [("begin", 0), ("step", 3), ("epoch", 10), ("end", 11)]
    assert noted == [(name, call, step) for call, step in moments for name in "ab"]


def test_periods_of_steps_are_met_exactly_whatever_else_cuts_the_stretches() -> None:
    three, seven = Listener(Period(3, "steps")), Listener(Period(7, "steps"))
    ends = run(grown(Calls(TRAINER, [three, seven], 10)), 21)
    assert ends == [3, 6, 7, 9, 12, 14, 15, 18, 21]
    assert three.steps == [3, 6, 9, 12, 15, 18, 21]
    assert seven.steps == [7, 14, 21]


def test_a_period_of_epochs_is_that_many_steps() -> None:
    listener = Listener(Period(2, "epochs"))
    assert run(grown(Calls(TRAINER, [listener], 5)), 30) == [10, 20, 30]
    assert listener.steps == [10, 20, 30]


def test_a_stretch_never_passes_what_is_left() -> None:
    assert grown(Calls(TRAINER, [], 10)).stretch(4, 6) == 6


def test_without_a_period_a_callback_is_called_after_each_stretch() -> None:
    cutting, every_stretch = Listener(Period(4, "steps")), Listener()
    run(grown(Calls(TRAINER, [cutting, every_stretch], 10)), 10)
    assert every_stretch.steps == [4, 8, 10]


def test_a_callback_that_does_not_listen_to_steps_cuts_nothing_and_asks_for_no_figures() -> None:
    calls = grown(Calls(TRAINER, [Silent()], 10))
    assert calls.stretch(0, 10) == 10
    calls.step_end(moment(1, 1.0), nobody)


def test_each_callback_is_given_the_figures_since_its_own_last_call() -> None:
    two, four = Listener(Period(2, "steps")), Listener(Period(4, "steps"))
    calls = Calls(TRAINER, [two, four], 10)
    calls.epoch_begin(moment(0, 0.0))
    spans: list[tuple[int, int]] = []

    def span(now: Moment, last: Moment) -> TrainingStatus:
        spans.append((last.step, now.step))
        return figures(now.step)

    for step in range(1, 5):
        calls.step_end(moment(step, float(step)), span)
    assert spans == [(0, 2), (2, 4), (0, 4)]
    calls.epoch_begin(moment(10, 10.0))
    calls.step_end(moment(12, 12.0), span)
    assert spans[3:] == [(10, 12), (10, 12)]


def test_a_period_of_time_is_counted_from_the_last_call() -> None:
    listener = Listener(Period(2, "seconds"))
    calls = grown(Calls(TRAINER, [listener], 10))
    for step, seconds in enumerate([1.0, 1.9, 2.5, 4.4, 4.5, 9.0, 10.9]):
        calls.step_end(moment(step, seconds), since)
    assert listener.steps == [2, 4, 5]  # at 2.5, 4.5 and 9.0 seconds
    assert calls.stretch(0, 10) == 10


def test_a_stretch_begins_at_one_step_and_at_most_doubles_up_to_the_interval() -> None:
    calls = Calls(TRAINER, [], 10)
    lengths = []
    for _ in range(9):
        count = calls.stretch(0, 10**6)
        lengths.append(count)
        calls.measured(count, count * 1e-3)  # a millisecond a step: 50 fit into 0.05 s
    assert lengths == [1, 2, 4, 8, 16, 32, 50, 50, 50]


def test_a_stretch_that_took_too_long_is_followed_by_a_shorter_one() -> None:
    calls = grown(Calls(TRAINER, [], 10))
    calls.measured(100, 10.0)
    assert calls.stretch(0, 1000) == 1  # 0.1 s a step is over the interval, and one step is the least
    calls.measured(1, 0.01)
    assert calls.stretch(0, 1000) == 2
