"""A trained model with the rows it is evaluated on, and with the record of its training.

Order: the model, the run, rows as a person looks at them.
"""

from __future__ import annotations

import base64
import io
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
from nnkit.insight.explanation import output_labels
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
    "picture_of",
    "picture_url",
    "row_text",
]

_LONGEST_TEXT = 160
_MOST_VALUES = 8
_LARGEST_SIDE = 96  # of a picture in a page
_LOSSLESS_PIXELS = 32 * 32  # a larger picture is a photograph, a tenth as many bytes as a JPEG


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A trained model and rows with their true targets, on which it is evaluated.

    Raises
    ------
    DataError
        If the examples have no target.
    """

    model: Model
    examples: Examples
    kind: str  # of rows, such as "validation"
    numbers: NDArray[np.int64]  # the rows' places in the source, from 0, shape (samples,)
    source: str
    image_shape: tuple[int, ...] | None = None  # where the rows are flattened images: see `as_picture`

    def __post_init__(self) -> None:
        if self.examples.target is None:
            wanted = ", ".join(self.model.target.names) or "the target"
            raise DataError(f"{self.source}: there is no column {wanted} to compare with")

    @classmethod
    def of_dataset(cls, model: Model, dataset: Dataset) -> EvaluatedModel:
        """Return a model with a source's test set where it has one, else with all of its rows."""
        kind, examples = ("given", dataset.train) if dataset.test is None else ("test", dataset.test)
        return cls(model, examples, kind, np.arange(len(examples)), dataset.name, dataset.image_shape)

    @property
    def task(self) -> str:
        """One of binary, multiclass, multilabel and regression."""
        return self.model.task

    @property
    def labels(self) -> list[str]:
        """The name of each class; of each label for multilabel; of each output for a regression."""
        return output_labels(self.model)

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
        """A regression's predictions in the target's units, shape (samples, outputs)."""
        return self.model.decoded(self.outputs).reshape(len(self.examples), -1)

    @cached_property
    def residuals(self) -> NDArray[np.float64]:
        """True less predicted values of a regression, in the target's units, shape (samples, outputs)."""
        return self.truth - self.values

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Encoded classes, shape (samples,); labels 0 and 1 for multilabel."""
        if self.task == "multilabel":
            return (self.probabilities > 0.5).astype(np.int64)
        return self.model.target.codes(self.model.decoded(self.outputs)).astype(np.int64)

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of what is predicted, of a class (samples,) or of each label (samples, k)."""
        if self.task == "multilabel":
            return np.where(self.predicted == 1, self.probabilities, 1 - self.probabilities)
        return np.take_along_axis(self.probabilities, self.predicted[:, None], axis=1)[:, 0]

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
        """Return the rows of the `count` most confident mistakes or largest residuals, the worst first.

        Of several outputs the sum of the absolute residuals decides, each divided by its column's largest.
        """
        if self.task == "regression":
            sizes = np.abs(self.residuals)
            largest = sizes.max(axis=0)
            shares = np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)
            return np.argsort(-shares.sum(axis=1), kind="stable")[:count]
        wrong = (self.truth != self.predicted).reshape(len(self.truth), -1)
        confidence = np.where(wrong, self.confidence.reshape(wrong.shape), 0.0).max(axis=1)
        rows = np.flatnonzero(wrong.any(axis=1))
        return rows[np.argsort(-confidence[rows], kind="stable")][:count]

    def _given(self) -> NDArray:
        assert self.examples.target is not None
        return self.examples.target


@dataclass(frozen=True, eq=False)
class EvaluatedRun(EvaluatedModel):
    """The model of a run, with the rows it was measured on and what else the run's folder holds."""

    folder: Path = Path()
    config: Config = field(default_factory=Config)
    history: History = field(default_factory=History)
    findings: tuple[Finding, ...] = ()  # of a diagnosis, the serious ones first

    @property
    def notes(self) -> list[str]:
        """A warning where the data are no longer those of the training."""
        then = self.model.details.get("metrics", {}).get(self.kind, {})
        now = self.metrics
        names = [name for name in then if name in now and not np.isclose(then[name], now[name], 1e-3, 1e-6)]
        return [
            f"At the end of the training {name.replace('_', ' ')} was {then[name]:.4g} on the {self.kind} "
            f"rows, and is {now[name]:.4g} now: the data have changed since."
            for name in names[:1]
        ]


def evaluated_run(folder: Path) -> EvaluatedRun:
    """Read a run folder, its data, and the rows that its model was measured on.

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
    # Rows are read as the model to start from reads them, which is as this one does.
    data = RunData(config, pretrained=None if config.model.pretrained is None else model)
    rows = data.measured_rows()
    findings = read_findings(folder / FINDINGS_FILE)[0] if (folder / FINDINGS_FILE).is_file() else []
    findings.sort(key=lambda finding: finding.severity != "serious")
    measured = (rows.examples, rows.kind, rows.numbers, data.dataset.name, data.dataset.image_shape)
    return EvaluatedRun(model, *measured, folder, config, history, tuple(findings))


def drawn_examples(examples: Examples, most: int, seed: int) -> Examples:
    """Return at most `most` examples, drawn by the seed, in their order."""
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
    """Return a flattened row, shape (pixels,), as (height, width), or in colour as (height, width, 3).

    `shape` is (height, width), (channels, height, width) as pictures have it, or (height, width, channels)
    as arrays may.
    """
    picture = values.reshape(tuple(shape))
    if picture.ndim == 2:
        return picture
    picture = np.moveaxis(picture, 0, -1) if picture.shape[0] in (1, 3) else picture
    return picture if picture.shape[2] == 3 else picture[..., 0]


def picture_of(evaluated: EvaluatedModel, row: int) -> NDArray[np.uint8]:
    """Return a row as a picture, shape (height, width) or (height, width, 3)."""
    features = evaluated.examples.features
    if isinstance(features, Pictures):
        return as_picture(features.pixels[features.rows[row]], features.settings.shape)
    assert isinstance(features, np.ndarray)
    assert evaluated.image_shape is not None
    low, high = evaluated.pixel_range
    scaled = (np.asarray(features[row], np.float64) - low) / max(high - low, 1e-30) * 255
    return as_picture(np.clip(scaled, 0, 255).astype(np.uint8), evaluated.image_shape)


def picture_url(evaluated: EvaluatedModel, row: int) -> str:
    """Return a row's picture as a ``data:`` URL."""
    from PIL import Image

    image = Image.fromarray(picture_of(evaluated, row))
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    kind = "png" if image.width * image.height <= _LOSSLESS_PIXELS else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def row_text(evaluated: EvaluatedModel, row: int) -> str:
    """Return a row's first values by column, long texts cut short; the name of a picture's file."""
    features = evaluated.examples.features
    if isinstance(features, Pictures):
        return features.names[row] if features.paths else ""
    if isinstance(features, np.ndarray):
        if evaluated.pictures:
            return ""
        count, separator = features.shape[1], ", "
        cells = [f"{value:.4g}" for value in features[row][:_MOST_VALUES].tolist()]
    else:
        names, separator = features.column_names, "; "
        count = len(names)
        cells = [f"{name} {_cut(features[name][row].as_py())}" for name in names[:_MOST_VALUES]]
        if count == 1:
            return _cut(features[names[0]][row].as_py())
    return separator.join(cells) + (f" … ({count:,} columns)" if count > _MOST_VALUES else "")


def _cut(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"
