"""`bench/gpu.sh` dry-run on the CPU: its sections, its result, and what it does if things fail."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpu import commands, program, smoke, training
from gpu.common import Part, Settings, failure, found, run_command
from simulated import rounding

from nnkit.bench.records import Record, Result, load_result, once, save_result

ROOT = Path(__file__).resolve().parents[3]
TINY = Settings("cpu", "tiny", peers=False)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a run on a card writes its result; the result is empty."""
    monkeypatch.setenv("NNKIT_BENCH_OUT", str(tmp_path))
    monkeypatch.setenv("NNKIT_BENCH_DATA", str(tmp_path))
    monkeypatch.setattr(program, "machine", lambda device: {"card": "NVIDIA H200"})
    path = tmp_path / "gpu-h200.json"
    save_result(Result("NVIDIA H200", "", {"card": "NVIDIA H200"}, "full", ""), path)
    return path


def step(section: str = "floors", name: str = "a step") -> Record:
    return Record(section, name, "cuda", figures={"step": once("s", 1.0)})


def pending(name: str, **left: int) -> Record:
    return failure(name, program.UNFINISHED, "floors", "cpu", pending=left)


@pytest.mark.slow
def test_a_dry_run_measures_every_section_and_prints_the_tables_last(tmp_path: Path) -> None:
    names = [name for name in program.SECTIONS if name != "tests"]
    command = ["bash", str(ROOT / "bench" / "gpu.sh"), *names, "--device", "cpu", "--quick", "--no-peers"]
    environment = {**os.environ, "NNKIT_BENCH_OUT": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = load_result(tmp_path / "gpu-cpu-quick.json")
    assert (result.title, result.size) == ("cpu", "tiny")
    assert list(result.sections) == names
    assert not any(record.failed for record in result.records)
    figures = [figure for record in result.records for figure in record.figures.values()]
    assert all(
        math.isfinite(figure.median) and figure.low <= figure.median <= figure.high for figure in figures
    )
    same = [*result.sections["smoke"], *result.sections["agreement"]]
    assert not [figure for record in same for figure in record.figures.values() if figure.reached is False]
    assert len(result.sections["kernels"]) == 23
    assert [line for line in done.stdout.splitlines() if line in names] == names


@pytest.mark.slow
def test_mixed_precision_is_measured_in_each_format() -> None:
    with rounding.installed() as device:
        parts = training.mixed_parts(Settings(device, "tiny", peers=False))
        # Others train in processes, which do not know the device.
        own = [part for part in parts if part.name.startswith(("four", "memory"))]
        assert [part.name for part in parts if part.name == "AMP"] == ["AMP"] * 3
        records = [record for part in own for record in part.measure()]
    wide = {(record.precision, record.parameters.get("width")): record for record in records}
    weights = [784 * 16, *[16 * 16] * 3, 16 * 10]
    forward = by_weights = 2 * 16 * sum(weights)
    by_inputs = 2 * 16 * sum(weights[1:])
    fp16 = wide["fp16", 16]
    assert fp16.details == {"flop": forward + by_weights + by_inputs, "skipped updates": 0}
    assert fp16.figures["of its products' rate"].aim is not None
    assert all("fp32 / this" in wide[half, width].figures for half in ("fp16", "bf16") for width in (16, 8))
    assert "of fp32's" in wide["bf16", None].figures


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


def test_a_section_that_cannot_begin_is_a_failure_of_its_own(path: Path) -> None:
    assert not program.run_section("floors", Settings("tpu", "tiny", seconds=60.0), path)
    (record,) = load_result(path).records
    assert record.failed
    assert record.name == program.WHOLE
    assert "there is no such device" in record.skipped


@pytest.mark.parametrize("usable", [True, False])
def test_parts_after_one_that_ends_the_process_are_measured_by_another_if_the_device_is_usable(
    path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    firsts = []

    def run_command(command: list[str], seconds: float) -> tuple[int, str]:
        firsts.append(int(command[-3]))
        before = [one for one in load_result(path).records if "pending" not in one.details]
        if firsts == [0]:  # it dies in the second part without a word
            last = pending("second", next=2, parts=3)
            program.change(path, "floors", [step(name="first"), last])
            return -11, "its process ended with status -11"
        if usable:
            program.change(path, "floors", [*before, step(name="third")])
        return 0 if usable else 1, "cudaErrorNoDevice"

    monkeypatch.setattr(program, "run_command", run_command)
    lost = program.run_section("floors", TINY, path)
    assert firsts == [0, 2]
    assert lost != usable
    first, second, last = load_result(path).records
    assert (first.name, second.name, second.skipped) == (
        "first",
        "second",
        "its process ended with status -11",
    )
    assert last.name == ("third" if usable else program.WHOLE)
    assert last.failed != usable


def test_a_part_is_ended_with_its_process_when_it_has_had_its_seconds(path: Path) -> None:
    code = (
        "import sys, time; sys.path.append(sys.argv[2])\nfrom pathlib import Path\n"
        "from gpu import program\nfrom gpu.common import Part, Settings, found\n"
        "well, endless = (lambda: [found('well', {})]), (lambda: time.sleep(60))\n"
        "parts = [Part('well', well, 9.0), Part('endless', endless, 0.2)]\n"
        "program.parts_of = lambda section, settings: parts\n"
        "program.measure('floors', Settings('cpu', 'tiny'), 0, Path(sys.argv[1]))\n"
    )
    program.change(path, "floors", [pending(program.WHOLE)])
    done = subprocess.run([sys.executable, "-c", code, str(path), str(ROOT / "bench")], check=False)
    assert done.returncode == -signal.SIGALRM
    well, endless = load_result(path).records
    assert (well.name, well.device) == ("well", "cpu")
    assert endless.failed
    assert endless.details["pending"] == {"next": 2, "parts": 2}


def gone(settings: Settings) -> None:
    raise RuntimeError("an illegal memory access was encountered")


@pytest.mark.parametrize("usable", [True, False])
def test_a_process_ends_after_a_part_that_fails_only_if_the_device_is_unusable_then(
    path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    def broken() -> Iterator[Record]:
        yield found("before", {})
        monkeypatch.setattr(program, "probe", (lambda settings: None) if usable else gone)
        raise ValueError("in the middle")

    parts = [
        Part("well", lambda: [failure("peer", "Traceback\nabsent")]),
        Part("broken", broken),
        Part("last", lambda: [found("last", {})]),
    ]
    monkeypatch.setattr(program, "parts_of", lambda section, settings: parts)
    program.change(path, "floors", [pending(program.WHOLE)])
    try:
        program.measure("floors", TINY, 0, path)
    except RuntimeError:
        assert not usable
        signal.setitimer(signal.ITIMER_REAL, 0)
    peer, before, after, last = load_result(path).records
    assert (peer.skipped, peer.failed, before.name) == ("absent", True, "before")
    assert (after.name, after.skipped) == ("broken", "ValueError: in the middle")
    assert last.name == ("last" if usable else "broken")
    assert ("pending" in last.details) != usable


def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    # The child would leave its mark after the parent's end.
    status, output = run_command(["sh", "-c", f"(sleep 2; touch {mark}) & echo begun; wait"], 0.5)
    assert status is None
    assert output.endswith("begun\n")
    time.sleep(2.5)
    assert not mark.exists()


def measured_by(monkeypatch: pytest.MonkeyPatch, *records: Record, lost: bool = False) -> dict[str, float]:
    """Let sections come to these records, the first one's without any; return each one's seconds."""
    seconds: dict[str, float] = {}

    def run_section(name: str, settings: Settings, path: Path) -> bool:
        seconds[name] = settings.seconds
        own = [record for record in records if record.section == name]
        program.change(path, name, own or [step(name)])
        return lost

    monkeypatch.setattr(program, "run_section", run_section)
    return seconds


def test_later_runs_keep_the_sections_they_do_not_measure(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured_by(monkeypatch, failure("peer", "absent", "step"))
    assert program.main(["run", "step"]) == 1
    assert "absent" in capsys.readouterr().out
    assert program.main(["run", "floors"]) == 0
    assert list(load_result(path).sections) == ["floors", "step"]


def test_the_sections_share_the_time_and_the_last_one_has_what_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = measured_by(monkeypatch)
    assert program.main(["run", "step", "floors", "--minutes", "9"]) == 0
    assert list(seconds) == ["floors", "step"]
    assert seconds["floors"] == program.SECTIONS["floors"][0]
    assert 539 < seconds["step"] <= 540
    assert program.main(["run", "kernels", "--minutes", "0.1"]) == 1
    assert "kernels" not in seconds
    assert "no time was left" in load_result(path).sections["kernels"][0].skipped


def test_results_of_several_calls_become_one_of_which_later_sections_count(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / f"{number}.json") for number in range(3)]
    held = [[step("step", "first")], [step("floors"), step("step", "again")], [step("floors")]]
    for number, card in enumerate(("NVIDIA H200", "NVIDIA H200", "cpu")):
        save_result(Result(card, "", {"card": card}, "full", "", "", held[number]), Path(files[number]))
    assert program.main(["merge", *files[:2]]) == 0
    assert "first" not in capsys.readouterr().out
    assert load_result(path).records == held[1]
    assert program.main(["merge", *files]) == 1
    assert "not results of one card: NVIDIA H200, cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "first", "last", "minutes"),
    [
        (["a"], "smoke", "kernels", 8),
        (["b"], "floor", "step", 7),
        (["c"], "mixed", "mixed", 5),
        (["d", "--minutes", "3"], "mnist", "loading", 3),
        ([], "smoke", "loading", 24),
        (["step"], "step", "step", 8),
    ],
)
def test_four_calls_measure_everything_within_half_an_hour(
    given: list[str], first: str, last: str, minutes: float
) -> None:
    parsed = program.arguments(["run", *given])
    names = [name for name in program.SECTIONS if name in parsed.sections]
    assert (names[0], names[-1], parsed.minutes) == (first, last, minutes)


def test_each_call_leaves_its_last_section_time_and_no_part_has_more_than_its_section() -> None:
    assert sorted(name for names, _ in program.CALLS.values() for name in names) == sorted(program.SECTIONS)
    for names, minutes in program.CALLS.values():
        *others, _ = [name for name in program.SECTIONS if name in names]
        limits = [program.SECTIONS[name][0] for name in others]
        assert 60 * minutes - sum(limits) >= 3 * program.LEAST
    for name, (limit, _) in program.SECTIONS.items():
        assert all(part.limit <= limit for part in program.parts_of(name, TINY)), name


@pytest.mark.parametrize("go_on", [True, False])
@pytest.mark.parametrize("broken", [smoke.PRODUCTS, smoke.CAPTURE, "products, fp16", "a lost device"])
def test_a_run_ends_after_the_smoke_test_without_what_everything_needs(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str, go_on: bool
) -> None:
    well = [step("smoke", name) for name in (smoke.PRODUCTS, smoke.CAPTURE)]
    lost = broken == "a lost device"
    seconds = measured_by(monkeypatch, *well, failure(broken, "it is missing", "smoke"), lost=lost)
    assert program.main(["run", "smoke", "floors", *(["--go-on"] if go_on else [])]) == 1
    stops = lost or (not go_on and broken in (smoke.PRODUCTS, smoke.CAPTURE))
    assert list(seconds) == (["smoke"] if stops else ["smoke", "floors"])
    shown = capsys.readouterr().out
    assert "it is missing" in shown
    assert ("Stopped after smoke, " in shown) == stops


def test_the_cache_is_packed_after_the_warm_section_with_the_times_by_which_numba_knows_its_files(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_section(name: str, settings: Settings, path: Path) -> bool:
        file = Path(os.environ["NNKIT_CACHE"]) / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, ns=(1_764_500_000_123_456_789, 1_764_500_000_987_654_321))
        program.change(path, name, [step(name)])
        return False

    monkeypatch.setattr(program, "run_section", run_section)
    for folder, names in (("first", ["warm", "floors"]), ("second", ["step"])):
        monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / folder))
        assert program.main(["run", *names, "--cache", str(tmp_path / "cache.tar.gz")]) == 0
    found = {path.name for path in (tmp_path / "second").iterdir()}
    assert found & {"warm.py", "floors.py", "step.py"} == {"warm.py", "step.py"}
    times = [(tmp_path / folder / "warm.py").stat().st_mtime for folder in ("first", "second")]
    assert times[0] == times[1]  # Numba compares the float
    assert not list(tmp_path.glob("*.unfinished"))


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
OF_A_CPU = "def test_of_a_cpu(): pass"


@pytest.fixture
def tests_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Record]]:
    """Return a function that runs another project's tests, within some seconds, of the given texts."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: a card\n")
    monkeypatch.chdir(tmp_path)

    def run(seconds: float, *texts: str, device: str = "cuda") -> list[Record]:
        names = [f"test_{number}.py" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            (tmp_path / name).write_text(text)
        return list(commands.run_tests(Settings(device, seconds=seconds), names))

    return run


def counts_of(record: Record) -> dict[str, float]:
    return {name: figure.median for name, figure in record.figures.items()}


def test_each_tests_outcome_is_in_the_record(tests_of: Callable[..., list[Record]]) -> None:
    failed, record = tests_of(120.0, OUTCOMES, OF_A_CPU)
    assert counts_of(record) == {"passed": 3, "skipped": 1, "failed": 1}
    tests = {name.rpartition("::")[2]: outcome for name, (outcome, _) in record.details["tests"].items()}
    passing = {f"test_passes[{n}]": "passed" for n in range(3)}
    assert tests == {**passing, "test_fails": "failure", "test_skips": "skipped"}
    assert failed.name.endswith("test_fails")
    assert "assert 1 == 2" in failed.details["error"]


def test_tests_that_take_too_long_keep_the_outcomes_of_those_before(tests_of: Any) -> None:
    endless = f"{OUTCOMES}\ndef test_takes_long(): time.sleep(600)\ndef test_runs_elsewhere(): pass\n"
    *failures, record = tests_of(45.0, endless)
    assert counts_of(record) == {"passed": 4, "skipped": 1, "failed": 1}
    assert [one.name for one in failures] == ["test_0::test_fails", "pytest -m gpu"]
    assert "ended before it was done" in failures[-1].details["error"]


def test_no_test_on_a_card_and_a_file_that_cannot_be_collected_are_failures(tests_of: Any) -> None:
    assert [one.name for one in tests_of(60.0, OF_A_CPU) if one.failed] == ["pytest -m gpu"]
    assert not any(one.failed for one in tests_of(60.0, OF_A_CPU, device="cpu"))
    failures = [one for one in tests_of(60.0, "import no_such_module", OUTCOMES) if one.failed]
    assert any("no_such_module" in one.details["error"] for one in failures)


def test_the_tests_for_a_card_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    paths = commands.gpu_test_paths()
    assert {"tests/gpu/test_card.py", "tests/backends/test_contract.py", "tests/kernels"} <= set(paths)
    others = ("tests/test_cli.py", "tests/bench/gpu/test_program.py", "tests/simulated/driver_checks.py")
    assert not set(others) & set(paths)
