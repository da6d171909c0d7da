"""Programs of the CPU as one compiled function: the bits of the plain loop, and what is left to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from nnkit.backends import compiled
from nnkit.backends.compiled import _symbols, plan_program
from nnkit.backends.numpy import NumpyBackend, _Sequence
from nnkit.backends.operations import Copy, Product
from nnkit.engine.inference import Inference
from nnkit.engine.objective import Penalty
from nnkit.engine.step import Step
from nnkit.feed.augmentation import Augmentation
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.nn.layers import Dense, Dropout
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Adam

pytestmark = pytest.mark.skipif(not _symbols(), reason="NumPy's BLAS here has no 64-bit CBLAS symbols")

BACKEND = NumpyBackend()
SIZES = (1, 2, 5, 64)


def product_of(rows: int, inner: int, columns: int, turned: tuple[bool, bool], dtype: str) -> Product:
    random = np.random.default_rng(rows + 10 * inner + 100 * columns)
    shapes = (rows, inner), (inner, columns)
    a, b = (
        random.normal(size=shape[::-1] if t else shape).astype(dtype)
        for shape, t in zip(shapes, turned, strict=True)
    )
    a, b = (x.T if t else x for x, t in zip((a, b), turned, strict=True))
    return Product(a, b, np.full((rows, columns), np.nan, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_product_has_the_bits_of_numpys(dtype: str) -> None:
    """Of matrices, rows and columns, as they lie and turned; those that are left out are scalings."""
    left_out = 0
    for (rows, inner, columns), turned in product(
        product(SIZES, SIZES, SIZES), product((False, True), repeat=2)
    ):
        operation = product_of(rows, inner, columns, turned, dtype)
        plan = plan_program([operation])
        if plan is None:
            assert inner == 1
            assert rows == 1 or columns == 1
            left_out += 1
            continue
        compiled, out = plan.load(only_cached=False), operation.out
        assert compiled is not None
        expected, out[:] = np.dot(operation.a, operation.b), np.nan
        compiled(1)
        np.testing.assert_array_equal(out, expected, err_msg=f"{rows} {inner} {columns} {turned}")
    assert left_out == 4 * (2 * len(SIZES) - 1)


NETWORKS = {
    "classes": ([Dense(24, "relu"), Dropout(0.3), Dense(16, "gelu"), Dense(5)], "cross_entropy", 16),
    "one output": ([Dense(24, "tanh"), Dense(1)], "binary_cross_entropy", 16),
    "one row": ([Dense(24, "relu"), Dense(3)], "mse", 1),
    "pictures, varied": ([Dense(24, "relu"), Dense(5)], "cross_entropy", 16),
    "a width of 1": ([Dense(1, "sigmoid"), Dense(3)], "mse", 8),
}


def step_of(name: str, dtype: str = "float32") -> Step:
    layers, loss, batch_size = NETWORKS[name]
    random = np.random.default_rng(0)
    network = Network(layers)
    varied = Augmentation(0.4, True, 0.5) if name == "pictures, varied" else None
    network.initialize(12 if varied else 7, 1, dtype, BACKEND)
    X = Features(random.normal(size=(50, 7)).astype(dtype))
    if varied:
        pixels, picked = random.integers(0, 256, (80, 12), np.uint8), random.permutation(80)[:50]
        X = Features(pixels, None, np.full(12, 1 / 255), rows=picked, picture=(2, 2, 3))
    outputs = network.output_width
    y = (
        random.integers(0, outputs, 50).astype(np.int32)
        if loss == "cross_entropy"
        else random.random((50, outputs))
    )
    rows = Rows(BACKEND, dtype, X, y, random.random(50), True, varied, 2**40 + 3)
    return Step(
        network.places, network.arena, loss_from(loss), Penalty(0.01, 0.01), batch_size, 3, Adam(), rows, 1.0
    )


def train(step: Step) -> None:
    for epoch in range(3):
        order = np.random.default_rng(epoch).permutation(50)
        step.begin_epoch(epoch, order, np.full(step.steps_per_epoch, 1e-3))
        step.run(0, step.steps_per_epoch)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_compiled_step_has_the_bits_of_the_plain_one(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, compiled = step_of(name, dtype), step_of(name, dtype)
    monkeypatch.setattr("nnkit.backends.numpy._RUNS_TO_LOOK", 10**9)
    monkeypatch.setattr("nnkit.backends.numpy._RUNS_TO_COMPILE", 10**9)
    for program in plain._programs.values():
        program._next = 10**9
    train(plain)
    monkeypatch.setattr("nnkit.backends.numpy._RUNS_TO_COMPILE", 1)
    for program in compiled._programs.values():
        program._next = 1
    train(compiled)
    assert [p._compiled is None for p in plain._programs.values()] == [True] * len(plain._programs)
    assert [p._compiled is None for p in compiled._programs.values()] == [False] * len(compiled._programs)
    np.testing.assert_array_equal(plain.arena.values, compiled.arena.values)
    assert plain.read() == compiled.read()


def test_inference_is_compiled_too() -> None:
    network = Network([Dense(9, "relu"), Dense(2)], inputs=4)
    X = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    inference = Inference(network.places, network.arena, Rows(BACKEND, np.float32, Features(X)))
    expected, _ = inference.run()
    (program,) = inference._programs
    program._compiled = plan_program(program._lowered).load(only_cached=False)
    np.testing.assert_array_equal(inference.run()[0], expected)


@pytest.mark.parametrize("routine", ["sgemm", "dgemm", "sgemv", "dgemv", "sdot", "ddot"])
def test_a_routine_of_blas_is_called_only_if_it_multiplies_as_its_name_says(routine: str) -> None:
    assert _symbols()[routine].endswith(f"cblas_{routine}64_")

    def nothing(*arguments: object) -> float:
        return 0.0

    assert not compiled._multiplies(nothing, routine)


def test_without_such_a_routine_products_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, out = np.ones((2, 3)), np.ones((3, 2)), np.zeros((2, 2))
    assert plan_program([Product(a, b, out)]) is not None
    _symbols.cache_clear()
    monkeypatch.setattr(compiled, "_multiplies", lambda function, routine: False)
    try:
        assert plan_program([Product(a, b, out)]) is None
    finally:
        _symbols.cache_clear()


def test_products_in_pieces_and_no_operations_are_left_to_python() -> None:
    assert plan_program([]) is None
    cut = np.zeros((4, 6))[:, :3]
    assert plan_program([Product(cut, np.zeros((3, 2)), np.zeros((4, 2)))]) is None


def test_a_program_is_compiled_once_it_has_run_often(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path))  # where nothing is
    monkeypatch.setattr("nnkit.backends.numpy._RUNS_TO_COMPILE", 30)
    step = step_of("one output")
    program: _Sequence = step._programs[16]
    fresh = _Sequence([*program._lowered, *program._lowered[:1]])  # a program of its own
    fresh.run(20)
    assert fresh._compiled is None  # looked for and not found
    step.counters[1] = 0
    fresh.run(10)
    assert fresh._compiled is not None


SECOND_PROCESS = """
from nnkit.backends import numpy
numpy._RUNS_TO_COMPILE = 40
from nnkit.bench.problem import generate_problem, training_step
step = training_step(generate_problem((20, 8, 3), 4, 50), numpy.NumpyBackend())
step.run(0, 50)
(program,) = step._programs.values()
before = program._compiled is not None
numpy._RUNS_TO_COMPILE = 10 ** 9
other = training_step(generate_problem((6, 9, 3), 5, 20), numpy.NumpyBackend())
other.run(0, 20)
(program,) = other._programs.values()
print(before, program._compiled is not None)
"""


def test_a_second_process_and_another_network_of_the_kind_find_it_compiled(tmp_path: Path) -> None:
    environment = {**os.environ, "NNKIT_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", SECOND_PROCESS]
    first = subprocess.check_output(command, env=environment, text=True)
    left = sorted(path.name for path in tmp_path.rglob("program_*.nb*"))
    second = subprocess.check_output(command, env=environment, text=True)
    assert first.split() == second.split() == ["True", "True"]
    assert len(left) == 2  # an index and one compiled function
    assert left == sorted(path.name for path in tmp_path.rglob("program_*.nb*"))


def test_a_copy_is_compiled_too() -> None:
    source, target = np.arange(6.0).reshape(2, 3), np.zeros((2, 3))
    compiled = plan_program([Copy(source, target)]).load(only_cached=False)
    compiled(1)
    np.testing.assert_array_equal(target, source)


def test_shards_wait_by_a_release_and_an_acquire() -> None:
    namespace: dict = {}
    exec(f"{compiled._IMPORTS}\n{compiled._BARRIER}", namespace)
    namespace["wait"].compile("void(int64, int64[:, ::1])")
    (code,) = namespace["wait"].inspect_llvm().values()
    assert re.search("store atomic .* release, align 8", code)
    assert re.search("load atomic .* acquire, align 8", code)
