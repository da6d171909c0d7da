"""Embeddings: against float64 differences, one-hot products and dense training; resume; what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from nnkit.backends.numpy import NumpyBackend
from nnkit.engine.objective import Penalty
from nnkit.engine.step import Step
from nnkit.errors import ConfigError, DataError, ModelFileError
from nnkit.feed.batch import Rows
from nnkit.feed.features import Bags, Features
from nnkit.feed.order import epoch_order
from nnkit.nn.layers import Activation, Dense, Dropout, Embedding, Layer, layer_from_json
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import optimizer_from
from nnkit.training.callbacks import Callback
from nnkit.training.trainer import Trainer

ROWS, SIZE, WIDTH, CLASSES = 30, 12, 5, 3
REDUCTIONS = ("mean", "sum", "max")


def bags(rows: int = ROWS, size: int = SIZE, weighted: bool = False, seed: int = 0, longest: int = 6) -> Bags:
    """Return bags with repeated ids; the fourth, and by chance others, are empty."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, longest, rows)
    lengths[3] = 0
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = random.integers(0, size, starts[-1]).astype(np.int32)
    ids[1:4] = ids[0]
    return Bags(ids, starts, size, random.uniform(0.2, 2, len(ids)) if weighted else None)


def features(*held: Bags, columns: int = 0, dtype: type = np.float64) -> Features:
    random = np.random.default_rng(9)
    return Features(random.normal(size=(len(held[0]), columns)).astype(dtype), bags=held)


def classes(rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(8).integers(0, CLASSES, rows).astype(np.int32)


def embedded(held: Bags, table: np.ndarray, reduce: str) -> np.ndarray:
    """Look up and reduce in a loop over rows and tokens."""
    out = np.zeros((len(held), table.shape[1]))
    for row in range(len(held)):
        span = slice(held.starts[row], held.starts[row + 1])
        ids = held.ids[span]
        weights = np.ones(len(ids)) if held.weights is None else held.weights[span]
        if len(ids) == 0:
            continue
        if reduce == "max":
            out[row] = table[ids].max(axis=0)
            continue
        for one, weight in zip(ids, weights, strict=True):
            out[row] += weight * table[one]
        if reduce == "mean":
            out[row] /= weights.sum()
    return out


def counts(held: Bags, reduce: str) -> np.ndarray:
    """Return the matrix whose product with the table is the bags' sum or mean: of counts, or of weights."""
    matrix = np.zeros((len(held), held.size))
    for row in range(len(held)):
        for token in range(held.starts[row], held.starts[row + 1]):
            matrix[row, held.ids[token]] += 1 if held.weights is None else held.weights[token]
    total = matrix.sum(axis=1, keepdims=True)
    return matrix / np.where(total == 0, 1, total) if reduce == "mean" else matrix


def network(layers: Sequence[Layer], inputs: int = 0, dtype: type = np.float64) -> Network:
    net = Network(layers)
    net.initialize(inputs, 3, dtype)
    random = np.random.default_rng(4)
    net.set_parameters({name: random.normal(size=array.shape) for name, array in net.parameters().items()})
    return net


@pytest.mark.parametrize(
    ("reduce", "weighted"), [("mean", False), ("mean", True), ("sum", False), ("sum", True), ("max", False)]
)
def test_a_bags_vector_follows_the_other_inputs(reduce: str, weighted: bool) -> None:
    first, second = bags(weighted=weighted), bags(size=7, seed=1)
    net = network([Embedding(SIZE, WIDTH, reduce), Embedding(7, 2, "sum"), Dense(CLASSES)], 6)
    random = np.random.default_rng(2)
    codes = random.integers(0, 2, (ROWS, 1)).astype(np.int32)
    dense = random.normal(size=(ROWS, 4))
    held = Features(dense, codes=codes, cardinalities=(2,), bags=(first, second))
    parameters = net.parameters()
    assert list(parameters) == ["layers.0.weight", "layers.1.weight", "layers.2.weight", "layers.2.bias"]
    inputs = np.hstack(
        [
            dense,
            np.eye(2)[codes[:, 0]],
            embedded(first, parameters["layers.0.weight"], reduce),
            embedded(second, parameters["layers.1.weight"], "sum"),
        ]
    )
    expected = inputs @ parameters["layers.2.weight"] + parameters["layers.2.bias"]
    np.testing.assert_allclose(net.outputs(held), expected, rtol=1e-12, atol=1e-12)


def test_many_rows_are_predicted_in_chunks() -> None:
    held = bags(rows=5000)
    net = network([Embedding(SIZE, WIDTH), Dense(CLASSES)])
    few = np.array([4999, 0, 3000])
    np.testing.assert_allclose(net.outputs(features(held))[few], net.outputs(features(held).take(few)))


BEGINNINGS: dict[str, list[Layer]] = {
    "a product": [Dense(4, "tanh"), Dense(CLASSES)],
    "one product": [Dense(CLASSES)],
    "dropout": [Dropout(0.5), Dense(4, "tanh"), Dense(CLASSES)],
    "an activation": [Activation("tanh"), Dense(CLASSES)],
    "a ReLU of its own": [Dense(4, "relu"), Dense(4, "gelu"), Dense(CLASSES, bias=False)],
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradient_is_that_of_central_differences(reduce: str, weighted: bool, beginning: str) -> None:
    held = features(bags(weighted=weighted and reduce != "max"), bags(size=7, seed=1), columns=2)
    net = network([Embedding(SIZE, WIDTH, reduce), Embedding(7, 2), *BEGINNINGS[beginning]], 2)
    y, sample_weight = classes(), np.random.default_rng(6).uniform(0.5, 2, ROWS)
    gradients = net.gradients(held, y, "cross_entropy", sample_weight=sample_weight)
    parameters = net.parameters()
    assert list(gradients) == list(parameters)

    def objective() -> float:
        net.set_parameters(parameters)
        logits = net.outputs(held)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(ROWS), y]
        return float(sample_weight @ losses / sample_weight.sum())

    for name, array in parameters.items():
        expected = np.empty_like(array)
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + 1e-5
            above = objective()
            array[at] = kept - 1e-5
            expected[at] = (above - objective()) / 2e-5
            array[at] = kept
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_gradient_is_that_of_a_product_with_counts(reduce: str, weighted: bool, dtype: type) -> None:
    """With weights it is a TF-IDF matrix's: each token weighs its word's inverse document frequency."""
    held = bags(rows=200, size=60, longest=12)
    if weighted:
        occurring = np.bincount(held.ids, minlength=60)
        held = Bags(held.ids, held.starts, 60, (1 + np.log(200 / (1 + occurring)))[held.ids])
    matrix = counts(held, reduce).astype(dtype)
    net = network([Embedding(60, WIDTH, reduce), Dense(6, "tanh"), Dense(CLASSES)], dtype=dtype)
    plain = Network([Dense(WIDTH, bias=False), Dense(6, "tanh"), Dense(CLASSES)])
    plain.initialize(60, dtype=dtype)
    plain.set_parameters(net.parameters())
    y = classes(200)
    both = [
        one.gradients(X, y, "cross_entropy")
        for one, X in ((net, features(held, dtype=dtype)), (plain, matrix))
    ]
    for name, expected in both[1].items():
        assert both[0][name].dtype == dtype
        tolerance = 1e-6 if dtype is np.float32 else 1e-12
        np.testing.assert_allclose(both[0][name], expected, atol=tolerance, rtol=tolerance)


def trained(net: Network, X: Features | np.ndarray, optimizer: dict, **settings: object) -> Trainer:
    trainer = Trainer(net, "cross_entropy", optimizer, device="cpu", precision="fp64", seed=2, **settings)
    trainer.fit(X, classes(len(X)), epochs=4, batch_size=8)
    return trainer


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("name", ["sgd", "adagrad", "rmsprop"])
def test_training_equals_that_of_a_dense_product_with_counts(
    name: str, reduce: str, clip_norm: float | None
) -> None:
    """30 rows of 60 words in batches of 8, the last one smaller: most rows miss most steps."""
    held = bags(size=60)
    net = network([Embedding(60, WIDTH, reduce), Dense(6, "tanh"), Dense(CLASSES)])
    plain = Network([Dense(WIDTH, bias=False), Dense(6, "tanh"), Dense(CLASSES)])
    plain.initialize(60, dtype=np.float64)
    plain.set_parameters(net.parameters())
    optimizer = {"name": name, "learning_rate": 0.05}
    trained(net, features(held), optimizer, clip_norm=clip_norm, schedule="cosine")
    trained(plain, counts(held, reduce), optimizer, clip_norm=clip_norm, schedule="cosine")
    for parameter, expected in plain.parameters().items():
        np.testing.assert_allclose(net.parameters()[parameter], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"])
def test_training_that_sees_every_row_in_each_step_equals_the_dense_one(name: str) -> None:
    """Penalties and decay included."""
    random = np.random.default_rng(0)
    ids = np.concatenate([np.arange(SIZE), random.integers(0, SIZE, 4 * 16)]).astype(np.int32)
    held = Bags(ids, np.array([0, *range(SIZE, len(ids) + 1, 4)]), SIZE)
    net = network([Embedding(SIZE, WIDTH, "sum"), Dense(CLASSES)])
    plain = Network([Dense(WIDTH, bias=False), Dense(CLASSES)])
    plain.initialize(SIZE, dtype=np.float64)
    plain.set_parameters(net.parameters())
    for one, X in ((net, features(held)), (plain, counts(held, "sum"))):
        settings = {"l1": 0.01, "l2": 0.02, "clip_norm": 1.0}
        optimizer = {"name": name, "learning_rate": 0.01, "weight_decay": 0.1}
        trainer = Trainer(one, "cross_entropy", optimizer, device="cpu", precision="fp64", seed=2, **settings)
        trainer.fit(X, classes(len(X)), epochs=6, batch_size=len(X))
    for parameter, expected in plain.parameters().items():
        np.testing.assert_allclose(net.parameters()[parameter], expected, rtol=1e-9, atol=1e-12)


def steps_over(net: Network, held: Features, batch_size: int, optimizer: str, penalty: Penalty) -> Step:
    rows = Rows(net.arena.backend, net.arena.dtype, held, classes(len(held)), shuffled=True)
    return Step(
        net.places,
        net.arena,
        loss_from("cross_entropy"),
        penalty,
        batch_size,
        0,
        optimizer_from(optimizer),
        rows,
    )


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam"])
def test_moments_count_the_steps_that_see_their_row(name: str) -> None:
    """Each batch's update against the rule in NumPy, from the gradient of that batch."""
    held = features(bags(size=40))
    net = network([Embedding(40, WIDTH), Dense(CLASSES)])
    step = steps_over(net, held, 8, name, Penalty())
    order, rate, y = epoch_order(ROWS, 0, 0), 0.05, classes()
    step.begin_epoch(0, order, np.full(step.steps_per_epoch, rate))
    first, second = np.zeros((2, 40, WIDTH))
    for batch in range(step.steps_per_epoch):
        taken = order[8 * batch :][:8]
        part = held.take(taken)
        gradient = net.gradients(part, y[taken], "cross_entropy")["layers.0.weight"]
        expected = net.parameters()["layers.0.weight"]
        at = np.unique(part.bags[0].ids)
        g = gradient[at]
        if name == "adam":
            first[at] = 0.9 * first[at] + 0.1 * g
            second[at] = 0.999 * second[at] + 0.001 * g**2
            mean, square = first[at] / (1 - 0.9 ** (batch + 1)), second[at] / (1 - 0.999 ** (batch + 1))
            expected[at] -= rate * mean / (np.sqrt(square) + 1e-8)
        else:
            first[at] = 0.9 * first[at] + g
            expected[at] -= rate * (g + 0.9 * first[at] if name == "nesterov" else first[at])
        step.run(batch, 1)
        np.testing.assert_allclose(net.parameters()["layers.0.weight"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adamw"])
def test_rows_unseen_keep_their_bytes(name: str) -> None:
    held = bags(size=40)
    seen = np.unique(held.ids)
    unseen = np.setdiff1d(np.arange(40), seen)
    assert len(unseen) > 3
    net = network([Embedding(40, WIDTH), Dense(CLASSES)], dtype=np.float32)
    before = net.parameters()["layers.0.weight"]
    optimizer = {"name": name, "learning_rate": 0.1, "weight_decay": 0.5}
    trainer = Trainer(net, "cross_entropy", optimizer, device="cpu", l1=0.1, l2=0.1, clip_norm=1.0)
    trainer.fit(features(held, dtype=np.float32), classes(), epochs=2, batch_size=8)
    after = net.parameters()["layers.0.weight"]
    assert before[unseen].tobytes() == after[unseen].tobytes()
    assert np.all(before[seen] != after[seen])
    for state in trainer.optimizer_state.slots.values():
        if state.dtype == np.float32:
            assert not net.arena.view("layers.0.weight", state)[unseen].any()


def test_a_steps_penalty_is_that_of_the_rows_its_batch_sees() -> None:
    held = features(bags(size=40))
    net = network([Embedding(40, WIDTH), Dense(CLASSES)])
    step = steps_over(net, held, 8, "sgd", Penalty(0.1, 0.2))
    order = epoch_order(ROWS, 0, 0)
    step.begin_epoch(0, order, np.full(step.steps_per_epoch, 1e-300))
    expected = 0.0
    for batch in range(step.steps_per_epoch):
        part = held.take(order[8 * batch :][:8])
        parameters = net.parameters()
        weights = [parameters["layers.0.weight"][np.unique(part.bags[0].ids)], parameters["layers.1.weight"]]
        expected += len(part) * sum(0.1 * abs(w).sum() + 0.1 * (w**2).sum() for w in weights)
    step.run(0, step.steps_per_epoch)
    assert step.read().penalty_sum == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_the_gradients_norm_counts_the_tables(reduce: str) -> None:
    held = features(bags(), bags(size=7, seed=1))
    net = network([Embedding(SIZE, WIDTH, reduce), Embedding(7, 3), Dense(CLASSES)])
    gradients = net.gradients(held, classes(), "cross_entropy")
    rows = Rows(net.arena.backend, np.float64, held, classes(), shuffled=True)
    loss, sgd = loss_from("cross_entropy"), optimizer_from("sgd")
    step = Step(net.places, net.arena, loss, Penalty(), ROWS, 0, sgd, rows, 1e-3)
    step.begin_epoch(0, np.arange(ROWS), np.ones(1))
    before = net.parameters()
    step.run(0, 1)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    assert step.gradient_norm() == pytest.approx(norm, rel=1e-10)
    moved = np.sqrt(sum(((before[name] - after) ** 2).sum() for name, after in net.parameters().items()))
    assert moved == pytest.approx(1e-3, rel=1e-9)
    parameters = net.parameters().values()
    assert step.weight_norm() == pytest.approx(np.sqrt(sum((w**2).sum() for w in parameters)), rel=1e-12)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "momentum"])
def test_resume_in_mid_epoch_is_bit_exact(name: str, tmp_path) -> None:
    held, y = features(bags(rows=60, size=40), columns=2, dtype=np.float32), classes(60)
    layers = [Embedding(40, WIDTH), Dropout(0.2), Dense(6, "relu"), Dense(CLASSES)]

    class Stops(Callback):
        every = "1 steps"

        def on_step_end(self, trainer: Trainer, figures) -> None:
            if figures.step == 11:
                trainer.stop()

    def trainer() -> Trainer:
        return Trainer(Network(layers), "cross_entropy", name, device="cpu", seed=5, clip_norm=0.5)

    settings = {"epochs": 3, "batch_size": 8, "validation": 0.2}
    whole, stopped, resumed = trainer(), trainer(), trainer()
    whole.fit(held, y, **settings)
    stopped.fit(held, y, callbacks=[Stops()], checkpoints=tmp_path, **settings)
    assert stopped.state.batch > 0
    assert stopped.network.parameters()["layers.0.weight"].tobytes() != (
        whole.network.parameters()["layers.0.weight"].tobytes()
    )
    resumed.resume(tmp_path, held, y, validation=0.2)
    for parameter, expected in whole.network.parameters().items():
        np.testing.assert_array_equal(resumed.network.parameters()[parameter], expected)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    for slot, expected in whole.optimizer_state.slots.items():
        np.testing.assert_array_equal(resumed.optimizer_state.slots[slot], expected)


def test_a_training_goes_on_with_when_rows_were_last_seen() -> None:
    """Two calls of `fit`, the second one continued, equal one call: RMSprop's averages are caught up."""
    held, y = features(bags(size=40)), classes()
    once, twice = (network([Embedding(40, WIDTH), Dense(CLASSES)]) for _ in range(2))
    trainers = [
        Trainer(net, "cross_entropy", "rmsprop", device="cpu", precision="fp64", seed=1)
        for net in (once, twice)
    ]
    trainers[0].fit(held, y, epochs=4, batch_size=8)
    trainers[1].fit(held, y, epochs=2, batch_size=8)
    trainers[1].fit(held, y, epochs=2, batch_size=8, continued=True)
    np.testing.assert_array_equal(once.parameters()["layers.0.weight"], twice.parameters()["layers.0.weight"])


def test_a_resume_with_other_bags_is_refused(tmp_path) -> None:
    held, y = features(bags(), dtype=np.float32), classes()
    layers = [Embedding(SIZE, WIDTH), Dense(CLASSES)]
    Trainer(Network(layers), "cross_entropy", device="cpu").fit(held, y, epochs=1, checkpoints=tmp_path)
    with pytest.raises(DataError, match="bags 0 ids"):
        Trainer(Network(layers), "cross_entropy", device="cpu").resume(
            tmp_path, features(bags(seed=5), dtype=np.float32), y
        )


def test_lbfgs_minimises_over_a_table() -> None:
    from nnkit.estimators._lbfgs import minimise

    held = features(bags())
    net = network([Embedding(SIZE, WIDTH), Dense(CLASSES)])
    rows = Rows(net.arena.backend, np.float64, held, classes())
    minimise(net, loss_from("cross_entropy"), Penalty(l2=1e-3), rows, tolerance=1e-6, iterations=2000)
    gradients = net.gradients(held, classes(), "cross_entropy", l2=1e-3)
    assert max(abs(gradient).max() for gradient in gradients.values()) < 1e-4


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam"])
def test_the_compiled_program_gives_the_plain_loops_bits(optimizer: str, monkeypatch) -> None:
    from nnkit.backends import numpy as backend

    def parameters(look: int, compile_at: int) -> dict[str, np.ndarray]:
        monkeypatch.setattr(backend, "_RUNS_TO_LOOK", look)
        monkeypatch.setattr(backend, "_RUNS_TO_COMPILE", compile_at)
        net = network([Embedding(SIZE, WIDTH), Dense(6, "relu"), Dense(CLASSES)], 2, np.float32)
        trainer = Trainer(net, "cross_entropy", optimizer, device="cpu", clip_norm=0.1, l2=0.01)
        trainer.fit(features(bags(), columns=2, dtype=np.float32), classes(), epochs=5, batch_size=8)
        return net.parameters()

    plain, compiled = parameters(10**9, 10**9), parameters(1, 1)
    for name, expected in plain.items():
        np.testing.assert_array_equal(compiled[name], expected)


def test_a_step_allocates_nothing() -> None:
    import tracemalloc

    held = features(bags(rows=400))
    net = network([Embedding(SIZE, WIDTH, "max"), Dense(CLASSES)])
    step = steps_over(net, held, 8, "rmsprop", Penalty(0.1, 0.1))
    step.begin_epoch(0, epoch_order(400, 0, 0), np.full(50, 0.01))
    step.run(0, 50)
    tracemalloc.start()
    try:
        step.run(0, 5)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        step.run(5, 40)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1024
    assert peak - before < 2048


def test_what_a_step_keeps_beside_the_arena_does_not_grow_with_the_table() -> None:
    """But for four bytes a row, which say where in the batch a row stands."""
    held = bags(rows=40)
    sizes = []
    for size in (SIZE, 50_000):
        net = Network([Embedding(size, 64), Dense(CLASSES)])
        net.initialize(0)
        step = steps_over(
            net,
            features(Bags(held.ids, held.starts, size), dtype=np.float32),
            8,
            "sgd",
            Penalty(),
        )
        (rows,) = step.passes.row_gradients
        assert step.passes.gradients.size == net.arena.dense_size
        sizes.append(rows.gradient.nbytes)
    assert sizes[1] <= 40 * 64 * 4
    assert sizes[0] <= SIZE * 64 * 4


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_bags_that_are_all_empty_train(reduce: str) -> None:
    held = Bags(np.zeros(0, np.int32), np.zeros(ROWS + 1, np.int64), SIZE)
    net = network([Embedding(SIZE, WIDTH, reduce), Dense(CLASSES)])
    before = net.parameters()["layers.0.weight"]
    trainer = Trainer(net, "cross_entropy", "adam", device="cpu", precision="fp64", clip_norm=1.0, l2=0.1)
    trainer.fit(features(held), classes(), epochs=2, batch_size=8)
    np.testing.assert_array_equal(net.parameters()["layers.0.weight"], before)
    np.testing.assert_allclose(
        net.outputs(features(held)), np.tile(net.parameters()["layers.1.bias"], (ROWS, 1)), atol=1e-12
    )


def test_weights_that_sum_to_nothing_give_zeros_and_no_gradient() -> None:
    held = Bags(np.array([1, 2, 3], np.int32), np.array([0, 2, 3]), SIZE, np.array([1.0, -1.0, 0.0]))
    net = network([Embedding(SIZE, WIDTH, "mean"), Dense(CLASSES)])
    expected = np.tile(net.parameters()["layers.1.bias"], (2, 1))
    np.testing.assert_array_equal(net.outputs(features(held)), expected)
    gradients = net.gradients(features(held), np.array([0, 1]), "cross_entropy")
    assert not gradients["layers.0.weight"].any()


def test_a_maximums_gradient_goes_to_the_first_token_that_has_it() -> None:
    held = Bags(np.array([4, 2, 4, 2], np.int32), np.array([0, 2, 4]), SIZE)
    net = network([Embedding(SIZE, 1, "max"), Dense(1)])
    table = net.parameters()["layers.0.weight"]
    table[4] = table[2]
    net.set_parameters({"layers.0.weight": table})
    gradient = net.gradients(features(held), np.zeros((2, 1)), "mse")["layers.0.weight"]
    assert gradient[4] != 0
    assert gradient[2] == 0


def test_a_document_of_a_million_tokens_is_one_row() -> None:
    random = np.random.default_rng(1)
    ids = random.integers(0, SIZE, 1_000_003).astype(np.int32)
    held = Bags(ids, np.array([0, 1_000_000, 1_000_000, 1_000_003]), SIZE)
    net = network([Embedding(SIZE, WIDTH), Dense(CLASSES)], dtype=np.float32)
    before = net.parameters()
    shares = np.bincount(ids[:1_000_000], minlength=SIZE) / 1e6
    expected = shares @ before["layers.0.weight"] @ before["layers.1.weight"] + before["layers.1.bias"]
    np.testing.assert_allclose(net.outputs(features(held, dtype=np.float32))[0], expected, rtol=0, atol=1e-4)
    trainer = Trainer(net, "cross_entropy", device="cpu")
    trainer.fit(features(held, dtype=np.float32), np.array([0, 1, 2]), epochs=1, batch_size=2)
    assert np.isfinite(net.parameters()["layers.0.weight"]).all()


def test_a_table_is_drawn_normal_with_rows_of_unit_length() -> None:
    net = Network([Embedding(40_000, 30), Dense(2)])
    net.initialize(0, seed=7)
    table = net.parameters()["layers.0.weight"]
    assert table.std() == pytest.approx(1 / np.sqrt(30), rel=0.01)
    assert (table**2).sum(axis=1).mean() == pytest.approx(1, rel=0.01)
    assert len(np.unique(table.round(7))) > 0.8 * table.size  # no stretch is drawn twice


def test_drawing_in_pieces_is_drawing_at_once(monkeypatch) -> None:
    from nnkit.nn import initializers

    def table() -> np.ndarray:
        net = Network([Embedding(101, 6), Dense(2)])
        net.initialize(0, seed=7)
        return net.parameters()["layers.0.weight"]

    at_once = table()
    monkeypatch.setattr(initializers, "_DRAWN_AT_ONCE", 60)
    np.testing.assert_array_equal(table(), at_once)


def test_a_table_may_begin_from_given_vectors_or_another_draw() -> None:
    vectors = np.random.default_rng(0).normal(size=(SIZE, WIDTH)).astype(np.float32)
    net = Network([Embedding(SIZE, WIDTH), Dense(CLASSES)], inputs=0)
    drawn = net.parameters()["layers.1.weight"]
    net.set_parameters({"layers.0.weight": vectors})
    np.testing.assert_array_equal(net.parameters()["layers.0.weight"], vectors)
    assert drawn.any()
    np.testing.assert_array_equal(net.parameters()["layers.1.weight"], drawn)
    other = Network([Embedding(SIZE, WIDTH, initializer="zeros"), Dense(CLASSES)], inputs=0)
    assert not other.parameters()["layers.0.weight"].any()
    narrow = {"name": "normal", "std": 1e-3}
    other = Network([Embedding(2000, WIDTH, initializer=narrow), Dense(CLASSES)], inputs=0)
    assert other.parameters()["layers.0.weight"].std() == pytest.approx(1e-3, rel=0.1)


def test_a_network_with_embeddings_survives_json() -> None:
    net = network([Embedding(SIZE, WIDTH, "max"), Embedding(7, 2), Dense(CLASSES)], 2, np.float32)
    held = features(bags(), bags(size=7, seed=1), columns=2, dtype=np.float32)
    description = json.loads(json.dumps(net.to_json()))
    back = Network.from_json(description, net.parameters(), np.float32)
    assert back.layers == net.layers
    np.testing.assert_array_equal(back.outputs(held), net.outputs(held))


@pytest.mark.parametrize("size", [SIZE + 1, 2**31, 2**31 + 1, 10**40, -1, 2.5, True])
def test_a_size_that_the_parameters_do_not_hold_is_refused_before_anything_is_allocated(size) -> None:
    net = network([Embedding(SIZE, WIDTH), Dense(CLASSES)])
    for key in ("size", "width"):
        description = net.to_json()
        description["layers"][0][key] = size
        with pytest.raises(ModelFileError):
            Network.from_json(description, net.parameters(), np.float64)


def test_negative_inputs_do_not_make_up_for_an_embeddings_width() -> None:
    net = network([Embedding(SIZE, WIDTH), Dense(CLASSES)])
    parameters = {**net.parameters(), "layers.0.weight": np.zeros((SIZE, WIDTH + 1))}
    description = {"inputs": -1, "layers": net.to_json()["layers"]}
    description["layers"][0]["width"] = WIDTH + 1
    with pytest.raises(ModelFileError, match="inputs"):
        Network.from_json(description, parameters, np.float64)


@pytest.mark.parametrize(
    "layer", [Embedding(3, 4), Embedding(3, 4, "sum", "zeros"), Embedding(1, 1, "max", {"name": "normal"})]
)
def test_an_embedding_survives_json(layer: Embedding) -> None:
    assert layer_from_json(json.loads(json.dumps(layer.to_json()))) == layer


@pytest.mark.parametrize(
    "given",
    [(0, 4), (3, 0), (3.0, 4), (3, "4"), (True, 4), (3, 4, "median"), (3, 4, None), (3, 4, "sum", "no")],
)
def test_what_is_no_embedding_is_refused(given: tuple) -> None:
    with pytest.raises(ConfigError):
        Embedding(*given)


def test_embeddings_stand_first() -> None:
    with pytest.raises(ConfigError, match="first"):
        Network([Dense(3), Embedding(SIZE, WIDTH), Dense(2)])
    with pytest.raises(ConfigError, match="Dense"):
        Network([Embedding(SIZE, WIDTH)])


def test_arrays_and_bags_that_do_not_fit_are_refused() -> None:
    net = network([Embedding(SIZE, WIDTH), Dense(CLASSES)], 2)
    pooled = network([Embedding(SIZE, WIDTH, "max"), Dense(CLASSES)], 2)
    plain = network([Dense(CLASSES)], 2)
    X = np.zeros((ROWS, 2))
    cases = [
        (net, X, "0 bags of ids a row, and the network begins with 1"),
        (plain, features(bags(), columns=2), "1 bags of ids a row"),
        (net, features(bags(), bags(), columns=2), "2 bags of ids a row"),
        (net, features(bags(size=7), columns=2), "a table of 7 rows, and the Embedding has 12"),
        (pooled, features(bags(weighted=True), columns=2), "weights"),
        (net, features(bags(), columns=3), "3 features, and the network takes 2"),
    ]
    for one, given, message in cases:
        for call in (
            lambda one=one, given=given: one.outputs(given),
            lambda one=one, given=given: one.gradients(given, classes(), "cross_entropy"),
            lambda one=one, given=given: Trainer(one, "cross_entropy", device="cpu").fit(given, classes()),
        ):
            with pytest.raises(DataError, match=message):
                call()


def test_shards_leave_embeddings_alone(monkeypatch) -> None:
    monkeypatch.setattr(NumpyBackend, "shards", lambda *_: 2)
    net = network([Embedding(SIZE, WIDTH), Dense(CLASSES)])
    step = steps_over(net, features(bags()), 16, "sgd", Penalty())
    assert not step._team
