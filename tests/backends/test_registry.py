"""Choosing a device by name, and devices of third parties."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from nnkit import backends
from nnkit.backends import available, cuda_probe, select
from nnkit.backends.numpy import NumpyBackend
from nnkit.errors import DeviceError


class Other(NumpyBackend):
    """A third party's device."""

    def __init__(self, name: str) -> None:
        self.name = name


def create_other(device: str) -> Other:
    return Other(device)


def create_broken(device: str) -> Other:
    raise DeviceError(f"device {device!r}: the driver is too old; update it")


def install(monkeypatch: pytest.MonkeyPatch, **factories: str) -> None:
    """Let nothing but the CPU and these entry points be installed."""
    points = [
        EntryPoint(name, f"{__name__}:{factory}", backends.ENTRY_POINT_GROUP)
        for name, factory in factories.items()
    ]

    monkeypatch.setattr(backends, "_third_parties", lambda: points)
    monkeypatch.setattr(backends, "_OWN", {"cpu": "nnkit.backends.numpy:create"})


def test_cpu_is_always_there() -> None:
    selection = select("cpu")
    assert isinstance(selection.backend, NumpyBackend)
    assert selection.backend.name == "cpu"
    assert "cpu" in selection.reason
    assert "cpu" in available()


def test_auto_with_a_broken_cuda_takes_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cuda="create_broken")
    monkeypatch.setattr(cuda_probe, "has_nvidia_card", lambda: True)
    selection = select("auto")
    assert selection.backend.name == "cpu"
    assert "the driver is too old; update it" in selection.reason
    assert "\n" not in selection.reason


def test_auto_takes_a_cuda_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cuda="create_other")
    selection = select("auto")
    assert isinstance(selection.backend, Other)
    assert selection.reason == "device   cuda"


def test_a_broken_device_asked_for_by_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cuda="create_broken")
    with pytest.raises(DeviceError, match="'cuda:1': the driver is too old; update it"):
        select("cuda:1")


@pytest.mark.parametrize("device", ["gpu", "", "CPU", "cpu0"])
def test_an_unknown_device_is_an_error_that_names_the_choices(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    install(monkeypatch, tpu="create_other")
    with pytest.raises(DeviceError, match=f"'{device}': .* no such device; choose one of auto, cpu, tpu"):
        select(device)


def test_the_cpu_has_no_number() -> None:
    with pytest.raises(DeviceError, match=r"'cpu:1'.*use 'cpu'"):
        select("cpu:1")


def test_a_third_partys_device_is_given_what_the_user_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tpu="create_other")
    assert set(available()) == {"cpu", "tpu"}
    assert select("tpu:3").backend.name == "tpu:3"


def test_a_third_party_cannot_take_the_cpus_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cpu="create_other")
    assert not isinstance(select("cpu").backend, Other)
