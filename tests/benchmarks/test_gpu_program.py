"""`bench/gpu.sh` dry-run on the CPU: its sections, its record, its table, and what it does if things fail."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure as Canvas
from simulated import rounding

from nnkit.backends.operations import Copy
from nnkit.benchmarks.figures import Aim, Failure, Figure, Part, table
from nnkit.benchmarks.gpu import __main__ as sections
from nnkit.benchmarks.gpu import card_tests, loading, mixed, widths
from nnkit.benchmarks.gpu.commands import run_command
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
def test_a_dry_run_measures_every_section_and_prints_the_table_last(
    program: ModuleType, tmp_path: Path
) -> None:
    names = [name for name in program.LIMITS if name != program.TESTS]
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
    assert all(
        figure.reached for figure in figures if figure.name.startswith(("product, ", "ReLU by ", "20 steps"))
    )
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
            details = by_name[f"four hidden layers of {width}, batch 16, {name}"].details
            assert (details["width"], details["precision"]) == (width, name)
            assert details["products alone, FLOP/s"]["median"] > 0
    assert by_name["logits beyond float16: greatest before training"].reached
    assert by_name["logits beyond float16: last loss over the first"].reached
    assert by_name["overflow: updates skipped in 10 epochs"].value.median == 10
    assert by_name["overflow: last epoch's loss over the first's"].reached


def plotted_by_hand(record: dict[str, Any]) -> dict[str, dict[tuple[str, Any], float]]:
    """Return what each plot of a record has to show, by series and place."""
    speed, loading = {}, {}
    for figure in record["sections"]["mixed"]["figures"]:
        details, median = figure["details"], figure["value"]["median"]
        if figure["unit"] == "s" and "flop" in details:
            speed[details["precision"], details["width"]] = 1e-12 * details["flop"] / median
            alone = details["products alone, FLOP/s"]["median"]
            speed[f"{details['precision']}, products alone", details["width"]] = 1e-12 * alone
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
    drawn: dict[tuple[str, Any], float] = {}
    labels = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
    for container in axes.containers:
        name = str(container.get_label())
        if isinstance(container, ErrorbarContainer) and name[:1] != "_":
            drawn |= {(name, int(x)): y for x, y in container.lines[0].get_xydata()}
        elif isinstance(container, BarContainer):
            heights = [bar.get_height() for bar in container]
            drawn |= {(name, label): height for label, height in zip(labels, heights, strict=True)}
    return drawn


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


@pytest.mark.parametrize("named", [True, False])
def test_compiled_kernels_are_kept_in_the_checkout_unless_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\nenv\n")
    stub.chmod(0o755)
    for name in ("NNKIT_CACHE", "CUPY_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHON", str(stub))
    folder = tmp_path if named else ROOT / "build" / "gpu" / "cache"
    if named:
        monkeypatch.setenv("NNKIT_CACHE", str(folder))
    command = ["bash", str(ROOT / "bench" / "gpu.sh")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {f"NNKIT_CACHE={folder}", f"CUPY_CACHE_DIR={folder / 'cupy'}"} <= set(shown)


def test_a_section_that_cannot_begin_is_a_failure_of_its_own(program: ModuleType) -> None:
    section = program.run_section("floors", ["--device", "tpu", "--quick"], 60.0)
    assert section["figures"] == []
    assert [failure["name"] for failure in section["failures"]] == ["floors"]
    assert "there is no such device" in section["failures"][0]["error"]


@pytest.mark.parametrize("usable", [True, False])
def test_parts_after_one_that_ends_the_process_are_measured_by_another_if_the_device_is_usable(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    parts = {"parts": ["first", "second", "third"]}
    first = figure_line("first")
    # The first process dies in the second part without a word, the next one has an error in the third.
    answers = iter(
        [
            ([parts, {"begin": 0}, first, {"end": 0}, {"begin": 1}], "its process ended with status -11"),
            ([], "" if usable else "cudaErrorNoDevice"),
            ([parts, {"begin": 2}, {"failure": {"name": "third", "error": "no"}, "end": 2}], "status 3"),
        ]
    )
    asked = []

    def run_parts(name: str, options: list[str], number: int, seconds: float, keep: Any = None) -> Any:
        asked.append((name, number))
        return next(answers)

    monkeypatch.setattr(program, "run_parts", run_parts)
    section = program.run_section("floors", [], 60.0)
    assert asked == [("floors", 0), ("probe", 0), ("floors", 2)][: 3 if usable else 2]
    assert [figure["name"] for figure in section["figures"]] == ["first"]
    last = "third" if usable else "the device is unusable for a new process too"
    assert [failure["name"] for failure in section["failures"]] == ["second", last]
    assert "-11" in section["failures"][0]["error"]
    assert section["ended"] == (["first", "third"] if usable else ["first"])
    assert ("lost" in section) != usable
    assert bool(program.why_stop("floors", section, go_on=True)) != usable


@pytest.mark.parametrize(("ended", "stops"), [(-1, True), (0, True), (1, True), (2, False)])
def test_a_smoke_test_that_is_slow_stops_the_run_only_without_what_everything_needs(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, ended: int, stops: bool
) -> None:
    names = [program.PRODUCTS, "kernels", program.CAPTURE, "corners of ReLU", "20 steps"]
    lines: list[dict[str, Any]] = [{"parts": names}] if ended >= 0 else []
    lines += [line for number in range(ended + 1) for line in ({"begin": number}, {"end": number})]
    lines += [{"begin": ended + 1}] if ended >= 0 else []

    def run_parts(name: str, *given: Any) -> tuple[list[dict[str, Any]], str]:
        time.sleep(0.2)
        return ([], "") if name == "probe" else (lines, "ended after 1 s")

    monkeypatch.setattr(program, "run_parts", run_parts)
    section = program.run_section("smoke", [], 1.1)
    assert section["ended"] == names[: ended + 1]
    assert "smoke" in [failure["name"] for failure in section["failures"]]
    assert ("smoke" in program.why_stop("smoke", section, go_on=False)) == stops
    assert program.why_stop("smoke", section, go_on=True) == ""


def test_a_part_is_ended_when_it_has_had_its_seconds(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def run_command(command: list[str], seconds: float, look: Any) -> tuple[int | None, str]:
        out = Path(command[command.index("--out") + 1])
        lines = [{"parts": ["a", "b"], "seconds": [0.05, math.inf]}, {"begin": 0}]
        for more in ([], [figure_line("early")], [{"end": 0}, {"begin": 1}]):
            lines += more
            out.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            looks.append(look())
            time.sleep(0.1)
        return None, ""

    monkeypatch.setattr(program, "run_command", run_command)
    lines, ending = program.run_parts("floors", [], 0, 60.0)
    # The second part, with as long as it likes, is not ended for the first one's sake.
    assert looks == [False, True, False]
    assert len(lines) == 5
    assert "ended after" in ending


def figure_line(name: str) -> dict[str, Any]:
    return {"figure": Figure(name, "s", Spread(1.0, 1.0, 1.0, 1)).to_json()}


def gone() -> None:
    raise RuntimeError("an illegal memory access was encountered")


@pytest.mark.parametrize(("probe", "status"), [(lambda: None, 0), (gone, 3)])
def test_a_process_ends_after_a_part_that_fails_only_if_the_device_is_unusable_then(
    probe: Any, status: int
) -> None:
    def broken() -> Any:
        yield Figure("before", "s", Spread(1.0, 1.0, 1.0, 1))
        raise ValueError("in the middle")

    lines: list[dict[str, Any]] = []
    parts = [
        Part("well", lambda: [Failure("peer", "absent")]),
        Part("broken", broken),
        Part("last", lambda: []),
    ]
    assert sections._run(parts, 0, lambda **line: lines.append(line), probe) == status
    assert [line["begin"] for line in lines if "begin" in line] == ([0, 1] if status else [0, 1, 2])
    assert lines[1] == {"failure": {"name": "peer", "error": "absent"}}
    assert lines[4]["figure"]["name"] == "before"
    assert lines[5]["failure"]["name"] == "broken"
    assert "in the middle" in lines[5]["failure"]["error"]


def test_the_probe_runs_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    sections._probe("cpu")
    monkeypatch.setattr(sections, "tiny_kernel", lambda numbers: Copy(numbers, numbers))
    with pytest.raises(RuntimeError, match="negative"):
        sections._probe("cpu")


def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    # The child would leave its mark after the parent's end.
    status, output = run_command(["sh", "-c", f"(sleep 2; touch {mark}) & echo begun; wait"], 0.5)
    assert status is None
    assert output == "begun\n"
    time.sleep(2.5)
    assert not mark.exists()


def test_figures_are_in_the_record_before_their_section_is_done(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_BENCH_OUT", str(tmp_path))
    monkeypatch.setattr(program, "machine", lambda options: {"card": "NVIDIA H200"})
    path, seen = tmp_path / "gpu-h200.json", []

    def run_command(command: list[str], seconds: float, look: Any) -> tuple[int | None, str]:
        if "probe" in command:
            return 1, "no device"
        out = Path(command[command.index("--out") + 1])
        first = [
            {"parts": ["a", "b"], "seconds": [9, 9]},
            {"begin": 0},
            figure_line("first"),
            {"end": 0},
            {"begin": 1},
        ]
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
    given = program.arguments(["run", "step"])
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


def test_records_of_several_calls_become_one_of_which_later_sections_count(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNKIT_BENCH_OUT", str(tmp_path / "results"))
    for number, (card, name) in enumerate(
        [("NVIDIA H200", "step"), ("NVIDIA H200", "floors"), ("cpu", "floors")]
    ):
        measured = {name: {"figures": [figure_line(f"figure {number}")["figure"]], "failures": []}}
        if number == 1:
            measured["step"] = {"figures": [figure_line("step again")["figure"]], "failures": []}
        record = {"machine": {"card": card}, "quick": False, "sections": measured}
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    files = [str(tmp_path / f"{number}.json") for number in range(3)]
    assert program.main(["merge", *files[:2]]) == 0
    shown = capsys.readouterr().out
    assert "step again" in shown
    assert "figure 0" not in shown
    merged = json.loads((tmp_path / "results" / "gpu-h200.json").read_text())
    assert list(merged["sections"]) == ["floors", "step"]
    assert program.main(["merge", *files]) == 1
    assert "not records of one card: NVIDIA H200, cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "first", "last", "minutes"),
    [
        (["a"], "smoke", "kernels", 8),
        (["b"], "floor", "step", 7),
        (["c"], "mixed", "mixed", 5),
        (["d"], "mnist", "loading", 4),
        ([], "smoke", "loading", 24),
        (["step"], "step", "step", 8),
        (["d", "--minutes", "3"], "mnist", "loading", 3),
    ],
)
def test_four_calls_measure_everything_within_half_an_hour(
    program: ModuleType, given: list[str], first: str, last: str, minutes: float
) -> None:
    parsed = program.arguments(["run", *given])
    names = [name for name in program.LIMITS if name in parsed.sections]
    assert (names[0], names[-1], parsed.minutes) == (first, last, minutes)


def test_each_call_leaves_its_last_section_time_when_those_before_it_take_all_of_theirs(
    program: ModuleType,
) -> None:
    for names, minutes in program.CALLS.values():
        *others, _ = [name for name in program.LIMITS if name in names]
        assert 60 * minutes - sum(program.LIMITS[name] for name in others) >= 3 * program.LEAST
    assert sum(minutes for _, minutes in program.CALLS.values()) <= 24


def test_no_part_is_promised_more_time_than_its_section_has(program: ModuleType) -> None:
    settings = Settings("cpu", quick=True, peers=False)
    for name in sections.SECTIONS:
        for part in sections.parts_of(name, settings):
            assert part.seconds <= program.LIMITS[name] or part.seconds == math.inf, (name, part.name)


@pytest.mark.parametrize("go_on", [True, False])
@pytest.mark.parametrize("broken", ["cuBLASLt multiplies", "a step is captured", "smoke", "products, fp16"])
def test_a_run_ends_after_the_smoke_test_without_what_everything_needs(
    program: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: str,
    go_on: bool,
) -> None:
    monkeypatch.setenv("NNKIT_BENCH_OUT", str(tmp_path))
    monkeypatch.setattr(program, "machine", lambda options: {"card": "NVIDIA H200"})
    run = []

    def run_section(name: str, options: list[str], seconds: float, keep: Any) -> dict[str, Any]:
        run.append(name)
        failures = [{"name": broken, "error": "it is missing"}] if name == "smoke" else []
        return {"seconds": 1.0, "figures": [], "failures": failures, "ended": []}

    monkeypatch.setattr(program, "run_section", run_section)
    assert program.main(["run", "smoke", "floors", *(["--go-on"] if go_on else [])]) == 1
    stops = not go_on and broken != "products, fp16"
    assert run == (["smoke"] if stops else ["smoke", "floors"])
    shown = capsys.readouterr().out
    assert "it is missing" in shown
    assert (f"Stopped after smoke, failed: {broken}; --go-on" in shown) == stops


def test_missing_data_are_named_with_the_sections_that_want_them(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_BENCH_DATA", str(tmp_path))
    assert program.missing_data(["floors", "step"]) == ""
    assert "mnist (for mnist)" in program.missing_data(["floors", "mnist"])
    (tmp_path / "mnist").mkdir()
    assert program.missing_data(["mnist"]) == ""
    assert "california_housing.csv (for mixed)" in program.missing_data(["mixed"])


def test_a_packed_cache_keeps_the_times_by_which_numba_knows_its_files(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / name))
        if name == "first":
            source = tmp_path / name / "kernels" / "update.py"
            source.parent.mkdir(parents=True)
            source.write_text("x = 1")
            os.utime(source, ns=(1_764_500_000_123_456_789, 1_764_500_000_987_654_321))
            program.pack(tmp_path / "cache.tar.gz")
        else:
            program.unpack(tmp_path / "cache.tar.gz")
    copy = tmp_path / "second" / "kernels" / "update.py"
    assert copy.read_text() == "x = 1"
    # Numba compares the float.
    assert copy.stat().st_mtime == source.stat().st_mtime
    assert not list(tmp_path.glob("*.unfinished"))


def test_the_cache_is_packed_after_the_warm_section_and_unpacked_by_a_later_call(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_BENCH_OUT", str(tmp_path))
    monkeypatch.setattr(program, "machine", lambda options: {"card": "NVIDIA H200"})

    def run_section(name: str, options: list[str], seconds: float, keep: Any) -> dict[str, Any]:
        folder = Path(os.environ["NNKIT_CACHE"])
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
        return {"seconds": 1.0, "figures": [], "failures": []}

    monkeypatch.setattr(program, "run_section", run_section)
    options = ["--cache", str(tmp_path / "cache.tar.gz")]
    for folder, names in (("first", ["warm", "floors"]), ("second", ["step"])):
        monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / folder))
        assert program.main(["run", *names, *options]) == 0
    unpacked = {path.name for path in (tmp_path / "second").iterdir()}
    assert unpacked & {"warm", "floors", "step"} == {"warm", "step"}


# Written so that this file is not taken for one of a card's tests.
OUTCOMES = """
import time
import pytest
pytestmark = getattr(pytest.mark, "gpu")
@pytest.mark.parametrize("n", range(3))
def test_passes(n): pass
def test_fails(): assert 1 == 2
def test_skips(): pytest.skip("another card")
"""


@pytest.fixture
def tests_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs another project's tests, within some seconds, of the given texts."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: a card\n")
    monkeypatch.chdir(tmp_path)

    def run(seconds: float, *texts: str, on_gpu: bool = True) -> dict[str, Any]:
        names = [f"test_{number}.py" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            (tmp_path / name).write_text(text)
        return card_tests.run_tests(seconds, on_gpu, names)

    return run


OF_A_CPU = "def test_of_a_cpu(): pass"


def test_each_tests_outcome_is_in_the_record(tests_of, monkeypatch) -> None:
    monkeypatch.setattr(card_tests, "BATCH", 2)
    section = tests_of(120.0, OUTCOMES, OF_A_CPU)
    (figure,) = section["figures"]
    assert figure["value"]["median"] == 3
    assert figure["details"]["counts"] == {"passed": 3, "failure": 1, "skipped": 1}
    tests = {name.rpartition("::")[2]: outcome for name, (outcome, _) in figure["details"]["tests"].items()}
    passing = {f"test_passes[{n}]": "passed" for n in range(3)}
    assert tests == {**passing, "test_fails": "failure", "test_skips": "skipped"}
    assert all(seconds >= 0 for _, seconds in figure["details"]["tests"].values())
    (failure,) = section["failures"]
    assert failure["name"].endswith("test_fails")
    assert "assert 1 == 2" in failure["error"]


def test_tests_that_take_too_long_keep_the_outcomes_of_those_before(tests_of) -> None:
    endless = f"{OUTCOMES}\ndef test_takes_long(): time.sleep(600)\ndef test_never_runs(): pass\n"
    section = tests_of(20.0, endless)
    assert section["seconds"] < 30
    details = section["figures"][0]["details"]
    assert details["counts"] == {"passed": 3, "failure": 1, "skipped": 1}
    name = "test_0.py::test_takes_long and those after it, of 7"
    assert [failure["name"] for failure in section["failures"]] == ["test_0::test_fails", name]
    assert "ended after" in section["failures"][-1]["error"]


def test_no_test_on_a_card_is_a_failure(tests_of) -> None:
    assert [failure["name"] for failure in tests_of(60.0, OF_A_CPU)["failures"]] == ["pytest -m gpu"]
    assert tests_of(60.0, OF_A_CPU, on_gpu=False)["failures"] == []


def test_a_file_that_cannot_be_collected_is_a_failure_beside_the_others_outcomes(tests_of) -> None:
    section = tests_of(60.0, "import no_such_module", OUTCOMES)
    assert section["figures"][0]["value"]["median"] == 3
    assert [failure["name"].rpartition("::")[2] for failure in section["failures"]] == [
        "collecting the tests",
        "test_fails",
    ]
    assert "no_such_module" in section["failures"][0]["error"]


def test_the_tests_for_a_card_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    paths = card_tests.gpu_test_paths()
    assert {"tests/gpu/test_card.py", "tests/backends/test_contract.py", "tests/kernels"} <= set(paths)
    others = ("tests/test_cli.py", "tests/benchmarks/test_gpu_program.py", "tests/simulated/driver_checks.py")
    assert not set(others) & set(paths)
    # Files without the word, whose fixture has the mark.
    names = ("test_fused.py", "test_embedding_kernels.py", "test_loss_scale.py")
    collect = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--collect-only", "-p", "no:cacheprovider"]
    done = subprocess.run([*collect, "tests/kernels"], capture_output=True, text=True, check=True)
    collected = {line.partition("::")[0] for line in done.stdout.splitlines()}
    assert {f"tests/kernels/{name}" for name in names} <= collected


def test_a_figure_that_is_no_number_misses_its_aim() -> None:
    missing = Spread(math.nan, math.nan, math.nan, 1)
    assert not Figure("x", "", missing, Aim("<=", 1.0)).reached
    assert not Figure("x", "", missing, Aim(">=", 1.0)).reached
