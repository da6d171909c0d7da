"""What commands print: a training, a model, metrics, findings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from nnkit.terminal import number

if TYPE_CHECKING:
    from nnkit.model import Model
    from nnkit.training.diagnostics import Finding
    from nnkit.training.run import Run


def print_run(run: Run) -> None:
    from nnkit.data.pictures import Pictures

    model, trainer = run.model, run.trainer
    kind = model.task if model.classes is None else f"{model.task}, {len(model.classes)} classes"
    if model.task == "multilabel":
        kind = f"multilabel, {model.target.outputs} labels"
    held_out = f", {run.held_out_rows:,} held out" if run.held_out_rows else ""
    test = "" if run.dataset.test is None else f", {len(run.dataset.test):,} to test on"
    features = run.dataset.train.features
    rows, made = "rows", ""
    if isinstance(features, Pictures):
        rows, made = "pictures", f"; {features.settings}; {features.origin}"
    counts = f"{run.training_rows:,} {rows} to train on{held_out}{test}"
    typer.echo(f"data     {run.dataset.name}: {counts} ({kind}{made})")
    typer.echo(f"network  {_network_words(model)}")
    typer.echo(
        f"training {trainer.loss.name}, {trainer.optimizer.name} at {trainer.optimizer.learning_rate:g}, "
        f"batches of {run.config.training.batch_size}, {trainer.precision}"
    )


def _network_words(model: Model, inputs: bool = True) -> str:
    """Return the inputs, what is embedded beside them, and the layers after them."""
    layers = model.network.layers
    first = [str(model.preprocessor.width)] if inputs and model.preprocessor.width else []
    first += [_layer_words(layer) for layer in layers if hasattr(layer, "size")]
    after = [_layer_words(layer) for layer in layers if not hasattr(layer, "size")]
    return " → ".join([*([" + ".join(first)] if first else []), *after])


def _layer_words(layer: Any) -> str:
    if hasattr(layer, "size"):
        return f"{layer.reduce} of {layer.size:,} × {layer.width}"
    if hasattr(layer, "units"):
        return f"{layer.units}" if layer.activation == "identity" else f"{layer.units} {layer.activation}"
    return f"dropout {layer.rate:g}" if hasattr(layer, "rate") else str(layer.name)


def print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(("! " if finding.severity == "serious" else "  ") + str(finding))


def print_metrics(metrics: dict[str, float], what: str, undefined: Mapping[str, str]) -> None:
    """Print metrics as a table, and below it why those have no meaning that have none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"on {what}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name.replace("_", " "), number(value).strip() if math.isfinite(value) else "undefined")
    Console(soft_wrap=True).print(table)
    for reason in dict.fromkeys(undefined.values()):
        names = ", ".join(name.replace("_", " ") for name, why in undefined.items() if why == reason)
        typer.echo(f"{names}: {reason}")


def decision_json(model: Model, decision: float) -> dict[str, Any]:
    """Return which class a binary model's figures are of, and the threshold that was best in validation."""
    if model.task != "binary":
        return {}
    found = {"positive": model.target.positive, "threshold": decision}
    best = model.details.get("best_threshold") or {}
    return {**found, "best_threshold": best} if {"threshold", "f1"} <= best.keys() else found


def print_decision(model: Model, decision: float) -> None:
    decided = decision_json(model, decision)
    if decided:
        typer.echo(f"f1, precision and recall are of {decided['positive']!r}, said above {decision:g}")
    if "best_threshold" in decided:
        threshold, f1 = (decided["best_threshold"][name] for name in ("threshold", "f1"))
        typer.echo(f"on the validation rows f1 was greatest, {f1:.4f}, with --threshold {threshold:.4g}")


def print_pairs(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")


def print_json(value: dict[str, Any]) -> None:
    import json

    metrics = {name: number if math.isfinite(number) else None for name, number in value["metrics"].items()}
    typer.echo(json.dumps({**value, "metrics": metrics}))


def summary(model: Model) -> dict[str, str]:
    parameters = sum(values.size for values in model.network.parameters().values())
    names = model.preprocessor.input_names
    classes = [] if model.classes is None else [str(label) for label in model.classes.tolist()]
    rows = {
        "task": model.task,
        "target": ", ".join(model.target.names) or "(not named)",
        "classes": ", ".join(classes[:20]) + (" ..." if len(classes) > 20 else ""),
        "positive class": "" if model.target.positive is None else str(model.target.positive),
        "best threshold": _threshold_words(model),
        "pictures": "" if model.preprocessor.pictures is None else _picture_words(model),
        "columns": "" if names is None else ", ".join(names),
        "text": "; ".join(map(str, model.preprocessor.text_columns)),
        "inputs": str(model.network.inputs),
        "layers": _network_words(model, inputs=False),
        "parameters": f"{parameters:,} {model.network.arena.dtype.name}",
        "loss": model.loss.name,
    }
    details = {key: value for key, value in model.details.items() if value not in (None, "", {}, [])}
    details.pop("best_threshold", None)
    for rows_name, metrics in details.pop("metrics", {}).items():
        rows[f"{rows_name} metrics"] = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in metrics.items())
    rows |= {key.replace("_", " "): str(value) for key, value in details.items()}
    return {name: value for name, value in rows.items() if value}


def _threshold_words(model: Model) -> str:
    best = decision_json(model, 0.5).get("best_threshold")
    return f"{best['threshold']:.4g}, with f1 {best['f1']:.4g} on the validation rows" if best else ""


def _picture_words(model: Model) -> str:
    operation = model.preprocessor.operations[0]
    scaled = ("shift", "scale")
    shift, scale = (", ".join(f"{value:.4g}" for value in getattr(operation, name)) for name in scaled)
    return f"{model.preprocessor.pictures}; (value − {shift}) · {scale}"
