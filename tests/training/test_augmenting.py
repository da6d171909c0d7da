"""Trainings on pictures: rows that lie in a mapped array, and pictures varied as batches are filled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit import Adam, Dense, Network, Trainer
from nnkit.backends.numpy import NumpyBackend
from nnkit.errors import ConfigError, DataError
from nnkit.feed.augmentation import Augmentation, augmentation_from
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.kernels.layout import BATCH, COUNTERS, EPOCH
from nnkit.training.callbacks import Callback

SHAPE = (3, 8, 8)
PIXELS = np.random.default_rng(0).integers(0, 256, (120, 192), np.uint8)
LABELS = (PIXELS.reshape(120, 3, 8, 8)[:, 0, :4].mean(axis=(1, 2)) > 127).astype(np.int64)
VARIED = {"shift": 0.25, "flip": True, "erase": 0.5}


def features(rows: np.ndarray | None = None) -> Features:
    mean, scale = np.full(192, 127.0), np.full(192, 1 / 74)
    return Features(PIXELS, mean, scale, rows=rows, picture=SHAPE)


def trainer(seed: int = 3, **options: Any) -> Trainer:
    return Trainer(
        Network([Dense(16, "relu"), Dense(1)]),
        "binary_cross_entropy",
        Adam(1e-2),
        device="cpu",
        seed=seed,
        **options,
    )


def weights(trained: Trainer) -> bytes:
    return b"".join(values.tobytes() for values in trained.network.parameters().values())


def fitted(given: Features, labels: np.ndarray, **options: Any) -> Trainer:
    made = trainer(**options)
    made.fit(given, labels, epochs=3, batch_size=32)
    return made


def test_rows_of_an_array_train_as_copies_of_them_do() -> None:
    rows = np.random.default_rng(1).permutation(120)[:70]
    picked = features(rows)
    assert len(picked) == 70
    assert picked.take(np.array([5, 2])).rows.tolist() == rows[[5, 2]].tolist()  # type: ignore[union-attr]
    copied = Features(PIXELS[rows], picked.shift, picked.scale, picture=SHAPE)
    for options in ({}, {"augment": VARIED}):
        ours, theirs = (fitted(given, LABELS[rows], **options) for given in (picked, copied))
        assert weights(ours) == weights(theirs)
        for few in (70, 3):
            part = np.arange(few)
            found = ours.network.outputs(picked.take(part))
            np.testing.assert_array_equal(found, theirs.network.outputs(copied.take(part)))


def test_rows_outside_the_array_are_refused() -> None:
    for rows in ([0, 120], [-1]):
        with pytest.raises(DataError, match="outside the 120 rows"):
            features(np.array(rows))
    with pytest.raises(DataError, match="not a picture of shape"):
        Features(PIXELS, picture=(3, 8, 9))


def test_varying_is_a_function_of_the_seed_and_the_epoch() -> None:
    first = fitted(features(), LABELS, augment=VARIED)
    assert weights(first) == weights(fitted(features(), LABELS, augment=Augmentation(0.25, True, 0.5)))
    assert weights(first) != weights(fitted(features(), LABELS, augment=VARIED, seed=4))
    assert weights(first) != weights(fitted(features(), LABELS))
    for nothing in (None, {}, {"shift": 0, "flip": False}):
        assert weights(fitted(features(), LABELS, augment=nothing)) == weights(fitted(features(), LABELS))


def batches(seed: int, epoch: int, shards: bool) -> np.ndarray:
    """Return two batches of 32, filled whole or in two shards."""
    backend = NumpyBackend()
    rows = Rows(backend, np.float32, features(), None, None, False, Augmentation(0.25, True, 0.5), seed)
    counters, found = np.zeros(COUNTERS, np.int64), []
    for number in range(2):
        counters[[BATCH, EPOCH]] = number, epoch
        for offset in (0, 16) if shards else (None,):
            batch = rows.batch(16 if shards else 32)
            backend.compile([rows.gather(batch, counters, 32, offset)]).run()
            found.append(np.array(batch.inputs))
    return np.concatenate(found)


def test_shards_vary_their_rows_as_the_whole_batch_does() -> None:
    whole = batches(7, 2, shards=False)
    np.testing.assert_array_equal(whole, batches(7, 2, shards=True))
    for other in (batches(8, 2, False), batches(7, 3, False), batches(7 + 2**40, 2, False)):
        assert np.mean([np.array_equal(*pair) for pair in zip(whole, other, strict=True)]) < 0.1


def test_validation_rows_are_never_varied() -> None:
    """Weights that do not move: what is measured after each epoch is the loss of the rows as they are."""
    made = Trainer(Network([Dense(1)]), "binary_cross_entropy", Adam(1e-30), device="cpu", augment=VARIED)
    held = np.arange(100, 120)
    history = made.fit(
        features(np.arange(100)), LABELS[:100], epochs=3, validation=(features(held), LABELS[held])
    )
    logits = made.network.outputs(features(held))[:, 0].astype(np.float64)
    losses = np.logaddexp(0, logits) - logits * LABELS[held]
    np.testing.assert_allclose(list(history["validation_loss"]), losses.mean(), rtol=1e-6)
    assert len({round(loss, 6) for loss in history["loss"]}) == 3, "the training rows are, anew each epoch"


class _Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step
        self.every = "1 steps"

    def on_step_end(self, trainer: Any, figures: Any) -> None:
        if figures.step == self.step:
            trainer.stop()


def test_resume_in_mid_epoch_varies_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = trainer(augment=VARIED)
    whole.fit(features(), LABELS, epochs=4, batch_size=32)
    first = trainer(augment=VARIED)
    first.fit(
        features(), LABELS, epochs=4, batch_size=32, checkpoints=tmp_path / "kept", callbacks=[_Stop(6)]
    )
    again = trainer(augment=VARIED)
    again.resume(tmp_path / "kept", features(), LABELS)
    assert weights(again) == weights(whole)
    with pytest.raises(ConfigError, match="augment"):
        trainer().resume(tmp_path / "kept", features(), LABELS)


def test_what_is_no_picture_cannot_be_varied() -> None:
    with pytest.raises(ConfigError, match="augment is for pictures"):
        trainer(augment={"flip": True}).fit(PIXELS, LABELS, epochs=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shift": 0.6}, "at most 0.5"),
        ({"shift": -0.1}, "at least 0"),
        ({"shift": math.nan}, "finite"),
        ({"erase": 1.5}, "at most 1"),
        ({"flip": 1}, "true or false"),
        ({"flop": True}, "did you mean flip"),
        ("flip", "table"),
    ],
)
def test_a_wrong_setting_is_named(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        augmentation_from(given)
