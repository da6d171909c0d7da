"""A training step against its own matrix products, in one run: `pytest bench`."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from nnkit.benchmarks.steps import StepTimes, example_step, measure_step


def record(benchmark: BenchmarkFixture, times: StepTimes) -> None:
    benchmark.extra_info.update(asdict(times))


def test_step_of_784_512_512_10_at_batch_128(benchmark: BenchmarkFixture) -> None:
    times = measure_step([784, 512, 512, 10], 128, steps=10)
    record(benchmark, times)
    step = example_step([784, 512, 512, 10], 128, steps=10)
    benchmark.pedantic(step.run, (0, 10), rounds=20, warmup_rounds=2)
    # The quieter turns: what else runs on the machine only adds.
    assert times.step_over_floor.low <= 1.35


@pytest.mark.parametrize("widths", [[20, 64, 64, 1]], ids=["20-64-64-1"])
def test_step_of_a_small_network_at_batch_32(benchmark: BenchmarkFixture, widths: list[int]) -> None:
    times = measure_step(widths, 32, steps=1000)
    record(benchmark, times)
    step = example_step(widths, 32, steps=1000)
    benchmark.pedantic(step.run, (0, 1000), rounds=20, warmup_rounds=2)
    # Twice the floor leaves as much time for what is not a product as the products take.
    assert times.step_over_floor.low <= 2.0
