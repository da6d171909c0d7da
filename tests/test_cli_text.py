"""Text on the command line: messages, folders, JSON Lines, word vectors, thresholds and single texts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score
from test_cli import metrics_of, nnkit, read_csv, same_weights, succeed

from nnkit import load, load_dataset

GOOD = ["lunch", "home", "tonight", "see", "work", "friend", "family", "book", "train", "tea", "garden"]
BAD = ["prize", "winner", "cash", "claim", "free", "urgent", "call", "win", "£", "voucher", "offer", "0900"]
PLAIN = ("--epochs", 12, "--set", "training.batch_size=16")


def messages(count: int = 240, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return labels and messages; the words tell most of the labels."""
    random = Random(seed)
    labels = [random.choice(("good", "good", "bad")) for _ in range(count)]
    both = [(GOOD, BAD) if label == "good" else (BAD, GOOD) for label in labels]
    texts = [
        " ".join(random.choices(own, k=6) + random.choices(other, k=2) + random.choices(("you", "the"), k=3))
        for own, other in both
    ]
    return labels, texts


def write_tsv(path: Path, labels: list[str], texts: list[str]) -> Path:
    rows = (f"{label}\t{text}\n" for label, text in zip(labels, texts, strict=True))
    path.write_text("".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tsv(tmp_path_factory.mktemp("mails") / "mails.tsv", *messages())


@pytest.fixture(scope="module")
def filtered(mails: Path) -> Path:
    """Return the run folder of a model of the mails."""
    succeed("train", mails, "--target", 0, *PLAIN, "--out", mails.parent / "run")
    return mails.parent / "run"


# --- train ---


def test_a_text_column_is_found_and_said_and_learnt(mails: Path, tmp_path: Path) -> None:
    out = succeed("train", mails, "--target", 0, *PLAIN, "--out", tmp_path / "run")
    said = re.search(
        r"^text +'1': words, .* in a vocabulary of ([\d,]+); ([\d,]+) tokens in 216 rows$", out, re.M
    )
    assert said is not None
    assert int(said[2].replace(",", "")) == 216 * 11
    assert "no hidden layers, learning_rate = 0.01" in out
    assert f"network  mean of {int(said[1].replace(',', '')) + 1:,} × 64 → 1" in out
    test = write_tsv(tmp_path / "test.tsv", *messages(100, 1))
    assert metrics_of(tmp_path / "run", test)["accuracy"] > 0.9


def test_settings_of_the_user_win(mails: Path, tmp_path: Path) -> None:
    out = succeed(
        *("train", mails, "--target", 0, "--hidden", "8", "--learning-rate", 0.003, "--epochs", 1),
        *("--set", "text.width=5", "--set", "text.reduce=sum", "--set", "text.word_ngrams=1"),
        *("--set", "text.char_ngrams=[]", "--out", tmp_path / "run"),
    )
    assert "for text alone" not in out
    assert re.search(r"^network  sum of 26 × 5 → 8 relu → 1$", out, re.M)  # 11 + 12 + 2 words, and the unseen
    assert "adam at 0.003" in out
    text = load(tmp_path / "run/model.safetensors").preprocessor.text_columns[0]
    assert (text.word_ngrams, text.char_ngrams) == (1, None)


def test_a_config_retrains_to_the_same_weights(filtered: Path, tmp_path: Path) -> None:
    succeed("train", filtered / "config.toml", "--out", tmp_path / "again")
    assert same_weights(filtered / "model.safetensors", tmp_path / "again/model.safetensors")


@pytest.mark.parametrize(
    "settings",
    [
        ("text.tfidf=true",),
        ("text.hashing=512",),
        ("text.hashing=512", "text.tfidf=true", "text.reduce=mean"),
        ("text.reduce=max", "text.char_ngrams=[2, 4]"),
        ("run.precision=fp64",),
    ],
)
def test_every_way_to_encode_learns(settings: tuple[str, ...], mails: Path, tmp_path: Path) -> None:
    given = [part for setting in settings for part in ("--set", setting)]
    succeed("train", mails, "--target", 0, *PLAIN, *given, "--out", tmp_path / "run")
    test = write_tsv(tmp_path / "test.tsv", *messages(100, 1))
    assert metrics_of(tmp_path / "run", test)["accuracy"] > 0.9


@pytest.mark.slow
def test_text_beside_numbers_and_categories(tmp_path: Path) -> None:
    """Neither the text nor the number tells the answer alone: their parity does."""
    random = Random(3)
    labels, texts = messages(400)
    sign = [random.choice((-1.0, 1.0)) for _ in labels]
    answer = [
        ("yes", "no")[(label == "good") == (value > 0)] for label, value in zip(labels, sign, strict=True)
    ]
    colours = [random.choice(("red", "blue")) for _ in labels]
    table = pa.table({"text": texts, "sign": sign, "colour": colours, "title": texts, "target": answer})
    pq.write_table(table, tmp_path / "rows.parquet")
    for categories in ("onehot", "embed"):
        out = succeed(
            *("train", tmp_path / "rows.parquet", "--epochs", 30, "--learning-rate", 0.003),
            *(
                "--set",
                f"data.categories={categories}",
                "--set",
                "data.text=[text, title]".replace("text, title", '"text", "title"'),
            ),
            *("--set", "training.batch_size=16", "--out", tmp_path / categories),
        )
        embedded = "1 + mean of" if categories == "embed" else "3 + mean of"
        assert f"network  {embedded}" in out
        assert ("sum of 2 × 8" in out) == (categories == "embed")
        assert metrics_of(tmp_path / categories, tmp_path / "rows.parquet")["accuracy"] > 0.9
    assert "several columns of text" in nnkit("predict", tmp_path / "embed", "--text", "x").err


def test_other_tasks_learn_from_text(tmp_path: Path) -> None:
    random = Random(5)
    topics = {"sea": ["wave", "ship"], "sky": ["cloud", "star"], "soil": ["root", "worm"]}
    names = [random.choice(list(topics)) for _ in range(200)]
    texts = [" ".join(random.choices(topics[name], k=4)) for name in names]
    rows = [
        {"words": text, "class": name, "length": len(text) + 0.5}
        for text, name in zip(texts, names, strict=True)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--set", "data.text=words", "--set", "data.drop=length", *PLAIN)
    succeed("train", path, *options, "--out", tmp_path / "run")
    assert metrics_of(tmp_path / "run", path)["accuracy"] == 1.0
    assert re.fullmatch(
        r"sea 0\.\d{4}", succeed("predict", tmp_path / "run", "--text", "ship ship wave").strip()
    )
    assert "leave out --threshold" in nnkit("evaluate", tmp_path / "run", path, "--threshold", 0.3).err
    options = ("--target", "length", "--set", "data.text=words", "--set", "data.drop=class", "--epochs", 60)
    succeed("train", path, *options, "--out", tmp_path / "lengths")
    assert float(succeed("predict", tmp_path / "lengths", "--text", "cloud cloud cloud cloud")) > 20


def test_resuming_in_mid_training_is_bit_exact(mails: Path, tmp_path: Path) -> None:
    options = (
        "--target",
        0,
        "--epochs",
        30,
        "--set",
        "training.batch_size=4",
        "--set",
        "run.checkpoint_every='5 steps'",
    )
    succeed("train", mails, *options, "--out", tmp_path / "whole")
    program = "from nnkit.cli import main; main()"
    arguments = ["train", mails, *options, "--out", tmp_path / "cut"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cut/checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.wait()
    if process.returncode == 0:
        pytest.skip("the training was over before the signal")
    succeed("train", "--resume", tmp_path / "cut")
    assert same_weights(tmp_path / "whole/model.safetensors", tmp_path / "cut/model.safetensors")


# --- sources ---


def test_a_folder_of_texts_is_the_table_of_its_files(tmp_path: Path) -> None:
    labels, texts = messages(80)
    for place, (label, text) in enumerate(zip(labels, texts, strict=True)):
        (tmp_path / "mails" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mails" / label / f"{place:03}.txt").write_text(text, encoding="utf-8")
    dataset = load_dataset(tmp_path / "mails")
    rows = sorted(zip(labels, range(80), texts, strict=True))
    assert dataset.train.target is not None
    assert dataset.train.target.tolist() == [label for label, _, _ in rows]
    assert dataset.train.features.to_pydict() == {"text": [text for _, _, text in rows]}
    out = succeed("train", tmp_path / "mails", *PLAIN, "--out", tmp_path / "run")
    assert "text     'text': words" in out
    assert metrics_of(tmp_path / "run", tmp_path / "mails")["accuracy"] > 0.9
    lines = succeed("predict", tmp_path / "run", tmp_path / "mails" / "bad").splitlines()
    assert len(lines) == 1 + labels.count("bad")
    assert lines.count('"bad"') > 0.9 * labels.count("bad")
    assert "put those of each class into a subfolder" in nnkit("train", tmp_path / "mails" / "bad").err


def test_training_and_test_parts_of_a_folder_of_texts(tmp_path: Path) -> None:
    """The layout of aclImdb, which is measured and predicted too."""
    labels, texts = messages(160)
    folder = tmp_path / "reviews"
    for place, (label, text) in enumerate(zip(labels, texts, strict=True)):
        part = "test" if place % 4 == 0 else "train"
        (folder / part / label).mkdir(parents=True, exist_ok=True)
        (folder / part / label / f"{place:03}.txt").write_text(text, encoding="utf-8")
    (folder / "train" / "unsup").mkdir()
    (folder / "train" / "unsup" / "1.txt").write_text("the you")
    (folder / "README").write_text("about the reviews")
    (folder / "train" / "urls_good.txt").write_text("http://example.org")
    run = tmp_path / "run"
    out = succeed("train", folder, *PLAIN, "--out", run)
    assert re.search(r"reviews: \d+ rows to train on, \d+ held out, 40 to test on \(binary, 2 classes\)", out)
    assert f"{folder / 'train' / 'unsup'} is left out" in out
    result = nnkit("evaluate", run, folder, "--json")
    assert json.loads(result.out)["rows"] == 40
    assert json.loads(result.out)["metrics"]["accuracy"] > 0.9
    assert "urls_good.txt: left out" in result.err
    assert json.loads(succeed("evaluate", run, folder / "train", "--json", "--quiet"))["rows"] == 120
    lines = succeed("predict", run, folder / "test", "--keep", "path").splitlines()
    assert lines[0] == '"path","class"'
    found = [line.replace('"', "").split(",") for line in lines[1:]]
    assert [path for path, _ in found] == [str(path) for path in sorted((folder / "test").rglob("*.txt"))]
    assert sum(Path(path).parent.name == label for path, label in found) > 36
    assert len(succeed("predict", run, folder, "--quiet").splitlines()) == 1 + 160 + 1


def test_sources_hold_the_same_rows(mails: Path, tmp_path: Path) -> None:
    labels, texts = messages()
    table = pa.table({"label": labels, "text": texts})
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    lines = (
        json.dumps({"label": a, "text": b}, ensure_ascii=False) for a, b in zip(labels, texts, strict=True)
    )
    (tmp_path / "x.jsonl").write_text("\n".join(lines), encoding="utf-8")
    expected = load_dataset(mails, target=0)
    for name in ("x.parquet", "x.arrow", "x.jsonl"):
        found = load_dataset(tmp_path / name)
        assert found.train.target is not None
        assert found.train.target.tolist() == labels
        assert found.train.features["text"].to_pylist() == expected.train.features["1"].to_pylist() == texts


ODD_TEXTS = {
    "emoji": "😀👨\u200d👩\u200d👧 free ❤\ufe0f",
    "right to left": "שלום עולם مرحبا",
    "empty": "",
    "unseen": "qwertz asdfgh",
    "quotes": "say \"now\" or 'never'",
    "long": "free " * 200_000,
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_texts_are_trained_on_and_predicted(name: str, filtered: Path, tmp_path: Path) -> None:
    labels, texts = messages(60)
    texts[7], texts[11] = ODD_TEXTS[name], ODD_TEXTS[name]
    path = write_tsv(tmp_path / "x.tsv", labels, texts)
    succeed("train", path, "--target", 0, "--epochs", 1, "--out", tmp_path / "run")
    predicted = succeed("predict", filtered, path).splitlines()
    assert len(predicted) == 61
    if len(ODD_TEXTS[name]) < 1000:
        assert re.fullmatch(
            r"(good|bad) [01]\.\d{4}\n", succeed("predict", filtered, "--text", ODD_TEXTS[name])
        )


# --- evaluate and predict ---


def test_a_text_is_predicted_with_its_probability(filtered: Path, tmp_path: Path) -> None:
    out = succeed("predict", filtered, "--text", "claim your free prize cash", "--text", "tea in the garden")
    lines = [line.split() for line in out.splitlines()]
    assert [label for label, _ in lines] == ["bad", "good"]
    shares = load(filtered / "model.safetensors").predict_proba(
        pa.table({"1": ["claim your free prize cash", "tea in the garden"]})
    )
    assert [float(share) for _, share in lines] == [round(shares[0, 0], 4), round(shares[1, 1], 4)]
    succeed("predict", filtered, "--text", "tea", "--out", tmp_path / "p.csv")
    assert read_csv(tmp_path / "p.csv") == {"0": ["good"]}
    assert "probability_bad" in succeed("predict", filtered, "--text", "tea", "--proba")


def test_the_threshold_moves_the_answers_and_the_figures(filtered: Path, mails: Path, tmp_path: Path) -> None:
    labels, texts = messages(200, 2)
    path = write_tsv(tmp_path / "x.tsv", labels, texts)
    model = load(filtered / "model.safetensors")
    good = model.predict_proba(pa.table({"1": texts}))[:, 1]
    truth = np.array(labels) == "good"
    for threshold in (0.05, 0.5, 0.9, 1.0):
        answers = good > threshold
        measured = json.loads(succeed("evaluate", filtered, path, "--threshold", threshold, "--json"))
        assert measured["positive"] == "good"
        assert measured["threshold"] == threshold
        for name, function in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
            expected = function(truth, answers, zero_division=0)
            assert measured["metrics"][name] == pytest.approx(expected, abs=1e-12)
        predicted = succeed("predict", filtered, path, "--threshold", threshold).splitlines()[1:]
        assert predicted == [f'"{("bad", "good")[answer]}"' for answer in answers.astype(int)]
    assert measured["best_threshold"] == model.details["best_threshold"]
    shown = succeed("evaluate", filtered, path)
    assert "f1, precision and recall are of 'good', predicted above 0.5" in shown
    assert f"with --threshold {model.details['best_threshold']['threshold']:.4g}" in shown


def test_the_best_threshold_is_that_of_the_validation_rows(mails: Path, tmp_path: Path) -> None:
    labels, texts = messages(150, 7)
    held = write_tsv(tmp_path / "held.tsv", labels, texts)
    succeed("train", mails, "--target", 0, "--epochs", 1, "--validation", held, "--out", tmp_path / "run")
    model = load(tmp_path / "run/model.safetensors")
    best = model.details["best_threshold"]
    good, truth = model.predict_proba(pa.table({"1": texts}))[:, 1], np.array(labels) == "good"
    assert f1_score(truth, good > best["threshold"]) == pytest.approx(best["f1"], abs=1e-12)
    assert best["f1"] >= max(f1_score(truth, good > step) for step in np.linspace(0, 1, 400)) - 1e-12
    assert best["f1"] == metrics_of_threshold(tmp_path / "run", held, best["threshold"])


def metrics_of_threshold(run: Path, data: Path, threshold: float) -> float:
    return json.loads(succeed("evaluate", run, data, "--threshold", threshold, "--json"))["metrics"]["f1"]


def test_info_tells_of_the_text(filtered: Path) -> None:
    out = succeed("info", filtered)
    assert re.search(r"^positive class +good$", out, re.M)
    assert re.search(
        r"^text +'1': words, runs of up to 2 and characters, runs of 3 to 5, in a vocab", out, re.M
    )
    assert re.search(r"^best threshold +0\.\d+, with f1", out, re.M)
    assert re.search(r"^layers +mean of [\d,]+ × 64 → 1$", out, re.M)


# --- word vectors ---


@pytest.mark.parametrize("header", [True, False])
def test_words_begin_from_the_vectors_of_a_file(header: bool, mails: Path, tmp_path: Path) -> None:
    words = [*GOOD, "Prize", "zebra"]
    vectors = np.random.default_rng(0).normal(size=(len(words), 7)).astype(np.float32)
    lines = [f"{word} {' '.join(map(repr, row.tolist()))}" for word, row in zip(words, vectors, strict=True)]
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join([*([f"{len(words)} 7"] if header else []), *lines]) + "\n")
    config = tmp_path / "my.toml"
    config.write_text(
        f'[data]\ntrain = "{mails}"\ntarget = 0\n'
        '[text]\nvectors = "vectors.txt"\nchar_ngrams = []\nword_ngrams = 1\n'
        "[training]\nepochs = 1\nlearning_rate = 1e-30\nschedule = 'constant'\n"
    )
    out = succeed("train", config, "--out", tmp_path / "run")
    assert "12 of the 25 words of '1' (48.0 %) begin from the vectors of width 7 in vectors.txt" in out
    model = load(tmp_path / "run/model.safetensors")
    table = model.network.parameters()["layers.0.weight"]
    places = model.preprocessor.text_columns[0].places
    assert table.shape == (26, 7)
    np.testing.assert_array_equal(table[[places[word.lower()] for word in words[:-1]]], vectors[:-1])
    succeed("train", tmp_path / "run/config.toml", "--out", tmp_path / "again")
    assert same_weights(tmp_path / "run/model.safetensors", tmp_path / "again/model.safetensors")


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("lunch 1 2 3\nhome 1 2\n", "line 2: expected a word and 3 numbers"),
        ("lunch 1 2 3\nhome 1 x 3\n", "line 2: 'x' stands where a number"),
        ("2 3\nlunch 1 nan 3\n", "line 2: it holds a number that is not finite"),
        ("lunch\n", "line 1: it is not a word followed by numbers"),
        ("", "there is no vector"),
        ("lunch 1 \0 3\n", "line 1: it is not text"),
    ],
)
def test_a_malformed_file_of_vectors_is_named(content: str, words: str, mails: Path, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text(content)
    _fails(words, "train", mails, "--target", 0, "--set", f"text.vectors={path}", "--out", tmp_path / "run")


def test_invalid_utf8_is_named_with_its_line_and_byte(filtered: Path, tmp_path: Path) -> None:
    labels, texts = messages(80)
    content = write_tsv(tmp_path / "x.tsv", labels, texts).read_bytes().split(b"\n")
    content[59] = b"good\tcaf\xe9 " + content[59][5:]
    for name in ("x.tsv", "x.csv"):
        (tmp_path / name).write_bytes(b"\n".join(content))
        _fails("line 60 is not UTF-8 text (its byte 9 is 0xe9)", "train", tmp_path / name, "--target", 0)
        _fails('data.encoding = "latin-1"', "predict", filtered, tmp_path / name)
    (tmp_path / "x.jsonl").write_bytes(b'{"a": "x", "target": 1}\n{"a": "\xff", "target": 0}\n')
    _fails("line 2 is not UTF-8 text (its byte 8 is 0xff)", "train", tmp_path / "x.jsonl")
    (tmp_path / "texts/a").mkdir(parents=True)
    (tmp_path / "texts/a/1.txt").write_bytes(b"abc\xff")
    _fails("1.txt: byte 4 is not UTF-8 text", "train", tmp_path / "texts")
    _fails("a text is not UTF-8", "predict", filtered, "--text", "caf\udce9")


def test_mistakes_of_json_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for content, words in (
        ('{"a": 1, "target": 1}\n{"a": 2, "a": 3, "target": 0}\n', "in row 1 (counting from 0)"),
        ("[1, 2]", "write each row as an object"),
        ('{"a": 1\n', "not readable as JSON Lines"),
        ("\n\n", "the file is empty"),
        ('{"a": {"b": 1}, "target": 1}\n' * 3, "drop it or split it into columns"),
    ):
        path.write_text(content)
        _fails(words, "train", path, "--target", "target")


def test_a_row_of_json_lines_is_named_only_where_its_number_is_known(tmp_path: Path) -> None:
    # Arrow reads a file in blocks of a mebibyte and counts the rows of each from 0.
    rows = [json.dumps({"a": row, "target": row % 2, "filling": "x" * 100}) for row in range(20_000)]
    rows[15_000] = '{"a": 1, "a": 2}'
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    result = nnkit("train", tmp_path / "x.jsonl")
    assert result.code == 2
    assert "specified twice" in result.err
    assert "in row" not in result.err


def test_mistakes_of_settings_are_named(filtered: Path, mails: Path, tmp_path: Path) -> None:
    train = ("train", mails, "--target", 0, "--out", tmp_path / "run", "--set")
    _fails("text.char_ngrams must be", *train, "text.char_ngrams=[5, 3]")
    _fails("text.reduce must be mean or sum", *train, "text.tfidf=true", "--set", "text.reduce=max")
    _fails("text.vectors must be left out", *train, "text.hashing=8", "--set", "text.vectors=x")
    _fails("column '0' is the target", *train, "data.text=[0]")
    _fails("there is no column 'body'", *train, "data.text=body")
    _fails("no column is text", "train", "iris", "--set", "text.vectors=x")
    _fails("give a table", "train", "digits", "--set", "data.text=x")
    _fails("from 0 to 1", "evaluate", filtered, mails, "--threshold", 1.5)
    _fails("either DATA", "predict", filtered)
    _fails("either DATA", "predict", filtered, mails, "--text", "x")
    _fails("leave one of them out", "predict", filtered, mails, "--proba", "--threshold", 0.3)
    _fails("no columns of text", "predict", _digits(tmp_path), "--text", "x")


def _digits(folder: Path) -> Path:
    succeed("train", "digits", "--hidden", 4, "--epochs", 1, "--out", folder / "digits")
    return folder / "digits"


def _fails(words: str, *arguments: Any) -> None:
    result = nnkit(*arguments)
    assert result.code == 2, result.out
    assert words in result.err
    assert len(result.err.splitlines()) <= 2


# --- real data ---


def test_spam_is_found_with_the_defaults(shared_data: Path, tmp_path: Path) -> None:
    lines = (shared_data / "sms_spam.tsv").read_bytes().decode().rstrip("\n").split("\n")
    order = np.random.default_rng(0).permutation(len(lines))
    cut = round(0.8 * len(lines))
    for name, rows in (("train", order[:cut]), ("test", order[cut:])):
        (tmp_path / f"{name}.tsv").write_text("".join(f"{lines[row]}\n" for row in rows), encoding="utf-8")
    out = succeed("train", tmp_path / "train.tsv", "--target", 0, "--out", tmp_path / "run")
    assert f"train: {cut - round(cut * 0.1):,} rows to train on" in out
    metrics = metrics_of(tmp_path / "run", tmp_path / "test.tsv")
    assert metrics["f1"] > 0.92
    assert metrics["accuracy"] > 0.98
    said = succeed("predict", tmp_path / "run", "--text", "You have won £1000! Call 09061701461 now to claim")
    assert re.fullmatch(r"spam (0\.9|1\.0)\d{3}\n", said)
