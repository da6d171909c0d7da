"""What a card should reach: the bounds of the sections' figures, and which are not measured yet."""

from __future__ import annotations

from pathlib import Path

from nnkit.bench.records import Aim, load_result

RESULTS = Path(__file__).resolve().parents[1] / "results"
_TO_NNKIT = "step / nnkit's"
# By name: the section, what is measured, the figure, its unit and its bound.
_AIMS = {
    "captured": ("smoke", "20 steps, captured and not", "differing values", "", "<=", 0.0),
    "tests": ("tests", "the tests marked `gpu`", "failed", "", "<=", 0.0),
    "kernel": ("kernels", "64 MB and more (softmax will miss)", "of a copy's rate", "%", ">=", 0.8),
    "floor": ("floor", "from width 1024", "step / products", "", "<=", 1.25),
    "losses": ("agreement", "100 steps on the CPU and the device", "difference", "", "<=", 1e-4),
    "bits": ("agreement", "100 steps twice, and uncaptured", "differing values", "", "<=", 0.0),
    "small": ("small", "20-64-64-1", "step", "s", "<=", 25e-6),
    "small, eager": ("small", "20-64-64-1, PyTorch eager", _TO_NNKIT, "", ">=", 10.0),
    "small, best": ("small", "20-64-64-1, the best of torch.compile and JAX", _TO_NNKIT, "", ">=", 1.0),
    "eager": ("step", "784-512-512-10, PyTorch eager", _TO_NNKIT, "", ">=", 5.0),
    "best": ("step", "784-512-512-10, the best of torch.compile and JAX", _TO_NNKIT, "", ">=", 1.0),
    "share": ("mixed", "fp16, width 8192", "of its products' rate", "%", ">=", 0.7),
    "halves": ("mixed", "16 bits, width 8192", "fp32 / this", "", ">=", 6.0),
    "memory": ("mixed", "activations in 16 bits", "of fp32's", "%", "<=", 0.55),
    "mnist": ("mixed", "accuracy on MNIST in 16 bits", "from fp32", "", "<=", 0.002),
    "housing": ("mixed", "R² on California housing in 16 bits", "from fp32", "", "<=", 0.005),
    "AMP": ("mixed", "784-512-512-10, PyTorch AMP", _TO_NNKIT, "", ">=", 5.0),
    "wide AMP": ("mixed", "fp16, width 8192, PyTorch AMP", _TO_NNKIT, "", ">=", 1.1),
    "best AMP": ("mixed", "fp16, width 8192, PyTorch AMP compiled", _TO_NNKIT, "", ">=", 1.0),
    "command": ("mnist", "MNIST from the prompt, kernels cached", "time", "s", "<=", 5.0),
    "accuracy": ("mnist", "MNIST's test set", "test accuracy", "%", ">=", 0.98),
    "streaming": ("loading", "rows in pinned memory", "over the slower", "", "<=", 1.1),
}


def aim(name: str) -> Aim:
    """Return a bound by its name."""
    *_, relation, value = _AIMS[name]
    return Aim(relation, value)


def unmeasured() -> str:
    """Return a Markdown table of the aims that no card's result holds; empty where all are measured."""
    results = [load_result(path) for path in RESULTS.glob("gpu-*.json")]
    records = [record for result in results if result.size == "full" for record in result.records]
    known = {(one.section, name, figure.aim) for one in records for name, figure in one.figures.items()}
    rows = [
        f"| {section} | {what} | {figure} {aim(name).describe(unit)} |"
        for name, (section, what, figure, unit, *_) in _AIMS.items()
        if (section, figure, aim(name)) not in known
    ]
    return (
        "\n".join(["| section of bench/gpu.sh | what | aim |", "| --- | --- | --- |", *rows]) if rows else ""
    )
