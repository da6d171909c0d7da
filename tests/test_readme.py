"""The commands, Python and TOML of the README and of the pages in `docs`, run on small files."""

from __future__ import annotations

import json
import linecache
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_cli import nnkit, write_csv

from nnkit.nn import activations
from nnkit.runs.config import load_config

ROOT = Path(__file__).resolve().parents[1]
# Pages whose Python and TOML are parts of a whole: tests/test_docs.py and tests/testing check them.
GUIDES = ("add-a-layer.md", "add-a-backend.md")
# The other pages use the runs of the pages on training.
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md"), key=lambda page: (not page.stem.startswith("train-on"), page)),
]

# What is not run, by how it begins, and why.
SKIPPED = {
    "pip install": "it installs",
    "pytest": "it is this",
    "nnkit train --device cuda": "it needs a GPU",
    "nnkit bench": "it takes minutes",
    "nnkit export runs/houses --to onnx": "it needs the extra onnx: tests/export has it",
    "nnkit train houses.csv --target price --track": "it needs the extras mlflow and tensorboard",
}


def blocks(language: str) -> list[str]:
    """Return the contents of all fenced blocks of a language, page by page."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES if page.name not in GUIDES]
    return [
        block
        for text in texts
        for block in re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def commands() -> list[str]:
    """Return what is typed at the prompts, one command each."""
    typed = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    return [part.strip() for line in typed for part in line.split("&&")]


def words_of(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def images(folder: Path, count: int, random: np.random.Generator) -> None:
    """Write pictures of two classes, one lighter than the other."""
    for label, shade in (("cats", 40), ("dogs", 200)):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(shade - 30, shade + 30, (20, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def idx(path: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(side.to_bytes(4, "big") for side in values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


GOOD, BAD = (
    ("see you at lunch tomorrow", "the meeting is at nine"),
    ("win a free prize now", "cash prize call now"),
)


def messages(count: int) -> tuple[list[str], list[str]]:
    """Return texts that all differ, and their labels."""
    texts = [f"{(GOOD, BAD)[i % 2][i // 2 % 2]} number {i} of them" for i in range(count)]
    return texts, [("ham", "spam")[i % 2] for i in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the commands use."""
    folder, random = tmp_path_factory.mktemp("readme"), np.random.default_rng(0)
    income, rooms = random.normal(4, 1, 200), random.normal(3000, 900, 200)
    price = income * 50_000 + rooms * 10 + 100_000
    houses: dict[str, Any] = {
        "id": [f"h{i}" for i in range(200)],
        "median_income": income,
        "total_rooms": rooms,
    }
    write_csv(folder / "new_houses.csv", houses)
    for name in ("houses.csv", "sold_in_may.csv"):
        write_csv(folder / name, {**houses, "price": price})
    texts, labels = messages(120)
    halves = {
        "subject": texts,
        "body": [text[::-1] for text in texts],
        "spam": [label == "spam" for label in labels],
    }
    numbers = {"words": np.arange(120) % 7 + 10 * (np.arange(120) % 2), "spam": np.arange(120) % 2}
    pq.write_table(pa.table(numbers), folder / "mails.parquet")
    rows = [dict(zip(halves, row, strict=True)) for row in zip(*halves.values(), strict=True)]
    (folder / "mails.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("sms_spam.tsv", "other.tsv"):
        write_csv(folder / name, {"0": labels, "1": texts}, header=False, delimiter="\t")
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        place = folder / "reviews" / {"ham": "good", "spam": "bad"}[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_text(text)
    mnist = folder / "path/to/mnist"
    mnist.mkdir(parents=True)
    for part, count in (("train", 200), ("t10k", 60)):
        digits = np.arange(count) % 10
        idx(
            mnist / f"{part}-images-idx3-ubyte",
            (digits * 20)[:, None, None] + random.integers(0, 20, (count, 8, 8)),
        )
        idx(mnist / f"{part}-labels-idx1-ubyte", digits)
    images(folder / "pets", 40, random)
    images(folder / "other_pets", 5, random)
    paths = [f"pets/{label}/{number}.png" for label in ("cats", "dogs") for number in range(40)]
    write_csv(folder / "pets.csv", {"path": paths, "label": [path.split("/")[1] for path in paths]})
    (folder / "new").mkdir()
    for number in (1, 2):
        Image.open(folder / "pets/cats/0.png").save(folder / f"new/{number}.jpg")
    loans = {"income": income, "sex": ["f", "m"] * 100, "target": np.where(income > 4, "paid", "not")}
    write_csv(folder / "loans.csv", loans)
    write_csv(folder / "new.csv", {"words": [1, 12, 3, 14], "spam": [0, 1, 0, 1]})
    (folder / "config.toml").write_text(blocks("toml")[0])
    return folder


def prepare(command: str) -> None:
    """Make what a page takes for granted before a command."""
    if " runs/loans " in command:
        assert nnkit("train", "loans.csv", "--epochs", 2, "--set", "data.drop=['sex']").code == 0
    if " model.safetensors " in command:
        assert nnkit("train", "mails.parquet", "--target", "spam", "--epochs", 2, "--out", "mails").code == 0
        shutil.copy("mails/model.safetensors", "model.safetensors")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, str]:
    """Run all commands in their order; return what those that failed said."""
    failed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands():
            if any(command.startswith(start) for start in SKIPPED):
                continue
            prepare(command)
            program, *arguments = words_of(command)
            result = nnkit(*arguments)
            if program != "nnkit" or result.code != 0:
                failed[command] = result.err
    return failed


def test_every_command_runs_as_it_stands(results: dict[str, str]) -> None:
    assert len(commands()) > 30
    assert results == {}


def test_what_is_skipped_is_there() -> None:
    assert [start for start in SKIPPED if not any(command.startswith(start) for command in commands())] == []


def test_every_block_of_python_runs_as_it_stands(folder: Path, forgotten_activations: None) -> None:
    random = np.random.default_rng(0)
    bags = np.arange(101, dtype=np.int64) * 3
    names: dict[str, Any] = {
        "X": random.normal(size=(100, 784)).astype(np.float32),
        "y": np.arange(100) % 10,
        "X_test": random.normal(size=(20, 784)).astype(np.float32),
        "y_test": np.arange(20) % 10,
        "ids": random.integers(0, 20_000, 300).astype(np.int32),
        "starts": bags,
        "vectors": random.normal(size=(20_000, 64)).astype(np.float32),
        "numbers": np.zeros((100, 0), np.float32),
        "frame": pa.table({"rooms": random.normal(size=100), "town": ["north", "south", "east", None] * 25}),
        "table": pa.table({"median_income": [4.0], "total_rooms": [3000.0], "id": ["h1"]}),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("KERAS_BACKEND", "torch")
        if not (folder / "runs/houses").exists():
            assert nnkit("train", "config.toml").code == 0
        for block in blocks("python"):
            if lacks_extra(block):
                continue
            if "onnxruntime" in block:
                assert nnkit("export", "runs/houses").code == 0
            given = {**names, "y": np.arange(100) % 2} if "Bags" in block else dict(names)
            names |= {name: value for name, value in run(block, given).items() if name not in names}


def lacks_extra(block: str) -> bool:
    """Whether a block is for a library that is not installed; Keras runs on torch here."""
    wanted = {
        "nnkit.interop.torch": ("torch",),
        "nnkit.interop.keras": ("keras", "torch"),
        "onnxruntime": ("onnx", "onnxruntime"),
    }
    modules = (module for name, needed in wanted.items() if name in block for module in needed)
    return any(find_spec(module) is None for module in modules)


def run(block: str, names: dict[str, Any]) -> dict[str, Any]:
    path = Path("block.py")
    path.write_text(block, encoding="utf-8")
    # A formula's source is looked up by its file and line.
    linecache.checkcache(str(path))
    exec(compile(block, str(path), "exec"), names)
    return names


@pytest.fixture
def forgotten_activations() -> Iterator[None]:
    """Forget the activations that the pages register."""
    before = dict(activations._REGISTRY)
    yield
    activations._REGISTRY.clear()
    activations._REGISTRY.update(before)


def test_every_block_of_toml_is_a_config(tmp_path: Path) -> None:
    for number, block in enumerate(blocks("toml")):
        (tmp_path / f"{number}.toml").write_text(block)
        load_config(tmp_path / f"{number}.toml")
