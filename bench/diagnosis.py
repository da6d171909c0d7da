"""Hold the diagnosis against trainings that are sound and ones that are not: `python bench/diagnosis.py`.

Writes bench/results/diagnosis.json: the false alarms among sound trainings over several seeds; how often a
mistake that is committed is named, on several data sets; what the diagnosis takes, as a share of a training's
time; and what trainings come to with the rate that `nnkit tune-rate` suggests, a tenth and ten times of it.
`--only sound,mistakes,cost,rates` measures some and keeps the others' figures; `--seeds` says how many.
MNIST, California housing and SMS spam are read from ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.diagnostics.findings import Finding
from nnkit.errors import DivergenceError
from nnkit.machine import describe_machine
from nnkit.runs.config import Config
from nnkit.runs.run import Run

BENCH = Path(__file__).resolve().parent
SHARED = BENCH.parents[1] / "shared" / "data"
REAL = {
    "california": [f"data.train={SHARED / 'california_housing.csv'}", "data.target=median_house_value"],
    "sms": [f"data.train={SHARED / 'sms_spam.tsv'}", "data.target=0"],
    "mnist": [f"data.train={SHARED / 'mnist'}"],
}
BUILT_IN = ("digits", "iris", "wine", "breast_cancer", "diabetes", "xor", "exam", "moons")
TANH = ["model.activation=tanh", "model.hidden=[64, 64]"]
SGD = ["training.optimizer=sgd", "training.learning_rate=0.1"]
MOMENTUM = ["training.optimizer=momentum", "training.learning_rate=0.02"]
# Trainings as the guides have them; nothing is wrong with any.
SOUND: list[tuple[str, list[str]]] = [
    *((name, []) for name in BUILT_IN),
    ("california", []),
    ("sms", []),
    ("mnist", ["model.hidden=[512, 512]", "model.dropout=0.2", "training.epochs=10"]),
    ("mnist", ["model.hidden=[128, 64]", "training.epochs=10"]),
    ("mnist", [*SGD, "model.hidden=[128]", "training.epochs=10"]),
    ("digits", [*TANH]),
    ("digits", [*MOMENTUM, "training.batch_size=32"]),
    ("digits", ["model.activation=gelu", "training.schedule=cosine"]),
    ("digits", ["model.dropout=0.5", "training.optimizer=rmsprop"]),
    ("digits", ["model.hidden=[64]", "model.activation=sigmoid"]),
    ("wine", [*SGD, "training.batch_size=16"]),
    ("breast_cancer", [*TANH, "training.l2=0.001"]),
    ("breast_cancer", ["model.activation=leaky_relu", "training.optimizer=adamw"]),
    ("breast_cancer", [*MOMENTUM, "training.batch_size=16"]),
    ("iris", ["model.hidden=[]", "training.epochs=50", "training.learning_rate=0.01"]),
    ("moons", ["model.hidden=[32, 32]", "model.activation=silu", "training.epochs=50"]),
    ("diabetes", ["model.hidden=[16]", "training.weight_decay=0.01"]),
    ("california", ["training.loss=huber", "training.schedule=cosine"]),
    ("california", [*TANH, "training.early_stopping=5"]),
    ("california", ["model.hidden=[64, 64, 64]", "training.learning_rate=0.003", "training.batch_size=512"]),
    ("sms", ["training.epochs=10", "training.class_weight=balanced"]),
]
GREATEST = ("dead", "saturated", "gradient / weights", "update / weights", "first gradient / last")
TOO_LARGE = ("diverging_loss", "oscillating_loss", "dead_relus", "large_updates", "saturated_units")
SHUFFLED = ["model.hidden=[256, 128]", "training.epochs=60", "training.learning_rate=0.003"]
# Each mistake, the findings that name it, what is set, and where.
MISTAKES: list[tuple[str, tuple[str, ...], list[str], tuple[str, ...]]] = [
    ("inputs not scaled", ("unscaled_features",), ["data.scaling=none"], ("california", "wine", "mnist*")),
    (
        "sigmoid in five layers",
        ("saturating_activation",),
        ["model.hidden=[32, 32, 32, 32, 32]", "model.activation=sigmoid"],
        ("digits", "breast_cancer", "california"),
    ),
    (
        "gradients that vanish",
        ("vanishing_gradients",),
        ["model.hidden=[32, 32, 32, 32, 32, 32, 32, 32]", "model.activation=sigmoid"],
        ("digits", "breast_cancer", "wine"),
    ),
    (
        "gradients that explode",
        ("exploding_gradients", "diverging_loss"),
        [
            "model.hidden=[64, 64, 64, 64, 64, 64]",
            "model.initializer={name = 'normal', std = 2.0}",
            "training.optimizer=sgd",
            "training.learning_rate=1e-12",
        ],
        ("digits", "breast_cancer", "california", "wine"),
    ),
    ("softmax twice", ("doubled_output",), ["model.output=sigmoid"], ("digits", "iris", "breast_cancer")),
    (
        "a regression that ends in ReLU",
        ("unreachable_targets",),
        ["model.output=relu"],
        ("california", "diabetes"),
    ),
    ("squared error on two classes", ("unfit_loss",), ["data.task=regression"], ("two classes",)),
    (
        "a rate far too small",
        ("flat_loss", "underfitting"),
        ["training.learning_rate=1e-7"],
        (*BUILT_IN, *REAL),
    ),
    ("a rate far too large, Adam", TOO_LARGE, ["training.learning_rate=3"], (*BUILT_IN, *REAL)),
    (
        "a rate far too large, SGD",
        TOO_LARGE,
        ["training.optimizer=sgd", "training.learning_rate=50"],
        (*BUILT_IN, *REAL),
    ),
    (
        "ReLUs that a step has killed",
        ("dead_relus",),
        ["training.optimizer=sgd", "training.learning_rate=30", "training.clip_norm=1.0"],
        ("digits", "breast_cancer", "moons", "california", "mnist"),
    ),
    (
        "saturated by large inputs",
        ("saturated_units",),
        ["data.scaling=none", "model.activation=tanh", "model.hidden=[64]"],
        ("wine", "breast_cancer", "california"),
    ),
    (
        "labels learnt by heart",
        ("overfitting",),
        SHUFFLED,
        ("shuffled digits", "shuffled breast_cancer", "shuffled wine"),
    ),
    (
        "too small to fit",
        ("underfitting", "flat_loss"),
        ["model.hidden=[]", "training.epochs=60", "training.learning_rate=0.01"],
        ("xor", "rings", "checkerboard"),
    ),
    ("a constant column", ("constant_features",), [], ("constant wine", "constant breast_cancer")),
    ("a column twice", ("duplicated_features",), [], ("twice wine", "twice breast_cancer")),
    (
        "the target among the columns",
        ("target_leak",),
        [],
        ("leak wine", "leak breast_cancer", "leak diabetes"),
    ),
    ("one class in twenty", ("class_imbalance",), [], ("rare digits", "rare breast_cancer")),
    ("validation from the training file", ("rows_in_both_shares",), [], ("both wine", "both breast_cancer")),
]


def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a built-in data set's features and target."""
    train = Run(config([f"data.train={name}"], Path("unused"))).dataset.train
    features = np.asarray(train.features, dtype=np.float64).reshape(len(train.target), -1)
    return features, np.asarray(train.target)


def changed(name: str, seed: int, folder: Path) -> list[str]:
    """Write a data set with a mistake in it; return the settings that train on it."""
    kind, _, source = name.partition(" ")
    generator = np.random.default_rng(seed)
    path = folder / f"{name.replace(' ', '-')}-{seed}.csv"
    settings = [f"data.train={path}", "data.target=target"]
    if name in ("rings", "checkerboard", "two classes"):
        X = generator.uniform(-1, 1, (1000, 2))
        inside = np.hypot(*X.T) < 0.8 if name == "rings" else (X[:, 0] > 0) ^ (X[:, 1] > 0)
        y = inside.astype(int) if name == "two classes" else np.where(inside, "in", "out")
    else:
        X, y = table(source)
    if kind == "shuffled":
        some = generator.permutation(len(y))[:300]
        X, y = X[some], generator.permutation(y[some])
    elif kind == "constant":
        X = np.column_stack([X, np.full(len(X), 3.0)])
    elif kind == "twice":
        X = np.column_stack([X, 2.54 * X[:, 1]])
    elif kind == "leak":
        codes = np.unique(y, return_inverse=True)[1]
        X = np.column_stack([X, np.exp(codes / codes.max()) * 7])
    elif kind == "rare":
        labels, counts = np.unique(y, return_counts=True)
        rare = np.flatnonzero(y == labels[0])
        kept = generator.permutation(rare)[: max(4, int(counts[1] // 20))]
        some = generator.permutation(np.concatenate([kept, np.flatnonzero(y != labels[0])]))
        X, y = X[some], y[some]
    names = ",".join([*(f"x{column}" for column in range(X.shape[1])), "target"])
    lines = [
        ",".join([*map(repr, row), str(label)]) for row, label in zip(X.tolist(), y.tolist(), strict=True)
    ]
    path.write_text("\n".join([names, *lines]) + "\n")
    return [*settings, f"data.validation={path}"] if kind == "both" else settings


def config(settings: Sequence[str], folder: Path) -> Config:
    """Return a config that writes its run into a folder."""
    return Config().with_overrides([*settings, f"run.out={folder / 'run'}", "run.device=cpu"])


def source(name: str, seed: int, folder: Path) -> list[str]:
    """Return the settings that name a data set."""
    if name.endswith("*"):  # a share of its rows is enough
        return [*REAL[name[:-1]], "training.epochs=1"]
    if name in REAL:
        short = {
            "mnist": ["training.epochs=5"],
            "sms": ["training.epochs=8"],
            "california": ["training.epochs=20"],
        }
        return [*REAL[name], *short[name]]
    if name in ("xor", "exam"):  # so few rows are an update or so an epoch
        return [f"data.train={name}", "training.epochs=200"]
    return [f"data.train={name}"] if name in BUILT_IN else changed(name, seed, folder)


def findings(settings: Sequence[str], seed: int) -> tuple[list[Finding], dict[str, float]]:
    """Train; return what was found before it and on the way, and the figures nearest to a threshold."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config([*settings, f"run.seed={seed}"], Path(folder)))
        with suppress(DivergenceError):
            run.train()
        return run.findings, extremes(run)


def extremes(run: Run) -> dict[str, float]:
    """Return the figures of a run that come nearest to a threshold."""
    looks = [] if run.diagnosis is None else run.diagnosis.figures
    last = looks[-1].layers if looks else ()
    updates = [layer.update_ratio for look in looks for layer in look.layers]
    figures: dict[str, list[float]] = {
        "dead": [layer.dead for layer in last if layer.dead is not None],
        "saturated": [layer.saturated for layer in last if layer.saturated is not None],
        "gradient / weights": [layer.gradient_norm / max(layer.weight_norm, 1e-300) for layer in last],
        "update / weights": [update for update in updates if update is not None],
    }
    told = {name: float(max(values)) for name, values in figures.items() if values}
    if len(last) > 1:
        told["first gradient / last"] = float(last[0].gradient_norm / max(last[-1].gradient_norm, 1e-300))
    return told


def sound(seeds: int) -> dict[str, Any]:
    """Count the false alarms of sound trainings."""
    trainings = []
    for name, settings in SOUND:
        given = [*REAL.get(name, [f"data.train={name}"]), *settings]
        for seed in range(seeds):
            found, figures = findings(given, seed)
            alarms = [
                {"name": finding.name, "severity": finding.severity, "seen": finding.seen}
                for finding in found
            ]
            trainings.append(
                {"data": name, "settings": settings, "seed": seed, "findings": alarms, **figures}
            )
            print(name, settings, seed, [f"{a['name']}: {a['seen']}" for a in alarms], flush=True)
    serious = sum(any(a["severity"] == "serious" for a in t["findings"]) for t in trainings)
    return {
        "seeds": seeds,
        "kinds": len(SOUND),
        "trainings": len(trainings),
        "with a serious alarm": serious,
        "greatest": {key: max(t.get(key, 0.0) for t in trainings) for key in GREATEST},
        "least first gradient / last": min(t.get("first gradient / last", 1.0) for t in trainings),
        "with any finding": sum(bool(t["findings"]) for t in trainings),
        "those": [training for training in trainings if training["findings"]],
    }


def mistakes(seeds: int) -> list[dict[str, Any]]:
    """Commit each mistake and count how often it is named."""
    told = []
    with tempfile.TemporaryDirectory() as folder:
        for mistake, names, settings, places in MISTAKES:
            missed, committed = [], 0
            for place in places:
                for seed in range(seeds):
                    found = [
                        f.name for f in findings([*source(place, seed, Path(folder)), *settings], seed)[0]
                    ]
                    committed += 1
                    if not set(found) & set(names):
                        missed.append({"data": place, "seed": seed, "found instead": found})
            told.append(
                {
                    "mistake": mistake,
                    "named by": list(names),
                    "settings": settings,
                    "data": list(places),
                    "committed": committed,
                    "named": committed - len(missed),
                    "missed": missed,
                }
            )
            print(mistake, f"{committed - len(missed)} of {committed}", missed, flush=True)
    return told


def cost(repeats: int) -> list[dict[str, Any]]:
    """Train with the diagnosis and without in turns; time the looks and the checks by themselves too."""
    told = []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.csv"
        X = np.random.default_rng(0).standard_normal((20_000, 21))
        X[:, -1] = np.tanh(X[:, :20] @ np.linspace(-1, 1, 20)) + 0.1 * X[:, -1]
        np.savetxt(
            small,
            X,
            delimiter=",",
            fmt="%.5g",
            header=",".join("abcdefghijklmnopqrst") + ",target",
            comments="",
        )
        cases = {
            "MNIST, 784-512-512-10": [*REAL["mnist"], "model.hidden=[512, 512]", "training.epochs=5"],
            "California housing": REAL["california"],
            "20-64-64-1, batch 32": [
                f"data.train={small}",
                "model.hidden=[64, 64]",
                "training.batch_size=32",
            ],
        }
        for name, settings in cases.items():
            told.append({"what": name, **_cost_of(settings, Path(folder), repeats)})
            print(told[-1], flush=True)
    return told


def _cost_of(settings: list[str], folder: Path, repeats: int) -> dict[str, Any]:
    run = Run(config(settings, folder))
    rows = run.encoded()
    checks = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run._found(rows)
        checks.append(time.perf_counter() - began)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    looks = []
    for turn in range(repeats + 1):
        for on in (True, False) if turn % 2 else (False, True):
            watched = Run(config([*settings, f"run.diagnostics={str(on).lower()}"], folder))
            began = time.perf_counter()
            watched.train()
            took = time.perf_counter() - began
            if turn:  # the first compiles
                seconds[on].append(took)
                if watched.diagnosis is not None:
                    looks.append(watched.diagnosis.seconds)
    without = statistics.median(seconds[False])
    ratios = [a / b for a, b in zip(seconds[True], seconds[False], strict=True)]
    return {
        "seconds without": seconds[False],
        "seconds with": seconds[True],
        "with / without": ratios,
        "checks before, seconds": statistics.median(checks[1:]),
        "looks, seconds": statistics.median(looks),
        "share": (statistics.median(checks[1:]) + statistics.median(looks)) / without,
    }


def rates() -> Iterator[dict[str, Any]]:
    """Train with the rate that the range test suggests, a tenth and ten times of it."""
    for name in ("mnist", "california", "sms", "iris", "digits"):
        given = [*REAL.get(name, [f"data.train={name}"]), *(["training.epochs=5"] if name == "mnist" else [])]
        with tempfile.TemporaryDirectory() as folder:
            curve = Run(config(given, Path(folder))).tune_rate(1e-6, 10.0, 200)
            scores = {}
            for factor in (0.1, 1.0, 10.0):
                results = []
                for seed in range(3):
                    rate = curve.suggested * factor
                    run = Run(
                        config([*given, f"training.learning_rate={rate!r}", f"run.seed={seed}"], Path(folder))
                    )
                    try:
                        metrics = run.train().metrics
                        results.append(metrics["accuracy"] if "accuracy" in metrics else metrics["r2"])
                    except DivergenceError:
                        results.append(None)
                scores[f"{factor:g}"] = results
        told = {"data": name, "suggested": curve.suggested, "least": curve.least, "metric": scores}
        print(told, flush=True)
        yield told


def main() -> None:
    """Write bench/results/diagnosis.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="sound,mistakes,cost,rates")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    logging.getLogger("nnkit").setLevel(logging.CRITICAL)
    if not SHARED.is_dir():
        raise SystemExit(f"{SHARED} is not there")
    path = BENCH / "results" / "diagnosis.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    record["machine"] = describe_machine()
    measures = {
        "sound": lambda: sound(given.seeds),
        "mistakes": lambda: mistakes(given.seeds),
        "cost": lambda: cost(given.repeats),
        "rates": lambda: list(rates()),
    }
    for part in given.only.split(","):
        record[part] = measures[part]()
        path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {path.relative_to(BENCH.parent)}")


if __name__ == "__main__":
    main()
