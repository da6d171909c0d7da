"""Networks as Keras models and back: the same predictions, further training, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from networks import BAGS, INPUTS, LAYERS, X, agree, moved

from nnkit import Bags, Dense, Embedding, Features, Network, PiecewiseLinear, Trainer, load
from nnkit.errors import ConfigError
from nnkit.interop.keras import from_keras, keras_inputs, to_keras

pytestmark = [
    pytest.mark.extra("keras"),
    pytest.mark.extra("torch"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras's own
]


@pytest.fixture(scope="module", autouse=True)
def keras() -> Any:
    """Return Keras on its torch backend, which it reads from the environment when it is imported."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def answers(model: Any, network: Any, rows: Any = X) -> np.ndarray:
    given = keras_inputs(network, rows)
    return np.asarray(model.predict(given if len(given) > 1 else given[0], verbose=0))


IN_KERAS = [name for name in LAYERS if name not in ("periodic", "batch ensemble", "batch ensemble, flat")]


@pytest.mark.parametrize("name", IN_KERAS)
def test_a_keras_model_predicts_the_same_and_comes_back(name: str) -> None:
    network = moved(LAYERS[name])
    model = to_keras(network)
    agree(answers(model, network), network)
    back = from_keras(model)
    assert np.array_equal(back.outputs(X), network.outputs(X))
    assert [layer.name.rstrip("_0123456789") for layer in to_keras(back).layers] == [
        layer.name.rstrip("_0123456789") for layer in model.layers
    ]


@pytest.mark.parametrize("name", [name for name in BAGS if "weighted" not in name])
def test_embeddings_read_padded_ids(name: str) -> None:
    tables, rows = BAGS[name]
    network = moved([*tables, Dense(5, "relu"), Dense(2)], rows.width)
    model = to_keras(network)
    agree(answers(model, network, rows), network, rows)
    assert np.array_equal(from_keras(model).outputs(rows), network.outputs(rows))


def test_parameters_of_float64_stay_so() -> None:
    """Keras itself multiplies them in float32, but for its TensorFlow backend."""
    network = moved(LAYERS["residual"], dtype=np.float64)
    model = to_keras(network)
    np.testing.assert_allclose(answers(model, network), network.outputs(X), rtol=1e-4)
    back = from_keras(model)
    assert back.arena.dtype == np.float64
    assert np.array_equal(back.outputs(X), network.outputs(X))


def test_a_keras_model_is_trained_here_and_goes_back(keras: Any) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((2, 3)),
            layers.Flatten(),
            keras.Sequential([layers.Dense(16, activation="gelu"), layers.Dropout(0.1)]),
            layers.LayerNormalization(),
            layers.ReLU(),
            layers.Dense(2, use_bias=False),
        ]
    )
    network = from_keras(model)
    assert network.inputs == INPUTS
    agree(np.asarray(model.predict(X.reshape(-1, 2, 3), verbose=0)), network)
    y = (X[:, 0] > 0).astype(int)
    history = Trainer(network, loss="cross_entropy", optimizer="adam", seed=0).fit(
        X, y, epochs=30, progress=False
    )
    assert history["loss"][-1] < 0.85 * history["loss"][0]
    trained = to_keras(network)
    agree(answers(trained, network), network)
    # Trained on in Keras, and taken over again.
    before = network.outputs(X)
    trained.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trained.fit(X, y, epochs=1, verbose=0)
    again = from_keras(trained)
    assert not np.allclose(again.outputs(X), before)
    agree(answers(trained, again), again)


def test_a_functional_model_with_residual_connections(keras: Any) -> None:
    layers = keras.layers
    x = keras.Input((INPUTS,))
    h = layers.Dense(5, "relu")(x)
    inner = layers.Dense(5)(layers.ELU()(layers.Dense(7)(h)))
    h = layers.Add()([inner, h])
    h = layers.Add()([h, layers.LayerNormalization()(h)])
    model = keras.Model(x, layers.Dense(3)(layers.LeakyReLU(0.01)(h)))
    network = from_keras(model)
    assert [type(layer).__name__ for layer in network.layers].count("Residual") == 2
    agree(np.asarray(model.predict(X, verbose=0)), network)


def test_an_embedding_of_keras_reads_ids(keras: Any) -> None:
    layers = keras.layers
    ids = np.random.default_rng(0).integers(0, 7, (20, 4)).astype(np.int32)
    for width, pool in ((4, layers.GlobalAveragePooling1D()), (1, layers.Flatten())):
        model = keras.Sequential([keras.Input((width,)), layers.Embedding(7, 3), pool, layers.Dense(2)])
        network = from_keras(model)
        given = ids[:, :width]
        bags = Bags(given.ravel(), np.arange(21, dtype=np.int64) * width, 7)
        rows = Features(np.zeros((20, 0), np.float32), bags=(bags,))
        agree(np.asarray(model.predict(given, verbose=0)), network, rows)


def test_a_model_of_a_table_is_trained_on_in_keras(keras: Any, trained: Path, table: pa.Table) -> None:
    model = load(trained)
    module = to_keras(model)
    given = keras_inputs(model, table)
    found, expected = np.asarray(module.predict(given, verbose=0)), model.outputs(table)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    back = from_keras(module, like=model)
    assert np.array_equal(back.predict(table), model.predict(table))
    y = model.target.codes(table["species"].to_numpy(zero_copy_only=False))
    module.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    module.fit(given, y, epochs=1, verbose=0)
    after = from_keras(module, like=model)
    assert not np.allclose(after.predict_proba(table), model.predict_proba(table))
    found = np.asarray(module.predict(given, verbose=0))
    np.testing.assert_allclose(after.outputs(table), found, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"has 6 inputs.* the model of `like` has"):
        from_keras(to_keras(moved([Dense(3)])), like=model)


def test_a_saved_keras_model_is_loaded_with_its_layers(keras: Any, tmp_path: Path) -> None:
    network = moved(LAYERS["bins"])
    to_keras(network).save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    agree(answers(loaded, network), network)


def test_what_keras_cannot_express_is_named() -> None:
    for name, words in (
        ("periodic", "the layer Periodic"),
        ("batch ensemble, flat", "the layer BatchEnsemble, relu"),
    ):
        with pytest.raises(ConfigError, match=f"no counterpart of {words}"):
            to_keras(moved(LAYERS[name]))
    tables, rows = BAGS["weighted mean"]
    with pytest.raises(ConfigError, match="no weights of ids"):
        keras_inputs(moved([*tables, Dense(1)]), rows)
    with pytest.raises(ConfigError, match="no parameters yet"):
        to_keras(Network([Embedding(3, 2), Dense(1)]))
    with pytest.raises(ConfigError, match="no edges yet"):
        to_keras(Network([PiecewiseLinear(), Dense(1)], inputs=3))


def refused(keras: Any) -> dict[str, Any]:
    """Return models that cannot be imported, by a part of the message."""
    layers, x = keras.layers, keras.Input((3,))

    class Dense(layers.Dense):  # with another call, for all that nnkit knows
        pass

    shared = layers.Dense(3, name="shared")
    two = keras.Input((3,))
    dense = layers.Dense(3)(x)
    return {
        r"'bn', BatchNormalization, cannot be imported: nnkit has no batch": [
            layers.Dense(4),
            layers.BatchNormalization(name="bn"),
        ],
        r"'conv', Conv1D, cannot be imported: nnkit reads Activation, Add, Dense": keras.Sequential(
            [keras.Input((3, 1)), layers.Conv1D(2, 1, name="conv")]
        ),
        r"'last', Dense, has the activation softmax: nnkit's outputs are logits": [
            layers.Dense(4, "softmax", name="last")
        ],
        r"'odd', Dense, has the activation relu6: nnkit reads sigmoid": [
            layers.Dense(4, "relu6", name="odd")
        ],
        r"'mine', Dense, cannot be imported": [Dense(4, name="mine")],
        r"'leaky', LeakyReLU, has negative_slope = 0\.3": [
            layers.Dense(2),
            layers.LeakyReLU(0.3, name="leaky"),
        ],
        r"'six', ReLU, has max_value = 6": [layers.Dense(2), layers.ReLU(6.0, name="six")],
        r"'wide', Dense, takes 1 inputs, and 3 come": keras.Sequential(
            [keras.Input((3, 1)), layers.Dense(2, name="wide")]
        ),
        r"'shared', Dense, cannot be imported: it is called sev": keras.Model(x, shared(shared(x))),
        r"has 2 outputs": keras.Model(x, [layers.Dense(1)(x), layers.Dense(1)(x)]),
        r"has 2 inputs of numbers": keras.Model([x, two], layers.Add()([x, two])),
        r"is no residual connection": keras.Model(x, layers.Add()([layers.Dense(3)(x), dense])),
        r"the operation Exp of the Keras model cannot be imported": keras.Model(x, keras.ops.exp(dense)),
        r"'e', Embedding, cannot be imported: nnkit reads one without mask_zero": keras.Sequential(
            [keras.Input((4,)), layers.Embedding(3, 2, name="e"), layers.LSTM(2)]
        ),
        r"has no shapes yet": keras.Sequential([layers.Dense(2)]),
        r"takes a keras\.Model, not Dense": layers.Dense(2),
    }


def test_a_keras_model_that_cannot_be_imported_is_named(keras: Any) -> None:
    for message, given in refused(keras).items():
        model = keras.Sequential([keras.Input((3,)), *given]) if isinstance(given, list) else given
        with pytest.raises(ConfigError, match=message) as caught:
            from_keras(model)
        assert "\n" not in str(caught.value)


def test_a_missing_backend_is_named() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    program = (
        "import sys\nsys.modules['jax'] = None\nfrom nnkit import ConfigError\n"
        "from nnkit.interop.keras import from_keras\n"
        "try: from_keras(None)\nexcept ConfigError as error: print(error)"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "set KERAS_BACKEND to torch, jax or tensorflow" in result.stdout


def test_importing_the_module_does_not_import_keras() -> None:
    program = "import sys, nnkit.interop.keras; print('keras' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
