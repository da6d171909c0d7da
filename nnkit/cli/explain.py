"""`nnkit explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nnkit.cli.loading import load_model, load_rows
from nnkit.cli.options import AsJson, Data, ModelPath, OnBad, option
from nnkit.cli.printing import made_table, plain, print_object, print_table, to_terminal
from nnkit.working import working

if TYPE_CHECKING:
    from nnkit.data.examples import Dataset, Examples
    from nnkit.insight.explanation import Explanation
    from nnkit.insight.importance import Importance
    from nnkit.insight.words import ExplainedText
    from nnkit.model import Model

_MOST_SHOWN, _WORDS_SHOWN = 30, 15
# The default maximum number of rows, drawn by the seed. lime fits 5,000 perturbed rows for each.
_MOST_ROWS = {"permutation": 5000, "gradients": 200, "shap": 50, "lime": 20}
_MOST_BACKGROUND = 1000
# With more columns, only the most important are shuffled, as the gradients of a few rows find them.
_MOST_SHUFFLED, _ROWS_OF_CHOICE = 100, 20
# Words with a smaller share of the greatest contribution stay without a colour.
_LEAST_TINT = 0.05
_UP, _DOWN = (0x2E, 0xA0, 0x43), (0xD7, 0x3A, 0x31)


ExplainMethod = StrEnum("ExplainMethod", ["permutation", "gradients", "shap", "lime"])
BaselineName = StrEnum("BaselineName", ["mean", "zero"])


@dataclass(frozen=True)
class _Question:
    """The options of one call."""

    method: str
    row: int | None
    label: str | None
    metric: str | None
    repeats: int
    rows: int | None
    baseline: Any
    seed: int
    out: Path | None

    @property
    def most_rows(self) -> int:
        return _MOST_ROWS[self.method] if self.rows is None else self.rows

    def check(self) -> None:
        """Raise `ConfigError` if a number is out of its range or two options exclude each other."""
        from nnkit.checks import Whole
        from nnkit.errors import ConfigError

        if self.method == "permutation":
            given = {"row": self.row, "label": self.label, "out": self.out}
            why = "permutation importance is of all rows"
        else:
            given, why = {"metric": self.metric}, f"{self.method} explains outputs, not a metric"
        for name, value in given.items():
            if value is not None:
                raise ConfigError(f"{why}: leave out `{name}`, or choose another `method`")
        if self.out is not None and self.row is None:
            raise ConfigError(f"`out` {self.out} is a picture of one row: say which with `row`")
        Whole(0, 2**32 - 1)("seed", self.seed)
        if self.rows is not None:
            Whole(1)("rows", self.rows)


_what = partial(option, panel="What is explained")
_how = partial(option, panel="How")


def explain(
    # Most of the lines are declarations of options.
    model: ModelPath,
    data: Data,
    row: Annotated[int | None, _what("Explain this row, counting from 0.")] = None,
    label: Annotated[
        str | None,
        _what(
            "Explain this class, or this one of several target columns.",
            "--class",
            metavar="NAME",
            default="each row's most probable class",
        ),
    ] = None,
    rows: Annotated[
        int | None,
        _what(
            "Explain at most this many rows, drawn by the seed.", default="5000, 200, 50 or 20, by the method"
        ),
    ] = None,
    method: Annotated[
        ExplainMethod | None,
        _how("How contributions are found.", default="gradients for a row, else permutation"),
    ] = None,
    metric: Annotated[
        str | None, _how("Permutation: the metric whose worsening is measured.", default="accuracy or r2")
    ] = None,
    repeats: Annotated[int, _how("Permutation: how often each column is shuffled.")] = 5,
    baseline: Annotated[
        BaselineName, _how("Gradients: the row that contributions are relative to.")
    ] = BaselineName.mean,
    seed: Annotated[int, _how("The seed of permutations and of the rows drawn.")] = 0,
    out: Annotated[
        Path | None,
        option("Draw the row's contributions as a waterfall: a .png, .svg or .pdf file.", panel="Output"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell which columns a model's answers come from.

    Without --row it measures how much worse a metric over many rows gets when a column is shuffled. With
    --row it tells what each column, and each word of a text, contributes to the answer for that row.
    """
    chosen = method.value if method is not None else "permutation" if row is None else "gradients"
    asked = _Question(chosen, row, label, metric, repeats, rows, baseline.value, seed, out)
    asked.check()
    loaded = load_model(model)
    dataset = load_rows(loaded, data, OnBad.error, require_target=chosen == "permutation")
    examples = dataset.train if dataset.test is None else dataset.test
    if chosen == "permutation":
        importance = _importance(loaded, dataset, examples, asked)
        print_object(importance.to_json()) if as_json else _print_importance(importance)
        return
    explanation = _explanation(loaded, dataset, examples, asked)
    if row is None:
        print_object(explanation.to_json()) if as_json else _print_sizes(explanation)
        return
    values = _values(examples, row)
    if out is not None:
        from nnkit.insight.waterfall import write_waterfall

        title = f"row {row} of {dataset.name}: what contributes ({explanation.method})"
        write_waterfall(explanation, 0, out, title, values)
    if as_json:
        print_object({"row": row, **explanation.row_json(0)})
        return
    _print_row(explanation, row, values)
    if out is not None:
        typer.echo(f"picture  {out}")


def _importance(model: Model, dataset: Dataset, examples: Examples, asked: _Question) -> Importance:
    from nnkit.errors import DataError
    from nnkit.insight.evaluated_model import drawn_examples
    from nnkit.insight.importance import permutation_importance

    if examples.target is None:
        raise DataError(
            f"{dataset.name}: permutation importance compares with the target, and there is no target column "
            f"{', '.join(model.target.names)}; choose `method` gradients"
        )
    taken = drawn_examples(examples, asked.most_rows, asked.seed)
    assert taken.target is not None
    columns = _most_moving(model, taken.features, asked)
    with working("shuffling columns"):
        return permutation_importance(
            model,
            taken.features,
            taken.target,
            asked.metric,
            repeats=asked.repeats,
            seed=asked.seed,
            columns=columns,
        )


def _most_moving(model: Model, features: Any, asked: _Question) -> list[str] | None:
    """Return the columns that change the outputs most, by their gradients; None for all columns."""
    from nnkit.data.examples import Examples
    from nnkit.insight.attributions import integrated_gradients
    from nnkit.insight.columns import model_columns
    from nnkit.insight.evaluated_model import drawn_examples

    count = len(model_columns(model))
    if count <= _MOST_SHUFFLED or model.preprocessor.pictures is not None:
        return None
    with working("choosing columns"):
        rows = drawn_examples(Examples(features), _ROWS_OF_CHOICE, asked.seed).features
        found = integrated_gradients(model, rows, background=features)
        sizes = found.to_json()["columns"]
    typer.echo(
        f"of {count:,} columns the {_MOST_SHUFFLED} that gradients find the most important are shuffled; "
        "--method gradients has all",
        err=True,
    )
    return [column["column"] for column in sizes[:_MOST_SHUFFLED]]


def _explanation(model: Model, dataset: Dataset, examples: Examples, asked: _Question) -> Explanation:
    import numpy as np

    from nnkit.data.pictures.columns import Pictures
    from nnkit.errors import DataError
    from nnkit.insight.evaluated_model import drawn_examples

    background = drawn_examples(examples, _MOST_BACKGROUND, asked.seed).features
    if asked.row is None:
        rows = drawn_examples(examples, asked.most_rows, asked.seed).features
    else:
        if not 0 <= asked.row < len(examples):
            last = len(examples) - 1
            raise DataError(f"there is no row {asked.row}: {dataset.name} has rows 0 to {last:,}")
        rows = examples.take(np.array([asked.row])).features
    given: dict[str, Any] = {"background": background, "label": asked.label}
    with working(f"explaining by {asked.method}"):
        if asked.method == "gradients":
            from nnkit.insight.attributions import integrated_gradients

            return integrated_gradients(model, rows, baseline=asked.baseline, **given)
        from nnkit.insight.perturbations import lime_values, shap_values

        if isinstance(rows, Pictures):
            raise DataError(
                f"{asked.method} is not for the thousands of pixels of a picture: choose `method` gradients"
            )
        values_of = shap_values if asked.method == "shap" else lime_values
        return values_of(model, rows, seed=asked.seed, **given)


def _values(examples: Examples, row: int) -> dict[str, str]:
    """Return a row's values as the user wrote them."""
    import numpy as np

    from nnkit.data.pictures.columns import Pictures

    features: Any = examples.features
    if isinstance(features, Pictures):
        return {}
    if isinstance(features, np.ndarray):
        return {str(place): f"{value:g}" for place, value in enumerate(features[row].tolist())}
    return {name: _shown(features[name][row].as_py()) for name in features.column_names}


def _shown(value: Any) -> str:
    if value is None:
        return "(missing)"
    words = f"{value:g}" if isinstance(value, float) else str(value)
    return words if len(words) <= 40 else words[:39] + "…"


def _print_importance(importance: Importance) -> None:
    import numpy as np

    name = importance.metric.replace("_", " ")
    title = f"permutation importance on {importance.rows:,} rows: by how much {name}, "
    title += f"{importance.baseline:,.4f}, gets worse"
    rows = [
        (importance.columns[place], f"{importance.mean[place]:,.4f}", f"{importance.deviation[place]:,.4f}")
        for place in np.argsort(-importance.mean, kind="stable")
    ]
    _print_ranked(title, ("column", "importance", "± deviation"), rows)


def _print_sizes(explanation: Explanation) -> None:
    from nnkit.insight.explanation import number_words

    what = explanation.to_json()
    title = f"{explanation.method} on {what['rows']:,} rows: contributions to {what['output']}"
    rows = [
        (column["column"], number_words(column["mean_size"]), number_words(column["mean"]))
        for column in what["columns"]
    ]
    _print_ranked(title, ("column", "mean size", "mean"), rows)


def _print_row(explanation: Explanation, row: int, values: dict[str, str]) -> None:
    from nnkit.insight.explanation import number_words

    output, base = number_words(explanation.outputs[0]), number_words(explanation.base[0])
    title = f"row {row}, counting from 0, by {explanation.method}: "
    title += f"{explanation.names[0]} {output}, at the baseline {base}"
    ranked, gap = explanation.ranked(0), float(explanation.gap[0])
    rows = [(name, values.get(name, ""), number_words(value, sign=True)) for name, value in ranked]
    is_exact = abs(gap) <= 0.01 * sum(abs(value) for _, value in ranked)
    last = () if is_exact else ("(unexplained)", "", number_words(gap, sign=True))
    _print_ranked(title, ("column", "value", "contribution"), rows, last=last)
    for column, text in (explanation.texts[0] if explanation.texts else {}).items():
        _print_words(column, text)


def _print_words(column: str, text: ExplainedText) -> None:
    """Print the words that contribute the most; on a terminal also the text in colours."""
    from nnkit.insight.explanation import number_words

    if to_terminal():
        from rich.console import Console

        Console(highlight=False).print(tinted(text), soft_wrap=True)
    rows = [(word, number_words(value, sign=True)) for word, value in text.by_word()]
    _print_ranked(f"the words of {column!r}", ("word", "contribution"), rows, _WORDS_SHOWN)


def tinted(text: ExplainedText) -> Any:
    """Return a text for Rich: words that raise the output on green, words that lower it on red."""
    from rich.text import Text

    found = Text(text.text)
    greatest = max((abs(word.contribution) for word in text.words), default=0.0)
    for word in text.words:
        share = abs(word.contribution) / greatest if greatest else 0.0
        if share >= _LEAST_TINT:
            full = _UP if word.contribution > 0 else _DOWN
            red, green, blue = (round(255 + (level - 255) * share) for level in full)
            style = f"#000000 on #{red:02x}{green:02x}{blue:02x}"
            found.stylize(style, word.start, word.start + len(word.text))
    return found


def _print_ranked(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    most: int = _MOST_SHOWN,
    last: Sequence[str] = (),
) -> None:
    """Print a table of the first `most` rows and a last one, and how many rows are left out."""
    table = made_table(title, *heads)
    for row in [*rows[:most], *([last] if last else [])]:
        table.add_row(*map(plain, row))
    print_table(table)
    if len(rows) > most:
        typer.echo(f"and {len(rows) - most:,} more {heads[0]}s; --json has all")
