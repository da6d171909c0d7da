"""Train from a folder of generated JPEGs, its time and its memory: `python bench/pictures.py`.

Two classes, round and cornered shapes, of one distribution of sizes, colours and textures, so that a
picture's mean does not give its class away. Sizes, qualities, colour modes and EXIF orientations differ.
Every training is a process of its own, the first of each turn with an empty cache of pictures. The accuracy
is that of 1,000 other pictures.

What pictures cost in memory is the peak above that of the same training (the same libraries, network,
batches and checkpoints) from 450 pictures, in terms of the bytes that the others add to the cache. One
training of larger pictures with a small network keeps the bound with the whole process counted.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from program import in_a_process, parser, run_nnkit, save

from nnkit.bench.records import Aim, Record, measured, once

AIM = Aim("<=", 1.5)
AUGMENT = ["--set", "data.augment={shift = 0.1, flip = true, erase = 0.2}", "--epochs", "60"]
LARGE = "--set data.image_size=256 --hidden 16 --batch-size 32 --learning-rate 1e-5".split()


@dataclass(frozen=True)
class Size:
    """Pictures to train on, to test with, and fewer whose last batch is as long; turns."""

    training: int = 5000
    testing: int = 1000
    few: int = 450
    turns: int = 3


def generate(folder: Path, count: int, seed: int) -> None:
    """Draw `count` JPEGs, half of each class, the same for the same seed."""
    for number in range(count):
        label = ("cornered", "round")[number % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        draw(np.random.default_rng([seed, number]), label, folder / label / f"{number:05}.jpg")


def draw(random: np.random.Generator, label: str, path: Path) -> None:
    """Draw one bright shape on a dark ground, both with noise, and save it in a drawn mode."""
    from PIL import Image, ImageDraw

    width, height = (int(side) for side in random.integers(96, 481, 2))
    ground, shape = random.integers(0, 110, 3), random.integers(130, 256, 3)
    # The area, not the diameter, has one distribution for both classes.
    area = random.uniform(0.12, 0.35) * min(width, height) ** 2
    x, y = width / 2, height / 2
    x, y = x + random.uniform(-0.12, 0.12) * min(x, y), y + random.uniform(-0.12, 0.12) * min(x, y)
    mask = Image.new("L", (width, height))
    if label == "round":
        stretch = random.uniform(0.8, 1.25)
        a, b = (area / np.pi) ** 0.5 * stretch, (area / np.pi) ** 0.5 / stretch
        ImageDraw.Draw(mask).ellipse((x - a, y - b, x + a, y + b), fill=255)
    else:
        corners = int(random.integers(3, 5))
        radius = (area / (corners / 2 * np.sin(2 * np.pi / corners))) ** 0.5
        ImageDraw.Draw(mask).regular_polygon((x, y, radius), corners, random.uniform(0, 360), fill=255)
    inside = np.asarray(mask)[:, :, None] > 0
    wave = 25 * np.sin(np.arange(width) * random.uniform(0.05, 0.5) + random.uniform(0, 6))[None, :, None]
    noise = random.integers(-25, 26, (height, width, 1))
    pixels = np.clip(np.where(inside, shape, ground) + wave + noise, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).convert(random.choice(["RGB", "RGB", "RGB", "RGB", "L", "CMYK"]))
    exif = Image.Exif()
    exif[0x0112] = int(random.choice([1, 1, 1, 3, 6, 8]))
    image.save(path, quality=int(random.integers(60, 96)), progressive=bool(random.random() < 0.3), exif=exif)


def train(folder: Path, source: str, *options: str) -> dict[str, float]:
    """Train from a folder of pictures, test on the test pictures, and return the figures."""
    run, cache = Path(tempfile.mkdtemp(dir=folder)), folder / "cache"
    ended = run_nnkit(["train", str(folder / source), "--out", str(run), *options], cache)
    ready = re.search(r"(?:decoded|read from the cache) in ([\d.]+) s", ended.printed)
    assert ready is not None, ended.printed
    tested = run_nnkit(["evaluate", str(run), str(folder / "testing"), "--json"], cache)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "pictures ready": float(ready[1]),
        "process": ended.seconds,
        "peak memory": ended.peak,
        "throughput": float(np.median([row["samples_per_second"] for row in rows])),
        "test accuracy": json.loads(tested.printed)["metrics"]["accuracy"],
    }


def cached_bytes(folder: Path) -> int:
    """Return the size of the largest array in the cache of pictures."""
    return max(path.stat().st_size for path in (folder / "cache" / "pictures").glob("*.npy"))


def record(section: str, name: str, runs: list[dict[str, float]], **more: Any) -> Record:
    """Return a record of the same training in several turns."""
    units = {"pictures ready": "s", "process": "s", "peak memory": "B", "throughput": "samples/s"}
    units["test accuracy"] = "%"
    figures = {key: measured(unit, np.array([run[key] for run in runs])) for key, unit in units.items()}
    return Record(section, name, figures={**figures, **more})


def records(size: Size, folder: Path) -> Iterator[Record]:
    """Generate the pictures and train from few and from all, with an empty cache and after it."""
    for name, count, seed in (
        ("training", size.training, 0),
        ("testing", size.testing, 1),
        ("few", size.few, 2),
    ):
        # In a process of its own, so that this one stays smaller than the trainings.
        in_a_process(generate, folder / name, count, seed)
    train(folder, "few")  # compiles
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(size.turns):
        for source in ("few", "training"):
            shutil.rmtree(folder / "cache" / "pictures", ignore_errors=True)
            for which in ("first run", "second run"):
                runs.setdefault(f"{source} {which}", []).append(train(folder, source))
    added = cached_bytes(folder) * (size.training - size.few) / size.training
    for which in ("first run", "second run"):
        few, every = runs[f"few {which}"], runs[f"training {which}"]
        above = [more["peak memory"] - less["peak memory"] for more, less in zip(every, few, strict=True)]
        yield record("pictures", f"{which}, {size.few:,} pictures", few)
        more = {"memory / cache": measured("", np.array(above) / added, AIM)}
        yield record("pictures", f"{which}, {size.training:,} pictures", every, **more)
    yield record("pictures", "moved, mirrored and erased, 60 epochs", [train(folder, "training", *AUGMENT)])
    large = train(folder, "training", *LARGE)
    whole = once("", large["peak memory"] / cached_bytes(folder), AIM)
    yield record(
        "pictures", "256 × 256 pixels, 16 units, whole process", [large], **{"memory / cache": whole}
    )


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    chosen = Size(120, 40, 60, 1) if given.tiny else Size()
    with tempfile.TemporaryDirectory() as scratch:
        save(given, "From a folder of pictures", __doc__, records(chosen, Path(scratch)))
