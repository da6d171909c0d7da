"""The sections of `nnkit bench` at quick sizes: `pytest bench`, or one: `pytest bench -k kernels`."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from nnkit.benchmarks.plan import Plan
from nnkit.benchmarks.suite import SECTIONS, devices_for, run_section, summary


@pytest.mark.parametrize("device", devices_for("auto"))
@pytest.mark.parametrize("section", SECTIONS)
def test_section(benchmark: BenchmarkFixture, section: str, device: str) -> None:
    plan = Plan(device, "quick")
    # Once: a section has its own repeats, and its figures are in the records, not in how long it took.
    records = benchmark.pedantic(lambda: list(run_section(section, plan)), rounds=1)
    benchmark.extra_info["records"] = [record.to_json() for record in records]
    print("\n".join(map(summary, records)))
    assert not [record.skipped for record in records if record.details.get("failed")]
    assert any(record.figures for record in records)
    # Whoever came to another loss has not done the same work.
    assert all(record.details.get("same work", True) for record in records)
