"""The data of a run: reading, splitting, and encoding for the network."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.data.extending import with_new_labels
from nnkit.data.limits import memory_limit
from nnkit.data.pictures.columns import Pictures
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import Dataset, Examples, load_dataset
from nnkit.data.splitting import split_rows
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError
from nnkit.feed.features import Features, is_mapped
from nnkit.model import Model
from nnkit.runs.config import Config

if TYPE_CHECKING:
    from nnkit.data.tables.schema import Schema

__all__ = ["EncodedRows", "MeasuredRows", "RunData"]

logger = logging.getLogger("nnkit")

# With fewer rows, a tenth is too few to measure on and too many to do without.
_FEWEST_ROWS_TO_SPLIT = 50
_FEWEST_ROWS = 10


@dataclass(frozen=True, eq=False)
class MeasuredRows:
    """The rows that a run's model is measured on; `numbers` counts them in their source from 0."""

    kind: Literal["test", "validation", "training"]
    examples: Examples
    numbers: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """The training rows and, as `validation`, the held-out rows, encoded, with their sample weights.

    `held_targets` are the targets of the held-out rows as they stand in the data.
    """

    features: Features
    targets: NDArray
    weights: NDArray[np.float64] | None = None
    validation: tuple[Features, NDArray] | None = None
    held_targets: NDArray | None = None
    held_weights: NDArray[np.float64] | None = None


class RunData:
    """The data of a run.

    Parameters
    ----------
    config : Config
        If it names no data, the built-in ``digits`` are used.
    mapped : bool
        Whether a file of numbers stays mapped, whatever ``run.data_placement`` says.
    dataset : Dataset, optional
        The data, in place of those that the config names.
    held_out : Examples, optional
        The rows to validate on, in place of those that the config names.
    pretrained : Model, optional
        The model that the training starts from: rows are read as it reads them, and without
        ``model.replace_head`` the target is its own, with new labels added.

    Attributes
    ----------
    dataset : Dataset
        As read or given.
    training, validation : ndarray of int64, or None
        The rows of ``dataset.train`` to train on and to hold out; both None if no share is held out.
    encoder : TargetEncoder
        The task follows from all rows, classes and units from the training rows.
    """

    def __init__(
        self,
        config: Config,
        mapped: bool = False,
        dataset: Dataset | None = None,
        held_out: Examples | None = None,
        pretrained: Model | None = None,
    ) -> None:
        self._config = config
        self._pretrained = pretrained
        self._own_held_out = held_out
        self._mapped = mapped or config.run.data_placement == "mmap"
        self.training: NDArray[np.int64] | None = None
        self.validation: NDArray[np.int64] | None = None
        self._pictures = config.data.pictures()
        if pretrained is not None and pretrained.preprocessor.pictures is not None:
            self._pictures = replace(self._pictures, settings=pretrained.preprocessor.pictures)
        self.dataset = dataset or self._load(config.data.train or "digits", test=config.data.test)
        self._pictures = self._pictures.like(self.dataset.train.features)
        for note in self.dataset.notes:
            logger.info(note)
        self._check_picture_settings()
        encoder = self._encoder()
        self.training, self.validation = self._split(encoder)
        for note in encoder.notes:
            logger.info(note)
        if self.training is not None and not self._keeps_target:
            encoder = self._fitted(encoder.task, encoder)
        self.encoder = encoder

    def _load(
        self, source: str | list[str], schema: Schema | None = None, test: str | None = None
    ) -> Dataset:
        data = self._config.data
        # The columns of a later table are found by name: their order may differ.
        by_name = schema is not None
        names = list(self.dataset.target_names) if by_name else data.target
        if not by_name and self._pretrained is not None:
            schema = self._pretrained.schema
            names = names or [*self._pretrained.target.names] or None
        return load_dataset(
            source,
            target=names,
            features=None if by_name else _listed(data.features),
            drop=None if by_name else _listed(data.drop),
            test=test,
            pictures=self._pictures,
            mapped=self._mapped,
            table=data.table(),
            schema=schema,
            multilabel=data.task == "multilabel",
        )

    def _check_picture_settings(self) -> None:
        """Raise if a key for pictures is set and the data are not pictures."""
        data, shape = self._config.data, self.dataset.image_shape
        pictures = isinstance(self.dataset.train.features, Pictures)
        for key in () if pictures else ("image_size", "image_column", "augment"):
            flat = key == "augment" and shape is not None and len(shape) == 2
            if getattr(data, key) is not None and not flat:
                raise ConfigError(
                    f"data.{key} is for pictures, and {self.dataset.name} has none; leave it out"
                )
        if pictures and data.image_size is None:
            logger.info("data.image_size is not set: pictures are made 64 × 64")

    def _encoder(self) -> TargetEncoder:
        """Return the encoder of the targets of all rows."""
        if self._pretrained is not None and self._keeps_target:
            self._check_target_settings(self._pretrained.task)
            encoder, added = with_new_labels(self._pretrained.target, self._target())
            if added:
                logger.info(f"classes that the pretrained model does not know: {', '.join(map(str, added))}")
            return encoder
        task = self._config.data.task
        if task != "classification":
            return self._fitted(task)
        names, target = self.dataset.target_names, self._target()
        regression = TargetEncoder.fit(target, "auto", names).task == "regression"
        return self._fitted("multiclass" if regression else "auto")

    def _check_target_settings(self, task: str) -> None:
        """Raise if a key says what the target is, which follows from the model to start from."""
        data = self._config.data
        given = {"positive": data.positive is not None, "target_transform": data.target_transform != "none"}
        given |= {"clamp_predictions": data.clamp_predictions, "task": data.task not in ("auto", task)}
        for key, is_given in given.items():
            if is_given:
                raise ConfigError(
                    f"data.{key} is for a new target, and this one, {task}, is that of model.pretrained: "
                    "leave it out, or set model.replace_head"
                )

    @property
    def _keeps_target(self) -> bool:
        """Whether the target is that of the model that the training starts from."""
        return self._pretrained is not None and not self._config.model.replace_head

    def _fitted(self, task: str, of_all: TargetEncoder | None = None) -> TargetEncoder:
        """Return the encoder of the training rows; `of_all` is kept if it has the labels of lists."""
        if of_all is not None and of_all.labels:
            return of_all
        data = self._config.data
        transform, clamp = data.target_transform, data.clamp_predictions
        names = self.dataset.target_names
        return TargetEncoder.fit(self._target(), task, names, data.positive, transform, clamp)

    def _split(self, encoder: TargetEncoder) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """Return the training rows and the held-out rows; None and None if no share is held out."""
        data, count = self._config.data, len(self.dataset.train)
        if self._own_held_out is not None or isinstance(data.validation, str) or data.validation == 0:
            return None, None
        if count < _FEWEST_ROWS_TO_SPLIT and "validation" not in data.given:
            few = f"{count} rows are too few to hold some out: the metrics are those of the training rows"
            if count < _FEWEST_ROWS:
                few += ", and say nothing about other rows"
            logger.info(few)
            return None, None
        classes = encoder.codes(self._target()) if encoder.task in ("binary", "multiclass") else None
        return split_rows(count, data.validation, self._config.run.seed, classes)

    def _target(self) -> NDArray:
        """Return the targets of the training rows; before the split, of all rows."""
        target = self.dataset.train.target
        assert target is not None
        return target if self.training is None else target[self.training]

    def encoded(self, preprocessor: Preprocessor, encoder: TargetEncoder, dtype: DTypeLike) -> EncodedRows:
        """Return the rows as the network takes them, of floating type `dtype`.

        Raises
        ------
        DataError
            If the validation rows have no target, or cannot be encoded.
        """
        # Cells that do not fit were logged when they were read; in rows held out by chance they are no error.
        features = self._transformed(preprocessor, self.dataset.train.features, self.training, quiet=True)
        targets = encoder.transform(self._target(), dtype)
        source, rows = self.dataset.train, self.validation
        weights = source.weight
        if weights is not None and self.training is not None:
            weights = weights[self.training]
        if rows is None:
            held_out = self._held_out()
            if held_out is None:
                return EncodedRows(features, targets, weights)
            source = held_out
        if source.target is None:
            raise DataError("the validation rows have no target column")
        validation = self._transformed(preprocessor, source.features, rows, quiet=rows is not None)
        size = validation.row_bytes * len(validation)
        if is_mapped(source.features) and validation.mapped and size <= memory_limit() // 2:
            # All of them are read after each epoch, from all over the file.
            validation = validation.loaded()
        held_targets, held_weights = source.target, source.weight
        if rows is not None:
            held_targets = held_targets[rows]
            held_weights = None if held_weights is None else held_weights[rows]
        held = (validation, encoder.transform(held_targets, dtype))
        return EncodedRows(features, targets, weights, held, held_targets, held_weights)

    def _transformed(
        self, preprocessor: Preprocessor, features: Any, rows: NDArray[np.int64] | None, quiet: bool
    ) -> Features:
        """Return rows as the network takes them; flattened images get their shape."""
        encoded = preprocessor.transform(features, rows, strict=not quiet, quiet=quiet)
        shape = self.dataset.image_shape
        if encoded.picture is None and shape is not None and len(shape) == 2 and encoded.codes is None:
            return replace(encoded, picture=(1, *shape))
        return encoded

    def check_test(self, preprocessor: Preprocessor, encoder: TargetEncoder) -> None:
        """Raise before the training what measuring on the test rows would raise after it."""
        test = self.dataset.test
        if test is None:
            return
        if test.target is None:
            raise DataError("the test rows have no target column")
        preprocessor.transform(test.features, strict=True)
        encoder.truth(test.target)

    @property
    def holds_out(self) -> bool:
        """Whether there are rows to validate on: of the source, of a file of their own, or given."""
        own = self._own_held_out is not None or isinstance(self._config.data.validation, str)
        return own or self.validation is not None

    def _held_out(self) -> Examples | None:
        if self._own_held_out is not None:
            return self._own_held_out
        if self.validation is not None:
            return self.dataset.train.take(self.validation)
        validation = self._config.data.validation
        return self._load(validation, self.dataset.schema).train if isinstance(validation, str) else None

    def measured_rows(self) -> MeasuredRows:
        """Return the test rows if there are any, else the held-out rows, else the training rows."""
        if self.dataset.test is not None:
            return MeasuredRows("test", self.dataset.test, np.arange(len(self.dataset.test)))
        held_out = self._held_out()
        if held_out is None:
            return MeasuredRows("training", self.dataset.train, np.arange(len(self.dataset.train)))
        numbers = np.arange(len(held_out)) if self.validation is None else self.validation
        return MeasuredRows("validation", held_out, numbers)


def _listed(value: Any) -> list[Any] | None:
    return value if value is None or isinstance(value, list) else [value]
