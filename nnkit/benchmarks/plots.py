"""The plots of the page of a result: which figures are drawn against which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nnkit.benchmarks.records import Quantity, Record
from nnkit.insight.drawing import MARKERS, Palette, Plot

__all__ = ["Drawing", "Point", "plot_of", "plots_of"]

_SIZE = (6.4, 3.8)


@dataclass(frozen=True)
class Point:
    """A figure at its place: a number for lines, which has a logarithmic axis, or a name for bars."""

    series: str
    x: float | str
    value: Quantity


@dataclass(frozen=True)
class Drawing:
    """Figures that are drawn against one another.

    Parameters
    ----------
    key, title : str
        Its name, and what is drawn.
    x, y : str
        What the axes show.
    points : list of Point
        Of all series.
    bars : bool
        Whether there are bars, in place of lines.
    less_is_better : bool
        Which figure the description tells.
    bounds : mapping of str to str
        By a line's series, that of the line which it bounds: it is dashed, in that one's colour.
    """

    key: str
    title: str
    x: str
    y: str
    points: list[Point]
    bars: bool = False
    less_is_better: bool = False
    bounds: Mapping[str, str] = field(default_factory=dict)


def plots_of(records: Sequence[Record]) -> list[Plot]:
    """Return the plots for which there are figures: speed by device, precision, batch and width first."""
    drawings = [
        _by_device(records),
        _by_precision(records),
        _sweep(records, "batch", "width"),
        _sweep(records, "width", "batch"),
        _floors(records),
        *_peers(records),
    ]
    return [plot_of(drawing) for drawing in drawings if drawing.points]


def _steps(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.section == "step" and "throughput" in record.figures]


def _by_device(records: Sequence[Record]) -> Drawing:
    """One step that every device has done: of the reference network where it can be, else a middle one."""
    steps = _steps(records)
    done: dict[tuple[Any, ...], list[Record]] = {}
    for record in steps:
        done.setdefault((record.parameters["width"], record.parameters["batch"]), []).append(record)
    devices = len({record.device for record in steps})
    common = [size for size, found in done.items() if len(found) == devices]
    common.sort(key=lambda size: size[0] ** 2 * size[1])
    if not common:
        return Drawing("device", "", "", "", [])
    width, batch = shown = (512, 128) if (512, 128) in common else common[len(common) // 2]
    series = f"width {width}, batch {batch}"
    points = [Point(series, record.device, record.figures["throughput"]) for record in done[shown]]
    title = f"Speed by device, {series}"
    return Drawing("device", title, "device", "samples a second", points, bars=True)


def _by_precision(records: Sequence[Record]) -> Drawing:
    points = [
        Point(
            f"{record.device}, width {record.parameters['width']}, batch {record.parameters['batch']}",
            record.precision,
            record.figures["throughput"],
        )
        for record in records
        if record.section == "precision" and "throughput" in record.figures
    ]
    return Drawing("precision", "Speed by precision", "precision", "samples a second", points, bars=True)


def _sweep(records: Sequence[Record], x: str, series: str) -> Drawing:
    steps = _steps(records)
    several = len({record.device for record in steps}) > 1
    points = [
        Point(
            f"{record.device + ', ' if several else ''}{series} {record.parameters[series]:,}",
            float(record.parameters[x]),
            record.figures["throughput"],
        )
        for record in steps
    ]
    names = {"batch": "batch size", "width": "width"}
    unit = {"batch": "rows a step", "width": "units in each of two hidden layers"}
    label = f"{names[x]} ({unit[x]})"
    return Drawing(x, f"Speed by {names[x]}", label, "samples a second", points)


def _floors(records: Sequence[Record]) -> Drawing:
    drawing = _sweep([record for record in records if "step / floor" in record.ratios], "width", "batch")
    steps = [record for record in _steps(records) if "step / floor" in record.ratios]
    points = [
        Point(point.series, point.x, record.ratios["step / floor"])
        for point, record in zip(drawing.points, steps, strict=True)
    ]
    title = "A step by its own matrix products alone"
    return Drawing("floor", title, drawing.x, "step / floor (1 is the floor)", points, less_is_better=True)


def _peers(records: Sequence[Record]) -> list[Drawing]:
    """A drawing for each network and device: their steps differ by more than one axis shows."""
    found: dict[tuple[Any, ...], list[Point]] = {}
    for record in records:
        if record.section == "peers" and "step" in record.figures:
            key = (record.parameters["network"], record.parameters["batch"], record.device, record.precision)
            step = record.figures["step"]
            shown = Quantity("ms", 1e3 * step.median, 1e3 * step.low, 1e3 * step.high, step.repeats)
            found.setdefault(key, []).append(Point("a step", record.name, shown))
    return [
        Drawing(
            f"peers-{number}",
            f"A step of {network}, batch {batch}, on {device}, {precision}",
            "library",
            "milliseconds (less is better)",
            points,
            bars=True,
            less_is_better=True,
        )
        for number, ((network, batch, device, precision), points) in enumerate(found.items(), 1)
    ]


def plot_of(drawing: Drawing) -> Plot:
    """Return the plot of a drawing that has points."""
    rows = [[point.series, _number(point.x), str(point.value)] for point in drawing.points]
    series = list(dict.fromkeys(point.series for point in drawing.points))
    best = min if drawing.less_is_better else max
    shown = [point for point in drawing.points if point.series not in drawing.bounds]
    peak = best(shown, key=lambda point: point.value.median)
    at = f"{peak.series}, {drawing.x.partition(' (')[0]}" if len(series) > 1 else drawing.x
    description = (
        f"{'Bars' if drawing.bars else 'Lines'}: {drawing.y} by {drawing.x}, with 10th and 90th percentiles. "
        f"{'Least' if best is min else 'Most'}: {peak.value}, {at} {_number(peak.x)}."
    )
    headers = ["series", drawing.x, drawing.y]
    draw = partial(_draw, drawing=drawing, series=series)
    return Plot(drawing.key, drawing.title, description, headers, rows, draw, _SIZE)


def _number(x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:,.0f}"


def _draw(figure: Any, palette: Palette, drawing: Drawing, series: list[str]) -> None:
    axes = figure.add_subplot()
    (_bars if drawing.bars else _lines)(axes, palette, drawing, series)
    axes.set_xlabel(drawing.x)
    axes.set_ylabel(drawing.y)
    axes.grid(axis="y" if drawing.bars else "both")
    if len(series) > 1:
        # In the middle: a picture in a file has its title above.
        figure.legend(loc="outside right center")


def _errors(points: list[Point]) -> list[list[float]]:
    below = [max(point.value.median - point.value.low, 0) for point in points]
    return [below, [max(point.value.high - point.value.median, 0) for point in points]]


def _lines(axes: Any, palette: Palette, drawing: Drawing, series: list[str]) -> None:
    numbers = {
        name: number for number, name in enumerate(name for name in series if name not in drawing.bounds)
    }
    for name in series:
        points = [point for point in drawing.points if point.series == name]
        number = numbers[drawing.bounds.get(name, name)]
        # As far on as there are colours, the same one comes again, dashed.
        line = palette.line(number + len(palette.series) if name in drawing.bounds else number)
        axes.errorbar(
            [point.x for point in points],
            [point.value.median for point in points],
            yerr=_errors(points),
            **line,
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            capsize=2,
            label=name,
        )
    places = sorted({float(point.x) for point in drawing.points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [_number(place) for place in places])
    axes.minorticks_off()
    _scale(axes, drawing)


def _bars(axes: Any, palette: Palette, drawing: Drawing, series: list[str]) -> None:
    places = list(dict.fromkeys(point.x for point in drawing.points))
    width = 0.8 / len(series)
    for number, name in enumerate(series):
        points = [point for point in drawing.points if point.series == name]
        axes.bar(
            [places.index(point.x) + (number - (len(series) - 1) / 2) * width for point in points],
            [point.value.median for point in points],
            0.9 * width if len(places) > 1 or len(series) > 1 else 0.3,
            yerr=_errors(points),
            color=palette.series[number % len(palette.series)],
            ecolor=palette.ink,
            capsize=3,
            label=name,
        )
    axes.set_xticks(range(len(places)), [str(place).replace(", ", ",\n") for place in places])
    axes.set_xlim(-0.6, len(places) - 0.4)
    # A share that is a difference of two measurements can be below zero.
    axes.set_ylim(bottom=min(0, *(point.value.low for point in drawing.points)))
    _scale(axes, drawing)


def _scale(axes: Any, drawing: Drawing) -> None:
    from matplotlib.ticker import FuncFormatter

    if not drawing.less_is_better and not drawing.bars:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:,.10g}"))
