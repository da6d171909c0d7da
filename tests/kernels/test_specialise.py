"""Specialising: what a kernel's source holds, when it is compiled anew, and what a user's formula may be."""

from __future__ import annotations

import importlib
import math
import os
import re
import subprocess
import sys
from math import exp as exponential
from pathlib import Path

import numpy as np
import pytest

from nnkit.errors import ConfigError
from nnkit.kernels import formulas, host
from nnkit.kernels.specialise import LoadedKernel, Target, specialise
from nnkit.nn import activations, losses
from nnkit.nn.activations import register_activation
from nnkit.nn.layers import Dense, Dropout
from nnkit.nn.losses import register_loss
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Adam, optimizer_from
from nnkit.training.trainer import Trainer

SLOPE = np.float64(0.3)
BIAS = 0.25
PLAIN = {"BIAS": False, "DROPOUT": False, "KEEP_Z": False}


def load(activation, dtype: str = "float64", **constants) -> LoadedKernel:
    return host.kernel("forward", np.dtype(dtype), {"activation": activation}, **{**PLAIN, **constants})


def applied(activation, z: list[float], dtype: str = "float64") -> np.ndarray:
    """Return the activation of z as its kernel computes it."""
    values = np.array([z], dtype)
    load(activation, dtype).entry(values)
    return values[0]


# ---------------------------------------------------------------------------------------------------------
# The source.
# ---------------------------------------------------------------------------------------------------------


def test_flags_are_folded_and_unused_parameters_dropped() -> None:
    bare = load(formulas.relu)
    assert bare.parameters == ("z",)
    assert "if " not in re.sub(r"if z_\d+ < C\d", "", bare.path.read_text())
    with_bias = load(formulas.relu, BIAS=True)
    assert with_bias.parameters == ("z", "bias")
    dropping = load(formulas.relu, DROPOUT=True)
    assert dropping.parameters == (
        "z",
        "mask",
        "counters",
        "layer",
        "key0",
        "key1",
        "threshold",
        "kept_scale",
    )
    for kernel in (bare, with_bias, dropping):
        assert not re.search(r"\b(BIAS|DROPOUT|KEEP_Z|activation)\b", kernel.path.read_text())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_literals_take_the_working_type(dtype: str) -> None:
    source = load(formulas.leaky_relu, dtype).path.read_text()
    assert f'np.{dtype}("0.01")' in source
    body = source[source.index("def forward") :]
    assert not re.search(r"\d\.\d", body)


def test_hyperparameters_are_arguments_and_their_differences_are_taken_in_float64() -> None:
    constants = {
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "epsilon_hat": False,
        "SLOTS": 2,
        "FOLDED": False,
        "PREPARED": True,
    }
    rule = {"rule": formulas.adam, "prepare": formulas.adam_corrections}
    kernel = host.kernel("update", np.dtype(np.float32), rule, **constants)
    given = kernel.bind(dict.fromkeys(kernel.parameters), constants)
    hyperparameters = [value for value in given if value is not None]
    assert np.float32(1 - 0.999) != np.float32(1) - np.float32(0.999)
    expected = {np.float32(x) for x in (0.9, 1 - 0.9, 0.999, 1 - 0.999, 1e-8)}
    # What is prepared once a step stays in float64.
    expected |= {np.float64(0.9), np.float64(0.999)}
    assert sorted(hyperparameters) == sorted(expected)
    assert {type(value) for value in hyperparameters} == {np.float32, np.float64}
    assert "0.999" not in kernel.path.read_text()


def double(x):
    """Named as the kernels name a cast, to see that a module's own names win."""
    y = x + x
    return y + 0.0 * y


def nested(z):
    y = z + 1.0
    x = double(y) + double(double(z))
    return x * y


def test_nested_formulas_with_equal_local_names_do_not_clash() -> None:
    assert applied(nested, [-1.5, 0.0, 4.0]).tolist() == [nested(z) for z in (-1.5, 0.0, 4.0)]


def value(z):
    return z - BIAS


def uses_names_of_the_kernels_own(z):
    """`BIAS` is a flag, `value` and `mask` are names in the templates, and here they mean this module's."""
    mask = value(z)
    return mask * SLOPE


def test_a_formulas_names_are_those_of_its_module() -> None:
    assert applied(uses_names_of_the_kernels_own, [1.0]).tolist() == [0.75 * 0.3]
    flagged = load(uses_names_of_the_kernels_own, BIAS=True)
    z = np.ones((1, 1))
    flagged.entry(z, np.zeros(1))
    assert z.item() == 0.75 * 0.3


def test_a_formula_may_close_over_numbers_and_functions() -> None:
    shift = 0.5

    def inner(x):
        return exponential(-x) + math.sqrt(np.abs(x))

    def outer(z):
        return shift * inner(z)

    expected = [0.5 * (math.exp(-2.0) + math.sqrt(2.0))]
    np.testing.assert_allclose(applied(outer, [2.0]), expected, rtol=1e-15)


def test_a_template_without_formulas_needs_none() -> None:
    def template(x, unused, scale):
        """Double, where asked to."""
        for i in range(x.shape[0]):
            if SCALED and not OFF:  # noqa: F821
                x[i] = x[i] * scale
            else:
                x[i] = 0.5

    plain = Target("plain", "import numpy as np", "staticmethod", "np.float32", {}, {})
    scaled = specialise(template, {}, {"SCALED": True, "OFF": False}, (), plain).source
    halved = specialise(template, {}, {"SCALED": False, "OFF": False}, (), plain).source
    assert "def template(x, scale):" in scaled
    assert "0.5" not in scaled
    assert "Double" not in scaled
    assert "def template(x):" in halved
    assert 'C0 = np.float32("0.5")' in halved


def part_that_writes(x, i, k):
    """A part sees the flags and the placeholders, and what the call does not give is the template's."""
    if SCALED:  # noqa: F821
        x[i] = activation(x[i]) + k  # noqa: F821


def part_with_a_value(y):
    z = y * 2.0
    return activation(z)  # noqa: F821


def template_of_parts(x):
    k = 3  # noqa: F841
    for i in range(x.shape[0]):
        part_that_writes(x, i)
        x[i] = part_with_a_value(x[i])
    x.sort()


def specialised_of_parts(**constants) -> str:
    parts = frozenset({__name__})
    plain = Target("plain", "import numpy as np", "staticmethod", "np.float64", {}, {}, parts=parts)
    return specialise(template_of_parts, {"activation": formulas.relu}, constants, (), plain).source


def test_parts_of_a_template_see_its_flags_and_placeholders_and_may_return_nothing() -> None:
    namespace: dict = {}
    source = specialised_of_parts(SCALED=True)
    exec(source.replace("@staticmethod\n", ""), namespace)
    x = np.array([-2.0, 1.5])
    namespace["template_of_parts"](x)
    # max(x, 0) + 3, twice that, in order.
    assert x.tolist() == [6.0, 9.0]
    assert "x.sort()" in source
    assert "None" not in source
    assert " + k" not in specialised_of_parts(SCALED=False)


def test_a_module_that_the_target_does_not_name_has_no_parts() -> None:
    plain = Target("plain", "import numpy as np", "staticmethod", "np.float64", {}, {})
    with pytest.raises(ConfigError, match="'part_that_writes' must end with its one `return`"):
        specialise(template_of_parts, {"activation": formulas.relu}, {"SCALED": True}, (), plain)


# ---------------------------------------------------------------------------------------------------------
# The cache.
# ---------------------------------------------------------------------------------------------------------

TRAINING = """
import numpy as np
from nnkit.nn.layers import Dense, Dropout
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Adam
from nnkit.feed.order import epoch_order
net = Network([Dense(3, "tanh"), Dense(2)], inputs=4)
gradients = net.gradients(np.ones((5, 4)), [0, 1, 0, 1, 1], "cross_entropy", l2=0.1)
import sys
print("numba:", "numba" in sys.modules)
print(gradients["layers.0.weight"].tolist(), epoch_order(9, 1, 0).tolist())
"""


def run_python(script: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NNKIT_CACHE": str(cache), "NUMBA_DEBUG_CACHE": "1"}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def files(folder: Path) -> dict[Path, int]:
    """Return when each file that is no bytecode of the import system's was written."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    first = run_python(TRAINING, tmp_path)
    written = files(tmp_path)
    compiled = {path for path in written if path.suffix == ".nbc"}
    kernels = {path for path in compiled if not path.name.startswith(("reductions_", "check_"))}
    assert len(kernels) == 5  # shuffle, forward, softmax_loss, backward, penalise; one source each
    # total_of and greatest_of, which lie in the loss's code too, and the function that is tried first
    assert len(compiled - kernels) == 3
    objects = {path.name.partition(".")[0] for path in written if path.suffix == ".o"}
    tried_first = {name for name in objects if name.startswith("check_")}
    assert len(tried_first) == 1
    assert objects - tried_first == {path.name.partition(".")[0] for path in kernels}
    second = run_python(TRAINING, tmp_path)
    assert files(tmp_path) == written
    assert "data saved to" in first.stdout
    assert "data saved to" not in second.stdout
    assert "numba: True" in first.stdout
    assert "numba: False" in second.stdout
    assert second.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]


def test_without_the_machine_code_numba_finds_what_it_once_compiled(tmp_path: Path) -> None:
    first = run_python(TRAINING, tmp_path)
    for path in (tmp_path / "kernels" / "native").iterdir():
        path.unlink()
    second = run_python(TRAINING, tmp_path)
    assert second.stdout.count("data loaded from") == 5
    saved = [line for line in second.stdout.splitlines() if "data saved to" in line]
    assert [name for name in saved if "check_" not in name] == []  # but for the function that is tried first
    assert second.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]


def test_an_edited_formula_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "edited_formula.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module.write_text("def helper(z):\n    return z * 2.0\n\n\ndef f(z):\n    return helper(z)\n")
    imported = importlib.import_module("edited_formula")
    before = load(imported.f)
    assert applied(imported.f, [3.0]).item() == 6
    # Only what the formula calls is edited, and the file keeps its size.
    module.write_text(module.read_text().replace("2.0", "5.0"))
    imported = importlib.reload(imported)
    after = load(imported.f)
    assert applied(imported.f, [3.0]).item() == 15
    assert after.path != before.path
    assert load(imported.f).path == after.path


# Each hyperparameter of an optimizer and of a loss, and two values beside its default.
HYPERPARAMETERS = [
    *(("sgd", None, {"weight_decay": x}) for x in (0.1, 0.2)),
    *(("momentum", None, {"momentum": x}) for x in (0.5, 0.6)),
    *(("momentum", None, {"rate_in_velocity": True, "momentum": x}) for x in (0.5, 0.6)),
    *(("nesterov", None, {"momentum": x, "weight_decay": x}) for x in (0.5, 0.6)),
    *(("adagrad", None, {"epsilon": x}) for x in (1e-3, 1e-2)),
    *(("rmsprop", None, {"decay": 1 - x, "epsilon": x}) for x in (1e-3, 1e-2)),
    *(("adam", None, {"beta1": 1 - x, "beta2": 1 - x / 2, "epsilon": x}) for x in (0.3, 0.4)),
    *(("adam", None, {"epsilon_hat": True, "beta1": 1 - x, "epsilon": x}) for x in (0.3, 0.4)),
    *(("adamw", None, {"weight_decay": x, "beta2": 1 - x}) for x in (0.3, 0.4)),
    *(("sgd", {"name": "cross_entropy", "label_smoothing": x}, {}) for x in (0.1, 0.2)),
    *(("sgd", {"name": "cross_entropy", "ceiling": x}, {}) for x in (10.0, 20.0)),
    *(("sgd", {"name": "binary_cross_entropy", "label_smoothing": x}, {}) for x in (0.1, 0.2)),
    *(("sgd", {"name": "binary_cross_entropy", "ceiling": x}, {}) for x in (10.0, 20.0)),
    *(("sgd", {"name": "huber", "delta": x}, {}) for x in (0.1, 0.2)),
    *(("sgd", {"name": "log_cosh", "width": x}, {}) for x in (0.1, 0.2)),
]  # fmt: skip


def form_of(setting: tuple) -> tuple:
    """Return what may make a kernel: the optimizer, the loss, and which of its settings are switches."""
    optimizer, loss, options = setting
    switches = [key for key, value in options.items() if value is True]
    return optimizer, (loss or {}).get("name"), tuple(loss or ()), tuple(switches)


@pytest.mark.usefixtures("_own_registries")
def test_no_value_of_a_hyperparameter_is_compiled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path))
    host._kernel.cache_clear()
    register_loss("log_cosh", log_cosh, log_cosh_derivative, width=0.5)
    X, classes = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2
    seen: set[tuple] = set()
    results = set()
    for setting in HYPERPARAMETERS:
        optimizer, loss, options = setting
        outputs = 2 if loss is None or loss["name"] == "cross_entropy" else 1
        x = 0.01 * (1 + len(results))
        net = Network([Dense(3, "tanh"), Dropout(x), Dense(outputs)], inputs=3)
        before = files(tmp_path)
        chosen = optimizer_from({"name": optimizer, "learning_rate": x, **options})
        loss = loss or "cross_entropy"
        trainer = Trainer(net, loss, chosen, device="cpu", l1=x, l2=x, clip_norm=1 + x)
        trainer.fit(X, classes, epochs=9, batch_size=6)
        results.add(net.parameters()["layers.0.weight"].tobytes())
        written = set(files(tmp_path)) - set(before)
        assert not written or form_of(setting) not in seen, setting
        seen.add(form_of(setting))
    assert len(results) == len(HYPERPARAMETERS)
    assert len(seen) == len(HYPERPARAMETERS) // 2
    assert files(tmp_path)
    host._kernel.cache_clear()


# ---------------------------------------------------------------------------------------------------------
# A user's formulas.
# ---------------------------------------------------------------------------------------------------------


def no_return(z):
    z = z * 2.0


def only_a_docstring(z):
    """Say nothing."""


def early_return(z):
    if z > 0.0:
        return z
    return 0.0


def loops(z):
    while z > 1.0:
        z = z / 2.0
    return z


def two_parameters(z, slope):
    return slope * z


def by_name(z):
    return two_parameters(z, slope=2.0)


def one_value_too_many(z):
    return double(z, 1.0)


def unknown_thing(z):
    return z * lookup[0]


lookup = [1.0]


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda z: z * z, "formula '<lambda>'"),
        (math.sin, "a plain Python function, not <built-in function sin>"),
        (no_return, "formula 'no_return' must end with its one `return`"),
        (only_a_docstring, "formula 'only_a_docstring' must end with its one `return`"),
        (early_return, "formula 'early_return' must end with its one `return`"),
        (loops, "formula 'loops' cannot hold a while block"),
        (two_parameters, "formula 'two_parameters' takes z, slope; 1 values were given"),
        (by_name, "formula 'by_name' must give values by position"),
        (one_value_too_many, "formula 'double' takes x; 2 values were given"),
        (unknown_thing, "formula 'unknown_thing' uses 'lookup'"),
    ],
)
def test_a_users_mistake_is_named(formula, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(formula)


def softsign(z):
    return z / (1.0 + abs(z))


def softsign_derivative(z):
    q = 1.0 + abs(z)
    return 1.0 / (q * q)


def square(z):
    return z * z


def log_cosh(y, t, width):
    """width² log cosh((y − t) / width), from a form that does not overflow."""
    d = abs(y - t) / width
    return width * width * (d + math.log1p(math.exp(-2.0 * d)) - 0.6931471805599453)


def log_cosh_derivative(y, t, width):
    return width * math.tanh((y - t) / width)


@pytest.fixture
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "_REGISTRY", dict(activations._REGISTRY))
    monkeypatch.setattr(losses, "_REGISTRY", dict(losses._REGISTRY))


@pytest.mark.usefixtures("_own_registries")
def test_a_users_activation_and_loss_train_and_pass_a_gradient_check() -> None:
    register_activation("softsign", softsign, softsign_derivative)
    register_loss("log_cosh", log_cosh, log_cosh_derivative, width=0.5)
    random = np.random.default_rng(0)
    X = random.normal(size=(40, 3))
    y = np.sin(X).sum(axis=1, keepdims=True)
    net = Network([Dense(8, "softsign"), Dense(1)])
    net.initialize(3, dtype=np.float64)

    def mean_loss() -> float:
        parameters = net.parameters()
        z = X @ parameters["layers.0.weight"] + parameters["layers.0.bias"]
        a = z / (1 + abs(z))
        outputs = a @ parameters["layers.1.weight"] + parameters["layers.1.bias"]
        return float(np.mean(0.25 * np.log(np.cosh((outputs - y) / 0.5))))

    gradients = net.gradients(X, y, "log_cosh")
    start = net.parameters()
    for name, at in [("layers.0.weight", (1, 2)), ("layers.0.bias", (5,)), ("layers.1.weight", (3, 0))]:
        sides = []
        for h in (1e-5, -1e-5):
            moved = {name: start[name].copy()}
            moved[name][at] += h
            net.set_parameters(moved)
            sides.append(mean_loss())
        net.set_parameters(start)
        assert gradients[name][at] == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)
    before = mean_loss()
    trainer = Trainer(net, {"name": "log_cosh", "width": 0.5}, Adam(0.02), device="cpu", precision="fp64")
    history = trainer.fit(X, y, epochs=30, batch_size=8)
    assert mean_loss() < before / 2
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


@pytest.mark.usefixtures("_own_registries")
def test_a_derivative_must_say_what_it_is_computed_from() -> None:
    with pytest.raises(ConfigError, match=r"activation 'square' takes \(x\); name its only parameter z"):
        register_activation("square", square, double)
    assert "square" not in activations.activation_names()
