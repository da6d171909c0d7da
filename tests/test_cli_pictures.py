"""The command line on pictures: trained from a folder, predicted one by one, by folder, by list."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import nnkit, same_weights, succeed

from nnkit import Callback, load
from nnkit.runs.config import Config, DataConfig
from nnkit.runs.run import Run

SMALL = ("--hidden", "8", "--set", "data.image_size=16")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_cache: Path) -> Path:
    """Keep decoded pictures in a folder of the test's own, and kernels where they are for all."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "kernels").symlink_to(_made(kernel_cache / "kernels"))
    monkeypatch.setenv("NNKIT_CACHE", str(folder))
    return folder / "pictures"


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    return folder.resolve()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Return a folder of cats, with stripes across, and dogs, with stripes down, in several formats."""
    random = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for number in range(45):
            height, width = random.integers(24, 60, 2)
            y, x = np.mgrid[:height, :width]
            place = y / height if label == "cats" else x / width
            waves = (
                128 + 100 * np.sin(20 * place + random.uniform(0, 1)) + random.normal(0, 10, (height, width))
            )
            image = Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8)).convert(("L", "RGB")[number % 2])
            image.save(tmp_path / "pets" / label / f"{number:02}.{('jpg', 'png', 'webp')[number % 3]}")
    return tmp_path / "pets"


def test_a_folder_of_pictures_trains_and_the_second_run_reads_the_cache(pets: Path, tmp_path: Path) -> None:
    out = succeed("train", pets, "--epochs", 12, "--batch-size", 16, *SMALL, "--out", tmp_path / "a")
    assert re.search(
        r"^data     pets: 81 pictures to train on, 9 held out \(binary, 2 classes; 16 × 16 in colour, "
        r"cropped; decoded in [\d.]+ s, [\d.]+ MiB kept in ",
        out,
        re.MULTILINE,
    )
    again = succeed("train", pets, "--epochs", 12, "--batch-size", 16, *SMALL, "--out", tmp_path / "b")
    assert re.search(r"^data     pets: .*; read from the cache in [\d.]+ s\)$", again, re.MULTILINE)
    assert same_weights(tmp_path / "a" / "model.safetensors", tmp_path / "b" / "model.safetensors")
    metrics = json.loads(succeed("evaluate", tmp_path / "a", pets, "--json"))
    assert metrics["rows"] == 90
    assert metrics["metrics"]["accuracy"] > 0.9
    assert "16 × 16 in colour, cropped" in succeed("info", tmp_path / "a")
    # What was resolved trains the same again.
    succeed("train", tmp_path / "a" / "config.toml", "--out", tmp_path / "c")
    assert same_weights(tmp_path / "a" / "model.safetensors", tmp_path / "c" / "model.safetensors")


def test_pictures_are_predicted_one_by_one_by_folder_and_by_list(pets: Path, tmp_path: Path) -> None:
    succeed("train", pets, "--epochs", 12, "--batch-size", 16, *SMALL, "--out", tmp_path / "run")
    one, other = pets / "cats" / "00.jpg", pets / "dogs" / "01.png"
    model = load(tmp_path / "run" / "model.safetensors")
    expected = model.predict([one, other]).tolist()
    rows = [f'"{path}","{label}"' for path, label in zip((one, other), expected, strict=True)]
    assert succeed("predict", tmp_path / "run", one).splitlines() == ['"path","class"', rows[0]]
    assert succeed("predict", tmp_path / "run", one, other).splitlines()[1:] == rows
    (tmp_path / "list.txt").write_text(f"pets/cats/00.jpg\n{other}\n")
    shown = succeed("predict", tmp_path / "run", tmp_path / "list.txt").replace(str(tmp_path / "pets"), "")
    assert shown.splitlines()[1:] == [row.replace(str(tmp_path / "pets"), "") for row in rows]
    assert len(succeed("predict", tmp_path / "run", pets, "--proba").splitlines()) == 91
    assert len(succeed("predict", tmp_path / "run", pets / "cats").splitlines()) == 46
    (tmp_path / "bad.jpg").write_bytes(one.read_bytes()[:200])
    result = nnkit("predict", tmp_path / "run", one, tmp_path / "bad.jpg")
    assert result.code == 2
    assert f"{tmp_path / 'bad.jpg'}: " in result.err
    result = nnkit("predict", tmp_path / "run", one, tmp_path / "bad.jpg", "--on-bad", "skip")
    assert result.out.splitlines()[1:] == rows[:1]
    assert "skipped 1 of 2 files" in result.err


class _Stop(Callback):
    """Ends a run after a step."""

    every = "1 steps"

    def __init__(self, run: Run, step: int) -> None:
        self.run, self.step = run, step

    def on_step_end(self, trainer: Any, figures: Any) -> None:
        if figures.step == self.step:
            self.run.stop()


def _interrupted(pets: Path, out: Path, step: int) -> None:
    """Train as the command below does, and stop in the middle of an epoch."""
    config = Config(data=DataConfig(train=str(pets))).with_overrides(
        [
            "training.epochs=6",
            "data.augment={shift = 0.1, flip = true, erase = 0.2}",
            "training.batch_size=32",
            "model.hidden=[8]",
            "data.image_size=16",
            f"run.out={out}",
        ]
    )
    run = Run(config)
    run.train([_Stop(run, step)])
    assert run.interrupted


def test_a_run_on_pictures_is_resumed(pets: Path, tmp_path: Path) -> None:
    varied = ("--set", "data.augment={shift = 0.1, flip = true, erase = 0.2}", "--batch-size", 32, *SMALL)
    succeed("train", pets, "--epochs", 6, *varied, "--out", tmp_path / "whole")
    _interrupted(pets, tmp_path / "part", 7)
    left = tmp_path / "left"
    shutil.copytree(tmp_path / "part", left)
    succeed("train", "--resume", tmp_path / "part")
    assert same_weights(*(tmp_path / name / "model.safetensors" for name in ("whole", "part")))
    saved = (pets / "cats" / "01.png").read_bytes()
    Image.new("RGB", (30, 30)).save(pets / "cats" / "01.png")
    result = nnkit("train", "--resume", left)
    assert result.code == 2
    assert "the data differ from those of the training to resume" in result.err
    (pets / "cats" / "01.png").write_bytes(saved)
    succeed("train", "--resume", left)


def test_a_table_of_paths_trains_and_a_folder_measures_it(pets: Path, tmp_path: Path) -> None:
    files = sorted(pets.rglob("*.*"))
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in files]
    (tmp_path / "pets.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    succeed(
        "train", tmp_path / "pets.csv", "--epochs", 8, "--batch-size", 16, *SMALL, "--out", tmp_path / "run"
    )
    by_table = succeed("evaluate", tmp_path / "run", tmp_path / "pets.csv", "--json")
    assert by_table == succeed("evaluate", tmp_path / "run", pets, "--json")


def test_wrong_pictures_end_with_one_clear_error(pets: Path, tmp_path: Path) -> None:
    def told(*arguments: object) -> str:
        result = nnkit(*arguments)
        assert result.code == 2, result.out
        assert result.err.count("\n") <= 2
        assert "Traceback" not in result.err
        return result.err

    (tmp_path / "empty").mkdir()
    assert "in this folder, which holds nothing" in told("train", tmp_path / "empty")
    one = tmp_path / "one" / "cats"
    one.mkdir(parents=True)
    (one / "a.jpg").write_bytes((pets / "cats" / "00.jpg").read_bytes())
    assert "one class only" in told("train", tmp_path / "one")
    assert "classes" in told("train", one)
    (pets / "birds").mkdir()
    assert "'birds' has no pictures" in told("train", pets)
    (pets / "birds").rmdir()
    (pets / "cats" / "note.txt").write_text("meow")
    assert "note.txt: no picture" in told("train", pets)
    (pets / "cats" / "note.txt").unlink()
    (pets / "cats" / "cut.png").write_bytes((pets / "cats" / "01.png").read_bytes()[:100])
    assert "cut.png: " in told("train", pets)
    (pets / "cats" / "cut.png").unlink()
    assert "data.image_size" in told("train", "iris", "--set", "data.image_size=20")
    assert "data.augment" in told("train", "iris", "--set", "data.augment={flip = true}")
    for value in ("0", "5000", "[1, 2, 3]", "true", "[]"):
        assert "data.image_size" in told("train", pets, "--set", f"data.image_size={value}")
    assert "shift" in told("train", pets, "--set", "data.augment={shift = 2}")
    succeed("train", "iris", "--epochs", 1, "--hidden", 4, "--out", tmp_path / "flowers")
    assert "pets is a folder" in told("predict", tmp_path / "flowers", pets, pets)


def test_flattened_images_may_be_varied_too(tmp_path: Path) -> None:
    out = succeed(
        "train", "digits", "--epochs", 2, "--set", "data.augment={shift = 0.1}", "--out", tmp_path / "a"
    )
    assert "digits" in out
    succeed("train", "digits", "--epochs", 2, "--out", tmp_path / "b")
    assert not same_weights(*(tmp_path / name / "model.safetensors" for name in "ab"))


def deep_pets(folder: Path, most: int) -> Path:
    """Write pictures with 16 bits a pixel: the left half of the dogs is bright."""
    random = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (folder / label).mkdir(parents=True)
        for number in range(30):
            values = random.integers(0, most // 4, (16, 16)).astype(np.uint16)
            values[:, :8] += np.uint16(most // 2 if label == "dogs" else 0)
            Image.fromarray(values).save(folder / label / f"{number}.{('png', 'tif')[number % 2]}")
    return folder


@pytest.mark.parametrize("most", [240, 4000])
def test_pictures_of_16_bits_are_learnt_and_predicted_alike(tmp_path: Path, most: int) -> None:
    folder = deep_pets(tmp_path / "deep", most)
    assert "one value" not in succeed("check", folder, "--set", "data.image_size=16")
    (tmp_path / "held" / "cats").mkdir(parents=True)
    (tmp_path / "held" / "dogs").mkdir()
    for label in ("cats", "dogs"):
        for number in range(5):
            (folder / label / f"{number}.{('png', 'tif')[number % 2]}").rename(
                tmp_path / "held" / label / f"{number}.{('png', 'tif')[number % 2]}"
            )
    succeed(
        *("train", folder, "--epochs", 5, "--batch-size", 8, *SMALL),
        *("--set", f"data.validation={tmp_path / 'held'}", "--out", tmp_path / "run"),
    )
    depth = 8 if most == 240 else 12
    assert f"{depth} of 16 bits" in succeed("info", tmp_path / "run")
    for data in (folder, tmp_path / "held"):
        metrics = json.loads(succeed("evaluate", tmp_path / "run", data, "--json"))["metrics"]
        assert metrics["accuracy"] == 1
    lines = succeed("predict", tmp_path / "run", tmp_path / "held" / "dogs").splitlines()
    assert [line.rpartition(",")[2] for line in lines[1:]] == ['"dogs"'] * 5
    paths = [tmp_path / "held" / label / "0.png" for label in ("dogs", "cats")]
    assert load(tmp_path / "run").predict(paths).tolist() == ["dogs", "cats"]


def test_a_table_with_a_dropped_column_of_paths_is_one_of_numbers(pets: Path, tmp_path: Path) -> None:
    rows = [f"pets/{'cats' if n % 2 else 'dogs'}/00.jpg,{n},{n % 2}" for n in range(60)]
    for name in ("there", "gone"):
        text = "\n".join(rows).replace("pets", "pets" if name == "there" else "nowhere")
        (tmp_path / f"{name}.csv").write_text(f"file,width,label\n{text}\n")
        succeed(
            *("train", tmp_path / f"{name}.csv", "--set", 'data.drop=["file"]', "--epochs", 1, "--hidden", 4),
            *("--out", tmp_path / name),
        )
        lines = succeed("predict", tmp_path / name, tmp_path / f"{name}.csv", "--keep", "file").splitlines()
        assert lines[0] == '"file","label"'
        assert len(lines) == 61
    result = nnkit("train", tmp_path / "gone.csv", "--target", "label")
    assert result.code == 2
    assert "column 'file' looks like paths of pictures (nowhere/dogs/00.jpg, ...)" in result.err
    succeed("train", pets, "--epochs", 1, *SMALL, "--out", tmp_path / "pictures")
    result = nnkit("predict", tmp_path / "pictures", tmp_path / "gone.csv")
    assert result.code == 2
    assert "column 'file' looks like paths of pictures" in result.err
