"""Time an embedding beside PyTorch's EmbeddingBag and write it as JSON: `python bench/embedding.py [NAME]`.

A million documents of a hundred tokens, a mean of vectors of 64 and one dense layer. Both sides train from
the same weights over the same batches, in turns in one process, PyTorch with sparse gradients, from the same
array of ids, with all its threads and with one. Then nnkit alone, for vocabularies of three sizes, each in a
process of its own: the time a batch, and the memory taken. `--quick` tries it out in a minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import select
from nnkit.benchmarks.memory import peak, reset_peak, resident
from nnkit.benchmarks.timing import REST, in_turns, ratio, spread
from nnkit.engine.objective import Penalty
from nnkit.engine.step import Step
from nnkit.feed.batch import Rows
from nnkit.feed.features import Bags, Features
from nnkit.nn.layers import Dense, Embedding
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import optimizer_from

BENCH = Path(__file__).resolve().parent
NNKIT, TORCH, ONE_THREAD = "nnkit", "PyTorch", "PyTorch, one thread"
WIDTH, BATCH, CLASSES, RATE = 64, 128, 2, 1e-3
VOCABULARIES = (20_000, 200_000, 2_000_000)
DRAWN_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Parameters
    ----------
    documents, tokens : int
        How many there are, and how long each is.
    steps : int
        Batches to a turn.
    repeats : int
        Turns that count.
    """

    documents: int = 1_000_000
    tokens: int = 100
    steps: int = 50
    repeats: int = 15


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Parameters
    ----------
    optimizer : {"sgd", "adam"}
        PyTorch's are SGD, and SparseAdam with Adam for the dense layer.
    words : {"uniform", "natural"}
        Whether each word is as frequent as any other, which leaves hardly a row that two tokens share, or as
        rare as its rank is high, as in a language.
    vocabulary : int
        The rows of the table.
    used : int
        Of these, how many the documents name.
    """

    optimizer: str
    words: str
    vocabulary: int
    used: int


def documents(size: Size, words: str, used: int) -> NDArray[np.int32]:
    """Draw the documents' ids, shape (documents, tokens), a stretch at a time into their place."""
    random = np.random.default_rng(0)
    ids = np.empty(size.documents * size.tokens, np.int32)
    for first in range(0, len(ids), DRAWN_AT_ONCE):
        part = ids[first : first + DRAWN_AT_ONCE]
        if words == "uniform":
            part[:] = random.integers(0, used, len(part), np.int32)
        else:  # the density of a rank is 1 / rank
            part[:] = np.minimum(np.exp(random.random(len(part)) * np.log(used + 1)) - 1, used - 1)
    return ids.reshape(size.documents, size.tokens)


class Nnkit:
    """nnkit's step over the documents, its epoch's order drawn from a seed."""

    def __init__(self, ids: NDArray[np.int32], setting: Setting) -> None:
        count, tokens = ids.shape
        backend = select("cpu").backend
        network = Network([Embedding(setting.vocabulary, WIDTH), Dense(CLASSES)])
        network.initialize(0, 0, np.float32, backend)
        starts = np.arange(0, count * tokens + 1, tokens)
        bags = Bags(ids.reshape(-1), starts, setting.vocabulary)
        features = Features(np.empty((count, 0), np.float32), bags=(bags,))
        rows = Rows(backend, np.float32, features, labels(count), shuffled=True)
        loss, optimizer = loss_from("cross_entropy"), optimizer_from(setting.optimizer)
        self.network = network
        self.step = Step(network.places, network.arena, loss, Penalty(), BATCH, 0, optimizer, rows)
        self.step.begin_epoch(0, order(count), np.full(self.step.steps_per_epoch, RATE))
        self._done = 0

    def run(self, steps: int) -> None:
        """Train on the next batches; the epoch begins anew where it would end."""
        if self._done + steps > self.step.steps_per_epoch:
            self._done = 0
        self.step.run(self._done, steps)
        self._done += steps

    def loss(self) -> float:
        """Return the mean loss of all batches so far."""
        return self.step.read().loss


class Torch:
    """PyTorch's EmbeddingBag with sparse gradients, from nnkit's weights."""

    def __init__(self, ids: NDArray[np.int32], setting: Setting, network: Network, threads: int) -> None:
        import torch

        self._torch, self._threads = torch, threads
        parameters = network.parameters()
        self._table = torch.nn.EmbeddingBag(setting.vocabulary, WIDTH, mode="mean", sparse=True)
        self._head = torch.nn.Linear(WIDTH, CLASSES)
        with torch.no_grad():
            self._table.weight.copy_(torch.from_numpy(parameters["layers.0.weight"]))
            self._head.weight.copy_(torch.from_numpy(parameters["layers.1.weight"].T.copy()))
            self._head.bias.copy_(torch.from_numpy(parameters["layers.1.bias"]))
        both = [*self._table.parameters(), *self._head.parameters()]
        if setting.optimizer == "sgd":
            self._optimizers = [torch.optim.SGD(both, lr=RATE)]
        else:
            self._optimizers = [
                torch.optim.SparseAdam(self._table.parameters(), lr=RATE),
                torch.optim.Adam(self._head.parameters(), lr=RATE),
            ]
        self._ids = torch.from_numpy(ids)
        self._labels = torch.from_numpy(labels(len(ids))).long()
        self._order = torch.from_numpy(order(len(ids)))
        self._done, self._sum = 0, 0.0
        self._per_epoch = -(-len(ids) // BATCH)

    def run(self, steps: int) -> None:
        """Train on the next batches; the epoch begins anew where it would end."""
        self._torch.set_num_threads(self._threads)
        if self._done + steps > self._per_epoch:
            self._done = 0
        for step in range(self._done, self._done + steps):
            rows = self._order[step * BATCH : (step + 1) * BATCH]
            # 64-bit ids: with 32 bits its sparse gradient takes longer.
            outputs = self._head(self._table(self._ids[rows].long()))
            loss = self._torch.nn.functional.cross_entropy(outputs, self._labels[rows])
            for optimizer in self._optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in self._optimizers:
                optimizer.step()
            self._sum += float(loss.detach())
        self._done += steps

    def loss(self) -> float:
        """Return the mean loss of all batches so far."""
        return self._sum / self._done


def labels(count: int) -> NDArray[np.int32]:
    """Draw the documents' classes."""
    return np.random.default_rng(1).integers(0, CLASSES, count, np.int32)


def order(count: int) -> NDArray[np.int64]:
    """Draw the order in which they are trained on."""
    return np.random.default_rng(2).permutation(count)


def compare(size: Size, setting: Setting) -> dict[str, Any]:
    """Train both in turns; return the seconds a batch, and how many times faster nnkit is."""
    import torch

    ids = documents(size, setting.words, setting.used)
    ours = Nnkit(ids, setting)
    contenders: dict[str, Nnkit | Torch] = {
        NNKIT: ours,
        TORCH: Torch(ids, setting, ours.network, torch.get_num_threads()),
        ONE_THREAD: Torch(ids, setting, ours.network, 1),
    }
    for contender in contenders.values():
        contender.run(size.steps)
    losses = {name: contender.loss() for name, contender in contenders.items()}
    turns = [partial(contender.run, size.steps) for contender in contenders.values()]
    taken = [seconds / size.steps for seconds in in_turns(turns, size.repeats, rest=REST)]
    seconds = dict(zip(contenders, taken, strict=True))
    faster = {name: ratio(seconds[name], seconds[NNKIT]).to_json() for name in (TORCH, ONE_THREAD)}
    least = min(figure["median"] for figure in faster.values())
    same = max(losses.values()) - min(losses.values()) < 1e-4
    return {
        **asdict(setting),
        "seconds": {name: spread(values).to_json() for name, values in seconds.items()},
        "times faster": faster,
        "loss of the first turn": losses,
        "same work": same,
        "aim": 1.0,
        "reached": bool(same and least >= 1.0),
    }


def alone(size: Size, setting: Setting) -> dict[str, Any]:
    """Train nnkit alone in this process; return the seconds a batch, and the memory that it took.

    The documents are there before, and a small network of the same kind, with its kernels.
    """
    ids = documents(size, setting.words, setting.used)
    small = replace(setting, vocabulary=200, used=200)
    kept = [Nnkit(ids % 200, small)]
    kept[0].run(3)
    kept.clear()
    before = resident()
    reset_peak()
    ours = Nnkit(ids, setting)
    ours.run(size.steps)
    grown = peak() - before
    (seconds,) = in_turns([partial(ours.run, size.steps)], size.repeats)
    arena = ours.network.arena
    held = {
        "arena": arena.values.nbytes,
        "optimizer": sum(state.nbytes for state in ours.step.state.values()),
        "batch": batch_bytes(ours.step),
        "four bytes a row of the table": 4 * setting.vocabulary,
        "order, labels and starts": (8 + 8 + 4 + 8) * len(ids),
    }
    return {
        **asdict(setting),
        "seconds": spread(seconds / size.steps).to_json(),
        "bytes taken": grown,
        "bytes of its arrays": held,
        "taken / its arrays": grown / sum(held.values()),
    }


def batch_bytes(step: Step) -> int:
    """Return the bytes of what is as long as a batch is."""
    (rows,) = step.passes.row_gradients
    tokens = step.rows.most_tokens(BATCH)[0]
    numbers = rows.gradient.nbytes + 4 * BATCH * (3 * WIDTH + 4 * CLASSES)
    # Of each token: its place, its owner, its row and where that begins; and keys, a power of two.
    return numbers + tokens * (4 + 4 + 4 + 8) + 8 * (1 << (tokens - 1).bit_length())


def measure(size: Size, quick: bool) -> dict[str, Any]:
    """Compare for each optimizer and kind of word, and look at three vocabularies."""
    middle = VOCABULARIES[1] // (100 if quick else 1)
    results: dict[str, Any] = {"size": asdict(size), "comparisons": [], "vocabularies": []}
    for optimizer in ("sgd", "adam"):
        for words in ("uniform", "natural"):
            found = compare(size, Setting(optimizer, words, middle, middle))
            results["comparisons"].append(found)
            show_comparison(found)
    for optimizer in ("sgd", "adam"):
        for vocabulary in VOCABULARIES:
            rows = vocabulary // (100 if quick else 1)
            for used in dict.fromkeys((rows, VOCABULARIES[0] // (100 if quick else 1))):
                found = in_a_process(size, Setting(optimizer, "uniform", rows, used))
                results["vocabularies"].append(found)
                show_vocabulary(found)
    return results


def in_a_process(size: Size, setting: Setting) -> dict[str, Any]:
    """Call `alone` in a process of its own."""
    given = json.dumps([asdict(size), asdict(setting)])
    command = [sys.executable, __file__, "--alone", given]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def show_comparison(found: dict[str, Any]) -> None:
    """Print a comparison in a line."""
    seconds = ", ".join(
        f"{name} {1e3 * s['median']:.3f} ms ({1e3 * s['low']:.3f} to {1e3 * s['high']:.3f})"
        for name, s in found["seconds"].items()
    )
    faster = ", ".join(f"{f['median']:.2f} times faster than {n}" for n, f in found["times faster"].items())
    same = "" if found["same work"] else f"; NOT the same work: {found['loss of the first turn']}"
    print(f"{found['optimizer']}, {found['words']}: {seconds}; {faster}{same}", flush=True)


def show_vocabulary(found: dict[str, Any]) -> None:
    """Print a vocabulary's figures in a line."""
    seconds = found["seconds"]
    print(
        f"{found['optimizer']}, {found['vocabulary']:,} words, {found['used']:,} used: "
        f"{1e3 * seconds['median']:.3f} ms ({1e3 * seconds['low']:.3f} to {1e3 * seconds['high']:.3f}), "
        f"{found['bytes taken'] / 2**20:.0f} MiB taken, {found['taken / its arrays']:.2f} of its arrays",
        flush=True,
    )


def main() -> None:
    """Write bench/results/NAME.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="?", default="embedding")
    parser.add_argument("--quick", action="store_true", help="small sizes, whose figures mean nothing")
    parser.add_argument("--out", type=Path, help="a file elsewhere")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        size, setting = json.loads(given.alone)
        print(json.dumps(alone(Size(**size), Setting(**setting))))
        return
    size = Size(documents=5_000, tokens=20, steps=5, repeats=3) if given.quick else Size()
    results = measure(size, given.quick)
    from nnkit.machine import describe_machine

    path = given.out or BENCH / "results" / f"{given.name}.json"
    path.parent.mkdir(exist_ok=True)
    machine = {**describe_machine(), "torch": version_of_torch()}
    path.write_text(json.dumps({"machine": machine, **results}, indent=2) + "\n")
    print(f"written to {path}")


def version_of_torch() -> str:
    """Return the version that took part."""
    from importlib.metadata import version

    return version("torch")


if __name__ == "__main__":
    main()
