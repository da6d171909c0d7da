"""Configs that once raised something else than a ConfigError, or took minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile.checks import LONGEST_MESSAGE
from nnkit.errors import ConfigError
from nnkit.runs import config, toml
from nnkit.runs.config import load_config


def refused(folder: Path, text: str) -> str:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) <= LONGEST_MESSAGE
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "data.train" + ".a" * 400_000 + " = 1",
        "[" + "a . " * 200_000 + "a]",
        'data = {"train"' + '."x \\" y"' * 100_000 + " = 1}",
        "data.train" + ".'x y'" * 100_000 + " = 1",
        "[data]\ntrain = " + "[" * 90_000,
        "[data]\ntrain = " + "{a = " * 20_000,
    ],
)
def test_deep_values_are_refused_before_they_are_parsed(text: str, tmp_path: Path) -> None:
    """A key of 400,000 parts took tomllib longer than anybody waits."""
    refused(tmp_path, text)


@pytest.mark.parametrize("levels", [10, 50, 99, 150, 300])
@pytest.mark.parametrize("pattern", ["[{}]", "{{a = {}}}"])
def test_nested_values_are_refused_at_any_depth(levels: int, pattern: str, tmp_path: Path) -> None:
    value = "1"
    for _ in range(levels):
        value = pattern.format(value)
    refused(tmp_path, f"[data]\ntrain = {value}\n")


def test_many_mistakes_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole file was parsed line by line for each of them."""
    calls = []
    look = config.lines_of_keys
    monkeypatch.setattr(config, "lines_of_keys", lambda text: calls.append(text) or look(text))
    text = "\n".join(f"key_{number} = 1" for number in range(3000))
    assert "2998 more" in refused(tmp_path, f"[data]\n{text}\n")
    assert len(calls) == 1


def test_a_long_value_is_not_parsed_again_at_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    loads = toml.tomllib.loads
    monkeypatch.setattr(toml.tomllib, "loads", lambda text: parsed.append(len(text)) or loads(text))
    refused(tmp_path, "[training]\nmetrics = [\n" + ('"' + "a" * 2000 + '",\n') * 499 + "]\nepochs = -1\n")
    assert sum(parsed) < 5_000_000


@pytest.mark.parametrize(
    "text",
    [
        "[data]\n" + "k" * 900_000 + " = 1",
        "k" * 900_000 + " = 1",
        '[data]\ntask = "' + "k" * 900_000 + '"',
        '[training]\noptimizer = {name = "adam", ' + "k" * 900_000 + " = 1}",
        '[run]\ncheckpoint_every = "' + "k" * 900_000 + '"',
        "[run]\nseed = " + "9" * 900_000,
        "[run]\nseed = 0x" + "f" * 900_000,
        "[model]\nhidden = [" + "1," * 400_000 + "]",
        "[training]\nmetrics = [" + '"r2",' * 150_000 + "]",
    ],
)
def test_long_words_are_told_in_short(text: str, tmp_path: Path) -> None:
    refused(tmp_path, text)


def test_dots_in_a_value_are_no_levels(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    numbers = ", ".join(["0.25"] * 300)
    path.write_text(
        f'[model]\nhidden = [{"1, " * 300}]\ndropout = [{numbers}]\n[data]\ntrain = "{"../" * 150}x.csv"\n'
    )
    assert len(load_config(path).model.hidden) == 300
