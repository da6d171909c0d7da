"""Write the reference page of all settings from their records: ``python docs/reference/settings.py``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

from nnkit.checks import Setting, Settings, settings_of
from nnkit.runs.keys import Named, described
from nnkit.runs.sections import SECTIONS
from nnkit.runs.table_defaults import FOLLOW_TABLE
from nnkit.runs.toml import toml_value
from nnkit.training.settings import TrainingSettings

PAGE = Path(__file__).with_suffix(".md")

_HEAD = """\
# Settings

Written by `python docs/reference/settings.py` from the records that check them; do not edit it.

A config has the sections below; `--set section.key=value` sets any key for one command. Keys marked * may
differ when a training is resumed; all others must be as they were. The defaults of keys marked † are others
for a table: [they follow from its rows](../how-to/train-on-a-table.md#what-is-chosen-for-a-table).
"""
_TRAINER = """\
## In Python: `Trainer` and `Trainer.fit`

Keywords under the same names as above have the same meaning; their types are Python's, and some defaults
differ.
"""


def reference() -> str:
    """Return the page."""
    parts = [_HEAD]
    for name, section in SECTIONS.items():
        parts.append("\n".join([f"## `[{name}]`", "", *_rows(section, "Key", name)]) + "\n")
    return "\n".join([*parts, _TRAINER, *_rows(TrainingSettings, "Keyword"), ""])


def _rows(record: type[Settings], title: str, section: str = "") -> Iterator[str]:
    yield f"| {title} | Default | What it may be | What it is for |"
    yield "|---|---|---|---|"
    for known in settings_of(record).values():
        name = f"`{known.name}`{'' if known.must_match else ' *'}"
        name += " †" if f"{section}.{known.name}" in FOLLOW_TABLE else ""
        help = described(known) if isinstance(known.check, Named) else known.help
        yield f"| {name} | {_default(known)} | {known.check.words} | {help} |"


def _default(known: Setting) -> str:
    if known.default is MISSING:
        return "required"
    if known.default is None:
        return "none" if known.example is None else f"none; such as `{toml_value(known.example)}`"
    return f"`{toml_value(known.default)}`"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
