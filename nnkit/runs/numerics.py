"""The number of BLAS threads that a training is fastest with."""

from __future__ import annotations

from itertools import pairwise

from nnkit.cache import cache_folder
from nnkit.errors import FileError
from nnkit.runs.plan import TrainingPlan

__all__ = ["fastest_numerics"]


def fastest_numerics(plan: TrainingPlan) -> dict[str, str]:
    """Return the number of BLAS threads that suits the network, as `Backend.matching_numerics` takes it.

    Nothing where the products are a GPU's, or where a step runs in shards with one thread each.
    """
    trainer = plan.trainer
    if not trainer.backend.shares_host_memory:
        return {}
    from nnkit.backends.tuning import fastest_threads

    batch_size, network = plan.config.training.batch_size, plan.model.network
    embedded = sum(layer.width for layer in network.embeddings)
    inputs = plan.model.preprocessor.width + embedded
    widths = [inputs, *plan.config.model.hidden, network.output_width]
    work = 6.0 * batch_size * sum(fan_in * units for fan_in, units in pairwise(widths))
    if trainer.backend.shards(batch_size, work) > 1:
        return {}
    try:
        memory = cache_folder() / "blas-threads.json"
    except FileError:
        memory = None
    count = fastest_threads(widths, batch_size, trainer.dtype, memory)
    return {} if count is None else {"BLAS threads": str(count)}
