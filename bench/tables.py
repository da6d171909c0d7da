"""Compare errors on tables: `python bench/tables.py [--contenders a,b] [--tables x,y] [--splits n]`.

A split holds out the first fifth of `np.random.default_rng(1000 + s).permutation(rows)`: three splits, ten
for tables under 1,000 rows. An error is the RMSE, or the log loss of probabilities clipped at 1e-15. All
contenders have their defaults and know no more than the target; networks that take no missing numbers are
given medians. "Before" is nnkit at c39ea64, by the python that NNKIT_BENCH_BEFORE names. Boosted trees are
fitted on nine tenths of the training rows besides: of the three, the one with the least mean error on the
last tenth is "boosted, chosen".

tables-rows.jsonl has a row for each table, contender and split. Running again measures those that are missing
or of another version: nnkit's is the hash of its folder. A ratio compares a table's mean errors on the splits
that both contenders have, and is the geometric mean over the tables; 1 - accuracy counts half a wrong row
more on both sides, since some make no error. The calibration error is of tables with 3,000 rows and more: 15
bins of equal mass, the rows of all splits together; with many classes, of the predicted one. With --time,
contenders train in turns: nnkit's seconds are the whole command's, with compiled kernels, and the others'
those of `fit`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from importlib.metadata import version
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray
from program import BENCH, DATA, in_turns, is_installed, parser, require, run_nnkit, save
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from nnkit.bench.records import Aim, Record, measured, once
from nnkit.files import write_whole

Row = dict[str, Any]
Array = NDArray[Any]
Train = Callable[["Table", Array, Path], Callable[[Array], Array]]  # on rows; what answers others
BEFORE = "c39ea64"
THREADS = int(os.environ.get("OMP_NUM_THREADS", "0")) or None
CATBOOST = {"verbose": False, "allow_writing_files": False, "thread_count": THREADS or -1}
PEERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {  # package, module, class, what is no default
    "histgb": ("scikit-learn", "sklearn.ensemble", "HistGradientBoosting", {}),
    "lightgbm": ("lightgbm", "lightgbm", "LGBM", {"verbose": -1, "n_jobs": THREADS}),
    "catboost": ("catboost", "catboost", "CatBoost", CATBOOST),
    "sklearn-mlp": ("scikit-learn", "sklearn.neural_network", "MLP", {}),
    "realmlp": ("pytabkit", "pytabkit", "RealMLP_TD_", {"device": "cpu", "n_threads": THREADS}),
    "tabm": ("pytabkit", "pytabkit", "TabM_D_", {"device": "cpu", "n_threads": THREADS}),
}
BOOSTED = ("histgb", "lightgbm", "catboost")
TIMED = ("concrete", "churn", "diamonds")
TINY = ("diabetes", "penguins")
SLOW = ("realmlp", "tabm")  # they take minutes: measured on one split of large tables
LARGE = 3000  # rows, from which on the calibration error is measured
KERNELS = Path(os.environ.get("NNKIT_CACHE") or Path(tempfile.gettempdir()) / "nnkit-bench-tables")


@dataclass(frozen=True)
class Table:
    """A table with its header, as lines of CSV."""

    name: str
    target: str
    regression: bool
    lines: list[str]

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.lines) - 1

    @property
    def splits(self) -> int:
        """How many are measured."""
        return 10 if self.rows < 1000 else 3

    @property
    def pooled(self) -> bool:
        """Whether the calibration error is measured, on all splits together."""
        return not self.regression and self.rows >= LARGE

    @cached_property
    def columns(self) -> tuple[Any, Any]:
        """The features, as a frame whose text is categorical, and the target: values, or class numbers."""
        frame = pandas.read_csv(StringIO("\n".join(self.lines)))
        target = frame.pop(self.target)
        frame.columns = [f"x{number}" for number in range(frame.shape[1])]  # LightGBM refuses some names
        texts = frame.select_dtypes(exclude="number").columns
        frame = frame.astype(dict.fromkeys(texts, "category"))
        return frame, target.to_numpy(float) if self.regression else np.unique(target, return_inverse=True)[1]

    def split(self, number: int) -> tuple[Array, Array]:
        """Return the rows to train on, and the fifth that is held out."""
        order = np.random.default_rng(1000 + number).permutation(self.rows)
        return order[self.rows // 5 :], order[: self.rows // 5]

    def write(self, rows: Array, path: Path) -> str:
        """Write rows as a CSV file; return its path."""
        path.write_text("\n".join([self.lines[0], *(self.lines[1 + row] for row in rows)]) + "\n")
        return str(path)


def read_tables() -> dict[str, Table]:
    """Return the tables by name."""
    about = json.loads((DATA / "tables" / "tables.json").read_text())
    paths = {name: DATA / "tables" / f"{name}.csv" for name in about}
    about["california"] = {"target": "median_house_value", "task": "reg"}
    paths["california"] = DATA / "california_housing.csv"
    return {
        name: Table(name, one["target"], one["task"] == "reg", paths[name].read_text().splitlines())
        for name, one in about.items()
    }


# The contenders: each is trained on rows of a table, and answers others with values or probabilities.


def train_nnkit(
    table: Table, rows: Array, folder: Path, python: str = "", extra: Sequence[str] = ()
) -> Callable[[Array], Array]:
    """Train and ask by shell commands."""
    command = partial(run_nnkit, cache=KERNELS / (BEFORE if python else "nnkit"), python=python)
    run, answers = str(Path(tempfile.mkdtemp(dir=folder)) / "run"), folder / "answers.csv"
    data = table.write(rows, folder / "train.csv")
    command(["train", data, "--target", table.target, "--out", run, *extra])

    def answer(asked: Array) -> Array:
        proba = [] if table.regression else ["--proba"]
        command(["predict", run, table.write(asked, folder / "asked.csv"), *proba, "--out", str(answers)])
        return np.loadtxt(answers, delimiter=",", skiprows=1)

    return answer


def estimator(name: str, table: Table) -> Any:
    """Return a peer with its defaults, behind the preprocessing that it needs."""
    _, module, kind, settings = PEERS[name]
    kind += "Regressor" if table.regression else "Classifier"
    made = getattr(import_module(module), kind)(random_state=0, **settings)
    texts = [*table.columns[0].select_dtypes("category").columns]
    numbers = SimpleImputer(strategy="median"), make_column_selector(dtype_include="number")
    if name == "catboost":  # its categories are text without gaps
        filled = FunctionTransformer(
            lambda frame: frame.astype(dict.fromkeys(texts, object)).fillna(dict.fromkeys(texts, "missing"))
        )
        return make_pipeline(filled, made.set_params(cat_features=texts))
    if module == "pytabkit":  # it takes no missing numbers
        columns = make_column_transformer(numbers, remainder="passthrough", verbose_feature_names_out=False)
        return make_pipeline(columns.set_output(transform="pandas"), made)
    if name != "sklearn-mlp":
        return made
    encoded = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = make_column_transformer(
        (make_pipeline(numbers[0], StandardScaler()), numbers[1]), (encoded, texts)
    )
    if table.regression:
        made = TransformedTargetRegressor(made, transformer=StandardScaler())
    return make_pipeline(columns, made)


def train_peer(name: str, table: Table, rows: Array, folder: Path) -> Callable[[Array], Array]:
    """Fit a peer, and ask it."""
    frame, target = table.columns
    made = estimator(name, table).fit(frame.iloc[rows], target[rows])
    ask = made.predict if table.regression else made.predict_proba
    return lambda asked: np.asarray(ask(frame.iloc[asked]))


CONTENDERS: dict[str, Train] = {
    "nnkit": train_nnkit,
    "nnkit-best": partial(train_nnkit, extra=("--preset", "best")),
    "before": partial(train_nnkit, python=os.environ.get("NNKIT_BENCH_BEFORE", "")),
    **{name: partial(train_peer, name) for name in PEERS},
}


def is_here(name: str) -> bool:
    """Return whether a contender can be measured; say why not."""
    package, module, *_ = PEERS.get(name, ("", "nnkit"))
    reason = "" if is_installed(module.split(".")[0]) else f"pip install {package}"
    if name == "before" and not os.environ.get("NNKIT_BENCH_BEFORE"):
        reason = "NNKIT_BENCH_BEFORE names no python that has it"
    if name == "nnkit-best" and "--preset" not in run_nnkit(["train", "--help"], KERNELS / "nnkit").printed:
        reason = "nnkit train has no --preset"
    if reason:
        print(f"{name} is not measured: {reason}")
    return not reason


def version_of(name: str) -> str:
    """Return a contender's version: for nnkit hashes of its folders, with a + if these have changed."""
    if name == "before":
        return BEFORE
    if name in PEERS:
        return f"{PEERS[name][0]} {version(PEERS[name][0])}"
    git = partial(subprocess.run, cwd=BENCH.parent, capture_output=True, text=True)
    trees = git(["git", "ls-tree", "--abbrev=7", "HEAD", "nnkit", "kernels"]).stdout.split()[2::4]
    changed = git(["git", "status", "--porcelain", "nnkit", "kernels"]).stdout
    return "-".join(trees) + "+" * bool(changed) or version("nnkit-train")


# Errors, and the rows that hold them.


def error_of(table: Table, rows: Array, answers: Array) -> Row:
    """Return the error of answers, and the accuracy of a classification."""
    truth = table.columns[1][rows]
    if table.regression:
        return {"error": float(np.sqrt(np.mean((answers.reshape(-1) - truth) ** 2)))}
    likelihood = answers[np.arange(len(rows)), truth].clip(1e-15, 1)
    return {
        "error": float(-np.log(likelihood).mean()),
        "accuracy": float((answers.argmax(1) == truth).mean()),
    }


def calibration_error(truth: Array, probabilities: Array, bins: int = 15) -> float:
    """Return the mean distance of confidence and frequency, weighted by rows, in bins of equal mass."""
    answers = probabilities.argmax(1) if probabilities.shape[1] > 2 else np.ones(len(truth), dtype=int)
    confidence, right = probabilities[np.arange(len(truth)), answers], answers == truth
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return float(sum(abs(np.sum(confidence[part] - right[part])) for part in parts) / len(truth))


def measure(name: str, table: Table, splits: Iterable[int]) -> Iterator[Row]:
    """Train and test a contender; yield the row of each split."""
    train, tested = CONTENDERS[name], []
    for number in splits:
        began = time.perf_counter()
        rows, asked = table.split(number)
        row: Row = {"table": table.name, "split": number, "contender": name, "version": version_of(name)}
        with tempfile.TemporaryDirectory() as folder:
            answers = train(table, rows, Path(folder))(asked)
            row |= error_of(table, asked, answers)
            if name in BOOSTED:
                held = rows[: len(rows) // 10]
                checked = train(table, rows[len(held) :], Path(folder))(held)
                row["validation error"] = error_of(table, held, checked)["error"]
        tested.append((table.columns[1][asked], answers))
        if table.pooled and len(tested) == table.splits:
            truth, probabilities = zip(*tested, strict=True)
            row["calibration error"] = calibration_error(np.concatenate(truth), np.concatenate(probabilities))
        print(*row.values(), f"({time.perf_counter() - began:.0f} s)", flush=True)
        yield row


def missing_splits(rows: Iterable[Row], name: str, table: Table, splits: int) -> list[int]:
    """Return the splits without a row of this version; all where the calibration error needs them."""
    wanted = range(min(splits, 1 if name in SLOW and table.rows >= LARGE else table.splits))
    what = (table.name, name, version_of(name))
    same = [row for row in rows if (row["table"], row["contender"], row["version"]) == what]
    known = {row["split"] for row in same if not row["version"].endswith("+")}
    return [*wanted] if table.pooled and known < set(wanted) else [one for one in wanted if one not in known]


def measure_missing(path: Path, names: Iterable[str], tables: Sequence[Table], splits: int) -> list[Row]:
    """Measure the rows that a file has not, writing each; return all of its rows."""
    for name, table in product(names, tables):
        for row in measure(name, table, missing_splits(read_rows(path), name, table, splits)):
            kept = {(one["table"], one["contender"], one["split"]): one for one in [*read_rows(path), row]}
            write_whole(path, "".join(f"{json.dumps(kept[key])}\n" for key in sorted(kept)).encode())
    return read_rows(path)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file; none if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# What comes of the rows.

CHOSEN = "boosted, chosen"
RATIOS: dict[tuple[str, str], dict[str, float]] = {  # of a figure over a contender's, with the bounds
    ("error", "histgb"): {"nnkit": 0.9, "nnkit-best": 0.85},
    ("error", CHOSEN): {"nnkit-best": 0.97},
    ("error", "before"): {},
    ("RMSE", "realmlp"): {"nnkit": 0.95},
    ("1 - accuracy", "realmlp"): {"nnkit": 1.0},
}
CALIBRATION, SECONDS, FASTER, WORSE = 0.03, 10.0, 1 / 20, 1.03


def frame_of(rows: Iterable[Row], tables: Iterable[Table]) -> Any:
    """Return rows as a frame, with those of the boosted contender that validation chose for each table."""
    extra = ["accuracy", "validation error", "calibration error"]
    frame = pandas.DataFrame(rows, columns=["table", "split", "contender", "version", "error", *extra])
    tested = frame["table"].map({table.name: table.rows // 5 for table in tables})
    frame["1 - accuracy"] = 1 - frame["accuracy"] + 0.5 / tested
    frame["RMSE"] = frame["error"].where(frame["accuracy"].isna())
    checked = frame[frame["contender"].isin(BOOSTED)]
    means = checked.pivot_table(index="table", columns="contender", values="validation error")
    chosen = means.dropna().idxmin(axis=1) if len(means.columns) == len(BOOSTED) else {}
    best = checked[checked["contender"] == checked["table"].map(chosen)]
    return pandas.concat([frame, best.assign(contender=CHOSEN)], ignore_index=True)


def summary(rows: Iterable[Row], tables: Sequence[Table]) -> Iterator[Record]:
    """Yield the errors on each table, and each contender's ratios over the tables."""
    frame = frame_of(rows, tables)
    here = [name for name in (*CONTENDERS, CHOSEN) if name in {*frame["contender"]}]
    errors = dict(iter(frame.groupby(["table", "contender"])["error"]))
    for table in tables:
        found = {name: errors[table.name, name] for name in here if (table.name, name) in errors}
        figures = {name: measured("", values.to_numpy()) for name, values in found.items()}
        about = f"{table.name}, {'RMSE' if table.regression else 'log loss'}"
        yield Record("tables", about, parameters={"rows": table.rows}, figures=figures)
    for name in here:
        yield standing(frame, name)


def standing(frame: Any, name: str) -> Record:
    """Return a contender's ratios over the tables, beside their aims."""
    own = frame[frame["contender"] == name]
    figures, details = {"tables": once("", own["table"].nunique())}, {}
    for (figure, other), bounds in RATIOS.items():
        theirs = frame[frame["contender"] == other]
        pairs = own.merge(theirs, on=["table", "split"], suffixes=("", " of other")).dropna(subset=figure)
        if name == other or pairs.empty:
            continue
        pairs["difference"] = pairs[figure] - pairs[f"{figure} of other"]
        tables = pairs.groupby("table")
        base = tables[f"{figure} of other"].mean()
        ratios = tables[figure].mean() / base
        aim = Aim("<=", bounds[name]) if name in bounds else None
        figures[f"{figure} / {other}"] = once("", np.exp(np.log(ratios).mean()), aim)
        details[f"{figure} / {other}"] = ratios.to_dict()
        if (name, other) == ("nnkit", "before"):
            allowed = (1 + tables["difference"].sem() / base).fillna(1).clip(lower=WORSE)
            details["worst table"] = worst = (ratios / allowed).idxmax()
            figures["worst table / before"] = once("", ratios[worst], Aim("<=", allowed[worst]))
    if own["calibration error"].any():
        aim = Aim("<=", CALIBRATION) if name == "nnkit" else None
        figures["greatest calibration error"] = once("", own["calibration error"].max(), aim)
    parameters: dict[str, int | float | str] = {"version": ", ".join(sorted({*own["version"]}))}
    return Record("over the tables", name, parameters=parameters, figures=figures, details=details)


def timed(names: Sequence[str], tables: Iterable[Table], turns: int) -> Iterator[Record]:
    """Yield the seconds of trainings in turns, on the rows of the first split."""
    medians = []
    for table in tables:
        rows = table.split(0)[0]
        with tempfile.TemporaryDirectory() as folder:
            trainings = {name: partial(CONTENDERS[name], table, rows, Path(folder)) for name in names}
            taken = in_turns(trainings, turns)
        figures = {name: measured("s", seconds) for name, seconds in taken.items()}
        if {"nnkit", "realmlp"} <= taken.keys():
            figures["nnkit / realmlp"] = measured("", taken["nnkit"] / taken["realmlp"], Aim("<=", FASTER))
        medians += [figures["nnkit"].median] if "nnkit" in figures else []
        yield Record("time", table.name, parameters={"rows": len(rows)}, figures=figures)
    if medians:
        figures = {"a table": measured("s", np.array(medians), Aim("<=", SECONDS))}
        yield Record("time", "nnkit", figures=figures)


def main() -> None:
    """Measure what is missing, save each row, and sum up all that there are."""
    options = parser(__doc__)
    for name, about in (("contenders", f"of {', '.join(CONTENDERS)}"), ("tables", "their names")):
        options.add_argument(f"--{name}", type=lambda text: text.split(","), help=f"{about}; else all")
    options.add_argument("--splits", type=int, default=10, help="at most so many of a table")
    options.add_argument("--time", action="store_true", help="time trainings in turns, and measure no error")
    given = options.parse_args()
    require("tables")
    every, names = read_tables(), given.contenders or [*CONTENDERS]
    asked = given.tables or (TINY if given.tiny else TIMED if given.time else [*every])
    if unknown := {*names, *asked} - {*CONTENDERS, *every}:
        options.error(f"there is no {', '.join(unknown)}; there are {', '.join([*CONTENDERS, *every])}")
    tables, here = [every[name] for name in asked], [name for name in names if is_here(name)]
    path = given.out or BENCH / "results" / "tables.json"
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch, "rows") if given.tiny else path.with_name(f"{path.stem}-rows.jsonl")
        if given.time:
            made = timed(here, tables, 1 if given.tiny else 3)
        else:
            found = measure_missing(rows, here, tables, 1 if given.tiny else given.splits)
            made = summary(found, tables if given.tiny else [*every.values()])
        save(given, "Tables", __doc__, made, keep=True)


if __name__ == "__main__":
    main()
