"""Learning-rate schedules against closed forms written here step by step, and their JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nnkit.errors import ConfigError
from nnkit.nn.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    CosLog4,
    Exponential,
    FlatCosine,
    InverseTime,
    OneCycle,
    PlateauState,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
    schedule_from,
)

TOTAL, PER_EPOCH = 120, 12


def one_cycle(step: int, total: int, schedule: OneCycle) -> float:
    """PyTorch's OneCycleLR with anneal_strategy="cos", as its documentation words it, for a maximum of 1."""
    first = 1 / schedule.div_factor
    phases = [
        (schedule.pct_start * total - 1, first, 1.0),
        (total - 1, 1.0, first / schedule.final_div_factor),
    ]
    start = 0.0
    for end, low, high in phases:
        if step <= end:
            return high + (low - high) / 2 * (1 + math.cos(math.pi * (step - start) / (end - start)))
        start = end
    raise AssertionError(step)


CLOSED_FORMS = [
    (Constant(), lambda t: 1.0),
    (StepDecay(every=3, factor=0.5), lambda t: 0.5 ** (t // 36)),
    (Exponential(rate=0.9), lambda t: math.exp(math.log(0.9) * t / 12)),
    (InverseTime(decay=0.25), lambda t: 12 / (12 + 0.25 * t)),
    (Cosine(), lambda t: math.cos(math.pi * t / 240) ** 2),
    (Cosine(minimum=0.2), lambda t: 0.2 + 0.8 * math.cos(math.pi * t / 240) ** 2),
    (FlatCosine(), lambda t: 1.0 if t <= 60 else math.cos(math.pi * (t - 60) / 120) ** 2),
    (CosLog4(), lambda t: math.sin(math.pi * math.log(1 + t / 8, 2)) ** 2),
    (OneCycle(), lambda t: one_cycle(t, 120, OneCycle())),
    (OneCycle(0.5, 10, 100), lambda t: one_cycle(t, 120, OneCycle(0.5, 10, 100))),
    (ReduceOnPlateau(), lambda t: 1.0),
]


@pytest.mark.parametrize(("schedule", "form"), CLOSED_FORMS)
def test_factors_follow_the_closed_form(schedule: Schedule, form) -> None:
    result = schedule.factors(0, TOTAL, TOTAL, PER_EPOCH)
    assert result.shape == (TOTAL,)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, [form(step) for step in range(TOTAL)], rtol=1e-12, atol=1e-15)


def test_one_cycle_begins_peaks_and_ends_where_pytorchs_does() -> None:
    factors = OneCycle().factors(0, 100, 100, 10)
    assert factors[0] == pytest.approx(1 / 25)
    assert factors.argmax() == 29
    assert factors[29] == pytest.approx(1)
    assert factors[99] == pytest.approx(1 / 25e4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_table_for_each_epoch_equals_one_for_the_training(name: str) -> None:
    schedule = schedule_from({"name": name, "warmup": 17})
    whole = schedule.factors(0, TOTAL, TOTAL, PER_EPOCH)
    parts = [schedule.factors(first, PER_EPOCH, TOTAL, PER_EPOCH) for first in range(0, TOTAL, PER_EPOCH)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_is_linear_and_meets_the_schedules_first_step(name: str) -> None:
    plain = schedule_from(name).factors(0, TOTAL - 20, TOTAL - 20, PER_EPOCH)
    warm = schedule_from({"name": name, "warmup": 20}).factors(0, TOTAL, TOTAL, PER_EPOCH)
    np.testing.assert_allclose(warm[20:], plain, rtol=1e-12)
    np.testing.assert_allclose(warm[:21], plain[0] * np.arange(1, 22) / 21, rtol=1e-12)


def test_warmup_in_epochs_is_that_many_epochs_of_steps() -> None:
    epochs = Cosine(warmup_epochs=1.5).factors(0, TOTAL, TOTAL, PER_EPOCH)
    np.testing.assert_array_equal(epochs, Cosine(warmup=18).factors(0, TOTAL, TOTAL, PER_EPOCH))


def test_warmup_longer_than_the_training_is_a_ramp() -> None:
    factors = Cosine(warmup=999).factors(0, 10, 10, 5)
    np.testing.assert_allclose(factors, np.arange(1, 11) / 1000)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [0, 1, 2, 3])
def test_factors_are_finite_and_in_range_for_the_shortest_trainings_and_beyond_the_end(
    name: str, total: int
) -> None:
    factors = schedule_from(name).factors(0, total + 5, total, 1)
    assert np.all(np.isfinite(factors))
    assert np.all((factors >= 0) & (factors <= 1 + 1e-12))


def test_nothing_asked_gives_nothing() -> None:
    assert Cosine().factors(5, 0, 10, 5).shape == (0,)


def test_plateau_reduces_after_patience_epochs_without_improvement() -> None:
    schedule = ReduceOnPlateau(factor=0.5, patience=2, min_delta=0.1, minimum=0.2)
    state = PlateauState()
    seen = []
    for value in [1.0, 0.95, 0.94, 0.5, math.nan, 0.45, 0.44, 0.43, 0.42, 0.41]:
        state = schedule.observe(state, value, "min")
        seen.append((state.factor, state.best, state.waited))
    assert seen == [
        (1.0, 1.0, 0),
        (1.0, 1.0, 1),  # better by less than min_delta
        (0.5, 1.0, 0),
        (0.5, 0.5, 0),
        (0.5, 0.5, 1),  # not a number is no improvement
        (0.25, 0.5, 0),
        (0.25, 0.5, 1),
        (0.2, 0.5, 0),  # held at the minimum
        (0.2, 0.5, 1),
        (0.2, 0.5, 0),
    ]


def test_plateau_follows_a_score_upwards() -> None:
    schedule = ReduceOnPlateau(patience=1, min_delta=0.0)
    better = schedule.observe(PlateauState(best=0.8), 0.9, "max")
    assert (better.best, better.factor) == (0.9, 1.0)
    assert schedule.observe(better, 0.85, "max").factor == 0.5


def test_plateau_without_a_finite_value_yet_waits() -> None:
    state = ReduceOnPlateau().observe(PlateauState(), math.inf)
    assert state == PlateauState(1.0, None, 1)


def test_plateau_state_survives_json() -> None:
    for state in (PlateauState(), PlateauState(0.25, 0.1 + 0.2, 3)):
        assert PlateauState(**json.loads(json.dumps(state.to_json()))) == state


@pytest.mark.parametrize("schedule", [form[0] for form in CLOSED_FORMS] + [StepDecay(7, 0.3, warmup=5)])
def test_schedules_survive_json(schedule: Schedule) -> None:
    assert schedule_from(json.loads(json.dumps(schedule.to_json()))) == schedule


def test_schedule_from_takes_a_name_a_table_or_a_schedule() -> None:
    assert schedule_from("cosine") == Cosine()
    table = {"name": "step", "every": 10, "factor": 0.5}
    assert schedule_from(table) == StepDecay(10, 0.5)
    assert table == {"name": "step", "every": 10, "factor": 0.5}
    assert schedule_from(Constant()) == Constant()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cosin", r"unknown schedule 'cosin'; did you mean cosine\?"),
        ("zigzag", r"unknown schedule 'zigzag' \(known: constant, step, "),
        ({"name": "step", "evry": 3}, r"unknown parameter 'evry' of the schedule step; did you mean every\?"),
        (
            {"name": "step", "every": 0},
            "schedule step: every = 0 must be a whole number of at least 1",
        ),
        ({"name": "step", "every": 2.5}, "every = 2.5 must be a whole number"),
        ({"name": "step", "every": True}, "every = True must be a whole number"),
        ({"name": "step", "factor": "half"}, "factor = 'half' must be a finite number"),
        ({"name": "exponential", "rate": 0}, "rate = 0 must be a finite number greater than 0"),
        ({"name": "exponential", "rate": math.nan}, "rate = nan must be a finite number"),
        ({"name": "exponential", "rate": math.inf}, "rate = inf must be a finite number"),
        ({"name": "inverse_time", "decay": 10**400}, "decay = 1000.* must be a finite number"),
        ({"name": "cosine", "minimum": 2}, "minimum = 2 must be a finite number of at least 0 and at most 1"),
        ({"name": "cosine", "warmup": -1}, "warmup = -1 must be a whole number of at least 0"),
        ({"name": "step", "every": 10**400}, r"every = 1000.* must be .* at most 2\^53"),
        ({"name": "cosine", "warmup": 3, "warmup_epochs": 1}, "not both"),
        ({"every": 3}, "must be a name or a table"),
        (3, "schedule = 3 must be a name or a table"),
    ],
)
def test_mistakes_are_named(value, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule_from(value)
