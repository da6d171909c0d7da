"""The plots that are pictures themselves: the most confident mistakes, the first layer's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import DataError
from nnkit.insight.drawing import Palette, Plot, grid_of, literal, number_text, tinted
from nnkit.insight.evaluated_model import EvaluatedModel, as_picture, is_picture_shape, picture_of
from nnkit.model import Model

__all__ = ["mistake_row", "mistakes_plot", "weights_plot"]

_MOST_UNITS = 64


def mistakes_plot(evaluated: EvaluatedModel, count: int = 20) -> Plot:
    """Return the most confident mistakes as pictures.

    Raises
    ------
    DataError
        If the inputs are not pictures, or there is no mistake.
    """
    if not evaluated.pictures:
        raise DataError("these inputs are no pictures; nnkit report lists their mistakes as a table")
    worst = evaluated.worst(count)
    if not len(worst):
        raise DataError(f"there is no mistake among the {len(evaluated.examples):,} {evaluated.kind} rows")
    rows = [mistake_row(evaluated, row) for row in worst]
    columns = min(5, len(worst))
    lines = -(-len(worst) // columns)

    def draw(figure: Any, palette: Palette) -> None:
        grid = grid_of(figure, lines, columns, len(worst))
        for axes, row, (_, true, predicted, confidence) in zip(grid, worst, rows, strict=True):
            axes.imshow(picture_of(evaluated, row), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(literal(f"{true} → {predicted}\n{confidence}"), fontsize=7)
            axes.set_axis_off()

    words = (
        "The rows with a wrong prediction (true → predicted) and its probability, the most confident first."
    )
    headers = ["row", "true", "predicted", "probability"]
    return Plot("mistakes", "The most confident mistakes", words, headers, rows, draw, (5.0, 1.25 * lines))


def mistake_row(evaluated: EvaluatedModel, row: int) -> list[str]:
    """Return a row's number in its source, its truth, its prediction, and the probability or the residual."""
    number, truth = f"{evaluated.numbers[row]:,}", evaluated.truth[row]
    if evaluated.task == "regression":
        parts = (truth, evaluated.values[row], evaluated.residuals[row])
        return [number, *(", ".join(map(number_text, part)) for part in parts)]
    labels, predicted, confidence = evaluated.labels, evaluated.predicted[row], evaluated.confidence[row]
    if evaluated.task == "multiclass" or evaluated.task == "binary":
        return [number, labels[truth], labels[predicted], f"{confidence:.4f}"]
    named = [", ".join(labels[k] for k in np.flatnonzero(part)) or "none" for part in (truth, predicted)]
    wrong = np.flatnonzero(truth != predicted)
    return [number, *named, ", ".join(f"{labels[k]} {evaluated.probabilities[row][k]:.4f}" for k in wrong)]


def weights_plot(model: Model, image_shape: Sequence[int] | None) -> Plot:
    """Return the weights into each unit of the first layer as a picture.

    `image_shape` is that of the inputs: (height, width) or (channels, height, width).

    Raises
    ------
    DataError
        If the network's inputs are not the pixels of pictures.
    """
    parameters = model.only_network("a picture of weights").parameters()
    weights = next(values for name, values in parameters.items() if name.endswith(".weight"))
    shape = tuple(image_shape or ())
    if not is_picture_shape(shape) or int(np.prod(shape)) != len(weights):
        raise DataError("the inputs of this network are no pixels: its first layer makes no pictures")
    norms = np.linalg.norm(weights, axis=0)
    units = np.sort(np.argsort(-norms, kind="stable")[:_MOST_UNITS])
    side = int(np.ceil(np.sqrt(len(units))))
    lines = -(-len(units) // side)
    pictures = [_weight_picture(weights[:, unit], shape) for unit in units]

    def draw(figure: Any, palette: Palette) -> None:
        grid = grid_of(figure, lines, side, len(pictures))
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        for axes, picture in zip(grid, pictures, strict=True):
            axes.set_axis_off()
            axes.imshow(picture, interpolation="nearest")

    colour = "blue is positive, orange negative, clear is 0"
    if pictures[0].shape[-1] == 3:
        colour = "each channel in its colour, grey is 0"
    words = (
        f"The weights from each pixel into a unit of the first layer: {colour}, scaled by the unit's largest."
    )
    if len(units) < weights.shape[1]:
        words += f" Shown are {len(units)} of {weights.shape[1]:,} units, those with the largest norms."
    rows = [[str(unit), number_text(norms[unit])] for unit in units]
    headers, size = ["unit", "norm of its weights"], (5.0, 5.0 * lines / side)
    return Plot("weights", "First-layer weights", words, headers, rows, draw, size)


def _weight_picture(weights: NDArray, shape: tuple[int, ...]) -> NDArray:
    scaled = weights.astype(np.float64) / max(float(np.abs(weights).max()), 1e-30)
    picture = as_picture(scaled, shape)
    return tinted(picture) if picture.ndim == 2 else 0.5 + 0.5 * picture
