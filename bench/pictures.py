"""Train from a folder of 5,000 generated JPEGs and write it as JSON: `python bench/pictures.py [NAME]`.

Two classes, round and cornered shapes, of one distribution of sizes, colours and textures: a picture's mean
says nothing of its class. Sizes, qualities, colour modes and EXIF orientations differ. Every command runs in
a process of its own, the first with an empty cache of pictures, the second after it.

Memory is counted three ways: the peak of the whole process; what it is above that of the same training (the
same libraries, network, batches and checkpoints; decoding, or reading the cache) from 450 pictures, in terms
of the bytes that the others add to the cache, which is what pictures cost; and the peaks of anonymous and of
mapped pages, sampled. The bound of 1.5 times the cache is on the second; one training of larger pictures and
a small network keeps it with the whole process counted.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
TRAINING, TESTING, FEW = 5_000, 1_000, 450  # whose last batch is as small as that of all: the same kernels
RUNS = 3
AIM = 1.5  # times the cache's size
LARGE = ["--set", "data.image_size=256", "--hidden", "16", "--batch-size", "32", "--learning-rate", "1e-5"]
AUGMENT = "data.augment={shift = 0.1, flip = true, erase = 0.2}"


def generate(folder: Path, count: int, seed: int) -> None:
    """Draw `count` JPEGs, half of each class, the same for the same seed."""
    import numpy as np

    for label in ("cornered", "round"):
        (folder / label).mkdir(parents=True)
    for number in range(count):
        label = ("cornered", "round")[number % 2]
        draw(np.random.default_rng([seed, number]), label, folder / label / f"{number:05}.jpg")


def draw(random: Any, label: str, path: Path) -> None:
    """Draw one bright shape on a dark ground, both with noise, and save it in a mode of its own."""
    import numpy as np
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
        turn = random.uniform(0, 2 * np.pi)
        angles = turn + 2 * np.pi * np.arange(corners) / corners
        points = [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles]
        ImageDraw.Draw(mask).polygon(points, fill=255)
    inside = np.asarray(mask)[:, :, None] > 0
    wave = 25 * np.sin(np.arange(width) * random.uniform(0.05, 0.5) + random.uniform(0, 6))[None, :, None]
    noise = random.integers(-25, 26, (height, width, 1))
    pixels = np.clip(np.where(inside, shape, ground) + wave + noise, 0, 255).astype(np.uint8)
    mode = random.choice(["RGB", "RGB", "RGB", "RGB", "L", "CMYK"])
    image, exif = Image.fromarray(pixels).convert(mode), Image.Exif()
    exif[0x0112] = int(random.choice([1, 1, 1, 3, 6, 8]))
    image.save(path, quality=int(random.integers(60, 96)), progressive=bool(random.random() < 0.3), exif=exif)


def run(arguments: list[str], cache: Path) -> dict[str, Any]:
    """Run an nnkit command; return what it printed, its seconds and its peaks of memory in MiB."""
    command = [sys.executable, "-c", "from nnkit.cli import main; main()", *arguments]
    environment = {**os.environ, "NNKIT_CACHE": str(cache)}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output)
        peaks = {"RssAnon": 0, "RssFile": 0}
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            _sample(process.pid, peaks)
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        output.seek(0)
        printed = output.read()
    if status != 0:
        raise SystemExit(f"nnkit {' '.join(arguments)} ended with status {status}\n{printed}")
    # No library is loaded here before: a child's peak counts its parent's at the fork.
    return {
        "printed": printed,
        "seconds": seconds,
        "peak MiB": usage.ru_maxrss / 1024,
        "peak of anonymous pages, sampled, MiB": peaks["RssAnon"] / 1024,
        "peak of mapped pages, sampled, MiB": peaks["RssFile"] / 1024,
    }


def _sample(process: int, peaks: dict[str, int]) -> None:
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return
    for name in peaks:
        found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
        peaks[name] = max(peaks[name], int(found[1])) if found else peaks[name]


def train(name: str, data: Path, folder: Path, cache: Path, options: list[str]) -> dict[str, Any]:
    """Train from a folder and measure the model on the test pictures."""
    out = folder / name
    result = run(["train", str(data), "--out", str(out), *options], cache)
    printed = result.pop("printed")
    line = next(line for line in printed.splitlines() if line.startswith("data "))
    seconds = float(re.search(r"(?:decoded|read from the cache) in ([\d.]+) s", line)[1])  # type: ignore[index]
    evaluated = json.loads(run(["evaluate", str(out), str(folder / "testing"), "--json"], cache)["printed"])
    metrics = evaluated["metrics"]
    rows = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "said": line.split("; ")[-1].split(",")[0].strip(" )"),
        "pictures ready after, seconds": seconds,
        **result,
        "samples a second": statistics.median(row["samples_per_second"] for row in rows),
        "test accuracy": metrics["accuracy"],
        "test log loss": metrics["log_loss"],
    }


def measure(folder: Path) -> dict[str, Any]:
    """Generate the pictures and train from them: few, all, all again."""
    for name, count, seed in (("training", TRAINING, 0), ("testing", TESTING, 1), ("few", FEW, 2)):
        arguments = [str(folder / name), str(count), str(seed)]
        subprocess.run([sys.executable, __file__, "--generate", *arguments], check=True)
    files = list((folder / "training").rglob("*.jpg"))
    cache = folder / "cache"
    train("compiling", folder / "few", folder, cache, [])
    runs: dict[str, list[dict[str, Any]]] = {"first run": [], "second run": []}
    few: dict[str, list[dict[str, Any]]] = {"first run": [], "second run": []}
    for turn, (source, found) in product(range(RUNS), (("few", few), ("training", runs))):
        for kept in (cache / "pictures").glob("*"):
            kept.unlink()
        for which in found:
            name = f"{source}, {which} {turn}"
            found[which].append(train(name.replace(" ", "-"), folder / source, folder, cache, []))
            show(name, found[which][-1])
            size = _kept(cache)
    added = size * (TRAINING - FEW) / TRAINING
    augmented = train("augmented", folder / "training", folder, cache, ["--set", AUGMENT, "--epochs", "60"])
    show("augmented", augmented)
    large = train("large", folder / "training", folder, cache, LARGE)
    show("large", large)
    large |= {"options": " ".join(LARGE), "cache MiB": _kept(cache)}
    large["whole process, times the cache"] = large["peak MiB"] / large["cache MiB"]
    above = {
        which: [run["peak MiB"] - less["peak MiB"] for run, less in zip(runs[which], few[which], strict=True)]
        for which in runs
    }
    return {
        "pictures": {
            "files": len(files),
            "MiB of files": sum(path.stat().st_size for path in files) / 2**20,
            "tested on": TESTING,
        },
        "cache MiB": size,
        "pictures decoded a second": [
            len(files) / run["pictures ready after, seconds"] for run in runs["first run"]
        ],
        **runs,
        f"the same training from {FEW} pictures": few,
        "augmented, 60 epochs": augmented,
        "larger pictures, whole process counted": large,
        f"peak above that of {FEW} pictures, MiB": above,
        "times the cache": {which: [more / added for more in found] for which, found in above.items()},
        "aim": AIM,
        "reached": max(more for found in above.values() for more in found) <= AIM * added,
    }


def _kept(cache: Path) -> float:
    """Return the size of the largest array in the cache, in MiB."""
    return max(kept.stat().st_size for kept in (cache / "pictures").glob("*.npy")) / 2**20


def show(name: str, result: dict[str, Any]) -> None:
    """Print a training's figures."""
    print(
        f"{name}: {result['said']}, {result['seconds']:.1f} s, peak {result['peak MiB']:.0f} MiB, "
        f"test accuracy {result['test accuracy']:.4f}",
        flush=True,
    )


def main() -> None:
    """Write bench/results/NAME.json."""
    if sys.argv[1:2] == ["--generate"]:
        generate(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    name = sys.argv[1] if len(sys.argv) > 1 else "pictures"
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder))
    from nnkit.machine import describe_machine

    path = BENCH / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **results}, indent=2) + "\n")
    ratios = {name: f"{statistics.median(found):.2f}" for name, found in results["times the cache"].items()}
    print(
        f"peak above that of {FEW} pictures, in times of the cache of {results['cache MiB']:.1f} MiB: "
        f"{ratios}"
    )
    print(f"written to {path.relative_to(BENCH.parent)}")


if __name__ == "__main__":
    main()
