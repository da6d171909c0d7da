"""A training step against its own matrix products: `pytest bench`."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from nnkit.benchmarks.steps import example_step, measure_in_processes

# What is not a product may take a third of the products' time in a large network, all of it in a small one.
CASES = {"784-512-512-10": (128, 20, 1.35), "20-64-64-1": (32, 2000, 2.0)}


@pytest.mark.parametrize("network", CASES)
def test_step_against_its_floor(benchmark: BenchmarkFixture, network: str) -> None:
    widths = [int(width) for width in network.split("-")]
    batch_size, steps, most = CASES[network]
    runs = measure_in_processes(widths, batch_size, steps, processes=5)
    benchmark.extra_info["processes"] = [asdict(run) for run in runs]
    benchmark.pedantic(example_step(widths, batch_size, steps).run, (0, steps), rounds=20, warmup_rounds=2)
    # The quietest process: what else the machine does only adds.
    assert min(run.step_over_floor.median for run in runs) <= most
