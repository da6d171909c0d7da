"""What is wrong with a training: findings, those that the settings alone show, and the file that keeps them.

Order: a finding, the checks of settings, reading and writing. The checks of data, of curves and of the
network's own figures stand in files of their own beside this one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import FileError, ModelFileError, shown
from nnkit.files import write_whole
from nnkit.nesting import is_too_deep
from nnkit.nn.layers import Layer, all_layers
from nnkit.nn.losses import Loss

__all__ = ["Finding", "Severity", "check_settings", "read_findings", "write_findings"]

Severity = Literal["serious", "notice"]

_FORMAT = 1
_LARGEST_FILE = 2**26

# With four hidden layers of sigmoids the top one saturates and the ones below stop learning; tanh loses
# gradient layer by layer too, though less: Glorot and Bengio 2010, "Understanding the difficulty of training
# deep feedforward neural networks", sections 3.1 and 4.2. The guides draw the line at three.
_DEEP = 3

# What an activation can give at all.
_RANGES: Mapping[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "softplus": (0.0, math.inf),
}
# Further out than this share of a target's values lies more than a single mistyped row.
_OUTSIDE_SHARE = 0.01


@dataclass(frozen=True)
class Finding:
    """Something that keeps a network from learning, or its figures from being believed.

    Parameters
    ----------
    name : str
        Of the mistake, such as ``overfitting``.
    severity : {"serious", "notice"}
        Serious: the training is likely to fail, or its figures to mislead. A notice: worth a look.
    seen : str
        What was seen, with the figure.
    why : str
        Why that matters, in one sentence.
    change : str
        What to change: a setting and a value.
    """

    name: str
    severity: Severity
    seen: str
    why: str
    change: str

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')}: {self.seen}\n  {self.why} {self.change}"

    def to_json(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Finding:
        """Return the finding that `to_json` wrote; raises `ModelFileError` if it is none."""
        fields = ("name", "severity", "seen", "why", "change")
        known = isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in fields)
        if not known or value["severity"] not in get_args(Severity):
            raise ModelFileError(f"not a finding: {shown(value)}")
        # JSON may hold halves of characters, which cannot be written.
        return cls(**{key: value[key].encode("utf-8", "replace").decode() for key in fields})


def check_settings(layers: Sequence[Layer], loss: Loss, targets: NDArray | None = None) -> list[Finding]:
    """Return what the network and its loss show before any row is trained on.

    Parameters
    ----------
    layers : sequence of Layer
        Of the network.
    loss : Loss
        What it is trained with.
    targets : ndarray, optional
        Encoded, as the loss reads them.
    """
    shown = [layer.activation if layer.activates else "identity" for layer in all_layers(layers)]
    *hidden, output = shown
    found = [_deep(hidden), _doubled(output, loss), _out_of_range(output, loss, targets)]
    found.append(_unfit(loss, targets))
    return [finding for finding in found if finding is not None]


def _deep(hidden: Sequence[str]) -> Finding | None:
    squashing = [name for name in hidden if name in ("sigmoid", "tanh")]
    if len(squashing) < _DEEP:
        return None
    name = max(set(squashing), key=squashing.count)
    slope = "at most a quarter" if name == "sigmoid" else "less than one away from 0"
    return Finding(
        "saturating_activation",
        "serious" if name == "sigmoid" else "notice",
        f"{name} in {len(squashing)} hidden layers",
        f"The slope of {name} is {slope}, so the gradient shrinks at each layer and the first ones hardly "
        "learn.",
        'Set model.activation = "relu".',
    )


def _doubled(output: str, loss: Loss) -> Finding | None:
    """Find an activation before the loss's own link, which takes logits of any size."""
    if loss.link == "identity" or output == "identity":
        return None
    return Finding(
        "doubled_output",
        "serious",
        f"the output layer's {output} comes before the {loss.link} that is part of {loss.name}",
        f"The loss takes raw outputs: after {output} they are confined, so that probabilities cannot come "
        "near 0 and 1 and gradients fade."
        if loss.link != "exp"
        else f"The loss takes the logarithm of the rate, which {output} confines.",
        'Set model.output = "auto".',
    )


def _out_of_range(output: str, loss: Loss, targets: NDArray | None) -> Finding | None:
    """Find a regression whose targets the output's activation cannot reach."""
    if targets is None or loss.link != "identity" or output not in _RANGES:
        return None
    low, high = _RANGES[output]
    outside = float(np.mean((targets < low) | (targets > high)))
    if outside < _OUTSIDE_SHARE:
        return None
    within = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
    return Finding(
        "unreachable_targets",
        "serious",
        f"{outside:.0%} of the targets, as the network learns them (standardised), lie outside what "
        f"{output} gives, values {within}",
        "No weights can predict them, and where the output is flat there is no gradient.",
        'Set model.output = "auto", which leaves the outputs as they are.',
    )


def _unfit(loss: Loss, targets: NDArray | None) -> Finding | None:
    """Find a target that the loss was not made for, though it can be computed."""
    if targets is None or targets.dtype.kind != "f" or not targets.size:
        return None
    if loss.name.startswith("poisson") and targets.min() < 0:
        return Finding(
            "unfit_loss",
            "serious",
            f"{float(np.mean(targets < 0)):.1%} of the targets are negative, down to {targets.min():.4g}, "
            f"and {loss.name} is for counts and rates",
            "A Poisson rate is never negative, so that no output fits those rows.",
            'Set training.loss = "mse", or "huber" where there are outliers.',
        )
    if loss.link != "identity" or any(len(np.unique(column)) > 2 for column in targets.T):
        return None
    if len(targets) <= 2:
        return None
    return Finding(
        "unfit_loss",
        "serious",
        f"the target has two values only, and {loss.name} takes them for quantities",
        "Its gradient fades where a class is predicted wrongly with confidence, and what comes out is no "
        "probability.",
        'Set data.task = "classification" and training.loss = "auto".',
    )


# --- reading and writing ---


def write_findings(
    path: str | os.PathLike[str], findings: Iterable[Finding], figures: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Write findings, and the network's figures that they come from, as JSON, whole or not at all.

    Parameters
    ----------
    path : path-like
        The file.
    findings : iterable of Finding
        What was found.
    figures : iterable of mapping
        As `NetworkFigures.to_json` returns them, one for each epoch that was looked at.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    content = {
        "format": _FORMAT,
        "findings": [finding.to_json() for finding in findings],
        "figures": list(figures),
    }
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_findings(path: str | os.PathLike[str]) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Read what `write_findings` wrote: the findings, and the network's figures.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelFileError
        If it holds no findings.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        if len(content) > _LARGEST_FILE:
            raise ValueError("it is too large")
        value = json.loads(content)
        if is_too_deep(value) or not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        findings, figures = value.get("findings"), value.get("figures")
        if not isinstance(findings, list) or not isinstance(figures, list):
            raise ValueError("findings and figures are lists")
        if not all(isinstance(entry, dict) for entry in figures):
            raise ValueError("a network's figures are an object")
        return [Finding.from_json(finding) for finding in findings], figures
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: holds no findings of a training: {shown(str(error))}; remove it"
        ) from None
