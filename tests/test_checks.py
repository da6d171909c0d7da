"""The checks of what a caller gives, each against the values it should and should not take, and records."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from nnkit.checks import (
    By,
    Check,
    Choice,
    Flag,
    ListOf,
    Number,
    Refused,
    Settings,
    Whole,
    setting,
    setting_like,
    settings_of,
)
from nnkit.errors import ConfigError


@pytest.mark.parametrize(
    ("check", "value", "plain"),
    [
        (Whole(1), 1, 1),
        (Whole(1, 5), np.int64(5), 5),
        (Whole(), -(10**400), -(10**400)),
        (Number(0), 0, 0.0),
        (Number(0, below=1), np.float32(0.5), 0.5),
        (Number(above=0, most=100), 100, 100.0),
        (Number(), Fraction(1, 4), 0.25),
        (Choice(("a", "b")), "b", "b"),
        (Flag(), True, True),
        (Flag(), np.bool_(False), False),
        (ListOf(Whole(1), 2), (3, np.int32(4)), [3, 4]),
        (By(str.upper, "a text"), "x", "X"),
    ],
)
def test_what_is_allowed_is_returned_in_its_plain_type(check: Check, value: Any, plain: Any) -> None:
    found = check("x", value)
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (Whole(1), 0, "x = 0 must be a whole number of at least 1"),
        (Whole(1, 5), 6, "x = 6 must be a whole number of at least 1 and at most 5"),
        (Whole(1, 2**53), 0, "x = 0 must be a whole number of at least 1"),
        (Whole(1), True, "x = True must be a whole number of at least 1"),
        (Whole(1), 1.0, "x = 1.0 must be a whole number of at least 1"),
        (
            Whole(0, 2**53),
            2**53 + 1,
            "x = 9007199254740993 must be a whole number of at least 0 and at most 2^53",
        ),
        (Number(0), -1e-300, "x = -1e-300 must be a finite number of at least 0"),
        (Number(above=0), 0, "x = 0 must be a finite number greater than 0"),
        (Number(0, below=1), 1, "x = 1 must be a finite number of at least 0 and less than 1"),
        (Number(), math.nan, "x = nan must be a finite number"),
        (Number(), math.inf, "x = inf must be a finite number"),
        (Number(), "1", "x = '1' must be a finite number"),
        (Number(0), False, "x = False must be a finite number of at least 0"),
        (Choice(("mean", "sum")), "maen", "x = 'maen' must be one of mean, sum; did you mean mean?"),
        (Choice(("mean", "sum")), ["mean"], "x = ['mean'] must be one of mean, sum"),
        (Flag(), 1, "x = 1 must be true or false"),
        (ListOf(Whole(1)), 3, "x = 3 must be a list, each element a whole number of at least 1"),
        (ListOf(Whole(1), 1), [3, 4], "x = [3, 4] must be a list of at most 1"),
        (ListOf(Whole(1)), [3, 0], "each element of x = 0 must be a whole number of at least 1"),
    ],
)
def test_a_mistake_names_the_argument_the_value_and_what_is_allowed(
    check: Check, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check("x", value)
    assert str(caught.value) == message


def test_a_number_too_large_for_a_float_is_none() -> None:
    with pytest.raises(ConfigError, match="must be a finite number"):
        Number()("x", 10**400)


def test_a_function_says_which_part_is_wrong() -> None:
    def positive(table: dict[str, float]) -> dict[str, float]:
        for key, value in table.items():
            if value <= 0:
                raise Refused("greater than 0", value, f".{key}")
        return table

    check = By(positive, "a table of numbers")
    assert check("x", {"a": 1.0}) == {"a": 1.0}
    with pytest.raises(ConfigError, match=r"^x\.b = -1 must be greater than 0$"):
        check("x", {"a": 1, "b": -1})


@dataclass(frozen=True, kw_only=True)
class Pets(Settings):
    """Settings of pets."""

    count: int = setting(2, Whole(1), "How many.", must_match=False)
    name: str | None = setting(None, Choice(("rex", "tom")), "What it is called.", example="rex")
    tags: list[int] = setting([1], ListOf(Whole(0)), "Its tags.")


@dataclass(frozen=True, kw_only=True)
class Dogs(Settings):
    """Settings of dogs."""

    name: str = setting_like(Pets, "name", default="rex")


def test_a_record_checks_its_fields_and_tells_what_they_are() -> None:
    assert (Pets().count, Pets().name, Pets(count=np.int8(3)).count) == (2, None, 3)
    assert Pets().tags == [1]
    assert Pets().tags is not Pets().tags
    with pytest.raises(ConfigError, match=r"^count = 0 must be a whole number of at least 1$"):
        Pets(count=0)
    with pytest.raises(ConfigError, match=r"^count = None must be"):
        replace(Pets(), count=None)  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        Pets().count = 3  # type: ignore[misc]
    known = settings_of(Pets)
    assert list(known) == ["count", "name", "tags"]
    assert (known["count"].default, known["count"].help, known["count"].must_match) == (2, "How many.", False)
    assert (known["name"].check.words, known["name"].example) == ("one of rex, tom", "rex")


def test_a_setting_of_another_record_may_be_changed_in_part() -> None:
    assert Dogs().name == "rex"
    assert settings_of(Dogs)["name"].help == settings_of(Pets)["name"].help
    with pytest.raises(ConfigError, match="must be one of rex, tom"):
        Dogs(name=None)  # type: ignore[arg-type]
