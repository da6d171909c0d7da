"""The plots that are pictures themselves: the most confident mistakes, the first layer's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import DataError
from nnkit.insight.drawing import Palette, Plot, literal, number_text, tinted
from nnkit.insight.evaluated_model import EvaluatedModel, as_picture, is_picture_shape
from nnkit.insight.evaluation import residuals
from nnkit.insight.examples import picture_of
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
        for axes in np.ravel(figure.subplots(lines, columns, squeeze=False))[len(worst) :]:
            axes.set_visible(False)
        for axes, row, cells in zip(figure.axes, worst, rows, strict=False):
            axes.imshow(picture_of(evaluated, row), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(literal(f"{cells[1]}, said {cells[2]}\n{cells[3]}"), fontsize=7)
            axes.set_axis_off()

    words = "The rows that are predicted wrong, the surest first: what is true, what is said, how surely."
    headers = ["row", "true", "said", "probability"]
    return Plot("mistakes", "The most confident mistakes", words, headers, rows, draw, (5.0, 1.25 * lines))


def mistake_row(evaluated: EvaluatedModel, row: int) -> list[str]:
    """Return a row's number in its source, its truth, what is said of it, and how surely or how far off."""
    number = f"{evaluated.numbers[row]:,}"
    if evaluated.task == "regression":
        off = residuals(evaluated.truth, evaluated.values)[row]
        return [
            number,
            *(
                ", ".join(map(number_text, part))
                for part in (evaluated.truth[row], evaluated.values[row], off)
            ),
        ]
    labels, probabilities = evaluated.labels, evaluated.probabilities[row]
    if evaluated.task == "multilabel":
        named = [
            [labels[k] for k in np.flatnonzero(of[row])] for of in (evaluated.truth, evaluated.predicted)
        ]
        wrong = np.flatnonzero(evaluated.truth[row] != evaluated.predicted[row])
        said = ", ".join(f"{labels[k]} {probabilities[k]:.4f}" for k in wrong)
        return [number, *(", ".join(names) or "none" for names in named), said]
    answer = int(evaluated.predicted[row])
    return [number, labels[evaluated.truth[row]], labels[answer], f"{probabilities[answer]:.4f}"]


def weights_plot(model: Model, image_shape: Sequence[int] | None) -> Plot:
    """Return the weights into each unit of the first layer as a picture, where the inputs are pictures.

    Parameters
    ----------
    model : Model
    image_shape : sequence of int, or None
        (height, width) or (channels, height, width).

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
        grid = np.ravel(figure.subplots(lines, side, squeeze=False))
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        for axes in grid:
            axes.set_axis_off()
        for axes, picture in zip(grid, pictures, strict=False):
            axes.imshow(picture, interpolation="nearest")

    colour = "blue is positive, orange negative, clear is 0"
    if pictures[0].shape[-1] == 3:
        colour = "each channel in its colour, grey is 0"
    words = (
        f"The weights from each pixel into a unit of the first layer: {colour}, each unit by its own largest."
    )
    if len(units) < weights.shape[1]:
        words += f" Shown are {len(units)} of {weights.shape[1]:,} units, those with the largest norms."
    rows = [[str(unit), number_text(norms[unit])] for unit in units]
    return Plot(
        "weights",
        "First-layer weights",
        words,
        ["unit", "norm of its weights"],
        rows,
        draw,
        (5.0, 5.0 * lines / side),
    )


def _weight_picture(weights: NDArray, shape: tuple[int, ...]) -> NDArray:
    scaled = weights.astype(np.float64) / max(float(np.abs(weights).max()), 1e-30)
    picture = as_picture(scaled, shape)
    return tinted(picture) if picture.ndim == 2 else 0.5 + 0.5 * picture
