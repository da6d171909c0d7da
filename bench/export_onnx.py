"""Compare predictions by an exported graph with the model's: `python bench/export_onnx.py`.

The default network for California's house prices, after one epoch; onnxruntime on two threads, and
`Model.predict` from columns in memory, in turns, for one row, a hundred and a hundred thousand. Written to
bench/results/export_onnx.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from program import DATA, in_turns, parser, require, save

from nnkit import read_table
from nnkit.bench.records import Record, measured, once
from nnkit.export.onnx import write_onnx
from nnkit.export.onnx.proof import feeds
from nnkit.runs.config import Config
from nnkit.runs.run import Run

ROWS = {1: 300, 100: 300, 100_000: 7}  # and how many turns
TINY = {1: 3, 100: 3, 1000: 2}


def records(tiny: bool) -> Iterator[Record]:
    """Measure each number of rows."""
    import onnxruntime

    source = DATA / "california_housing.csv"
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"data.train={source}", "data.target=median_house_value", "training.epochs=1"]
        run = Run(Config().with_overrides([*settings, f"run.out={folder}/run", "run.device=cpu"]))
        run.train()
        write_onnx(f"{folder}/run", f"{folder}/model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)
        table = read_table(source, schema=run.model.schema).select(run.model.preprocessor.input_names)
        size = Path(f"{folder}/model.onnx").stat().st_size
    for count, turns in (TINY if tiny else ROWS).items():
        rows = table.take(np.arange(count) % len(table))
        given = feeds(run.model.preprocessor, rows)
        apart = np.abs(session.run(None, given)[0] - run.model.predict(rows)).max()
        taken = in_turns(
            {"onnxruntime": partial(session.run, None, given), "nnkit": partial(run.model.predict, rows)},
            turns,
        )
        figures = {name: measured("s", seconds) for name, seconds in taken.items()}
        figures["onnxruntime / nnkit"] = measured("", taken["onnxruntime"] / taken["nnkit"])
        figures["greatest difference"] = once("", float(apart))
        yield Record("export", "california", parameters={"rows": count, "bytes": size}, figures=figures)


if __name__ == "__main__":
    options = parser(__doc__).parse_args()
    require("california_housing.csv")
    title = "An exported graph and the model"
    save(options, title, __doc__, records(options.tiny), ("onnxruntime", "onnx"))
