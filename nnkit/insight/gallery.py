"""The plots by their names in `nnkit plot`, and what each is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nnkit.data.examples import Dataset
from nnkit.engine.places import leaves
from nnkit.errors import ConfigError, unknown_name
from nnkit.insight import class_plots, picture_plots, surfaces, value_plots
from nnkit.insight.drawing import Plot, together
from nnkit.insight.evaluated_model import EvaluatedModel, EvaluatedRun, evaluated_run
from nnkit.insight.importance import importance_plot
from nnkit.insight.learning_plots import learning_plots
from nnkit.model import Model, load
from nnkit.run_folder import HISTORY_FILE, MODEL_FILE, find_run
from nnkit.training.history import History

__all__ = ["PLOTS", "plot_of"]

_OF_ROWS: dict[str, Callable[[EvaluatedModel], Plot]] = {
    "confusion": class_plots.confusion_plot,
    "roc": class_plots.roc_plot,
    "precision-recall": class_plots.precision_recall_plot,
    "calibration": class_plots.calibration_plot,
    "predicted": value_plots.predicted_plot,
    "residuals": value_plots.residuals_plot,
    "mistakes": picture_plots.mistakes_plot,
    "importance": importance_plot,
    "boundary": surfaces.boundary_plot,
    "loss-surface": lambda evaluated: surfaces.loss_surface_plot(
        evaluated.model, surfaces.loss_surface(evaluated.model, evaluated.examples), evaluated.kind
    ),
}
PLOTS = ("learning", *_OF_ROWS, "weights", "activations")


def plot_of(what: str, path: Path | None, data: str | None, dataset: Callable[[Model, str], Dataset]) -> Plot:
    """Return the plot of that name.

    Parameters
    ----------
    what : str
        One of `PLOTS`.
    path : Path or None
        A run folder or a model file; activations need none.
    data : str or None
        The source of the rows to evaluate on; those of the run if not given.
    dataset : function of a model and a source
        Loads a source for a model.

    Raises
    ------
    ConfigError
        If the name is unknown, or the path or the rows are missing.
    NnkitError
        If a file cannot be read, or makes no such plot.
    """
    if what not in PLOTS:
        raise unknown_name("plot", what, PLOTS)
    if what == "activations":
        if path is None:
            return surfaces.activations_plot()
        layers = [place.layer for place in leaves(load(path).network.places)]
        return surfaces.activations_plot(list(dict.fromkeys(x.activation for x in layers if x.activates)))
    if path is None:
        raise ConfigError(f"{what} is drawn from a run or a model: give `path`")
    if what == "learning":
        return _learning(path)
    if what == "weights":
        model = load(path)
        return picture_plots.weights_plot(model, _image_shape(model))
    evaluated = _evaluated(what, path, data, dataset)
    if what in ("roc", "precision-recall", "calibration") and evaluated.task == "regression":
        raise ConfigError(
            f"{what} is drawn from probabilities, and a regression has none: draw predicted or residuals"
        )
    return _OF_ROWS[what](evaluated)


def _evaluated(
    what: str, path: Path, data: str | None, dataset: Callable[[Model, str], Dataset]
) -> EvaluatedModel | EvaluatedRun:
    if data is not None:
        model = load(path)
        return EvaluatedModel.of_dataset(model, dataset(model, data))
    path = find_run(path)
    if not path.is_dir():
        raise ConfigError(
            f"{what} is drawn from rows, and a model has none: give `data` too, or the run's folder"
        )
    return evaluated_run(path)


def _learning(folder: Path) -> Plot:
    folder = find_run(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: learning curves are a run's: give its folder")
    history = History.from_jsonl(folder / HISTORY_FILE)
    model = load(folder) if (folder / MODEL_FILE).is_file() else None
    loss = "" if model is None else model.loss.name
    units = "" if model is None else ", ".join(model.target.names)
    return together(learning_plots(history, loss, units), "learning", "Learning curves")


def _image_shape(model: Model) -> tuple[int, ...] | None:
    if model.preprocessor.pictures is not None:
        return model.preprocessor.pictures.shape
    shape = model.details.get("image_shape")
    if not isinstance(shape, list) or not all(isinstance(side, int) and side > 0 for side in shape):
        return None
    return tuple(shape)
