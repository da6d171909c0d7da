"""A bare checkout: nnkit imported without an install, and what is missing named with the wheels to bring."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import bare
import pytest

import nnkit

ROOT = Path(__file__).resolve().parents[3]


def python(site: Path, program: str) -> str:
    """Run a program with a folder on its path; return what it prints."""
    # As bench/gpu.sh sets them: the checkout itself, where that is the current folder, has no nnkit.kernels.
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_linked_checkout_is_imported_with_its_kernels_and_its_version(tmp_path: Path) -> None:
    for _ in range(2):  # the next call finds the links
        bare.link(tmp_path)
    program = (
        "import nnkit, nnkit.kernels.formulas as formulas\n"
        "print(nnkit.__version__, nnkit.__file__, formulas.__file__, sep='\\n')"
    )
    shown, package, kernels = python(tmp_path, program).splitlines()
    assert shown == nnkit.__version__
    assert Path(package) == tmp_path / "nnkit" / "__init__.py"
    assert Path(kernels) == tmp_path / "nnkit" / "kernels" / "formulas.py"
    assert Path(kernels).resolve() == ROOT / "kernels" / "formulas.py"


def test_a_link_to_what_the_checkout_no_longer_has_goes(tmp_path: Path) -> None:
    bare.link(tmp_path)
    (tmp_path / "nnkit" / "removed.py").symlink_to(tmp_path / "nowhere.py")
    bare.link(tmp_path)
    assert not (tmp_path / "nnkit" / "removed.py").is_symlink()


def write_wheel(folder: Path, name: str, version: str) -> None:
    folder.mkdir(exist_ok=True)
    stem = f"{name}-{version}"
    with ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"value = {version!r}\n")
        wheel.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{stem}.dist-info/WHEEL", tags)
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


def test_wheels_that_are_not_installed_are_put_beside_it_without_a_network(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "brought_along", "1.0")
    write_wheel(tmp_path / "wheels", "numpy", version("numpy"))
    bare.install(tmp_path / "wheels", tmp_path / "site")
    assert python(tmp_path / "site", "import brought_along; print(brought_along.value)") == "1.0\n"
    # What is installed in that version stays as it is.
    assert not (tmp_path / "site" / "numpy.py").exists()
    bare.install(tmp_path / "none", tmp_path / "site")
    (tmp_path / "wheels" / "other_python-1.0-cp27-cp27m-win32.whl").touch()
    with pytest.raises(SystemExit, match="cannot be installed for"):
        bare.install(tmp_path / "wheels", tmp_path / "site")


@pytest.mark.parametrize(
    ("device", "absent", "names"),
    [
        ("cpu", {"typer", "cupy-cuda13x"}, ["typer"]),
        ("cuda", {"cupy-cuda12x", "nvmath-python", "typer"}, ["typer", "nvmath-python"]),
        ("cuda:1", {"cupy-cuda13x", "nvidia-cublas-cu12"}, ["nvidia-cublas-cu12"]),
        ("cuda", {"cupy-cuda12x", "pytest"}, ["pytest"]),
        ("cuda", {"cupy-cuda12x"}, []),
    ],
)
def test_missing_packages_are_those_of_the_device_and_of_the_cupy_that_is_there(
    monkeypatch: pytest.MonkeyPatch, device: str, absent: set[str], names: list[str]
) -> None:
    monkeypatch.setattr(bare, "installed", lambda name: name not in absent)
    assert bare.missing(device) == names


def test_one_message_names_the_missing_packages_and_the_commands_that_fetch_their_wheels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = {"cupy-cuda12x", "nvmath-python", "typer"}
    monkeypatch.setattr(bare, "installed", lambda name: name not in absent)
    told = ["bare.py", str(tmp_path), "--wheels", "wheels", "a", "--device", "cuda", "--go-on"]
    monkeypatch.setattr(sys, "argv", told)
    assert bare.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("these packages are missing: typer, nvmath-python\n")
    fetch = f"--implementation cp --python-version {sys.version_info[0]}.{sys.version_info[1]} "
    small, large = [line for line in said.splitlines() if fetch in line]
    assert small.endswith("-d wheels typer")
    assert large.endswith("-d wheels --no-deps nvmath-python")
    absent.clear()
    assert bare.main() == 0
    assert capsys.readouterr().err == ""
