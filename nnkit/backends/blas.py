"""The BLAS that NumPy loaded: its name, its threads, and its core type."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["blas_threads", "describe_blas", "usable_cores"]


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_blas() -> dict[str, str]:
    """Return NumPy's BLAS as `nnkit info` shows it, with ``not known`` for a value that is not."""
    import numpy  # noqa: F401  (loads the BLAS that is asked about)
    from threadpoolctl import threadpool_info

    cores = str(usable_cores())
    pools = [pool for pool in threadpool_info() if pool.get("user_api") == "blas"]
    numpy_pools = [pool for pool in pools if "numpy" in str(pool.get("filepath", ""))] or pools
    if not numpy_pools:
        return {"cores": cores, "BLAS": "not known"}
    pool = numpy_pools[0]
    return {
        "cores": cores,
        "BLAS": f"{pool.get('internal_api', 'not known')} {pool.get('version') or ''}".strip(),
        "BLAS threads": str(pool.get("num_threads", "not known")),
        "BLAS core type": str(pool.get("architecture", "not known")),
    }


@contextmanager
def blas_threads(count: str) -> Iterator[None]:
    """Multiply with `count` threads inside the context; a text that is no such number changes nothing."""
    from threadpoolctl import threadpool_limits

    # The text may come from a damaged file: at most three digits are taken as a number of threads.
    given = re.fullmatch("[1-9][0-9]{0,2}", count) is not None
    with threadpool_limits(int(count) if given else None, user_api="blas"):
        yield
