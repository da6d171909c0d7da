"""Let nnkit be imported from a bare checkout, and name the packages that are missing: see bench/gpu.sh.

`python bench/bare.py SITE --wheels DIR` fills the folder SITE, which is to be put on PYTHONPATH: links to the
checkout's sources, the metadata that `importlib.metadata` asks for, and the wheels in DIR that are not
installed in that version. Its status is 1 if packages are still missing. It needs Python 3.11 and pip alone.
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
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What the tests on a device need beside nnkit's dependencies.
TESTS = ("pytest", "pytest-xdist", "hypothesis")
# Packages that need only small ones; what the others need is large, and named in pyproject.toml or there.
WITH_NEEDS = {"typer", "rich", *TESTS}
DOWNLOAD = (
    "python3 -m pip download --only-binary=:all: --implementation cp "
    f"--python-version {sys.version_info[0]}.{sys.version_info[1]} --platform manylinux_2_28_x86_64 "
    "--platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 "
    "-d wheels"
)


def link(site: Path) -> None:
    """Put nnkit there as an installed one lies: `nnkit.kernels` inside it, its metadata beside it."""
    package = site / "nnkit"
    package.mkdir(parents=True, exist_ok=True)
    for left in package.iterdir():
        if left.is_symlink():
            left.unlink()
    for source in (*(ROOT / "nnkit").iterdir(), ROOT / "kernels"):
        if source.name != "__pycache__":
            (package / source.name).symlink_to(source)
    name, version = PROJECT["name"], PROJECT["version"]
    metadata = site / f"nnkit_train-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


def missing(device: str) -> list[str]:
    """Return the packages that nnkit and its tests need on a device and that are not installed."""
    wanted = [*PROJECT["dependencies"], *TESTS]
    if device.startswith("cuda"):
        wanted += PROJECT["optional-dependencies"]["cuda12" if installed("cupy-cuda12x") else "cuda13"]
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in wanted]
    return [name for name in names if not installed(name)]


def install(wheels: Path, site: Path) -> None:
    """Install the wheels that are not there, without a network."""
    new = [str(path) for path in sorted(wheels.glob("*.whl")) if not installed(*path.name.split("-")[:2])]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    if new and subprocess.run([*pip, "--upgrade", "--target", site, *new], check=False).returncode != 0:
        sys.exit(f"the wheels in {wheels} cannot be installed for {sys.executable}; pip says why")
    importlib.invalidate_caches()


def message(names: list[str], wheels: Path) -> str:
    """Say what is missing and how to bring it to a machine without a network."""
    small = [name for name in names if name in WITH_NEEDS]
    others = [name for name in names if name not in WITH_NEEDS]
    kinds = (("", small), ("--no-deps ", others))
    commands = [f"    {DOWNLOAD} {option}{' '.join(some)}\n" for option, some in kinds if some]
    return (
        f"these packages are missing: {', '.join(names)}\nInstall them, or on a machine with a network run\n"
        f"{''.join(commands)}in the checkout and bring wheels along as {wheels} (NNKIT_WHEELS names another)"
    )


def installed(name: str, version: str = "") -> bool:
    """Tell whether a package is installed, in this version if one is given."""
    try:
        return version in ("", distribution(name).version)
    except PackageNotFoundError:
        return False


def main() -> int:
    """Prepare the folder."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, add_help=False)
    parser.add_argument("site", type=Path)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    given, _ = parser.parse_known_args()
    link(given.site)
    sys.path.insert(0, str(given.site))
    install(given.wheels, given.site)
    if names := missing(given.device):
        print(message(names, given.wheels), file=sys.stderr)
    return int(bool(names))


if __name__ == "__main__":
    sys.exit(main())
