"""How arguments of the library are written on the command line."""

from __future__ import annotations

import re

__all__ = ["DATA_KEYS", "with_option_names"]

_TABLE_KEYS = (
    "separator header encoding decimal thousands missing comment skip_rows quote index weight positive types "
    "drop features task"
).split()
DATA_KEYS = {key: f"data.{key}" for key in _TABLE_KEYS}
"""How arguments that say how a table is read are written on the command line, with --set or in a config."""

# A library error names an argument or a setting (`run.seed`) in backquotes, or begins with an argument:
# "seed = -1 must be a whole number ...".
_ARGUMENT = re.compile(r"`((?:(?:data|model|training|run)\.)?\w+)`|^(\w+)(?= = )", re.ASCII)


def with_option_names(message: str, options: dict[str, str]) -> str:
    """Return a library error's message with the command's options in place of the arguments it names.

    Parameters
    ----------
    message : str
        Arguments and settings stand in backquotes, an argument also at the beginning before " = ".
    options : dict
        How an argument is written on the command line; one that is not among them keeps its name. A setting
        is written as its key without the section: an option for ``run.seed`` is called ``seed``.
    """

    def written(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        return options.get(name.rpartition(".")[2], name)

    return _ARGUMENT.sub(written, message)
