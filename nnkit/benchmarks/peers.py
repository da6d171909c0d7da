"""The same training in scikit-learn, PyTorch and JAX, written as their users would write it well.

A peer is given a `Problem` and a device, and has what `nnkit.benchmarks.contest` asks of a contender. The
optimizer is Adam. In PyTorch and JAX the data set lies on the device, and a step gathers its rows there and
turns uint8 pixels into float32; scikit-learn takes float32 from the start. Order: scikit-learn; PyTorch's
eager mode, its CUDA graph, its compiler; then JAX, a step and an epoch a call.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np

from nnkit.benchmarks.clocks import HostClock
from nnkit.benchmarks.problem import Problem
from nnkit.engine.places import parameter_name

__all__ = ["JaxEpoch", "JaxStep", "ScikitLearn", "TorchCompiled", "TorchEager", "TorchGraph"]


class ScikitLearn:
    """scikit-learn's MLPClassifier, `partial_fit` once an epoch, on the processor.

    It is given the problem's weights and asked for a batch's loss through two of its own methods: nothing it
    offers to everybody says either. Its own shuffling cannot be told an order, so the rows are put in the
    problem's order before each epoch, which takes the place of its gather.
    """

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        import sklearn

        if device != "cpu" or precision != "fp32":
            raise ValueError(f"scikit-learn does not train on {device} in {precision}")
        pixels = problem.inputs.dtype == np.uint8
        self._inputs = problem.inputs.astype(np.float32) / 255 if pixels else problem.inputs
        self._problem = problem
        self._classes = np.arange(max(problem.widths[-1], 2), dtype=np.int32)
        self._classifier = _classifier(problem)
        self.version = sklearn.__version__
        self.clock = HostClock(lambda: None)

    def run(self) -> None:
        """Train for an epoch."""
        order = self._problem.order
        rows, labels = self._inputs[order], self._problem.labels[order]
        self._classifier.partial_fit(rows, labels, classes=self._classes)

    def last_loss(self) -> float:
        """Return the loss of the last step."""
        return float(self._classifier.batch_loss)

    def details(self) -> dict[str, Any]:
        """Return what the record says of this peer."""
        return {"version": self.version}


def _classifier(problem: Problem) -> Any:
    """Return scikit-learn's classifier, its first weights the problem's."""
    from sklearn.neural_network import MLPClassifier

    class Classifier(MLPClassifier):
        batch_loss = float("nan")

        def _init_coef(self, fan_in: int, fan_out: int, dtype: Any) -> Any:
            # Called for one layer after the other.
            weights = problem.parameters[parameter_name(len(self.coefs_), "weight")]
            return weights.astype(dtype), np.zeros(fan_out, dtype)

        def _backprop(self, *arguments: Any) -> Any:
            result = super()._backprop(*arguments)
            self.batch_loss = result[0]
            return result

    return Classifier(
        hidden_layer_sizes=problem.widths[1:-1],
        alpha=0.0,
        batch_size=problem.batch_size,
        learning_rate_init=problem.learning_rate,
        # Its ε stands outside of the bias correction: the others' 1e-8 is 3e-10 there in the first step and
        # 8e-9 in the thousandth. With 1e-8 the loss of 20-64-64-1 is 2 % off by then, with 1e-9 3e-7.
        epsilon=1e-9,
        shuffle=False,
    )


def _torch_network(problem: Problem, device: str) -> Any:
    """Return a module from row numbers to the batch's loss; the data set is a buffer of it.

    `torch.compile` takes a module's buffers for fixed addresses: a CUDA graph would copy a plain tensor at
    each replay, the whole data set here.
    """
    import torch
    from torch import nn

    class Network(nn.Module):
        inputs: torch.Tensor
        labels: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for fan_in, units in pairwise(problem.widths):
                layers += [nn.Linear(fan_in, units), nn.ReLU()]
            self.layers = nn.Sequential(*layers[:-1])
            labels = problem.labels.astype(np.float32 if problem.binary else np.int64)
            self.register_buffer("inputs", torch.from_numpy(problem.inputs))
            self.register_buffer("labels", torch.from_numpy(labels))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            x = self.inputs[rows]
            if x.dtype == torch.uint8:
                x = x.float() / 255
            outputs = self.layers(x)
            if problem.binary:
                return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], self.labels[rows])
            return nn.functional.cross_entropy(outputs, self.labels[rows])

    network = Network()
    linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for number, layer in enumerate(linear):
            layer.weight.copy_(
                torch.from_numpy(problem.parameters[parameter_name(number, "weight")].T.copy())
            )
            layer.bias.zero_()
    return network.to(device)


class _TorchClock:
    """CUDA events on PyTorch's stream; on a CPU, the host's clock."""

    def __init__(self, device: str) -> None:
        self._on_host = device == "cpu"
        self.name = "host clock" if self._on_host else "CUDA events"

    def __call__(self, function: Any) -> float:
        import torch

        if self._on_host:
            return HostClock(lambda: None)(function)
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        function()
        ended.record()
        ended.synchronize()
        return began.elapsed_time(ended) * 1e-3


class _Torch:
    """What the PyTorch peers share; a peer's `_step` trains on the rows of one batch."""

    def __init__(self, problem: Problem, device: str, precision: str, **adam: bool) -> None:
        import torch

        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        halves = {"fp16": torch.float16, "bf16": torch.bfloat16}
        # PyTorch's automatic mixed precision, as its recipe has it.
        self._kind, self._half = device.partition(":")[0], halves.get(precision)
        self._scaler = torch.amp.GradScaler(self._kind) if precision == "fp16" else None
        self.version = torch.__version__
        self.clock = _TorchClock(device)
        self._network = _torch_network(problem, device)
        self._optimizer = torch.optim.Adam(
            self._network.parameters(),
            lr=problem.learning_rate,
            betas=(0.9, 0.999),
            eps=1e-8,
            **adam,
        )
        order = torch.from_numpy(problem.order).to(device)
        self._batches = list(order.view(problem.steps, problem.batch_size).unbind(0))
        self._loss: Any = None

    def run(self) -> None:
        """Train for an epoch."""
        for rows in self._batches:
            self._loss = self._step(rows)

    def last_loss(self) -> float:
        """Wait, and return the loss of the last step."""
        return float(self._loss.detach())

    def details(self) -> dict[str, Any]:
        """Return what the record says of this peer."""
        return {"version": self.version}

    def _loss_of(self, rows: Any) -> Any:
        import torch

        if self._half is None:
            return self._network(rows)
        with torch.autocast(self._kind, self._half):
            return self._network(rows)

    def _step(self, rows: Any) -> Any:
        return self._update(self._loss_of(rows))

    def _update(self, loss: Any) -> Any:
        if self._scaler is None:
            loss.backward()
            self._optimizer.step()
        else:
            self._scaler.scale(loss).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return loss


class TorchEager(_Torch):
    """PyTorch as it is usually written, with its fused Adam."""

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        super().__init__(problem, device, precision, fused=True)


class TorchGraph(_Torch):
    """The whole step captured once into a CUDA graph, as PyTorch's notes on CUDA graphs describe it."""

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        import torch

        if precision == "fp16":
            raise ValueError("a loss scaler asks the device in each step, which a captured one cannot")
        super().__init__(problem, device, precision, fused=True, capturable=True)
        first = [parameter.detach().clone() for parameter in self._network.parameters()]
        self._rows = self._batches[0].clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                super()._step(self._rows)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._captured_loss = super()._step(self._rows)
        # The steps that warmed up are taken back: the contest begins with the problem's weights.
        with torch.no_grad():
            for parameter, value in zip(self._network.parameters(), first, strict=True):
                parameter.copy_(value)
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def _step(self, rows: Any) -> Any:
        self._rows.copy_(rows)
        self._graph.replay()
        return self._captured_loss


class TorchCompiled(_Torch):
    """`torch.compile` over the whole step, the optimizer's update included."""

    def __init__(self, problem: Problem, device: str, precision: str, mode: str) -> None:
        import torch

        # The fused Adam is not traced; the other one becomes generated kernels, which a CUDA graph can hold.
        # Under AMP a loss scaler asks the device whether to update: it stays outside, with the fused Adam.
        self._mixed = precision in ("fp16", "bf16")
        adam = {"fused": True} if self._mixed else {"foreach": True, "capturable": device != "cpu"}
        super().__init__(problem, device, precision, **adam)
        self._compiled = torch.compile(self._loss_of if self._mixed else super()._step, mode=mode)

    def _step(self, rows: Any) -> Any:
        import torch

        torch.compiler.cudagraph_mark_step_begin()
        return self._update(self._compiled(rows)) if self._mixed else self._compiled(rows)

    def details(self) -> dict[str, Any]:
        """Return the version, and how often the compiler broke a graph or left a CUDA graph out."""
        from torch._dynamo.utils import counters

        skipped = counters["inductor"]["cudagraph_skips"]
        breaks = sum(counters["graph_break"].values())
        return {**super().details(), "CUDA graphs skipped": skipped, "graph breaks": breaks}


class JaxStep:
    """JAX, one compiled step a call; the batch's number is in the state, so that no call sends anything."""

    def __init__(self, problem: Problem, device: str, precision: str) -> None:
        # Else JAX takes three quarters of the card's memory for itself.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        jax.config.update(
            "jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "highest"
        )
        kind, _, number = device.partition(":")
        place = jax.devices("cpu" if kind == "cpu" else "gpu")[int(number or 0)]
        self.version = jax.__version__
        self._steps = problem.steps
        self._data = jax.device_put(
            {
                "inputs": problem.inputs,
                "labels": problem.labels,
                "order": problem.order.astype(np.int32),
            },
            place,
        )
        weights = [
            problem.parameters[parameter_name(layer, "weight")] for layer in range(len(problem.widths) - 1)
        ]
        parameters = [(weight, np.zeros(weight.shape[1], np.float32)) for weight in weights]
        zeros = [tuple(map(np.zeros_like, pair)) for pair in parameters]
        state = {"parameters": parameters, "first": zeros, "second": zeros, "step": np.int32(0)}
        # Copied, for a donated buffer must have one owner.
        self._state = jax.tree.map(lambda array: jax.device_put(np.array(array), place), state)
        self._losses: Any = None
        self.clock = HostClock(lambda: jax.block_until_ready(self._state))
        self._train = jax.jit(self._compile(problem), donate_argnums=0)

    def _compile(self, problem: Problem) -> Any:
        return jax_step(problem)

    def run(self) -> None:
        """Train for an epoch."""
        for _ in range(self._steps):
            self._state, self._losses = self._train(self._state, self._data)

    def last_loss(self) -> float:
        """Wait, and return the loss of the last step."""
        return float(np.ravel(self._losses)[-1])

    def details(self) -> dict[str, Any]:
        """Return what the record says of this peer."""
        return {"version": self.version}


class JaxEpoch(JaxStep):
    """JAX, `jax.lax.scan` over the steps of an epoch, one call an epoch."""

    def _compile(self, problem: Problem) -> Any:
        import jax

        step = jax_step(problem)

        def epoch(state: Any, data: Any) -> Any:
            return jax.lax.scan(lambda carry, _: step(carry, data), state, None, length=problem.steps)

        return epoch

    def run(self) -> None:
        """Train for an epoch."""
        self._state, self._losses = self._train(self._state, self._data)


def jax_step(problem: Problem) -> Any:
    """Return the function of (state, data) to (state, loss) that JAX compiles: one step, Adam by hand.

    Adam: Kingma and Ba 2014 (arXiv:1412.6980), algorithm 1.
    """
    import jax
    import jax.numpy as jnp

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = parameters[-1]
        outputs = x @ weight + bias
        if problem.binary:
            return jnp.mean(jnp.logaddexp(outputs[:, 0], 0.0) - labels * outputs[:, 0])
        chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], axis=1)
        return -jnp.mean(chosen)

    def step(state: Any, data: Any) -> Any:
        position = state["step"] % problem.steps * problem.batch_size
        rows = jax.lax.dynamic_slice(data["order"], (position,), (problem.batch_size,))
        x = data["inputs"].at[rows].get(mode="promise_in_bounds")
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        labels = data["labels"].at[rows].get(mode="promise_in_bounds")
        value, gradient = jax.value_and_grad(loss)(state["parameters"], x, labels)
        count = state["step"] + 1
        first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state["first"], gradient)
        second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, state["second"], gradient)
        correction1 = 1 / (1 - beta1 ** count.astype(jnp.float32))
        correction2 = 1 / (1 - beta2 ** count.astype(jnp.float32))
        parameters = jax.tree.map(
            lambda w, m, v: (
                w - problem.learning_rate * (m * correction1) / (jnp.sqrt(v * correction2) + epsilon)
            ),
            state["parameters"],
            first,
            second,
        )
        return {"parameters": parameters, "first": first, "second": second, "step": count}, value

    return step
