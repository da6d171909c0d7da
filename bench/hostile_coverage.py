"""Let a coverage-guided fuzzer alter files: `python bench/hostile_coverage.py [--runs 100000] [READER ...]`.

atheris (`pip install atheris`, no dependency of nnkit) keeps an input where it reaches a branch of nnkit that
none before it did, and alters it further. It begins with inputs of tests/hostile, and asks of each what
bench/hostile.py asks, but for what is said, written or begun elsewhere; it joins that record as
"coverage-guided". A reader takes so many runs, or so many seconds where they are over first; what is found
goes into the folder of that program's findings.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

# What parses the bytes of these is Python, whose branches atheris sees; Arrow and safetensors are compiled.
READERS = ("model", "tensorfile", "idx", "npy", "npz", "csv", "toml", "history")
SEALED = ("model", "tensorfile")  # their SHA-256 is made right, which no fuzzer guesses
SEEDS = 300
LARGEST = 4096  # bytes of an input: a small one is altered in a place that matters more often
PACKAGES = ("nnkit-train", "numpy", "pyarrow", "safetensors", "atheris")
_PROGRESS = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)")


def load_campaign() -> ModuleType:
    """Return bench/hostile.py, whose name is taken by the package of the tests."""
    spec = importlib.util.spec_from_file_location("campaign", ROOT / "bench" / "hostile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


campaign = load_campaign()


# --- the worker ---


def work(name: str, runs: int, seconds: int, folder: Path) -> None:
    """Fuzz one reader; the state and the findings are written as it goes, for the fuzzer does not return."""
    import atheris

    # What Numba compiles has to stay as it was written.
    with atheris.instrument_imports(include=["nnkit"], exclude=["nnkit.kernels"]):
        from hostile.readers import READERS as readers
    from hostile.tensor_files import sealed

    campaign.isolate()
    reader, state = readers[name], campaign.Watched(folder / "state")
    inputs, seeds = folder / "inputs", folder / "seeds"
    inputs.mkdir()
    seeds.mkdir()
    for index in range(SEEDS):
        data = reader.input(-2, index)
        if len(data) <= LARGEST:
            (seeds / str(index)).write_bytes(data)
    campaign.warm_up(reader, inputs)
    campaign.limit_memory()
    warnings.simplefilter("error")

    def feed(data: bytes) -> None:
        data = sealed(data) if name in SEALED else data
        if reader.split:
            data = data.rjust(4, b"\0")  # the length that parts two files comes first
        count, results, errors = state.get()
        state.set(count + 1, results, errors)
        found, failed = campaign.attempt(reader, data, inputs)
        state.set(count + 1, results + (not found and not failed), errors + failed)
        for kind in found:
            kept = folder / "findings" / re.sub(r"\W+", "-", kind)[:80]
            if not kept.exists():
                kept.write_bytes(data)

    (folder / "findings").mkdir()
    options = {
        "runs": runs,
        "max_total_time": seconds,
        "max_len": LARGEST,
        "timeout": 20,
        "rss_limit_mb": 1500,
        "seed": 1,
        "artifact_prefix": f"{folder / 'findings'}/",
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(seeds)], feed)
    atheris.Fuzz()


# --- the watch ---


def fuzz(name: str, runs: int, seconds: int, findings: Path) -> dict[str, Any]:
    """Fuzz one reader in a process of its own; return what came of it."""
    began = time.perf_counter()
    home = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=home, prefix="nnkit-coverage-") as scratch:
        folder = Path(scratch)
        state = campaign.Watched(folder / "state", index=0)
        command = [sys.executable, __file__, "--worker", str(folder), "--runs", str(runs)]
        with (folder / "log").open("wb") as log:
            ended = subprocess.run(
                [*command, "--seconds", str(seconds), name], env=campaign.one_thread(), stderr=log
            ).returncode
        executions, results, errors = state.get()
        said = (folder / "log").read_text(errors="replace")
        progress = _PROGRESS.findall(said)
        if not progress:
            raise SystemExit(f"{name}: the fuzzer did not begin:\n{said[-2000:]}")
        kept = sorted((folder / "findings").iterdir())
        for path in kept:
            findings.mkdir(parents=True, exist_ok=True)
            (findings / f"{name}-coverage-{path.name}").write_bytes(path.read_bytes())
    found = [path.name for path in kept] + ([f"ended with status {ended}"] if ended else [])
    return {
        "executions": executions,
        "results": results,
        "nnkit_errors": errors,
        "findings": found,
        "branches": {"of the seeds": int(progress[0][0]), "at the end": int(progress[-1][0])},
        "inputs_kept": int(progress[-1][1]),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run the readers that are named, or all, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"any of {', '.join(READERS)}")
    parser.add_argument("--runs", type=int, default=100_000, help="executions for each reader")
    parser.add_argument("--seconds", type=int, default=600, help="the most that a reader may take")
    parser.add_argument("--findings", type=Path, default=campaign.FINDINGS)
    parser.add_argument("--record", type=Path, default=campaign.RECORD, help="the file to write")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.readers) - set(READERS):
        parser.error(f"no reader {', '.join(sorted(unknown))}; there are {', '.join(READERS)}")
    if options.worker:
        work(options.readers[0], options.runs, options.seconds, options.worker)
        return
    failed = False
    for name in options.readers or READERS:
        outcome = fuzz(name, options.runs, options.seconds, options.findings)
        record = json.loads(options.record.read_text()) if options.record.exists() else {}
        versions = {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        }
        record.setdefault("coverage-guided", {})[name] = {**outcome, "versions": versions}
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(json.dumps(record, indent=2) + "\n")
        print(f"{name}: {json.dumps(outcome)}", flush=True)
        failed = failed or bool(outcome["findings"])
    if failed:
        sys.exit(f"there are findings; their inputs lie in {options.findings}")


if __name__ == "__main__":
    main()
