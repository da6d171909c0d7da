"""The same training in nnkit, scikit-learn, PyTorch and JAX, written as their users would write it well.

A contender is a function of a problem, a device and a precision. In PyTorch and JAX the data set is on the
device, and a step gathers its rows there and turns uint8 pixels into float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from nnkit.backends import select
from nnkit.bench.problem import Problem, last_loss_of_epoch, training_step
from nnkit.engine.places import parameter_name
from nnkit.training.precision import half_of

__all__ = ["CONTENDERS", "NNKIT", "Contender"]

NNKIT = "nnkit"


@dataclass(frozen=True)
class Contender:
    """A library's training: `epoch` may return before the device is done, `last_loss` waits for it."""

    epoch: Callable[[], object]
    last_loss: Callable[[], float]
    wait: Callable[[], object] = lambda: None


def _nnkit(problem: Problem, device: str, precision: str) -> Contender:
    backend = select(device).backend.with_precision(precision)
    step = training_step(problem, backend, half=half_of(precision))
    losses: list[float] = []

    def epoch() -> None:
        if losses:
            step.run(0, problem.steps)
        else:
            losses.append(last_loss_of_epoch(step, problem.steps))

    return Contender(epoch, lambda: losses[0], backend.synchronize)


def _scikit_learn(problem: Problem, device: str, precision: str) -> Contender:
    """MLPClassifier, given the problem's weights through a method that is not part of its interface."""
    from sklearn.neural_network import MLPClassifier

    if device != "cpu" or precision != "fp32":
        raise ValueError(f"scikit-learn does not train on {device} in {precision}")

    class Classifier(MLPClassifier):
        batch_loss = float("nan")

        def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> Any:
            weights = problem.parameters[parameter_name(len(self.coefs_), "weight")]
            return weights.astype(dtype), np.zeros(fan_out, dtype)

        def _backprop(self, *arguments: Any) -> Any:
            result = super()._backprop(*arguments)
            self.batch_loss = result[0]
            return result

    hidden, size = problem.widths[1:-1], problem.batch_size
    # Its ε is outside of the bias correction: 1e-8 in the other libraries corresponds to 3e-10 here in the
    # first step and to 8e-9 in the thousandth. With 1e-8 the loss of 20-64-64-1 then differs by 2 %,
    # with 1e-9 by 3e-7.
    given: dict[str, Any] = {"alpha": 0.0, "epsilon": 1e-9, "learning_rate_init": problem.learning_rate}
    classifier = Classifier(hidden, batch_size=size, shuffle=False, **given)
    inputs, classes = problem.inputs, np.arange(max(problem.widths[-1], 2), dtype=np.int32)
    if inputs.dtype == np.uint8:
        inputs = inputs.astype(np.float32) / 255

    def epoch() -> None:
        # It cannot be given an order: putting the rows in order takes the place of its gather.
        order = problem.order
        classifier.partial_fit(inputs[order], problem.labels[order], classes=classes)

    return Contender(epoch, lambda: float(classifier.batch_loss))


def _torch_network(problem: Problem, device: str) -> Any:
    """Return a module from row numbers to the batch's loss.

    The data set is a buffer, whose address `torch.compile` takes for fixed: a CUDA graph would copy a tensor.
    """
    import torch
    from torch import nn

    class Network(nn.Module):
        inputs: torch.Tensor
        labels: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for number, (fan_in, units) in enumerate(pairwise(problem.widths)):
                linear = nn.Linear(fan_in, units)
                weight = torch.from_numpy(problem.parameters[parameter_name(number, "weight")].T.copy())
                linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(units))
                layers += [linear, nn.ReLU()]
            self.layers = nn.Sequential(*layers[:-1])
            labels = problem.labels.astype(np.float32 if problem.binary else np.int64)
            self.register_buffer("inputs", torch.from_numpy(problem.inputs))
            self.register_buffer("labels", torch.from_numpy(labels))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            x = self.inputs[rows]
            outputs = self.layers(x.float() / 255 if x.dtype == torch.uint8 else x)
            if problem.binary:
                return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], self.labels[rows])
            return nn.functional.cross_entropy(outputs, self.labels[rows])

    return Network().to(device)


def _torch(problem: Problem, device: str, precision: str, mode: str = "") -> Contender:
    """PyTorch in its eager mode, or compiled in a mode; automatic mixed precision as in its recipe."""
    import torch

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    kind, half = device.partition(":")[0], {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    scaler = torch.amp.GradScaler(kind) if precision == "fp16" else None
    network = _torch_network(problem, device)
    # The fused Adam is not traced; the other one becomes generated kernels, which a CUDA graph can hold. With
    # mixed precision the update stays outside: a loss scaler asks the device whether to update.
    whole = bool(mode) and half is None
    adam: dict[str, Any] = {"foreach": True, "capturable": kind != "cpu"} if whole else {"fused": True}
    optimizer = torch.optim.Adam(network.parameters(), lr=problem.learning_rate, **adam)
    order = torch.from_numpy(problem.order).to(device)
    losses: list[Any] = [None]

    def forward(rows: Any) -> Any:
        with torch.autocast(kind, half):
            return network(rows)

    def update(loss: Any) -> Any:
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def step(rows: Any) -> Any:
        return update((network if half is None else forward)(rows))

    if mode and half is not None:
        forward = torch.compile(forward, mode=mode)
    elif mode:
        step = torch.compile(step, mode=mode)
    batches = list(order.view(problem.steps, problem.batch_size).unbind(0))

    def epoch() -> None:
        for rows in batches:
            if mode:
                torch.compiler.cudagraph_mark_step_begin()
            losses[0] = step(rows)

    wait = partial(torch.cuda.synchronize, device) if kind == "cuda" else lambda: None
    return Contender(epoch, lambda: float(losses[0].detach()), wait)


def _jax(problem: Problem, device: str, precision: str) -> Contender:
    """JAX, `jax.lax.scan` over the steps of an epoch, one call an epoch."""
    # Else JAX takes three quarters of the card's memory for itself.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "highest")
    kind, _, number = device.partition(":")
    place = jax.devices("cpu" if kind == "cpu" else "gpu")[int(number or 0)]
    arrays = {"inputs": problem.inputs, "labels": problem.labels, "order": problem.order.astype(np.int32)}
    data = jax.device_put(arrays, place)
    parameters = [(weight, np.zeros(weight.shape[1], np.float32)) for weight in problem.parameters.values()]
    zeros = [tuple(map(np.zeros_like, pair)) for pair in parameters]
    state = {"parameters": parameters, "first": zeros, "second": zeros, "step": np.int32(0)}
    # Copied, for a donated buffer must have one owner.
    held = [jax.tree.map(lambda array: jax.device_put(np.array(array), place), state), None]
    step = _jax_step(problem)

    def steps(state: Any, data: Any) -> Any:
        return jax.lax.scan(lambda carry, _: step(carry, data), state, None, length=problem.steps)

    train = jax.jit(steps, donate_argnums=0)

    def epoch() -> None:
        held[:] = train(held[0], data)

    return Contender(epoch, lambda: float(np.ravel(held[1])[-1]), lambda: jax.block_until_ready(held[0]))


def _jax_step(problem: Problem) -> Any:
    """Return one step, (state, data) to (state, loss); Adam: arXiv:1412.6980, algorithm 1."""
    import jax
    import jax.numpy as jnp

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = parameters[-1]
        outputs = x @ weight + bias
        if problem.binary:
            return jnp.mean(jnp.logaddexp(outputs[:, 0], 0.0) - labels * outputs[:, 0])
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], axis=1))

    def step(state: Any, data: Any) -> Any:
        position = state["step"] % problem.steps * problem.batch_size
        rows = jax.lax.dynamic_slice(data["order"], (position,), (problem.batch_size,))
        x = data["inputs"].at[rows].get(mode="promise_in_bounds")
        x = x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x
        labels = data["labels"].at[rows].get(mode="promise_in_bounds")
        value, gradient = jax.value_and_grad(loss)(state["parameters"], x, labels)
        count = state["step"] + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + (1 - 0.9) * g, state["first"], gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + (1 - 0.999) * g * g, state["second"], gradient)
        scale1, scale2 = (1 / (1 - beta ** count.astype(jnp.float32)) for beta in (0.9, 0.999))

        def updated(w: Any, m: Any, v: Any) -> Any:
            return w - problem.learning_rate * (m * scale1) / (jnp.sqrt(v * scale2) + 1e-8)

        parameters = jax.tree.map(updated, state["parameters"], first, second)
        return {"parameters": parameters, "first": first, "second": second, "step": count}, value

    return step


CONTENDERS: Mapping[str, Callable[[Problem, str, str], Contender]] = {
    NNKIT: _nnkit,
    "scikit-learn": _scikit_learn,
    "PyTorch eager": _torch,
    "PyTorch compiled, reduce-overhead": partial(_torch, mode="reduce-overhead"),
    "PyTorch compiled, max-autotune": partial(_torch, mode="max-autotune"),
    "JAX, an epoch a call": _jax,
}
