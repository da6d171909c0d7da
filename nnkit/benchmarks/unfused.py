"""What each fused kernel does, as an expression of NumPy or CuPy: a pass over memory for each operation.

Each function takes a kernel's arguments by name and returns what it came to under the names of the arguments
that the kernel fills. In the order of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nnkit.backends.operations import Array, Kernel
from nnkit.kernels.layout import STEP

__all__ = ["unfused"]

_Results = dict[str, Array]
_RATE = 1e-6  # of every update: the weights stay where they are
_BETA1, _BETA2, _EPSILON, _MOMENTUM = 0.9, 0.999, 1e-8, 0.9


def unfused(call: Kernel, activation: str | None, loss: str, optimizer: str) -> Callable[[], _Results]:
    """Return the expression for a kernel's call; it changes none of the kernel's arrays.

    Parameters
    ----------
    call : Kernel
        With what the kernel works on.
    activation, loss, optimizer : str
        Of the step that it belongs to.
    """
    xp = _library(next(each for each in call.arguments.values() if getattr(each, "ndim", 0)))
    if call.name == "gather":
        return lambda: _gather(call, xp)
    if call.name == "forward":
        return lambda: _forward(call, xp, activation)
    if call.name == "backward":
        return lambda: _backward(call, xp, activation)
    if call.name in ("softmax_loss", "elementwise_loss"):
        function = _LOSSES[loss]
        return lambda: function(call, xp)
    if call.name == "penalise":
        return lambda: _penalise(call, xp)
    if call.name == "squared_norm":
        return lambda: {"norm": xp.linalg.norm(call.arguments["gradients"])}
    assert call.name == "update"
    return _updates(call, xp, optimizer)


def _library(array: Array) -> Any:
    """Return the library that an array is of."""
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy
    import numpy

    return numpy


def _erf(xp: Any, x: Array) -> Array:
    if xp.__name__ == "cupy":
        from cupyx.scipy.special import erf
    else:
        from scipy.special import erf
    return erf(x)


def _gather(call: Kernel, xp: Any) -> _Results:
    a = call.arguments
    rows = a["order"][: a["batch_size"]]
    x = a["source"][rows].astype(a["inputs"].dtype)
    if call.constants["SCALED"]:
        x = (x - a["shift"]) * a["scale"]
    return {"inputs": x, "labels": a["targets"][rows]}


def _forward(call: Kernel, xp: Any, activation: str | None) -> _Results:
    a = call.arguments
    z = a["z"] + a["bias"]
    y = xp.maximum(z, 0) if activation == "relu" else 0.5 * z * (1 + _erf(xp, z * 0.5**0.5))
    if call.constants["DROPOUT"]:
        kept = xp.random.random(y.shape) >= 1 - 1 / a["kept_scale"]
        y = y * kept * y.dtype.type(a["kept_scale"])
    return {"a": y, "z": z} if call.constants["KEEP_Z"] else {"z": y}


def _backward(call: Kernel, xp: Any, activation: str | None) -> _Results:
    a = call.arguments
    delta = a["delta"]
    if call.constants["DROPOUT"]:
        delta = delta * a["mask"][:, : delta.shape[1]] * delta.dtype.type(a["kept_scale"])
    if activation == "relu":
        delta = delta * (a["a"] > 0)
    else:
        z = a["z"]
        density = xp.exp(-0.5 * z * z) * (2 * xp.pi) ** -0.5
        delta = delta * (0.5 * (1 + _erf(xp, z * 0.5**0.5)) + z * density)
    return {"delta": delta, "bias_gradient": delta.sum(axis=0)}


def _cross_entropy(call: Kernel, xp: Any) -> _Results:
    a = call.arguments
    labels, rows = a["labels"], xp.arange(len(a["labels"]))
    z = a["outputs"] + a["bias"]
    z = z - z.max(axis=1, keepdims=True)
    e = xp.exp(z)
    total = e.sum(axis=1, keepdims=True)
    loss = (xp.log(total[:, 0]) - z[rows, labels]).sum()
    gradient = e / total
    gradient[rows, labels] -= 1
    gradient /= a["batch_size"]
    return {"loss": loss, "gradient": gradient, "bias_gradient": gradient.sum(axis=0)}


def _squared_error(call: Kernel, xp: Any) -> _Results:
    a = call.arguments
    residual = a["outputs"] + a["bias"] - a["labels"]
    gradient = residual / (a["batch_size"] * residual.shape[1])
    return {
        "loss": 0.5 * (residual * residual).mean(axis=1).sum(),
        "gradient": gradient,
        "bias_gradient": gradient.sum(axis=0),
    }


def _binary_cross_entropy(call: Kernel, xp: Any) -> _Results:
    a = call.arguments
    z, t = a["outputs"] + a["bias"], a["labels"]
    loss = (xp.logaddexp(z.dtype.type(0), z) - t * z).mean(axis=1).sum()
    gradient = (1 / (1 + xp.exp(-z)) - t) / (a["batch_size"] * z.shape[1])
    return {"loss": loss, "gradient": gradient, "bias_gradient": gradient.sum(axis=0)}


_LOSSES: Mapping[str, Callable[[Kernel, Any], _Results]] = {
    "cross_entropy": _cross_entropy,
    "mse": _squared_error,
    "binary_cross_entropy": _binary_cross_entropy,
}


def _penalise(call: Kernel, xp: Any) -> _Results:
    a = call.arguments
    w, l1, l2 = a["values"], _own(a, "l1"), _own(a, "l2")
    total = (l1 * xp.abs(w) + 0.5 * l2 * w * w).sum()
    return {"gradients": a["gradients"] + l1 * xp.sign(w) + l2 * w, "penalty": total}


def _own(arguments: Mapping[str, Any], name: str) -> Any:
    """Return a number in the weights' own type, which a NumPy float64 would widen."""
    return arguments["values"].dtype.type(arguments[name])


def _updates(call: Kernel, xp: Any, optimizer: str) -> Callable[[], _Results]:
    """Return an update in place of copies, as a training loop would have it."""
    a = call.arguments
    w, g = a["values"].copy(), a["gradients"]
    if optimizer == "sgd":
        return lambda: _descend(w, _RATE * g)
    m = a["state0"].copy()
    if optimizer == "momentum":

        def momentum() -> _Results:
            m[...] = _MOMENTUM * m + g
            return {**_descend(w, _RATE * m), "state0": m}

        return momentum
    assert optimizer == "adam"
    v, step = a["state1"].copy(), int(a["counters"][STEP])

    def adam() -> _Results:
        nonlocal step
        step += 1
        m[...] = _BETA1 * m + (1 - _BETA1) * g
        v[...] = _BETA2 * v + (1 - _BETA2) * g * g
        first, second = m / (1 - _BETA1**step), v / (1 - _BETA2**step)
        return {**_descend(w, _RATE * first / (xp.sqrt(second) + _EPSILON)), "state0": m, "state1": v}

    return adam


def _descend(w: Array, change: Array) -> _Results:
    w -= change
    return {"values": w}
