"""The package as a whole: what importing it costs, which part may know which, and what training it takes."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
import tomllib
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import nnkit
from nnkit.runs.config import Config
from nnkit.runs.run import Run

ROOT = Path(nnkit.__file__).resolve().parent
KERNELS = ROOT.parent / "kernels"

# Top to bottom: a module imports from its own layer and from those below it.
LAYERS = (
    "cli",
    "bench",
    "testing",
    "export",
    "estimators",
    "interop",
    "insight",
    "runs",
    "diagnostics",
    "training",
    "adapting",
    "model",
    "machine",
    "data",
    "nn",
    "engine",
    "feed",
    "backends",
    "kernels",
    "checks",
    "extras",
    "cache",
    "run_folder",
    "tensorfile",
    "files",
    "nesting",
    "terminal",
    "versions",
    "working",
    "errors",
)
# Each takes a tenth of a second or more to import.
SLOW = ("numpy", "numba", "scipy", "sklearn", "pyarrow", "pandas", "pydantic", "safetensors", "PIL")


def modules() -> dict[str, Path]:
    """Return every module of the package by its name, but for the lazy `nnkit` itself."""
    found = {f"nnkit.{path.relative_to(ROOT).with_suffix('')}": path for path in ROOT.rglob("*.py")}
    folder = KERNELS if KERNELS.is_dir() else ROOT / "kernels"
    found |= {f"nnkit.kernels.{path.stem}": path for path in folder.glob("*.py")}
    names = {name.replace("/", ".").removesuffix(".__init__"): path for name, path in found.items()}
    return {name: path for name, path in names.items() if name != "nnkit"}


def imports(source: str) -> Iterator[str]:
    """Yield the full name of everything imported, at the top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> str:
    """Return the layer of a module or of a name in it; the public names belong to the top."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "cli"


def violations(module: str, source: str) -> list[str]:
    """Return what a module imports from above itself."""
    rank = LAYERS.index(layer(module))
    ours = [name for name in imports(source) if name.split(".")[0] == "nnkit"]
    return [f"{module} imports {name}" for name in ours if LAYERS.index(layer(name)) < rank]


def circles(sources: Mapping[str, str]) -> list[set[str]]:
    """Return the groups of modules that import each other, directly or through others.

    Imports inside functions and under ``TYPE_CHECKING`` count: they tie the files together as others do.
    """
    imported: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = {name if name in sources else name.rpartition(".")[0] for name in imports(source)}
        imported[module] = (names & set(sources)) - {module}
    reached = {}
    for module in imported:
        found, ahead = set(), [module]
        while ahead:
            new = imported[ahead.pop()] - found
            found |= new
            ahead += new
        reached[module] = found
    groups = [{other for other in reached if other in reached[m] and m in reached[other]} for m in reached]
    return [group for place, group in enumerate(groups) if group and group not in groups[:place]]


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a new process."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import nnkit",
        "import nnkit.cli",
        "import nnkit.cli\nsys.argv = ['nnkit', '--help']\ntry: nnkit.cli.main()\nexcept SystemExit: pass",
        "import nnkit.cli\nsys.argv = ['nnkit', '--version']\ntry: nnkit.cli.main()\nexcept SystemExit: pass",
    ],
)
def test_importing_costs_next_to_nothing(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "nnkit" in loaded
    assert loaded.isdisjoint(SLOW)


@pytest.mark.parametrize("command", ["train", "plot", "explain"])
def test_the_help_of_a_command_costs_next_to_nothing(command: str) -> None:
    arguments = f"sys.argv = ['nnkit', '{command}', '--help']"
    loaded = loaded_by(f"import nnkit.cli\n{arguments}\ntry: nnkit.cli.main()\nexcept SystemExit: pass")
    # Typer reads a command's arguments by pydantic in its newer versions.
    assert loaded.isdisjoint(set(SLOW) - {"pydantic"})


def test_using_a_name_loads_what_it_needs() -> None:
    loaded = loaded_by("from nnkit import Dense")
    assert "nnkit.nn.layers" in loaded
    assert loaded.isdisjoint({"sklearn", "pyarrow", "pandas", "pydantic", "rich"})


def test_training_on_arrays_loads_no_library_for_tables_pictures_or_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))  # with kernels in it, Numba is not imported
    np.savez(tmp_path / "rows.npz", X=np.arange(240.0).reshape(80, 3) % 7, y=np.arange(80) % 2)
    arguments = [
        "nnkit",
        "train",
        str(tmp_path / "rows.npz"),
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    loaded = loaded_by(f"import nnkit.cli\nsys.argv = {arguments!r}\nnnkit.cli.app(standalone_mode=False)")
    assert "numba" in loaded
    assert loaded.isdisjoint({"sklearn", "pyarrow", "pandas", "PIL", "matplotlib"})


@pytest.mark.parametrize("name", nnkit.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(nnkit, name)
    assert name in dir(nnkit)
    if name == "__version__":
        from importlib.metadata import version

        assert value == version("nnkit-train")
    else:
        assert value.__name__ == name
        assert value.__doc__
        assert len(value.__doc__.split()) >= 4
        # A dataclass that has none is given its signature.
        assert not value.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize("options", [["-S"], []], ids=["nothing installed", "another installed"])
def test_a_checkout_that_is_not_installed_says_so(tmp_path: Path, options: list[str]) -> None:
    """Whatever kernels are installed: those of another checkout or version must not run with this source."""
    for source, name in ((ROOT, "nnkit"), (ROOT, "kernels")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_bytes((source / "__init__.py").read_bytes())
    result = subprocess.run(
        [sys.executable, *options, "-c", "import nnkit"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stderr.splitlines()[-1] == (
        f"ImportError: {tmp_path} is a checkout of nnkit that is not installed: start Python in another "
        f"folder to use the installed nnkit, or install the checkout by pip install -e {tmp_path}"
    )


# What Windows lacks; NumPy itself asks for os.uname wherever sys.platform is "linux".
WITHOUT_POSIX = """
import os, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in (
    "fork", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sysconf", "getuid", "geteuid",
    "pread", "pwrite", "O_CLOEXEC", "getloadavg", "statvfs", "killpg", "setsid",
):
    if hasattr(os, name):
        delattr(os, name)
import numpy as np
import nnkit.runs.run, nnkit.training.trackers
from nnkit import MLPClassifier, MLPRegressor, load
X = np.arange(60.0).reshape(20, 3) % 7
for estimator, y in (MLPClassifier(), X[:, 0] > 3), (MLPRegressor(), X[:, 0]):
    estimator.set_params(hidden_layer_sizes=[3], max_iter=30, random_state=0).fit(X, y)
    assert estimator.loss_curve_[-1] < estimator.loss_curve_[0]
    estimator.save("model.safetensors")
    assert np.array_equal(load("model.safetensors").predict(X), estimator.predict(X))
from nnkit.data.limits import check_size
from nnkit.errors import FileError
from nnkit.files import locked
check_size(1000, "a file")
try:
    with locked(__import__("pathlib").Path("run")):
        pass
except FileError as error:
    print(error)
"""


def test_estimators_and_saved_models_do_without_what_windows_lacks(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_POSIX], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "run: nnkit cannot lock a folder on Windows; train on Linux or in WSL\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Densse'"):
        _ = nnkit.Densse


def test_lazy_names_are_those_the_type_checker_sees() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {f"{module}.{name}" for name, module in nnkit._HOME.items()}


def test_the_distribution_is_asked_for_in_one_place_and_by_its_name() -> None:
    asked = {
        (module, node.args[0].value)
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] == "version"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and str(node.args[0].value).startswith("nnkit")
    }
    assert asked == {("nnkit.versions", "nnkit-train")}


def test_every_model_file_records_the_versions_it_was_made_with(tmp_path: Path) -> None:
    from importlib.metadata import version

    X, y = np.eye(4), np.array([0, 1, 0, 1])
    trainer = nnkit.Trainer(nnkit.Network([nnkit.Dense(2)]), loss="cross_entropy")
    trainer.fit(X, y, epochs=1, progress=False)
    trainer.save(tmp_path / "trainer.safetensors")
    estimator = nnkit.MLPClassifier([2], solver="sgd", max_iter=1).fit(X, y)
    estimator.save(tmp_path / "estimator.safetensors")
    settings = ["training.epochs=1", "model.hidden=[2]", "data.train=iris", f"run.out={tmp_path / 'run'}"]
    run = Run(Config().with_overrides(settings)).train().model_path
    for path in (tmp_path / "trainer.safetensors", tmp_path / "estimator.safetensors", run):
        details = nnkit.load(path).details
        assert (details["nnkit"], details["numpy"]) == (version("nnkit-train"), np.__version__)
        if path != tmp_path / "estimator.safetensors":
            assert (details["epochs"], details["device"], details["seed"]) == (1, "cpu", 0)
            assert details["precision"] == "fp32"


def test_the_layers_are_those_there_are() -> None:
    found = modules()
    assert len(found) > 50
    assert {"nnkit.kernels.formulas", "nnkit.nn", "nnkit.runs.run"} <= set(found)
    assert {name.split(".")[1] for name in found} <= set(LAYERS)


def test_every_package_is_installed() -> None:
    project = ROOT.parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("the installed package is tested, not a checkout")
    listed = tomllib.loads(project.read_text())["tool"]["setuptools"]["packages"]
    there = [".".join(path.parent.relative_to(ROOT.parent).parts) for path in ROOT.rglob("__init__.py")]
    assert sorted(listed) == sorted({*there, "nnkit.kernels"})


def test_a_violation_is_seen() -> None:
    assert violations("nnkit.nn.x", "def f():\n    from nnkit.training import trainer") == [
        "nnkit.nn.x imports nnkit.training.trainer"
    ]
    assert violations("nnkit.nn.x", "from nnkit import Network") == ["nnkit.nn.x imports nnkit.Network"]
    assert violations("nnkit.nn.x", "import nnkit.runs.config") == ["nnkit.nn.x imports nnkit.runs.config"]
    assert violations("nnkit.nn.x", "from nnkit import errors, kernels\nimport numpy") == []


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_module_imports_from_a_layer_above(module: str) -> None:
    assert violations(module, modules()[module].read_text()) == []


def test_a_circle_is_seen() -> None:
    sources = {
        "nnkit.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nnkit.b import B",
        "nnkit.b": "def f():\n    import nnkit.c",
        "nnkit.c": "from nnkit import a",
        "nnkit.d": "from nnkit.a import A\nimport numpy",
    }
    assert circles(sources) == [{"nnkit.a", "nnkit.b", "nnkit.c"}]
    assert circles({**sources, "nnkit.c": ""}) == []


def test_no_files_import_each_other() -> None:
    found = circles({name: path.read_text() for name, path in modules().items()})
    assert found == []


def test_full_names_in_docstrings_are_those_of_something() -> None:
    for path in modules().values():
        for name in re.findall(r"(?<!`)`(nnkit(?:\.\w+)+)`(?!`)", path.read_text()):
            # A module may need a package that is not installed.
            assert name in modules() or pkgutil.resolve_name(name) is not None, path


def test_nothing_unpickles() -> None:
    unsafe = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}
    only_layers = ("nnkit.interop.torch_layers",)  # reads no file
    for name, path in modules().items():
        source = path.read_text()
        if not name.startswith("nnkit.bench") and name not in only_layers:
            assert unsafe.isdisjoint(imported.split(".")[0] for imported in imports(source)), name
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), name
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), name
                assert node.value.value is False, name


def test_pixels_stay_bytes(shared_data: Path, tmp_path: Path) -> None:
    mnist = shared_data / "mnist"
    assert mnist.is_dir()
    settings = ["training.epochs=1", "model.hidden=[16]", f"run.out={tmp_path / 'run'}"]
    # What is compiled and imported on the way is no part of the data.
    Run(Config().with_overrides(["data.train=digits", *settings])).train()
    tracemalloc.start()
    try:
        run = Run(Config().with_overrides([f"data.train={mnist}", *settings]), overwrite=True)
        outcome = run.train()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.metrics["accuracy"] > 0.8
    # Measured: 116 MB, where the images are 55 and the training rows, copied out of them, 42. In float32
    # the latter alone would be 169.
    assert 55e6 < peak < 54_000 * 784 * 4


def test_california_housing_is_learnt_with_the_defaults(shared_data: Path, tmp_path: Path) -> None:
    config = Config().with_overrides(
        [
            f"data.train={shared_data / 'california_housing.csv'}",
            "data.target=median_house_value",
            "training.epochs=60",
            f"run.out={tmp_path / 'run'}",
        ]
    )
    # Two threads that wait for one core, beside another process, made this take ten times as long.
    with threadpool_limits(1, "blas"):
        outcome = Run(config).train()
    assert outcome.rows == "validation"
    assert outcome.metrics["r2"] >= 0.80
    assert 20_000 < outcome.metrics["mae"] < 40_000  # dollars
