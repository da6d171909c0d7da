"""The figure in a notebook: run in a cell of IPython's, whose outputs are looked at."""

from __future__ import annotations

import io
import pickle
import sys
from base64 import b64decode
from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import CapturedIO, capture_output
from PIL import Image
from traitlets.config import Config

from nnkit import LiveFigure, NnkitError

CELL = """
import numpy as np
from nnkit import Dense, LiveFigure, Network, Trainer

random = np.random.default_rng(0)
X = random.standard_normal((60, 4)).astype(np.float32)
y = (X[:, 0] > 0).astype(np.int32)
trainer = Trainer(Network([Dense(8, "relu"), Dense(2)]), "cross_entropy", device="cpu")
figures = [LiveFigure({seconds})]
history = trainer.fit(X, y, validation=(X, y), epochs={epochs}, batch_size=20, callbacks=figures)
"""


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A notebook's shell, without its history on disk."""
    monkeypatch.setattr(sys, "displayhook", sys.displayhook)
    config = Config()
    config.HistoryManager.enabled = False
    yield InteractiveShell.instance(config=config)
    InteractiveShell.clear_instance()


def outputs_of(shell: InteractiveShell, cell: str) -> CapturedIO:
    with capture_output() as captured:
        result = shell.run_cell(cell)
    result.raise_error()
    return captured


def test_one_figure_is_updated_at_each_epoch(shell: InteractiveShell) -> None:
    outputs = outputs_of(shell, CELL.format(epochs=3, seconds=0.0)).outputs
    assert [output.update for output in outputs] == [False] + [True] * (len(outputs) - 1)
    assert 2 <= len(outputs) <= 4  # the first epoch, the end, and those whose turn it was
    [handle] = {output.transient["display_id"] for output in outputs}
    assert handle
    pictures = [Image.open(io.BytesIO(b64decode(output.data["image/png"]))) for output in outputs]
    assert all(picture.width > 800 for picture in pictures)
    assert pictures[0].tobytes() != pictures[-1].tobytes()


def test_it_has_words_for_those_who_do_not_see_it(shell: InteractiveShell) -> None:
    last = outputs_of(shell, CELL.format(epochs=4, seconds=0.0)).outputs[-1]
    loss = shell.user_ns["history"]["loss"]
    assert f"Training: from {loss[0]:.4g} to {loss[-1]:.4g}" in last.metadata["image/png"]["alt"]


def test_fast_epochs_do_not_wait_for_it(shell: InteractiveShell) -> None:
    assert len(outputs_of(shell, CELL.format(epochs=200, seconds=100.0)).outputs) == 2


def test_each_training_has_a_figure_of_its_own(shell: InteractiveShell) -> None:
    cell = CELL.format(epochs=1, seconds=0.0)
    outputs = outputs_of(shell, cell + cell.splitlines()[-1]).outputs
    assert len({output.transient["display_id"] for output in outputs}) == 2


def test_outside_of_a_notebook_it_names_what_to_use() -> None:
    InteractiveShell.clear_instance()
    with pytest.raises(NnkitError, match="this is none: use ProgressDisplay"):
        LiveFigure()


def test_a_figure_can_be_copied_and_pickled_also_while_it_draws(shell: InteractiveShell) -> None:
    cell = """
import copy, pickle
from nnkit import MLPClassifier
from sklearn.base import clone

class Copying:
    def on_epoch_end(self, trainer, figures):
        pickle.dumps(figure), copy.deepcopy(figure)

figure = LiveFigure(0.0)
estimator = MLPClassifier((4,), max_iter=2, callbacks=[figure, Copying()], device="cpu")
clone(estimator).fit(X, y)
pickle.loads(pickle.dumps(figure))
""" + CELL.format(epochs=1, seconds=0.0)
    cell = cell[cell.index("import numpy") :] + cell[: cell.index("import numpy")]
    assert len(outputs_of(shell, cell).outputs) >= 3


def test_a_copy_in_a_process_without_a_notebook_draws_nothing(shell: InteractiveShell) -> None:
    outputs_of(shell, CELL.format(epochs=1, seconds=0.0))
    pickled = pickle.dumps(shell.user_ns["figures"][0])
    InteractiveShell.clear_instance()
    figure = pickle.loads(pickled)
    with capture_output() as captured:
        figure.on_epoch_end(shell.user_ns["trainer"], None)
        figure.on_train_end(shell.user_ns["trainer"], None)
    assert not captured.outputs
    assert captured.stdout == ""


def test_without_ipython_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(NnkitError, match="pip install ipython"):
        LiveFigure()


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NnkitError, match=r"pip install matplotlib$"):
        LiveFigure()
