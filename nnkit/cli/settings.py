"""The config's settings by the options that `nnkit train` has for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from nnkit.errors import NnkitError

__all__ = ["option_of", "told_in_options"]

_SETTINGS = (
    *("data.target", "data.validation", "model.hidden", "model.activation", "model.dropout"),
    *("training.loss", "training.optimizer", "training.learning_rate", "training.schedule"),
    *("training.weight_decay", "training.l1", "training.l2", "training.epochs", "training.batch_size"),
    *("training.early_stopping", "run.device", "run.precision", "run.seed", "run.out"),
)
_KEY = re.compile(r"(?<![\w.=-])(?:" + "|".join(map(re.escape, _SETTINGS)) + r")\b(?!\s*=)")
# What has no setting: an argument of the library's; and `Run.resumed`, which is --resume.
_OVERWRITE = "set overwrite=True"


def option_of(key: str) -> str:
    """Return the option for a setting: ``--batch-size`` for ``training.batch_size``."""
    return "--" + key.partition(".")[2].replace("_", "-")


@contextmanager
def told_in_options() -> Iterator[None]:
    """Let errors name the options of the command in place of the library's arguments and the config's keys.

    A line that begins with a file's name or with ``--set`` speaks of what stands there, and stays.
    """
    try:
        yield
    except NnkitError as error:
        error.args = ("\n".join(map(_line_in_options, str(error).split("\n"))),)
        raise


def _line_in_options(line: str) -> str:
    if line.startswith("--set ") or re.search(r"^\S.*, line \d+: |\.toml: ", line):
        return line
    line = _KEY.sub(lambda found: option_of(found[0]), line).replace(_OVERWRITE, "give --overwrite")
    return re.sub(r"Run\.resumed\((.*?)\)", r"--resume \1", line)
