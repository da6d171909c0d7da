"""What is told of a card's record: its table, and plots of speed by precision and width and of loading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnkit.benchmarks.figures import Figure, table
from nnkit.benchmarks.plots import Drawing, Point, plot_of
from nnkit.benchmarks.records import Quantity
from nnkit.benchmarks.timing import Spread
from nnkit.insight.drawing import Plot

__all__ = ["card_parts", "card_pictures", "card_plots"]

_PRECISIONS = ("fp32", "tf32", "bf16", "fp16")  # as their lines lie, from below


def card_parts(name: str, record: Mapping[str, Any]) -> Iterator[str]:
    """Return the Markdown of a record of `bench/gpu.sh`, a part at a time.

    Parameters
    ----------
    name : str
        Of its file in the folder ``results``, where the pictures of `card_plots` lie too.
    record : mapping
        What the file holds.
    """
    yield f"## {record['machine']['card']}"
    quick = " A dry run with tiny sizes, whose figures mean nothing." if record.get("quick") else ""
    yield f"[results/{name}](results/{name}), by `bench/gpu.sh`.{quick}"
    for plot in card_plots(record):
        yield f"![{plot.title}. {plot.description}](results/{_picture(name, plot)})"
    yield table(record["sections"])


def card_plots(record: Mapping[str, Any]) -> list[Plot]:
    """Return the plots that the record has figures for."""
    card = record["machine"]["card"]
    return [plot_of(drawing) for drawing in (_speed(record, card), _loading(record, card)) if drawing.points]


def card_pictures(results: Path) -> dict[Path, Plot]:
    """Return the plots of all cards' records in a folder, by the files that `card_parts` shows them from."""
    return {
        results / _picture(path.name, plot): plot
        for path in sorted(results.glob("gpu-*.json"))
        for plot in card_plots(json.loads(path.read_text(encoding="utf-8")))
    }


def _picture(name: str, plot: Plot) -> str:
    return f"{name.removesuffix('.json')}-{plot.key}.svg"


def _figures(record: Mapping[str, Any], section: str, key: str) -> list[Figure]:
    """Return a section's figures whose details have that key."""
    held = record["sections"].get(section, {"figures": []})["figures"]
    return [Figure.from_json(figure) for figure in held if key in figure["details"]]


def _speed(record: Mapping[str, Any], card: str) -> Drawing:
    """Operations a second of whole steps, and of products alone."""
    figures = _figures(record, "mixed", "products alone, FLOP/s")
    figures.sort(key=lambda figure: (_PRECISIONS.index(figure.details["precision"]), figure.details["width"]))
    points, bounds = [], {}
    for figure in figures:
        told, precision = figure.details, figure.details["precision"]
        alone = f"{precision}, products alone"
        bounds[alone] = precision
        seconds, work = figure.value, told["flop"]
        # The least time is the greatest rate.
        rate = Spread(work / seconds.median, work / seconds.high, work / seconds.low, seconds.repeats)
        points.append(Point(precision, float(told["width"]), _tera(rate)))
        points.append(Point(alone, float(told["width"]), _tera(Spread(**told["products alone, FLOP/s"]))))
    batch = ", ".join(sorted({f"batch {figure.details['batch']:,}" for figure in figures}))
    width = f"units in each of four hidden layers ({batch})"
    title = f"Training steps by precision and width, {card}"
    return Drawing("speed", title, width, "TFLOP/s of the step's products", points, bounds=bounds)


def _tera(rate: Spread) -> Quantity:
    return Quantity("TFLOP/s", 1e-12 * rate.median, 1e-12 * rate.low, 1e-12 * rate.high, rate.repeats)


def _loading(record: Mapping[str, Any], card: str) -> Drawing:
    """What a step takes longer than one whose rows lie on the device, of the whole step."""
    points = []
    for figure in _figures(record, "loading", "placement"):
        value = figure.value
        share = Quantity("percent", 100 * value.median, 100 * value.low, 100 * value.high, value.repeats)
        points.append(Point(f"{figure.details['placement']} memory", figure.details["network"], share))
    title = f"Loading's share of a step, {card}"
    y = "percent of a step (less is better)"
    return Drawing("loading", title, "network", y, points, bars=True, less_is_better=True)
