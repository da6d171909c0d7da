"""Prove an exported graph: it is run by two runtimes on rows of every sort, and compared with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nnkit.data.operations import (
    ArrayColumns,
    CategoryColumn,
    NumberColumn,
    PictureColumns,
    PlainRows,
    TextColumn,
)
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.tables.columns import numbers
from nnkit.data.text.encoding import encode_texts
from nnkit.errors import ConfigError
from nnkit.export.onnx.inputs import MISSING_DATE, category_words, missing_numbers
from nnkit.extras import extra_module
from nnkit.feed.features import Bags, Features
from nnkit.interop.rows import dense_rows
from nnkit.model import Model
from nnkit.nn.network import Network

__all__ = ["Proof", "feeds", "proven", "sample_rows"]

_ROWS = 200
_TOLERANCE, _OF_ROUNDING = 1e-5, 4.0


@dataclass(frozen=True)
class Proof:
    """What was compared.

    Parameters
    ----------
    rows : int
        The number of rows.
    inputs : str
        How the network's inputs compare: ``bit-equal``, or the largest relative difference.
    difference : float
        The largest difference of probabilities, or of values relative to the greatest of them.
    bound : float
        What it may be: 1e-5, or four times the model's own difference between float32 and float64.
    runtimes : tuple of str
        With their versions.
    """

    rows: int
    inputs: str
    difference: float
    bound: float
    runtimes: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.rows} rows in {' and '.join(self.runtimes)}: inputs {self.inputs}, answers within "
            f"{self.difference:.1e} (bound {self.bound:.1e})"
        )


def proven(model: Model, proto: Any, inputs: str, names: list[str], rows: Any = None) -> Proof:
    """Compare a graph with its model.

    Parameters
    ----------
    model : Model
    proto : onnx.ModelProto
    inputs : str
        The graph's value that holds the network's inputs; "" for none.
    names : list of str
        The graph's outputs.
    rows : table, optional
        Rows to compare on beside those that are made up.

    Raises
    ------
    ConfigError
        If the graph is not valid, or differs from the model by more than rounding.
    """
    onnx, runtime = extra_module("onnx"), extra_module("onnxruntime")
    reference = extra_module("onnx.reference")
    onnx.checker.check_model(proto, full_check=True)
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    if inputs:
        watched.graph.output.append(onnx.helper.make_empty_tensor_value_info(inputs))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    evaluator = reference.ReferenceEvaluator(watched)
    wanted = [*names, *([inputs] if inputs else [])]
    found = Proof(
        0, "bit-equal", 0.0, 0.0, (f"onnxruntime {runtime.__version__}", f"onnx {onnx.__version__}")
    )
    made = sample_rows(model, _ROWS)
    for features in [made, _first(made, 1), _first(made, 0), *([] if rows is None else [rows])]:
        given = feeds(model.preprocessor, features)
        for run in (session, evaluator):
            found = _compared(found, model, features, names, run.run(wanted, given))
    return found


def _compared(so_far: Proof, model: Model, features: Any, names: list[str], answers: list[Any]) -> Proof:
    """Compare the answers to one set of rows, and raise where they are too far away."""
    if not len(features):
        if any(len(answer) for answer in answers):
            raise ConfigError("the exported graph gives answers where there are no rows: it is not written")
        return so_far
    encoded = model.preprocessor.transform(features, quiet=True)
    told = so_far.inputs
    if len(answers) > len(names):
        ours = dense_rows(encoded, model.preprocessor.dtype)
        told = _inputs_compared(told, model.preprocessor, ours, np.asarray(answers[-1]))
    outputs, exact = model.encoded_outputs(encoded), _in_float64(model, features)
    if model.task == "regression":
        values, best = model.decoded(outputs), model.decoded(exact)
        scale = max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
        ours, theirs, precise = values / scale, np.asarray(answers[0]) / scale, best / scale
    else:
        ours, precise = model.target.probabilities(outputs), model.target.probabilities(exact)
        theirs = np.asarray(answers[1], np.float64)
        _check_labels(model, outputs, ours, np.asarray(answers[0]))
    difference = float(np.abs(ours - theirs).max())
    bound = max(_TOLERANCE, _OF_ROUNDING * float(np.abs(ours - precise).max()))
    if not difference <= bound:
        raise ConfigError(
            f"the exported graph differs from the model by {difference:.1e}, more than by rounding, "
            f"{bound:.1e}: it is not written"
        )
    worse = max((so_far.difference, so_far.bound), (difference, bound))
    return replace(
        so_far, rows=max(so_far.rows, len(encoded)), inputs=told, difference=worse[0], bound=worse[1]
    )


def _inputs_compared(told: str, preprocessor: Preprocessor, ours: NDArray[Any], theirs: NDArray[Any]) -> str:
    if np.array_equal(ours, theirs):
        return told
    # In double, the root of a sum of squares has another last digit than NumPy's `hypot`.
    apart = np.abs(ours - theirs) / np.maximum(np.abs(ours), 1.0)
    worst = int(np.argmax(apart.max(axis=0)))
    if ours.dtype == np.float64 and apart.max() <= 4e-16:
        return f"within {apart.max():.1e}"
    name, row = preprocessor.output_names[worst], int(np.argmax(apart[:, worst]))
    raise ConfigError(
        f"column {name!r} cannot be exported exactly: in one row the network would read "
        f"{theirs[row, worst]:g} for {ours[row, worst]:g}"
    )


def _check_labels(model: Model, outputs: NDArray, probabilities: NDArray, labels: NDArray) -> None:
    """Raise where a label differs that rounding does not decide."""
    if model.task == "multiclass":
        top = np.sort(probabilities, axis=1)[:, -2:]
        clear = top[:, 1] - top[:, 0] > 1e-4
    else:
        clear = np.abs(probabilities - 0.5) > 1e-4
        clear = clear[:, 0] if model.task == "binary" else clear
    target = replace(model.target, labels=()) if model.target.labels else model.target
    wanted = target.predict(outputs)
    wrong = clear & (wanted.astype(str) != np.asarray(labels).astype(str))
    if wrong.any():
        raise ConfigError("the exported graph gives other labels than the model: it is not written")


def _in_float64(model: Model, features: Any) -> NDArray[np.float64]:
    """Return the model's outputs, computed in float64 from its parameters and inputs in float64."""
    wide = tuple(
        Network.from_json(
            member.to_json(),
            {name: value.astype(np.float64) for name, value in member.parameters().items()},
            np.float64,
        )
        for member in model.members
    )
    preprocessor = replace(model.preprocessor, dtype="float64")
    return replace(model, network=wide[0], others=wide[1:], preprocessor=preprocessor).outputs(features)


def _first(features: Any, count: int) -> Any:
    return features.take(np.arange(count)) if isinstance(features, Features) else features[:count]


# --- rows ---


def sample_rows(model: Model, count: int, seed: int = 0) -> Any:
    """Return made-up rows as a user gives them: like the training's, missing, infinite, unseen and empty."""
    draw, preprocessor = np.random.default_rng(seed), model.preprocessor
    first = preprocessor.operations[0]
    if isinstance(first, PictureColumns):
        settings = first.settings
        return draw.integers(0, 256, (count, settings.height, settings.width, settings.channels), np.uint8)
    if isinstance(first, ArrayColumns):
        if first.pixels:
            return draw.integers(0, 256, (count, first.count), np.uint8)
        scale = np.where(np.asarray(first.scale) == 0, 1.0, first.scale)
        return draw.normal(size=(count, first.count)) / scale + first.shift
    if isinstance(first, PlainRows):
        dense = draw.normal(size=(count, first.count)).astype(preprocessor.dtype)
        return Features(dense, bags=tuple(_random_bags(draw, count, size) for size in first.tables))
    columns = {
        operation.column: _column(draw, preprocessor, operation, count)
        for operation in preprocessor.operations
        if isinstance(operation, NumberColumn | CategoryColumn | TextColumn)
    }
    return pa.table(columns)


def _random_bags(draw: np.random.Generator, count: int, size: int) -> Bags:
    lengths = draw.integers(0, 6, count)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Bags(draw.integers(0, size, starts[-1]).astype(np.int32), starts, size)


def _column(draw: np.random.Generator, preprocessor: Preprocessor, operation: Any, count: int) -> pa.Array:
    schema = preprocessor.schema
    entry = None if schema is None else schema.by_name.get(operation.column)
    given = None if schema is None else schema.options.missing
    if isinstance(operation, NumberColumn):
        values = operation.fill + draw.normal(size=count) / operation.scale
        if operation.kind == "time":
            return _dates(draw, np.round(values), "" if entry is None else entry.pattern)
        odd = [np.nan, np.inf, -np.inf, 0.0, operation.fill, *missing_numbers(entry, given)]
        for place, value in enumerate(odd):
            values[place::29] = value
        return pa.array(values)
    if isinstance(operation, CategoryColumn):
        known = [word for word in category_words(operation, entry, given) if word == word.strip()]
        words = [*operation.values, *known, "no such category", ""]
        return pa.array([words[place] for place in draw.integers(0, len(words), count)])
    terms = [term.strip() for term in operation.terms[:500]] or ["some", "words", "of", "a", "text"]
    texts = [" ".join(draw.choice(terms, draw.integers(0, 12))) for _ in range(count)]
    for place, text in enumerate(["", "Ünseen wörds! 漢字 don't"]):
        texts[place::23] = [text] * len(texts[place::23])
    return pa.array(texts)


def _dates(draw: np.random.Generator, seconds: NDArray[np.float64], pattern: str) -> pa.Array:
    """Return dates, times of day or durations of whole seconds, some missing."""
    from nnkit.data.tables.dates import is_time_of_day

    of_day = pattern not in ("", "duration") and is_time_of_day(pattern)
    whole = np.clip(seconds, 0, 86_399) if of_day else np.clip(seconds, -(2**33), 2**33)
    kind = pa.time64("us") if of_day else pa.duration("us") if pattern == "duration" else pa.timestamp("us")
    values = pa.array((whole * 1_000_000).astype(np.int64), mask=draw.random(len(whole)) < 0.1)
    return values.cast(kind)


def feeds(preprocessor: Preprocessor, features: Any) -> dict[str, NDArray[Any]]:
    """Return rows as the graph's inputs take them, by name."""
    if isinstance(features, Features):
        found = {"X": features.dense} if features.width else {}
        for number, bags in enumerate(features.bags):
            found |= {f"bags_{number}.ids": bags.ids.astype(np.int64), f"bags_{number}.starts": bags.starts}
        return found
    first = preprocessor.operations[0]
    if isinstance(first, PictureColumns):
        return {"pictures": features}
    if isinstance(first, ArrayColumns):
        return {"X": features if first.pixels else np.asarray(features, np.float64)}
    return dict(_column_feeds(preprocessor, features))


def _column_feeds(preprocessor: Preprocessor, table: pa.Table) -> Iterator[tuple[str, NDArray[Any]]]:
    for operation in preprocessor.operations:
        if isinstance(operation, TextColumn):
            column = pa.chunked_array([table[operation.column].cast(pa.large_string()).combine_chunks()])
            bags = encode_texts(operation, column, None, np.dtype(preprocessor.dtype))
            yield f"{operation.column}.ids", bags.ids.astype(np.int64)
            yield f"{operation.column}.starts", bags.starts.astype(np.int64)
            if bags.weights is not None:
                yield f"{operation.column}.weights", bags.weights
        elif isinstance(operation, NumberColumn):
            yield operation.column, _number_feed(operation, table[operation.column])
        elif isinstance(operation, CategoryColumn):
            texts = pc.fill_null(table[operation.column].cast(pa.string()), "").to_pylist()
            yield operation.column, np.array(texts, object).reshape(-1, 1)


def _number_feed(operation: NumberColumn, column: pa.ChunkedArray) -> NDArray[Any]:
    if operation.kind != "time":
        values = column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column
        return pc.fill_null(values.cast(pa.float64()), float("nan")).to_numpy().reshape(-1, 1)
    seconds = numbers(operation.column, column, "time")
    missing = np.isnan(seconds)
    whole = np.where(missing, 0, seconds).astype(np.int64)
    return np.where(missing, MISSING_DATE, whole).reshape(-1, 1)


def described(proof: Proof) -> Mapping[str, Any]:
    """Return a proof as JSON values."""
    return {**vars(proof), "runtimes": list(proof.runtimes)}
