"""The augmentation of training pictures, which the gather kernel applies; see `nnkit.kernels`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnkit.checks import Flag, Number
from nnkit.errors import ConfigError, shown, unknown_name

__all__ = ["Augmentation", "augmentation_from"]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a picture, drawn in each epoch as a function of the seed, the epoch and the row.

    The picture is mirrored, then shifted with its edges repeated, then erased in part.

    Parameters
    ----------
    shift : float
        The maximum shift as a fraction of the height and of the width, in [0, 0.5]; every whole number of
        pixels up to it is equally likely, in either direction.
    flip : bool
        Whether it is mirrored, left to right, with probability ½.
    erase : float
        The probability, in [0, 1], that a rectangle is set to 0 as the network sees it; its position is
        random and each side has any length up to half of the picture's (Zhong et al. 2017, arXiv:1708.04896).
    """

    shift: float = 0.0
    flip: bool = False
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name, check in (("shift", Number(0, 0.5)), ("flip", Flag()), ("erase", Number(0, 1))):
            check(f"augment's {name}", getattr(self, name))

    def __bool__(self) -> bool:
        return self.shift > 0 or self.flip or self.erase > 0

    def constants(self) -> dict[str, bool]:
        """Return the gather's flags."""
        return {"AUGMENTED": bool(self), "FLIP": self.flip, "ERASE": self.erase > 0}

    def arguments(self, shape: tuple[int, int, int], seed: int) -> dict[str, int]:
        """Return the gather's arguments for pictures of shape (channels, height, width)."""
        _, height, width = shape
        return {
            "height": height,
            "width": width,
            "most_down": round(self.shift * height),
            "most_right": round(self.shift * width),
            "erase_threshold": min(round(self.erase * 2**32), 2**32 - 1),
            "key0": seed & 0xFFFFFFFF,
            "key1": seed >> 32,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the settings as a JSON object."""
        return asdict(self)


def augmentation_from(value: Mapping[str, Any] | Augmentation | None) -> Augmentation | None:
    """Return the augmentation for a table such as ``{"shift": 0.1, "flip": True}``; None if it does nothing.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of its range.
    """
    if value is None or isinstance(value, Augmentation):
        return value or None
    if not isinstance(value, Mapping):
        raise ConfigError(f"augment = {shown(value)} must be a table such as {{shift = 0.1, flip = true}}")
    known = list(Augmentation.__dataclass_fields__)
    for name in value:
        if name not in known:
            raise unknown_name("setting", str(name), known, "in augment")
    return Augmentation(**value) or None
