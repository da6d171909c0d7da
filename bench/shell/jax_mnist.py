"""MNIST in JAX, an epoch one compiled scan: `python jax_mnist.py FOLDER CACHE` prints the test accuracy.

CACHE keeps what was compiled from one process to the next. The pixels stay uint8 and a batch is made float32;
Adam is Kingma and Ba's algorithm 1 (arXiv:1412.6980), the rate follows a cosine.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from mnist import BATCH, EPOCHS, HIDDEN, RATE, load

jax.config.update("jax_compilation_cache_dir", sys.argv[2])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def outputs(parameters, x):
    """Return the logits, (rows, 10)."""
    x = x.astype(jnp.float32) / 255
    for weight, bias in parameters[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = parameters[-1]
    return x @ weight + bias


def loss(parameters, x, labels):
    """Return the mean cross-entropy."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs(parameters, x)), labels[:, None], axis=1)
    return -jnp.mean(chosen)


def step(state, rows, data, total):
    """Train on one batch."""
    parameters, first, second, count = state
    gradient = jax.grad(loss)(parameters, data[0][rows], data[1][rows])
    rate = RATE * 0.5 * (1 + jnp.cos(jnp.pi * count / total))
    count += 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
    correction1, correction2 = 1 / (1 - 0.9**count), 1 / (1 - 0.999**count)
    parameters = jax.tree.map(
        lambda w, m, v: w - rate * m * correction1 / (jnp.sqrt(v * correction2) + 1e-8),
        parameters,
        first,
        second,
    )
    return (parameters, first, second, count), None


@partial(jax.jit, donate_argnums=0)
def epoch(state, batches, data, total):
    """Train on the whole batches in turn."""
    return jax.lax.scan(lambda carry, rows: step(carry, rows, data, total), state, batches)[0]


def main() -> None:
    """Train and print."""
    X, y, X_test, y_test = load(sys.argv[1])
    data = jax.device_put((X, y.astype(np.int32)))
    random = np.random.default_rng(0)
    parameters = []
    for fan_in, units in zip((784, *HIDDEN), (*HIDDEN, 10), strict=True):
        weight = random.normal(0, (2 / fan_in) ** 0.5, (fan_in, units)).astype(np.float32)
        parameters.append((weight, np.zeros(units, np.float32)))
    zeros = jax.tree.map(np.zeros_like, parameters)
    state = (parameters, zeros, jax.tree.map(np.copy, zeros), np.float32(0))
    state = jax.tree.map(lambda array: jax.device_put(np.array(array)), state)
    whole = len(X) // BATCH  # the rows that are left over train in no epoch
    for _ in range(EPOCHS):
        order = random.permutation(len(X))[: whole * BATCH].astype(np.int32)
        state = epoch(state, order.reshape(whole, BATCH), data, np.float32(EPOCHS * whole))
    found = np.argmax(jax.jit(outputs)(state[0], X_test), axis=1)
    print(float((found == y_test).mean()))


main()
