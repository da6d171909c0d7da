"""Draw the README's picture of speed: ``python docs/pictures/speed.py [RESULT]`` writes speed.svg.

RESULT is what `nnkit bench peers` recorded, by default bench/results/cpu-peers.json. Each panel is a network:
the time of a training step in each library, and the loss after the same epochs from the same weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from nnkit.bench.records import Record, load_result, text

HERE = Path(__file__).resolve().parent
OWN, OTHER, INK = "#d1495b", "#8d99ae", "#2b2d42"
# Text stays text, and two drawings of the same records are the same bytes.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "speed",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
}


def draw_network(axes: plt.Axes, records: list[Record]) -> None:
    """Draw the steps on one network, the fastest first; whiskers from the 10th to the 90th percentile."""
    records = sorted(records, key=lambda record: record.figures["step"].median)
    steps = [record.figures["step"] for record in records]
    places = range(len(records))
    colors = [OWN if record.name == "nnkit" else OTHER for record in records]
    spread = [[step.median - step.low for step in steps], [step.high - step.median for step in steps]]
    axes.barh(places, [step.median for step in steps], height=0.62, color=colors)
    axes.errorbar(
        [step.median for step in steps], places, xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2
    )
    widest = max(step.high for step in steps)
    for place, record, step in zip(places, records, steps, strict=True):
        label = f"{text('s', step.median)}, loss {record.figures['loss'].median:.4g}"
        axes.text(step.high + 0.02 * widest, place, label, va="center", fontsize=9)
    axes.set_yticks(places, [record.name for record in records])
    axes.tick_params(length=0, colors=INK)
    axes.set_xticks([])
    axes.set_xlim(0, 1.75 * widest)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    parameters = records[0].parameters
    title = f"{parameters['network']}, batches of {parameters['batch']}"
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")


def main() -> None:
    """Write speed.svg beside this file."""
    default = HERE.parents[1] / "bench" / "results" / "cpu-peers.json"
    result = load_result(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
    networks: dict[object, list[Record]] = {}
    for record in result.records:
        if record.section == "peers" and not record.skipped:
            networks.setdefault(record.parameters["network"], []).append(record)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(networks), 1, figsize=(7.6, 1.75 * len(networks) + 0.8), squeeze=False
        )
        for axes, records in zip(panels[:, 0], networks.values(), strict=True):
            draw_network(axes, records)
        machine = result.machine
        where = f"{machine['processor']}, {machine['  cores']} cores, float32, {result.measured[:10]}"
        title = f"Time of a training step: shorter is better ({where}).\n"
        title += "Beside it the loss after the same epochs from the same weights."
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.tight_layout()
        figure.savefig(HERE / "speed.svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
