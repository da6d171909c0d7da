"""Adapt a trained model to new rows, to train it on: other categories and classes, or another target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from nnkit.data.extending import (
    moved_inputs,
    moved_outputs,
    moved_rows,
    rescaled,
    with_new_categories,
    with_new_labels,
)
from nnkit.data.operations import NumberColumn, Rows
from nnkit.data.preprocessing import Preprocessor, Scaling
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError
from nnkit.model import Model
from nnkit.nn.losses import Loss, loss_for_task
from nnkit.nn.transfer import resized_layers, transferred

__all__ = ["adapt", "adapted_preprocessor", "adapted_to"]


def adapt(
    model: Model, X: Any, y: ArrayLike, *, replace_head: bool = False, refit_scaling: bool = False
) -> Model:
    """Return a copy of a model that takes new rows and can be trained on them.

    Categories and classes that the model does not know are added; with its last layer kept, the copy predicts
    for all others what the model does. Its scaling is kept too.

    Parameters
    ----------
    model : Model
        From `nnkit.load`; it stays as it is.
    X : array, table or pictures
        Rows as for `Model.predict`.
    y : array_like
        Their labels or values.
    replace_head : bool
        Whether the last layer is drawn anew, for the target `y` whatever it is.
    refit_scaling : bool
        Whether numbers are scaled as they are in these rows.

    Returns
    -------
    Model
        With a network of its own.

    Raises
    ------
    ConfigError
        If the model has several networks, or a target of two classes has more of them now.
    DataError
        If the columns or the labels do not suit the model.
    """
    target = TargetEncoder.fit(y) if replace_head else with_new_labels(model.target, y)[0]
    loss = loss_for_task(target.task) if replace_head else model.loss
    preprocessor, _ = adapted_preprocessor(model, X, None, refit_scaling)
    return adapted_to(model, preprocessor, target, loss, replace_head)


def adapted_preprocessor(
    model: Model, features: Any, rows: Rows, refit_scaling: bool = False, scaling: Scaling = "auto"
) -> tuple[Preprocessor, Mapping[str, Sequence[str]]]:
    """Return a model's preprocessor for new rows, and the categories that were added, by column."""
    preprocessor, added = with_new_categories(model.preprocessor, features, rows)
    if refit_scaling:
        numbers = [one for one in preprocessor.operations if isinstance(one, NumberColumn)]
        clipped = any(one.clipped for one in numbers)
        preprocessor = rescaled(preprocessor, features, rows, "robust" if clipped else scaling)
    return preprocessor, added


def adapted_to(
    model: Model,
    preprocessor: Preprocessor,
    target: TargetEncoder,
    loss: Loss,
    replace_head: bool = False,
    seed: int = 0,
) -> Model:
    """Return a copy of a model for an extended preprocessor and target; see `adapt`."""
    if model.others:
        raise ConfigError(
            f"the model has {len(model.members)} networks, and one is trained: give one that has one"
        )
    before = model.preprocessor
    layers = resized_layers(model.network.layers, target.outputs, loss.link, preprocessor.embedding_sizes)
    network = transferred(
        model.network,
        layers,
        preprocessor.width,
        moved_inputs(before, preprocessor),
        moved_rows(before, preprocessor),
        None if replace_head else moved_outputs(model.target, target),
        seed,
    )
    return Model(network, preprocessor, target, loss)
