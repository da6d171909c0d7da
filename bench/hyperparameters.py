"""What a search over each hyperparameter costs a fit: processor time, and files in the kernel cache.

    python bench/hyperparameters.py [OUT]

writes ``bench/results/hyperparameters.json``, or OUT. A value that were compiled anew would add files.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

VALUES = 10
OUT = Path(__file__).parent / "results" / "hyperparameters.json"


def main() -> None:
    """Fit once, so that everything is compiled, and then with values not seen before."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    warnings.simplefilter("ignore")  # that two epochs do not converge
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NNKIT_CACHE"] = folder
        records = measured(Path(folder))
    out.write_text(json.dumps({"values": VALUES, "fits": records}, indent=1) + "\n")
    for name, record in records.items():
        print(f"{name:18} {record['milliseconds']:6.1f} ms, {record['files']} new files")


def measured(cache: Path) -> dict[str, dict[str, float]]:
    """Return the processor time of a fit and the new files of all of them, by hyperparameter."""
    from nnkit import MLPClassifier, MLPRegressor

    random = np.random.default_rng(0)
    X, y = random.normal(size=(300, 5)), random.integers(0, 2, 300)
    common = {"hidden_layer_sizes": (8,), "max_iter": 2}
    made = {
        "learning_rate_init": lambda i: MLPClassifier(learning_rate_init=1e-3 * (1 + i), **common),
        "momentum": lambda i: MLPClassifier(solver="sgd", momentum=0.5 + 0.001 * i, **common),
        "beta_1": lambda i: MLPClassifier(beta_1=0.8 + 0.001 * i, **common),
        "label_smoothing": lambda i: MLPClassifier(
            loss={"name": "cross_entropy", "label_smoothing": 0.01 * (1 + i)}, **common
        ),
        "delta": lambda i: MLPRegressor(loss={"name": "huber", "delta": 0.1 * (1 + i)}, **common),
    }
    records = {}
    for name, make in made.items():
        make(0).fit(X, y)
        files, began = count(cache), time.process_time()
        for i in range(1, VALUES + 1):
            make(i).fit(X, y)
        seconds = time.process_time() - began
        records[name] = {"milliseconds": round(1e3 * seconds / VALUES, 1), "files": count(cache) - files}
    return records


def count(folder: Path) -> int:
    """Return how many files there are below a folder."""
    return sum(path.is_file() for path in folder.rglob("*"))


if __name__ == "__main__":
    main()
