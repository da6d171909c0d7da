"""A waterfall of an explanation: how the columns lead from the baseline to a row's output; by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from nnkit.errors import ConfigError
from nnkit.extras import extra_module
from nnkit.files import write_whole
from nnkit.insight.explanation import Explanation, number_words

__all__ = ["write_waterfall"]

_FORMATS = (".png", ".svg", ".pdf")
_MOST_BARS = 15
# Okabe and Ito's vermilion and blue, told apart by the colour-blind too; hatched against print in grey.
_UP, _DOWN, _INK = "#d55e00", "#0072b2", "#333333"


def write_waterfall(
    explanation: Explanation, row: int, path: Path, title: str = "", values: Mapping[str, str] | None = None
) -> None:
    """Write a waterfall of one row's explanation, whole or not at all.

    Parameters
    ----------
    explanation : Explanation
    row : int
        Which of its rows.
    path : Path
        A .png, .svg or .pdf file.
    title : str
        Above the picture.
    values : mapping of str to str, optional
        The row's own values by column, told beside its name.

    Raises
    ------
    ConfigError
        If matplotlib is not installed, or the file's kind is none of those.
    FileError
        If the file cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"{path}: pictures are written as {', '.join(_FORMATS)}")
    extra_module("matplotlib")
    from matplotlib.figure import Figure

    steps = _steps(explanation, row)
    figure = Figure(figsize=(7.5, 1.3 + 0.36 * len(steps)), layout="constrained")
    axes = figure.add_subplot()
    at = float(explanation.base[row])
    for place, (_, value) in enumerate(steps):
        up = value >= 0
        axes.barh(
            place,
            value,
            left=at,
            color=_UP if up else _DOWN,
            hatch="" if up else "//",
            edgecolor="white",
            height=0.7,
        )
        axes.annotate(
            number_words(value, sign=True),
            (max(at, at + value), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=_INK,
            fontsize=9,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
        at += value
        if place + 1 < len(steps):
            axes.plot([at, at], [place - 0.35, place + 1.35], color=_INK, linewidth=0.6)
    base, output = float(explanation.base[row]), float(explanation.outputs[row])
    axes.axvline(base, color=_INK, linewidth=0.8, linestyle=":")
    axes.axvline(output, color=_INK, linewidth=0.8, linestyle="--")
    told = {name: f"{name} = {value}" for name, value in (values or {}).items()}
    # A dollar sign would begin a formula.
    axes.set_yticks(range(len(steps)), [told.get(name, name).replace("$", r"\$") for name, _ in steps])
    axes.invert_yaxis()
    axes.use_sticky_edges = False
    axes.margins(x=0.12, y=0.02)
    axes.set_xlabel(explanation.names[row].replace("$", r"\$"))
    axes.xaxis.set_major_formatter(lambda number, _: number_words(number))
    title = title or f"what contributes to {explanation.names[row]} ({explanation.method})"
    ends = f"from {number_words(base)} at the baseline (dotted) to {number_words(output)} (dashed)"
    axes.set_title(f"{title}\n{ends}".replace("$", r"\$"), fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix.lower()[1:], dpi=150)
    write_whole(path, stream.getvalue())


def _steps(explanation: Explanation, row: int) -> list[tuple[str, float]]:
    """Return the bars: the greatest contributions, the others together, and what none explains."""
    ranked = explanation.ranked(row)
    steps = ranked if len(ranked) <= _MOST_BARS else ranked[: _MOST_BARS - 1]
    rest = sum(value for _, value in ranked[len(steps) :])
    if len(steps) < len(ranked):
        steps = [*steps, (f"{len(ranked) - len(steps)} others", rest)]
    gap = float(explanation.gap[row])
    sizes = sum(abs(value) for _, value in ranked)
    return [*steps, ("(unexplained)", gap)] if abs(gap) > 0.01 * sizes else steps
