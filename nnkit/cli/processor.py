"""Choosing the BLAS kernels for this processor."""

from __future__ import annotations

import os


def take_the_processors_blas() -> None:
    """Start this process again if OpenBLAS chose kernels for a lesser processor than this one."""
    if "OPENBLAS_CORETYPE" not in os.environ:
        from nnkit.backends.blas import describe_blas
        from nnkit.backends.tuning import begin_anew_with, better_core_type, processor_flags

        better = better_core_type(describe_blas().get("BLAS core type", ""), processor_flags())
        if better is not None:
            begin_anew_with(better)
