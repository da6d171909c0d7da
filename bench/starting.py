"""Measure importing nnkit, its command line, and the first step of a training: `python bench/starting.py`.

Whole processes. The first step ever compiles every kernel; the others find them in the cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from program import parser, run_nnkit, run_python, save

from nnkit.bench.records import Aim, Record, measured

IMPORTS = {
    "python alone": (["-c", "pass"], None),
    "import nnkit": (["-c", "import nnkit"], Aim("<=", 0.3)),
    "nnkit --help": (
        ["-c", "import sys; sys.argv = ['nnkit', '-h']; from nnkit.cli import main; main()"],
        Aim("<=", 0.7),
    ),
}
# One step of 784-512-512-10 from nothing; the process leaves when it is done.
FIRST_STEP = """
import os
import numpy as np
from nnkit import Adam, Dense, Network, Trainer

pixels = np.random.default_rng(0).integers(0, 256, (128, 784), np.uint8)
network = Network([Dense(512, "relu"), Dense(512, "relu"), Dense(10)])
trainer = Trainer(network, loss="cross_entropy", optimizer=Adam(1e-3), device="cpu")
trainer.fit(pixels, np.arange(128) % 10, epochs=1, batch_size=128)
os._exit(0)
"""


def records(tiny: bool) -> Iterator[Record]:
    """Measure each start; of those with a cache the first does not count."""

    def record(name: str, seconds: list[float], aim: Aim | None = None) -> Record:
        return Record("start", name, figures={"process": measured("s", np.array(seconds), aim)})

    few, many = (1, 1) if tiny else (5, 11)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        for name, (arguments, aim) in IMPORTS.items():
            yield record(name, [run_python(arguments, cache).seconds for _ in range(many)], aim)
        first = [run_python(["-c", FIRST_STEP], cache / str(number)).seconds for number in range(few)]
        yield record("first step ever", first, Aim("<=", 15.0))
        cached = [run_python(["-c", FIRST_STEP], cache / "0").seconds for _ in range(many)]
        yield record("first step, kernels cached", cached, Aim("<=", 2.0))
        trained = [
            run_nnkit(["train", "digits", "--out", str(cache / f"run{number}")], cache / "0").seconds
            for number in range(few + 1)
        ]
        yield record("nnkit train digits, kernels cached", trained[1:])


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    save(options, "Starting", __doc__, records(options.tiny))
