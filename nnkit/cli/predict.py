"""`nnkit predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnkit.cli.loading import decision_threshold, load_model, load_rows
from nnkit.cli.options import ModelPath, OnBad, OnBadPicture, Quiet, Threshold, option

if TYPE_CHECKING:
    from nnkit.data.examples import Dataset, Examples


def predict(
    # Most of the lines are declarations of options.
    model: ModelPath,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA...",
            help="A data file or folder, the name of a built-in, - for standard input, several pictures, or "
            "the parts of one table.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        option("Predict this text in place of DATA; may be repeated.", "--text", metavar="TEXT"),
    ] = None,
    out: Annotated[
        Path | None, option("The file to write: .csv, .parquet or .npy.", default="CSV is printed")
    ] = None,
    proba: Annotated[
        bool, option("Write the probability of each class instead of a label.", "--proba")
    ] = False,
    keep: Annotated[
        list[str] | None,
        option(
            "Write this column of the data, such as an id, beside each prediction; may be repeated.",
            metavar="COLUMN",
        ),
    ] = None,
    threshold: Threshold = None,
    on_bad: OnBadPicture = OnBad.error,
    quiet: Quiet = False,
) -> None:
    """Predict a label or a value for each row.

    For --text it prints the label and its probability.
    """
    from nnkit.data.predictions import check_predictions_file, prediction_lines, write_predictions
    from nnkit.errors import ConfigError

    if out is not None:
        check_predictions_file(out)
    if bool(data) == bool(texts):
        raise ConfigError("give either DATA, a file or a folder, or texts with --text")
    loaded = load_model(model, quiet)
    decision = decision_threshold(loaded, threshold)
    if proba and threshold is not None:
        raise ConfigError("--proba gives probabilities, which no --threshold changes: leave one of them out")
    kept: dict[str, Any] = {}
    if not data:
        if keep:
            raise ConfigError("texts given with --text have no columns: leave out --keep")
        features = loaded.preprocessor.table_of_texts(texts or [])
    else:
        dataset = load_rows(loaded, data[0] if len(data) == 1 else data, on_bad, False, quiet)
        # Of a built-in that comes with test rows, such as mnist, these are predicted.
        examples = dataset.train if dataset.test is None else dataset.test
        features = examples.features
        kept = _kept(dataset, examples, keep or [], out)
    values = loaded.predict_proba(features) if proba else loaded.predict(features, decision)
    if not data and out is None and not proba:
        probabilities = None if loaded.task == "regression" else loaded.predict_proba(features)
        typer.echo("\n".join(prediction_lines(values, probabilities, loaded.target)))
        return
    count = write_predictions(values, loaded.target, proba, out, kept)
    if out is not None and not quiet:
        typer.echo(f"{count:,} predictions written to {out}")


def _kept(dataset: Dataset, examples: Examples, names: list[str], out: Path | None) -> dict[str, Any]:
    """Return the columns to write beside the predictions: paths of pictures, else the named columns."""
    from nnkit.data.pictures.columns import Pictures
    from nnkit.errors import ConfigError

    features = examples.features
    if isinstance(features, Pictures):
        if names:
            raise ConfigError("each picture's path is written beside its prediction: leave out --keep")
        if out is not None and out.suffix == ".npy":
            return {}
        import pyarrow as pa

        return {"path": pa.array(features.names, pa.string())}
    if not names:
        return {}
    if not dataset.columns:
        raise ConfigError(f"--keep takes columns of a table, and {dataset.name} has none by name")
    import pyarrow as pa

    from nnkit.data.examples import RawTable
    from nnkit.data.tables.frames import column_name
    from nnkit.data.tables.inference import infer
    from nnkit.data.tables.options import TableOptions

    assert dataset.source is not None
    source = dataset.source.select([column_name(given, dataset.columns) for given in names])
    # Columns of plain numbers are written as numbers, others as they stand.
    plain = infer(RawTable(source), TableOptions(), named=source.column_names, strict=False).read
    return {name: plain.get(name, source[name]) for name in source.column_names}
