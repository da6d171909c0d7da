"""The plots that evaluate functions on a grid: activations, a decision boundary, the loss around weights.

Order: each plot after the numbers that it draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.examples import Examples
from nnkit.data.operations import ArrayColumns, NumberColumn
from nnkit.engine.inference import Inference
from nnkit.errors import DataError
from nnkit.feed.batch import Rows
from nnkit.insight.drawing import LIGHT, MARKERS, Palette, Plot, grid_of, literal
from nnkit.insight.evaluated_model import EvaluatedModel, drawn_examples
from nnkit.model import Model
from nnkit.nn.activations import activation_function, activation_names
from nnkit.nn.network import Network
from nnkit.nn.targets import loss_targets

__all__ = [
    "LossSurface",
    "activation_values",
    "activations_plot",
    "boundary_plot",
    "filter_normalised_direction",
    "loss_surface",
    "loss_surface_plot",
]

_ROWS_OF_A_SURFACE = 2048  # enough to see the valleys; all 54,000 of MNIST would take minutes
_MOST_POINTS = 1000


def activation_values(name: str, z: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a registered activation and its derivative at z, by the kernels' formulas."""
    function = activation_function(name)
    values = np.array([function.value(float(point)) for point in z])
    of = z if function.needs_z else values
    return values, np.array([function.derivative(float(point)) for point in of])


def activations_plot(names: Sequence[str] | None = None) -> Plot:
    """Return activation functions with their derivatives; all that are registered if none are named."""
    chosen = tuple(names or activation_names())
    z = np.linspace(-5, 5, 401)
    drawn = {name: activation_values(name, z) for name in chosen}
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)

    def draw(figure: Any, palette: Palette) -> None:
        grid = grid_of(figure, lines, columns, len(chosen), sharex=True)
        for axes, (name, (values, slopes)) in zip(grid, drawn.items(), strict=True):
            axes.plot(z, values, label="f(z)", **palette.line(0))
            axes.plot(z, slopes, label="f′(z)", color=palette.series[1], linestyle="--")
            axes.set_ylim(max(-2, values.min() - 0.2), min(3, max(values.max(), slopes.max()) + 0.2))
            axes.set_title(literal(name.replace("_", " ")), fontsize=10)
            axes.set_xlabel("z (before the activation)", fontsize=8)
            axes.set_ylabel("f, f′", fontsize=8)
            axes.grid()
        grid[0].legend(fontsize=8)

    words = "Each activation f(z), and dashed its derivative f′(z), by the value before the activation."
    places = np.array([-2.0, 0.0, 2.0])
    rows = [
        [name, *(f"{value:.4f}" for value in np.concatenate(activation_values(name, places)))]
        for name in chosen
    ]
    headers = ["activation", *(f"{what}({place:g})" for what, place in product(("f", "f′"), places))]
    return Plot("activations", "Activations", words, headers, rows, draw, (2.7 * columns, 2.3 * lines))


def boundary_plot(evaluated: EvaluatedModel, points: int = 201) -> Plot:
    """Return a classifier's predictions all over the plane of its two features, and the rows on it.

    `points` are those along each side of the grid.

    Raises
    ------
    DataError
        If the model is no classifier, or its features are not two columns of numbers.
    """
    if evaluated.task not in ("binary", "multiclass"):
        raise DataError(f"a decision boundary is between classes, and this is a {evaluated.task} model")
    pair, names = _two_features(evaluated.model, evaluated.examples)
    complete = np.isfinite(pair).all(axis=1)
    if not complete.any():
        raise DataError(f"no row has both {names[0]!r} and {names[1]!r}")
    pair, truth, predicted = pair[complete], evaluated.truth[complete], evaluated.predicted[complete]
    low, high = pair.min(axis=0), pair.max(axis=0)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    x, y = (np.linspace(low[axis], high[axis], points) for axis in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    probabilities = evaluated.model.predict_proba(_as_features(evaluated, grid, names))
    probabilities = probabilities.reshape(points, points, -1)
    shown = np.random.default_rng(0).permutation(len(pair))[:_MOST_POINTS]

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        _draw_plane(axes, x, y, probabilities, palette)
        _draw_classes(axes, pair[shown], truth[shown], evaluated.labels, palette)
        axes.set_xlabel(literal(names[0]))
        axes.set_ylabel(literal(names[1]))
        figure.legend(title="true class", fontsize=8, title_fontsize=8, loc="outside right upper")

    right, left_out = float(np.mean(truth == predicted)), int(np.sum(~complete))
    words = (
        f"The plane of {names[0]} and {names[1]}, tinted by the predicted class, stronger where its "
        f"probability is higher; on the line two classes are as probable. {right:.2%} of {len(pair):,} rows "
        "are right."
    )
    if left_out:
        words += f" {left_out:,} more lack a value and are not shown."
    shares = np.bincount(probabilities.argmax(axis=2).ravel(), minlength=len(evaluated.labels)) / len(grid)
    rows = [[label, f"{share:.1%}"] for label, share in zip(evaluated.labels, shares, strict=True)]
    headers = ["class", "share of the plane"]
    return Plot("boundary", "Decision boundary", words, headers, rows, draw, (5.2, 4.2))


def _draw_plane(axes: Any, x: NDArray, y: NDArray, probabilities: NDArray, palette: Palette) -> None:
    """Draw the predicted class at each point of a grid, and the lines between classes."""
    from matplotlib.colors import to_rgb

    chosen, highest = probabilities.argmax(axis=2), probabilities.max(axis=2)
    # A surface is a raster, and no style sheet changes its colours: those of the light one, half clear.
    fixed = np.array([to_rgb(colour) for colour in LIGHT.series])
    tint = np.concatenate([fixed[chosen % len(fixed)], (0.1 + 0.4 * highest)[..., None]], axis=-1)
    extent = (x[0], x[-1], y[0], y[-1])
    axes.imshow(tint, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
    count = probabilities.shape[2]
    if len(np.unique(chosen)) > 1:
        for place in range(1 if count == 2 else 0, count):
            ahead = probabilities[..., place] - np.delete(probabilities, place, axis=2).max(axis=2)
            axes.contour(x, y, ahead, levels=[0], colors=[palette.ink], linewidths=1)


def _draw_classes(axes: Any, pair: NDArray, truth: NDArray, labels: Sequence[str], palette: Palette) -> None:
    """Draw rows as points with the colour and the marker of their true class."""
    edge = {"s": 14, "edgecolors": palette.back, "linewidths": 0.4}
    for place, label in enumerate(labels):
        colour = palette.series[place % len(palette.series)]
        marker = MARKERS[place % len(MARKERS)]
        axes.scatter(*pair[truth == place].T, marker=marker, color=colour, label=literal(label), **edge)


def _two_features(model: Model, examples: Examples) -> tuple[NDArray[np.float64], tuple[str, str]]:
    names = model.preprocessor.input_names
    features = examples.features
    if isinstance(features, np.ndarray) and features.ndim == 2 and features.shape[1] == 2:
        first, second = names or ("feature 0", "feature 1")
        return features.astype(np.float64), (first, second)
    operations = model.preprocessor.operations
    plain = all(isinstance(operation, NumberColumn | ArrayColumns) for operation in operations)
    if names is None or len(names) != 2 or not plain:
        count = model.network.inputs if names is None else len(names)
        raise DataError(
            f"a decision boundary is of two features of numbers, and this model has {count}: train one "
            'with --set \'data.features=["A", "B"]\''
        )
    from nnkit.data.tables.columns import numbers
    from nnkit.data.tables.frames import as_table

    table = as_table(features)
    return np.stack([numbers(name, table[name]) for name in names], axis=1), (names[0], names[1])


def _as_features(evaluated: EvaluatedModel, grid: NDArray[np.float64], names: tuple[str, str]) -> Any:
    if isinstance(evaluated.examples.features, np.ndarray):
        return grid
    import pyarrow as pa

    from nnkit.data.tables.arrow import arrow_array

    return pa.table([arrow_array(column) for column in grid.T], names=list(names))


@dataclass(frozen=True, eq=False)
class LossSurface:
    """The loss on a grid of parameters around those of a network."""

    x: NDArray[np.float64]  # steps along the first direction, or values of the only weight, shape (points,)
    y: NDArray[np.float64]  # steps along the second direction, or values of the only bias
    loss: NDArray[np.float64]  # loss[j, i] is at x[i], y[j]
    centre: tuple[float, float]  # of the network's own parameters
    names: tuple[str, str]  # of the axes


def filter_normalised_direction(network: Network, seed: int) -> dict[str, NDArray[np.float64]]:
    """Return a random direction with the norm of each unit's own weights; biases are not moved.

    A network with the weights of a unit scaled up and those of the next layer down computes the same, and so
    its surface must look the same.

    References
    ----------
    Li et al. 2018, "Visualizing the loss landscape of neural nets" (arXiv:1712.09913), section 4.
    """
    generator = np.random.default_rng(seed)
    tables = {segment.name for segment in network.arena.segments if segment.role == "table"}
    direction = {}
    for name, values in network.parameters().items():
        drawn = generator.standard_normal(values.shape)
        if values.ndim == 1:
            direction[name] = np.zeros(values.shape)
            continue
        # A unit's weights are a column of its layer; an id's are a row of its table.
        axis = 1 if name in tables else 0
        own = np.linalg.norm(values.astype(np.float64), axis=axis, keepdims=True)
        direction[name] = drawn * own / np.linalg.norm(drawn, axis=axis, keepdims=True)
    return direction


def loss_surface(
    model: Model, examples: Examples, points: int = 25, reach: float = 1.0, seed: int = 0
) -> LossSurface:
    """Return the loss on a grid around a trained network, without dropout or penalties.

    Parameters
    ----------
    model : Model
    examples : Examples
        With a target; more than 2048 rows are sampled.
    points : int
        Along each side.
    reach : float
        The distance along the two directions, in their own lengths; for one weight and one bias, in units of
        the larger of them and 1.
    seed : int
        Of the directions and of the sample.

    Raises
    ------
    DataError
        If the examples do not fit the model.
    """
    network = model.only_network("a loss surface")
    values = network.parameters()
    steps = np.linspace(-reach, reach, points)
    if sum(value.size for value in values.values()) == 2 and len(values) == 2:
        weight, bias = values
        at = float(values[weight].item()), float(values[bias].item())
        length = max(1.0, *map(abs, at))
        directions: list[dict[str, NDArray]] = [{weight: np.full((1, 1), length)}, {bias: np.full(1, length)}]
        x, y = at[0] + length * steps, at[1] + length * steps
        names = ("weight", "bias")
    else:
        directions = [filter_normalised_direction(network, 2 * seed + number) for number in (0, 1)]
        at, x, y = (0.0, 0.0), steps, steps
        names = ("along the first direction", "along the second direction")
    measured = _Loss(model, examples, seed)
    losses = [[measured.at(directions, (a, b)) for a in steps] for b in steps]
    return LossSurface(x, y, np.array(losses), at, names)


class _Loss:
    """The loss of a copy of a network with moved parameters."""

    def __init__(self, model: Model, examples: Examples, seed: int) -> None:
        taken = drawn_examples(examples, _ROWS_OF_A_SURFACE, seed)
        assert taken.target is not None
        self._start = model.network.parameters()
        dtype = model.network.arena.dtype
        self._network = Network.from_json(model.network.to_json(), self._start, dtype)
        features = model.preprocessor.transform(taken.features)
        encoded = model.target.transform(taken.target, dtype)
        targets = loss_targets(encoded, model.loss, model.network.output_width, len(taken), dtype)
        arena = self._network.arena
        rows = Rows(arena.backend, dtype, features, targets)
        self._inference = Inference(self._network.places, arena, rows, model.loss)

    def at(self, directions: Sequence[dict[str, NDArray]], steps: Sequence[float]) -> float:
        """Return the loss after a step along each direction."""
        moved = dict(self._start)
        for direction, step in zip(directions, steps, strict=True):
            for name, values in direction.items():
                moved[name] = moved[name] + step * values
        self._network.set_parameters(moved)
        return self._inference.run()[1]


def loss_surface_plot(model: Model, surface: LossSurface, rows: str = "given") -> Plot:
    """Return the loss on its grid as colours and contours; `rows` names the rows it was measured on."""
    loss = surface.loss
    least, greatest = float(np.nanmin(loss)), float(np.nanmax(loss))
    logarithmic = least > 0 and greatest > 10 * least
    label = f"loss ({model.loss.name.replace('_', ' ')}, mean of a row)"

    def draw(figure: Any, palette: Palette) -> None:
        from matplotlib.colors import LogNorm
        from matplotlib.ticker import LogFormatter

        axes = figure.add_subplot()
        norm = LogNorm(least, greatest) if logarithmic else None
        grid, look = (surface.x, surface.y, loss), {"cmap": "viridis", "shading": "gouraud"}
        mesh = axes.pcolormesh(*grid, norm=norm, rasterized=True, **look)
        space = np.geomspace if logarithmic else np.linspace
        levels = space(least, greatest, 12)[1:-1]
        if greatest > least:
            lines = axes.contour(*grid, levels=levels, colors=["#ffffff"], linewidths=0.7)
            axes.clabel(lines, fontsize=7, fmt="%.2g")
        axes.plot(*surface.centre, marker="*", markersize=11, color="#ffffff", markeredgecolor="#000000")
        bar = figure.colorbar(mesh, ax=axes, label=label)
        if logarithmic:
            bar.ax.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
        axes.locator_params(nbins=5)
        unit = "" if surface.names[0] == "weight" else "\n(1 is the weights' own length)"
        axes.set_xlabel(surface.names[0] + unit)
        axes.set_ylabel(surface.names[1] + unit)

    j, i = np.unravel_index(np.nanargmin(loss), loss.shape)
    middle = loss[len(surface.y) // 2, len(surface.x) // 2]
    words = (
        f"The loss on {rows} rows around the solution (the star), which has {middle:.4g}; on this grid it "
        f"ranges from {least:.4g}, at ({surface.x[i]:.3g}, {surface.y[j]:.3g}), to {greatest:.4g}."
    )
    if surface.names[0] != "weight":
        words += " Both directions are random, scaled to each unit's own weights (Li et al. 2018)."
    cells = [
        [f"{y:.3g}", *(f"{value:.4g}" for value in line)] for y, line in zip(surface.y, loss, strict=True)
    ]
    headers = [f"{surface.names[1]} \\ {surface.names[0]}", *(f"{x:.3g}" for x in surface.x)]
    return Plot("loss-surface", "The loss around the solution", words, headers, cells, draw, (5.4, 4.2))
