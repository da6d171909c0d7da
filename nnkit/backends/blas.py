"""What the CPU multiplies with: the BLAS that NumPy loaded, its threads, and the core type it chose."""

from __future__ import annotations

import os

__all__ = ["describe_blas"]


def describe_blas() -> dict[str, str]:
    """Return NumPy's BLAS as `nnkit info` shows it; where it cannot be told, the values say so."""
    import numpy  # noqa: F401  (loads the BLAS that is asked about)
    from threadpoolctl import threadpool_info

    cores = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
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
