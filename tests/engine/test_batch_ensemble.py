"""TabM: layers that share their weights, against NumPy, float64 differences and the tabm package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from nnkit import (
    Activation,
    Bags,
    BatchEnsemble,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    Features,
    Network,
    Trainer,
    load,
)
from nnkit.engine.input_gradient import InputGradient
from nnkit.errors import ConfigError
from nnkit.nn.layers import Layer, LayerNorm

MEMBERS, ROWS, INPUTS, OUTPUTS = 4, 9, 5, 3
ACTIVATIONS = {"tanh": np.tanh, "silu": lambda z: z * special.expit(z), "identity": lambda z: z}


def tabm(*hidden: Layer, link: Any = "softmax", outputs: int = OUTPUTS) -> list[Layer]:
    return [*hidden, Ensemble(Dense(outputs), members=MEMBERS, link=link)]


def hidden(units: int, activation: str = "tanh", **options: Any) -> BatchEnsemble:
    return BatchEnsemble(units, activation, members=MEMBERS, **options)


NETWORKS: dict[str, list[Layer]] = {
    "two layers": tabm(hidden(6), hidden(7, "silu")),
    "one layer": tabm(hidden(6)),
    "without biases": tabm(hidden(6, bias=False), hidden(2, bias=False)),
    "an activation of its own": tabm(
        hidden(6, "identity"), Activation("tanh"), Activation("silu"), hidden(3)
    ),
    "behind a shared layer": tabm(Dense(4, "silu"), hidden(6), hidden(6, "identity")),
}


def network(layers: list[Layer]) -> Network:
    """Return a network whose parameters are all drawn, the scales and biases too."""
    net = Network(layers)
    net.initialize(INPUTS, seed=4, dtype=np.float64)
    random = np.random.default_rng(5)
    net.set_parameters({name: random.normal(size=array.shape) for name, array in net.parameters().items()})
    return net


def members_outputs(layers: list[Layer], values: dict[str, NDArray], X: NDArray) -> NDArray:
    """Return the outputs of each member, (rows, members, outputs), in NumPy."""
    x = X[:, None, :]
    number = 0
    for layer in layers:

        def value(name: str, number: int = number) -> Any:
            return values.get(f"layers.{number}.{name}", 0.0)

        if isinstance(layer, BatchEnsemble):
            z = ((x * value("input_scale")) @ value("weight")) * value("output_scale") + value("bias")
            x, number = ACTIVATIONS[layer.activation](z), number + 1
        elif isinstance(layer, Dense):
            x, number = ACTIVATIONS[layer.activation](x @ value("weight") + value("bias")), number + 1
        elif isinstance(layer, Activation):
            x = ACTIVATIONS[layer.name](x)
        elif isinstance(layer, Ensemble):
            weights = [values[f"layers.{number + m}.weight"] for m in range(MEMBERS)]
            biases = [values[f"layers.{number + m}.bias"] for m in range(MEMBERS)]
            x = np.stack([x[:, m] @ weights[m] + biases[m] for m in range(MEMBERS)], axis=1)
    return np.asarray(x)


def problem() -> tuple[NDArray, NDArray, NDArray]:
    random = np.random.default_rng(3)
    weights = random.uniform(0.5, 2, ROWS)
    weights[3] = 0
    return random.normal(size=(ROWS, INPUTS)), random.integers(0, OUTPUTS, ROWS), weights


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_expression_and_its_gradient_that_of_differences(name: str) -> None:
    X, y, weights = problem()
    net = network(NETWORKS[name])
    values = net.parameters()
    each = special.softmax(members_outputs(NETWORKS[name], values, X), axis=2)
    np.testing.assert_allclose(special.softmax(net.outputs(X), axis=1), each.mean(axis=1), rtol=1e-11)

    def objective() -> float:
        z = members_outputs(NETWORKS[name], values, X)
        rows = -special.log_softmax(z, axis=2)[np.arange(ROWS), :, y].mean(axis=1)
        return float(weights @ rows / weights.sum())

    gradients = net.gradients(X, y, "cross_entropy", sample_weight=weights)
    assert list(gradients) == list(values)
    for key, array in values.items():
        expected = np.empty_like(array)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + 1e-5
            above = objective()
            array[place] = kept - 1e-5
            expected[place] = (above - objective()) / 2e-5
            array[place] = kept
        np.testing.assert_allclose(gradients[key], expected, rtol=1e-6, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_derivative_by_the_inputs_is_that_of_differences(name: str) -> None:
    X, _, _ = problem()
    net = network(NETWORKS[name])
    weights = np.random.default_rng(6).normal(size=(ROWS, OUTPUTS))
    found = InputGradient(net.places, net.arena).gradients(X, weights)
    for column in range(INPUTS):
        moved = 1e-6 * (np.arange(INPUTS) == column)
        differences = (net.outputs(X + moved) - net.outputs(X - moved)) / 2e-6
        np.testing.assert_allclose(
            found[:, column], (differences * weights).sum(axis=1), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("inputs", [0, 2])
def test_a_table_below_has_the_sum_of_the_members_gradients(inputs: int) -> None:
    random = np.random.default_rng(0)
    ids, dense = random.integers(0, 7, 2 * ROWS).astype(np.int32), random.normal(size=(ROWS, inputs))
    features = Features(dense, bags=(Bags(ids, np.arange(0, 2 * ROWS + 1, 2), 7),))
    y = np.arange(ROWS) % OUTPUTS
    net = Network([Embedding(7, 3, "sum"), *NETWORKS["two layers"]])
    net.initialize(inputs, seed=1, dtype=np.float64)
    gradient = net.gradients(features, y, "cross_entropy")["layers.0.weight"]
    values = {f"layers.{int(k.split('.')[1]) - 1}.{k.split('.')[2]}": v for k, v in net.parameters().items()}
    table = values["layers.-1.weight"]

    def objective() -> float:
        x = np.hstack([dense, table[ids].reshape(ROWS, 2, 3).sum(axis=1)])
        z = members_outputs(NETWORKS["two layers"], values, x)
        return float(-special.log_softmax(z, axis=2)[np.arange(ROWS), :, y].mean())

    for place in np.ndindex(table.shape):
        kept = table[place]
        table[place] = kept + 1e-5
        above = objective()
        table[place] = kept - 1e-5
        expected = (above - objective()) / 2e-5
        table[place] = kept
        assert gradient[place] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_it_begins_as_tabm_does() -> None:
    net = Network(tabm(hidden(64, "relu"), hidden(64, "relu")), inputs=100, seed=3)
    values = net.parameters()
    signs = values["layers.0.input_scale"]
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.2
    assert not np.array_equal(signs[0], signs[1])
    for name in ("layers.0.output_scale", "layers.1.input_scale", "layers.1.output_scale"):
        assert (values[name] == 1).all()
    for number, width in ((0, 100), (1, 64)):
        weight, bias = values[f"layers.{number}.weight"], values[f"layers.{number}.bias"]
        assert 0.97 < abs(weight).max() * width**0.5 <= 1
        assert weight.std() * width**0.5 == pytest.approx(3**-0.5, rel=0.05)
        assert (bias == bias[0]).all()
        assert bias[0].std() * width**0.5 == pytest.approx(3**-0.5, rel=0.25)


def test_training_predicting_and_a_file(tmp_path: Any) -> None:
    random = np.random.default_rng(1)
    X = random.normal(size=(300, INPUTS))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    net = Network(tabm(hidden(16, "relu"), Dropout(0.1), hidden(16, "relu"), link="sigmoid", outputs=1))
    trainer = Trainer(net, "binary_cross_entropy", "adam", device="cpu", seed=2)
    history = trainer.fit(X, y, epochs=40, batch_size=32, validation=(X, y))
    assert history["validation_loss"][-1] < 0.35 < history["validation_loss"][0]
    net.save(tmp_path / "model.safetensors", "binary_cross_entropy")
    np.testing.assert_array_equal(load(tmp_path / "model.safetensors").network.outputs(X), net.outputs(X))
    assert "BatchEnsemble, relu" in net.summary()
    total = sum(array.size for array in net.parameters().values())
    assert net.summary().splitlines()[-1].split()[-1] == f"{total:,}"


@pytest.mark.parametrize("members", [1, 0, 2.5, 10**6])
def test_members_must_be_a_whole_number(members: Any) -> None:
    with pytest.raises(ConfigError, match="BatchEnsemble: members"):
        BatchEnsemble(3, members=members)


def test_it_is_the_tabm_packages() -> None:
    """The first forward pass and its gradients, from the same parameters, TabM's own."""
    torch = pytest.importorskip("torch", reason="the tabm package needs PyTorch: pip install torch")
    package = pytest.importorskip("tabm", reason="pip install tabm")
    torch.manual_seed(3)
    X, y, _ = problem()
    theirs = package.TabM.make(
        n_num_features=INPUTS, d_out=OUTPUTS, k=MEMBERS, n_blocks=2, d_block=16, dropout=0.0
    ).double()
    parameters: dict[str, Any] = {}
    for number, block in enumerate(theirs.backbone.blocks):
        linear = block[0]
        parameters[f"layers.{number}.weight"] = linear.weight
        parameters[f"layers.{number}.input_scale"] = linear.r
        parameters[f"layers.{number}.output_scale"] = linear.s
        parameters[f"layers.{number}.bias"] = linear.bias
    layers = tabm(hidden(16, "relu"), hidden(16, "relu"))
    net = Network(layers)
    net.initialize(INPUTS, dtype=np.float64)
    values = {
        name: one.detach().numpy().T if name.endswith(".weight") else one.detach().numpy()
        for name, one in parameters.items()
    }
    for member in range(MEMBERS):
        values[f"layers.{2 + member}.weight"] = theirs.output.weight[member].detach().numpy()
        values[f"layers.{2 + member}.bias"] = theirs.output.bias[member].detach().numpy()
    assert set(values) == set(net.parameters())
    net.set_parameters(values)

    outputs = theirs(torch.from_numpy(X))
    labels = torch.from_numpy(y).repeat_interleave(MEMBERS)
    torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels).backward()
    mean = outputs.softmax(dim=2).mean(dim=1).detach().numpy()
    np.testing.assert_allclose(special.softmax(net.outputs(X), axis=1), mean, rtol=1e-12)
    gradients = net.gradients(X, y, "cross_entropy")
    for name, one in parameters.items():
        expected = one.grad.numpy().T if name.endswith(".weight") else one.grad.numpy()
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-10, atol=1e-14, err_msg=name)
    for member in range(MEMBERS):
        for kind in ("weight", "bias"):
            expected = getattr(theirs.output, kind).grad[member].numpy()
            found = gradients[f"layers.{2 + member}.{kind}"]
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_a_norm_over_members_is_refused() -> None:
    layers = [BatchEnsemble(8, members=3), LayerNorm(), Ensemble(Dense(1), members=3, link="identity")]
    with pytest.raises(ConfigError, match="it would mix the members"):
        Network(layers, inputs=2)
