"""The devices by name: a registry that third parties extend through the entry points ``nnkit.backends``.

An entry point is named for its device, as in ``cuda``, and points to a function that takes what the user
wrote, as in ``cuda:1``, and returns a `nnkit.backends.protocol.Backend` or raises `nnkit.errors.DeviceError`,
saying how to fix it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from nnkit.backends.protocol import Backend
from nnkit.errors import DeviceError
from nnkit.kernels.locks import loading

__all__ = ["Selection", "available", "select"]

ENTRY_POINT_GROUP = "nnkit.backends"
_CUDA = "device 'cuda': "
_OWN = {"cpu": "nnkit.backends.numpy:create", "cuda": "nnkit.backends.cupy:create"}


@dataclass(frozen=True)
class Selection:
    """The backend that was chosen, and the one line that says why."""

    backend: Backend
    reason: str


def available() -> dict[str, Callable[[str], Backend]]:
    """Return the factories of all devices that are installed, whether or not they work here."""
    factories = {name: _lazily(path) for name, path in _OWN.items()}
    for point in _third_parties():
        factories.setdefault(point.name, _lazily(point.value))
    return factories


@cache
def _third_parties() -> tuple[EntryPoint, ...]:
    """Return the entry points: found once, for every installed package is looked at (2 ms for 60)."""
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def select(device: str = "auto") -> Selection:
    """Return the backend for what the user wrote.

    Parameters
    ----------
    device : str
        ``auto`` takes CUDA if it works and else the CPU; ``cpu``, ``cuda``, ``cuda:1``, or a third party's
        name.

    Raises
    ------
    DeviceError
        If the device is unknown, or was asked for by name and cannot be used.
    """
    factories = available()
    if device == "auto":
        return _automatic(factories)
    kind = device.partition(":")[0]
    if kind not in factories:
        known = ", ".join(sorted({"auto", *factories}))
        raise DeviceError(f"device {device!r}: there is no such device; choose one of {known}")
    backend = factories[kind](device)
    return Selection(backend, f"device   {backend.name}")


def _automatic(factories: dict[str, Callable[[str], Backend]]) -> Selection:
    try:
        backend = factories["cuda"]("cuda")
    except DeviceError as error:
        from nnkit.backends.cuda_probe import has_nvidia_card

        # Without a card nobody misses what would use it.
        why = f" ({str(error).removeprefix(_CUDA)})" if has_nvidia_card() else ""
        return Selection(factories["cpu"]("cpu"), f"device   cpu{why}")
    return Selection(backend, f"device   {backend.name}")


def _lazily(path: str) -> Callable[[str], Backend]:
    module, _, attribute = path.partition(":")

    def made(device: str) -> Backend:
        # A process that is forked while another thread imports a module could never import it.
        with loading:
            factory = getattr(import_module(module), attribute)
        return factory(device)

    return made
