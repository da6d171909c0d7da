"""What a message says to install: the packages of pyproject.toml's extras, by their own names."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from nnkit import extras
from nnkit.errors import ConfigError
from nnkit.extras import EXTRAS, extra_module, install_command

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_DEVELOPERS = {"test", "dev"}


def test_the_table_has_the_extras_of_the_project() -> None:
    own = PROJECT["name"]
    declared = {
        extra: {re.match(r"[\w.-]+(\[\w+\])?", line)[0] for line in lines if not line.startswith(own)}
        for extra, lines in PROJECT["optional-dependencies"].items()
        if extra not in FOR_DEVELOPERS
    }
    assert {extra: set(packages.values()) for extra, packages in EXTRAS.items()} == declared


@pytest.mark.parametrize(
    ("module", "packages"),
    [
        ("matplotlib", "matplotlib"),
        ("lime", "shap lime"),
        ("wandb", "wandb"),
        ("nvmath", "cupy-cuda12x 'numba-cuda[cu12]' nvmath-python nvidia-cublas-cu12 ml_dtypes"),
    ],
)
def test_a_module_is_installed_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, packages: str
) -> None:
    def version(distribution: str) -> str:
        raise PackageNotFoundError(distribution)

    monkeypatch.setattr(extras, "version", version)
    assert install_command(module) == f"pip install {packages}"


def test_beside_the_cupy_for_cuda_13_the_rest_is_for_cuda_13(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "version", {"cupy-cuda13x": "14.0"}.__getitem__)
    assert install_command("numba_cuda") == (
        "pip install cupy-cuda13x 'numba-cuda[cu13]' nvmath-python nvidia-cublas ml_dtypes"
    )


def test_a_missing_module_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lime", None)
    monkeypatch.delitem(sys.modules, "lime.lime_tabular", raising=False)
    with pytest.raises(ConfigError, match=r"^lime is not installed: pip install shap lime$"):
        extra_module("lime.lime_tabular")


def test_what_an_installed_module_lacks_is_its_own_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lime.py").write_text("import a_package_that_is_nowhere")
    monkeypatch.delitem(sys.modules, "lime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_nowhere"):
        extra_module("lime")


def test_no_hint_installs_nnkit_by_a_name_that_another_project_has_on_pypi() -> None:
    """`pip install nnkit[plots]` installs another project's package."""
    texts = [ROOT / "README.md", ROOT / "Dockerfile", ROOT / "pyproject.toml"]
    for folder in ("nnkit", "kernels", "bench"):
        texts += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.sh")]
    assert len(texts) > 100
    assert [path for path in texts if re.search(r"\bnnkit\[", path.read_text(encoding="utf-8"))] == []
