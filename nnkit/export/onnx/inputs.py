"""From a user's columns to the network's inputs, as nodes: filled in, scaled, flagged, one-hot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnkit.data.operations import (
    ArrayColumns,
    CategoryColumn,
    NumberColumn,
    PictureColumns,
    PlainRows,
    TextColumn,
    flagged_columns,
)
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.tables.schema import Column
from nnkit.errors import ConfigError
from nnkit.export.onnx.graph import Graph

__all__ = ["MISSING_DATE", "Bag", "category_words", "missing_numbers", "network_inputs"]

MISSING_DATE = np.iinfo(np.int64).min
"""What stands for a missing date, which is a whole number of seconds: NumPy's NaT."""
Bag = tuple[str, str, str]
"""The names of a bag's ids, of where each row begins, and of the weights, "" for none."""


def network_inputs(graph: Graph, preprocessor: Preprocessor) -> tuple[str, list[Any]]:
    """Declare the inputs of a model and return the network's, shape (samples, width), and its bags of ids.

    A bag is a `Bag` for text, or the name of codes, shape (samples, 1), for a category.
    """
    first, dtype = preprocessor.operations[0], np.dtype(preprocessor.dtype)
    if isinstance(first, ArrayColumns):
        words = f"columns {', '.join(first.names)}" if first.names else "the columns in their order"
        raw = graph.input("X", np.uint8 if first.pixels else np.float64, ("N", first.count), words)
        return _scaled_array(graph, raw, first.shift, first.scale, first.pixels, dtype), []
    if isinstance(first, PlainRows):
        raw = graph.input("X", dtype, ("N", first.count), "the columns in their order") if first.count else ""
        bags = [_bag(graph, f"bags_{number}", False, dtype) for number in range(len(first.tables))]
        if bags and not raw:
            raise ConfigError(
                "a network that reads nothing but bags of ids cannot be exported: it has no rows"
            )
        return raw, list(bags)
    if isinstance(first, PictureColumns):
        return _pixels(graph, first, dtype), []
    return _table(graph, preprocessor, dtype)


def _scaled_array(graph: Graph, raw: str, shift: Any, scale: Any, pixels: bool, dtype: np.dtype) -> str:
    """Return ``(value - shift) * scale``: for pixels in the network's type, as in a batch, else in double."""
    kind = dtype if pixels else np.float64
    x = graph.cast(raw, dtype) if pixels else raw
    if np.any(shift):
        x = graph.add("Sub", x, graph.constant(shift, kind))
    if np.any(np.asarray(scale) != 1):
        x = graph.add("Mul", x, graph.constant(scale, kind))
    return x if pixels else graph.cast(x, dtype)


def _pixels(graph: Graph, operation: PictureColumns, dtype: np.dtype) -> str:
    settings = operation.settings
    words = f"decoded pictures of that size, {'red, green, blue' if settings.channels == 3 else 'grey'}"
    shape = ("N", settings.height, settings.width, settings.channels)
    raw = graph.input("pictures", np.uint8, shape, words)
    planes = graph.add("Transpose", raw, perm=[0, 3, 1, 2])
    rows = graph.add("Reshape", planes, graph.constant([-1, settings.count], np.int64))
    size = settings.height * settings.width
    shift, scale = np.repeat(operation.shift, size), np.repeat(operation.scale, size)
    return _scaled_array(graph, rows, shift, scale, True, dtype)


def _table(graph: Graph, preprocessor: Preprocessor, dtype: np.dtype) -> tuple[str, list[Any]]:
    schema = preprocessor.schema
    given = None if schema is None else schema.options.missing
    values: dict[str, str] = {}
    flags: dict[str, str] = {}
    codes: dict[str, str] = {}
    bags: list[Any] = []
    for operation in preprocessor.operations:
        entry = None if schema is None else schema.by_name.get(operation.column)  # type: ignore[union-attr]
        if isinstance(operation, NumberColumn):
            values[operation.column], flags[operation.column] = _number(graph, operation, entry, given, dtype)
        elif isinstance(operation, CategoryColumn):
            codes[operation.column] = _codes(graph, operation, entry, given)
            if operation.embedded:
                bags.append(codes[operation.column])
        elif isinstance(operation, TextColumn):
            bags.append(_bag(graph, operation.column, bool(operation.counts), dtype))
    parts = [*values.values(), *(flags[column.column] for column in flagged_columns(preprocessor.operations))]
    one_hot = [op for op in preprocessor.operations if isinstance(op, CategoryColumn) and not op.embedded]
    for operation in one_hot:
        places = graph.constant(np.arange(operation.places)[None], np.int64)
        parts.append(graph.cast(graph.add("Equal", codes[operation.column], places), dtype))
    return (graph.add("Concat", *parts, axis=1) if len(parts) > 1 else "".join(parts)), bags


def missing_numbers(entry: Column | None, given: Sequence[str] | None) -> list[float]:
    """Return the numbers that mean a missing value in a column of numbers, such as -999."""
    words = given if entry is None or entry.missing is None else entry.missing
    found = []
    for word in words or ():
        try:
            found.append(float(word))
        except ValueError:
            continue
    return sorted({number for number in found if np.isfinite(number)})


def _number(
    graph: Graph, operation: NumberColumn, entry: Column | None, given: Any, dtype: np.dtype
) -> tuple[str, str]:
    """Return a column of numbers as the network reads it, and the flags of its missing values."""
    if operation.kind == "time":
        words = f"a date or time in seconds since 1970 (UTC); {MISSING_DATE} means a missing one"
        if entry is not None and entry.pattern == "duration":
            words = f"a duration in seconds; {MISSING_DATE} means a missing one"
        whole = graph.input(operation.column, np.int64, ("N", 1), words)
        missing = graph.add("Equal", whole, graph.constant(MISSING_DATE, np.int64))
        raw = graph.cast(whole, np.float64)
    else:
        unit = "" if entry is None else entry.style.before or entry.style.after
        words = f"a number{f' in {unit}' if unit else ''}; NaN means a missing one"
        raw = graph.input(operation.column, np.float64, ("N", 1), words)
        missing = graph.add("Or", graph.add("IsNaN", raw), graph.add("IsInf", raw))
        for number in missing_numbers(entry, given):
            missing = graph.add("Or", missing, graph.add("Equal", raw, graph.constant(number, np.float64)))
    x = graph.add("Where", missing, graph.constant(operation.fill, np.float64), raw)
    x = graph.add("Sub", x, graph.constant(operation.shift, np.float64))
    x = graph.add("Mul", x, graph.constant(operation.scale, np.float64))
    if operation.clipped:
        # Beyond 1e150 the result is ±3 to the last bit, and the square does not overflow.
        limits = (graph.constant(limit, np.float64) for limit in (-1e150, 1e150))
        x = graph.add("Clip", x, *limits)
        third = graph.add("Div", x, graph.constant(3.0, np.float64))
        square = graph.add("Add", graph.add("Mul", third, third), graph.constant(1.0, np.float64))
        x = graph.add("Div", x, graph.add("Sqrt", square))
    return graph.cast(x, dtype), graph.cast(missing, dtype)


def category_words(operation: CategoryColumn, entry: Column | None, given: Any) -> dict[str, int]:
    """Return the code of each text that a category takes: values, other spellings, words for missing ones."""
    from nnkit.data.tables.encoding import codes_of
    from nnkit.data.tables.summaries import missing_words

    words = (
        missing_words(False, given) if entry is None or entry.missing is None else frozenset(entry.missing)
    )
    missing = dict.fromkeys(("", *sorted(words)), operation.missing_code)
    spellings = [spelling for value in operation.values for spelling in _spellings(value)]
    if entry is not None and entry.kind == "boolean":
        from nnkit.data.tables.reading import FALSE, TRUE

        no, yes = ((*words, *map(str.upper, words), *map(str.capitalize, words)) for words in (FALSE, TRUE))
        places = codes_of(operation.values, ["false", "true"])
        missing |= dict.fromkeys(no, places[0]) | dict.fromkeys(yes, places[1])
    trimmed = [spelling.strip() for spelling in spellings]
    others = dict(zip(spellings, codes_of(operation.values, trimmed), strict=True))
    found = {word: code for word, code in others.items() if code >= 0} | missing
    # A value that the training had is one, whatever else it means.
    return found | {value: code for code, value in enumerate(operation.values)}


def _spellings(value: str) -> list[str]:
    """Return other texts that may mean a value: with a blank, in capitals, as a decimal number."""
    cases = value.lower(), value.upper(), value.capitalize()
    return [f"{value} ", f" {value}", *cases, f"{value}.0", value.removesuffix(".0")]


def _codes(graph: Graph, operation: CategoryColumn, entry: Column | None, given: Any) -> str:
    """Return the place of each value, -1 for none, shape (samples, 1)."""
    raw = graph.input(operation.column, str, ("N", 1), "a text; empty means a missing one")
    known = category_words(operation, entry, given)
    return graph.add(
        "LabelEncoder",
        raw,
        keys_strings=list(known),
        values_int64s=list(known.values()),
        default_int64=operation.unseen_code,
    )


def _bag(graph: Graph, name: str, weighted: bool, dtype: np.dtype) -> Bag:
    words = "the rows' ids, one row after the other, as the tokenizer beside this file gives them"
    ids = graph.input(f"{name}.ids", np.int64, (f"{name} ids",), words)
    starts = graph.input(
        f"{name}.starts", np.int64, (f"{name} rows",), "where each row begins, and the last ends"
    )
    weights = graph.input(f"{name}.weights", dtype, (f"{name} ids",), "of the ids") if weighted else ""
    return ids, starts, weights
