"""The plot of a learning-rate range test: each step's loss by its rate, and the rate that follows."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnkit.diagnostics.rate_test import RateCurve
from nnkit.insight.drawing import Palette, Plot

__all__ = ["rate_plot"]

_ABOVE = 1.3  # of what the smoothed loss was before it fell: a loss that soars would flatten all else


def rate_plot(curve: RateCurve) -> Plot:
    """Return the curve with the suggested rate and that of least loss.

    Parameters
    ----------
    curve : RateCurve
        As `nnkit.diagnostics.rate_test.find_rate` returns it.
    """
    low = float(curve.smoothed.min())
    top = float(curve.smoothed[: int(np.argmin(curve.smoothed)) + 1].max())

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.add_subplot()
        axes.plot(curve.rates, curve.losses, ".", markersize=3, color=palette.soft, label="a step's own")
        axes.plot(curve.rates, curve.smoothed, color=palette.series[0], label="smoothed")
        for rate, name, number in ((curve.suggested, "suggested", 1), (curve.least, "least loss", 2)):
            line = palette.line(number)
            axes.axvline(rate, color=line["color"], linestyle="--", label=f"{name}: {rate:.2g}")
        axes.set_xscale("log")
        room = 0.1 * max(top - low, 1e-12)
        axes.set_ylim(low - room, low + _ABOVE * max(top - low, 1e-12))
        axes.set_xlabel("learning rate (of one step, rising)")
        axes.set_ylabel("loss (mean of a row of the batch)")
        axes.grid()
        figure.legend(loc="outside lower center", ncols=2)

    rises = "and rises beyond" if curve.diverged else "and does not rise up to the last rate"
    words = (
        f"The loss as the learning rate rises from {curve.rates[0]:.2g} to {curve.rates[-1]:.2g}: it is "
        f"least at {curve.least:.2g}, {rises}. The rate suggested is a tenth of that, {curve.suggested:.2g}."
    )
    rows = [
        [f"{rate:.4g}", f"{loss:.6g}", f"{smooth:.6g}"]
        for rate, loss, smooth in zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    ]
    headers = ["learning rate", "loss", "smoothed"]
    return Plot("rate", "Learning-rate range test", words, headers, rows, draw, (4.8, 3.9))
