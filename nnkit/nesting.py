"""How deeply the values of a file are nested: Python's own functions end at about a thousand levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_too_deep"]

# What nnkit writes has fewer than ten levels.
_MOST_LEVELS = 100


def is_too_deep(value: Any) -> bool:
    """Tell whether mappings and lists are nested in more than a hundred levels.

    Such a value can often be parsed, and then breaks whatever walks through it by recursion: `repr`, `json`.
    """
    level = [value]
    for _ in range(_MOST_LEVELS):
        nodes = [node for node in level if isinstance(node, Mapping | list)]
        level = [child for node in nodes for child in (node.values() if isinstance(node, Mapping) else node)]
        if not level:
            return False
    return True
