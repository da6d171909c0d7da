"""Section `predict`: how long a single row waits, and how many rows a second many are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.records import Record, measured, per_second, plain_ratio
from nnkit.benchmarks.timing import REST, in_turns, seconds_on_host
from nnkit.core.layers import Dense
from nnkit.core.network import Network

__all__ = ["cases"]

_NETWORKS = ((784, 512, 512, 10), (20, 64, 64, 1))


def cases(plan: Plan) -> list[Case]:
    """Return one row and many rows for each network."""
    found = []
    for widths in plan.pick(_NETWORKS, _NETWORKS, ((20, 8, 1),)):
        network = "-".join(map(str, widths))
        many = plan.pick(60_000, 10_000, 100)
        one = Record("predict", "latency", plan.device, "fp32", {"network": network, "batch": 1})
        found.append(Case(one, partial(_latency, plan, widths)))
        all_rows = Record("predict", "throughput", plan.device, "fp32", {"network": network, "batch": many})
        found.append(Case(all_rows, partial(_throughput, plan, widths, many)))
    return found


def _network(plan: Plan, widths: tuple[int, ...]) -> Network:
    network = Network([*(Dense(width, "relu") for width in widths[1:-1]), Dense(widths[-1])])
    network.initialize(widths[0], backend=plan.backend())
    return network


def _plain(layers: list[tuple[NDArray, NDArray]], x: NDArray) -> NDArray:
    """Return the outputs by NumPy's own operations, on the host."""
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    weight, bias = layers[-1]
    return x @ weight + bias


def _layers(network: Network) -> list[tuple[NDArray, NDArray]]:
    """Return each layer's weights and biases, taken from the device once."""
    values = network.parameters()
    count = len(values) // 2
    return [(values[f"layers.{layer}.weight"], values[f"layers.{layer}.bias"]) for layer in range(count)]


def _latency(plan: Plan, widths: tuple[int, ...], blank: Record) -> Iterable[Record]:
    """Percentiles of each round's calls, a call of nnkit's and one of NumPy's in turns."""
    network, calls = _network(plan, widths), plan.pick(1000, 100, 10)
    row = np.random.default_rng(0).standard_normal((1, widths[0]), dtype=np.float32)
    functions = [partial(network.predict, row), partial(_plain, _layers(network), row)]
    rounds = [in_turns(functions, calls, warmup=5) for _ in range(plan.repeats)]
    own, plain = (np.array([np.percentile(each[i], [50, 99]) for each in rounds]) for i in range(2))
    figures = {
        "median": measured("s", own[:, 0]),
        "99th percentile": measured("s", own[:, 1]),
        "NumPy's median": measured("s", plain[:, 0]),
        "NumPy's 99th percentile": measured("s", plain[:, 1]),
    }
    ratios = {"median / NumPy's": plain_ratio(own[:, 0], plain[:, 0])}
    yield replace(blank, figures=figures, ratios=ratios, details={"calls a round": calls})


def _throughput(plan: Plan, widths: tuple[int, ...], rows: int, blank: Record) -> Iterable[Record]:
    network = _network(plan, widths)
    x = np.random.default_rng(0).standard_normal((rows, widths[0]), dtype=np.float32)
    functions = [partial(network.predict, x), partial(_plain, _layers(network), x)]
    own, plain = in_turns(functions, plan.repeats, clock=seconds_on_host, rest=REST)
    figures = {
        "whole": measured("s", own),
        "throughput": per_second("samples/s", rows, own),
        "NumPy's throughput": per_second("samples/s", rows, plain),
    }
    yield replace(blank, figures=figures, ratios={"throughput / NumPy's": plain_ratio(plain, own)})
