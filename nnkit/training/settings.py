"""The settings of a training: each declared once, with its check, default and help.

`Trainer` takes them as keywords and keeps the record; a config's ``[training]`` section, ``nnkit train``,
the check of a resumed training and docs/reference/settings.md are derived from it. Printing help imports this
module, so the modules of losses and optimizers are imported only when one is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from nnkit.checks import By, Check, Choice, Flag, Number, Refused, Settings, Whole, setting, settings_of
from nnkit.errors import unknown_name

if TYPE_CHECKING:
    from nnkit.engine.step import Scheduled
    from nnkit.feed.augmentation import Augmentation
    from nnkit.nn.losses import Loss
    from nnkit.nn.optimizers import Optimizer
    from nnkit.nn.schedules import Schedule

__all__ = ["DataPlacement", "Precision", "TrainingSettings"]

Precision = Literal["fp32", "fp64", "tf32", "fp16", "bf16"]
DataPlacement = Literal["auto", "device", "pinned", "mmap"]
MOST_EPOCHS = 2**53  # a count that a float holds exactly


def _loss(value: Any) -> Loss:
    from nnkit.nn.losses import loss_from

    return loss_from(value)


def _optimizer(value: Any) -> Optimizer:
    from nnkit.nn.optimizers import optimizer_from

    return optimizer_from(value)


def _schedule(value: Any) -> Schedule:
    from nnkit.nn.schedules import schedule_from

    return schedule_from(value)


_FALLING = "a schedule other than reduce_on_plateau whose factors do not rise above 1"


def _falling(value: Any) -> Schedule:
    """Return a schedule whose factors never exceed 1: a rate of dropout has to stay below 1."""
    from nnkit.nn.schedules import ReduceOnPlateau

    made = _schedule(value)
    if isinstance(made, ReduceOnPlateau) or any(getattr(made, name, 0) > 1 for name in ("factor", "rate")):
        raise Refused("", value)
    return made


def _augmentation(value: Any) -> Augmentation | None:
    from nnkit.feed.augmentation import augmentation_from

    return augmentation_from(value)


_BY_CLASS = "'balanced' or a mapping from classes to weights"


def _class_weight(value: Any) -> str | Mapping[int, float]:
    if value != "balanced" and not isinstance(value, Mapping):
        raise Refused("", value)
    return value


_GROUP: Mapping[str, Check] = {"rate": Number(above=0), "decays": Flag(), "trains": Flag()}
_BY_NAME = "a mapping from names such as 'layers.0' to mappings of rate, decays and trains"


def _groups(value: Any) -> dict[str, dict[str, Any]] | None:
    if not isinstance(value, Mapping):
        raise Refused("", value)
    return {str(name): dict(_group(name, group)) for name, group in value.items()} or None


def _group(name: Any, group: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(group, Mapping):
        raise Refused("a mapping of rate, decays and trains", group, f".{name}")
    for key, value in group.items():
        if key not in _GROUP:
            raise unknown_name("key", key, _GROUP, f"of the group {name!r}")
        yield key, _GROUP[key](f"groups.{name}.{key}", value)


def _metrics(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise Refused("", value)
    return tuple(value)


def _metric(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("", value)
    return value


def _order(value: Any) -> bool | Callable:
    return value if callable(value) else Flag().plain(value)


def _device(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("", value)
    return value


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """The settings of a training; `Trainer` and `Trainer.fit` describe each in full."""

    loss: Loss = setting(MISSING, By(_loss, "a name, a mapping with one, or a Loss"), "What is minimized.")
    optimizer: Optimizer = setting(
        "adam", By(_optimizer, "a name, a mapping with one, or an Optimizer"), "How weights are updated."
    )
    schedule: Schedule = setting(
        "constant",
        By(_schedule, "a name, a mapping with one, or a Schedule"),
        "How the learning rate changes.",
    )
    dropout_schedule: Schedule = setting(
        "constant",
        By(_falling, _FALLING),
        "How the rates of dropout change; flat_cos ends without dropout.",
    )
    weight_decay_schedule: Schedule = setting(
        "constant",
        By(_falling, _FALLING),
        "How the weight decay changes, apart from being multiplied by the learning rate.",
    )
    l1: float = setting(0.0, Number(0), "The factor of the penalty on the weights' absolute values.")
    l2: float = setting(0.0, Number(0), "The factor of the penalty on half of the weights' squares.")
    penalty_on: Literal["mean", "sum"] = setting(
        "mean", Choice(("mean", "sum")), "Whether penalties are added to a batch's mean loss or to its sum."
    )
    average: Literal["weights", "rows"] = setting(
        "weights",
        Choice(("weights", "rows")),
        "Whether the epoch's mean loss weighs a batch by its sample weights or by its number of rows.",
    )
    clip_norm: float | None = setting(
        None, Number(above=0), "The maximum norm of the gradient; by default it is not clipped.", example=1.0
    )
    groups: Mapping[str, Mapping[str, Any]] | None = setting(
        None,
        By(_groups, _BY_NAME),
        "Settings for some parameters: rate, a factor of the learning rate; decays; trains.",
        example={"layers.0": {"rate": 0.1}},
    )
    class_weight: str | Mapping[int, float] | None = setting(
        None,
        By(_class_weight, _BY_CLASS),
        'The weight of each class: "balanced", or a mapping of classes to weights.',
        example="balanced",
    )
    early_stopping: int | None = setting(
        None,
        Whole(1, MOST_EPOCHS),
        "The number of epochs without improvement after which to stop.",
        example=5,
    )
    cooldown: float = setting(
        0.0,
        Number(0, 1),
        "After early stopping: how long training goes on from the best weights while the learning rate falls "
        "to 0, as a share of the epochs that led to them.",
    )
    monitor: str | None = setting(
        None,
        By(_metric, "the name of a metric"),
        "The metric on the validation rows that tells which epoch is best; by default the validation loss.",
        example="accuracy",
    )
    restore_best: bool | None = setting(
        None, Flag(), "Whether to end with the parameters of the best epoch instead of the last."
    )
    metrics: tuple[str, ...] | None = setting(
        None,
        By(_metrics, "a list of names, such as ['accuracy']"),
        "The metrics to evaluate; by default those of the task.",
    )
    augment: Augmentation | None = setting(
        None,
        By(_augmentation, "a mapping of shift, flip and erase, or an Augmentation"),
        "How training pictures are varied, by shift, flip and erase.",
        example={"shift": 0.1, "flip": True, "erase": 0.2},
    )
    seed: int = setting(0, Whole(0, 2**64 - 1), "The seed of the weights, the order of the rows and dropout.")
    precision: str = setting("fp32", Choice(get_args(Precision)), "The precision to compute in.")
    batch_size: int = setting(128, Whole(1, 2**24), "The number of rows in each step.")
    shuffle: bool | Callable = setting(
        True,
        By(_order, "true, false or a function of the epoch"),
        "Whether the rows are shuffled in each epoch.",
    )
    epochs: int = setting(
        20, Whole(1, MOST_EPOCHS), "The number of passes over the training rows.", must_match=False
    )
    schedule_epochs: int | None = setting(
        None,
        Whole(1, MOST_EPOCHS),
        "The length of the schedule in epochs; by default that of the training.",
        must_match=False,
    )
    device: str = setting(
        "auto",
        By(_device, "a device's name, such as auto, cpu or cuda:1"),
        "Where to train: auto, cpu, cuda, or one GPU such as cuda:1.",
        must_match=False,
    )
    data_placement: str = setting(
        "auto",
        Choice(get_args(DataPlacement)),
        "Where the training rows are kept: on the device, in the host's memory, or mapped from a file.",
        must_match=False,
    )

    @property
    def scheduled(self) -> dict[Scheduled, Schedule]:
        """What changes beside the learning rate, and how."""
        from nnkit.nn.schedules import Constant

        given: dict[Scheduled, Schedule] = {
            "dropout": self.dropout_schedule,
            "weight_decay": self.weight_decay_schedule,
        }
        return {name: schedule for name, schedule in given.items() if schedule != Constant()}

    def to_json(self) -> dict[str, Any]:
        """Return the settings that a resumed training must match, as a JSON object."""
        known = settings_of(type(self)).items()
        return {name: _json(getattr(self, name)) for name, item in known if item.must_match}


def _json(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        # Weights of classes may be NumPy's numbers, which JSON does not take.
        other = {key: isinstance(one, Mapping | bool) for key, one in value.items()}
        return {str(key): _json(one) if other[key] else float(one) for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
