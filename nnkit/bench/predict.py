"""Section `predict`: one row and many rows through a network, beside NumPy and PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import select
from nnkit.backends.operations import Product
from nnkit.bench.records import Aim, Record, measured
from nnkit.bench.timing import REST, Case, Plan, in_turns, seconds_on_host
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.engine.places import parameter_name
from nnkit.model import Model
from nnkit.nn.layers import Dense
from nnkit.nn.losses import loss_for_task
from nnkit.nn.network import Network

__all__ = ["predictions"]

_TORCH = "PyTorch eager"
_Layers = list[tuple[NDArray, NDArray]]


def predictions(plan: Plan) -> Iterator[Case]:
    """Yield one row and many rows for each network."""
    networks = ((784, 512, 512, 10), (20, 64, 64, 1))
    for widths in plan.pick(networks, networks, ((20, 8, 1),)):
        for rows in (1, plan.pick(60_000, 10_000, 100)):
            name = "-".join(map(str, widths))
            blank = Record("predict", name, plan.device, "fp32", {"rows": rows})
            yield blank, partial(_measure, plan, widths)


def _measure(plan: Plan, widths: tuple[int, ...], blank: Record) -> Iterable[Record]:
    """Record the median of each round's calls, the rounds in turns, and their 99th percentile."""
    rows = int(blank.parameters["rows"])
    calls = plan.pick(1000, 100, 10) if rows == 1 else 1
    x = np.random.default_rng(0).standard_normal((rows, widths[0]), dtype=np.float32)
    network = Network([*(Dense(width, "relu") for width in widths[1:-1]), Dense(widths[-1])])
    network.initialize(widths[0], backend=plan.backend())
    values = network.parameters()
    layers = [
        (values[parameter_name(layer, "weight")], values[parameter_name(layer, "bias")])
        for layer in range(len(widths) - 1)
    ]
    functions: dict[str, Callable[[], object]] = {
        "outputs": partial(network.outputs, x),
        "NumPy": partial(_plain, layers, x),
        "Model.predict": partial(_model(network, x).predict, x),
        "its products": _products(layers, x),
    }
    with suppress(ImportError):
        functions[_TORCH] = _torch(layers, x)
    slowest = []

    def median_call(function: Callable[[], object]) -> float:
        median, slow = np.percentile([seconds_on_host(function) for _ in range(calls)], [50, 99])
        if function is functions["Model.predict"]:
            slowest.append(slow)
        return median

    rest = 0.0 if plan.size == "tiny" else REST
    rounds = in_turns([*functions.values()], plan.repeats, 2, median_call, rest)
    seconds = dict(zip(functions, rounds, strict=True))
    ours, has_aim = seconds["Model.predict"], widths[0] == 784 and rows == 1 and not plan.on_gpu
    overhead = ours - seconds["its products"]
    figures = {
        **{name: measured("s", each) for name, each in seconds.items()},
        # On a GPU too, the products are computed on the CPU: what the GPU's launches and copies add to them.
        "Model.predict over its products": measured("s", overhead, Aim("<=", 30e-6) if has_aim else None),
        "outputs / NumPy": measured("", seconds["outputs"] / seconds["NumPy"]),
    }
    if rows == 1:
        figures["Model.predict, 99th percentile"] = measured("s", np.array(slowest[-plan.repeats :]))
    if _TORCH in seconds:
        aim = Aim(">=", 3.0) if has_aim else None
        figures[f"{_TORCH} / Model.predict"] = measured("", seconds[_TORCH] / ours, aim)
    yield replace(blank, figures=figures, details={"calls in a round": calls})


def _plain(layers: _Layers, x: NDArray) -> NDArray:
    """Return the outputs by NumPy's own operations, on the host."""
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    weight, bias = layers[-1]
    return x @ weight + bias


def _model(network: Network, x: NDArray) -> Model:
    """Return a classifier with the network, which takes rows as they are."""
    task = "binary" if network.output_width == 1 else "multiclass"
    target = TargetEncoder.fit(np.arange(max(network.output_width, 2)), task, ("class",))
    preprocessor = Preprocessor.fit(np.concatenate([x[:1], x[:1] + 1]), scaling="none")
    return Model(network, preprocessor, target, loss_for_task(target.task))


def _products(layers: _Layers, x: NDArray) -> Callable[[], object]:
    """Return the matrix products alone, on the host, into existing arrays."""
    outs = [np.ones((len(x), weight.shape[1]), np.float32) for weight, _ in layers]
    pairs = zip([x, *outs[:-1]], outs, strict=True)
    products = [Product(x, weight, out) for (x, out), (weight, _) in zip(pairs, layers, strict=True)]
    return select("cpu").backend.compile(products).run


def _torch(layers: _Layers, x: NDArray) -> Callable[[], object]:
    """Return PyTorch's eager mode on the same network, from an array to an array."""
    import torch
    from torch import nn

    modules: list[nn.Module] = []
    for weight, bias in layers:
        layer = nn.Linear(*weight.shape)
        layer.weight, layer.bias = (nn.Parameter(torch.from_numpy(one.copy())) for one in (weight.T, bias))
        modules += [layer, nn.ReLU()]
    network = nn.Sequential(*modules[:-1]).eval()

    def predict() -> NDArray:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy()

    np.testing.assert_allclose(predict(), _plain(layers, x), rtol=1e-3, atol=1e-4)
    return predict
