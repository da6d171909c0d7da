"""The reference page is what the records of settings say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from nnkit.checks import settings_of
from nnkit.runs.sections import SECTIONS
from nnkit.training.settings import TrainingSettings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_the_page_is_what_the_records_say() -> None:
    # In a process of its own: other tests register activations and losses.
    print_page = (
        f"import runpy; print(runpy.run_path({str(PAGE.with_suffix('.py'))!r})['reference'](), end='')"
    )
    command = [sys.executable, "-c", print_page]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert PAGE.read_text() == written, "run: python docs/reference/settings.py"


def test_the_page_has_a_full_row_for_each_setting() -> None:
    rows = re.findall(
        r"^\| `(\w+)`( \*)?(?: †)? \| ([^|]+) \| ([^|]+) \| ([A-Z][^|]+\.) \|$",
        PAGE.read_text(),
        re.MULTILINE,
    )
    known = [
        known for record in (*SECTIONS.values(), TrainingSettings) for known in settings_of(record).values()
    ]
    assert [row[0] for row in rows] == [setting.name for setting in known]
    assert [not row[1] for row in rows] == [setting.must_match for setting in known]
