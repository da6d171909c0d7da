"""Machine code that is loaded without Numba: the same results, whole or not at all, for one processor."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import typeof
from numpy.typing import NDArray

from nnkit.cache import cache_folder
from nnkit.kernels import native
from nnkit.kernels.modules import module_name, source_name
from nnkit.kernels.native import Loop, undefined_symbols

SOURCE = """import math

import numpy as np
from numba import njit


@njit(error_model="numpy", nogil=True)
def weigh(matrix, integers, column, single, double, whole, out):
    for i in range(matrix.shape[0]):
        row = matrix[i]
        total = 0.0
        for j in range(row.shape[0]):
            total += row[j] * (j + 1) + math.pow(double, column[j])
        out[i] = total * single + integers[i] * whole
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path))
    return tmp_path / "kernels" / "native"


_tried_first: dict[str, bytes] = {}  # compiled once for all tests


@pytest.fixture
def loads(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Collect what loading machine code has given, but for the function that is tried first."""
    cache_folder()
    for name, data in _tried_first.items():
        (own_cache / name).write_bytes(data)
    assert native._can_be_called(own_cache, may_compile=True)
    _tried_first.update({path.name: path.read_bytes() for path in own_cache.glob("check_*.o")})
    found: list[int | None] = []
    load = native._address_of

    def note(code: native._Object) -> int | None:
        found.append(load(code))
        return found[-1]

    monkeypatch.setattr(native, "_address_of", note)
    return found


def objects(folder: Path) -> list[Path]:
    """Return the files with the loop's machine code."""
    return list(folder.glob("weigh_*.o"))


def loop(source: str = SOURCE) -> Loop:
    """Return the loop as a process does that has not met it."""
    return Loop(source_name("weigh", source), source, "weigh")


def arguments(layout: str = "C") -> list[Any]:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(4, 6)).astype(np.float32)
    made: dict[str, Callable[[], NDArray]] = {
        "C": lambda: matrix,
        "F": lambda: np.asfortranarray(matrix),
        "A": lambda: np.repeat(np.repeat(matrix, 2, axis=0), 3, axis=1)[::2, ::3],
    }
    integers = np.arange(10, 14, dtype=np.int32)
    column = np.linspace(0, 2, 6)
    return [made[layout](), integers, column, np.float32(0.25), 1.5, 3, np.zeros(4)]


def expected(values: list[Any]) -> NDArray[np.float64]:
    matrix, integers, column, single, double, whole, _ = values
    weighted = (matrix.astype(float) * np.arange(1, 7)).sum(axis=1) + (double**column).sum()
    return weighted * single + integers * whole


@pytest.mark.parametrize("layout", ["C", "F", "A"])
def test_loaded_code_computes_what_numba_has_compiled(layout: str, loads: list[int | None]) -> None:
    by_numba, by_llvm = arguments(layout), arguments(layout)
    loop()(*by_numba)
    assert not loads
    loop()(*by_llvm)
    assert len(loads) == 1
    assert loads[0]
    np.testing.assert_array_equal(by_llvm[-1], by_numba[-1])
    np.testing.assert_allclose(by_llvm[-1], expected(by_llvm), rtol=1e-12)


def test_code_for_other_types_is_another(own_cache: Path, loads: list[int | None]) -> None:
    for layout in ("C", "F", "A"):
        loop()(*arguments(layout))
    wider = arguments()
    wider[0] = wider[0].astype(np.float64)
    loop()(*wider)
    np.testing.assert_allclose(wider[-1], expected(wider), rtol=1e-12)
    assert len(objects(own_cache)) == 4
    assert not loads


def arrays() -> Iterator[NDArray]:
    """Yield arrays of every type and layout that a loop may be given."""
    for dtype, shape in itertools.product(
        ("uint8", "int32", "float32", "float64"), ((3,), (3, 4), (1, 4), (0, 4))
    ):
        array = np.ones(shape, dtype)
        yield from (array, array[::2], np.asfortranarray(array))
        if array.ndim == 2:
            yield from (array.T, array[:, ::2], array[:, :1])
        fixed = array.copy()
        fixed.flags.writeable = False
        yield fixed


def test_versions_are_told_apart_as_numba_tells_them() -> None:
    values: list[Any] = [*arrays(), 1, 1.0, np.float32(1), np.float64(1), np.int64(1)]
    for a, b in itertools.combinations(values, 2):
        same = native._signature([a]) == native._signature([b])
        assert same == (typeof(a) == typeof(b)), (typeof(a), typeof(b))


@pytest.mark.parametrize("value", [True, np.uint8(1), 1j, "x", np.ones(2, ">f4"), np.ones(2, "complex64")])
def test_what_is_not_known_how_to_be_laid_out_is_numbas(value: Any) -> None:
    assert native._signature([value]) is None


@pytest.mark.parametrize("damage", ["a byte", "the end", "the head", "nothing in it", "another name"])
def test_damaged_code_is_not_run(damage: str, own_cache: Path, loads: list[int | None]) -> None:
    values = arguments()
    loop()(*values)
    [path] = objects(own_cache)
    data = bytearray(path.read_bytes())
    if damage == "a byte":
        data[len(data) // 2] ^= 1
    elif damage == "the end":
        del data[-1]
    elif damage == "the head":
        data[:1] = b"["
    elif damage == "nothing in it":
        data.clear()
    else:
        data = data.replace(b'"symbol"', b'"simbol"')
    path.write_bytes(bytes(data))
    del sys.modules[module_name(loop().module)]  # as in a new process
    again = arguments()
    loop()(*again)
    assert not loads
    np.testing.assert_array_equal(again[-1], values[-1])
    # It was made anew.
    loop()(*again)
    assert len(loads) == 1
    np.testing.assert_array_equal(again[-1], values[-1])


def test_code_that_needs_what_is_not_here_is_not_loaded(loads: list[int | None]) -> None:
    loop()(*arguments())
    path = native._Object.path(loop().module, str(native._signature(arguments())))
    assert path is not None
    code = native._Object.read(path)
    assert code is not None
    assert "pow" in code.needs
    native._Object(code.symbol, (*code.needs, "nowhere_to_be_found"), code.code).write(path)
    values = arguments()
    loop()(*values)
    assert loads == [None]
    np.testing.assert_allclose(values[-1], expected(values), rtol=1e-12)


@pytest.mark.parametrize("setting", [("NUMBA_OPT", "1"), ("NUMBA_CPU_NAME", "generic")])
def test_code_for_other_settings_is_another(
    setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = native._Object.path("m", "int64")
    monkeypatch.setenv(*setting)
    native._made_for.cache_clear()
    try:
        assert native._Object.path("m", "int64") != before
    finally:
        monkeypatch.undo()
        native._made_for.cache_clear()


def test_releases_that_were_not_tested_are_left_to_numba(
    own_cache: Path, loads: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop()(*arguments())
    monkeypatch.setattr(native, "_checked", {})
    monkeypatch.setattr(native, "version", lambda package: "0.99.1")
    values = arguments()
    loop()(*values)
    assert not loads
    np.testing.assert_allclose(values[-1], expected(values), rtol=1e-12)


def test_machine_code_is_loaded_only_where_the_function_that_is_tried_is_right(
    own_cache: Path, loads: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop()(*arguments())
    monkeypatch.setattr(native, "_checked", {})
    bound = native._bound

    def in_another_order(address: int, values: list[Any]) -> Any:
        """Lay numbers out as a later Numba might."""
        turned = [*values[:3], np.float32(values[4]), float(values[3]), *values[5:]]
        return bound(address, turned if len(values) == 7 else values)

    monkeypatch.setattr(native, "_bound", in_another_order)
    values = arguments()
    loop()(*values)
    assert len(loads) == 1  # the function that is tried
    np.testing.assert_allclose(values[-1], expected(values), rtol=1e-12)


def test_the_values_of_the_function_that_is_tried_are_those_of_python() -> None:
    values, after = native._check_values()
    namespace: dict[str, Any] = {}
    exec("import math\n" + native._CHECK[native._CHECK.index("def check") :], namespace)
    namespace["check"](*values)
    np.testing.assert_array_equal(values[-1].base, after)
    assert np.count_nonzero(after) > 4


def test_the_names_that_an_object_needs_are_all_found() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(
        "declare double @pow(double, double)\n"
        "declare void @elsewhere()\n"
        "define double @here(double %x) {\n"
        "  call void @elsewhere()\n"
        "  %y = call double @pow(double %x, double %x)\n"
        "  ret double %y\n"
        "}\n"
    )
    code = llvm.Target.from_default_triple().create_target_machine().emit_object(module)
    assert sorted(undefined_symbols(code)) == ["elsewhere", "pow"]
    with pytest.raises(ValueError, match="ELF"):
        list(undefined_symbols(b"MZ" + code))


def test_threads_that_meet_a_loop_at_once_all_run_it() -> None:
    loop()(*arguments())
    shared, several = loop(), [arguments() for _ in range(8)]
    threads = [threading.Thread(target=shared, args=values) for values in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in several:
        np.testing.assert_allclose(values[-1], expected(values), rtol=1e-12)


TRAINING = """
import sys
from nnkit.cli import main
options = "--epochs 30 --batch-size 16 --dropout 0.2 --out"
sys.argv = ["nnkit", "train", "digits", *options.split(), sys.argv[1]]
try:
    main()
finally:
    print("numba" in sys.modules)
"""


def test_a_second_training_from_the_shell_does_without_numba(tmp_path: Path) -> None:
    said, models = [], []
    for name in ("first", "second"):
        folder = tmp_path / name
        done = subprocess.run(
            [sys.executable, "-c", TRAINING, str(folder)], capture_output=True, text=True, check=True
        )
        said.append(done.stdout.splitlines()[-1])
        models.append((folder / "model.safetensors").read_bytes())
    assert said == ["True", "False"]
    assert models[0] == models[1]
