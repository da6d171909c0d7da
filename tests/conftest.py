"""Fixtures that several parts share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep compiled kernels in a folder of this session's, unless NNKIT_CACHE names one."""
    if "NNKIT_CACHE" in os.environ:
        yield Path(os.environ["NNKIT_CACHE"])
        return
    folder = tmp_path_factory.mktemp("cache")
    os.environ["NNKIT_CACHE"] = str(folder)
    yield folder
    del os.environ["NNKIT_CACHE"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the repository; skip where it is not there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not there")
    return folder
