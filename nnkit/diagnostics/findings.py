"""Findings: what is wrong with a training; those of its settings, and the file of a run's findings.

Order: a finding, the checks of settings, reading and writing. Data, curves and the network in training have
their checks in files beside this one.
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

# The range of an activation's outputs.
_RANGES: Mapping[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "softplus": (0.0, math.inf),
}
# A larger share of targets out of range is more than a single mistyped row.
_OUTSIDE_SHARE = 0.01


@dataclass(frozen=True)
class Finding:
    """A reason why a network does not learn, or why its figures mislead."""

    name: str  # of the mistake, such as "overfitting"
    severity: Severity  # serious: the training is likely to fail, or its figures to mislead
    seen: str  # the observation, with its figure
    why: str  # why that matters, in one sentence
    change: str  # what to change: a setting and a value

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')}: {self.seen}\n  {self.why} {self.change}"

    def to_json(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Finding:
        """Return the finding of a JSON object; raises `ModelFileError` if it is none."""
        fields = ("name", "severity", "seen", "why", "change")
        known = isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in fields)
        if not known or value["severity"] not in get_args(Severity):
            raise ModelFileError(f"not a finding: {shown(value)}")
        # JSON may hold lone surrogates, which cannot be written.
        return cls(**{key: value[key].encode("utf-8", "replace").decode() for key in fields})


def check_settings(layers: Sequence[Layer], loss: Loss, targets: NDArray | None = None) -> list[Finding]:
    """Return the findings of a network's layers, its loss and the encoded targets, before training."""
    *hidden, output = (layer.activation if layer.activates else "identity" for layer in all_layers(layers))
    found = (
        _deep(hidden),
        _doubled(output, loss),
        _out_of_range(output, loss, targets),
        _unfit(loss, targets),
    )
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
        'Leave out model.activation, or set it to "relu".',
    )


def _doubled(output: str, loss: Loss) -> Finding | None:
    """Find an activation before the loss's own link, which expects logits of any size."""
    if loss.link == "identity" or output == "identity":
        return None
    return Finding(
        "doubled_output",
        "serious",
        f"the output layer's {output} comes before the {loss.link} that is part of {loss.name}",
        f"The loss expects raw outputs: {output} limits them, so that probabilities cannot come near 0 and 1 "
        "and gradients fade."
        if loss.link != "exp"
        else f"The loss expects the logarithm of the rate, which {output} limits.",
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
        f"{outside:.0%} of the targets, as the network learns them (standardised), lie outside the range of "
        f"{output}, values {within}",
        "No weights can predict them, and where the output is flat there is no gradient.",
        'Set model.output = "auto", which leaves the outputs as they are.',
    )


def _unfit(loss: Loss, targets: NDArray | None) -> Finding | None:
    """Find a target for which the loss is not meant, though it can be computed."""
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
    two_values = len(targets) > 2 and all(len(np.unique(column)) <= 2 for column in targets.T)
    if loss.link != "identity" or not two_values:
        return None
    return Finding(
        "unfit_loss",
        "serious",
        f"the target has two values only, and {loss.name} treats them as quantities",
        "Its gradient fades where a class is predicted wrongly with confidence, and the output is no "
        "probability.",
        'Set data.task = "classification" and training.loss = "auto".',
    )


# --- reading and writing ---


def write_findings(
    path: str | os.PathLike[str], findings: Iterable[Finding], figures: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Write findings, and figures as `NetworkFigures.to_json` returns them, as JSON, whole or not at all.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    found = [finding.to_json() for finding in findings]
    content = {"format": _FORMAT, "findings": found, "figures": list(figures)}
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_findings(path: str | os.PathLike[str]) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Read a file of `write_findings`: the findings, and the network's figures.

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
