"""Options given as a name, or as a table with a name and parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nnkit.errors import ConfigError, shown, unknown_name

__all__ = ["check_parameters", "named_options"]


def named_options(kind: str, value: Any, known: Collection[str], example: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters in a value such as ``{"name": "step", "every": 10}``.

    Raises
    ------
    ConfigError
        If there is no name, or it is not a known one. `kind` and `example` are for the message.
    """
    options = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{kind} = {shown(value)} must be a name or a table with one, such as {example}")
    if name not in known:
        raise unknown_name(kind, name, known)
    return name, options


def check_parameters(kind: str, name: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise `ConfigError` if a given parameter is not among the known ones."""
    for key in given:
        if key not in known:
            raise unknown_name("parameter", key, known, f"of the {kind} {name}")
