"""A training that a config describes, before it begins: data, preprocessing, network and trainer."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from nnkit.adapting import adapted_preprocessor, adapted_to
from nnkit.data.examples import Dataset, Examples
from nnkit.data.messages import listed
from nnkit.data.operations import NumberColumn
from nnkit.data.pictures.columns import Pictures
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.data.text.word_vectors import WordVectors
from nnkit.diagnostics.data import check_data
from nnkit.diagnostics.findings import Finding, check_settings
from nnkit.diagnostics.rate_test import RateCurve, find_rate
from nnkit.model import Model, load
from nnkit.nn.losses import Loss
from nnkit.nn.network import Network
from nnkit.runs.config import Config
from nnkit.runs.data import EncodedRows, RunData
from nnkit.runs.embeddings import plan_embeddings, text_options, with_text_defaults
from nnkit.runs.from_config import (
    layers_of,
    loss_of,
    trainer_of,
    with_fine_tuning_rate,
    with_table_defaults,
)

__all__ = ["TrainingPlan"]

logger = logging.getLogger("nnkit")


class TrainingPlan:
    """Everything that a training needs, read and checked; nothing is trained or written.

    Parameters
    ----------
    config : Config
        If it names no data, the built-in ``digits`` are used.
    mapped : bool
        Whether a file of numbers stays mapped, whatever ``run.data_placement`` says.
    dataset, held_out
        Data in place of those that the config names, as `RunData` takes them.

    Attributes
    ----------
    config : Config
        As given; for a training on text alone, with the defaults for text.
    data : RunData
        The rows to train and to measure on; `dataset` has all of them as read.
    trainer : Trainer
        Trains the network.
    model : Model
        The network, which `trainer` trains in place, with its preprocessing.
    """

    def __init__(
        self,
        config: Config,
        mapped: bool = False,
        dataset: Dataset | None = None,
        held_out: Examples | None = None,
    ) -> None:
        self.config = config
        self._pretrained = None if config.model.pretrained is None else load(config.model.pretrained)
        self.data = RunData(config, mapped, dataset, held_out, self._pretrained)
        self.dataset = self.data.dataset
        encoder = self.data.encoder
        loss = loss_of(config, encoder)
        if self._pretrained is not None and config.training.loss == "auto" and not config.model.replace_head:
            loss = self._pretrained.loss
        if loss.link == "exp":
            # The network's output is the logarithm of the rate: these targets must not be standardised.
            encoder = replace(encoder, mean=np.zeros(encoder.outputs), scale=np.ones(encoder.outputs))
        self._word_vectors: dict[str, WordVectors] = {}
        notes: list[str] = []
        preprocessor = self._preprocessor(notes)
        self.config = self._with_defaults(preprocessor, encoder, notes)
        self.model = self._new_model(preprocessor, encoder, loss, notes)
        self.trainer = trainer_of(self.config, self.model.network, loss, encoder)
        self.model.preprocessor = replace(preprocessor, dtype=self.trainer.dtype.name)
        for note in notes:
            logger.info(note)

    def _preprocessor(self, notes: list[str]) -> Preprocessor:
        """Return the preprocessing of the training rows, or that of the model to start from."""
        data, features, rows = self.config.data, self.dataset.train.features, self.data.training
        if self._pretrained is None:
            preprocessor = Preprocessor.fit(
                features,
                rows=rows,
                scaling=data.scaling,
                text=text_options(self.config, self.dataset),
                categories=data.categories,
                missing_flags=data.missing_flags,
            )
            notes += preprocessor.notes
            return preprocessor
        refit = self.config.model.refit_scaling
        preprocessor, added = adapted_preprocessor(self._pretrained, features, rows, refit, data.scaling)
        for column, names in added.items():
            notes.append(
                f"column {column!r} has categories that the pretrained model does not know: {listed(names)}"
            )
        known = preprocessor.input_names or ()
        others = [name for name in getattr(features, "column_names", ()) if known and name not in known]
        if others:
            notes.append(f"columns that the pretrained model does not take are left out: {listed(others)}")
        return preprocessor

    def _with_defaults(self, preprocessor: Preprocessor, encoder: TargetEncoder, notes: list[str]) -> Config:
        """Return the config with the defaults that follow from the data."""
        config, features = self.config, self.dataset.train.features
        if len(preprocessor.text_columns) == len(preprocessor.operations) and self._pretrained is None:
            return with_text_defaults(config, notes)
        if (
            isinstance(features, np.ndarray | Pictures)
            or preprocessor.text_columns == preprocessor.operations
        ):
            return with_fine_tuning_rate(config, notes)
        columns = sum(isinstance(operation, NumberColumn) for operation in preprocessor.operations)
        return with_table_defaults(config, self.training_rows, columns, encoder, self.data.holds_out, notes)

    def _new_model(
        self, preprocessor: Preprocessor, encoder: TargetEncoder, loss: Loss, notes: list[str]
    ) -> Model:
        """Return the untrained model, or the one to start from with what is new in these rows."""
        if self._pretrained is not None:
            config = self.config
            return adapted_to(
                self._pretrained, preprocessor, encoder, loss, config.model.replace_head, config.run.seed
            )
        embeddings = plan_embeddings(self.config, preprocessor, notes)
        self._word_vectors = embeddings.values
        layers = [*embeddings.layers, *layers_of(self.config, encoder.outputs, loss.link)]
        return Model(Network(layers), preprocessor, encoder, loss)

    @property
    def training_rows(self) -> int:
        """The number of training rows."""
        return len(self.dataset.train) if self.data.training is None else len(self.data.training)

    @property
    def held_out_rows(self) -> int:
        """The number of the source's rows that are held out for validation."""
        return 0 if self.data.validation is None else len(self.data.validation)

    def encoded(self) -> EncodedRows:
        """Return the training and the held-out rows as the network takes them."""
        return self.data.encoded(self.model.preprocessor, self.model.target, self.trainer.dtype)

    def fit(self, rows: EncodedRows, **options: Any) -> None:
        """Train the model from its first step; `options` as `Trainer.fit` takes them."""
        self.begin_from_vectors()
        batch_size = self.config.training.batch_size
        given = {**self.fit_options(rows), **options}
        self.trainer.fit(rows.features, rows.targets, batch_size=batch_size, **given)

    def fit_options(self, rows: EncodedRows) -> dict[str, Any]:
        """Return the arguments of `Trainer.fit` and `Trainer.resume` that follow from data and config."""
        return {
            "validation": None if rows.validation is None else (*rows.validation, rows.held_weights),
            "sample_weight": rows.weights,
            "decode": self.model.target.values if self.model.task == "regression" else None,
            "epochs": self.config.training.epochs,
        }

    def check(self, rows: EncodedRows | None = None) -> list[Finding]:
        """Return the problems of data and settings that show before training; `rows` as from `encoded`."""
        rows = self.encoded() if rows is None else rows
        config, encoder, preprocessor = self.config, self.model.target, self.model.preprocessor
        # The sizes of classes are checked only where the training does not weight the classes.
        unweighted = config.training.class_weight is None and encoder.task in ("binary", "multiclass")
        labels = encoder.classes.tolist() if unweighted and encoder.classes is not None else None
        found = check_settings(self.model.network.layers, self.trainer.loss, rows.targets)
        return found + check_data(
            rows.features,
            rows.targets,
            rows.validation,
            preprocessor.column_names,
            config.data.scaling != "none",
            None if labels is None else [str(label) for label in labels],
            preprocessor.constant,
            len(preprocessor.flagged),
        )

    def tune_rate(self, lowest: float, highest: float, steps: int) -> RateCurve:
        """Find a learning rate for this training; see `nnkit.diagnostics.rate_test.find_rate`."""
        rows = self.encoded()
        self.begin_from_vectors()
        return find_rate(
            self.trainer,
            rows.features,
            rows.targets,
            batch_size=self.config.training.batch_size,
            lowest=lowest,
            highest=highest,
            steps=steps,
            sample_weight=rows.weights,
        )

    def begin_from_vectors(self) -> None:
        """If there are word vectors, initialise the parameters as the trainer would and copy them in."""
        if not self._word_vectors:
            return
        network, trainer = self.model.network, self.trainer
        network.initialize(self.model.preprocessor.width, trainer.seed, trainer.dtype, trainer.backend)
        for name, found in self._word_vectors.items():
            table = network.parameters()[name]
            table[found.places] = found.vectors
            network.set_parameters({name: table})
