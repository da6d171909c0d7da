"""Skipping what needs a package of one of nnkit's extras."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from nnkit.extras import install_command


def require(module: str) -> Any:
    """Import a module of an optional package, or skip; one place skips, so that one line counts them."""
    package = module.split(".")[0]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: {install_command(package)}", allow_module_level=True)
    return import_module(module)
