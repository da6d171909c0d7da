"""Test the diagnosis on sound trainings and on mistakes, and time it: `python bench/diagnosis.py [PART ...]`.

The sound trainings are those of the guides: a serious finding is a false alarm. The greatest figures come
nearest to a threshold of the findings. A mistake counts as named where one of its findings is found; "found
instead" stands in the details. The cost is the share of a training's time without the diagnosis that the
checks before it and the looks during it take; "with / without" are whole trainings in turns.

The parts are sound, mistakes and cost. MNIST, California housing and SMS spam are read from ../shared/data.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from program import DATA, in_turns, parser, require, save

from nnkit.bench.records import Aim, Record, measured, once
from nnkit.diagnostics.findings import Finding
from nnkit.errors import DivergenceError
from nnkit.runs.config import Config
from nnkit.runs.run import Run

REAL = {
    "california": [f"data.train={DATA / 'california_housing.csv'}", "data.target=median_house_value"],
    "sms": [f"data.train={DATA / 'sms_spam.tsv'}", "data.target=0"],
    "mnist": [f"data.train={DATA / 'mnist'}"],
}
SHORTER = {"mnist": "training.epochs=5", "sms": "training.epochs=8", "california": "training.epochs=20"}
BUILT_IN = ("digits", "iris", "wine", "breast_cancer", "diabetes", "xor", "exam", "moons")
EVERY = ", ".join([*BUILT_IN, *REAL])
SOUND = [
    *((name, "") for name in BUILT_IN),
    ("california", ""),
    ("sms", ""),
    ("mnist", "model.hidden=[512, 512]; model.dropout=0.2; training.epochs=10"),
    ("mnist", "model.hidden=[128, 64]; training.epochs=10"),
    ("mnist", "training.optimizer=sgd; training.learning_rate=0.1; model.hidden=[128]; training.epochs=10"),
    ("digits", "model.activation=tanh; model.hidden=[64, 64]"),
    ("digits", "training.optimizer=momentum; training.learning_rate=0.02; training.batch_size=32"),
    ("digits", "model.activation=gelu; training.schedule=cosine"),
    ("digits", "model.dropout=0.5; training.optimizer=rmsprop"),
    ("digits", "model.hidden=[64]; model.activation=sigmoid"),
    ("wine", "training.optimizer=sgd; training.learning_rate=0.1; training.batch_size=16"),
    ("breast_cancer", "model.activation=tanh; model.hidden=[64, 64]; training.l2=0.001"),
    ("breast_cancer", "model.activation=leaky_relu; training.optimizer=adamw"),
    ("breast_cancer", "training.optimizer=momentum; training.learning_rate=0.02; training.batch_size=16"),
    ("iris", "model.hidden=[]; training.epochs=50; training.learning_rate=0.01"),
    ("moons", "model.hidden=[32, 32]; model.activation=silu; training.epochs=50"),
    ("diabetes", "model.hidden=[16]; training.weight_decay=0.01"),
    ("california", "training.loss=huber; training.schedule=cosine"),
    ("california", "model.activation=tanh; model.hidden=[64, 64]; training.early_stopping=5"),
    ("california", "model.hidden=[64, 64, 64]; training.learning_rate=0.003; training.batch_size=512"),
    ("sms", "training.epochs=10; training.class_weight=balanced"),
]


EXPLODING = "model.hidden=[64, 64, 64, 64, 64, 64]; model.initializer={name = 'normal', std = 2.0}"
TOO_LARGE = "diverging_loss, oscillating_loss, dead_relus, large_updates, saturated_units"
SHUFFLED = "model.hidden=[256, 128]; training.epochs=60; training.learning_rate=0.003"
# Its name, the findings that name it, the settings that make it, and its data: names of BUILT_IN or REAL, the
# latter with * for a single epoch, or what `changed` makes.
MISTAKES = [
    ("inputs not scaled", "unscaled_features", "data.scaling=none", "california, wine, mnist*"),
    (
        "sigmoid in five layers",
        "saturating_activation",
        "model.hidden=[32, 32, 32, 32, 32]; model.activation=sigmoid",
        "digits, breast_cancer, california",
    ),
    (
        "gradients that vanish",
        "vanishing_gradients",
        "model.hidden=[32, 32, 32, 32, 32, 32, 32, 32]; model.activation=sigmoid",
        "digits, breast_cancer, wine",
    ),
    (
        "gradients that explode",
        "exploding_gradients, diverging_loss",
        f"{EXPLODING}; training.optimizer=sgd; training.learning_rate=1e-12",
        "digits, breast_cancer, california, wine",
    ),
    ("softmax twice", "doubled_output", "model.output=sigmoid", "digits, iris, breast_cancer"),
    ("a regression that ends in ReLU", "unreachable_targets", "model.output=relu", "california, diabetes"),
    ("squared error on two classes", "unfit_loss", "data.task=regression", "two classes"),
    ("a rate far too small", "flat_loss, underfitting", "training.learning_rate=1e-7", EVERY),
    ("a rate far too large, Adam", TOO_LARGE, "training.learning_rate=3", EVERY),
    ("a rate far too large, SGD", TOO_LARGE, "training.optimizer=sgd; training.learning_rate=50", EVERY),
    (
        "ReLUs that a step has killed",
        "dead_relus",
        "training.optimizer=sgd; training.learning_rate=30; training.clip_norm=1.0",
        "digits, breast_cancer, moons, california, mnist",
    ),
    (
        "saturated by large inputs",
        "saturated_units",
        "data.scaling=none; model.activation=tanh; model.hidden=[64]",
        "wine, breast_cancer, california",
    ),
    (
        "labels learnt by heart",
        "overfitting",
        SHUFFLED,
        "shuffled digits, shuffled breast_cancer, shuffled wine",
    ),
    (
        "too small to fit",
        "underfitting, flat_loss",
        "model.hidden=[]; training.epochs=60; training.learning_rate=0.01",
        "xor, rings, checkerboard",
    ),
    ("a constant column", "constant_features", "", "constant wine, constant breast_cancer"),
    ("a column twice", "duplicated_features", "", "twice wine, twice breast_cancer"),
    ("the target among the columns", "target_leak", "", "leak wine, leak breast_cancer, leak diabetes"),
    ("one class in twenty", "class_imbalance", "", "rare digits, rare breast_cancer"),
    ("validation from the training file", "rows_in_both_shares", "", "both wine, both breast_cancer"),
]


def prepared(settings: Sequence[str], folder: Path) -> Run:
    """Return a run into a new folder in a folder."""
    out = tempfile.mkdtemp(dir=folder)
    return Run(Config().with_overrides([*settings, f"run.out={out}", "run.device=cpu"]))


def split(settings: str) -> list[str]:
    """Return the settings of a text."""
    return settings.split("; ") if settings else []


def changed(name: str, seed: int, folder: Path) -> list[str]:
    """Write a data set that has a mistake or is made up; return the settings that train on it."""
    kind, _, source = name.partition(" ")
    generator = np.random.default_rng(seed)
    if name in ("rings", "checkerboard", "two classes"):
        X = generator.uniform(-1, 1, (1000, 2))
        inside = np.hypot(*X.T) < 0.8 if name == "rings" else (X[:, 0] > 0) ^ (X[:, 1] > 0)
        y = inside.astype(int) if name == "two classes" else np.where(inside, "in", "out")
    elif name == "smooth":
        X = generator.standard_normal((20_000, 20))
        y = np.tanh(X @ np.linspace(-1, 1, 20)) + 0.1 * generator.standard_normal(len(X))
    else:
        train = prepared([f"data.train={source}"], folder).dataset.train
        y = np.asarray(train.target)
        X = np.asarray(train.features, dtype=np.float64).reshape(len(y), -1)
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
        values, counts = np.unique(y, return_counts=True)
        kept = generator.permutation(np.flatnonzero(y == values[0]))[: max(4, int(counts[1] // 20))]
        some = generator.permutation(np.concatenate([kept, np.flatnonzero(y != values[0])]))
        X, y = X[some], y[some]
    path = folder / f"{name.replace(' ', '-')}-{seed}.csv"
    rows = [[*(f"x{column}" for column in range(X.shape[1])), "target"]]
    rows += [[*map(repr, row), str(label)] for row, label in zip(X.tolist(), y.tolist(), strict=True)]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    validation = [f"data.validation={path}"] if kind == "both" else []
    return [f"data.train={path}", "data.target=target", *validation]


def source(name: str, seed: int, folder: Path) -> list[str]:
    """Return the settings that name the data of a mistake."""
    if name.rstrip("*") in REAL:
        short = "training.epochs=1" if name.endswith("*") else SHORTER[name]
        return [*REAL[name.rstrip("*")], short]
    if name in BUILT_IN:
        # An epoch of so few rows is an update or two.
        return [f"data.train={name}", *(["training.epochs=200"] if name in ("xor", "exam") else [])]
    return changed(name, seed, folder)


def findings(settings: Sequence[str], seed: int) -> tuple[list[Finding], dict[str, float]]:
    """Train; return what was found before and during it, and the figures nearest to a threshold."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepared([*settings, f"run.seed={seed}"], Path(folder))
        with suppress(DivergenceError):
            run.train()
        return run.findings, extremes(run)


def extremes(run: Run) -> dict[str, float]:
    """Return the figures of a run that come nearest to a threshold."""
    looks = [] if run.diagnosis is None else run.diagnosis.figures
    last = looks[-1].layers if looks else ()
    figures = {
        "dead": [layer.dead for layer in last],
        "saturated": [layer.saturated for layer in last],
        "gradient / weights": [layer.gradient_norm / max(layer.weight_norm, 1e-300) for layer in last],
        "update / weights": [layer.update_ratio for look in looks for layer in look.layers],
    }
    if len(last) > 1:
        ratio = last[0].gradient_norm / max(last[-1].gradient_norm, 1e-300)
        figures |= {"first gradient / last": [ratio], "last gradient / first": [1 / max(ratio, 1e-300)]}
    known = {name: [value for value in values if value is not None] for name, values in figures.items()}
    return {name: float(max(values)) for name, values in known.items() if values}


def sound(seeds: int, tiny: bool) -> Iterator[Record]:
    """Count the false alarms of sound trainings."""
    found, greatest, alarmed = [], dict[str, float](), []
    for name, settings in SOUND[:2] if tiny else SOUND:
        given = [*REAL.get(name, [f"data.train={name}"]), *split(settings)]
        for seed in range(seeds):
            seen, figures = findings(given, seed)
            found.append({finding.severity for finding in seen})
            greatest |= {key: max(value, greatest.get(key, 0.0)) for key, value in figures.items()}
            if seen:
                names = [f"{finding.name}: {finding.seen}" for finding in seen]
                alarmed.append({"data": name, "settings": settings, "seed": seed, "findings": names})
    serious = sum("serious" in severities for severities in found) / len(found)
    figures = {
        "with a serious finding": once("%", serious, Aim("<=", 0.0)),
        "with any finding": once("%", len(alarmed) / len(found)),
        **{f"greatest {key}": once("", value) for key, value in greatest.items()},
    }
    parameters = {"trainings": len(found), "kinds": len(found) // seeds}
    details = {"with findings": alarmed}
    yield Record("sound", "sound trainings", parameters=parameters, figures=figures, details=details)


def mistakes(seeds: int, tiny: bool) -> Iterator[Record]:
    """Make each mistake on several data sets, and count how often it is named."""
    for mistake, names, settings, data in MISTAKES[-3:] if tiny else MISTAKES:
        missed, made = [], 0
        for place in data.split(", "):
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder:
                    given = [*source(place, seed, Path(folder)), *split(settings)]
                    found = {finding.name for finding in findings(given, seed)[0]}
                made += 1
                if not found & set(names.split(", ")):
                    missed.append({"data": place, "seed": seed, "found instead": sorted(found)})
        figures = {"named": once("%", 1 - len(missed) / made)}
        parameters = {"made": made, "data": data}
        details = {"findings": names, "settings": settings, "missed": missed}
        yield Record("mistakes", mistake, parameters=parameters, figures=figures, details=details)


def cost(seeds: int, tiny: bool) -> Iterator[Record]:
    """Train with the diagnosis and without in turns, and time the checks and the looks by themselves."""
    small = "model.hidden=[64, 64]; training.batch_size=32"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = {
            "MNIST, 784-512-512-10": [*REAL["mnist"], "model.hidden=[512, 512]", "training.epochs=5"],
            "California housing": REAL["california"],
            "20-64-64-1, batch 32": [*changed("smooth", 0, folder), *split(small)],
        }
        for name, settings in list(cases.items())[-1:] if tiny else cases.items():
            yield cost_of(name, settings, folder, 1 if tiny else 5)


def cost_of(name: str, settings: list[str], folder: Path, turns: int) -> Record:
    """Return a training's record."""
    run = prepared(settings, folder)
    rows = run.encoded()
    checks = in_turns({"checks": partial(run.check, rows)}, turns, rest=0.0)["checks"]
    taken: dict[bool, list[float]] = {True: [], False: []}
    looks = []
    for turn in range(turns + 1):
        for on in (True, False) if turn % 2 else (False, True):
            watched = prepared([*settings, f"run.diagnostics={str(on).lower()}"], folder)
            began = time.perf_counter()
            watched.train()
            if turn:  # the first compiles
                taken[on].append(time.perf_counter() - began)
                if watched.diagnosis is not None:
                    looks.append(watched.diagnosis.seconds)
    with_it, without = np.array(taken[True]), np.array(taken[False])
    share = (np.median(checks) + np.median(looks)) / np.median(without)
    figures = {
        "without": measured("s", without),
        "checks": measured("s", checks),
        "looks": measured("s", np.array(looks)),
        "checks and looks / without": once("%", share, Aim("<=", 0.01)),
        "with / without": measured("", with_it / without),
    }
    details = {"seconds with": with_it.tolist(), "seconds without": without.tolist()}
    return Record("cost", name, figures=figures, details=details)


PARTS = {"sound": sound, "mistakes": mistakes, "cost": cost}


def main() -> None:
    """Measure and save; the other parts keep their earlier records."""
    options = parser(__doc__, PARTS)
    options.add_argument("--seeds", type=int, default=3)
    given = options.parse_args()
    if not given.tiny:
        require("mnist")
    logging.getLogger("nnkit").setLevel(logging.CRITICAL)
    seeds = 1 if given.tiny else given.seeds
    made = chain.from_iterable(PARTS[part](seeds, given.tiny) for part in given.parts or PARTS)
    save(given, "The diagnosis", __doc__, made, keep=True)


if __name__ == "__main__":
    main()
