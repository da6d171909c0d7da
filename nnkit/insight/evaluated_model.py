"""A trained model with the rows it is evaluated on, and with the record of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnkit.data.examples import Dataset, Examples
from nnkit.data.pictures.columns import Pictures
from nnkit.diagnostics.findings import Finding, read_findings
from nnkit.errors import DataError
from nnkit.insight.evaluation import confident_mistakes, greatest_residuals
from nnkit.model import Model, load
from nnkit.run_folder import FINDINGS_FILE, HISTORY_FILE, find_run
from nnkit.runs.config import Config
from nnkit.runs.data import RunData
from nnkit.runs.folder import config_of_run
from nnkit.training.history import History

__all__ = [
    "EvaluatedModel",
    "EvaluatedRun",
    "as_picture",
    "drawn_examples",
    "evaluated_run",
    "is_picture_shape",
]


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A trained model and rows with their true targets, on which it is evaluated.

    Parameters
    ----------
    model : Model
    examples : Examples
        With a target.
    kind : str
        What the rows are, such as ``validation``.
    numbers : ndarray of shape (samples,), int64
        Their places in the source, counted from 0.
    source : str
        Where they are from.
    image_shape : tuple of int, or None
        (height, width) or (channels, height, width) where the rows are flattened images.
    """

    model: Model
    examples: Examples
    kind: str
    numbers: NDArray[np.int64]
    source: str
    image_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.examples.target is None:
            wanted = ", ".join(self.model.target.names) or "the target"
            raise DataError(f"{self.source}: there is no column {wanted} to compare with")

    @classmethod
    def of_dataset(cls, model: Model, dataset: Dataset, kind: str = "") -> EvaluatedModel:
        """Return a model with a source's test set where it has one, else with all of its rows."""
        test = dataset.test is not None
        examples = dataset.train if dataset.test is None else dataset.test
        numbers = np.arange(len(examples))
        return cls(model, examples, "test" if test else "given", numbers, dataset.name, dataset.image_shape)

    @property
    def task(self) -> str:
        """One of binary, multiclass, multilabel and regression."""
        return self.model.task

    @property
    def labels(self) -> list[str]:
        """The name of each class; of each label for multilabel; of each output for a regression."""
        target = self.model.target
        if self.task in ("binary", "multiclass") and target.classes is not None:
            return [str(label) for label in target.classes.tolist()]
        return list(target.output_names) or [f"output {place}" for place in range(target.outputs)]

    @cached_property
    def outputs(self) -> NDArray:
        """The network's raw outputs, shape (samples, outputs)."""
        return self.model.outputs(self.examples.features)

    @cached_property
    def truth(self) -> NDArray:
        """Encoded classes (samples,), labels 0 and 1 (samples, k), or values in their units (samples, k)."""
        target = self.model.target
        if self.task in ("binary", "multiclass"):
            return target.codes(self._given()).astype(np.int64)
        if self.task == "multilabel":
            return target.transform(self._given(), np.float64).astype(np.int64)
        return np.asarray(self._given(), np.float64).reshape(len(self.examples), -1)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each class, or of each label; a DataError for a regression."""
        return self.model.target.probabilities(self.outputs)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """What a regression predicts, in the target's units, shape (samples, outputs)."""
        return self.model.decoded(self.outputs).reshape(len(self.examples), -1)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Encoded classes, shape (samples,); labels 0 and 1 for multilabel."""
        if self.task == "multilabel":
            return (self.probabilities > 0.5).astype(np.int64)
        return self.model.target.codes(self.model.decoded(self.outputs)).astype(np.int64)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All that apply to the task."""
        return self.model.evaluate(self.examples.features, self._given(), sample_weight=self.examples.weight)

    @property
    def pictures(self) -> bool:
        """Whether the inputs are pictures."""
        if not isinstance(self.examples.features, np.ndarray):
            return isinstance(self.examples.features, Pictures)
        return is_picture_shape(self.image_shape)

    @cached_property
    def pixel_range(self) -> tuple[float, float]:
        """The least and the greatest value of a pixel of all rows of flattened images, such as 0 and 16."""
        pixels = self.examples.array
        return min(0.0, float(pixels.min())), float(pixels.max())

    def worst(self, count: int) -> NDArray[np.int64]:
        """Return the most confident mistakes, or a regression's greatest residuals, the worst first."""
        if self.task == "regression":
            return greatest_residuals(self.truth, self.values, count)
        if self.task == "multilabel":
            return _worst_labels(self.truth, self.predicted, self.probabilities, count)
        return confident_mistakes(self.truth, self.predicted, self.probabilities, count)

    def _given(self) -> NDArray:
        assert self.examples.target is not None
        return self.examples.target


@dataclass(frozen=True, eq=False)
class EvaluatedRun(EvaluatedModel):
    """The model of a run, with the rows it was measured on and what else the run's folder holds.

    Parameters
    ----------
    folder : Path
    config : Config
        As the training was.
    history : History
        Of its epochs.
    findings : tuple of Finding
        What a diagnosis found in it.
    """

    folder: Path = Path()
    config: Config = field(default_factory=Config)
    history: History = field(default_factory=History)
    findings: tuple[Finding, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What a reader should know: that the data are no longer those of the training."""
        then = self.model.details.get("metrics", {}).get(self.kind, {})
        now = self.metrics
        names = [name for name in then if name in now and not np.isclose(then[name], now[name], 1e-3, 1e-6)]
        if not names:
            return []
        name = names[0]
        return [
            f"At the end of the training {name.replace('_', ' ')} was {then[name]:.4g} on the {self.kind} "
            f"rows, and is {now[name]:.4g} now: the data have changed since."
        ]


def evaluated_run(folder: Path) -> EvaluatedRun:
    """Read a run folder, its data, and the rows that its model was measured on.

    Parameters
    ----------
    folder : Path
        What `nnkit train` left.

    Raises
    ------
    FileError
        If it is no run folder, its training has not ended, or its data are gone.
    NnkitError
        If one of its files is not as `nnkit train` writes it.
    """
    folder = find_run(folder)
    config = config_of_run(folder)
    model = load(folder)
    history = History.from_jsonl(folder / HISTORY_FILE)
    data = RunData(config)
    rows = data.measured_rows()
    return EvaluatedRun(
        model,
        rows.examples,
        rows.kind,
        rows.numbers,
        data.dataset.name,
        data.dataset.image_shape,
        folder,
        config,
        history,
        _findings(folder),
    )


def _findings(folder: Path) -> tuple[Finding, ...]:
    """Return what a diagnosis left in a run's folder, the serious ones first."""
    path = folder / FINDINGS_FILE
    found, _ = read_findings(path) if path.is_file() else ([], [])
    return tuple(sorted(found, key=lambda finding: finding.severity != "serious"))


def drawn_examples(examples: Examples, most: int, seed: int) -> Examples:
    """Return at most so many examples, drawn by the seed, in their order."""
    if len(examples) <= most:
        return examples
    rows = np.random.default_rng(seed).choice(len(examples), most, replace=False)
    return examples.take(np.sort(rows))


def is_picture_shape(shape: Sequence[int] | None) -> bool:
    """Tell whether flattened rows of a shape are pictures: in grey, or with 1 or 3 channels first or last."""
    return shape is not None and (
        len(shape) == 2 or (len(shape) == 3 and {shape[0], shape[2]} & {1, 3} != set())
    )


def as_picture(values: NDArray, shape: Sequence[int]) -> NDArray:
    """Return a flattened row as (height, width), or in colour as (height, width, 3).

    Parameters
    ----------
    values : ndarray of shape (pixels,)
    shape : sequence of int
        One that `is_picture_shape`: (height, width), (channels, height, width) as pictures have it, or
        (height, width, channels) as arrays may.
    """
    picture = values.reshape(tuple(shape))
    if picture.ndim == 2:
        return picture
    picture = np.moveaxis(picture, 0, -1) if picture.shape[0] in (1, 3) else picture
    return picture if picture.shape[2] == 3 else picture[..., 0]


def _worst_labels(
    truth: NDArray, predicted: NDArray, probabilities: NDArray, count: int
) -> NDArray[np.int64]:
    said = np.where(predicted == 1, probabilities, 1 - probabilities)
    worst = np.max(np.where(truth != predicted, said, 0.0), axis=1)
    wrong = np.flatnonzero(worst > 0)
    return wrong[np.argsort(-worst[wrong], kind="stable")][:count]
