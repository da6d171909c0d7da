"""Section `predict`: how long a single row waits, and how many rows a second many are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import select
from nnkit.backends.operations import Product
from nnkit.benchmarks.plan import Case, Plan
from nnkit.benchmarks.records import Record, measured, per_second, plain_ratio
from nnkit.benchmarks.timing import REST, in_turns, seconds_on_host
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.engine.places import parameter_name
from nnkit.model import Model
from nnkit.nn.layers import Dense
from nnkit.nn.losses import loss_for_task
from nnkit.nn.network import Network

__all__ = ["cases"]

_TORCH = "PyTorch eager"
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
    return [
        (values[parameter_name(layer, "weight")], values[parameter_name(layer, "bias")])
        for layer in range(count)
    ]


def _latency(plan: Plan, widths: tuple[int, ...], blank: Record) -> Iterable[Record]:
    """Percentiles of each round's calls, the rounds in turns; a rest before each, as `in_turns` has it."""
    network, calls = _network(plan, widths), plan.pick(1000, 100, 10)
    row = np.random.default_rng(0).standard_normal((1, widths[0]), dtype=np.float32)
    layers = _layers(network)
    functions: dict[str, Callable[[], object]] = {
        "median": partial(network.outputs, row),
        "NumPy's": partial(_plain, layers, row),
        "Model.predict": partial(_model(network, row).predict, row),
        "its products": _products(layers, row),
    }
    with suppress(ImportError):
        functions[_TORCH] = _torch(layers, row)

    def round_of(function: Callable[[], object]) -> NDArray[np.float64]:
        for _ in range(5):
            function()
        return np.percentile([seconds_on_host(function) for _ in range(calls)], [50, 99])

    rounds: dict[str, list[NDArray[np.float64]]] = {name: [] for name in functions}
    for _ in range(plan.repeats):
        for name, function in functions.items():
            time.sleep(0.0 if plan.size == "tiny" else REST)
            rounds[name].append(round_of(function))
    medians, slowest = ({name: np.array(each)[:, i] for name, each in rounds.items()} for i in range(2))
    figures = {
        "median": measured("s", medians["median"]),
        "99th percentile": measured("s", slowest["median"]),
        "NumPy's median": measured("s", medians["NumPy's"]),
        "NumPy's 99th percentile": measured("s", slowest["NumPy's"]),
        **{name: measured("s", medians[name]) for name in ("Model.predict", "its products")},
        "Model.predict over its products": measured("s", medians["Model.predict"] - medians["its products"]),
    }
    ratios = {"median / NumPy's": plain_ratio(medians["median"], medians["NumPy's"])}
    if _TORCH in functions:
        figures[_TORCH] = measured("s", medians[_TORCH])
        ratios["PyTorch eager / Model.predict"] = plain_ratio(medians[_TORCH], medians["Model.predict"])
    yield replace(blank, figures=figures, ratios=ratios, details={"calls a round": calls})


def _model(network: Network, row: NDArray) -> Model:
    """Return a classifier of the network, which takes rows as they are."""
    task = "binary" if network.output_width == 1 else "multiclass"
    target = TargetEncoder.fit(np.arange(max(network.output_width, 2)), task, ("class",))
    spread_out = np.concatenate([row, row + 1])  # a preprocessor is fitted on rows that differ
    preprocessor = Preprocessor.fit(spread_out, scaling="none")
    return Model(network, preprocessor, target, loss_for_task(target.task))


def _products(layers: list[tuple[NDArray, NDArray]], row: NDArray) -> Callable[[], object]:
    """Return the matrix products alone, into arrays that are there."""
    backend = select("cpu").backend
    outs = [np.ones((1, weight.shape[1]), np.float32) for weight, _ in layers]
    inputs = [row, *outs[:-1]]
    weights = [weight for weight, _ in layers]
    products = [Product(*product) for product in zip(inputs, weights, outs, strict=True)]
    return backend.compile(products).run


def _torch(layers: list[tuple[NDArray, NDArray]], row: NDArray) -> Callable[[], object]:
    """Return PyTorch's eager mode on the same network, from an array to an array."""
    import torch
    from torch import nn

    linear = []
    for weight, bias in layers:
        layer = nn.Linear(*weight.shape)
        layer.weight, layer.bias = (nn.Parameter(torch.from_numpy(x.copy())) for x in (weight.T, bias))
        linear += [layer, nn.ReLU()]
    network = nn.Sequential(*linear[:-1]).eval()

    def predict() -> NDArray:
        with torch.inference_mode():
            return network(torch.from_numpy(row)).numpy()

    np.testing.assert_allclose(predict(), _plain(layers, row), rtol=1e-3, atol=1e-4)
    return predict


def _throughput(plan: Plan, widths: tuple[int, ...], rows: int, blank: Record) -> Iterable[Record]:
    network = _network(plan, widths)
    x = np.random.default_rng(0).standard_normal((rows, widths[0]), dtype=np.float32)
    functions = [partial(network.outputs, x), partial(_plain, _layers(network), x)]
    own, plain = in_turns(functions, plan.repeats, clock=seconds_on_host, rest=REST)
    figures = {
        "whole": measured("s", own),
        "throughput": per_second("samples/s", rows, own),
        "NumPy's throughput": per_second("samples/s", rows, plain),
    }
    yield replace(blank, figures=figures, ratios={"throughput / NumPy's": plain_ratio(plain, own)})
