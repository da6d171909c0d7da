"""The settings of a training on a table that the user does not give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnkit.data.targets.encoding import TargetEncoder
from nnkit.runs.config import Config
from nnkit.runs.from_config import with_table_defaults
from nnkit.runs.table_defaults import FOLLOW_TABLE, table_defaults


def defaults(rows: int, task: str = "binary", preset: str = "default", **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"columns": 9, "outputs": 1, "held_out": True, **options}
    found = table_defaults(rows, task=task, preset=preset, **given)
    return {**found["model"], **found["training"]}


def chosen(*settings: str, rows: int = 2000) -> tuple[Config, list[str]]:
    notes: list[str] = []
    encoder = TargetEncoder.fit(np.array([0, 1]), task="binary")
    config = with_table_defaults(Config().with_overrides(settings), rows, 9, encoder, True, notes)
    return config, notes


@pytest.mark.parametrize(("rows", "epochs"), [(5, 400), (960, 400), (3840, 100), (19_200, 20), (10**7, 20)])
def test_small_tables_are_passed_over_more_often(rows: int, epochs: int) -> None:
    assert defaults(rows)["epochs"] == defaults(rows, "regression")["epochs"] == epochs


def test_classifications_decay_and_regressions_do_not() -> None:
    decays = [defaults(rows)["weight_decay"] for rows in (10, 500, 3840, 19_200, 200_000)]
    assert decays == sorted(decays, reverse=True)
    assert decays[0] == 4.0  # 400 steps; the most
    assert decays[1] == pytest.approx((1500 / 800) ** 2, rel=0.02)  # 400 epochs of 2 steps
    assert decays[2] == decays[3] == 1.0  # 1,500 steps
    assert decays[4] == pytest.approx(1500 / (20 * 782), rel=0.02)
    assert "weight_decay" not in defaults(500, "regression")


def test_a_classification_decays_the_less_the_more_classes_it_has() -> None:
    decays = [defaults(100, "multiclass", outputs=count)["weight_decay"] for count in (2, 4, 40)]
    assert decays == [4.0, 2.0, 0.2]
    assert defaults(100, "multilabel", outputs=40)["weight_decay"] == 4.0


def test_without_held_out_rows_a_training_does_not_stop_early() -> None:
    assert not {"early_stopping", "cooldown"} & defaults(500, held_out=False).keys()
    assert defaults(5000)["early_stopping"] == 20


def test_a_training_waits_for_at_least_a_hundred_steps() -> None:
    assert [defaults(rows)["early_stopping"] for rows in (100, 300, 1280, 1281)] == [100, 50, 20, 20]
    assert [defaults(rows, "regression")["early_stopping"] for rows in (100, 300)] == [100, 34]
    assert defaults(100, preset="fast")["early_stopping"] == 50


def test_many_columns_have_fewer_bins() -> None:
    assert [defaults(500, columns=columns)["bins"] for columns in (0, 512, 1024, 5000)] == [16, 16, 8, 4]


def test_presets_take_less_time_and_more() -> None:
    fast, plain, best = (defaults(500, preset=preset) for preset in ("fast", "default", "best"))
    assert (fast["epochs"], plain["epochs"], best["epochs"]) == (100, 400, 800)
    assert fast["weight_decay"] == plain["weight_decay"] == best["weight_decay"]
    assert (plain["ensemble"], best["ensemble"]) == (4, 8)
    assert not {"ensemble", "hidden"} & fast.keys()


def test_widths_of_ones_own_are_those_of_one_network() -> None:
    models = [
        chosen(*settings)[0].model
        for settings in (
            [],
            ["model.hidden=[50]"],
            ["model.ensemble=1"],
            ["model.ensemble=3"],
            ["model.hidden=[50]", "model.ensemble=3"],
        )
    ]
    assert [(model.ensemble, model.hidden) for model in models] == [
        (4, [128, 64]),
        (1, [50]),
        (1, [256, 128]),
        (3, [128, 64]),
        (3, [50]),
    ]


def test_what_is_given_counts_and_the_rest_is_told_in_one_line() -> None:
    config, [note] = chosen("model.activation=tanh", "training.epochs=7")
    assert (config.model.activation, config.training.epochs, config.model.numbers) == ("tanh", 7, "piecewise")
    assert note.startswith("for a table of 2,000 training rows, unless set otherwise: numbers = piecewise")
    assert "activation" not in note
    assert "epochs" not in note
    assert chosen(*(f"{name}={value}" for name, value in everything(config).items()))[1] == []


def everything(config: Config) -> dict[str, Any]:
    values = {
        f"{section}.{key}": value for section, keys in config.tables().items() for key, value in keys.items()
    }
    return {name: values[name] for name in FOLLOW_TABLE}


def test_an_optimizer_of_ones_own_has_its_own_rate_and_decay() -> None:
    training = chosen("training.optimizer=sgd")[0].training
    assert not {"learning_rate", "weight_decay"} & training.given


def test_a_rate_of_ones_own_leaves_the_decay_of_a_step() -> None:
    plain, faster = chosen()[0].training, chosen("training.learning_rate=0.02")[0].training
    assert faster.weight_decay * 0.02 == pytest.approx(plain.weight_decay * plain.learning_rate, rel=0.05)
    assert chosen("training.learning_rate=1e-9")[0].training.weight_decay == 4.0


def test_a_linear_model_reads_numbers_as_they_are() -> None:
    assert chosen("model.hidden=[]")[0].model.numbers == "auto"


def test_the_help_and_a_new_config_say_which_defaults_follow_from_a_table() -> None:
    text = Config().to_commented_toml()
    lines = " ".join(text.replace("\n#  ", " ").split())
    assert lines.count("Of a table, unless set here, it follows from the rows.") == len(FOLLOW_TABLE)
    assert {"training.epochs", "model.dropout", "model.ensemble", "training.weight_decay"} <= FOLLOW_TABLE
