"""The report of a run: one valid page that needs nothing but itself, and holds what it should."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from html_pages import check
from PIL import Image
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

from nnkit.diagnostics.findings import Finding, write_findings
from nnkit.errors import FileError, ModelFileError
from nnkit.insight import confusion_section as confusion_module
from nnkit.insight import drawing
from nnkit.insight import report as report_module
from nnkit.insight.class_plots import confusion_plot
from nnkit.insight.evaluated_model import EvaluatedRun, evaluated_run
from nnkit.insight.report import report, write_report
from nnkit.runs.config import Config
from nnkit.runs.run import Run


def trained(folder: Path, *settings: str) -> EvaluatedRun:
    given = ["training.epochs=2", "model.hidden=[16]", "run.device=cpu", f"run.out={folder}", *settings]
    Run(Config().with_overrides(given)).train()
    return evaluated_run(folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedRun:
    return trained(tmp_path_factory.mktemp("report") / "run", "data.train=digits")


@pytest.fixture(scope="module")
def page(digits: EvaluatedRun) -> str:
    return report(digits)


def cells_of(page: str) -> dict[str, dict]:
    [text] = re.findall(r'<script type="application/json" id="cells">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_rows_of_a_run_are_found_without_a_trainer_a_network_or_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["data.train=iris", "training.epochs=2", "model.hidden=[4]", f"run.out={tmp_path / 'run'}"]
    run = Run(Config().with_overrides(given))
    outcome = run.train()
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace('device = "auto"', 'device = "cuda:7"'))
    assert 'device = "cuda:7"' in config.read_text()
    files = sorted((tmp_path / "run").iterdir())

    def refuse(*given: object, **options: object) -> None:
        raise AssertionError("only the rows are needed")

    for name in ("training.trainer.Trainer.__init__", "data.preprocessing.Preprocessor.fit"):
        monkeypatch.setattr(f"nnkit.{name}", refuse)
    evaluated = evaluated_run(tmp_path / "run")
    assert evaluated.numbers.tolist() == run.data.measured_rows().numbers.tolist()
    assert evaluated.metrics == pytest.approx(outcome.metrics)
    assert sorted((tmp_path / "run").iterdir()) == files


def test_the_best_epoch_of_a_top_k_accuracy_is_its_highest(tmp_path: Path) -> None:
    page = report(trained(tmp_path / "run", "data.train=digits", 'training.metrics=["top_3_accuracy"]'))
    [description] = re.findall(r'id="learning-top-3-accuracy-description">([^<]*)<', page)
    assert re.search("Validation: .*, highest in epoch", description)


def test_the_page_is_valid_and_asks_nothing_of_any_host(page: str) -> None:
    names = check(page, active=True).names
    sections = (
        "metrics learning confusion-matrix probabilities mistakes first-layer network configuration machine"
    )
    assert set(sections.split()) <= set(names)
    assert "findings" not in names
    # The page itself forbids what the check looks for.
    assert "default-src 'none'" in page


def test_each_plot_has_labels_and_words(page: str) -> None:
    for key in ("learning-loss", "learning-accuracy", "roc", "precision-recall", "calibration", "weights"):
        figure = page[page.index(f'<figure id="plot-{key}"') :]
        figure = figure[: figure.index("</figure>")]
        assert figure.count("<svg ") == 1
        assert f'aria-labelledby="{key}-title {key}-description"' in figure
        assert "<details>" in figure
        if key != "weights":
            assert "var(--series-0)" in figure
    for label in ("epoch (passes over", "false positive rate", "recall<", "observed share"):
        assert label in page


def test_each_cell_of_the_confusion_matrix_shows_its_rows(digits: EvaluatedRun, page: str) -> None:
    counts = confusion_matrix(digits.truth, digits.predicted, labels=range(10))
    buttons = dict(re.findall(r'data-cell="(\d-\d)"[^>]*>([\d,]+)</button>', page))
    assert buttons == {f"{i}-{j}": str(n) for (i, j), n in np.ndenumerate(counts) if n}
    cells = cells_of(page)
    assert cells.keys() == buttons.keys()
    rows = {int(number): place for place, number in enumerate(digits.numbers)}
    for cell, content in cells.items():
        true, predicted = map(int, cell.split("-"))
        assert len(content["rows"]) == min(12, counts[true, predicted])
        assert content["title"] == f"True {true}, predicted {predicted}"
        shares = []
        for caption, _, url in content["rows"]:
            number, share = re.fullmatch(r"row ([\d,]+), ([\d.]+)", caption).groups()  # type: ignore[union-attr]
            place = rows[int(number.replace(",", ""))]
            assert (digits.truth[place], digits.predicted[place]) == (true, predicted)
            shares.append(float(share))
            picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
            pixels = np.asarray(digits.examples.features)[place].reshape(8, 8) / 16 * 255
            np.testing.assert_allclose(picture, pixels, atol=1)
        assert shares == sorted(shares, reverse=true != predicted)


def test_examples_stop_at_their_budget_and_every_cell_has_one(
    digits: EvaluatedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confusion_module, "_EXAMPLE_BYTES", 20_000)
    monkeypatch.setattr(confusion_module, "_MOST_CLASSES", 4)
    text = report(digits)
    check(text, active=True)
    cells = cells_of(text)
    assert len({cell[0] for cell in cells}) <= 4
    assert all(cell["rows"] for cell in cells.values())
    assert sum(len(row[2]) for cell in cells.values() for row in cell["rows"]) < 21_000
    assert "The table below has the 4 of 10 classes with the most mistakes" in text
    assert 'id="plot-confusion"' in text


def test_metrics_settings_and_machine_stand_there(digits: EvaluatedRun, page: str) -> None:
    for name, value in digits.metrics.items():
        assert f"<td>{name.replace('_', ' ')}</td><td>{value:,.4f}</td>" in page
    assert "expected calibration error" in page
    assert 'train = "digits"' in page.replace("&quot;", '"')
    assert "Dense(units=16" in page
    assert "<td>processor</td>" in page


def test_findings_are_shown_the_worst_first(digits: EvaluatedRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained(folder, "data.train=digits")
    found = [
        Finding("dead <units>", "notice", "3 %", "They learn nothing.", "x"),
        Finding("diverging", "serious", "9e9", "Too fast.", "rate = 1e-4"),
    ]
    write_findings(folder / "findings.json", found)
    evaluated = evaluated_run(folder)
    assert evaluated.findings == (found[1], found[0])
    text = report(evaluated)
    check(text, active=True)
    assert "dead &lt;units&gt;" in text
    assert "rate = 1e-4" in text
    (folder / "findings.json").unlink()
    assert evaluated_run(folder).findings == ()


@pytest.mark.parametrize("content", [b"{", b"[1]", b"{}", b"\xff", b"[" * 10**5, b'"x"'])
def test_findings_that_are_none_are_an_error_that_says_what_to_do(
    digits: EvaluatedRun, content: bytes
) -> None:
    path = digits.folder / "findings.json"
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(ModelFileError, match=r"holds no findings of a training: .*; remove it"):
            evaluated_run(digits.folder)
    finally:
        path.write_bytes(before)


def test_a_regression_has_values_and_residuals(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 2))
    y = 1000 * X[:, 0] + 10 * generator.normal(size=300)
    lines = [",".join(f"{value:.5f}" for value in row) for row in np.column_stack([X, y])]
    (tmp_path / "prices.csv").write_text("a,<b>,price\n" + "\n".join(lines))
    evaluated = trained(tmp_path / "run", f"data.train={tmp_path / 'prices.csv'}", "data.target=price")
    text = report(evaluated)
    names = check(text, active=True).names
    assert {"plot-importance", "plot-predicted", "plot-residuals", "values", "mistakes"} <= set(names)
    assert not {"confusion-matrix", "first-layer", "plot-roc"} & set(names)
    assert "(in units of price)" in text
    errors = np.abs(evaluated.model.predict(evaluated.examples.features) - evaluated.truth[:, 0])
    worst = evaluated.numbers[np.argmax(errors)]
    table = text[text.index('id="mistakes"') :]
    assert re.search(r"<tbody>\n<tr><td>([\d,]+)</td>", table).group(1) == f"{worst:,}"  # type: ignore[union-attr]
    assert "&lt;b&gt;" in table


def test_texts_are_shown_and_cannot_become_markup(tmp_path: Path) -> None:
    words = ["win money </script><script>alert(1)</script> now", "see you at home tonight then"]
    generator = np.random.default_rng(0)
    lines = []
    for number in range(120):
        spam = number % 2 == 0
        noise = " ".join(f"w{place}" for place in generator.integers(0, 30, 5))
        lines.append(
            json.dumps(
                {"text": f"{words[0 if spam else 1]} {noise} {number}", "label": ["ham", "<spam>"][spam]}
            )
        )
    (tmp_path / "mail.jsonl").write_text("\n".join(lines))
    evaluated = trained(
        tmp_path / "run", f"data.train={tmp_path / 'mail.jsonl'}", "data.target=label", "data.text=['text']"
    )
    text = report(evaluated)
    check(text, active=True)
    assert text.count("<script") == 2
    assert any("</script>" in row[1] for cell in cells_of(text).values() for row in cell["rows"])


def test_several_labels_have_curves_and_a_confusion_matrix_each(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(200, 3))
    lines = [f"{a},{b},{c},{int(a > 0)},{int(b + c > 0)}" for a, b, c in X]
    (tmp_path / "tags.csv").write_text("a,b,c,warm,wet\n" + "\n".join(lines))
    evaluated = trained(
        tmp_path / "run", f"data.train={tmp_path / 'tags.csv'}", "data.target=['warm', 'wet']"
    )
    assert evaluated.task == "multilabel"
    text = report(evaluated)
    names = check(text, active=True).names
    assert "plot-roc" in names
    assert "confusion-matrix" in names
    counts = multilabel_confusion_matrix(evaluated.truth, evaluated.predicted)
    for label, of in zip(("warm", "wet"), counts, strict=True):
        words = ("not " + label, label)
        for (true, predicted), count in np.ndenumerate(of):
            cell = f"true {words[true]}, predicted {words[predicted]}: {count:,} rows"
            assert (cell in text) == (count > 0)
    for name, cell in cells_of(text).items():
        label, true, predicted = map(int, name.split("-"))
        assert 0 < len(cell["rows"]) <= counts[label, true, predicted]
    assert confusion_plot(evaluated).rows == [
        [label, *map(str, of.ravel())] for label, of in zip(("warm", "wet"), counts, strict=True)
    ]
    wrong = (evaluated.truth != evaluated.predicted).any(axis=1)
    assert len(evaluated.worst(1000)) == wrong.sum()


def test_without_matplotlib_there_are_numbers_and_it_says_so(
    digits: EvaluatedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (drawing, report_module):
        monkeypatch.setattr(module, "have_matplotlib", lambda: False)
    text = report(digits)
    check(text, active=True)
    assert "<svg" not in text
    assert "matplotlib is not installed" in text
    assert "data-cell=" in text


def test_mnist_takes_less_than_three_megabytes(shared_data: Path, tmp_path: Path) -> None:
    evaluated = trained(tmp_path / "run", f"data.train={shared_data / 'mnist'}", "training.epochs=1")
    assert evaluated.kind == "test"
    path = write_report(tmp_path / "run")
    assert path == tmp_path / "run" / "report.html"
    assert path.stat().st_size < 3e6
    text = path.read_text()
    check(text, active=True)
    assert len(evaluated.examples) == 10_000


def test_a_path_that_is_no_run_is_an_error_that_says_what_to_do(digits: EvaluatedRun, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="give the folder of a run"):
        write_report(tmp_path)
    (tmp_path / "config.toml").write_bytes((digits.folder / "config.toml").read_bytes())
    with pytest.raises(FileError, match="its training has not ended: resume it"):
        write_report(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((digits.folder / "model.safetensors").read_bytes())
    with pytest.raises(FileError, match=r"metrics\.jsonl"):
        write_report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    assert "ended before its first epoch" in write_report(tmp_path).read_text()


def test_pictures_in_colour_are_shown_as_they_are(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, colour in (("red", (220, 40, 40)), ("blue", (40, 40, 220))):
        (tmp_path / "colours" / name).mkdir(parents=True)
        for number in range(40):
            pixels = np.clip(np.array(colour) + generator.normal(0, 60, (12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "colours" / name / f"{number}.png")
    evaluated = trained(tmp_path / "run", f"data.train={tmp_path / 'colours'}", "data.image_size=[12, 12]")
    text = report(evaluated)
    names = check(text, active=True).names
    assert "plot-weights" in names
    assert "each channel in its colour" in text
    for cell, content in cells_of(text).items():
        for caption, path, url in content["rows"]:
            picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
            np.testing.assert_array_equal(picture, np.asarray(Image.open(path)))
            assert Path(path).parent.name == evaluated.labels[int(cell[0])]
            assert evaluated.examples.features.paths[int(caption.split()[1].rstrip(","))] == path  # type: ignore[union-attr]
