"""Classify SMS spam beside scikit-learn's pipelines: `python bench/text.py`.

5,574 messages in random splits of 80/20, the same for all; F1 is that of spam. nnkit trains with its
defaults, a process from its start to its end that compiles in the first split; scikit-learn fits within one
process. The messages are read from ../shared/data/sms_spam.tsv.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from program import DATA, parser, require, run_nnkit, save

from nnkit.bench.records import Aim, Record, measured, once
from nnkit.bench.timing import seconds_on_host

SPAM, NNKIT = "spam", "nnkit"
AIMS = {"F1": Aim(">=", 0.94), "accuracy": Aim(">=", 0.985)}


def pipelines() -> dict[str, Any]:
    """Return scikit-learn's pipelines by name."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline

    pairs = TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=100, max_iter=1000)
    return {
        "TF-IDF, LogisticRegression": make_pipeline(TfidfVectorizer(), LogisticRegression()),
        "TF-IDF of 1- and 2-grams, LogisticRegression(C=100)": make_pipeline(*pairs),
        "TF-IDF, MLPClassifier": make_pipeline(TfidfVectorizer(), MLPClassifier(random_state=0)),
    }


def train(lines: np.ndarray, texts: np.ndarray, folder: Path) -> tuple[list[str], float]:
    """Train on lines with `nnkit train`; return its answers to texts, and its seconds."""
    from nnkit import load

    data, run = folder / "train.tsv", folder / "run"
    data.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    ended = run_nnkit(["train", str(data), "--target", "0", "--out", str(run)], folder / "cache")
    model = load(run / "model.safetensors")
    answers = model.predict(model.preprocessor.table_of_texts(texts.tolist())).tolist()
    shutil.rmtree(run)
    return answers, ended.seconds


def measure(splits: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return F1, accuracy and seconds of every contender on every split."""
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.model_selection import train_test_split

    lines = np.array((DATA / "sms_spam.tsv").read_bytes().decode().rstrip("\n").split("\n"))
    labels, texts = np.array([line.split("\t", 1) for line in lines]).T
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(splits):
            kept, asked = train_test_split(np.arange(len(lines)), test_size=0.2, random_state=seed)
            answered = {NNKIT: train(lines[kept], texts[asked], Path(folder))}
            for name, pipeline in pipelines().items():
                taken = seconds_on_host(partial(pipeline.fit, texts[kept], labels[kept]))
                answered[name] = (pipeline.predict(texts[asked]), taken)
            for name, (answers, taken) in answered.items():
                f1 = f1_score(labels[asked], answers, pos_label=SPAM)
                scores = (float(f1), float(accuracy_score(labels[asked], answers)), taken)
                found.setdefault(name, []).append(scores)
    return found


def records(tiny: bool) -> Iterator[Record]:
    """Yield a record for each contender."""
    require("sms_spam.tsv")
    for name, splits in measure(1 if tiny else 5).items():
        f1, accuracy, taken = np.array(splits).T
        aims = AIMS if name == NNKIT else {}
        figures = {
            "F1": measured("%", f1, aims.get("F1")),
            "accuracy": measured("%", accuracy, aims.get("accuracy")),
            "training": measured("s", taken),
        }
        if name == NNKIT:
            figures["slowest training"] = once("s", taken.max(), Aim("<=", 20.0))
        details = {"F1": f1.tolist(), "accuracy": accuracy.tolist(), "seconds": taken.tolist()}
        yield Record("spam", name, figures=figures, details={"splits": details})


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    save(given, "Spam", __doc__, records(given.tiny))
