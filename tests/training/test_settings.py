"""The record of a training's settings agrees with what `Trainer` shows of it, and with a resume's check."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from nnkit import Adam, Dense, Network, Trainer
from nnkit.checks import settings_of
from nnkit.errors import ConfigError
from nnkit.training.settings import DataPlacement, Precision, TrainingSettings

KNOWN = settings_of(TrainingSettings)
X = np.arange(24.0).reshape(12, 2) % 7
Y = np.arange(12) % 2
# Another value of each setting, for a network of two classes.
OTHERS: dict[str, Any] = {
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "optimizer": Adam(beta1=0.8),
    "schedule": "cosine",
    "dropout_schedule": "flat_cos",
    "weight_decay_schedule": {"name": "exponential", "rate": 0.9},
    "l1": 0.1,
    "l2": 0.2,
    "penalty_on": "sum",
    "average": "rows",
    "clip_norm": 1.0,
    "groups": {"layers.0": {"rate": 0.5, "decays": False}},
    "class_weight": {0: 2.0},
    "early_stopping": 9,
    "restore_best": True,
    "metrics": ["log_loss"],
    "seed": 1,
    "precision": "fp64",
    "device": "cpu",
    "data_placement": "device",
    "epochs": 3,
}


def parameters(method: Any) -> dict[str, inspect.Parameter]:
    return {
        name: parameter for name, parameter in inspect.signature(method).parameters.items() if name in KNOWN
    }


def documented(text: str | None) -> dict[str, str]:
    """Return the first words of each parameter of a numpydoc docstring."""
    section = re.search(r"Parameters\n\s*-+\n(.*?)\n\s*\n", inspect.cleandoc(text or "") + "\n\n", re.DOTALL)
    assert section is not None
    entries = re.findall(r"^(\w+) : [^\n]*\n((?:    [^\n]*\n?)+)", section[1], re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def test_each_setting_is_an_argument_with_the_same_default() -> None:
    given = {**parameters(Trainer.__init__), **parameters(Trainer.fit)}
    assert set(given) == set(KNOWN)
    for name, parameter in given.items():
        default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        assert default == KNOWN[name].default, name


def test_the_help_of_a_setting_begins_its_documentation() -> None:
    told = {**documented(Trainer.__doc__), **documented(Trainer.fit.__doc__)}
    assert {name: told[name][: len(item.help)] for name, item in KNOWN.items()} == {
        name: item.help for name, item in KNOWN.items()
    }
    assert all(re.fullmatch(r"[A-Z][^\n]*\.", item.help) for item in KNOWN.values())


def test_names_of_a_type_are_those_that_are_allowed() -> None:
    assert KNOWN["precision"].check.words == f"one of {', '.join(get_args(Precision))}"
    assert KNOWN["data_placement"].check.words == f"one of {', '.join(get_args(DataPlacement))}"


def test_a_trainer_keeps_what_it_is_given() -> None:
    given = {name: value for name, value in OTHERS.items() if name != "epochs"}
    kept = Trainer(Network([Dense(2)]), **given).settings
    for name, value in given.items():
        made = KNOWN[name].check("x", value)
        assert getattr(kept, name) == made, name
    assert replace(kept) == kept
    assert Trainer(Network([Dense(2)]), "cross_entropy").settings.metrics == ("accuracy",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"l1": -1}, "l1 = -1 must be a finite number of at least 0"),
        (
            {"dropout_schedule": "reduce_on_plateau"},
            "dropout_schedule = 'reduce_on_plateau' must be a schedule other than",
        ),
        (
            {"weight_decay_schedule": {"name": "step", "factor": 2.0}},
            "weight_decay_schedule = {'name': 'step'",
        ),
        ({"clip_norm": 0}, "clip_norm = 0 must be a finite number greater than 0"),
        ({"seed": -1}, "seed = -1 must be a whole number of at least 0"),
        ({"early_stopping": 0}, "early_stopping = 0 must be a whole number of at least 1"),
        ({"restore_best": "no"}, "restore_best = 'no' must be true or false"),
        ({"average": "row"}, "average = 'row' must be one of weights, rows; did you mean rows?"),
        ({"metrics": "f1"}, "metrics = 'f1' must be a list of names, such as ['accuracy']"),
        ({"groups": 3}, "groups = 3 must be a mapping from names such as 'layers.0'"),
        ({"groups": {"layers.0": 3}}, "groups.layers.0 = 3 must be a mapping of rate, decays and trains"),
        ({"groups": {"layers.0": {"rate": 0}}}, "groups.layers.0.rate = 0 must be a finite number greater"),
        ({"groups": {"layers.0": {"trains": 0}}}, "groups.layers.0.trains = 0 must be true or false"),
        ({"groups": {"layers.0": {"rates": 1}}}, "unknown key 'rates' of the group 'layers.0'; did you mean"),
        ({"class_weight": "equal"}, "class_weight = 'equal' must be 'balanced' or a mapping"),
        ({"data_placement": "disk"}, "data_placement = 'disk' must be one of auto, device, pinned, mmap"),
        ({"precision": "fp8"}, "precision = 'fp8' must be one of fp32, fp64, tf32, fp16, bf16"),
        ({"device": 3}, "device = 3 must be a device's name"),
    ],
)
def test_a_mistake_names_the_setting_and_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Trainer(Network([Dense(2)]), "cross_entropy", **given)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", OTHERS)
def test_a_resume_must_match_what_the_record_says(name: str, tmp_path: Path) -> None:
    first: dict[str, Any] = {"loss": "cross_entropy", "device": "cpu"}
    fit: dict[str, Any] = {"validation": 0.25, "progress": False}
    Trainer(Network([Dense(2)]), **first).fit(X, Y, epochs=2, checkpoints=tmp_path, **fit)
    other = {name: OTHERS[name]}
    trainer = Trainer(Network([Dense(2)]), **{**first, **(other if name != "epochs" else {})})
    longer = other if name == "epochs" else {}
    if KNOWN[name].must_match:
        with pytest.raises(ConfigError, match=rf"\b{name}\b.*: differs from the training to resume"):
            trainer.resume(tmp_path, X, Y, **longer, **fit)
    else:
        trainer.resume(tmp_path, X, Y, **longer, **fit)


def test_the_record_costs_next_to_nothing_to_import() -> None:
    code = (
        "import sys, nnkit.training.settings; assert {'numpy', 'numba', 'pydantic'}.isdisjoint(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
