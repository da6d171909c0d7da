"""The programs of `bench/gpu` are the package `gpu`, which lies beside this project's own package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "bench"))
