"""Safetensors files, taken apart, altered in any part and put together again with the digest made right."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hostile.mutations import EXTREMES, alter_bytes, alter_tree, random_bytes
from nnkit.data.operations import (
    ArrayColumns,
    CategoryColumn,
    NumberColumn,
    PictureColumns,
    PictureSettings,
    TextColumn,
)
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.model import Model
from nnkit.nn.layers import Activation, Dense, Dropout, Embedding
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.tensorfile import write_tensors
from nnkit.training.trainer import Trainer

__all__ = [
    "TRAINED_ON",
    "TensorFile",
    "checkpoint_file",
    "model_file",
    "models",
    "sealed",
    "tensor_file",
    "trainer",
]

_KIND = "some.kind"
_DTYPES = ("F32", "F64", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "f32", "", None, 5)
_NO_DIGEST = b"0" * 64


@dataclass
class TensorFile:
    """The parts of a file: metadata (JSON values), entries of the header, and the tensors' bytes."""

    metadata: dict[str, Any]
    entries: dict[str, Any]
    body: bytes
    raw: dict[str, str] = field(default_factory=dict)
    """Metadata that are written as they stand."""

    @classmethod
    def parse(cls, data: bytes) -> TensorFile:
        """Take a good file apart."""
        length = int.from_bytes(data[:8], "little")
        entries = json.loads(data[8 : 8 + length])
        metadata = {
            key: value for key, value in sorted(entries.pop("__metadata__").items()) if key != "sha256"
        }
        plain = {key: value for key, value in metadata.items() if key.startswith("format")}
        described = {key: json.loads(value) for key, value in metadata.items() if key not in plain}
        return cls(described, dict(sorted(entries.items())), data[8 + length :], plain)

    def serialise(self) -> bytes:
        """Return the file with a right digest. It is the same bytes each time, unlike safetensors' own."""
        texts = {key: json.dumps(value) for key, value in self.metadata.items()} | self.raw
        header = {"__metadata__": {**texts, "sha256": _NO_DIGEST.decode()}, **self.entries}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return sealed(len(text).to_bytes(8, "little") + text + self.body)


def sealed(data: bytes) -> bytes:
    """Return the file with the digest of what it holds, where it has a place for one."""
    before, name, rest = data.partition(b'"sha256":"')
    if not name or rest[64:65] != b'"':
        return data
    blank = before + name + _NO_DIGEST + rest[64:]
    return before + name + hashlib.sha256(blank).hexdigest().encode() + rest[64:]


@cache
def models() -> tuple[Model, ...]:
    """Return small models, one of each task: a table's columns or an array's, float32 or float64."""
    table = Preprocessor(
        (
            NumberColumn("size", "number", 1.5, 1.0, 0.5),
            NumberColumn("when", "time", 0.0, 1e9, 1e-6),
            CategoryColumn("colour", ("blue", "red"), last="missing"),
        )
    )
    pixels = Preprocessor((ArrayColumns(6, True, 0.0, 1 / 255),))
    numbers = Preprocessor((ArrayColumns(3, False, np.arange(3.0), np.ones(3)),), "float64", ("a note",))
    details = {"data": "seed", "image_shape": [2, 3], "metrics": {"test": {"accuracy": 0.5}}}
    labels = np.array(["no", "yes"], dtype="U3")
    return (
        Model(
            Network([Dense(4, "relu"), Dropout(0.2), Dense(1)], inputs=5),
            table,
            TargetEncoder("binary", 1, labels, names=("bought",)),
            loss_from("binary_cross_entropy"),
            details,
        ),
        Model(
            Network([Dense(3, "tanh", bias=False), Activation("relu"), Dense(3)], inputs=6),
            pixels,
            TargetEncoder("multiclass", 3, np.array([1, 5, 7])),
            loss_from({"name": "cross_entropy", "label_smoothing": 0.1}),
            details,
        ),
        Model(
            _double(Network([Dense(2)])),
            numbers,
            TargetEncoder(
                "regression", 2, None, np.array([1.0, -2.0]), np.array([3.0, 0.5]), False, ("u", "v")
            ),
            loss_from("huber"),
        ),
        Model(
            Network([Dense(2, initializer={"name": "normal", "std": 0.1})], inputs=3),
            Preprocessor(numbers.operations),
            TargetEncoder("multilabel", 2, np.array([0.0, 1.0]), flat=False),
            loss_from("binary_cross_entropy"),
        ),
        Model(
            Network([Embedding(4, 3, "sum"), Embedding(3, 2), Embedding(5, 2, "max"), Dense(1)], inputs=1),
            Preprocessor(
                (
                    TextColumn("message", 2, (1, 2), ("red", "a red", " <r"), 0, 7, (2, 0, 7, 1)),
                    NumberColumn("size", "number", 1.5, 1.0, 0.5),
                    CategoryColumn("colour", ("blue", "red"), True, "missing"),
                    TextColumn("subject", 1, None, buckets=5),
                )
            ),
            TargetEncoder("binary", 1, labels, names=("bought",)),
            loss_from("binary_cross_entropy"),
            {**details, "best_threshold": {"threshold": 0.25, "f1": 0.75}},
        ),
        Model(
            Network([Dense(2)], inputs=12),
            Preprocessor((PictureColumns(PictureSettings(2, 2), (100.0, 90.0, 80.0), (0.02, 0.01, 0.03)),)),
            TargetEncoder("multiclass", 2, np.array(["cat", "dog"], dtype="U3"), names=("class",)),
            loss_from("cross_entropy"),
            details,
        ),
    )


def _double(network: Network) -> Network:
    network.initialize(3, dtype=np.float64)
    return network


@cache
def _model_seeds() -> tuple[TensorFile, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        seeds = []
        for model in models():
            model.save(path)
            seeds.append(TensorFile.parse(path.read_bytes()))
    return tuple(seeds)


@cache
def _tensor_seeds() -> tuple[TensorFile, ...]:
    arrays: dict[str, NDArray] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(4, dtype=np.int64),
        "c": np.array([True, False]),
        "d": np.zeros((2, 0), np.uint8),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensors"
        write_tensors(path, _KIND, 1, arrays, {"step": 7, "rows": [1, 2.5, None], "state": {"seed": 2**63}})
        return (TensorFile.parse(path.read_bytes()),)


TRAINED_ON = (np.linspace(-1.0, 1.0, 36, dtype=np.float32).reshape(12, 3), np.arange(12) % 3)
"""The rows of the trainings that leave the checkpoints."""


def trainer(number: int) -> Trainer:
    """Return one of two trainers, as they are before their trainings."""
    network = Network([Dense(2, "tanh"), Dropout(0.1), Dense(3)])
    told = (
        {"early_stopping": 2, "schedule": "cosine"},
        {"schedule": {"name": "reduce_on_plateau"}, "precision": "fp64"},
    )
    return Trainer(network, "cross_entropy", "adam", device="cpu", seed=3, **told[number])  # type: ignore[arg-type]


@cache
def _checkpoint_seeds() -> tuple[TensorFile, ...]:
    seeds = []
    for number in range(2):
        with tempfile.TemporaryDirectory() as folder:
            trainer(number).fit(*TRAINED_ON, epochs=2, batch_size=5, validation=0.25, checkpoints=folder)
            path = max(Path(folder).glob("step-*"), key=lambda one: one.stat().st_mtime_ns)
            seed = TensorFile.parse(path.read_bytes())
        seed.metadata["seconds"] = 1.5
        for row in seed.metadata["history"]["rows"]:
            row |= {"seconds": 0.5, "samples_per_second": 18.0}
        seeds.append(seed)
    return tuple(seeds)


def checkpoint_file(random: Random) -> bytes:
    """Return an altered checkpoint."""
    return _altered(random.choice(_checkpoint_seeds()), random)


def model_file(random: Random) -> bytes:
    """Return an altered model file."""
    return _altered(random.choice(_model_seeds()), random)


def tensor_file(random: Random) -> bytes:
    """Return an altered file of tensors of the kind ``some.kind``."""
    return _altered(random.choice(_tensor_seeds()), random)


def _altered(seed: TensorFile, random: Random) -> bytes:
    """Alter the metadata most often, for what they describe is read last; then header, body and bytes."""
    action = random.random()
    if action < 0.05:
        return random_bytes(random)
    file = TensorFile(dict(seed.metadata), dict(seed.entries), seed.body, dict(seed.raw))
    if action < 0.6:
        file.metadata = _altered_metadata(file.metadata, random)
    elif action < 0.65:
        file.raw[random.choice((*file.metadata, *file.raw))] = _odd_json(random)
    elif action < 0.85:
        _alter_entries(file, random)
    if random.random() < 0.15:
        file.body = alter_bytes(file.body, random)
    data = file.serialise()
    if action < 0.85:
        return data
    data = alter_bytes(data[: random.choice((8, 300, len(data)))], random) + data
    return sealed(data) if random.random() < 0.7 else data


def _altered_metadata(metadata: dict[str, Any], random: Random) -> dict[str, Any]:
    """Alter one value of the metadata at least, or leave one out."""
    for _ in range(random.choice((1, 1, 1, 2))):
        key = random.choice(sorted(metadata))
        metadata[key] = alter_tree(metadata[key], random, random.choice((1, 1, 3)))
    if random.random() < 0.03:
        del metadata[random.choice(sorted(metadata))]
    return metadata


def _odd_json(random: Random) -> str:
    return random.choice(
        (
            "",
            "{",
            "[" * 100_000,
            '{"a":' * 5000,
            "NaN",
            "-Infinity",
            "9" * 5000,
            '"\\ud800"',
            "1e999",
            "\0",
            "null",
        )
    )


def _alter_entries(file: TensorFile, random: Random) -> None:
    """Alter the header's entry of a tensor."""
    if not file.entries:
        return
    name = random.choice(sorted(file.entries))
    entry = dict(file.entries[name])
    action = random.randrange(7)
    if action == 0:
        entry["dtype"] = random.choice(_DTYPES)
    elif action == 1:
        entry["shape"] = random.choice(
            ([], [0], [random.choice(EXTREMES)], [*entry["shape"], 1], entry["shape"][::-1], [1] * 100, None)
        )
    elif action == 2:
        start, end = entry["data_offsets"]
        entry["data_offsets"] = random.choice(
            (
                [end, start],
                [start, random.choice(EXTREMES)],
                [start + 4, end + 4],
                [start, end, end],
                [],
                [-4, end],
            )
        )
    elif action == 3:
        entry = alter_tree(entry, random)
    elif action == 4:
        file.entries[random.choice(("", "x", name + "0", "layers.7.weight", "\ud800"))] = entry
    elif action == 5:
        # The same bytes under another shape and dtype, which safetensors accepts.
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry |= {"dtype": random.choice(("U8", "I8", "BOOL", "F8_E4M3", "F8_E5M2")), "shape": [size]}
    else:
        del file.entries[name]
        return
    file.entries[name] = entry
