"""Draw the packages and their imports: ``python docs/pictures/architecture.py`` writes architecture.svg.

A package's box stands above the boxes of all that it imports. An arrow is an import; one that follows from
others (cli to nn, where cli imports runs and runs imports nn) is left out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = Path(__file__).with_suffix(".svg")

# What each package is for, in a few words.
PURPOSES = {
    "cli": "commands",
    "bench": "nnkit bench",
    "testing": "tests for a new backend",
    "estimators": "scikit-learn's interface",
    "export": "ONNX, PyTorch, C",
    "interop": "PyTorch, Keras",
    "insight": "reports, explanations, audits",
    "runs": "the TOML file, the run folder",
    "diagnostics": "why it does not learn",
    "training": "trainer, checkpoints",
    "model": "a trained model and its file",
    "data": "files to encoded rows",
    "nn": "layers, losses, optimizers",
    "engine": "passes, steps, parameters",
    "feed": "rows to the device",
    "backends": "NumPy, CUDA",
    "kernels": "formulas, compiled loops",
    "shared": "errors, checks, files, cache",
}
# The boxes of modules that are no packages, all others being "shared"; `machine` describes the backends.
MODULES = {"adapting": "model", "model": "model", "machine": "backends"}
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 270, 42, 40, 26, 16


@dataclass
class Package:
    """A box: the lines of its files, and the packages that they import."""

    lines: int = 0
    imports: set[str] = field(default_factory=set)


def sources() -> Iterator[tuple[str, str]]:
    """Yield each module's name below nnkit, such as ``nn.layers.dense``, and its source."""
    for folder, prefix in ((ROOT / "nnkit", ""), (ROOT / "kernels", "kernels.")):
        for path in sorted(folder.rglob("*.py")):
            name = prefix + ".".join(path.relative_to(folder).with_suffix("").parts)
            if name != "__init__":  # the lazy public names
                yield name.removesuffix(".__init__"), path.read_text(encoding="utf-8")


def box_of(module: str, folders: set[str]) -> str:
    """Return the box that a module is drawn in."""
    first = module.split(".")[0]
    return first if first in folders else MODULES.get(first, "shared")


def imported(source: str) -> Iterator[str]:
    """Yield the nnkit modules that a source imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "nnkit":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nnkit."):
            yield str(node.module).removeprefix("nnkit.")


def packages() -> dict[str, Package]:
    """Read the packages from the code."""
    modules = list(sources())
    folders = {name.split(".")[0] for name, _ in modules if "." in name}
    found: dict[str, Package] = {}
    for name, source in modules:
        package = found.setdefault(box_of(name, folders), Package())
        package.lines += source.count("\n")
        package.imports |= {box_of(other, folders) for other in imported(source)}
    for name, package in found.items():
        package.imports.discard(name)
    return found


def levels(found: Mapping[str, Package]) -> dict[str, int]:
    """Return each box's level: 0 at the bottom, else one above the highest that it imports."""
    placed: dict[str, int] = {}
    for name in TopologicalSorter({name: package.imports for name, package in found.items()}).static_order():
        placed[name] = 1 + max((placed[other] for other in found[name].imports), default=-1)
    return placed


def arrows(found: Mapping[str, Package]) -> list[tuple[str, str]]:
    """Return the imports that do not follow from others."""
    reached: dict[str, set[str]] = {}
    for name in TopologicalSorter({name: package.imports for name, package in found.items()}).static_order():
        reached[name] = found[name].imports.union(*(reached[other] for other in found[name].imports))
    return [
        (name, other)
        for name, package in sorted(found.items())
        for other in sorted(package.imports)
        if not any(other in reached[between] for between in package.imports)
    ]


def drawn(found: Mapping[str, Package]) -> str:
    """Return the picture as SVG."""
    placed = levels(found)
    rows = [
        sorted(name for name in placed if placed[name] == level) for level in range(max(placed.values()) + 1)
    ]
    rows.reverse()
    page_width = 2 * MARGIN + max(len(row) for row in rows) * (WIDTH + GAP_X) - GAP_X
    page_height = 2 * MARGIN + len(rows) * (HEIGHT + GAP_Y) - GAP_Y
    corners = {}
    for number, row in enumerate(rows):
        left = (page_width - len(row) * (WIDTH + GAP_X) + GAP_X) / 2
        for place, name in enumerate(row):
            corners[name] = (left + place * (WIDTH + GAP_X), MARGIN + number * (HEIGHT + GAP_Y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {page_width} {page_height}" '
        f'width="{page_width}" height="{page_height}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#8d99ae"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for above, below in arrows(found):
        (x, y), (to_x, to_y) = corners[above], corners[below]
        x, to_x, y = x + WIDTH / 2, to_x + WIDTH / 2, y + HEIGHT
        path = f"M{x:g} {y:g}C{x:g} {y + GAP_Y:g} {to_x:g} {to_y - GAP_Y:g} {to_x:g} {to_y:g}"
        parts.append(f'<path d="{path}" fill="none" stroke="#8d99ae" marker-end="url(#head)"/>')
    for name, (x, y) in corners.items():  # the tests find the names by their class
        left, right, first, second = x + 12, x + WIDTH - 12, y + 18, y + 34
        parts += [
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#edf2f4" '
            'stroke="#2b2d42"/>',
            f'<text x="{left:g}" y="{first:g}" class="box" font-size="14" font-weight="bold">{name}</text>',
            f'<text x="{left:g}" y="{second:g}">{escape(PURPOSES[name])}</text>',
            f'<text x="{right:g}" y="{first:g}" text-anchor="end">{found[name].lines:,} lines</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(drawn(packages()), encoding="utf-8")
