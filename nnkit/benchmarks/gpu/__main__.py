"""Measure one section, a line of JSON for each thing that happens: `python -m nnkit.benchmarks.gpu SECTION`.

After a part that fails, the device is probed: where no work can be done on it any more in this process, the
process ends, and whoever began it begins it again with `--first` at the next part.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnkit.backends import select
from nnkit.benchmarks.figures import Failure, Part
from nnkit.benchmarks.gpu.settings import Settings, random_array, tiny_kernel

__all__ = ["SECTIONS", "main"]

_STICKY = 3  # the status of a process that can do no more on the device
_PACKAGES = (
    *("nvidia-cublas-cu12", "nvidia-cublas", "cuda-core", "cuda-pathfinder", "ml_dtypes"),
    *("torch", "triton", "jax", "jaxlib"),
)
# Named and not imported: a section that cannot be imported must not keep the others from running.
SECTIONS: Mapping[str, str] = {
    "smoke": "smoke:parts",
    "warm": "warm:parts",
    "floors": "floors:parts",
    "step": "training:step_parts",
    "small": "training:small_parts",
    "floor": "products:parts",
    "kernels": "kernels:parts",
    "agreement": "agreement:parts",
    "mnist": "mnist:parts",
    "mixed": "mixed:parts",
    "loading": "loading:parts",
}


def parts_of(section: str, settings: Settings) -> list[Part]:
    """Return a section's parts; this may ask the device what it can do."""
    module, _, function = SECTIONS[section].partition(":")
    parts: Callable[[Settings], list[Part]] = getattr(
        import_module(f"nnkit.benchmarks.gpu.{module}"), function
    )
    return parts(settings)


def main(arguments: list[str] | None = None) -> int:
    """Run the section's parts from `--first` on; return 3 where one leaves the device unusable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=[*SECTIONS, "machine", "probe"])
    parser.add_argument("--out", type=Path, required=True, help="the file to add lines to")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args(arguments)
    with given.out.open("a", encoding="utf-8") as stream:

        def tell(**line: Any) -> None:
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        if given.section == "machine":
            tell(machine=_machine(given.device))
            return 0
        if given.section == "probe":
            _probe(given.device)
            return 0
        settings = Settings(given.device, given.quick, given.peers, given.seconds)
        parts = parts_of(given.section, settings)
        tell(parts=[part.name for part in parts], seconds=[part.seconds for part in parts])
        return _run(parts, given.first, tell, partial(_probe, given.device))


def _run(
    parts: list[Part], first: int, tell: Callable[..., None], probe: Callable[[], object] = lambda: None
) -> int:
    for number, part in enumerate(parts[first:], first):
        tell(begin=number)
        try:
            for finding in part.measure():
                if isinstance(finding, Failure):
                    tell(failure=asdict(finding))
                else:
                    tell(figure=finding.to_json())
        except Exception:
            tell(failure=asdict(Failure(part.name, traceback.format_exc())), end=number)
            try:
                probe()
            except Exception as error:
                print(f"the device is unusable from then on in that process: {error}")
                return _STICKY
        else:
            tell(end=number)
    return 0


def _probe(device: str) -> None:
    """Run a kernel on a few numbers; raises whatever a device raises on which nothing can be run."""
    backend = select(device).backend
    numbers = random_array(backend, (1, 32))
    backend.compile([tiny_kernel(numbers)]).run()
    if not (backend.to_host(numbers) >= 0).all():
        raise RuntimeError("a ReLU returns negative numbers")


def _machine(device: str) -> dict[str, str]:
    """What `nnkit info` says, the card's name, and the versions of what is compared."""
    from nnkit.machine import describe_machine

    rows = {"card": _card(device), **describe_machine()}
    for package in _PACKAGES:
        try:
            rows.setdefault(package, version(package))
        except PackageNotFoundError:
            rows.setdefault(package, "not installed")
    return rows


def _card(device: str) -> str:
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return kind
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(int(number or 0))["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


if __name__ == "__main__":
    sys.exit(main())
