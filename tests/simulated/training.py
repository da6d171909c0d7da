"""A small training on the simulated device, as a program: what it compiled and how it ended, as JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from simulated import install
from simulated.driver import driver

install()

from numba.cuda import dispatcher  # noqa: E402
from numba.cuda.cudadrv import driver as linking  # noqa: E402
from numba.cuda.cudadrv import nvvm  # noqa: E402

from nnkit import Dense, Dropout, Network, Trainer  # noqa: E402
from nnkit.backends import select  # noqa: E402

calls: Counter[str] = Counter()


def counted(module: Any, name: str) -> None:
    """Count the calls of a module's function."""
    plain = getattr(module, name)

    def call(*arguments: Any, **options: Any) -> Any:
        calls[name] += 1
        return plain(*arguments, **options)

    setattr(module, name, call)


def losses(device: str) -> list[float]:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(40, 5)), np.arange(40) % 3
    network = Network([Dense(12, "tanh"), Dropout(0.2), Dense(3)])
    trainer = Trainer(network, "cross_entropy", device=device, seed=1)
    return [float(loss) for loss in trainer.fit(X, y, epochs=2, batch_size=16)["loss"]]


if __name__ == "__main__":
    for module, name in ((dispatcher, "compile_cuda"), (nvvm, "compile_ir"), (linking, "_Linker")):
        counted(module, name)
    found = losses("cuda")
    described = select("cuda").backend.describe()
    kind = {key: described[key] for key in ("products", "captured steps")}
    told = {**kind, "calls": calls, "errors": driver().errors, "launches": driver().launches.total()}
    print(json.dumps({**told, "losses": found, "cpu": losses("cpu")}))
