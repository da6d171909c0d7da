"""Compare on SMS spam with scikit-learn and write it as JSON: `python bench/text.py [NAME]`.

Five random splits of 80/20, the same for all. nnkit trains from the shell with its defaults, one process
each, its start included, and compiling in the first; scikit-learn fits a pipeline here, in turns with it.
The messages are read from ../shared/data/sms_spam.tsv.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
MESSAGES = BENCH.parents[1] / "shared" / "data" / "sms_spam.tsv"
SEEDS = range(5)
SPAM = "spam"
AIMS = {"f1": 0.94, "accuracy": 0.985, "seconds": 20.0}

Answers = list[str]


def nnkit_trains(lines: list[str], texts: list[str], folder: Path) -> tuple[Answers, float]:
    """Return the answers of a model that `nnkit train` made of these lines, and the training's seconds."""
    data, run = folder / "train.tsv", folder / "run"
    data.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-c", "from nnkit.cli import main; main()", "train", str(data)]
    began = time.perf_counter()
    subprocess.run([*command, "--target", "0", "--out", str(run)], stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - began
    from nnkit import load

    model = load(run / "model.safetensors")
    answers = model.predict(model.preprocessor.table_of_texts(texts)).tolist()
    shutil.rmtree(run)
    return answers, seconds


def pipelines() -> dict[str, Callable[[], Any]]:
    """Return what makes each of scikit-learn's pipelines anew."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline

    return {
        "TF-IDF, LogisticRegression": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()),
        "TF-IDF of 1- and 2-grams, LogisticRegression(C=100)": lambda: make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=100, max_iter=1000)
        ),
        "TF-IDF, MLPClassifier": lambda: make_pipeline(TfidfVectorizer(), MLPClassifier(random_state=0)),
    }


def scores(truth: list[str], answers: Answers, seconds: float) -> dict[str, float]:
    """Return the F1 of spam, the accuracy, and the seconds, counted here."""
    right = [told == answer for told, answer in zip(truth, answers, strict=True)]
    hits = sum(told == answer == SPAM for told, answer in zip(truth, answers, strict=True))
    f1 = 2 * hits / (truth.count(SPAM) + answers.count(SPAM))
    return {"f1": f1, "accuracy": sum(right) / len(right), "seconds": seconds}


def measure() -> dict[str, Any]:
    """Train every contender on every split, in turns."""
    from sklearn.model_selection import train_test_split

    lines = MESSAGES.read_bytes().decode().rstrip("\n").split("\n")
    labels, texts = ([line.split("\t", 1)[place] for line in lines] for place in (0, 1))
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NNKIT_CACHE"] = str(Path(folder) / "cache")  # so that the first training compiles
        for seed in SEEDS:
            train, test = train_test_split(range(len(lines)), test_size=0.2, random_state=seed)
            truth, asked = [labels[row] for row in test], [texts[row] for row in test]
            answers, seconds = nnkit_trains([lines[row] for row in train], asked, Path(folder))
            results.setdefault("nnkit", []).append(scores(truth, answers, seconds))
            for name, make in pipelines().items():
                began = time.perf_counter()
                fitted = make().fit([texts[row] for row in train], [labels[row] for row in train])
                seconds = time.perf_counter() - began
                results.setdefault(name, []).append(scores(truth, fitted.predict(asked).tolist(), seconds))
            print(seed, {name: {k: round(v, 4) for k, v in r[-1].items()} for name, r in results.items()})
    medians = {
        name: {key: statistics.median(split[key] for split in splits) for key in AIMS}
        for name, splits in results.items()
    }
    slowest = max(split["seconds"] for split in results["nnkit"])
    ours = {**medians["nnkit"], "seconds": slowest}
    reached = {key: ours[key] <= aim if key == "seconds" else ours[key] >= aim for key, aim in AIMS.items()}
    return {"rows": len(lines), "splits": results, "medians": medians, "aims": AIMS, "reached": reached}


def main() -> None:
    """Write bench/results/NAME.json."""
    name = sys.argv[1] if len(sys.argv) > 1 else "text"
    if not MESSAGES.is_file():
        raise SystemExit(f"{MESSAGES} is not there")
    results = measure()
    from nnkit.machine import describe_machine

    path = BENCH / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **results}, indent=2) + "\n")
    print(f"written to {path.relative_to(BENCH.parent)}")


if __name__ == "__main__":
    main()
