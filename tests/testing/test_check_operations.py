"""The operations of real programs have no mistakes, and mistakes of every kind are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import Copy, Kernel, Operation, Product, Reduce
from nnkit.engine.full_batch import FullBatch
from nnkit.engine.inference import Inference
from nnkit.engine.input_gradient import InputGradient
from nnkit.engine.objective import Penalty
from nnkit.engine.precision import HalfPrecision
from nnkit.engine.step import Step
from nnkit.errors import ConfigError
from nnkit.feed.augmentation import Augmentation
from nnkit.feed.batch import Rows
from nnkit.feed.features import Bags, Features, SparseRows
from nnkit.kernels.formulas import relu
from nnkit.nn.layers import Activation, Dense, Dropout, Embedding, LayerNorm, PiecewiseLinear, Residual
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import optimizer_from
from nnkit.testing import check_operations

ROWS = 37


class Unrun:
    """A program that does nothing."""

    def run(self, count: int = 1) -> None:
        """Nothing."""


class Listening(NumpyBackend):
    """A backend that keeps the lists it is given, and the arrays that nothing was written to at first."""

    def __init__(self, shards: int = 1) -> None:
        self.lists: list[list[Operation]] = []
        self.unwritten: list[np.ndarray] = []
        self._shards = shards

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        array = super().empty(shape, dtype)
        self.unwritten.append(array)
        return array

    def compile(self, operations: Sequence[Operation]) -> Any:
        self.lists.append(list(operations))
        return Unrun()

    def shards(self, batch_size: int, work: float) -> int:
        return self._shards

    def compile_parallel(self, workers: Sequence[Sequence[Operation]]) -> Any:
        self.lists += [list(operations) for operations in workers]
        return Unrun()


def bags(random: np.random.Generator, size: int, weighted: bool = False) -> Bags:
    lengths = random.integers(0, 5, ROWS)
    tokens = int(lengths.sum())
    weights = random.random(tokens) if weighted else None
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Bags(random.integers(0, size, tokens).astype(np.int32), starts, size, weights)


def features_of(name: str) -> Features:
    random = np.random.default_rng(1)
    dense = random.normal(size=(ROWS, 5)).astype(np.float32)
    if name == "codes":
        codes = random.integers(0, 3, (ROWS, 2)).astype(np.int32)
        return Features(dense, np.zeros(5), np.ones(5), codes, (3, 3))
    if name == "sparse":
        return Features(dense[:, :0], sparse=SparseRows.of(_sparse(random), np.float32))
    if name == "pictures":
        pixels = random.integers(0, 256, (ROWS, 12), np.uint8)
        return Features(pixels, scale=np.full(12, 1 / 255), picture=(2, 2, 3))
    if name == "bags":
        return Features(dense, bags=(bags(random, 11), bags(random, 7, weighted=True)))
    if name == "maxima":
        return Features(dense[:, :0], bags=(bags(random, 11),))
    return Features(dense)


def _sparse(random: np.random.Generator) -> Any:
    from scipy import sparse

    return sparse.random(ROWS, 9, 0.4, "csr", np.float32, random)


TRAININGS: dict[str, dict[str, Any]] = {
    "dense": {},
    "activations of z, with dropout": {
        "layers": [Dense(9, "gelu"), Dropout(0.4), Dense(6, "relu"), Dropout(0.2), Dense(3)]
    },
    "an activation first and one last": {"layers": [Activation("tanh"), Dense(3), Activation("sigmoid")]},
    "residual blocks with norms": {
        "layers": [Dense(6, "relu"), Residual([LayerNorm(), Dense(6, "gelu"), Dropout(0.2)]), Dense(3)]
    },
    "piecewise-linear numbers": {
        "layers": [PiecewiseLinear(2, [(-1, 0, 1), (), (0, 1)]), Dense(8, "silu"), Dropout(0.2), Dense(3)]
    },
    "their shares by themselves": {"layers": [PiecewiseLinear(2, [(-1, 0, 1)]), LayerNorm(), Dense(3)]},
    "L1, L2 and clipping": {"penalty": Penalty(0.01, 0.1), "clip_norm": 0.5, "optimizer": "momentum"},
    "a penalty on the sum, by rows": {
        "penalty": Penalty(0.0, 0.1, "sum"),
        "average_rows": True,
        "weighted": True,
    },
    "one-hot codes, several targets": {"features": "codes", "loss": "huber", "optimizer": "sgd"},
    "sparse rows": {"features": "sparse", "loss": "binary_cross_entropy"},
    "pictures, varied": {"features": "pictures", "augmentation": Augmentation(0.4, True, 0.5)},
    "two embeddings": {
        "features": "bags",
        "layers": [Embedding(11, 4, "mean"), Embedding(7, 3, "sum"), Dense(8, "relu"), Dense(3)],
        "optimizer": "rmsprop",
        "penalty": Penalty(0.01, 0.1),
        "clip_norm": 0.5,
    },
    "an embedding alone, of maxima": {
        "features": "maxima",
        "layers": [Embedding(11, 4, "max"), Activation("relu"), Dense(3)],
    },
    "rows that stream": {"placement": "pageable"},
}


def network_and_rows(backend: NumpyBackend, **case: Any) -> tuple[Network, Rows]:
    features = features_of(case.get("features", "dense"))
    network = Network(case.get("layers", [Dense(9, "relu"), Dense(8, "tanh"), Dense(3)]))
    network.initialize(features.width, 1, np.float32, backend)
    random = np.random.default_rng(2)
    indices = case.get("loss", "cross_entropy") == "cross_entropy"
    y = random.integers(0, 3, ROWS).astype(np.int32) if indices else random.random((ROWS, 3))
    weights = random.random(ROWS) if case.get("weighted") else None
    shuffled = not case.get("as_they_lie")
    augmentation = case.get("augmentation")
    rows = Rows(
        backend, np.float32, features, y, weights, shuffled, augmentation, 7, case.get("placement", "device")
    )
    return network, rows


def step_of(backend: NumpyBackend, half: HalfPrecision | None = None, **case: Any) -> Step:
    network, rows = network_and_rows(backend, **case)
    return Step(
        network.places,
        network.arena,
        loss_from(case.get("loss", "cross_entropy")),
        case.get("penalty", Penalty()),
        16,
        7,
        optimizer_from(case.get("optimizer", "adam")),
        rows,
        case.get("clip_norm"),
        average_rows=case.get("average_rows", False),
        half=half,
    )


def checked(backend: Listening) -> None:
    """Check all lists, each of which may read what those before it have written."""
    assert backend.lists
    check_operations([one for operations in backend.lists for one in operations], backend.unwritten)


@pytest.mark.parametrize("name", TRAININGS)
def test_the_operations_of_a_step_have_no_mistakes(name: str) -> None:
    backend = Listening()
    step_of(backend, **TRAININGS[name]).rows.close()
    checked(backend)


@pytest.mark.parametrize("name", ["dense", "L1, L2 and clipping", "pictures, varied"])
def test_those_of_its_shards_have_none(name: str) -> None:
    backend = Listening(shards=2)
    step_of(backend, **TRAININGS[name])
    assert any(isinstance(one, Reduce) for operations in backend.lists for one in operations)
    checked(backend)


@pytest.mark.parametrize("name", ["dense", "residual blocks with norms", "two embeddings"])
def test_those_of_a_step_in_16_bits_have_none(name: str) -> None:
    backend = Listening()
    step_of(backend, HalfPrecision(np.dtype(np.float16), scales=True), **TRAININGS[name])
    checked(backend)


@pytest.mark.parametrize("name", TRAININGS)
def test_those_of_inference_with_a_loss_have_none(name: str) -> None:
    backend = Listening()
    case = {**TRAININGS[name], "as_they_lie": True, "augmentation": None}
    network, rows = network_and_rows(backend, **case)
    Inference(network.places, network.arena, rows, loss_from(case.get("loss", "cross_entropy")))
    checked(backend)


@pytest.mark.parametrize(
    "name", ["dense", "L1, L2 and clipping", "one-hot codes, several targets", "sparse rows"]
)
def test_those_of_a_full_batch_have_none(name: str) -> None:
    backend = Listening()
    case = {**TRAININGS[name], "as_they_lie": True}
    network, rows = network_and_rows(backend, **case)
    loss = loss_from(case.get("loss", "cross_entropy"))
    FullBatch(network.places, network.arena, loss, case.get("penalty", Penalty()), rows)
    checked(backend)


def test_those_of_an_input_gradient_have_none() -> None:
    backend = Listening()
    network, _ = network_and_rows(backend)
    InputGradient(network.places, network.arena)
    # Its inputs are written by hand.
    checked(backend)


# ---------------------------------------------------------------------------------------------------------
# Mistakes.
# ---------------------------------------------------------------------------------------------------------

ARENA = np.zeros(100, np.float32)


def matrix(start: int, rows: int, columns: int) -> np.ndarray:
    return ARENA[start : start + rows * columns].reshape(rows, columns)


def product(**changes: Any) -> Product:
    return replace(Product(matrix(0, 2, 3), matrix(10, 3, 4), matrix(30, 2, 4)), **changes)


def layer(**changes: Any) -> Kernel:
    arguments = {"z": matrix(0, 2, 4), "a": matrix(10, 2, 4), "bias": ARENA[20:24], **changes}
    return Kernel("forward", np.float32, {"activation": relu}, {"BIAS": True, "KEEP_Z": True}, arguments)


MISTAKES: dict[str, tuple[Operation, str]] = {
    "shapes of a product": (
        product(b=matrix(10, 2, 4)),
        r"a has shape \(2, 3\), b \(2, 4\), and out \(2, 4\)",
    ),
    "dimensions of a product": (product(b=ARENA[:3]), "not those of matrices"),
    "dtypes of a product": (product(out=np.zeros((2, 4))), "out float64"),
    "a product into its factor": (product(out=matrix(2, 2, 4)), "out shares memory with a"),
    "a factor in pieces": (
        product(a=ARENA[:24].reshape(2, 12)[:, ::4]),
        "a has contiguous elements along no",
    ),
    "shapes of a copy": (Copy(ARENA[:3], ARENA[4:8]), r"source is float32 \(3,\), target float32 \(4,\)"),
    "dtypes of a copy": (Copy(np.zeros(3), ARENA[:3]), "source is float64"),
    "a copy onto itself": (Copy(ARENA[:3], ARENA[2:5]), "source and target share memory"),
    "an unknown kernel": (replace(layer(), name="forwards"), "forwards: the catalogue has no such kernel"),
    "an argument too few": (layer(bias=None), "forward: bias is not given"),
    "a number for an array": (layer(bias=1.0), r"bias is no array, and should be \(columns\)"),
    "too few dimensions": (layer(a=ARENA[10:18]), r"a has shape \(8,\), and should be \(rows, columns\)"),
    "too many dimensions": (layer(bias=matrix(20, 1, 4)), r"bias has shape \(1, 4\)"),
    "another length": (layer(bias=ARENA[20:23]), "bias has 3 columns, and z 4"),
    "a result in an argument": (layer(bias=ARENA[16:20]), "a shares memory with bias"),
    "a result in another one": (layer(a=matrix(4, 2, 4)), "a shares memory with z"),
    "a mistake in a reduction": (Reduce(layer(bias=None)), "forward: bias is not given"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_operation(name: str) -> None:
    operation, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message) as raised:
        check_operations([product(), operation])
    assert [line.startswith("operation 1, ") for line in str(raised.value).split("\n")] == [True]


def test_what_nothing_has_written_must_not_be_read() -> None:
    fresh = np.empty((2, 4), np.float32)
    into = product(out=fresh)
    check_operations([into, Copy(fresh, matrix(40, 2, 4))], [fresh])
    with pytest.raises(ConfigError, match=r"operation 0, Copy: an array of shape \(2, 4\) is read that"):
        check_operations([Copy(fresh, matrix(40, 2, 4)), into], [fresh])


def test_columns_that_lie_between_each_other_share_nothing() -> None:
    left, right = matrix(0, 4, 8)[:, :4], matrix(0, 4, 8)[:, 4:]
    check_operations([Copy(left, right)])


class OnCard:
    """An array that says, as CuPy's do, where it is."""

    shape, strides, size, itemsize, dtype = (6,), (4,), 6, 4, np.dtype(np.float32)

    def __init__(self, start: int) -> None:
        self.__cuda_array_interface__ = {"data": (start, False)}


def test_memory_of_a_card_is_compared_by_its_addresses() -> None:
    check_operations([Copy(OnCard(4096), OnCard(4096 + 24))])
    with pytest.raises(ConfigError, match="source and target share memory"):
        check_operations([Copy(OnCard(4096), OnCard(4096 + 20))])
