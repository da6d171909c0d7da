"""A limit on the nesting of a file's values: Python's recursion ends at about a thousand levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_too_deep"]

_MOST_LEVELS = 100  # nnkit's own files have fewer than ten


def is_too_deep(value: Any) -> bool:
    """Tell whether mappings and lists are nested more than a hundred levels deep.

    Such a value may be parsed without an error, and then breaks recursive functions such as `repr` and
    `json`.
    """
    level = [value]
    for _ in range(_MOST_LEVELS):
        nodes = [node for node in level if isinstance(node, Mapping | list)]
        level = [child for node in nodes for child in (node.values() if isinstance(node, Mapping) else node)]
        if not level:
            return False
    return True
