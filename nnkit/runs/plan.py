"""A training that a config describes, before it begins: data, preprocessing, network and trainer."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from nnkit.data.preprocessing import Preprocessor
from nnkit.diagnostics.data import check_data
from nnkit.diagnostics.findings import Finding, check_settings
from nnkit.diagnostics.rate_test import RateCurve, find_rate
from nnkit.model import Model
from nnkit.nn.network import Network
from nnkit.runs.config import Config
from nnkit.runs.data import EncodedRows, RunData
from nnkit.runs.embeddings import plan_embeddings, text_options, with_text_defaults
from nnkit.runs.from_config import layers_of, loss_of, trainer_of

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

    def __init__(self, config: Config, mapped: bool = False) -> None:
        self.config = config
        self.data = RunData(config, mapped)
        self.dataset = self.data.dataset
        encoder = self.data.encoder
        loss = loss_of(config, encoder)
        if loss.link == "exp":
            # The network's output is the logarithm of the rate: these targets must not be standardised.
            encoder = replace(encoder, mean=np.zeros(encoder.outputs), scale=np.ones(encoder.outputs))
        preprocessor = Preprocessor.fit(
            self.dataset.train.features,
            rows=self.data.training,
            scaling=config.data.scaling,
            text=text_options(config, self.dataset),
            categories=config.data.categories,
        )
        notes = list(preprocessor.notes)
        if len(preprocessor.text_columns) == len(preprocessor.operations):
            self.config = with_text_defaults(config, notes)
        embeddings = plan_embeddings(self.config, preprocessor, notes)
        self._word_vectors = embeddings.values
        network = Network([*embeddings.layers, *layers_of(self.config, encoder.outputs)])
        self.trainer = trainer_of(self.config, network, loss, encoder)
        for note in notes:
            logger.info(note)
        self.model = Model(network, replace(preprocessor, dtype=self.trainer.dtype.name), encoder, loss)

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

    def check(self, rows: EncodedRows | None = None) -> list[Finding]:
        """Return the problems of data and settings that show before training; `rows` as from `encoded`."""
        rows = self.encoded() if rows is None else rows
        config, encoder, preprocessor = self.config, self.model.target, self.model.preprocessor
        weighted = config.training.class_weight is not None or encoder.task not in ("binary", "multiclass")
        labels = None if weighted or encoder.classes is None else encoder.classes.tolist()
        found = check_settings(self.model.network.layers, self.trainer.loss, rows.targets)
        return found + check_data(
            rows.features,
            rows.targets,
            rows.validation,
            preprocessor.column_names,
            config.data.scaling != "none",
            None if labels is None else [str(label) for label in labels],
            preprocessor.constant,
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
