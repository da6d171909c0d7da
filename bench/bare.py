"""Let nnkit be imported from a bare checkout, and name the packages that are missing: see bench/gpu.sh.

`python bench/bare.py SITE --wheels DIR` fills the folder SITE, which is to be put on PYTHONPATH: links to the
checkout's sources, the metadata that `importlib.metadata` asks for, and the wheels in DIR that are not
installed in that version. It then ends with status 1 and one message if packages are still missing. It needs
nothing but Python 3.11 and, for the wheels, pip.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What the tests on a device need beside nnkit's dependencies; pytest-xdist for an option in pyproject.toml.
TESTS = ("pytest", "pytest-xdist", "hypothesis")
# Packages that bring small ones along, which pip is to find in versions that fit. What the others need is
# large, and is either named in pyproject.toml too or there with CuPy and Numba.
WITH_NEEDS = {"typer", "rich", *TESTS}
DOWNLOAD = (
    "python3 -m pip download --only-binary=:all: --python-version {version} --implementation cp "
    "--platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 "
    "--platform manylinux2014_x86_64 -d wheels"
)


def link(site: Path) -> None:
    """Put nnkit there as an installed one lies: `nnkit.kernels` inside it, its metadata beside it."""
    package = site / "nnkit"
    package.mkdir(parents=True, exist_ok=True)
    for source in (*(ROOT / "nnkit").iterdir(), ROOT / "kernels"):
        target = package / source.name
        if source.name != "__pycache__" and not target.exists():
            target.unlink(missing_ok=True)
            target.symlink_to(source)
    for left in package.iterdir():
        if left.is_symlink() and not left.exists():
            left.unlink()
    project = _project()
    metadata = site / f"nnkit_train-{project['version']}.dist-info" / "METADATA"
    metadata.parent.mkdir(exist_ok=True)
    metadata.write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )


def missing(device: str) -> list[str]:
    """Return the packages that nnkit and its tests need on a device and that are not installed."""
    project = _project()
    wanted = [*project["dependencies"], *TESTS]
    if device.startswith("cuda"):
        extras = project["optional-dependencies"]
        wanted += extras["cuda12" if _is_installed("cupy-cuda12x") else "cuda13"]
    names = [re.match(r"[\w.-]+", requirement)[0] for requirement in wanted]  # type: ignore[index]
    return [name for name in names if not _is_installed(name)]


def install(wheels: Path, site: Path) -> None:
    """Install the wheels that are not there, without a network."""
    new = [str(path) for path in sorted(wheels.glob("*.whl")) if not _is_installed(*path.name.split("-")[:2])]
    if new:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        if subprocess.run([*pip, "--upgrade", "--target", str(site), *new], check=False).returncode != 0:
            sys.exit(f"the wheels in {wheels} cannot be installed for {sys.executable}; pip says why")
        importlib.invalidate_caches()


def message(names: list[str], wheels: Path) -> str:
    """Say what is missing and how to bring it to a machine without a network."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    small = [name for name in names if name in WITH_NEEDS]
    others = [name for name in names if name not in WITH_NEEDS]
    command = DOWNLOAD.format(version=version)
    commands = [f"    {command} {' '.join(small)}"] if small else []
    commands += [f"    {command} --no-deps {' '.join(others)}"] if others else []
    lines = "\n".join(commands)
    return (
        f"these packages are missing: {', '.join(names)}\nInstall them, or on a machine with a network run\n"
        f"{lines}\nin the checkout and bring the folder wheels along as {wheels} (NNKIT_WHEELS names another)"
    )


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _is_installed(name: str, version: str = "") -> bool:
    try:
        return version in ("", distribution(name).version)
    except PackageNotFoundError:
        return False


def main() -> int:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, add_help=False)
    parser.add_argument("site", type=Path)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    given, _ = parser.parse_known_args()
    link(given.site)
    sys.path.insert(0, str(given.site))
    install(given.wheels, given.site)
    names = missing(given.device)
    if names:
        print(message(names, given.wheels), file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
