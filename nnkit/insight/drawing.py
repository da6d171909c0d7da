"""How plots are drawn: by matplotlib, as SVG in an HTML page, or as a PNG or SVG file.

Order: colours, a plot, its drawing, SVG that a style sheet colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import ConfigError
from nnkit.extras import install_command
from nnkit.files import write_whole

__all__ = [
    "DARK",
    "LIGHT",
    "MARKERS",
    "Palette",
    "Plot",
    "check_matplotlib",
    "check_picture",
    "colours",
    "grid_of",
    "have_matplotlib",
    "literal",
    "number_text",
    "page_svg",
    "png_of",
    "tinted",
    "together",
    "write_plot",
]

MARKERS = "osD^vP*X"
_SUFFIXES = (".png", ".svg")
_DOTS_AN_INCH = 200
# RGB colours for positive and negative numbers, legible on light and dark backgrounds.
_POSITIVE, _NEGATIVE = (0.18, 0.50, 0.86), (0.87, 0.42, 0.12)


@dataclass(frozen=True)
class Palette:
    """Colours by their role."""

    ink: str  # of text and axes
    soft: str  # of less important text and lines
    grid: str
    back: str  # of the background
    series: tuple[str, ...]  # of curves; after eight, they repeat with another line style

    def by_role(self) -> dict[str, str]:
        """Return each colour by the name of its CSS variable."""
        series = {f"--series-{number}": colour for number, colour in enumerate(self.series)}
        return {"--back": self.back, "--ink": self.ink, "--soft": self.soft, "--grid": self.grid, **series}

    def line(self, number: int) -> dict[str, str]:
        """Return matplotlib's colour and line style for a curve by its number."""
        turn, place = divmod(number, len(self.series))
        return {"color": self.series[place], "linestyle": ("-", "--", ":", "-.")[turn % 4]}


LIGHT = Palette(
    "#1c2024",
    "#5b6470",
    "#d8dde3",
    "#ffffff",
    ("#0b63b8", "#c04a00", "#0a7d55", "#9a2d8f", "#8a6d00", "#107c91", "#b3243c", "#5a5f66"),
)
DARK = Palette(
    "#e6e9ec",
    "#a0a8b2",
    "#343a41",
    "#14171a",
    ("#6cb4ff", "#ff9d5c", "#4fd1a1", "#e58bdb", "#e0c14a", "#5cd3e8", "#ff8095", "#b6bcc4"),
)
# matplotlib has no CSS variables: it draws with these colours, which `_svg` then replaces with the variables.
_STAND_IN = Palette(
    "#010203", "#070809", "#040506", "#0d0e0f", tuple(f"#a0b0{number:02x}" for number in range(8))
)


@dataclass(frozen=True)
class Plot:
    """A picture, with a description and a table for those who do not see it."""

    key: str  # its name, and the beginning of its ids in a page
    title: str
    description: str
    headers: list[str]
    rows: list[list[str]]
    draw: Callable[[Any, Palette], None] = field(repr=False)  # draws on a matplotlib figure
    size: tuple[float, float] = (4.8, 3.4)  # width and height in inches


def literal(text: str) -> str:
    """Return a text with its dollar signs escaped, between which matplotlib would read mathematics."""
    return text.replace("$", r"\$")


def number_text(value: float) -> str:
    """Return a number with four digits, or without decimals from 10,000 on."""
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def tinted(shares: NDArray) -> NDArray:
    """Return RGBA colours for numbers from −1 to 1: clear at 0, blue above, orange below."""
    colours = np.empty((*shares.shape, 4))
    colours[..., :3] = np.where((shares < 0)[..., None], _NEGATIVE, _POSITIVE)
    colours[..., 3] = np.minimum(np.abs(shares), 1)
    return colours


def have_matplotlib() -> bool:
    """Tell whether plots can be drawn."""
    return find_spec("matplotlib") is not None


def check_matplotlib() -> None:
    """Raise `ConfigError` if plots cannot be drawn."""
    if not have_matplotlib():
        raise ConfigError(
            f"plots are drawn by matplotlib, which is not installed: {install_command('matplotlib')}"
        )


def check_picture(path: Path) -> None:
    """Raise the `ConfigError` of `write_plot`, before anything is computed."""
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{path}: plots are written as .png or .svg; end the name with one of them")
    check_matplotlib()


def write_plot(plot: Plot, path: Path, dark: bool = False) -> None:
    """Write a plot to a file, whole or not at all.

    Parameters
    ----------
    plot : Plot
    path : Path
        A .png, or a .svg that is light or dark as its reader prefers.
    dark : bool
        Whether a PNG is for a dark surface.

    Raises
    ------
    ConfigError
        If the suffix is neither, or matplotlib is not installed.
    FileError
        If the file cannot be written.
    """
    check_picture(path)
    write_whole(path, _svg_file(plot).encode() if path.suffix.lower() == ".svg" else png_of(plot, dark))


def png_of(plot: Plot, dark: bool = False) -> bytes:
    """Return a plot as a PNG, for a light or a dark surface."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    metadata = {"Software": None, "Description": plot.description}
    with _drawn(plot, DARK if dark else LIGHT, opaque=True) as figure:
        FigureCanvasAgg(figure).print_png(picture, metadata=metadata)
    return picture.getvalue()


def grid_of(figure: Any, lines: int, columns: int, count: int, sharex: bool = False) -> list[Any]:
    """Return the first `count` axes of a grid; the others are hidden."""
    grid = list(figure.subplots(lines, columns, squeeze=False, sharex=sharex).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return grid[:count]


def together(plots: Sequence[Plot], key: str, title: str, columns: int = 1) -> Plot:
    """Return several plots as one, in a grid with this many columns."""
    if len(plots) == 1:
        return plots[0]
    columns = min(columns, len(plots))
    lines = -(-len(plots) // columns)

    def draw(figure: Any, palette: Palette) -> None:
        parts = figure.subfigures(lines, columns, squeeze=False).flatten()
        for part in parts:
            part.patch.set_alpha(0)
        for part, plot in zip(parts, plots, strict=False):
            plot.draw(part, palette)

    width = columns * max(plot.size[0] for plot in plots)
    height = 0.85 * lines * max(plot.size[1] for plot in plots)
    description = " ".join(f"{plot.title}: {plot.description}" for plot in plots)
    return Plot(key, title, description, [], [], draw, (width, height))


@contextmanager
def _drawn(plot: Plot, palette: Palette, opaque: bool) -> Iterator[Any]:
    """Yield a figure with the plot on it, in a context with its style."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_style(plot.key, palette)):
        figure = Figure(figsize=plot.size, layout="constrained", dpi=_DOTS_AN_INCH)
        figure.patch.set_facecolor(palette.back)
        figure.patch.set_alpha(1 if opaque else 0)
        plot.draw(figure, palette)
        if opaque:
            figure.suptitle(plot.title, fontsize=11)
        yield figure


def _style(key: str, palette: Palette) -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": key,
        "font.family": "sans-serif",
        "axes.facecolor": "none",
        "axes.edgecolor": palette.ink,
        "axes.labelcolor": palette.ink,
        "text.color": palette.ink,
        "xtick.color": palette.ink,
        "ytick.color": palette.ink,
        "grid.color": palette.grid,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }


def _svg(plot: Plot, opaque: bool) -> str:
    """Return a plot as an ``svg`` element whose colours are CSS variables, as `colours` defines them."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    with _drawn(plot, _STAND_IN, opaque) as figure:
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL).strip()
    for role, colour in _STAND_IN.by_role().items():
        svg = svg.replace(colour, f"var({role})")
    return svg


def page_svg(plot: Plot) -> str:
    """Return a plot as an ``svg`` element for an HTML page; empty without matplotlib.

    The page must include the style sheet `colours`, and two elements with the ids ``KEY-title`` and
    ``KEY-description`` that label the plot. All ids in the element begin with the plot's key, so that they
    differ from those of other plots.
    """
    if not have_matplotlib():
        return ""
    key = plot.key
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", _svg(plot, opaque=False)).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{key}-", svg)
    names = f'role="img" aria-labelledby="{key}-title {key}-description"'
    return svg.replace("<svg", f"<svg {names}", 1)


def _svg_file(plot: Plot) -> str:
    """Return a plot as an SVG file that holds its colours, title and description."""
    words = f"<title>{escape(plot.title)}</title><desc>{escape(plot.description)}</desc>"
    head, inside = re.split(r"(?<=>)", _svg(plot, opaque=True), maxsplit=1)
    head = head.replace("<svg", '<svg role="img"', 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{words}<style>{colours()}</style>{inside}\n'


def colours() -> str:
    """Return a style sheet that defines the CSS variable of each colour, for light and dark pages."""
    light, dark = (
        " ".join(f"{role}: {colour};" for role, colour in palette.by_role().items())
        for palette in (LIGHT, DARK)
    )
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
