"""How pictures are varied while a network is trained on them; the gather does it, see `nnkit.kernels`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nnkit.checks import Flag, Number
from nnkit.errors import ConfigError, shown, unknown_name

__all__ = ["Augmentation", "augmentation_from"]


@dataclass(frozen=True)
class Augmentation:
    """What may be done to a picture, anew in each epoch, by draws of the seed, the epoch and its row.

    First it is mirrored, then moved, its edges repeated, then erased in part.

    Parameters
    ----------
    shift : float
        The greatest distance it is moved down or up, and right or left, as a share of its height and width,
        in [0, 0.5]; every whole number of pixels within it is equally likely.
    flip : bool
        Whether it is mirrored, left to right, half of the time.
    erase : float
        How probable it is that a rectangle of it is lost, in [0, 1]: each side of any length up to half of
        the picture's, anywhere in it, 0 as the network sees it (Zhong et al. 2017, arXiv:1708.04896).
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
        """Return what the gather is given, for pictures of (channels, height, width)."""
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
    """Return an augmentation given by its settings, as in ``{"shift": 0.1, "flip": True}``; None for none.

    Raises
    ------
    ConfigError
        If there is no such setting, or one is out of its range.
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
