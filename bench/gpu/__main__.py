"""`python bench/gpu run` and `merge`: see bench/gpu.sh."""

import sys
from pathlib import Path

# In place of this folder, whose modules are those of the package `gpu`.
sys.path[0] = str(Path(__file__).resolve().parents[1])
from gpu.program import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
