"""Time an embedding beside PyTorch's EmbeddingBag, and its memory: `python bench/embedding.py`.

Documents of tokens, the mean of their vectors of 64, one dense layer, batches of 128. Both train from the
same weights over the same batches, in turns in one process; PyTorch's gradients are sparse, with SGD or
SparseAdam. Uniform words are equally frequent, so that nearly each token has a row of its own; natural ones
are as rare as their rank is high.

Then nnkit alone, for several vocabularies, each in a process of its own. Where few of the words are used,
only the table's size differs. Its arrays are the parameters, the optimizer's state, the batch, and 28 bytes
a document and 4 a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from program import in_a_process, in_turns, is_installed, parser, save

from nnkit.backends import select
from nnkit.bench.records import Aim, Record, measured, once
from nnkit.engine.objective import Penalty
from nnkit.engine.step import Step
from nnkit.feed.batch import Rows
from nnkit.feed.features import Bags, Features
from nnkit.nn.layers import Dense, Embedding
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import optimizer_from

NNKIT, TORCH, ONE_THREAD = "nnkit", "PyTorch", "PyTorch, one thread"
WIDTH, BATCH, CLASSES, RATE = 64, 128, 2, 1e-3
DRAWN_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Size:
    """The documents and their tokens, batches a turn, turns that count, and vocabularies."""

    documents: int = 1_000_000
    tokens: int = 100
    steps: int = 50
    turns: int = 15
    vocabularies: tuple[int, ...] = (20_000, 200_000, 2_000_000)


@dataclass(frozen=True)
class Setting:
    """What is trained: `vocabulary` rows of the table, of which the documents name `used`."""

    optimizer: str
    words: str
    vocabulary: int
    used: int


def documents(size: Size, words: str, used: int) -> NDArray[np.int32]:
    """Draw the documents' ids, shape (documents, tokens), a stretch at a time."""
    random = np.random.default_rng(0)
    ids = np.empty(size.documents * size.tokens, np.int32)
    for first in range(0, len(ids), DRAWN_AT_ONCE):
        part = ids[first : first + DRAWN_AT_ONCE]
        if words == "uniform":
            part[:] = random.integers(0, used, len(part), np.int32)
        else:  # the density of a rank is 1 / rank
            part[:] = np.minimum(np.exp(random.random(len(part)) * np.log(used + 1)) - 1, used - 1)
    return ids.reshape(size.documents, size.tokens)


def labels(count: int) -> NDArray[np.int32]:
    """Draw the documents' classes."""
    return np.random.default_rng(1).integers(0, CLASSES, count, np.int32)


def order(count: int) -> NDArray[np.int64]:
    """Draw the order in which the documents are trained on."""
    return np.random.default_rng(2).permutation(count)


class Nnkit:
    """nnkit's step over the documents."""

    def __init__(self, ids: NDArray[np.int32], setting: Setting) -> None:
        count, tokens = ids.shape
        backend = select("cpu").backend
        network = Network([Embedding(setting.vocabulary, WIDTH), Dense(CLASSES)])
        network.initialize(0, 0, np.float32, backend)
        bags = Bags(ids.reshape(-1), np.arange(0, count * tokens + 1, tokens), setting.vocabulary)
        features = Features(np.empty((count, 0), np.float32), bags=(bags,))
        rows = Rows(backend, np.float32, features, labels(count), shuffled=True)
        loss, optimizer = loss_from("cross_entropy"), optimizer_from(setting.optimizer)
        self.network = network
        self.step = Step(network.places, network.arena, loss, Penalty(), BATCH, 0, optimizer, rows)
        self.step.begin_epoch(0, order(count), np.full(self.step.steps_per_epoch, RATE))
        self._done = 0

    def run(self, steps: int) -> None:
        """Train on the next batches of the epoch, which all turns together do not reach the end of."""
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
        parameters = {name: torch.from_numpy(value.copy()) for name, value in network.parameters().items()}
        table = torch.nn.EmbeddingBag(setting.vocabulary, WIDTH, mode="mean", sparse=True)
        head = torch.nn.Linear(WIDTH, CLASSES)
        with torch.no_grad():
            table.weight.copy_(parameters["layers.0.weight"])
            head.weight.copy_(parameters["layers.1.weight"].T)
            head.bias.copy_(parameters["layers.1.bias"])
        if setting.optimizer == "sgd":
            self._optimizers = [torch.optim.SGD([*table.parameters(), *head.parameters()], lr=RATE)]
        else:
            self._optimizers = [
                torch.optim.SparseAdam(table.parameters(), lr=RATE),
                torch.optim.Adam(head.parameters(), lr=RATE),
            ]
        self._table, self._head = table, head
        self._ids, self._order = torch.from_numpy(ids), torch.from_numpy(order(len(ids)))
        self._labels = torch.from_numpy(labels(len(ids))).long()
        self._done, self._sum = 0, 0.0

    def run(self, steps: int) -> None:
        """Train on the next batches of the epoch."""
        self._torch.set_num_threads(self._threads)
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


def compare(size: Size, setting: Setting) -> Record:
    """Train both in turns; the same work shows in equal losses."""
    blank = Record("beside PyTorch", f"{setting.optimizer}, {setting.words} words")
    if not is_installed("torch"):
        return replace(blank, skipped="torch is not installed")
    import torch

    ids = documents(size, setting.words, setting.used)
    ours = Nnkit(ids, setting)
    contenders: dict[str, Nnkit | Torch] = {NNKIT: ours}
    for name, threads in ((TORCH, torch.get_num_threads()), (ONE_THREAD, 1)):
        contenders[name] = Torch(ids, setting, ours.network, threads)
    for contender in contenders.values():
        contender.run(size.steps)
    losses = {name: contender.loss() for name, contender in contenders.items()}
    taken = in_turns({name: partial(one.run, size.steps) for name, one in contenders.items()}, size.turns)
    figures = {name: measured("s", values / size.steps) for name, values in taken.items()}
    for name in (TORCH, ONE_THREAD):
        figures[f"{name} / nnkit"] = measured("", taken[name] / taken[NNKIT], Aim(">=", 1.0))
    figures["difference of losses"] = once("", max(losses.values()) - min(losses.values()), Aim("<=", 1e-4))
    details = {"losses of the first turn": losses}
    return replace(blank, parameters={"vocabulary": setting.vocabulary}, figures=figures, details=details)


def memory(name: str) -> int:
    """Return a size of this process in bytes by its name in /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def alone(size: Size, setting: Setting) -> Record:
    """Train nnkit alone in this process, and measure its memory.

    The documents are there before, and so are the kernels, compiled by a small network of the same kind.
    """
    ids = documents(size, setting.words, setting.used)
    Nnkit(ids % 200, replace(setting, vocabulary=200, used=200)).run(3)
    before = memory("VmRSS")
    with suppress(OSError):  # else the libraries' peak stays in it
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    ours = Nnkit(ids, setting)
    ours.run(size.steps)
    grown = memory("VmHWM") - before
    taken = in_turns({NNKIT: partial(ours.run, size.steps)}, size.turns, rest=0.0)[NNKIT]
    held = {
        "arena": ours.network.arena.values.nbytes,
        "optimizer": sum(state.nbytes for state in ours.step.state.values()),
        "batch": batch_bytes(ours.step),
        "four bytes a row of the table": 4 * setting.vocabulary,
        "order, labels and starts": (8 + 8 + 4 + 8) * len(ids),
    }
    figures = {
        "a batch": measured("s", taken / size.steps),
        "memory": once("B", grown),
        "memory / its arrays": once("", grown / sum(held.values())),
    }
    parameters = {"vocabulary": setting.vocabulary, "used": setting.used}
    details = {"bytes of its arrays": held}
    return Record("alone", setting.optimizer, parameters=parameters, figures=figures, details=details)


def batch_bytes(step: Step) -> int:
    """Return the bytes of the arrays that are as long as a batch."""
    (rows,) = step.passes.row_gradients
    tokens = step.rows.most_tokens(BATCH)[0]
    numbers = rows.gradient.nbytes + 4 * BATCH * (3 * WIDTH + 4 * CLASSES)
    # A token's place, owner, row and the row's start; and the keys, a power of two.
    return numbers + tokens * (4 + 4 + 4 + 8) + 8 * (1 << (tokens - 1).bit_length())


def records(size: Size) -> Iterator[Record]:
    """Compare for each optimizer and kind of word, and measure each vocabulary alone."""
    small, middle, _ = size.vocabularies
    for optimizer in ("sgd", "adam"):
        for words in ("uniform", "natural"):
            yield compare(size, Setting(optimizer, words, middle, middle))
    for optimizer in ("sgd", "adam"):
        for vocabulary in size.vocabularies:
            for used in dict.fromkeys((vocabulary, small)):
                yield in_a_process(alone, size, Setting(optimizer, "uniform", vocabulary, used))


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    chosen = Size(5000, 20, 5, 3, (200, 2000, 20_000)) if given.tiny else Size()
    save(given, "An embedding beside PyTorch's", __doc__, records(chosen), ["torch"])
