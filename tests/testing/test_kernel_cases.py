"""The kernels that the host alone has, and what the cases of all kernels cover."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nnkit.backends.numpy import NumpyBackend
from nnkit.kernels.catalogue import CATALOGUE
from nnkit.testing.cases import KernelCase, kernel_cases
from nnkit.testing.contract import compare_with_python
from nnkit.testing.flags import covering_sample, flag_sets
from nnkit.testing.operations import check_operations

OF_THE_HOST = kernel_cases("host")
EVERY = [*kernel_cases(), *kernel_cases("shared memory"), *OF_THE_HOST]


@pytest.mark.parametrize("case", OF_THE_HOST, ids=str)
def test_a_kernel_of_the_host_alone_computes_what_plain_python_does(case: KernelCase) -> None:
    compare_with_python(NumpyBackend(), case)


def test_the_cases_are_of_every_kernel_and_each_is_one_of_its_own() -> None:
    assert {case.name for case in EVERY} == set(CATALOGUE)
    assert len({str(case) for case in EVERY}) == len(EVERY)
    assert {case.name for case in OF_THE_HOST} == {
        name for name, declaration in CATALOGUE.items() if declaration.device
    }


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_a_case_is_given_what_the_catalogue_asks_for(case: KernelCase) -> None:
    check_operations(case.kernels(case.arguments()))


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_any_two_settings_meet_in_a_case(name: str) -> None:
    def pairs(sets: list[dict]) -> set[frozenset]:
        return {frozenset(pair) for one in sets for pair in combinations(one.items(), 2)}

    possible = [{**flags, "dtype": dtype} for flags in flag_sets(name) for dtype in ("float32", "float64")]
    taken = [{**case.flags, "dtype": case.dtype} for case in EVERY if case.name == name]
    assert pairs(taken) == pairs(possible)
    assert len(taken) <= 24


def test_a_sample_of_three_holds_every_triple() -> None:
    sets = flag_sets("softmax_loss")
    sample = covering_sample(sets, 3)
    found, expected = (
        {frozenset(triple) for one in some for triple in combinations(one.items(), 3)}
        for some in (sample, sets)
    )
    assert found == expected
    assert len(sample) < len(sets) / 4


def test_what_a_device_leaves_out_is_found() -> None:
    """Every result is filled with something else first: a device that writes nothing is wrong everywhere."""
    for case in EVERY:
        untouched = case.results(case.arguments())
        expected = case.expected()
        assert any(not np.array_equal(untouched[key], values) for key, values in expected.items()), str(case)
