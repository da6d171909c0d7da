"""Help, versions, shell completion, and mistakes in the words of the command line."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from test_cli import SMALL, nnkit, same_weights, succeed, write_csv

from nnkit import MLPClassifier, cli
from nnkit.checks import settings_of
from nnkit.cli import choices
from nnkit.cli.options import BY_TABLE
from nnkit.cli.train import Precision
from nnkit.cli.words import with_option_names
from nnkit.insight.gallery import PLOTS
from nnkit.nn.activations import activation_names
from nnkit.nn.losses import loss_names
from nnkit.nn.optimizers import optimizer_names
from nnkit.nn.schedules import SCHEDULES
from nnkit.runs.config import Config, ModelConfig, load_config
from nnkit.runs.sections import SECTIONS
from nnkit.runs.table_defaults import FOLLOW_TABLE
from nnkit.training import settings

COMMANDS: Any = typer.main.get_command(cli.app)
EXAMPLES = [
    (name, line) for name, command in COMMANDS.commands.items() for line in command.epilog.splitlines()
]


# --- help ---


def test_the_help_has_each_command_in_a_group() -> None:
    help = succeed("--help")
    assert [line[:-1] for line in help.splitlines() if re.fullmatch(r"\w.*:", line)] == [
        "Options",
        *cli.COMMANDS,
        "Examples",
    ]
    assert set(re.findall(r"^  ([a-z][a-z-]*)  ", help, re.MULTILINE)) == set(COMMANDS.commands)


@pytest.mark.parametrize("name", COMMANDS.commands)
def test_the_help_of_a_command_fits_and_is_in_sentences(name: str) -> None:
    help = succeed(name, "--help")
    assert max(map(len, help.splitlines())) <= 80
    assert help.startswith(f"Usage: nnkit {name} [OPTIONS]")
    assert "Examples:\n  nnkit " in help
    assert COMMANDS.commands[name].help.rstrip().endswith(".")
    for param in COMMANDS.commands[name].params:
        # One plain sentence: it begins with a capital letter and ends with a full stop, and has a verb or a
        # noun that is not left out ("Of the rate.").
        assert re.fullmatch(r"[A-Z.].*\.", param.help or "", re.DOTALL), (name, param.name, param.help)
        assert not param.help.startswith("Of "), (name, param.name)


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_examples_are_commands_that_are_understood(name: str, line: str) -> None:
    program, command, *arguments = shlex.split(line)
    assert (program, command) == ("nnkit", name)
    context = COMMANDS.commands[name].make_context(name, arguments)
    assert not context.args


def test_the_names_that_options_list_are_those_there_are() -> None:
    assert activation_names()[: len(choices.ACTIVATIONS)] == choices.ACTIVATIONS
    assert optimizer_names() == choices.OPTIMIZERS
    assert tuple(SCHEDULES) == choices.SCHEDULES
    assert loss_names()[: len(choices.LOSSES)] == choices.LOSSES
    assert choices.PLOTS == PLOTS
    help = " ".join(succeed("train", "--help").replace("-\n", "-").split())
    for names in (choices.ACTIVATIONS, choices.OPTIMIZERS, choices.SCHEDULES, choices.LOSSES):
        assert choices.listed(names) in help
    assert all(name in succeed("plot", "--help").replace("-\n" + 15 * " ", "-") for name in PLOTS)


def test_options_show_the_help_and_default_of_their_key() -> None:
    shown = {param.name: param for param in COMMANDS.commands["train"].params}
    for section, kind in SECTIONS.items():
        for name, known in settings_of(kind).items():
            if name not in shown or name == "target":
                continue
            default = "256,128" if name == "hidden" else "runs/NAME-TIME" if name == "out" else known.default
            told = shown[name].show_default
            if f"{section}.{name}" in FOLLOW_TABLE:
                assert told.endswith(BY_TABLE)
                told = told.removesuffix(BY_TABLE)
            if default is None or default is False or default == []:
                assert not told or told == str(default), name
            else:
                assert told == (f"{default:g}" if isinstance(default, float) else str(default)), name
            if name not in ("hidden", "dropout", "out"):  # which an option writes in another way
                assert shown[name].help.startswith(known.help), (section, name)
    assert ModelConfig().hidden == [256, 128]
    assert [one.value for one in Precision] == list(get_args(settings.Precision))


def test_the_version_is_printed() -> None:
    assert succeed("--version") == f"nnkit {version('nnkit-train')}\n"


def test_names_are_completed_in_a_shell() -> None:
    words = {
        "nnkit tra": {"train"},
        "nnkit plot re": {"residuals"},
        "nnkit train --optimizer ad": {"adagrad", "adam", "adamw"},
        "nnkit train --precision fp": {"fp32", "fp64", "fp16"},
    }
    for line, expected in words.items():
        program = "import sys; sys.argv[0] = 'nnkit'; from nnkit.cli import main; main()"
        environment = {
            "_NNKIT_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
            "PATH": "/usr/bin:/bin",
        }
        result = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert set(result.stdout.split()) == expected, result.stderr


# --- mistakes ---


def test_arguments_become_the_options_of_the_command() -> None:
    options = {"label": "--class", "seed": "--seed", "data": "DATA"}
    assert with_option_names("leave out `label`", options) == "leave out --class"
    assert (
        with_option_names("seed = -1 must be 0; a seed = 2", options) == "--seed = -1 must be 0; a seed = 2"
    )
    assert with_option_names("give `data` and `other`", options) == "give DATA and other"


def test_settings_become_options_and_names_of_files_and_values_stay() -> None:
    options = {"seed": "--seed", "hidden": "--hidden", "target": "--target", "out": "--out"}
    assert with_option_names("`run.seed` or `run.other`", options) == "--seed or run.other"
    for message in (
        "data.target.csv: there is no column 'nope'",
        "run.out: no such file",
        "runs/model.hidden/x.csv: empty",
        "houses.toml, line 3: run.seed must be whole",
        "'run.out' is no name; set run.seed = 3",
        "`file.out` and `run.seed.csv` are not read",
    ):
        assert with_option_names(message, options) == message


def test_files_called_as_settings_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("data.target.csv"), {"a": [1, 2, 3], "b": [1, 0, 1]})
    assert nnkit("train", "data.target.csv", "--target", "nope").err.startswith("error: data.target.csv: ")
    assert nnkit("train", "run.out").err.startswith("error: run.out: ")
    Path("runs/model.hidden").mkdir(parents=True)
    Path("runs/model.hidden/x.csv").touch()
    message = nnkit("train", "runs/model.hidden/x.csv").err
    assert message.startswith("error: runs/model.hidden/x.csv: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian",), "'train'"),
        (("train", "iris", "--epoch", "3"), "--epochs"),
        (("plot", "rock", "."), "unknown plot 'rock'; did you mean roc?"),
        (("plot", "roc"), "roc is drawn from a run or a model: give RUN|MODEL"),
        (("tune-rate", "iris", "--lowest", "0"), "--lowest = 0.0 must be a finite number greater than 0"),
        (("tune-rate", "iris", "--steps", "1"), "--steps = 1 must be a whole number of at least 10"),
        (
            ("train", "iris", "--precision", "fp3"),
            "Invalid value for '--precision': 'fp3' is not one of 'fp32'",
        ),
        (("train", "iris", "--epochs", "x"), "Invalid value for '--epochs': "),
        (
            ("tune-rate", "iris", "--lowest", "1", "--highest", "0.1"),
            "--lowest = 1 must be less than --highest",
        ),
        (("predict", "nowhere", "iris", "--out", "p.xls"), "predictions are written as .csv, .parquet, .npy"),
        (("init", "{empty}", "--target", "x", "--set", "epochs=1"), "write training.epochs="),
        (("train", "{empty}"), "which holds nothing"),
        (
            ("init", "{empty}/x.toml", "--set", "training.epochs=0"),
            "training.epochs must be a whole number of at least 1",
        ),
        (("init", "{empty}/nothing.csv"), "nothing.csv: no such file, folder or built-in"),
        (("info", "{empty}"), "model.safetensors"),
    ],
)
def test_a_mistake_ends_with_2_and_is_understood(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = nnkit(*(argument.format(empty=tmp_path / "empty") for argument in arguments))
    assert result.code == 2
    assert words in result.err
    assert "Traceback" not in result.err


# --- init ---


def test_init_writes_every_key_with_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert succeed("init") == "config   config.toml\nedit it, then: nnkit train config.toml\n"
    text = (tmp_path / "config.toml").read_text()
    assert load_config(tmp_path / "config.toml") == Config()
    assert max(map(len, text.splitlines())) <= 100
    # The same file with every key in place, each below a line that says what it is for.
    written = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    for section, defaults in Config().tables().items():
        known = settings_of(SECTIONS[section])
        assert list(written[section]) == list(defaults)
        for key, default in defaults.items():
            description = known[key].help
            assert re.fullmatch(r"[A-Z].*\.", description)
            assert description.split(" ")[0] in text
            if default is not None:
                assert written[section][key] == default
    # The examples of keys without a default are values that the schema takes.
    assert Config.from_tables(written).training.clip_norm == 1.0


def test_init_is_trained_with_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/mails.tsv").write_text(
        "label\tbody\n"
        + "".join(f"{'ham' if n % 2 else 'spam'}\tword{n} more words here\n" for n in range(60))
    )
    data = tmp_path / "texts/mails.tsv"
    assert "config   mails.toml" in succeed("init", data.relative_to(tmp_path), "--target", "label")
    config = load_config("mails.toml")
    assert config.data.train == str(data)
    assert config.data.target == "label"
    assert config.tables(given_only=True) == {
        **{name: {} for name in SECTIONS},
        "data": {"train": str(data), "target": "label"},
    }
    # Text alone has layers and a rate of its own, which keys written out would replace.
    out = succeed("train", "mails.toml", "--epochs", 2, "--out", tmp_path / "a")
    assert "for text alone, unless set otherwise: no hidden layers, learning_rate = 0.01" in out
    succeed("train", data, "--target", "label", "--epochs", 2, "--out", tmp_path / "b")
    assert same_weights(tmp_path / "a/model.safetensors", tmp_path / "b/model.safetensors")


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[run]\nseed = 3\n")
    result = nnkit("init", path)
    assert result.code == 2
    assert "mine.toml: the file exists and is not overwritten" in result.err
    assert path.read_text() == "[run]\nseed = 3\n"


# --- info ---


def test_info_is_short_and_its_json_whole(tmp_path: Path) -> None:
    import numpy as np

    X = np.random.default_rng(0).normal(size=(60, 3))
    labels = np.where(X[:, 0] > 0, "yes", "no")
    # An estimator's file holds its whole loss curve.
    estimator = MLPClassifier((4,), max_iter=300, tol=0.0, n_iter_no_change=300, random_state=0)
    with pytest.warns(UserWarning, match="300"):
        estimator.fit(X, labels)
    estimator.save(tmp_path / "model.safetensors")
    shown = succeed("info", tmp_path / "model.safetensors")
    assert max(map(len, shown.splitlines())) <= 180
    assert re.search(r"^estimator +MLPClassifier$", shown, re.MULTILINE)
    whole = json.loads(succeed("info", tmp_path / "model.safetensors", "--json"))
    assert whole["estimator"]["fitted"]["loss_curve_"] == estimator.loss_curve_
    assert whole["classes"] == ["no", "yes"]
    assert whole["parameters"] == 3 * 4 + 4 + 4 + 1
    machine = json.loads(succeed("info", "--json"))
    assert machine["numpy"] == np.__version__
    assert machine["device cpu"] == "precisions fp32, fp64"


def test_info_of_many_columns_is_cut(tmp_path: Path) -> None:
    names = [f"column_{place}" for place in range(200)]
    rows = "".join(
        ",".join(str((row * place) % 11) for place in range(200)) + f",{row % 2}\n" for row in range(40)
    )
    (tmp_path / "wide.csv").write_text(",".join([*names, "target"]) + "\n" + rows)
    succeed("train", tmp_path / "wide.csv", *SMALL, "--out", tmp_path / "run")
    shown = succeed("info", tmp_path / "run")
    assert max(map(len, shown.splitlines())) <= 180
    assert re.search(r"^columns +column_1, .* … \(181 in all\)$", shown, re.MULTILINE)
    assert len(json.loads(succeed("info", tmp_path / "run", "--json"))["columns"]) == 181  # 19 are constant
