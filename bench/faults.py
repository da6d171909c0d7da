"""Disturb trainings in every known way, and see that nothing is lost: `python bench/faults.py [SECTION ...]`.

Each section is seeded, and merged into bench/results/faults.json as it ends; FAULTS.md tells what was seen.
Without a name all run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Before NumPy is loaded: a process that is forked must have one thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from faults import changing, files, measures, signals, surroundings
from faults.trainings import Record, Workshop

RESULTS = Path(__file__).resolve().parent / "results" / "faults.json"

Section = Callable[[Workshop, int, random.Random], Record]
SECTIONS: dict[str, tuple[Section, int]] = {
    "kill": (signals.kill, 200),
    "terminate": (signals.terminate, 100),
    "disk": (files.disk, 50),
    "altered": (files.altered, 20),
    "other": (surroundings.other, 1),
    "memory": (surroundings.memory, 1),
    "changing": (changing.changing, 100),
    "soak": (measures.soak, 1_000_000),
    "cost": (measures.cost, 5),
}


def run(name: str, count: int | None, seed: int, workshop: Workshop) -> bool:
    """Run a section, write what it saw, and return whether all was as it should be."""
    section, usual = SECTIONS[name]
    count = usual if count is None else count
    began = time.perf_counter()
    record = section(workshop, count, random.Random(f"{name} {seed}"))
    entry = {"asked for": count, "seed": seed, "seconds": round(time.perf_counter() - began, 1)}
    _merge(name, {**entry, **record.to_json()})
    print(f"{name}: {record.counts}, {len(record.deviations)} deviations", flush=True)
    return not record.deviations


def _merge(name: str, entry: dict[str, object]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault("sections", {})[name] = entry
    results["machine"] = _machine()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def _machine() -> dict[str, str]:
    """Describe the machine in a process of its own: it loads libraries that start threads."""
    code = "import json; from nnkit.machine import describe_machine; print(json.dumps(describe_machine()))"
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def main() -> None:
    """Parse, run the sections in order, and exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument(
        "--count", type=int, help="trainings to disturb, steps of the soak, or turns; else the usual"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        workshop = Workshop(Path(folder))
        workshop.measure()
        times = {
            case.name: (case.seconds, case.started_seconds, case.write_seconds) for case in workshop.cases
        }
        print(f"undisturbed, from the shell, a checkpoint: {times}", flush=True)
        whole = [
            run(name, options.count, options.seed, workshop) for name in options.sections or list(SECTIONS)
        ]
    sys.exit(0 if all(whole) else 1)


if __name__ == "__main__":
    main()
