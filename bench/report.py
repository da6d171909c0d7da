"""Write bench/RESULTS.md from bench/results/*.json and bench/LEARNT.md: `python bench/report.py [--check]`.

Beside a card's record it draws what the page shows of it.

What a file holds is told by its keys: a result of `nnkit bench`, the trainings of bench/record.py and
bench/shell.py, the estimators of bench/estimators.py, the embedding of bench/embedding.py, the messages of
bench/text.py, the pictures of bench/pictures.py, the card's of bench/gpu.sh, faults, hostile inputs, the
diagnosis of bench/diagnosis.py, reports in a browser, explanations, the simulated CUDA device, registers of
the CUDA kernels. Whatever else lies there is linked.
Order: the whole, its first paragraph, a function for each kind of file, the command.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.benchmarks.figures import Aim, text
from nnkit.benchmarks.gpu.page import card_parts, card_pictures
from nnkit.benchmarks.page import TITLES
from nnkit.benchmarks.records import FORMAT, Quantity, Record, measured
from nnkit.benchmarks.suite import Result, load_result
from nnkit.benchmarks.tables import Table, markdown, section_table
from nnkit.insight.drawing import write_plot

BENCH = Path(__file__).resolve().parent
Held = Mapping[str, Any]
_EAGER, _EPOCH, _SCIKIT_LEARN = "PyTorch eager", "JAX, an epoch a call", "scikit-learn"
# What the design asks of the suite's figures: section, the label's beginning, its network, figure, bound.
AIMS = (
    ("step", "784-512-512-10", "", "step / floor", Aim("<=", 1.15)),
    ("step", "20-64-64-1", "", "step", Aim("<=", 45e-6)),
    *(
        ("peers", peer, network, "step / nnkit's", Aim(">=", bound))
        for network, bounds in (
            ("784-512-512-10", (1.3, 2.5, 4.0)),
            ("784-128-10", (1.2, 4.0, 4.0)),
            ("20-64-64-1", (1.2, 10.0, 10.0)),
        )
        for peer, bound in zip((_EPOCH, _EAGER, _SCIKIT_LEARN), bounds, strict=True)
    ),
    ("predict", "latency", "784-512-512-10", "Model.predict over its products", Aim("<=", 30e-6)),
    ("predict", "latency", "784-512-512-10", "PyTorch eager / Model.predict", Aim(">=", 3.0)),
    ("growth", "", "", "growth in time / in arithmetic", Aim("<=", 1.1)),
    ("start", "import nnkit", "", "process", Aim("<=", 0.3)),
    ("start", "nnkit --help", "", "process", Aim("<=", 0.7)),
    ("start", "first step ever", "", "process", Aim("<=", 15.0)),
    ("start", "first step, kernels cached", "", "process", Aim("<=", 2.0)),
)
SHOWN = 6  # names in a sentence


def generate(folder: Path) -> str:
    """Return RESULTS.md for a folder that holds results/ and LEARNT.md."""
    paths = sorted((folder / "results").glob("*.json"))
    kinds = {path: kind_of(json.loads(path.read_text(encoding="utf-8"))) for path in paths}
    suites = {path: load_result(path) for path, kind in kinds.items() if kind == "suite"}
    races = [json.loads(path.read_text(encoding="utf-8")) for path, kind in kinds.items() if kind == "shell"]
    parts = ["# Results", paragraph(first_paragraph(suites, set(kinds.values()), races))]
    parts += [paragraph(HOW), aims(suites)]
    for path, result in suites.items():
        parts += list(suite(path, result))
    for kind, describe in KINDS.items():
        for path in (path for path in paths if kinds[path] == kind):
            parts += list(describe(path.name, json.loads(path.read_text(encoding="utf-8"))))
    if "card" not in kinds.values():
        parts.append(UNMEASURED.strip())
    parts += ["## What was learnt", (folder / "LEARNT.md").read_text(encoding="utf-8").strip()]
    parts += list(others([path.name for path, kind in kinds.items() if kind == "other"]))
    return "\n\n".join(part for part in parts if part) + "\n"


HOW = """
This page is written by `python bench/report.py`; its figures come from the files in [results](results),
which `nnkit bench` and the programs in this folder write. A figure is the median of its repeats, with their
10th and 90th percentile in brackets; of figures taken in several processes, the least and the greatest
process. A ratio is of two things measured in turns. What could not be measured says why.
"""


UNMEASURED = """
## On a GPU: not yet measured

`bench/gpu.sh a`, then `b`, `c` and `d`, on a machine with a card; its first lines say how. A bare checkout
and half an hour will do. `python bench/gpu.py merge` and `python bench/report.py` then put the record here.

| call | what | aim |
| --- | --- | --- |
| a | smoke: cuBLASLt's products by type, epilogue and shape, against float64 | within rounding |
| a | smoke: captured against uncaptured steps; ReLU at 0, NaN and ±∞ against the formula | equal |
| a | the tests marked `gpu`, each with its outcome and its seconds | all pass |
| a | kernels that move 64 MB or more and draw nothing, of a copy's rate (softmax will miss) | ≥ 80 % |
| b | step over its products alone, from width 1024 | ≤ 1.25 |
| b | losses of 100 steps, CPU against GPU | within 1e-4 |
| b | 100 steps twice on the GPU, and captured against uncaptured | no bit differs |
| b | step of 20-64-64-1 | ≤ 25 µs |
| b | fp32 784-512-512-10, speed against PyTorch eager | ≥ 5 |
| b | the same against the faster of `torch.compile` and JAX | ≥ 1 |
| c | fp16, width 8192, of the measured product rate | ≥ 70 % |
| c | the same against PyTorch AMP, compiled | ≥ 1 |
| d | MNIST from the prompt, kernels cached, to 98 % on the test set | ≤ 5 s |
| d | streaming over the slower of transfer and compute | ≤ 1.1 |
"""


def paragraph(text: str) -> str:
    """Return a text in lines that can be read, and compared, in an editor."""
    return textwrap.fill(" ".join(text.split()), 115, break_long_words=False, break_on_hyphens=False)


def kind_of(value: Held) -> str:
    """Tell what a file holds by its keys."""
    if value.get("format") == FORMAT:
        return "suite"
    if "train" in value:
        return "trainings"
    if "card" in value.get("machine", {}):
        return "card"
    if "splits" in value:
        return "texts"
    if "sections" in value:
        return "faults"
    if "from the shell" in value:
        return "shell"
    if "vocabularies" in value:
        return "embedding"
    if "completeness" in value:
        return "explanations"
    if "pages" in value:
        return "browser"
    if "ptxas" in value.get("machine", {}):
        return "registers"
    if "simulated" in value:
        return "simulated"
    if "sound" in value or "mistakes" in value:
        return "diagnosis"
    records = [record for record in value.values() if isinstance(record, dict)]
    if any("inputs" in record and "findings" in record for record in records):
        return "hostile"
    if "pictures decoded a second" in value:
        return "pictures"
    return "estimators" if any("fit" in record for record in records) else "other"


def first_paragraph(suites: Mapping[Path, Result], kinds: set[str], races: Sequence[Held] = ()) -> str:
    """Say where nnkit stands, and where it loses."""
    results = list(suites.values())
    said = [[sentence for result in results for sentence in say(result)] for say in (steps, peers, losing)]
    sentences = [*said[0], *said[1], *map(raced, races)]
    if said[2]:
        sentences.append(f"Where it loses: {'; '.join(said[2])}.")
    if not sentences:
        sentences.append("Nothing has been measured by the suite yet.")
    if "card" not in kinds and not any(r.device != "cpu" for s in suites.values() for r in s.records):
        sentences.append(
            "Nothing here comes from a GPU: the CUDA backend has not run on one yet, and `bench/gpu.sh` is "
            "the command that will measure it."
        )
    return " ".join(sentences)


def steps(result: Result) -> Iterator[str]:
    """Say how far a step is from its floor."""
    found = [r for r in result.section("step") if "step / floor" in r.ratios and "processes" in r.name]
    said = [
        f"{record.figures['step']} for {record.name.split()[0]} at batch {record.parameters['batch']}, "
        f"{record.ratios['step / floor']} times its own matrix products alone"
        for record in found
    ]
    if said:
        threads = result.machine.get("  BLAS threads", "?")
        processor = f"{result.machine.get('processor', 'the processor')} with {threads} BLAS threads"
        yield f"On {processor}, a float32 training step takes nnkit {', and '.join(said)}."


def peers(result: Result) -> Iterator[str]:
    """Say what other libraries take."""
    for network, records in by_network(result).items():
        ratios = [(r.name, r.ratios["step / nnkit's"]) for r in records if "step / nnkit's" in r.ratios]
        ahead = [f"{name} {ratio.median:.2f}" for name, ratio in ratios if ratio.low > 1]
        level = [name for name, ratio in ratios if ratio.low <= 1 <= ratio.high]
        if ahead:
            yield f"For {network}, others take this many times as long as nnkit: {', '.join(ahead)}."
        if level:
            yield f"There it is level, within the spread, with {', '.join(level)}."


def raced(race: Held) -> str:
    """Say how long MNIST takes from the shell, and others beside it."""
    own = statistics.median(race["from the shell"]["nnkit"]["seconds"])
    times = {who: statistics.median(ratio["times faster"]) for who, ratio in race["ratios"].items()}
    others = ", ".join(f"{who} {ratio:.2f}" for who, ratio in times.items())
    return (
        f"From the shell's prompt to {100 * race['aims']['accuracy']:.1f} % on MNIST nnkit takes "
        f"{text('s', own)}, and others this many times as long: {others}."
    )


def losing(result: Result) -> Iterator[str]:
    """Say what is slower in nnkit than elsewhere, a phrase each."""
    for network, records in by_network(result).items():
        for record in records:
            ratio = record.ratios.get("step / nnkit's")
            if ratio is not None and ratio.high < 1:
                yield f"{record.name} trains {network} in {ratio.median:.2f} of nnkit's time"
            if record.details.get("same work") is False:
                yield f"({record.name} came to another loss for {network}, so it is no comparison)"
    kernels = [r for r in result.section("kernels") if r.ratios and r.ratios["unfused / fused"].high < 1]
    if kernels:
        names = [f"{r.name} at {r.parameters['rows']} × {r.parameters['columns']}" for r in kernels]
        yield f"the plain expression is faster than the fused kernel for {listed(names)}"
    slow = [r for r in result.section("predict") if behind(r)]
    if slow:
        names = [f"{r.parameters['network']} at batch {r.parameters['batch']:,}" for r in slow]
        yield f"plain NumPy predicts faster for {listed(names)}"


def behind(record: Record) -> bool:
    """Tell whether plain NumPy predicts faster."""
    latency, rate = record.ratios.get("median / NumPy's"), record.ratios.get("throughput / NumPy's")
    return (latency is not None and latency.low > 1) or (rate is not None and rate.high < 1)


def listed(names: list[str]) -> str:
    """Return names as a list in words, cut where it grows long."""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def by_network(result: Result) -> dict[str, list[Record]]:
    """Return the contest's records by what was trained."""
    found: dict[str, list[Record]] = {}
    for record in result.section("peers"):
        network = f"{record.parameters['network']} at batch {record.parameters['batch']}"
        place = "" if record.device == "cpu" else f" on {record.device}"
        found.setdefault(network + place, []).append(record)
    return found


def aims(suites: Mapping[Path, Result]) -> str:
    """Return what the figures should be, and whether they are."""
    rows = []
    for result in suites.values():
        for section, beginning, network, name, aim in AIMS:
            for record in result.section(section):
                quantity = record.quantities.get(name)
                other = network and record.parameters.get("network") != network
                if quantity is None or other or not record.name.startswith(beginning):
                    continue
                bound = f"{'≤' if aim.relation == '<=' else '≥'} {text(quantity.unit, aim.value)}"
                rows.append(
                    [record.label, name, str(quantity), bound, reached(aim.reached_by(quantity.median))]
                )
    return f"## Aims\n\n{markdown(Table(['what', 'figure', 'median', 'aim', ''], rows, 1))}" if rows else ""


def suite(path: Path, result: Result) -> Iterator[str]:
    """A result of `nnkit bench`: its machine, then a table for each section."""
    machine = result.machine
    names = (
        "processor",
        "  cores",
        "  BLAS",
        "  BLAS threads",
        "  BLAS core type",
        "python",
        "numpy",
        "numba",
    )
    names += ("torch", "jax", "scikit-learn")
    rows = [f"{name.strip()} {machine[name]}" for name in names if name in machine]
    size = "" if result.size == "full" else f", {result.size} sizes"
    load = f" The load was {machine['load before']} before it began." if "load before" in machine else ""
    link = f"[results/{path.name}](results/{path.name})"
    yield f"## The suite: {path.stem}"
    yield paragraph(f"{link}, measured {result.measured} UTC{size}. {'; '.join(rows)}.{load}")
    # A run that was ended has no seconds of the section it was in.
    for section in dict.fromkeys([*result.seconds, *(record.section for record in result.records)]):
        records = result.section(section)
        for device in dict.fromkeys(record.device for record in records):
            own = [record for record in records if record.device == device]
            yield f"### {TITLES.get(section, section)}, {device}\n\n{markdown(section_table(own))}"


def trainings(name: str, value: Held) -> Iterator[str]:
    """Whole trainings from the shell."""
    rows = []
    for training in value["train"].values():
        rows_of, metrics = next(iter(training["metrics"].items()))
        metric, figure = next(iter(metrics.items()))
        shown = f"{100 * figure:.2f} %" if metric == "accuracy" else f"{figure:.3f}"
        result = f"{metric.replace('_', ' ')} {shown} of the {rows_of} rows"
        memory = text("B", training["peak_mebibytes"] * 2**20)
        rows.append([f"`{training['command']}`", result, text("s", training["seconds"]), memory])
    headers = ["command", "result", "process", "peak memory"]
    yield "## Whole trainings"
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/record.py`: one process each, from the shell. "
        "The aims are 98.0 % on MNIST and R² 0.80 on California housing. The seed also draws the rows that "
        "are held out, and California's splits differ more than its trainings; the epoch that is kept is "
        "chosen on those same rows."
    )
    yield markdown(Table(headers, rows, 1))


def shell(name: str, value: Held) -> Iterator[str]:
    """MNIST from the prompt to a trained network, beside other libraries."""
    rows = []
    for who, run in value["from the shell"].items():
        seconds, peak = (
            measured(unit, np.array(run[key])) for unit, key in (("s", "seconds"), ("B", "peak_bytes"))
        )
        ratios = [str(measured("", np.array(ratio))) for ratio in value["ratios"].get(who, {}).values()]
        accuracy = f"{100 * statistics.median(run['accuracy']):.2f} %"
        rows.append([who, str(seconds), str(peak), accuracy, *(ratios or ["", ""])])
    aims, peers = value["aims"], value["ratios"]
    faster = [
        statistics.median(peers[who]["times faster"]) for who in ("PyTorch eager", "JAX") if who in peers
    ]
    shares = [statistics.median(peers[who]["share of memory"]) for who in ("PyTorch eager",) if who in peers]
    versions = ", ".join(f"{package} {number}" for package, number in value["versions"].items())
    yield "## From the shell's prompt to a trained network"
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/shell.py`: MNIST, 784-512-512-10, two epochs, "
        "each training a process from its start to its end, imports and compiling included; "
        f"{versions}. Every one has to come to {100 * aims['accuracy']:.1f} % of the test rows. The aims: "
        f"{aims['times faster']:g} times as fast as PyTorch and JAX, "
        f"{reached(all(ratio >= aims['times faster'] for ratio in faster))}; "
        f"{aims['share of memory']:g} of PyTorch's memory, "
        f"{reached(all(share <= aims['share of memory'] for share in shares))}."
    )
    headers = ["what", "process", "peak memory", "accuracy", "its time / nnkit's", "nnkit's memory / its"]
    yield markdown(Table(headers, rows, 1))


def reached(is_so: bool) -> str:
    """Say whether an aim is reached."""
    return "reached" if is_so else "not reached"


def estimators(name: str, value: Held) -> Iterator[str]:
    """nnkit's estimators beside scikit-learn's."""
    rows = []
    for problem, result in value.items():
        for what, figures in result.items() if isinstance(result, dict) else ():
            if not isinstance(figures, dict) or "times faster" not in figures:
                continue
            seconds = {who: Quantity("s", **spread) for who, spread in figures["seconds"].items()}
            faster = Quantity("", **figures["times faster"])
            aim = f"≥ {figures['aim']:g}: {reached(figures['reached'])}"
            rows.append([problem, what, *map(str, seconds.values()), str(faster), aim])
        if isinstance(result, dict) and "test accuracy" in result:
            medians = result["test accuracy"]["medians"]
            aim = f"no less: {reached(result['test accuracy']['reached'])}"
            rows.append([problem, "test accuracy", *(f"{a:.4f}" for a in medians.values()), "", aim])
    yield "## The estimators beside scikit-learn's"
    yield f"[results/{name}](results/{name}), by `python bench/estimators.py`."
    headers = ["problem", "what", "scikit-learn", "nnkit", "times faster", "aim"]
    yield markdown(Table(headers, rows, 2))


def embedding(name: str, value: Held) -> Iterator[str]:
    """nnkit's embedding beside PyTorch's, and by itself for several vocabularies."""
    rows = []
    for found in value["comparisons"]:
        seconds = {who: Quantity("s", **spread) for who, spread in found["seconds"].items()}
        faster = {who: Quantity("", **spread) for who, spread in found["times faster"].items()}
        reached = "reached" if found["reached"] else "not reached"
        told = [f"{ratio} than {who}" for who, ratio in faster.items()]
        rows.append(
            [
                f"{found['optimizer']}, {found['words']} words",
                *map(str, seconds.values()),
                "; ".join(told),
                f"≥ {found['aim']:g}: {reached}",
            ]
        )
    size, machine = value["size"], value["machine"]
    yield "## An embedding beside PyTorch's"
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/embedding.py`, torch {machine['torch']}: "
        f"{size['documents']:,} documents of {size['tokens']} tokens, a vocabulary of "
        f"{value['comparisons'][0]['vocabulary']:,}, vectors of 64, their mean, one dense layer, batches of "
        "128; the time a batch, from the same weights and over the same batches in turns. PyTorch's "
        "EmbeddingBag has sparse gradients, with SGD or SparseAdam. Uniform words are all equally frequent, "
        "so that nearly each token has a row of its own; natural ones are as rare as their rank is high."
    )
    headers = ["trained with", *value["comparisons"][0]["seconds"], "times faster", "aim"]
    yield markdown(Table(headers, rows, 1))
    yield paragraph(
        "nnkit alone, each in a process of its own. Where 20,000 of the words are used, only the table's "
        "size differs; where all are, so does how much of what a batch reads lies in the caches. Its arrays "
        "are the parameters, the optimizer's state, the batch, and 28 bytes a document and 4 a word."
    )
    yield markdown(
        Table(["trained with", "words", "used", "a batch", "memory", "of its arrays"], alone(value), 1)
    )


def alone(value: Held) -> list[list[str]]:
    """Return a row for each vocabulary."""
    return [
        [
            found["optimizer"],
            f"{found['vocabulary']:,}",
            f"{found['used']:,}",
            str(Quantity("s", **found["seconds"])),
            text("B", found["bytes taken"]),
            f"{found['taken / its arrays']:.2f}",
        ]
        for found in value["vocabularies"]
    ]


def texts(name: str, value: Held) -> Iterator[str]:
    """Messages classified on several splits, beside scikit-learn."""
    rows = []
    for who, splits in value["splits"].items():
        row = [who]
        for key in ("f1", "accuracy"):
            figures = [split[key] for split in splits]
            row.append(f"{value['medians'][who][key]:.4f} ({min(figures):.4f} to {max(figures):.4f})")
        seconds = [split["seconds"] for split in splits]
        row.append(
            str(Quantity("s", value["medians"][who]["seconds"], min(seconds), max(seconds), len(splits)))
        )
        rows.append(row)
    aims, reached = value["aims"], value["reached"]
    words = [
        f"{label} {bound} {aims[key]:g}: {'reached' if reached[key] else 'not reached'}"
        for key, label, bound in (
            ("f1", "F1", "≥"),
            ("accuracy", "accuracy", "≥"),
            ("seconds", "each training's seconds", "≤"),
        )
    ]
    yield "## Spam"
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/text.py`: {value['rows']:,} messages, "
        f"{len(splits)} random splits of 80/20, the median of them with the least and the greatest; F1 is "
        "that of spam. nnkit trains from the shell with its defaults, its start included and in the first "
        f"its compiling; scikit-learn fits within one process. nnkit's aims: {'; '.join(words)}."
    )
    yield markdown(Table(["", "F1", "accuracy", "training"], rows, 1))


def pictures(name: str, value: Held) -> Iterator[str]:
    """Trainings from a folder of JPEGs."""
    about, cached = value["pictures"], value["cache MiB"]
    rows = []
    for run in ("first run", "second run"):
        trainings = value[run]
        ready = [training["pictures ready after, seconds"] for training in trainings]
        times = value["times the cache"][run]
        rows.append(
            [
                run,
                _between(ready, "{:.2f} s"),
                _between([training["peak MiB"] for training in trainings], "{:.0f} MiB"),
                _between(times, "{:.2f}") + f" (aim ≤ {value['aim']:g})",
                _between([training["test accuracy"] for training in trainings], "{:.4f}"),
            ]
        )
    few = next(found for key, found in value.items() if key.startswith("the same training from"))
    least = [training["peak MiB"] for training in few["second run"]]
    large = value["larger pictures, whole process counted"]
    yield "## From a folder of pictures"
    yield f"[results/{name}](results/{name}), by `python bench/pictures.py`."
    yield paragraph(
        f"{about['files']:,} generated JPEGs of two classes ({about['MiB of files']:.0f} MiB), decoded at "
        f"{_between(value['pictures decoded a second'], '{:,.0f}')} a second; the cache takes {cached:.1f} "
        "MiB. The peak of memory is that of the whole process; what the pictures cost is what it is above "
        f"that of the same training from 450 of them ({_between(least, '{:.0f} MiB')}: libraries, compiled "
        "kernels, the network, its optimizer and checkpoints). With the whole process counted, "
        f"`{large['options']}` takes {large['peak MiB']:.0f} MiB, "
        f"{large['whole process, times the cache']:.2f} times its cache of {large['cache MiB']:.0f} MiB. "
        f"With pictures moved, mirrored and erased, 60 epochs reach {_augmented(value)}."
    )
    headers = ["", "pictures ready after", "peak", "above 450 pictures', in caches", "test accuracy"]
    yield markdown(Table(headers, rows, 1))


def _between(values: Sequence[float], form: str) -> str:
    """Return the median of a few values, with the least and the greatest."""
    middle = form.format(statistics.median(values))
    return f"{middle} [{form.format(min(values))}, {form.format(max(values))}]"


def _augmented(value: Held) -> str:
    return f"{value['augmented, 60 epochs']['test accuracy']:.4f} on the test pictures"


def faults(name: str, value: Held) -> Iterator[str]:
    """Disturbed trainings."""
    rows = [
        [section, f"{entry['asked for']:,}", f"{len(entry['deviations']):,}", text("s", entry["seconds"])]
        for section, entry in value["sections"].items()
    ]
    yield "## Faults"
    yield f"[results/{name}](results/{name}), by `python bench/faults.py`; see [FAULTS.md](../FAULTS.md)."
    yield markdown(Table(["section", "asked for", "deviations", "time"], rows, 1))


def hostile(name: str, value: Held) -> Iterator[str]:
    """Altered and random files, and those that a fuzzer made by what they reach."""
    groups = {"altered and random": value, "guided by coverage": value.get("coverage-guided", {})}
    rows = []
    for kind, group in groups.items():
        for reader, entry in group.items():
            inputs = entry.get("inputs", entry.get("executions"))
            if inputs is None:
                continue
            counts = (inputs, entry["results"], entry["nnkit_errors"])
            found = sum(finding["count"] for finding in entry["findings"])
            rows.append([reader, kind, *(f"{count:,}" for count in counts), f"{found:,}"])
    yield "## Hostile files"
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/hostile.py` and `bench/hostile_coverage.py`. "
        "Each input has to end in a result or in one of nnkit's errors; anything else is a finding."
    )
    yield markdown(Table(["reader", "inputs are", "inputs", "read", "refused", "findings"], rows, 2))


def diagnosis(name: str, value: Held) -> Iterator[str]:
    """False alarms, misses and the cost of the diagnosis, and the rates that a range test suggests."""
    yield "## The diagnosis"
    yield f"[results/{name}](results/{name}), by `python bench/diagnosis.py`."
    if "sound" in value:
        sound = value["sound"]
        alarms = sorted({alarm["name"] for training in sound["those"] for alarm in training["findings"]})
        yield paragraph(
            f"{sound['trainings']} sound trainings, {sound['kinds']} kinds with {sound['seeds']} seeds each: "
            f"{sound['with a serious alarm']} had a serious finding, {sound['with any finding']} any"
            + (f" ({', '.join(alarms).replace('_', ' ')})." if alarms else ".")
        )
    if "mistakes" in value:
        rows = [
            [
                told["mistake"],
                ", ".join(place.rstrip("*") for place in told["data"]),
                f"{told['named']} of {told['committed']}",
                ", ".join(sorted({missed["data"] for missed in told["missed"]})),
            ]
            for told in value["mistakes"]
        ]
        yield markdown(Table(["mistake", "committed on", "named", "missed on"], rows, 2))
    if "cost" in value:
        rows = [
            [
                told["what"],
                str(measured("s", np.array(told["seconds without"]))),
                text("s", told["checks before, seconds"]),
                text("s", told["looks, seconds"]),
                f"{100 * told['share']:.2f} %",
                str(measured("", np.array(told["with / without"]))),
            ]
            for told in value["cost"]
        ]
        yield paragraph(
            "Its share of a training's time, preparation apart: what the checks and the looks take by "
            "themselves, and whole trainings in turns. The aim is under 1 %."
        )
        headers = [
            "training",
            "without it",
            "checks before",
            "looks",
            "both / without",
            "with / without, in turns",
        ]
        yield markdown(Table(headers, rows, 1))
    if "rates" in value:
        rows = [
            [
                told["data"],
                f"{told['suggested']:g}",
                *(_scored(told["metric"][f]) for f in ("0.1", "1", "10")),
            ]
            for told in value["rates"]
        ]
        yield "What a training comes to with the suggested rate: accuracy, or R² of California housing."
        yield markdown(Table(["data", "suggested", "a tenth of it", "with it", "ten times"], rows, 1))


def _scored(scores: Sequence[float | None]) -> str:
    """Return the scores of some seeds, the least and the greatest."""
    finite = [score for score in scores if score is not None]
    lost = len(scores) - len(finite)
    told = _between(finite, "{:.3f}") if finite else ""
    return " ".join(filter(None, [told, f"({lost} diverged)" if lost else ""]))


def others(names: list[str]) -> Iterator[str]:
    """Files that no table is made of."""
    if names:
        yield "## Other records"
        yield "\n".join(f"- [results/{name}](results/{name})" for name in names)


def explanations(name: str, value: Held) -> Iterator[str]:
    """How exact the explanations are."""
    yield "## Explanations"
    aims = value["aims"]
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/explanations.py`. What integrated gradients "
        "leave unexplained of the way from the baseline to the output (aim: "
        f"{100 * aims['unexplained']:g} % at most):"
    )
    rows = [
        [
            told["training"],
            f"{told['rows']:,}",
            f"{100 * told['median']:.3f} %",
            f"{100 * told['greatest']:.3f} %",
            text("s", told["seconds"]),
        ]
        for told in value["completeness"]
    ]
    yield markdown(Table(["training", "rows", "median", "greatest", "all rows took"], rows, 1))
    closed = ", ".join(f"{method} {far:.1g}" for method, far in value["from a closed form"].items())
    others = ", ".join(f"{data} {far:.1g}" for data, far in value["from scikit-learn's importance"].items())
    yield paragraph(
        f"Farthest from weight × (input − baseline) of a linear network, over the greatest of these (aim: "
        f"{aims['from a closed form']:g}): {closed}. Farthest of a permutation importance from "
        f"scikit-learn's with the same seed: {others}."
    )


def browser(name: str, value: Held) -> Iterator[str]:
    """What reports are like in a browser."""
    yield "## Reports in a browser"
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/browser.py`, in headless {value['browser']}: "
        "each page light and dark, on a screen and on a phone 375 pixels wide, every cell of its confusion "
        f"matrix picked. A page should be smaller than {value['most bytes'] / 1e6:g} MB."
    )
    rows = []
    for page, found in value["pages"].items():
        kinds = [kind for key, kind in found.items() if ", " in key]
        counts = [len(found["messages"]), len(found["requests"]), found["nameless"]]
        wider = max(kind["pixels too wide"] for kind in kinds)
        rows.append([page, f"{found['bytes'] / 1e6:.2f} MB", *map(str, counts), str(wider)])
    headers = ["report", "size", "console messages", "requests", "without a name", "pixels too wide"]
    yield markdown(Table(headers, rows, 1))


def simulated(name: str, value: Held) -> Iterator[str]:
    """What the CPU executed of the CUDA backend."""
    versions = ", ".join(f"{package} {number}" for package, number in value["simulated"].items())
    cuda = name.removesuffix(".json").removeprefix("simulated-")
    yield f"## The CUDA backend on a simulated device, {cuda}"
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/simulation.py`, which needs no GPU: {versions}. "
        "numba-cuda compiles, links, loads and launches every kernel against a stand-in for CUDA's driver, "
        "and the CPU executes its LLVM IR in the launch's blocks and threads, with real barriers. NumPy "
        "stands in for CuPy and cuBLASLt. Writes beside an array are found. Not shown: PTX and machine code, "
        "fused multiply-adds, the last bits of CUDA's functions, a missing fence, misaligned accesses, "
        "threads that interleave between two barriers, CuPy's and cuBLASLt's own code, time."
    )
    counted = ("passed", "failed", "kernels", "launches", "blocks", "barriers")
    orders = [[one["order"], *(f"{one.get(key, 0):,}" for key in counted)] for one in value["orders"]]
    if orders:
        yield markdown(Table(["order of blocks and threads", "tests passed", *counted[1:]], orders, 1))
    devices = [
        [f"{one['capability']}", one["driver"], str(len(one["errors"])), f"{one['difference']:.0e}"]
        for one in value["devices"]
    ]
    headers = ["compute capability", "driver for CUDA", "errors", "difference of a loss from the CPU's"]
    yield markdown(Table(headers, devices, 1))


def registers(name: str, value: Held) -> Iterator[str]:
    """What the CUDA kernels take on each architecture."""
    fields, architectures, rows, spilling = value["fields"], value["architectures"], [], []
    for kernel, cases in value["kernels"].items():
        used = {
            (case, on): dict(zip(fields, taken, strict=True))
            for case, by_architecture in cases.items()
            for on, taken in by_architecture.items()
        }
        shared = max(taken["shared"] for taken in used.values())
        cells = [most_registers(used, on) for on in architectures]
        rows.append([kernel, str(len(cases)), *cells, text("B", shared) if shared else "none"])
        for (case, on), taken in used.items():
            if taken["stack"] or taken["spill_stores"] or taken["spill_loads"]:
                spilling.append(f"{case} on {on}")
    machine, left_out = value["machine"], value["not assembled for"]
    count = sum(map(len, value["kernels"].values()))
    yield "## Registers of the CUDA kernels"
    yield paragraph(
        f"[results/{name}](results/{name}), by `python bench/registers.py`, which needs no GPU: {count} "
        f"cases of {len(rows)} kernels, by numba-cuda {machine['numba-cuda']} and by ptxas "
        f"{machine['ptxas']}{', which does not know ' + ', '.join(left_out) if left_out else ''}. The most "
        "registers of a thread over the cases of a kernel: in float32 and mixed precision, then in float64; "
        f"and the most shared memory of a block. What is spilled: {', '.join(spilling) or 'nothing'}. Of the "
        "65,536 registers of a multiprocessor its threads can have 32 each where it holds 2,048 of them, and "
        "40 where it holds 1,536, as on sm_89 and sm_120: with more, fewer are resident."
    )
    yield markdown(Table(["kernel", "cases", *architectures, "shared memory"], rows, 1))


def most_registers(used: Mapping[tuple[str, str], Mapping[str, int]], architecture: str) -> str:
    """Return the most registers of any case on an architecture: not in float64, and in float64."""
    most: dict[bool, int] = {}
    for (case, on), taken in used.items():
        if on == architecture:
            double = case.endswith("float64")
            most[double] = max(most.get(double, 0), taken["registers"])
    return " / ".join(str(most[double]) for double in sorted(most))


KINDS: Mapping[str, Callable[[str, Held], Iterator[str]]] = {
    "shell": shell,
    "trainings": trainings,
    "estimators": estimators,
    "embedding": embedding,
    "texts": texts,
    "pictures": pictures,
    "card": card_parts,
    "simulated": simulated,
    "registers": registers,
    "faults": faults,
    "hostile": hostile,
    "diagnosis": diagnosis,
    "browser": browser,
    "explanations": explanations,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and its pictures, or tell whether they are those that would be written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the page is another one")
    given = parser.parse_args(arguments)
    path, wanted, drawn = BENCH / "RESULTS.md", generate(BENCH), card_pictures(BENCH / "results")
    if given.check:
        # Each version of matplotlib draws the same figures with other bytes: that a picture is there will do.
        same = path.read_text(encoding="utf-8") == wanted and all(map(Path.exists, drawn))
        print("RESULTS.md is up to date" if same else "RESULTS.md is not: run python bench/report.py")
        return 0 if same else 1
    for picture, plot in drawn.items():
        write_plot(plot, picture)
    path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
