"""From a config to the loss, the layers and the trainer; and the resolved config that a run keeps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnkit.data.arrays.idx import image_pairs
from nnkit.data.sources.built_in import BUILT_INS
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, unknown_name
from nnkit.model import Model
from nnkit.nn.layers import BatchEnsemble, Dense, Dropout, Ensemble, Layer, Periodic, PiecewiseLinear
from nnkit.nn.losses import Link, Loss, loss_for_task, loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import optimizer_from
from nnkit.run_folder import model_file
from nnkit.runs.config import Config
from nnkit.runs.table_defaults import MOST_DECAY, table_defaults
from nnkit.training.trainer import Trainer

__all__ = ["layers_of", "loss_of", "resolved", "trainer_of", "with_fine_tuning_rate", "with_table_defaults"]

# The keys of [training] that the trainer takes as they are.
_AS_THEY_ARE = (
    *("dropout_schedule", "weight_decay_schedule", "cooldown", "monitor"),
    *("l1", "l2", "clip_norm", "restore_best"),
)
_FINE_TUNING = 0.1  # of the default learning rate, for weights that are trained already
_TABM_INITIALIZER = "fan_in_uniform"  # of its outputs, as of its hidden layers


def loss_of(config: Config, encoder: TargetEncoder) -> Loss:
    """Return the loss for a target; `ConfigError` if the config names one for another task."""
    chosen = config.training.loss
    if chosen == "auto":
        return loss_for_task(encoder.task)
    loss = loss_from(chosen)
    if loss.task(encoder.outputs) != encoder.task:
        fitting = loss_for_task(encoder.task).name
        raise ConfigError(
            f"loss {loss.name!r} does not fit a {encoder.task} target; use {fitting!r}, or set data.task"
        )
    if loss.link == "exp" and encoder.warp is not None:
        raise ConfigError(
            f"loss {loss.name!r} learns the logarithm of the target's mean: leave out data.target_transform"
        )
    return loss


def layers_of(config: Config, outputs: int, link: Link) -> list[Layer]:
    """Return the dense layers, with dropout between them, down to `outputs` outputs, or an ensemble of them.

    `link` is that of the loss.
    """
    model, members = config.model, config.model.ensemble
    shares = members > 1 and model.ensemble_kind == "tabm"
    initializer = None if model.initializer == "auto" else model.initializer
    rates = model.dropout if isinstance(model.dropout, list) else [model.dropout] * len(model.hidden)
    embeddings: dict[str, list[Layer]] = {
        "piecewise": [PiecewiseLinear(model.bins)],
        "periodic": [Periodic()],
    }
    numbers = embeddings.get(model.numbers, [])
    hidden: list[Layer] = []
    for units, rate in zip(model.hidden, rates, strict=True):
        given = (units, model.activation, initializer)
        hidden.append(BatchEnsemble(*given, members=members) if shares else Dense(*given))
        if rate > 0:
            hidden.append(Dropout(rate))
    output = "identity" if model.output == "auto" else model.output
    last = Dense(outputs, output, _TABM_INITIALIZER if shares else None)
    if members == 1:
        return [*numbers, *hidden, last]
    ensemble = partial(Ensemble, members=members, link=link)
    return [*numbers, *hidden, ensemble(last)] if shares else [ensemble(numbers, hidden, last)]


def with_table_defaults(
    config: Config, rows: int, columns: int, encoder: TargetEncoder, held_out: bool, notes: list[str]
) -> Config:
    """Return the config of a training on a table: keys that are not set get the defaults for tables."""
    changed: list[str] = []
    found = table_defaults(rows, columns, encoder.task, encoder.outputs, config.training.preset, held_out)
    training, given = found["training"], config.training.given
    if "optimizer" in given:  # its rate and its decay are its own
        training = {
            key: value for key, value in training.items() if key not in ("learning_rate", "weight_decay")
        }
    elif "learning_rate" in given and "weight_decay" in training:  # a step decays by their product
        decay = training["weight_decay"] * training["learning_rate"] / config.training.base_rate
        training["weight_decay"] = float(f"{min(decay, MOST_DECAY):.2g}")
    if config.model.pretrained is not None and "learning_rate" in training:
        training["learning_rate"] *= _FINE_TUNING
    found = {"model": _of_network(config, found["model"]), "training": training}
    for name, values in found.items():
        section = getattr(config, name)
        free = {key: value for key, value in values.items() if key not in section.given}
        config = replace(config, **{name: section.changed(**free)})
        changed += [f"{key} = {value}" for key, value in free.items()]
    if changed:
        notes.append(f"for a table of {rows:,} training rows, unless set otherwise: {', '.join(changed)}")
    return config


def _of_network(config: Config, found: dict[str, Any]) -> dict[str, Any]:
    """Return those of a table's defaults for [model] that suit the config."""
    unwanted: tuple[str, ...] = ()
    if config.model.pretrained is not None:
        unwanted = tuple(found)
    elif not config.model.hidden:  # a linear model was asked for
        unwanted = ("numbers", "bins", "ensemble")
    elif "hidden" in config.model.given:  # these are the widths of one network
        unwanted = ("ensemble",)
    elif config.model.ensemble == 1 and "ensemble" in config.model.given:
        unwanted = ("hidden",)
    return {key: value for key, value in found.items() if key not in unwanted}


def with_fine_tuning_rate(config: Config, notes: list[str]) -> Config:
    """Return the config of a training on no table that may start from a model, which takes a lower rate."""
    if config.model.pretrained is None or not config.training.given.isdisjoint(
        ("learning_rate", "optimizer")
    ):
        return config
    rate = config.training.base_rate * _FINE_TUNING
    notes.append(f"to start from a trained model, unless set otherwise: learning_rate = {rate:g}")
    return replace(config, training=config.training.changed(learning_rate=rate))


def trainer_of(config: Config, network: Network, loss: Loss, encoder: TargetEncoder) -> Trainer:
    """Return the trainer; `encoder` knows the classes that class weights are for."""
    training, run = config.training, config.run
    optimizer = optimizer_from(
        training.optimizer,
        learning_rate=training.base_rate if "learning_rate" in training.given else None,
        weight_decay=training.weight_decay if "weight_decay" in training.given else None,
    )
    return Trainer(
        network,
        loss,
        optimizer,
        device=run.device,
        precision=run.precision,
        seed=run.seed,
        schedule=training.schedule_with_warmup(),
        class_weight=_class_weight(training.class_weight, encoder),
        early_stopping=training.early_stopping or None,
        metrics=training.metrics or None,
        groups=training.parameter_groups,
        **{name: getattr(training, name) for name in _AS_THEY_ARE},
        augment=config.data.augment,
        data_placement=run.data_placement,
    )


def _class_weight(value: str | dict[str, float] | None, encoder: TargetEncoder) -> Any:
    """Return class weights by class index in place of labels."""
    if not isinstance(value, dict):
        return value
    labels = [] if encoder.classes is None else [str(label) for label in encoder.classes.tolist()]
    for label in value:
        if label not in labels:
            raise unknown_name("class", label, labels, "in training.class_weight")
    return {labels.index(label): weight for label, weight in value.items()}


def resolved(config: Config, trainer: Trainer, model: Model, held_out: bool, folder: Path) -> Config:
    """Return the config with all defaults filled in that depend on the data, as a run's folder keeps it.

    `trainer` and `model` were made from `config`; `held_out` tells whether rows are held out for validation.
    """
    rates = config.training.learning_rate
    training = config.training.changed(
        learning_rate=rates if isinstance(rates, dict) else trainer.optimizer.learning_rate,
        weight_decay=trainer.optimizer.weight_decay,
        loss=trainer.loss.to_json(),
    )
    given = config.data
    sources = {"train": given.train or "digits", "validation": given.validation, "test": given.test}
    found = {key: _found_anywhere(value) for key, value in sources.items() if isinstance(value, str)}
    texts = [column.column for column in model.preprocessor.text_columns]
    lengths = {column.char_ngrams for column in model.preprocessor.text_columns}
    text = config.text
    if len(lengths) == 1:
        text = text.changed(char_ngrams=list(lengths.pop() or ()))
    filled: dict[str, Any] = {**found, "task": model.task, "text": texts or given.text}
    pictures = model.preprocessor.pictures
    if pictures is not None:
        filled["image_size"] = [pictures.height, pictures.width]
    data = given.changed(**(filled if held_out else {**filled, "validation": 0.0}))
    run = config.run.changed(out=str(folder.absolute()))
    network = config.model
    if network.pretrained is not None:
        network = network.changed(pretrained=str(model_file(Path(network.pretrained)).absolute()))
    return replace(config, training=training, data=data, text=text, model=network, run=run)


def _found_anywhere(source: str) -> str:
    """Return a source so that a config in another folder finds it: an absolute path, or a built-in's name."""
    path = Path(source).expanduser()
    built_in = source in BUILT_INS and not path.is_file() and not (path.is_dir() and image_pairs(path))
    return source if built_in else str(path.absolute())
