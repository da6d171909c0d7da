"""Delimited text, TOML and lines of JSON: good ones, and ones with odd cells, values and bytes."""

from __future__ import annotations

import bz2
import gzip
import json
from random import Random
from typing import Any

import pyarrow as pa

from hostile.mutations import alter_bytes, alter_tree, alter_words, random_bytes

__all__ = [
    "CONFIG_DATA",
    "VECTOR_WORDS",
    "delimited_file",
    "findings_file",
    "history_file",
    "json_document_file",
    "json_lines_file",
    "messages_file",
    "plain_text",
    "toml_file",
    "vectors_file",
]

_PLAIN_CELLS = (
    "NA NaN nan null ? inf -inf Infinity 1e999 -1e999 1e308 -1.7e308 1e-400 0 -0 +5 007 1.5.2 1,5 "
    "1_000 0x1F 9223372036854775807 9223372036854775808 true False 2024-02-30 2024-01-01 0001-01-01 "
    "12:00 1677-09-21 ' ü 日本 🙂 =1+1 # ; | , ,,,, target a 0,1,2"
)
_CELLS = (
    *_PLAIN_CELLS.split(),
    *("", " ", "9" * 400, "9999-12-31 23:59:59.999999999", '"', '""', '"a', 'a"b', '"a,b"', '"a\nb"'),
    *("a\rb", "\r", "\n", "\r\n", "\0", "\x0b", "\x1c", "\x85", "\u2028", "\ufeff", "e\u0301"),
    *("\u202e", "a" * 300, "b" * 140_000, "\\", "\\N", "\t", "x" + "," * 300),
)
_SHORT_CELLS = tuple(cell for cell in _CELLS if len(cell) < 40)
_ODD_BYTES = (
    b"\xff",
    b"\xfe\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\x80",
    b"\0",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
)
_LABELS = ("yes", "no")
_COLOURS = ("red", "green", "blue", "")


def _table(random: Random, rows: int) -> list[list[str]]:
    """Return rows of cells, the header first; numbers, texts, times, a number with gaps, and a target."""
    lines = [["a", "b", "colour", "when", "target"]]
    for row in range(rows):
        when = f"2024-01-{1 + row % 28:02}"
        gap = "" if row % 7 == 3 else f"{row * 0.5:g}"
        lines.append([f"{row % 5}", gap, _COLOURS[row % 4], when, _LABELS[row % 2]])
    if random.random() < 0.3:
        for row, line in enumerate(lines[1:]):
            line[4] = f"{row % 3}" if random.random() < 0.5 else f"{row / 3:g}"
    return lines[1:] if random.random() < 0.15 else lines


def delimited_file(random: Random, delimiter: str | None = None) -> bytes:
    """Return delimited text, altered in cells, lines or bytes, compressed now and then."""
    if random.random() < 0.04:
        return random_bytes(random)
    delimiter = delimiter or random.choice((",", ",", ",", ";", "|", " "))
    lines = _table(random, random.choice((1, 2, 12, 12, 60)))
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        line = random.choice(lines)
        line[random.randrange(len(line))] = random.choice(_CELLS)
    if random.random() < 0.3:
        column = random.randrange(len(lines[0]))
        for line in lines[random.randrange(2) :]:
            line[column] = random.choice(_SHORT_CELLS)
    _alter_shape(lines, random)
    text = random.choice(("\n", "\n", "\r\n", "\r")).join(delimiter.join(line) for line in lines)
    data = (text + random.choice(("\n", "\n", "", "\n\n", delimiter))).encode("utf-8", "surrogatepass")
    action = random.random()
    if action < 0.25:
        data = alter_bytes(data, random)
    elif action < 0.35:
        place = random.randrange(len(data) + 1)
        data = data[:place] + random.choice(_ODD_BYTES) + data[place:]
    elif action < 0.38:
        data = text.encode(random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig")), "surrogatepass")
    return _packed(data, random) if random.random() < 0.1 else data


def _packed(data: bytes, random: Random) -> bytes:
    """Return compressed bytes, altered half of the time."""
    packed = random.choice((_gzip, bz2.compress, _zstd))(data)
    return alter_bytes(packed, random, most=2) if random.random() < 0.5 else packed


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def _zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def _alter_shape(lines: list[list[str]], random: Random) -> None:
    """Make some lines longer, shorter, empty, or come twice."""
    action = random.random()
    place = random.randrange(len(lines))
    if action < 0.05:
        lines[place].append(random.choice(_CELLS))
    elif action < 0.1:
        del lines[place][random.randrange(len(lines[place])) :]
    elif action < 0.15:
        lines.insert(place, [random.choice(("", " ", "#"))])
    elif action < 0.2:
        lines.insert(place, list(lines[place]))
    elif action < 0.22:
        for line in lines:
            line += line * 40
    elif action < 0.225:
        for line in lines[:3]:
            line[:] = [f"{cell}{number}" for number in range(400) for cell in line]
        del lines[3:]


_MESSAGES = (
    "you have won a prize, call 0900 now",
    "see you at home tonight",
    "free prize! call now to win £100",
    "are you at home or at work",
)
_ODD_MESSAGES = (
    *("", " ", "?", "NA", "0", "1e5", "true", "2024-01-01", "'", '"', '"a', 'say "now" again', "\ufeffa"),
    *(
        "😀👨\u200d👩\u200d👧❤\ufe0f",
        "שלום עולם",
        "\u202eabc",
        "日本語の文",
        "e\u0301\u0301",
        "İ",
        "ß",
        "\x85",
        "\x1c",
    ),
    *("a" * 70_000, "a b " * 20_000, "!" * 5000, "\0", "\u2028", "\ufffd", "\U0010ffff", "<", "< >", "  <a"),
)


def plain_text(random: Random) -> bytes:
    """Return a text, altered now and then."""
    data = random.choice((*_MESSAGES, *_ODD_MESSAGES)).encode()
    if random.random() < 0.3:
        return random.choice((b"\xef\xbb\xbf", b"", *_ODD_BYTES)) + data
    return alter_bytes(data, random) if random.random() < 0.6 else data


def messages_file(random: Random) -> bytes:
    """Return a file of labels and messages between tabs, without a header, altered."""
    rows = [[_LABELS[row % 2], f"{_MESSAGES[row % 4]} {row}"] for row in range(random.choice((4, 24, 60)))]
    for _ in range(random.choice((0, 1, 3, 20))):
        random.choice(rows)[1] = random.choice(_ODD_MESSAGES)
    if random.random() < 0.2:
        random.choice(rows)[random.randrange(2)] = random.choice(_CELLS)
    data = "\n".join("\t".join(row) for row in rows).encode("utf-8", "surrogatepass")
    action = random.random()
    if action < 0.2:
        return alter_bytes(data, random)
    if action < 0.3:
        place = random.randrange(len(data) + 1)
        return data[:place] + random.choice(_ODD_BYTES) + data[place:]
    return gzip.compress(data, 1, mtime=0) if action < 0.35 else data


def _json_rows(random: Random) -> list[Any]:
    """Return examples as objects, of which some are altered."""
    names = ("a", "b", "colour", "when", "target")
    rows: list[Any] = [
        {"message": f"{_MESSAGES[row % 4]} {row}", **dict(zip(names, cells, strict=True))}
        for row, cells in enumerate(_table(random, 30)[-30:])
        if len(cells) == len(names)
    ]
    for row in rows if random.random() < 0.7 else ():
        row["a"] = int(row["a"]) if str(row["a"]).isdigit() else None
    for _ in range(random.choice((0, 1, 2, 5))):
        place = random.randrange(len(rows))
        rows[place] = alter_tree(rows[place], random)
    whole = [row for row in rows if isinstance(row, dict)]
    if random.random() < 0.2 and whole:
        random.choice(whole)["message"] = random.choice(_ODD_MESSAGES)
    return rows


def json_lines_file(random: Random) -> bytes:
    """Return lines of JSON, an example each, altered in values, keys, lines or bytes."""
    if random.random() < 0.04:
        return random_bytes(random)
    lines = [json.dumps(row, ensure_ascii=random.random() < 0.5) for row in _json_rows(random)]
    text = "\n".join(lines)
    if random.random() < 0.2:
        odd = ("", "{", "[]", "null", '{"a":', '{"a": 1, "a": 2}', "[" * 5000, '{"a": ' * 5000, '"\\ud800"')
        text = alter_words(text, random, "\n", odd, 2)
    data = text.encode("utf-8", "surrogatepass")
    action = random.random()
    if action < 0.2:
        data = alter_bytes(data, random)
    elif action < 0.3:
        place = random.randrange(len(data) + 1)
        data = data[:place] + random.choice(_ODD_BYTES) + data[place:]
    return _packed(data, random) if random.random() < 0.1 else data


def json_document_file(random: Random) -> bytes:
    """Return a JSON document that holds a table in one of its shapes, altered in its tree or its bytes."""
    rows = _json_rows(random)
    whole = [row for row in rows if isinstance(row, dict)]
    columns: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(whole):
        for key, value in row.items():
            columns.setdefault(str(key), {})[str(number)] = value
    shapes: tuple[Any, ...] = (
        rows,
        {"data": rows},
        {"schema": {"primaryKey": ["a"]}, "data": rows},
        columns,
        {str(number): row for number, row in enumerate(whole)},
        {"columns": list(columns), "index": [], "data": [list(row.values()) for row in whole]},
        {name: list(column.values()) for name, column in columns.items()},
        [list(row.values()) for row in whole],
    )
    document = random.choice(shapes)
    if random.random() < 0.3:
        document = alter_tree(document, random)
    text = json.dumps(document, indent=random.choice((None, 1)), ensure_ascii=random.random() < 0.5)
    data = text.encode("utf-8", "surrogatepass")
    if random.random() < 0.3:
        data = alter_bytes(data, random)
    return _packed(data, random) if random.random() < 0.1 else data


VECTOR_WORDS = ("free", "prize", "call", "home", "you", "été")
"""What the files of word vectors hold."""


def vectors_file(random: Random) -> bytes:
    """Return word vectors, altered in lines, numbers or bytes."""
    if random.random() < 0.05:
        return random_bytes(random)
    lines = [f"{word} {number} -0.5 1e-3" for number, word in enumerate(VECTOR_WORDS)]
    if random.random() < 0.5:
        lines.insert(0, random.choice((f"{len(VECTOR_WORDS)} 3", "1 1", "9999999999999 3", "6 x")))
    text = "\n".join(lines)
    odd = (
        "",
        "free",
        "free 1",
        "free 1 2 3 4",
        "free  1 2 3",
        "free nan 1 2",
        "free 1e999 0 0",
        "free 1e39 0 0",
    )
    odd += (
        "free x 1 2",
        ". . . 1 2 3",
        "Free 1 2 3",
        "x" * 70_000,
        "free 0x1 1_0 2",
        "free 1 2 3\0",
        " 1 2 3",
    )
    if random.random() < 0.7:
        text = alter_words(text, random, "\n", odd, 2)
    data = text.encode()
    if random.random() < 0.3:
        data = alter_bytes(data, random)
    return gzip.compress(data, 1, mtime=0) if random.random() < 0.1 else data


CONFIG_DATA = "data.csv"
"""What the configs' [data] names: it has to lie beside them."""

_CONFIGS = (
    f"""
[data]
train = "{CONFIG_DATA}"
validation = 0.2
target = "target"
drop = ["when"]
task = "auto"

[model]
hidden = [4, 3]
activation = "relu"
dropout = [0.1, 0.2]
initializer = {{name = "normal", std = 0.01}}
output = "auto"

[training]
epochs = 3
batch_size = 8
optimizer = {{name = "adam", beta1 = 0.9}}
learning_rate = 1e-3
schedule = {{name = "step", every = 10}}
warmup = "1 epochs"
loss = "auto"
class_weight = {{yes = 2.0, no = 1}}
weight_decay = 0.01
l1 = 0
clip_norm = 1.0
early_stopping = 2
metrics = ["accuracy"]

[run]
device = "cpu"
precision = "fp32"
seed = 1
checkpoint_every = "1 epochs"
""",
    f"""
data = {{train = "{CONFIG_DATA}", task = "regression", target = "b", features = ["a", 2]}}
model.hidden = []
training.loss = {{name = "huber", delta = 0.5}}
training.class_weight = "balanced"
run.precision = "fp64"
run.seed = 18446744073709551615
""",
    f"""
[data]
train = "{CONFIG_DATA}"
target = "target"
text = ["when"]
categories = "embed"
category_width = 3
[text]
word_ngrams = 2
char_ngrams = [2, 3]
min_count = 1
vocabulary_size = 50
hashing = 0
tfidf = false
width = 4
reduce = "mean"
[model]
hidden = [3]
""",
    f"""
[data]
train = '''{CONFIG_DATA}'''
target = -1
scaling = "unit"
image_fit = "pad"
grayscale = true
on_bad = "skip"
test = "{CONFIG_DATA}"
[training]
optimizer = "sgd"
schedule = "cosine"
warmup = 5
loss = {{name = "cross_entropy", label_smoothing = 0.1}}
""",
)
_PLAIN_VALUES = (
    "0 -1 1 0.5 1e999 -inf nan +inf 0x7fffffffffffffff 1_0 1e-400 true '' [] [[]] [true] [1.5] {} "
    "1979-05-27T07:32:00Z 1979-05-27 07:32:00 [1979-05-27] [0] 99999"
)
_VALUES = (
    *_PLAIN_VALUES.split(),
    *("9" * 30, "9" * 5000, '""', '"a"', '"\\u0000"', '"\\uD800"', '"ü🙂"', '"auto"', '"cuda:9"'),
    *('"softmax"', '"1 steps"', "[1, 'a']", "[" * 600 + "]" * 600, "{a = 1}", '{name = "adam"}'),
    *("{name = 3}", '{name = "step", every = 0}', '"""\na\n"""', "[16777216, 16777216]"),
    *("[" + "1, " * 3000 + "]", '"mean_squared_error"', '"1e400 epochs"', '"-1 epochs"'),
    *('{name = "normal", std = nan}', '{name = "huber", delta = 1e999}', "{yes = -1}", '{"" = 1}'),
    *("{maybe = 1.0}"),
)
_PLAIN_TOML_LINES = (
    "[data] [model] [training] [run] [[run]] [data.train] [] [a.b.c] [training.optimizer] "
    "[training.class_weight]"
)
_TOML_LINES = (
    *_PLAIN_TOML_LINES.split(),
    *("unknown = 1", "= 1", "hidden = 5", "train.x = 1", '"" = 1', "a.b = 1", "#\u0001", "\x00"),
    *("\ufeff", "\u2028", "a = 1 b = 2", '"\\q" = 1', "data = 5", "name = 'adam'", "yes = 1", "é = 1"),
    *("x" * 3000, "data.train" + ".a" * 3000 + " = 1", "a" + ".b" * 3000 + " = 1"),
    *("[" + "a." * 3000 + "a]",),
)


# Values that fit their keys, some at the edge of what they may be.
_FITTING = {
    "validation": ("0", "0.5", "0.999", f'"{CONFIG_DATA}"'),
    "target": ("0", '["target", "a"]', '"colour"', "[4]"),
    "task": ('"classification"', '"multilabel"', '"binary"'),
    "drop": ("[]", '["a", 1]', "[0, 1, 2]"),
    "text": ("[]", '"colour"', "0", '["colour", "a", "b"]', '["target"]', "[9]"),
    "categories": ('"onehot"', '"embed"'),
    "category_width": ("1", "65536"),
    "char_ngrams": ('"auto"', "[]", "[1, 10]", "[3, 2]", "[3]"),
    "word_ngrams": ("1", "5"),
    "min_count": ("2147483647",),
    "vocabulary_size": ("1", "16777216"),
    "hashing": ("1", "64", "16777216"),
    "tfidf": ("true",),
    "width": ("1", "65536"),
    "reduce": ('"max"', '"sum"', '"auto"'),
    "vectors": (f'"{CONFIG_DATA}"', '"."', '"nothing"'),
    "hidden": ("[1]", "[16777216]", "[16777216, 16777216]", "[]"),
    "activation": ('"gelu"', '"softplus"', '"identity"'),
    "output": ('"sigmoid"', '"relu"'),
    "dropout": ("0.999", "[0, 0]", "0"),
    "initializer": ('"zeros"', '{name = "normal", std = 1e308}'),
    "batch_size": ("1", "16777216"),
    "learning_rate": ("100", "1e-320"),
    "schedule": ('"linear"', '{name = "step", every = 1}'),
    "warmup": ("0", "9007199254740992", '"1000000 epochs"', '"0.5 epochs"'),
    "loss": ('"mse"', '"binary_cross_entropy"', '{name = "huber", delta = 1e-320}'),
    "weight_decay": ("1e308", "0"),
    "metrics": ('["f1", "log_loss"]', '["r2"]', '["accuracy", "accuracy"]'),
    "precision": ('"fp64"', '"fp16"', '"bf16"'),
    "seed": ("18446744073709551615",),
    "checkpoint_every": ('"1 steps"', '"1e300 seconds"', '"5 minutes"'),
}


def toml_file(random: Random) -> bytes:
    """Return a config, altered in its values, its lines or its bytes."""
    action = random.random()
    if action < 0.04:
        return random_bytes(random)
    lines = random.choice(_CONFIGS).split("\n")
    if action < 0.75:
        for _ in range(random.choice((1, 1, 1, 2))):
            place = random.choice([number for number, line in enumerate(lines) if "=" in line])
            key = lines[place].partition("=")[0].strip()
            lines[place] = f"{key} = {_toml_value(key, random)}"
    text = "\n".join(lines)
    if 0.65 < action < 0.9:
        text = alter_words(text, random, "\n", _TOML_LINES, 2)
    data = text.encode("utf-8", "surrogatepass")
    return alter_bytes(data, random) if action > 0.85 else data


def _toml_value(key: str, random: Random) -> str:
    if key in _FITTING and random.random() < 0.4:
        return random.choice(_FITTING[key])
    if random.random() < 0.2:
        name = random.choice(
            ("adam", "sgd", "step", "cosine", "normal", "huber", "warmup", "cross_entropy", "polynomial")
        )
        key = random.choice(
            ("beta1", "every", "delta", "std", "gamma", "warmup", "warmup_epochs", "power", "x", "name")
        )
        return f'{{name = "{name}", {key} = {random.choice(_VALUES)}}}'
    return random.choice(_VALUES)


def history_file(random: Random) -> bytes:
    """Return lines of JSON, a row of figures each, altered."""
    if random.random() < 0.05:
        return random_bytes(random)
    rows: list[Any] = [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "loss": 1 / epoch,
            "validation_loss": None if epoch == 2 else 0.5,
        }
        for epoch in range(1, 6)
    ]
    action = random.random()
    if action < 0.7:
        place = random.randrange(len(rows))
        rows[place] = alter_tree(rows[place], random)
    lines = [json.dumps(row) for row in rows]
    if 0.6 < action < 0.8:
        place = random.randrange(len(lines))
        lines[place] = random.choice(
            ("", "{}", "[", "null", "[" * 100_000, '{"epoch": NaN}', '{"epoch": ' + "9" * 5000 + "}")
        )
    data = ("\n".join(lines) + "\n").encode()
    return alter_bytes(data, random) if action > 0.75 else data


def findings_file(random: Random) -> bytes:
    """Return a run's findings as JSON, altered."""
    if random.random() < 0.05:
        return random_bytes(random)
    finding = {
        "name": "dead units",
        "severity": random.choice(["serious", "notice", "note"]),
        "seen": "41 % of layer 1",
        "why": "They learn nothing.",
        "change": "learning_rate = 1e-4",
    }
    written = {"format": 1, "findings": [finding, finding], "figures": [{"layer": 0}]}
    data = json.dumps(alter_tree(written, random)).encode()
    return alter_bytes(data, random) if random.random() < 0.3 else data
