"""A waterfall of an explanation: how the columns lead from the baseline to a row's output; by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnkit.errors import ConfigError
from nnkit.extras import extra_module
from nnkit.files import write_whole
from nnkit.insight.drawing import literal
from nnkit.insight.explanation import Explanation, number_words

__all__ = ["write_waterfall"]

_FORMATS = (".png", ".svg", ".pdf")
_MOST_BARS = 15
# Okabe and Ito's vermilion and blue, which the colour-blind can tell apart; one is hatched for print in grey.
_UP, _DOWN, _INK = {"color": "#d55e00"}, {"color": "#0072b2", "hatch": "//"}, "#333333"
_LABEL = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def write_waterfall(
    explanation: Explanation, row: int, path: Path, title: str = "", values: Mapping[str, str] | None = None
) -> None:
    """Write a waterfall of one row's explanation, whole or not at all.

    Parameters
    ----------
    explanation : Explanation
    row : int
        The place of the row in it.
    path : Path
        A .png, .svg or .pdf file.
    title : str
        Above the picture.
    values : mapping of str to str, optional
        The row's own values by column, shown beside the column's name.

    Raises
    ------
    ConfigError
        If matplotlib is not installed, or the file's suffix is another.
    FileError
        If the file cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"{path}: pictures are written as {', '.join(_FORMATS)}")
    extra_module("matplotlib")
    from matplotlib.figure import Figure

    steps, name = _steps(explanation, row), explanation.names[row]
    base, output = float(explanation.base[row]), float(explanation.outputs[row])
    figure = Figure(figsize=(7.5, 1.3 + 0.36 * len(steps)), layout="constrained")
    axes = figure.add_subplot()
    _draw_bars(axes, base, [value for _, value in steps])
    axes.axvline(base, color=_INK, linewidth=0.8, linestyle=":")
    axes.axvline(output, color=_INK, linewidth=0.8, linestyle="--")
    shown = {column: f"{column} = {value}" for column, value in (values or {}).items()}
    axes.set_yticks(range(len(steps)), [literal(shown.get(column, column)) for column, _ in steps])
    axes.invert_yaxis()
    axes.use_sticky_edges = False
    axes.margins(x=0.12, y=0.02)
    axes.set_xlabel(literal(name))
    axes.xaxis.set_major_formatter(lambda number, _: number_words(number))
    title = title or f"what contributes to {name} ({explanation.method})"
    ends = f"from {number_words(base)} at the baseline (dotted) to {number_words(output)} (dashed)"
    axes.set_title(literal(f"{title}\n{ends}"), fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix.lower()[1:], dpi=150)
    write_whole(path, stream.getvalue())


def _draw_bars(axes: Any, at: float, values: list[float]) -> None:
    """Draw a bar for each value, which begins where the one above it ends."""
    for place, value in enumerate(values):
        style: dict[str, Any] = _UP if value >= 0 else _DOWN
        axes.barh(place, value, left=at, edgecolor="white", height=0.7, **style)
        offset = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        end = (max(at, at + value), place)
        axes.annotate(number_words(value, sign=True), end, color=_INK, bbox=_LABEL, **offset)
        at += value
        if place + 1 < len(values):
            axes.plot([at, at], [place - 0.35, place + 1.35], color=_INK, linewidth=0.6)


def _steps(explanation: Explanation, row: int) -> list[tuple[str, float]]:
    """Return the bars: the largest contributions, the sum of the others, and the unexplained gap."""
    ranked = explanation.ranked(row)
    steps = ranked if len(ranked) <= _MOST_BARS else ranked[: _MOST_BARS - 1]
    others = ranked[len(steps) :]
    if others:
        steps = [*steps, (f"{len(others)} others", sum(value for _, value in others))]
    gap = float(explanation.gap[row])
    size = sum(abs(value) for _, value in ranked)
    return [*steps, ("(unexplained)", gap)] if abs(gap) > 0.01 * size else steps
