"""Networks as PyTorch modules and back: the same predictions, further training, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from networks import BAGS, INPUTS, LAYERS, X, agree, moved

from nnkit import (
    Dense,
    Dropout,
    Embedding,
    Model,
    Network,
    PiecewiseLinear,
    Scale,
    Trainer,
    load,
    register_activation,
)
from nnkit.data.operations import PlainRows
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, FileError, ModelFileError
from nnkit.interop.torch import from_module, module_inputs, to_module
from nnkit.nn.links import averaged_outputs
from nnkit.nn.losses import loss_from

pytestmark = pytest.mark.extra("torch")


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def answers(module: Any, network: Any, rows: Any = X) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return module(*module_inputs(network, rows)).numpy()


@pytest.mark.parametrize("name", LAYERS)
def test_a_module_predicts_the_same_and_comes_back(name: str) -> None:
    network = moved(LAYERS[name])
    module = to_module(network)
    agree(answers(module, network), network)
    back = from_module(module)
    assert np.array_equal(back.outputs(X), network.outputs(X))
    again = to_module(back)
    assert str(again) == str(module)
    tensors = module.state_dict()
    assert all(bool((tensors[key] == value).all()) for key, value in again.state_dict().items())


@pytest.mark.parametrize("name", BAGS)
def test_embeddings_read_bags_in_torch_too(name: str) -> None:
    tables, rows = BAGS[name]
    network = moved([*tables, Dense(5, "relu"), Dense(2)], rows.width)
    module = to_module(network)
    agree(answers(module, network, rows), network, rows)
    assert np.array_equal(from_module(module).outputs(rows), network.outputs(rows))


def test_float64_stays_float64(torch: Any) -> None:
    network = moved(LAYERS["bins"], dtype=np.float64)
    module = to_module(network)
    assert module[1].weight.dtype == torch.float64
    np.testing.assert_allclose(answers(module, network), network.outputs(X), rtol=1e-13, atol=1e-14)
    assert from_module(module).arena.dtype == np.float64
    assert np.array_equal(from_module(module).outputs(X), network.outputs(X))


def test_names_and_layout_are_those_of_torch() -> None:
    module = to_module(moved([Dense(5, "relu"), Dense(3)]))
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == {
        "0.weight": (5, INPUTS),
        "0.bias": (5,),
        "2.weight": (3, 5),
        "2.bias": (3,),
    }


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", "cross_entropy", "poisson"])
def test_several_networks_give_their_mean_prediction(loss: str) -> None:
    members = [moved([Dense(5, "relu"), Dense(2 if loss == "cross_entropy" else 1)]) for _ in range(3)]
    for number, member in enumerate(members):
        member.set_parameters({"layers.0.bias": np.full(5, number, np.float32)})
    chosen = loss_from(loss)
    task, outputs = chosen.task(members[0].output_width), members[0].output_width
    preprocessor = Preprocessor((PlainRows(INPUTS),))
    model = Model(
        members[0], preprocessor, TargetEncoder.plain(task, outputs), chosen, others=tuple(members[1:])
    )
    module = to_module(model)
    expected = averaged_outputs([member.outputs(X) for member in members], chosen.link)
    np.testing.assert_allclose(answers(module, model), expected, rtol=1e-5, atol=1e-6)
    back = from_module(module, like=model)
    np.testing.assert_allclose(back.outputs(X), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(back.predict(X), model.predict(X), rtol=1e-5)


def test_a_module_of_torch_is_trained_here_and_goes_back(torch: Any) -> None:
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(INPUTS, 16), nn.GELU(), nn.Dropout(0.1)),
        nn.LayerNorm(16),
        nn.Identity(),
        nn.Linear(16, 2, bias=False),
    ).eval()
    network = from_module(module)
    assert network.inputs == INPUTS
    with torch.no_grad():
        agree(module(torch.from_numpy(X)).numpy(), network)
    y = (X[:, 0] > 0).astype(int)
    history = Trainer(network, loss="cross_entropy", optimizer="adam", seed=0).fit(
        X, y, epochs=30, progress=False
    )
    assert history["loss"][-1] < 0.85 * history["loss"][0]
    trained = to_module(network)
    agree(answers(trained, network), network)
    # A step of torch's, taken over again.
    before = network.outputs(X)
    optimizer = torch.optim.SGD(trained.parameters(), 0.1)
    loss = nn.functional.cross_entropy(trained.train()(torch.from_numpy(X)), torch.from_numpy(y))
    loss.backward()
    optimizer.step()
    again = from_module(trained)
    assert not np.allclose(again.outputs(X), before)
    agree(answers(trained.eval(), again), again)


def test_gradients_are_those_of_the_network(torch: Any) -> None:
    y = np.arange(len(X)) % 3
    for name in ("residual", "periodic", "bins", "batch ensemble, flat"):
        layers = LAYERS[name] if name != "periodic" else [*LAYERS[name][:-1], Dense(3)]
        network = moved(layers, dtype=np.float64)
        module = to_module(network)
        outputs = module(*module_inputs(network, X))
        torch.nn.functional.cross_entropy(outputs, torch.from_numpy(y)).backward()
        expected = network.gradients(X, y, "cross_entropy")
        found = [parameter.grad.numpy() for parameter in module.parameters()]
        assert len(found) == len(expected)
        # Matrices are the other way round in torch: compare norms.
        norms = sorted(np.linalg.norm(gradient) for gradient in found)
        np.testing.assert_allclose(norms, sorted(map(np.linalg.norm, expected.values())), rtol=1e-9)


def test_an_embedding_of_torch_reads_an_id_a_row(torch: Any) -> None:
    from nnkit import Bags, Features

    nn = torch.nn
    module = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    ids = np.arange(20) % 7
    network = from_module(module)
    assert network.layers[0] == Embedding(7, 4, "sum")
    rows = Features(np.zeros((20, 0), np.float32), bags=(Bags(ids.astype(np.int32), np.arange(21), 7),))
    with torch.no_grad():
        np.testing.assert_allclose(
            network.outputs(rows), module(torch.from_numpy(ids)).numpy(), rtol=1e-5, atol=1e-6
        )


def test_modules_that_stand_twice_and_plain_subclasses(torch: Any) -> None:
    nn = torch.nn

    class Net(nn.Sequential):
        def __init__(self) -> None:
            act, inner = nn.Tanh(), nn.Linear(4, 4)
            super().__init__(nn.Linear(INPUTS, 4), act, inner, act, inner, act, nn.Linear(4, 2))

    module = Net()
    network = from_module(module)
    assert sum(layer.activation == "tanh" for layer in network.layers) == 3
    with torch.no_grad():
        agree(module(torch.from_numpy(X)).numpy(), network)
    with torch.no_grad():
        one = nn.Linear(INPUTS, 2).bfloat16()
        agree(one.float()(torch.from_numpy(X)).numpy(), from_module(one))


def refused(nn: Any, torch: Any) -> dict[str, Any]:
    """Return modules that cannot be imported, by a part of the message."""

    class Mine(nn.Module):
        pass

    class Scale(nn.Linear):
        def forward(self, x: Any) -> Any:
            return 2 * super().forward(x)

    hooked = nn.Sequential(nn.Linear(3, 2))
    hooked[0].register_forward_hook(lambda *_: None)
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    return {
        r"module 0, ParametrizedLinear, cannot be imported": nn.Sequential(normed),
        r"module 1, BatchNorm1d, cannot be imported: nnkit has no batch": nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
        ),
        r"module 0\.0, Conv1d, cannot be imported: nnkit reads BatchEnsemble, Dropout": nn.Sequential(
            nn.Sequential(nn.Conv1d(1, 2, 3))
        ),
        r"module 1, Softmax, cannot be imported: nnkit's outputs are logits": nn.Sequential(
            nn.Linear(3, 4), nn.Softmax(1)
        ),
        r"module 2, Linear, takes 5 inputs, and 4 come before it": nn.Sequential(
            nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 1)
        ),
        r"module 1, LayerNorm, takes 5 inputs, and 4 come": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(5)),
        r"module \(the whole\), Mine, cannot be imported": Mine(),
        r"module 0, Scale, cannot be imported": nn.Sequential(Scale(3, 4)),
        r"module 0, Linear, has hooks or a forward of its own": hooked,
        r"module 1, LeakyReLU, has negative_slope = 0\.2, and nnkit's has 0\.01": nn.Sequential(
            nn.Linear(3, 4), nn.LeakyReLU(0.2)
        ),
        r"module 1, Dropout, Dropout: rate = 1": nn.Sequential(nn.Linear(3, 4), nn.Dropout(1.0)),
        r"module 1, Embedding, cannot be imported: an Embedding comes first": nn.Sequential(
            nn.Linear(3, 4), nn.Embedding(3, 4)
        ),
        r"module 1, Linear, takes 8 inputs, and 4 come": nn.Sequential(nn.Embedding(3, 4), nn.Linear(8, 4)),
        r"module 0, Embedding, has max_norm": nn.Sequential(
            nn.Embedding(3, 4, max_norm=1.0), nn.Linear(4, 1)
        ),
        r"a network needs at least one layer": nn.Sequential(nn.ReLU()),
        r"takes a torch\.nn\.Module, not dict": nn.Sequential(nn.Linear(3, 4)).state_dict().copy(),
    }


def test_a_module_that_cannot_be_imported_is_named(torch: Any) -> None:
    for message, module in refused(torch.nn, torch).items():
        given = dict(module) if "not dict" in message else module
        with pytest.raises(ConfigError, match=message) as caught:
            from_module(given)
        assert "\n" not in str(caught.value)


def test_what_torch_cannot_express_is_named() -> None:
    def cube(z):
        return z * z * z

    def cube_derivative(z):
        return 3.0 * z * z

    register_activation("cube", cube, cube_derivative)
    with pytest.raises(ConfigError, match="no counterpart of the activation 'cube'"):
        to_module(moved([Dense(3, "cube"), Dense(1)]))
    with pytest.raises(ConfigError, match="no parameters yet"):
        to_module(Network([Dense(1)]))
    with pytest.raises(ConfigError, match="no edges yet"):
        to_module(Network([PiecewiseLinear(), Dense(1)], inputs=3))


def test_weights_are_read_from_files_without_pickle(torch: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = moved(LAYERS["residual"])
    module = to_module(network)
    empty = to_module(Network(network.layers, inputs=INPUTS))
    torch.save(module.state_dict(), tmp_path / "w.pt")
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        back = from_module(empty, tmp_path / name)
        assert np.array_equal(back.outputs(X), network.outputs(X))
    torch.save(module, tmp_path / "whole.pt")
    with pytest.raises(ModelFileError, match=r"whole\.pt: holds pickled objects, which can run code"):
        from_module(empty, tmp_path / "whole.pt")
    with pytest.raises(FileError, match=r"none\.pt: cannot be read"):
        from_module(empty, tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    for name in ("bad.pt", "bad.safetensors"):
        with pytest.raises(ModelFileError, match=name):
            from_module(empty, tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelFileError, match="not a state_dict"):
        from_module(empty, tmp_path / "list.pt")
    with pytest.raises(ModelFileError, match="not the module's tensors") as caught:
        from_module(to_module(moved([Dense(3)])), tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_a_model_of_a_table_is_trained_on_in_torch(torch: Any, trained: Path, table: pa.Table) -> None:
    model = load(trained)
    module = to_module(model)
    expected = model.outputs(table)
    found = answers(module, model, table)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    back = from_module(module, like=model)
    assert np.array_equal(back.predict(table), model.predict(table))
    x, *bags = module_inputs(model, table)
    y = torch.from_numpy(model.target.codes(table["species"].to_numpy(zero_copy_only=False)).astype(np.int64))
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    torch.nn.functional.cross_entropy(module.train()(x, *bags), y).backward()
    optimizer.step()
    after = from_module(module, like=model)
    assert not np.allclose(after.predict_proba(table), model.predict_proba(table))
    np.testing.assert_allclose(
        after.outputs(table), answers(module.eval(), model, table), rtol=1e-4, atol=1e-5
    )
    assert "metrics" in model.details
    assert "metrics" not in after.details
    with pytest.raises(ConfigError, match=r"has 6 inputs.* the model of `like` has"):
        from_module(to_module(moved([Dense(3)])), like=model)


def test_a_model_keeps_what_a_module_has_no_place_for() -> None:
    network = moved([Scale(6.0), Dense(5, "relu", {"name": "normal", "std": 0.1}), Dropout(0.2), Dense(3)])
    target, loss = TargetEncoder.plain("regression", 3), loss_from("mse")
    model = Model(network, Preprocessor((PlainRows(INPUTS),)), target, loss)
    module = to_module(model)
    assert from_module(module).layers[0] == Scale(1.0)
    module[0].weight.data.fill_(2.0)
    back = from_module(module, like=model)
    assert back.network.layers == network.layers
    agree(answers(module, back), back.network)


def test_importing_the_module_does_not_import_torch() -> None:
    program = "import sys, nnkit.interop.torch, nnkit.export.torch; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
