"""How trainings end: stopped, interrupted by Ctrl-C or failed, and who is called then.

Order: what callbacks may be, their ends, interrupts, one training at a time, progress.
"""

from __future__ import annotations

import copy
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit import Adam, Callback, Dense, Dropout, MLPClassifier, Network, ProgressDisplay, Trainer
from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import split_at_reductions
from nnkit.diagnostics.rate_test import find_rate
from nnkit.errors import AtEnd, ConfigError, DivergenceError, FirstError
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.training.callbacks import callbacks_from
from nnkit.training.checkpoint import Checkpoints, newest_checkpoint

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(205, 6)).astype(np.float32)
Y = RANDOM.integers(0, 3, 205)
FIT: dict[str, Any] = {"epochs": 4, "batch_size": 32}
HELD_STEPS = 5  # an epoch's, with 0.3 of the rows held out


def trainer(**settings: Any) -> Trainer:
    network = Network([Dense(16, "relu"), Dropout(0.3), Dense(3)])
    return Trainer(network, "cross_entropy", device="cpu", **settings)


def assert_same(one: Trainer, other: Trainer) -> None:
    values, others = one.network.parameters(), other.network.parameters()
    for name in values:
        np.testing.assert_array_equal(values[name], others[name])
    for name in ("epoch", "step", "loss", "validation_loss"):
        if name in one.history.columns:
            assert one.history[name].tolist() == other.history[name].tolist()
    assert one.state == other.state


# --- what callbacks may be ---


class Part:
    """Has one of the four methods, and is no `Callback`."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_epoch_end(self, trainer: Any, figures: Any) -> None:
        self.epochs.append(figures.epoch)


def test_an_object_with_one_method_is_a_callback_alone_or_among_others() -> None:
    one, several = Part(), (Part(), Part())
    trainer().fit(X, Y, **FIT, callbacks=one)
    trainer().fit(X, Y, **FIT, callbacks=(part for part in several))
    trainer().fit(X, Y, **FIT, callbacks=None)
    in_estimator = Part()
    MLPClassifier((3,), max_iter=4, device="cpu", callbacks=in_estimator).fit(X, Y)
    assert all(part.epochs == [1, 2, 3, 4] for part in (one, *several, in_estimator))


def test_a_method_of_an_instance_and_its_period_are_heeded() -> None:
    steps: list[int] = []
    mine = SimpleNamespace(every="5 steps", on_step_end=lambda trainer, figures: steps.append(figures.step))
    trainer().fit(X, Y, **FIT, callbacks=[mine])
    assert steps == [5, 10, 15, 20, 25]


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Part, r"Part is a class; give an instance of it, such as Part\(\)"),
        (print, "print> is not a callback; give an object with at least one of on_train_begin, on_step_end"),
        (3, "3 is not a callback"),
        (SimpleNamespace(on_epoch_end=None), "is not a callback"),
    ],
)
def test_what_is_no_callback_is_refused_before_training(given: Any, words: str, alone: bool) -> None:
    one = trainer()
    with pytest.raises(ConfigError, match=words):
        one.fit(X, Y, **FIT, callbacks=given if alone else [given])
    assert one.network.inputs is None
    with pytest.raises(ConfigError, match=words):
        MLPClassifier((3,), max_iter=1, callbacks=[given]).fit(X, Y)


def test_texts_are_no_callbacks() -> None:
    with pytest.raises(ConfigError, match="'p' is not a callback"):
        callbacks_from("progress")


# --- ends in pairs, and the first error ---


class Noting(Callback):
    """Notes its beginning and end in a list that it shares, and raises where it is told to."""

    def __init__(self, name: str, noted: list[str], **errors: BaseException) -> None:
        self.name, self.noted, self.errors = name, noted, errors

    def _note(self, call: str) -> None:
        if call in self.errors:
            raise self.errors[call]
        self.noted.append(f"{self.name} {call}")

    def on_train_begin(self, trainer: Any, figures: Any) -> None:
        self._note("begin")

    def on_epoch_end(self, trainer: Any, figures: Any) -> None:
        self._note("epoch")

    def on_train_end(self, trainer: Any, figures: Any) -> None:
        self.outcome = trainer.outcome
        self._note("end")


def test_only_callbacks_that_were_begun_are_ended() -> None:
    noted: list[str] = []
    callbacks = [Noting("a", noted), Noting("b", noted, begin=OSError("first")), Noting("c", noted)]
    one = trainer()
    with pytest.raises(OSError, match="first"):
        one.fit(X, Y, **FIT, callbacks=callbacks)
    assert noted == ["a begin", "a end"]
    assert callbacks[0].outcome == one.outcome == "failed"
    assert one.step is None


def test_an_error_at_the_end_hides_neither_the_first_nor_keeps_others_from_their_end() -> None:
    noted: list[str] = []
    callbacks = [
        Noting("a", noted, end=ValueError("second")),
        Noting("b", noted, epoch=OSError("first"), end=KeyError("third")),
        Noting("c", noted),
    ]
    with pytest.raises(OSError, match="first") as raised:
        trainer().fit(X, Y, **FIT, callbacks=callbacks)
    assert raised.value.__notes__ == [
        "Then on_train_end of Noting failed too: ValueError: second",
        "Then on_train_end of Noting failed too: KeyError: 'third'",
    ]
    assert noted[-1] == "c end"


def test_an_error_at_the_end_alone_is_raised_and_known_to_those_after_it() -> None:
    callbacks = [Noting("a", []), Noting("b", [], end=ValueError("mine")), Noting("c", [])]
    one = trainer()
    with pytest.raises(ValueError, match="mine"):
        one.fit(X, Y, **FIT, callbacks=callbacks)
    assert [callbacks[0].outcome, callbacks[2].outcome] == ["finished", "failed"]
    assert len(one.history) == 4


def test_rows_that_cannot_be_closed_do_not_hide_the_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rows: Any) -> None:
        raise OSError("rows")

    monkeypatch.setattr("nnkit.feed.batch.Rows.close", fail)
    with pytest.raises(ValueError, match="first") as raised:
        trainer().fit(X, Y, **FIT, callbacks=Noting("a", [], epoch=ValueError("first")))
    assert raised.value.__notes__ == ["Then closing the rows failed too: OSError: rows"]


class Device(NumpyBackend):
    """A device that fails at every call once `error` is set, as CUDA does after an illegal access."""

    error: BaseException | None = None

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def to_host(self, *given: Any) -> NDArray:
        self._check()
        return super().to_host(*given)

    def write(self, target: Any, values: object) -> None:
        self._check()
        super().write(target, values)

    def synchronize(self) -> None:
        self._check()

    def compile(self, operations: Any) -> Any:
        program = super().compile(operations)
        run = program.run

        def checked(count: int = 1) -> None:
            self._check()
            run(count)

        program.run = checked  # type: ignore[method-assign]
        return program

    def compile_parallel(self, workers: Any) -> Any:
        stretches = zip(*map(split_at_reductions, workers), strict=True)
        return self.compile([one for stretch in stretches for part in stretch for one in part])


class Break(Callback):
    """Breaks the device at a step, and raises an error of its own if it has one."""

    every = "1 steps"

    def __init__(self, device: Device, step: int, error: BaseException | None = None) -> None:
        self.device, self.step, self.error = device, step, error

    def on_step_end(self, trainer: Any, figures: Any) -> None:
        if figures.step == self.step:
            self.device.error = RuntimeError(f"illegal address {id(self)}")
            if self.error is not None:
                raise self.error


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), OSError("first"), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("step", [3, HELD_STEPS])
def test_a_device_that_fails_from_then_on_does_not_hide_the_first_error(
    error: BaseException | None, step: int, tmp_path: Path
) -> None:
    one, noted = trainer(restore_best=True), []
    one.backend = device = Device()
    ends = [Noting("a", noted), Break(device, step, error)]
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        one.fit(X, Y, **FIT, validation=0.3, callbacks=ends, checkpoints=tmp_path)
    assert raised.value is (device.error if error is None else error)
    assert "a end" in noted
    assert one.outcome == ("failed" if error is None or isinstance(error, Exception) else "interrupted")
    told = raised.value.__notes__
    assert f"Then keeping the optimizer's state failed too: RuntimeError: {device.error}" in told
    assert not any(part in ("KeyboardInterrupt", "SystemExit") for note in told for part in note.split())


def test_a_divergence_is_told_where_the_best_weights_cannot_be_brought_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def infinite(step: Any) -> float:
        device.error = RuntimeError("gone")
        return np.inf

    monkeypatch.setattr("nnkit.engine.step.Step.weight_norm", infinite)
    one = trainer()
    one.backend = device = Device()
    with pytest.raises(DivergenceError, match="weights became infinite or NaN in epoch 1") as raised:
        one.fit(X, Y, **FIT, validation=0.3)
    assert raised.value.__notes__[0] == "Then restoring the best weights failed too: RuntimeError: gone"


@pytest.mark.parametrize("first", [OSError("first"), KeyboardInterrupt(), None], ids=repr)
def test_predicting_tells_the_first_error_and_closing_its_own_only_where_there_is_none(
    first: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: BaseException | None) -> Any:
        if error is not None:
            raise error

    network = Network([Dense(3)], inputs=6)
    monkeypatch.setattr("nnkit.feed.batch.Rows.close", lambda rows: fail(ValueError("second")))
    monkeypatch.setattr("nnkit.engine.inference.Inference._run_chunk", lambda *given: fail(first))
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        network.outputs(X)
    if first is None:
        assert str(raised.value) == "second"
    else:
        assert raised.value is first
        assert first.__notes__ == ["Then closing the rows failed too: ValueError: second"]


def test_a_rate_test_tells_the_first_error_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer()
    one.backend = device = Device()
    one.network.initialize(6, 0, "float32", device)

    def fail(step: Any, *given: Any) -> None:
        device.error = RuntimeError("illegal address")
        raise OSError("first")

    monkeypatch.setattr("nnkit.engine.step.Step.run", fail)
    with pytest.raises(OSError, match="first") as raised:
        find_rate(one, X, Y, batch_size=32)
    assert raised.value.__notes__ == [
        "Then restoring the weights failed too: RuntimeError: illegal address",
    ]


def test_every_ring_of_the_rows_is_closed_though_one_cannot_be() -> None:
    closed: list[str] = []

    def ring(name: str, error: Exception | None = None) -> Any:
        def close() -> None:
            closed.append(name)
            if error is not None:
                raise error

        return SimpleNamespace(close=close)

    rows = Rows(NumpyBackend(), "float32", Features(X))
    rows._rings = {1: ring("a", OSError("first")), 2: ring("b", OSError("second")), 3: ring("c")}
    with pytest.raises(OSError, match="first") as raised:
        rows.close()
    assert closed == ["a", "b", "c"]
    assert raised.value.__notes__ == ["Then closing other rows failed too: OSError: second"]


@pytest.mark.parametrize("first", [OSError("first"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_an_interrupt_while_ending_is_noted_on_the_error_before_it(first: BaseException) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    errors, other = FirstError(), type(first)()
    with errors.kept("the training"):
        raise first
    with errors.kept("closing the rows"):
        interrupt()
    with pytest.raises(type(first)) as raised:
        errors.raise_first()
    assert raised.value is first
    with pytest.raises(type(first)), AtEnd(interrupt, "closing the rows"):
        raise other
    notes = [] if isinstance(first, KeyboardInterrupt) else ["Then closing the rows was interrupted"]
    for error in (first, other):
        assert getattr(error, "__notes__", []) == notes


def test_the_first_error_keeps_no_frame_alive() -> None:
    errors = FirstError()
    with errors.kept("one"):
        raise ValueError("one")
    with pytest.raises(ValueError, match="one"):
        errors.raise_first()
    assert errors.error is None


class StopAfter(Callback):
    def on_epoch_end(self, trainer: Any, figures: Any) -> None:
        if figures.epoch == 2:
            trainer.stop()


def test_outcomes_are_told() -> None:
    for expected, callbacks, settings in (
        ("finished", [], {}),
        ("stopped", [StopAfter()], {}),
        ("finished", [], {"early_stopping": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-300}}),
    ):
        last, one = Noting("a", []), trainer(**settings)
        one.fit(X, Y, **FIT, callbacks=[*callbacks, last])
        assert (one.outcome, last.outcome) == (expected, expected)


# --- interrupts ---


class Interrupting(Callback):
    """Raises KeyboardInterrupt, or sends the signal of Ctrl-C, at a step or at an epoch's end."""

    every = "1 steps"

    def __init__(self, step: int, at_epoch: bool = False, sent: int = 0) -> None:
        self.step, self.at_epoch, self.sent = step, at_epoch, sent

    def _interrupt(self, step: int) -> None:
        if step != self.step:
            return
        for _ in range(self.sent):
            os.kill(os.getpid(), signal.SIGINT)
        if not self.sent:
            raise KeyboardInterrupt

    def on_step_end(self, trainer: Any, figures: Any) -> None:
        if not self.at_epoch:
            self._interrupt(figures.step)

    def on_epoch_end(self, trainer: Any, figures: Any) -> None:
        if self.at_epoch:
            self._interrupt(figures.step)


@pytest.fixture
def _pythons_handler() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_pythons_handler")
@pytest.mark.parametrize("sent", [0, 1, 2])
@pytest.mark.parametrize(
    ("step", "at_epoch"), [(3, False), (HELD_STEPS, False), (2 * HELD_STEPS, True), (4 * HELD_STEPS, True)]
)
def test_an_interrupted_training_is_resumed_bit_for_bit(
    step: int, at_epoch: bool, sent: int, tmp_path: Path
) -> None:
    settings = {"early_stopping": 50, "optimizer": Adam(0.02)}
    whole = trainer(**settings)
    whole.fit(X, Y, **FIT, validation=0.3)
    one = trainer(**settings)
    with pytest.raises(KeyboardInterrupt) as raised:
        one.fit(
            X,
            Y,
            **FIT,
            validation=0.3,
            callbacks=Interrupting(step, at_epoch, sent),
            checkpoints=Checkpoints(tmp_path, "1000 steps"),
        )
    assert not hasattr(raised.value, "__notes__")
    assert one.outcome == "interrupted"
    assert not one.state.best_epoch or one.state.restored
    kept = newest_checkpoint(tmp_path)
    assert kept is not None
    assert kept.step == step
    resumed = trainer(**settings)
    resumed.resume(tmp_path, X, Y, validation=0.3)
    assert_same(resumed, whole)


def test_an_interrupted_training_has_its_best_weights() -> None:
    """As after a training that ended by itself at the same epoch."""
    settings = {"restore_best": True, "optimizer": Adam(0.3)}
    ended, cut = trainer(**settings), trainer(**settings)
    ended.fit(X, Y, epochs=9, batch_size=32, validation=0.3)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(X, Y, epochs=50, batch_size=32, validation=0.3, callbacks=Interrupting(45, True))
    assert 0 < ended.state.best_epoch < 9
    for name, values in ended.network.parameters().items():
        np.testing.assert_array_equal(values, cut.network.parameters()[name])


def test_an_interrupt_before_the_first_step_leaves_what_was_trained_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nnkit.engine.step import Step
    from nnkit.feed.batch import Rows

    def cut(step: Step) -> None:
        raise KeyboardInterrupt

    closed: list[Rows] = []
    one, noted = trainer(restore_best=True, optimizer=Adam(0.02)), []
    one.fit(X, Y, **FIT, validation=0.3)
    assert one.state.best_epoch
    weights, state = one.network.parameters(), one.optimizer_state
    with monkeypatch.context() as patched:
        patched.setattr(Step, "begin_counting_skips", cut)
        patched.setattr(Rows, "close", lambda rows: closed.append(rows))
        with pytest.raises(KeyboardInterrupt):
            one.fit(X, Y, **FIT, validation=0.3, continued=True, callbacks=Noting("a", noted))
    assert (one.step, one.outcome, noted, len(closed)) == (None, "interrupted", [], 1)
    assert one.optimizer_state is state
    for name, values in one.network.parameters().items():
        np.testing.assert_array_equal(values, weights[name])
    one.fit(X, Y, **FIT, validation=0.3, continued=True)
    assert one.outcome == "finished"


def test_an_interrupt_in_the_midst_of_a_step_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler of the user's own can do: the weights are changed, and nothing counts the step."""
    from nnkit.engine.step import Step

    run = Step.run

    def cut(step: Step, first: int, count: int) -> None:
        run(step, first, count)
        if step.updates() >= 10:
            raise KeyboardInterrupt

    whole = trainer()
    whole.fit(X, Y, **FIT)
    checkpoints = Checkpoints(tmp_path, "4 steps")
    monkeypatch.setattr(Step, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        trainer().fit(X, Y, **FIT, callbacks=Interrupting(-1), checkpoints=checkpoints)
    monkeypatch.undo()
    kept = newest_checkpoint(tmp_path)
    assert kept is not None
    assert 4 <= kept.step < 10  # the second comes later, or not, where the first was still being written
    resumed = trainer()
    resumed.resume(tmp_path, X, Y)
    assert_same(resumed, whole)


SCRIPT = """
import os, signal, sys, threading
import numpy as np
from nnkit import Callback, Dense, Network, Trainer
X = np.random.default_rng(0).normal(size=(400, 5)).astype("f4")
y = (X[:, 0] > 0).astype(int)
class Ready(Callback):
    def on_epoch_end(self, trainer, figures):
        if figures.epoch == 3:
            print("ready", flush=True)
trainer = Trainer(Network([Dense(8, "relu"), Dense(1)]), "binary_cross_entropy", device="cpu")
try:
    trainer.fit(X, y, epochs=10**7, batch_size=32, callbacks=Ready(), checkpoints=sys.argv[1])
except KeyboardInterrupt:
    restored = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print(trainer.outcome, len(trainer.history) >= 3, restored)
"""


def test_ctrl_c_in_a_program_ends_between_two_steps_with_a_checkpoint(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == "ready\n"
        it.send_signal(signal.SIGINT)
        assert it.stdout.read() == "interrupted True True\n"
    assert it.returncode == 0
    kept = newest_checkpoint(tmp_path)
    assert kept is not None
    assert not kept.finished


def test_a_handler_of_the_users_own_stays() -> None:
    seen: list[Any] = []

    class Look(Callback):
        def on_epoch_end(self, trainer: Any, figures: Any) -> None:
            seen.append(signal.getsignal(signal.SIGINT))

    def mine(number: int, frame: Any) -> None: ...

    before = signal.signal(signal.SIGINT, mine)
    try:
        trainer().fit(X, Y, epochs=1, callbacks=Look())
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [mine]


# --- one training at a time ---


def test_a_trainer_or_network_in_training_is_not_trained_a_second_time() -> None:
    one = trainer()
    other = Trainer(one.network, "cross_entropy", device="cpu")
    said: list[str] = []

    class Again(Callback):
        def on_epoch_end(self, trainer: Any, figures: Any) -> None:
            for mine in (one, other):
                with pytest.raises(ConfigError) as raised:
                    mine.fit(X, Y, epochs=1)
                said.append(str(raised.value))

        def on_train_end(self, trainer: Any, figures: Any) -> None:
            thread = threading.Thread(target=self.on_epoch_end, args=(trainer, figures))
            thread.start()
            thread.join()

    one.fit(X, Y, epochs=1, callbacks=Again())
    assert [text.split(",")[0] for text in said] == [
        "the trainer is already being trained",
        "the network is already being trained",
    ] * 2
    assert len(one.history) == 1
    one.fit(X, Y, epochs=2)  # and afterwards it may be
    assert len(one.history) == 2


FORKED = """
import os, signal, sys, threading, time, warnings
import numpy as np
from nnkit import Callback, Dense, Network, Trainer
from nnkit.training import trainer as module
warnings.simplefilter("ignore")  # that forking beside threads may hang
X = np.random.default_rng(0).normal(size=(40, 5)).astype("f4")
y = (X[:, 0] > 0).astype(int)
trainer = Trainer(Network([Dense(4, "relu"), Dense(1)]), "binary_cross_entropy", device="cpu")
training, forked = threading.Event(), threading.Event()
class Wait(Callback):
    def on_epoch_end(self, trainer, figures):
        with module._in_training_lock if sys.argv[1] == "locked" else warnings.catch_warnings():
            training.set()
            forked.wait()
thread = threading.Thread(target=trainer.fit, args=(X, y), kwargs={"epochs": 1, "callbacks": Wait()})
thread.start()
training.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends a child that waits for a lock which nobody holds
    code = 1
    try:
        code = 0 if len(trainer.fit(X, y, epochs=2)) == 2 else 1
    finally:
        os._exit(code)
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
forked.set()
thread.join()
print(ended, len(trainer.history))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("held", ["", "locked"])
def test_a_child_forked_during_a_training_may_train(held: str) -> None:
    command = [sys.executable, "-c", FORKED, held]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "0 1\n"


# --- progress ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "progress", "shown"),
    [(True, None, 1), (False, None, 0), (True, False, 0), (False, True, 1), (True, True, 1)],
)
def test_fit_shows_its_progress_on_a_terminal_or_where_it_is_told_to(
    terminal: bool, progress: bool | None, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    written = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    one = trainer()
    one.fit(X, Y, **FIT, progress=progress)
    one.fit(X, Y, **FIT, callbacks=ProgressDisplay(file=io.StringIO()), progress=progress)  # not twice
    assert written.getvalue().count("epoch 4/4") == shown


def test_neither_estimators_nor_other_threads_show_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Terminal()
    monkeypatch.setattr(sys, "stdout", written)
    MLPClassifier((3,), max_iter=2, device="cpu").fit(X, Y)
    thread = threading.Thread(target=lambda: trainer().fit(X, Y, epochs=1))
    thread.start()
    thread.join()
    assert written.getvalue() == ""


def test_a_display_holds_nothing_after_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    display = ProgressDisplay()
    for ends in (True, False):
        callbacks = [display] if ends else [display, Noting("a", [], epoch=ValueError("mine"))]
        with nullcontext() if ends else pytest.raises(ValueError, match="mine"):
            trainer().fit(X, Y, **FIT, callbacks=callbacks)
        pickle.loads(pickle.dumps(display))
        copy.deepcopy(display)
