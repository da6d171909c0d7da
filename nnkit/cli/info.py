"""`nnkit info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnkit.cli.loading import load_model
from nnkit.cli.options import AsJson
from nnkit.cli.printing import decision_json, network_words, print_object, print_pairs

if TYPE_CHECKING:
    from nnkit.model import Model

_LONGEST_VALUE = 140  # characters, about two lines: a model may have thousands of columns
_SHOWN_CLASSES = 20


def info(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="RUN|MODEL", help="A run folder or a model file; without it, this machine."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show this machine's devices and versions, or a model's summary."""
    if model is None:
        from nnkit.machine import describe_machine

        machine = describe_machine()
        print_object({name.strip(): value for name, value in machine.items()}) if as_json else print_pairs(
            machine
        )
        return
    loaded = load_model(model)
    print_object(_model_json(loaded)) if as_json else print_pairs(_summary(loaded))


def _model_json(model: Model) -> dict[str, Any]:
    """Return all that a summary speaks of, whole."""
    target, names = model.target, model.preprocessor.input_names
    pictures = model.preprocessor.pictures
    return {
        "task": model.task,
        "target": list(target.names),
        "classes": None if model.classes is None else model.classes.tolist(),
        "positive_class": target.positive,
        "pictures": None if pictures is None else str(pictures),
        "columns": None if names is None else list(names),
        "text": [operation.column for operation in model.preprocessor.text_columns],
        "inputs": model.network.inputs,
        "layers": [str(layer) for layer in model.network.layers],
        "parameters": _parameter_count(model),
        "dtype": model.network.arena.dtype.name,
        "loss": model.loss.to_json(),
        "details": model.details,
    }


def _summary(model: Model) -> dict[str, str]:
    """Return names and values, each short enough to be read."""
    names = model.preprocessor.input_names
    classes = [] if model.classes is None else [str(label) for label in model.classes.tolist()]
    rows = {
        "task": model.task,
        "target": ", ".join(model.target.names) or "(not named)",
        "classes": ", ".join(classes[:_SHOWN_CLASSES]) + (" …" if len(classes) > _SHOWN_CLASSES else ""),
        "positive class": "" if model.target.positive is None else str(model.target.positive),
        "best threshold": _threshold_words(model),
        "pictures": "" if model.preprocessor.pictures is None else _picture_words(model),
        "columns": "" if names is None else ", ".join(names),
        "text": "; ".join(map(str, model.preprocessor.text_columns)),
        "inputs": str(model.network.inputs),
        "layers": network_words(model, inputs=False),
        "parameters": f"{_parameter_count(model):,} {model.network.arena.dtype.name}",
        "loss": model.loss.name,
    }
    details = {key: value for key, value in model.details.items() if value not in (None, "", {}, [])}
    details.pop("best_threshold", None)
    for rows_name, metrics in details.pop("metrics", {}).items():
        rows[f"{rows_name} metrics"] = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in metrics.items())
    rows |= {key.replace("_", " "): _words(value) for key, value in details.items()}
    return {name: _cut(value) for name, value in rows.items() if value}


def _parameter_count(model: Model) -> int:
    return sum(values.size for values in model.network.parameters().values())


def _words(value: Any) -> str:
    """Return a detail as words: of an estimator its class, of what else has parts the number of them."""
    if isinstance(value, dict) and isinstance(value.get("class"), str):
        return value["class"]
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cut(words: str) -> str:
    if len(words) <= _LONGEST_VALUE:
        return words
    return f"{words[:_LONGEST_VALUE].rstrip(', ')} … (--json has all)"


def _threshold_words(model: Model) -> str:
    best = decision_json(model, 0.5).get("best_threshold")
    return f"{best['threshold']:.4g}, with f1 {best['f1']:.4g} on the validation rows" if best else ""


def _picture_words(model: Model) -> str:
    operation = model.preprocessor.operations[0]
    scaled = ("shift", "scale")
    shift, scale = (", ".join(f"{value:.4g}" for value in getattr(operation, name)) for name in scaled)
    return f"{model.preprocessor.pictures}; (value − {shift}) · {scale}"
