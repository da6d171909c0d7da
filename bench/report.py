"""Write bench/RESULTS.md from bench/results/*.json and bench/LEARNT.md: `python bench/report.py [--check]`.

Every file holds one `nnkit.bench.records.Result`: its aims stand in the first table, the rest in a section.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nnkit.bench.records import FORMAT, Record, Result, load_result, markdown

BENCH = Path(__file__).resolve().parent
HOW = """
`python bench/report.py` writes this page from the files in [results](results), which `nnkit bench` and the
programs in this folder write. A figure is the median of its repeats, with their 10th and 90th percentile in
brackets. A ratio is of two things measured in turns.
"""
MACHINE = (
    ("processor", "processor"),
    ("  cores", "cores"),
    ("  BLAS", "BLAS"),
    ("  BLAS threads", "BLAS threads"),
    ("  BLAS core type", "BLAS core type"),
    ("python", "Python"),
    *((name, name) for name in ("numpy", "numba", "scikit-learn", "torch", "jax", "numba-cuda", "ptxas")),
    ("load before", "load before it began"),
)
"""What a section says of the machine: a key of `Result.machine`, and its name there."""
MANY = 8  # kept aims of a section, from which on they share a row


def generate(folder: Path) -> str:
    """Return RESULTS.md for a folder that holds results/ and LEARNT.md."""
    paths = sorted((folder / "results").glob("*.json"))
    ours = [path for path in paths if json.loads(path.read_text(encoding="utf-8")).get("format") == FORMAT]
    results = {path.name: load_result(path) for path in ours}
    parts = ["# Results", paragraph(HOW), *aims(results), *gpu_aims()]
    for name, result in results.items():
        parts += section(name, result)
    others = [f"- [results/{path.name}](results/{path.name})" for path in paths if path not in ours]
    parts += ["## Other files", "\n".join(others)] if others else []
    parts += ["## What was learned", (folder / "LEARNT.md").read_text(encoding="utf-8").strip()]
    return "\n\n".join(parts) + "\n"


def paragraph(text: str) -> str:
    """Return a text in lines that can be read, and compared, in an editor."""
    return textwrap.fill(" ".join(text.split()), 115, break_long_words=False, break_on_hyphens=False)


def aims(results: Mapping[str, Result]) -> Iterator[str]:
    """Yield a table of the aims; a section's kept ones share a row if they are many."""
    rows = ["| result | what | figure | median | aim | |", "| --- | --- | --- | --- | --- | --- |"]
    for result in results.values():
        for title, records in result.sections.items():
            aimed = [
                (record, name, figure, figure.aim)
                for record in records
                for name, figure in record.figures.items()
                if figure.aim is not None
            ]
            kept = sum(figure.reached is True for _, _, figure, _ in aimed)
            for record, name, figure, aim in aimed:
                verdict = "kept" if figure.reached else "**not kept**"
                shown = f"{name} | {figure} | {aim.describe(figure.unit)} | {verdict} |"
                if not figure.reached or kept < MANY:
                    rows.append(f"| {result.title} | {label(record)} | {shown}")
            if kept >= MANY:
                rows.append(f"| {result.title} | {title}: {kept} of {len(aimed)} figures | | | | kept |")
            names = {record.name for record, *_ in aimed}
            for record in records:
                if record.failed or (record.skipped and record.name in names):
                    reason = record.skipped.replace("|", "∣")
                    rows.append(f"| {result.title} | {label(record)} | {reason} | | | not measured |")
    yield "## Aims"
    yield "\n".join(rows)


def label(record: Record) -> str:
    """Return the record's name and parameters, and its device and precision unless they are cpu and fp32."""
    unusual = [one for one in (record.device, record.precision) if one not in ("cpu", "fp32")]
    return ", ".join([record.label, *unusual])


def gpu_aims() -> Iterator[str]:
    """Yield the aims that no card's result holds."""
    if (BENCH / "gpu" / "aims.py").exists():
        sys.path.insert(0, str(BENCH))
        from gpu.aims import unmeasured

        if table := unmeasured():
            yield "## On a GPU: not measured yet"
            yield "`bench/gpu.sh` measures it on a machine with a card; its first lines say how."
            yield table


def section(name: str, result: Result) -> Iterator[str]:
    """Yield a result: its command and machine, how to read it, a table for each section of its records."""
    machine = [f"{shown} {result.machine[key]}" for key, shown in MACHINE if key in result.machine]
    size = "" if result.size == "full" else f" in {result.size} sizes"
    by = f" by `{result.command}`" if result.command else ""
    yield f"## {result.title}"
    yield paragraph(
        f"[results/{name}](results/{name}), measured {result.measured} UTC{by}{size}. {'; '.join(machine)}."
    )
    if result.about:
        yield "\n\n".join(paragraph(part) for part in result.about.split("\n\n"))
    sections = result.sections
    for title, records in sections.items():
        if len(sections) > 1:
            yield f"### {title[:1].upper()}{title[1:]}"
        yield markdown(records)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or tell whether it is up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is old")
    path, wanted = BENCH / "RESULTS.md", generate(BENCH)
    if not parser.parse_args(arguments).check:
        path.write_text(wanted, encoding="utf-8")
        return 0
    same = path.read_text(encoding="utf-8") == wanted
    print("RESULTS.md is up to date" if same else "RESULTS.md is not up to date: run python bench/report.py")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
