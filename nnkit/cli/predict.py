"""`nnkit predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnkit.cli.loading import decision_threshold, load_model, load_rows
from nnkit.cli.options import ModelPath, OnBad, OnBadPicture, Quiet, Threshold


def predict(
    model: ModelPath,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA...",
            help="A data file or folder, or a built-in's name; pictures, one or several.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option("--text", help="A text in place of DATA; may come several times.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .parquet or .npy file; else printed as CSV.")
    ] = None,
    proba: Annotated[bool, typer.Option(help="Probabilities of the classes instead of labels.")] = False,
    threshold: Threshold = None,
    on_bad: OnBadPicture = OnBad.error,
    quiet: Quiet = False,
) -> None:
    """Predict labels or values, one row each; of a --text the label and its probability."""
    from nnkit.data.pictures import Pictures
    from nnkit.data.predictions import prediction_lines, write_predictions
    from nnkit.errors import ConfigError

    if bool(data) == bool(texts):
        raise ConfigError("give either DATA, a file or a folder, or texts with --text")
    loaded = load_model(model, quiet)
    decision = decision_threshold(loaded, threshold)
    if proba and threshold is not None:
        raise ConfigError("--proba gives probabilities, which no --threshold changes: leave one of them out")
    if not data:
        features = loaded.preprocessor.table_of_texts(texts or [])
    else:
        dataset = load_rows(loaded, data[0] if len(data) == 1 else data, on_bad, False, quiet)
        features = (dataset.train if dataset.test is None else dataset.test).features
    values = loaded.predict_proba(features) if proba else loaded.predict(features, decision)
    if not data and out is None and not proba:
        probabilities = None if loaded.task == "regression" else loaded.predict_proba(features)
        typer.echo("\n".join(prediction_lines(values, probabilities, loaded.target)))
        return
    paths = features.names if isinstance(features, Pictures) else None
    count = write_predictions(values, loaded.target, proba, out, paths)
    if out is not None and not quiet:
        typer.echo(f"{count:,} predictions written to {out}")
