"""The plots: what they say and hold, against something independent; and the files that they become."""

from __future__ import annotations

import io
import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn import inspection
from sklearn.datasets import load_digits, make_moons
from sklearn.metrics import average_precision_score, confusion_matrix, r2_score, roc_auc_score

from nnkit import load
from nnkit.data.examples import Examples
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import load_dataset
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError, FileError
from nnkit.insight import class_plots, drawing, picture_plots, surfaces, value_plots
from nnkit.insight.drawing import Plot, page_svg, together, write_plot
from nnkit.insight.evaluated_model import EvaluatedModel, EvaluatedRun, evaluated_run
from nnkit.insight.gallery import PLOTS, plot_of
from nnkit.insight.html import figure
from nnkit.insight.importance import importance_plot as plot_importance
from nnkit.insight.learning_plots import learning_plots
from nnkit.model import Model
from nnkit.nn.activations import activation_names, register_activation
from nnkit.nn.layers import Dense
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.runs.config import Config
from nnkit.runs.run import Run
from nnkit.training.history import History


def trained(folder: Path, *settings: str) -> EvaluatedRun:
    given = ["training.epochs=3", "model.hidden=[24]", "run.device=cpu", f"run.out={folder}", *settings]
    Run(Config().with_overrides(given)).train()
    return evaluated_run(folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedRun:
    return trained(tmp_path_factory.mktemp("digits") / "run", "data.train=digits")


@pytest.fixture(scope="module")
def moons(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedRun:
    folder = tmp_path_factory.mktemp("moons")
    X, y = make_moons(400, noise=0.15, random_state=0)
    lines = [f"{a:.6f},{b:.6f},{'upper' if label else 'lower'}" for (a, b), label in zip(X, y, strict=True)]
    (folder / "moons.csv").write_text("east,north,class\n" + "\n".join(lines))
    settings = ("data.target=class", "training.epochs=40", "training.batch_size=32")
    return trained(folder / "run", f"data.train={folder / 'moons.csv'}", *settings)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedRun:
    folder = tmp_path_factory.mktemp("values")
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 3))
    y = 1000 * X[:, 0] + 10 * generator.normal(size=300)
    lines = [",".join(f"{value:.5f}" for value in row) for row in np.column_stack([X, y])]
    (folder / "prices.csv").write_text("a,b,c,price\n" + "\n".join(lines))
    return trained(folder / "run", f"data.train={folder / 'prices.csv'}", "data.target=price")


def line(weight: float, bias: float, rows: int = 50) -> tuple[Model, Examples]:
    """Return a network of one weight and one bias, and rows to fit with it."""
    generator = np.random.default_rng(1)
    X = generator.normal(size=(rows, 1)).astype(np.float64)
    y = 3 * X[:, 0] - 1 + 0.3 * generator.normal(size=rows)
    network = Network([Dense(1)])
    values = {"layers.0.weight": [[weight]], "layers.0.bias": [bias]}
    network.initialize(1, dtype=np.float64, values=values)
    preprocessor = Preprocessor.fit(X, scaling="none", dtype=np.float64)
    target = TargetEncoder("regression", 1, None, np.zeros(1), np.ones(1))
    return Model(network, preprocessor, target, loss_from("mse")), Examples(X, y)


def test_a_run_is_measured_on_the_rows_that_were_held_out(digits: EvaluatedRun) -> None:
    X, y = load_digits(return_X_y=True)
    assert digits.kind == "validation"
    np.testing.assert_array_equal(digits.examples.features, X[digits.numbers])
    np.testing.assert_array_equal(digits.truth, y[digits.numbers])
    assert digits.metrics["accuracy"] == digits.model.details["metrics"]["validation"]["accuracy"]
    assert digits.notes == []


def test_data_that_have_changed_since_the_training_are_noted(tmp_path: Path) -> None:
    X, y = make_moons(400, noise=0.1, random_state=0)
    path = tmp_path / "data.npz"
    np.savez(path, X=X, y=y)
    assert trained(tmp_path / "run", f"data.train={path}").notes == []
    np.savez(path, X=X, y=1 - y)
    [note] = evaluated_run(tmp_path / "run").notes
    assert "the data have changed since" in note


def test_the_numbers_of_the_plots_are_scikit_learns(digits: EvaluatedRun) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[digits.numbers], y[digits.numbers]
    probabilities = digits.model.predict_proba(X)
    counts = confusion_matrix(y, probabilities.argmax(axis=1), labels=range(10))
    assert class_plots.confusion_plot(digits).rows == [
        [str(label), *map(str, row)] for label, row in enumerate(counts.tolist())
    ]
    roc = [[str(k), f"{roc_auc_score(y == k, probabilities[:, k]):.4f}"] for k in range(10)]
    assert class_plots.roc_plot(digits).rows == roc
    area = [[str(k), f"{average_precision_score(y == k, probabilities[:, k]):.4f}"] for k in range(10)]
    assert class_plots.precision_recall_plot(digits).rows == area


def test_the_words_of_a_regression_are_of_its_units(values: EvaluatedRun) -> None:
    found = values.truth[:, 0] - values.model.predict(values.examples.features)
    [[label, mean, spread]] = value_plots.residuals_plot(values).rows
    assert label == "price"
    assert float(mean.replace(",", "")) == pytest.approx(found.mean(), rel=1e-3)
    assert float(spread.replace(",", "")) == pytest.approx(found.std(), rel=1e-3)
    assert value_plots.predicted_plot(values).rows == [[label, mean, spread]]


def test_the_most_confident_mistakes_are_named_by_their_row_in_the_source(moons: EvaluatedRun) -> None:
    table = load_dataset(moons.config.data.train or "", target="class").train
    probabilities = moons.model.predict_proba(table.features)[:, 1]
    for row in moons.worst(5):
        number, true, predicted, probability = picture_plots.mistake_row(moons, row)
        place = int(number)
        assert table.target is not None
        assert true == table.target[place] != predicted
        expected = max(probabilities[place], 1 - probabilities[place])
        assert float(probability) == pytest.approx(expected, abs=1e-4)


def test_the_importance_of_columns_is_scikit_learns(values: EvaluatedRun) -> None:
    X = np.column_stack([values.examples.features[name] for name in "abc"])  # type: ignore[call-overload, index]

    def score(estimator: object, rows: np.ndarray, truth: np.ndarray) -> float:
        table = pa.table(dict(zip("abc", rows.T, strict=True)))
        return float(r2_score(truth, values.model.predict(table)))

    found = inspection.permutation_importance(
        SimpleNamespace(fit=lambda X, y: None),
        X,
        values.truth[:, 0],
        scoring=score,
        n_repeats=5,
        random_state=0,
    )
    rows = {name: float(mean) for name, mean, _ in plot_importance(values).rows}
    for name, expected in zip("abc", found.importances_mean, strict=True):
        assert rows[name] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    "name", ["sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "selu", "mish", "softplus"]
)
def test_activations_are_drawn_with_their_derivatives(name: str) -> None:
    z = np.linspace(-4, 4, 33) + 0.01
    step = 1e-6
    values, slopes = surfaces.activation_values(name, z)
    above, below = (surfaces.activation_values(name, z + shift)[0] for shift in (step, -step))
    np.testing.assert_allclose(slopes, (above - below) / (2 * step), atol=1e-6)
    expected = {
        "sigmoid": 1 / (1 + np.exp(-z)),
        "tanh": np.tanh(z),
        "relu": np.maximum(z, 0),
        "leaky_relu": np.where(z > 0, z, 0.01 * z),
        "elu": np.where(z > 0, z, np.exp(z) - 1),
        "gelu": [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in z],
        "silu": z / (1 + np.exp(-z)),
        "selu": 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * (np.exp(z) - 1)),
        "mish": z * np.tanh(np.log1p(np.exp(z))),
        "softplus": np.log1p(np.exp(z)),
    }[name]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def square(z):
    return z * z


def square_derivative(z):
    return 2.0 * z


def test_all_activations_are_drawn_a_users_own_among_them() -> None:
    register_activation("square_for_a_plot", square, square_derivative)
    plot = surfaces.activations_plot()
    assert [row[0] for row in plot.rows] == list(activation_names())
    assert plot.rows[-1][1:] == ["4.0000", "0.0000", "4.0000", "-4.0000", "0.0000", "4.0000"]
    assert [row[0] for row in surfaces.activations_plot(["relu"]).rows] == ["relu"]


def test_the_loss_of_one_weight_and_one_bias_is_the_bowl_itself() -> None:
    model, examples = line(2.5, -0.5)
    surface = surfaces.loss_surface(model, examples, points=9)
    X, y = np.asarray(examples.features), examples.target
    for j, bias in enumerate(surface.y):
        for i, weight in enumerate(surface.x):
            expected = 0.5 * np.mean((weight * X[:, 0] + bias - y) ** 2)
            assert surface.loss[j, i] == pytest.approx(expected, rel=1e-12)
    assert surface.centre == (2.5, -0.5)
    assert surface.names == ("weight", "bias")
    assert surface.x[4] == 2.5
    assert surface.y[4] == -0.5
    # The model is what it was.
    assert model.network.parameters()["layers.0.weight"].item() == 2.5


def test_directions_are_as_long_as_each_units_own_weights(digits: EvaluatedRun) -> None:
    network = digits.model.network
    direction = surfaces.filter_normalised_direction(network, 3)
    for name, values in network.parameters().items():
        if values.ndim == 1:
            assert not direction[name].any()
        else:
            for unit in range(values.shape[1]):
                own = np.sqrt(np.sum(values[:, unit].astype(float) ** 2))
                assert np.sqrt(np.sum(direction[name][:, unit] ** 2)) == pytest.approx(own)
    assert not np.allclose(
        direction["layers.0.weight"], surfaces.filter_normalised_direction(network, 4)["layers.0.weight"]
    )


def test_the_loss_in_the_middle_of_its_surface_is_the_models(digits: EvaluatedRun) -> None:
    surface = surfaces.loss_surface(digits.model, digits.examples, points=5)
    probabilities = digits.model.predict_proba(digits.examples.features)
    expected = -np.mean(np.log(probabilities[np.arange(len(probabilities)), digits.truth]))
    assert surface.loss[2, 2] == pytest.approx(expected, rel=1e-5)
    assert surface.loss.shape == (5, 5)
    # A corner, computed by hand from the two directions.
    parameters = digits.model.network.parameters()
    pair = [surfaces.filter_normalised_direction(digits.model.network, seed) for seed in (0, 1)]
    moved = {name: value + pair[0][name] - pair[1][name] for name, value in parameters.items()}
    hidden = np.maximum(
        np.asarray(digits.examples.features) / 16 @ moved["layers.0.weight"] + moved["layers.0.bias"], 0
    )
    logits = hidden @ moved["layers.1.weight"] + moved["layers.1.bias"]
    logits -= logits.max(axis=1, keepdims=True)
    terms = logits[np.arange(len(logits)), digits.truth] - np.log(np.exp(logits).sum(axis=1))
    assert surface.loss[0, 4] == pytest.approx(-terms.mean(), rel=1e-4)


def test_a_boundary_wants_two_features_and_a_classifier(
    moons: EvaluatedRun, digits: EvaluatedRun, values: EvaluatedRun
) -> None:
    plot = surfaces.boundary_plot(moons, points=31)
    assert "east" in plot.description
    shares = [float(share.rstrip("%")) for _, share in plot.rows]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert min(shares) > 20
    with pytest.raises(DataError, match="two features of numbers, and this model has 64"):
        surfaces.boundary_plot(digits)
    with pytest.raises(DataError, match="regression"):
        surfaces.boundary_plot(values)


def test_a_boundary_leaves_out_rows_that_lack_a_value(moons: EvaluatedRun) -> None:
    table = pa.table({"east": [0.0, None, 1.0, 9.0], "north": [0.5, 9.0, -0.5, None]})
    labels = np.array(["upper", "lower", "lower", "upper"], dtype=object)
    evaluated = EvaluatedModel(moons.model, Examples(table, labels), "given", np.arange(4), "rows.csv")
    plot = surfaces.boundary_plot(evaluated, points=31)
    right = moons.model.predict(table)[[0, 2]] == labels[[0, 2]]
    assert f"{right.mean():.2%} of 2 rows" in plot.description
    assert plot.description.endswith("2 more lack a value and are not shown.")
    figure = Figure()
    plot.draw(figure, drawing.LIGHT)
    [axes] = figure.axes
    assert axes.get_xlim()[1] < 2  # not where the others are
    empty = pa.table({"east": pa.array([None, 1.0]), "north": pa.array([1.0, None])})
    with pytest.raises(DataError, match="no row has both"):
        surfaces.boundary_plot(
            EvaluatedModel(moons.model, Examples(empty, labels[:2]), "given", np.arange(2), "x")
        )


def test_weights_into_the_first_layer_are_pictures(digits: EvaluatedRun) -> None:
    plot = picture_plots.weights_plot(digits.model, (8, 8))
    norms = np.linalg.norm(digits.model.network.parameters()["layers.0.weight"], axis=0)
    assert len(plot.rows) == 24
    assert float(plot.rows[5][1]) == pytest.approx(norms[5], rel=1e-3)
    with pytest.raises(DataError, match="no pixels"):
        picture_plots.weights_plot(digits.model, (4, 4))
    # Channels × height × width: each channel is in its colour.
    colour = picture_plots._weight_picture(np.arange(12.0), (3, 2, 2))
    assert colour.shape == (2, 2, 3)
    np.testing.assert_allclose(colour[0, 1], 0.5 + 0.5 * np.array([1, 5, 9]) / 11)
    # Height × width × channels, as an array may have it.
    colour = picture_plots._weight_picture(np.arange(12.0), (2, 2, 3))
    np.testing.assert_allclose(colour[0, 1], 0.5 + 0.5 * np.array([3, 4, 5]) / 11)
    with pytest.raises(DataError, match="no pixels"):
        picture_plots.weights_plot(digits.model, (4, 4, 4))


def drawn_by(evaluated: EvaluatedRun, what: str) -> Plot:
    return plot_of(what, evaluated.folder, None, lambda model, source: load_dataset(source))


@pytest.mark.parametrize(
    ("fixture", "names"),
    [
        (
            "digits",
            ("learning", "confusion", "roc", "precision-recall", "calibration", "mistakes", "weights"),
        ),
        ("moons", ("boundary", "roc", "calibration", "loss-surface", "activations")),
        ("values", ("learning", "predicted", "residuals", "importance")),
    ],
)
def test_each_plot_becomes_png_and_svg(
    fixture: str, names: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for name in names:
        plot = drawn_by(request.getfixturevalue(fixture), name)
        assert plot.title
        assert len(plot.description) > 40
        for dark in (False, True):
            write_plot(plot, tmp_path / "plot.png", dark)
            with Image.open(tmp_path / "plot.png") as picture:
                pixels = picture.convert("RGB")
            assert pixels.getpixel((0, 0)) == ((0x14, 0x17, 0x1A) if dark else (255, 255, 255))
            assert len(pixels.getcolors(pixels.width * pixels.height)) > 20
        write_plot(plot, tmp_path / "plot.svg")
        root = ElementTree.parse(tmp_path / "plot.svg").getroot()
        words = {element.tag.rpartition("}")[2]: element.text for element in root}
        assert words["title"] == plot.title
        assert words["desc"] == plot.description
        assert "prefers-color-scheme: dark" in str(words["style"])
        text = (tmp_path / "plot.svg").read_text()
        for stand_in in drawing._STAND_IN.by_role().values():
            assert stand_in not in text
        # Every axis that can be read has a label, but for pictures, which have none.
        if name not in ("mistakes", "weights"):
            assert label_of_axes(plot)


def label_of_axes(plot: Plot) -> bool:
    with drawing._drawn(plot, drawing.LIGHT, opaque=True) as figure:
        main = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
        return all(axes.get_ylabel() for axes in main) and any(axes.get_xlabel() for axes in main)


def test_every_plot_has_a_name_and_is_drawn_by_the_test_above(digits: EvaluatedRun) -> None:
    with pytest.raises(ConfigError, match="did you mean roc"):
        drawn_by(digits, "rocc")
    assert len(PLOTS) == 13


def test_plots_one_below_the_other_are_one_file(digits: EvaluatedRun, tmp_path: Path) -> None:
    parts = learning_plots(digits.history, "cross_entropy")
    assert [part.key for part in parts] == [
        "learning-loss",
        "learning-accuracy",
        *[part.key for part in parts[2:]],
    ]
    both = together(parts, "both", "Both")
    assert both.size[1] > parts[0].size[1]
    assert all(part.description in both.description for part in parts)
    losses = [row["loss"] for row in digits.history]
    assert [float(row[1]) for row in parts[0].rows] == pytest.approx(losses, rel=1e-3)
    assert together(parts[:1], "one", "One") is parts[0]


def test_a_plot_in_a_page_names_its_words(moons: EvaluatedRun) -> None:
    svg = page_svg(class_plots.roc_plot(moons))
    assert svg.startswith('<svg role="img" aria-labelledby="roc-title roc-description"')
    assert "var(--series-0)" in svg
    assert "var(--ink)" in svg
    assert "xmlns" not in svg
    ElementTree.parse(io.StringIO(svg))


def test_names_with_dollars_are_no_mathematics(tmp_path: Path) -> None:
    X, y = make_moons(200, noise=0.1, random_state=0)
    lines = [f"{a:.4f},{b:.4f},{('$x^$', '$10_{$')[label]}" for (a, b), label in zip(X, y, strict=True)]
    (tmp_path / "prices.csv").write_text("$a^$,$b_$,$kind$\n" + "\n".join(lines))
    evaluated = trained(tmp_path / "run", f"data.train={tmp_path / 'prices.csv'}", "data.target=$kind$")
    for name in ("confusion", "roc", "precision-recall", "calibration", "boundary", "learning"):
        write_plot(drawn_by(evaluated, name), tmp_path / "plot.svg")
        text = (tmp_path / "plot.svg").read_text()
        assert {"confusion": "$x^$", "boundary": "$a^$"}.get(name, "") in text
        assert "\\$" not in text


def test_a_record_that_no_training_writes_is_drawn_all_the_same(tmp_path: Path) -> None:
    rows = [
        {"epoch": 1, "step": 1, "loss": 1e308, 'x"><script>$^$': 5.0, "validation_y": None},
        {"epoch": 2**62, "step": 2, "loss": 1e-308, "validation_y": -1e308},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("plot.svg", "plot.png"):
        write_plot(
            plot_of("learning", tmp_path, None, lambda model, source: load_dataset(source)), tmp_path / name
        )
    for plot in learning_plots(History.from_jsonl(tmp_path / "metrics.jsonl")):
        assert "<script>" not in figure(plot)


def test_wrong_input_is_an_error_that_says_what_to_do(
    digits: EvaluatedRun, values: EvaluatedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = class_plots.roc_plot(digits)
    with pytest.raises(ConfigError, match=r"\.png or \.svg"):
        write_plot(plot, tmp_path / "plot.pdf")
    for what in ("confusion", "boundary"):
        with pytest.raises(DataError, match="regression"):
            drawn_by(values, what)
    for what in ("roc", "precision-recall", "calibration"):
        with pytest.raises(ConfigError, match="regression has none: draw predicted or residuals"):
            drawn_by(values, what)
    with pytest.raises(DataError, match="multiclass"):
        drawn_by(digits, "residuals")
    with pytest.raises(DataError, match="no pictures"):
        drawn_by(values, "mistakes")
    with pytest.raises(DataError, match="no pixels"):
        drawn_by(values, "weights")

    def nothing(model: Model, source: str) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="give `path`"):
        plot_of("roc", None, None, nothing)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give `data` too"):
        plot_of("roc", digits.folder / "model.safetensors", None, nothing)  # type: ignore[arg-type]
    with pytest.raises(FileError, match=r"no config\.toml"):
        plot_of("roc", tmp_path, None, nothing)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="to compare with"):
        EvaluatedModel(digits.model, Examples(np.zeros((2, 64))), "given", np.arange(2), "nothing.npy")
    monkeypatch.setattr(drawing, "have_matplotlib", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install matplotlib$"):
        write_plot(plot, tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def test_a_model_on_other_rows_is_drawn_too(digits: EvaluatedRun) -> None:
    path = digits.folder / "model.safetensors"
    plot = plot_of("confusion", path, "digits", lambda model, source: load_dataset(source))
    right = int((load(path).predict(load_digits().data) == load_digits().target).sum())
    assert f"{right:,} of 1,797 given rows are right" in plot.description
