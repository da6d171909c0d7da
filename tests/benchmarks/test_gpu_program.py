"""`bench/gpu.sh` dry-run on the CPU: its sections, its record, its table, and what it does if things fail."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure as Canvas
from simulated import rounding

from nnkit.benchmarks.figures import Aim, Failure, Figure, Part, table
from nnkit.benchmarks.gpu import __main__ as sections
from nnkit.benchmarks.gpu import loading, mixed, widths
from nnkit.benchmarks.gpu.page import card_parts, card_plots
from nnkit.benchmarks.gpu.settings import Settings
from nnkit.benchmarks.timing import Spread
from nnkit.insight.drawing import LIGHT, Plot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def program() -> ModuleType:
    """Return bench/gpu.py, which is no part of the package, as a module."""
    return load("gpu")


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "bench" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_dry_run_measures_every_section_and_prints_the_table_last(tmp_path: Path) -> None:
    names = ["floors", "kernels", "floor", "agreement", "mnist", "small", "mixed", "loading", "step"]
    command = ["bash", str(ROOT / "bench" / "gpu.sh"), *names, "--device", "cpu", "--quick", "--no-peers"]
    environment = {**os.environ, "NNKIT_BENCH_OUT": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "gpu-cpu-quick.json").read_text())
    assert record["machine"]["card"] == "cpu"
    assert record["quick"]
    assert list(record["sections"]) == names
    figures = [Figure.from_json(figure) for name in names for figure in record["sections"][name]["figures"]]
    assert all(math.isfinite(figure.value.median) for figure in figures)
    assert all(figure.value.low <= figure.value.median <= figure.value.high for figure in figures)
    assert not any(record["sections"][name]["failures"] for name in names)
    shown = done.stdout.strip().splitlines()[-len(figures) :]
    for line, figure in zip(shown, figures, strict=True):
        assert f"| {figure.name} |" in line
    by_name = {figure.name: figure for figure in figures}
    assert by_name["two runs, values that differ"].reached
    assert by_name["captured against uncaptured, values that differ"].reached
    assert sum("of the copy's rate" in name for name in by_name) == 23
    # The two plots are drawn from what this program writes.
    series = ("fp32", "fp32, products alone")
    assert set(plotted_by_hand(record)["speed"]) == {(name, width) for name in series for width in (8, 16)}
    assert_plots_hold(record)


@pytest.mark.slow
def test_the_section_of_mixed_precision_measures_each_format() -> None:
    with rounding.installed() as device:
        parts = mixed.parts(Settings(device, quick=True, peers=False))
        # A contest is held in other processes, which do not know the device.
        assert sum(part.name.startswith("PyTorch AMP") for part in parts) == 3
        own = [part for part in parts if not part.name.startswith("PyTorch AMP")]
        figures = [figure for part in own for figure in part.measure()]
    by_name = {figure.name: figure for figure in figures if isinstance(figure, Figure)}
    assert len(by_name) == len(figures)
    for half in ("fp16", "bf16"):
        assert f"four hidden layers of 16, batch 16: {half} over fp32" in by_name
        assert f"mnist: mean accuracy, {half} from fp32" in by_name
        assert f"california_housing.csv: mean r2, {half} from fp32" in by_name
    share = by_name["four hidden layers of 16, batch 16, fp16: share of its products' rate"]
    assert share.aim == Aim(">=", 0.7)
    weights = [784 * 16, *[16 * 16] * 3, 16 * 10]
    forward = by_weights = 2 * 16 * sum(weights)
    by_inputs = 2 * 16 * sum(weights[1:])
    step = by_name["four hidden layers of 16, batch 16, fp16"]
    assert step.details["flop"] == forward + by_weights + by_inputs
    assert step.details["skipped updates"] == 0
    for width in (16, 8):
        for name in ("fp32", "fp16", "bf16"):
            told = by_name[f"four hidden layers of {width}, batch 16, {name}"].details
            assert (told["width"], told["precision"]) == (width, name)
            assert told["products alone, FLOP/s"]["median"] > 0
    assert by_name["logits beyond float16: greatest before training"].reached
    assert by_name["logits beyond float16: last loss over the first"].reached
    assert by_name["overflow: updates skipped in 10 epochs"].value.median == 10
    assert by_name["overflow: last epoch's loss over the first's"].reached


def plotted_by_hand(record: dict[str, Any]) -> dict[str, dict[tuple[str, Any], float]]:
    """Return what each plot of a record has to show, by series and place."""
    speed, loading = {}, {}
    for figure in record["sections"]["mixed"]["figures"]:
        told, median = figure["details"], figure["value"]["median"]
        if figure["unit"] == "s" and "flop" in told:
            speed[told["precision"], told["width"]] = 1e-12 * told["flop"] / median
            alone = told["products alone, FLOP/s"]["median"]
            speed[f"{told['precision']}, products alone", told["width"]] = 1e-12 * alone
    for figure in record["sections"]["loading"]["figures"]:
        network, _, what = figure["name"].partition(": share of the step that is loading, ")
        if what:
            loading[f"{what} memory", network] = 100 * figure["value"]["median"]
    return {"speed": speed, "loading": loading}


def drawn_of(plot: Plot) -> dict[tuple[str, Any], float]:
    """Read a plot's lines or bars back from matplotlib."""
    figure = Canvas()
    plot.draw(figure, LIGHT)
    (axes,) = figure.axes
    found: dict[tuple[str, Any], float] = {}
    labels = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
    for container in axes.containers:
        name = str(container.get_label())
        if isinstance(container, ErrorbarContainer) and name[:1] != "_":
            found |= {(name, int(x)): y for x, y in container.lines[0].get_xydata()}
        elif isinstance(container, BarContainer):
            heights = [bar.get_height() for bar in container]
            found |= {(name, label): height for label, height in zip(labels, heights, strict=True)}
    return found


def assert_plots_hold(record: dict[str, Any]) -> None:
    """The plots of a record show its figures and nothing else."""
    plots = {plot.key: plot for plot in card_plots(record)}
    wanted = plotted_by_hand(record)
    assert set(plots) == set(wanted)
    for key, plot in plots.items():
        assert wanted[key]
        assert drawn_of(plot) == pytest.approx(wanted[key], rel=1e-9)


def test_plots_hold_each_precisions_figures_and_their_pictures_are_linked(tmp_path: Path) -> None:
    with rounding.installed() as device:
        settings = Settings(device, quick=True, peers=False)
        parts = {"mixed": [*widths.widest_parts(settings), *widths.narrower_parts(settings)]}
        parts["loading"] = loading.parts(settings)
        sections = {
            name: {"figures": [f.to_json() for part in several for f in part.measure()], "failures": []}
            for name, several in parts.items()
        }
    record = json.loads(json.dumps({"machine": {"card": "Some card"}, "sections": sections}))
    assert len(plotted_by_hand(record)["speed"]) == 3 * 2 * 2
    assert_plots_hold(record)
    results, report = tmp_path / "results", load("report")
    results.mkdir()
    (tmp_path / "LEARNT.md").touch()
    (tmp_path / "RESULTS.md").touch()
    (results / "gpu-some.json").write_text(json.dumps(record))
    report.BENCH = tmp_path
    assert report.main(["--check"]) == 1
    assert report.main([]) == 0
    page = (tmp_path / "RESULTS.md").read_text()
    for key in ("speed", "loading"):
        picture = results / f"gpu-some-{key}.svg"
        assert f"](results/{picture.name})" in page
        assert "Some card" in ElementTree.parse(picture).findtext("{http://www.w3.org/2000/svg}title", "")
    assert report.main(["--check"]) == 0
    picture.unlink()
    assert report.main(["--check"]) == 1


def test_a_record_without_those_figures_has_no_plots() -> None:
    section = {"figures": [figure_line("a step")["figure"]], "failures": []}
    for measured in ({}, {"mixed": section, "loading": section}):
        record = {"machine": {"card": "Some card"}, "sections": measured}
        assert card_plots(record) == []
        assert not any("![" in part for part in card_parts("gpu-some.json", record))


def test_a_section_that_cannot_begin_is_a_failure_of_its_own(program: ModuleType) -> None:
    section = program.run_section("floors", ["--device", "tpu", "--quick"], 60.0)
    assert section["figures"] == []
    assert [failure["name"] for failure in section["failures"]] == ["floors"]
    assert "there is no such device" in section["failures"][0]["error"]


def test_parts_after_one_that_fails_are_measured_by_another_process(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"parts": ["first", "second", "third"]}
    first = figure_line("first")
    # The first process dies in the second part without a word, the next one has an error in the third.
    answers = iter(
        [
            ([parts, {"begin": 0}, first, {"end": 0}, {"begin": 1}], "its process ended with status -11"),
            ([parts, {"begin": 2}, {"failure": {"name": "third", "error": "no"}, "end": 2}], "status 3"),
        ]
    )
    asked = []

    def run_parts(name: str, options: list[str], number: int, seconds: float, keep: Any) -> Any:
        asked.append(number)
        return next(answers)

    monkeypatch.setattr(program, "run_parts", run_parts)
    section = program.run_section("floors", [], 60.0)
    assert asked == [0, 2]
    assert [figure["name"] for figure in section["figures"]] == ["first"]
    assert [failure["name"] for failure in section["failures"]] == ["second", "third"]
    assert "-11" in section["failures"][0]["error"]


def figure_line(name: str) -> dict[str, Any]:
    return {"figure": Figure(name, "s", Spread(1.0, 1.0, 1.0, 1)).to_json()}


def test_a_part_that_fails_is_told_and_ends_the_process_with_its_own_status() -> None:
    def broken() -> Any:
        yield Figure("before", "s", Spread(1.0, 1.0, 1.0, 1))
        raise ValueError("in the middle")

    lines: list[dict[str, Any]] = []
    parts = [Part("well", lambda: [Failure("peer", "absent")]), Part("broken", broken), Part("never", broken)]
    status = sections._run(parts, 0, lambda **line: lines.append(line))
    assert status == 3
    assert [line.get("begin") for line in lines if "begin" in line] == [0, 1]
    assert lines[1] == {"failure": {"name": "peer", "error": "absent"}}
    assert lines[4]["figure"]["name"] == "before"
    assert lines[5]["failure"]["name"] == "broken"
    assert "in the middle" in lines[5]["failure"]["error"]


def test_a_command_that_takes_too_long_is_ended_with_its_children(
    program: ModuleType, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    # The child would leave its mark after the parent's end.
    status, output = program.run_command(["sh", "-c", f"(sleep 2; touch {mark}) & echo begun; wait"], 0.5)
    assert status is None
    assert output == "begun\n"
    time.sleep(2.5)
    assert not mark.exists()


def test_figures_are_in_the_record_before_their_section_is_done(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_BENCH_OUT", str(tmp_path))
    monkeypatch.setattr(program, "machine", lambda options: {"card": "NVIDIA H200"})
    monkeypatch.setattr(program, "WATCH", 0.01)
    path, seen = tmp_path / "gpu-h200.json", []

    def run_command(command: list[str], seconds: float, look: Any) -> tuple[int | None, str]:
        out = Path(command[command.index("--out") + 1])
        first = [{"parts": ["a", "b"]}, {"begin": 0}, figure_line("first"), {"end": 0}, {"begin": 1}]
        # Of the last line only a half was written when the process was ended.
        out.write_text("".join(f"{json.dumps(line)}\n" for line in first) + '{"figure": {"na')
        look()
        seen.append(json.loads(path.read_text())["sections"]["floors"])
        return None, "compiling"

    monkeypatch.setattr(program, "run_command", run_command)
    assert program.main(["run", "floors", "--minutes", "1"]) == 1
    for section, failed in ((seen[0], "floors"), (json.loads(path.read_text())["sections"]["floors"], "b")):
        assert [figure["name"] for figure in section["figures"]] == ["first"]
        assert [failure["name"] for failure in section["failures"]] == [failed]
    assert "not finished" in seen[0]["failures"][0]["error"]


def test_later_runs_keep_the_sections_they_do_not_measure(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNKIT_BENCH_OUT", str(tmp_path))
    monkeypatch.setattr(program, "machine", lambda options: {"card": "NVIDIA H200"})
    failing = {"seconds": 1.0, "figures": [], "failures": [{"name": "peer", "error": "absent"}]}
    well = {"seconds": 1.0, "figures": [], "failures": []}
    given = argparse.Namespace(device="cuda", quick=False)
    monkeypatch.setattr(program, "measure", lambda *given: iter([("step", dict(failing))]))
    assert program.run(given) == 1
    monkeypatch.setattr(program, "measure", lambda *given: iter([("floors", dict(well))]))
    assert program.run(given) == 0
    record = json.loads((tmp_path / "gpu-h200.json").read_text())
    assert list(record["sections"]) == ["floors", "step"]
    assert "absent" in capsys.readouterr().out


def test_the_sections_share_the_time_and_the_last_one_has_what_is_left(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}

    def run_section(name: str, options: list[str], seconds: float, keep: Any) -> dict[str, Any]:
        given[name] = seconds
        return {"seconds": 0.0, "figures": [], "failures": []}

    monkeypatch.setattr(program, "run_section", run_section)
    parsed = program.arguments(["run", "step", "floors", "--minutes", "9"])
    assert [name for name, _ in program.measure(parsed)] == ["floors", "step"]
    assert given["floors"] == program.LIMITS["floors"]
    assert 539 < given["step"] <= 540
    monkeypatch.setitem(program.LIMITS, "floors", 1000.0)
    # What went before the sections counts too.
    parsed = program.arguments(["run", "floors", "--minutes", "9"])
    assert "no time was left" in dict(program.measure(parsed, spent=535.0))["floors"]["failures"][0]["error"]
    parsed = program.arguments(["run", "floors", "--minutes", "0.1"])
    section = dict(program.measure(parsed))["floors"]
    assert "no time was left" in section["failures"][0]["error"]


def test_the_table_shows_figures_spreads_aims_and_failures() -> None:
    spread = Spread(2.5e-5, 2.4e-5, 0.000027, 15)
    figures = [
        Figure("a step", "s", spread, Aim("<=", 25e-6)),
        Figure("copy", "B/s", Spread(4.31e12, 4.3e12, 4.32e12, 15)),
        Figure("speed", "", Spread(4.9, 4.8, 5.1, 15), Aim(">=", 5.0)),
        Figure("accuracy", "%", Spread(0.9844, 0.9844, 0.9844, 1), Aim(">=", 0.98)),
        Figure("apart", "", Spread(3.4e-7, 3.4e-7, 3.4e-7, 1), Aim("<=", 1e-4)),
    ]
    failures = [{"name": "JAX", "error": "Traceback\nModuleNotFoundError: No module named 'jax'"}]
    record = {"step": {"figures": [figure.to_json() for figure in figures], "failures": failures}}
    assert table(json.loads(json.dumps(record))).splitlines() == [
        "| section | figure | median (10 % to 90 %) | aim | reached |",
        "| --- | --- | --- | --- | --- |",
        "| step | a step | 25.0 (24.0 to 27.0) µs | ≤ 25.0 µs | yes |",
        "| step | copy | 4.31 (4.30 to 4.32) TB/s |  |  |",
        "| step | speed | 4.90 (4.80 to 5.10) | ≥ 5.00 | no |",
        "| step | accuracy | 98.4 % | ≥ 98.0 % | yes |",
        "| step | apart | 3.4e-07 | ≤ 0.0001 | yes |",
        "| step | JAX | failed: ModuleNotFoundError: No module named 'jax' |  | failed |",
    ]


def test_the_table_of_several_records_takes_the_later_sections(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        line = figure_line(f"figure {number}")["figure"]
        record = {"sections": {"floors": {"figures": [line], "failures": []}}}
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    assert program.main(["table", str(tmp_path / "1.json"), str(tmp_path / "2.json")]) == 0
    shown = capsys.readouterr().out
    assert "figure 2" in shown
    assert "figure 1" not in shown


def test_a_figure_that_is_no_number_misses_its_aim() -> None:
    missing = Spread(math.nan, math.nan, math.nan, 1)
    assert not Figure("x", "", missing, Aim("<=", 1.0)).reached
    assert not Figure("x", "", missing, Aim(">=", 1.0)).reached
