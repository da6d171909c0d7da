"""Findings before training: each mistake is committed and named, and sound data raise no alarm."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr

from nnkit import Activation, Dense, Dropout
from nnkit.data.sources.built_in import BUILT_INS
from nnkit.diagnostics.data import _agreement, _rank_correlation, check_data, sample_rows
from nnkit.diagnostics.findings import Finding, check_settings, read_findings, write_findings
from nnkit.errors import FileError, ModelFileError
from nnkit.feed.features import Bags, Features, features_from
from nnkit.nn.layers import Layer
from nnkit.nn.losses import loss_from
from nnkit.runs.config import Config
from nnkit.runs.run import Run


def names(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings]


def settings_of(layers: list[Layer], loss: str, targets: NDArray | None = None) -> list[str]:
    return names(check_settings(layers, loss_from(loss), targets))


def run_of(source: object, *settings: str) -> Run:
    return Run(Config().with_overrides([f"data.train={source}", *settings]))


def noise(rows: int = 400, columns: int = 4, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def classes_of(X: NDArray, seed: int = 1) -> NDArray[np.int32]:
    """Return two classes that the first two columns decide between them, with some noise."""
    blurred = X[:, 0] + X[:, 1] + 0.3 * np.random.default_rng(seed).standard_normal(len(X))
    return (blurred > 0).astype(np.int32)


# --- settings ---


@pytest.mark.parametrize(("name", "severity"), [("sigmoid", "serious"), ("tanh", "notice")])
def test_squashing_activations_in_three_hidden_layers_are_named(name: str, severity: str) -> None:
    [finding] = check_settings([*[Dense(8, name)] * 3, Dense(3)], loss_from("cross_entropy"))
    assert (finding.name, finding.severity) == ("saturating_activation", severity)
    assert f"{name} in 3 hidden layers" in finding.seen
    assert "model.activation" in finding.change


def test_two_hidden_layers_of_sigmoids_or_many_of_relus_are_sound() -> None:
    assert settings_of([*[Dense(8, "sigmoid")] * 2, Dense(3)], "cross_entropy") == []
    assert settings_of([*[Dense(8, "relu"), Dropout(0.5)] * 6, Dense(3)], "cross_entropy") == []


def test_activations_in_layers_of_their_own_are_counted_too() -> None:
    layers: list[Layer] = [Dense(8), Activation("sigmoid")] * 3
    assert settings_of([*layers, Dense(3)], "cross_entropy") == ["saturating_activation"]


@pytest.mark.parametrize(
    ("output", "loss"),
    [("sigmoid", "binary_cross_entropy"), ("relu", "cross_entropy"), ("softplus", "poisson")],
)
def test_an_output_activation_before_the_losss_own_is_named(output: str, loss: str) -> None:
    assert settings_of([Dense(8, "relu"), Dense(1, output)], loss) == ["doubled_output"]
    assert settings_of([Dense(8, "relu"), Dense(1)], loss) == []


def test_targets_that_the_output_cannot_reach_are_named() -> None:
    targets = noise(200, 1)
    for output in ("relu", "sigmoid", "tanh"):
        assert settings_of([Dense(1, output)], "mse", targets) == ["unreachable_targets"]
    assert settings_of([Dense(1, "relu")], "mse", np.abs(targets)) == []
    assert settings_of([Dense(1, "sigmoid")], "mse", 1 / (1 + np.exp(-targets))) == []


def test_a_loss_of_quantities_on_two_classes_is_named() -> None:
    two = np.array([[0.0], [1.0]] * 30, np.float32)
    assert settings_of([Dense(1)], "mse", two) == ["unfit_loss"]
    assert settings_of([Dense(1)], "binary_cross_entropy", two) == []
    assert settings_of([Dense(1)], "mse", noise(60, 1)) == []
    # Two rows have two values, whatever they are.
    assert settings_of([Dense(1)], "mse", two[:2]) == []


def test_a_poisson_loss_on_negative_targets_is_named() -> None:
    assert settings_of([Dense(1)], "poisson", noise(60, 1)) == ["unfit_loss"]
    assert settings_of([Dense(1)], "poisson", np.abs(noise(60, 1))) == []


# --- data ---


def test_features_of_different_scale_are_named_where_scaling_is_off() -> None:
    X = noise() * np.array([1, 1e4, 0.5, 1], np.float32)
    [finding] = check_data(Features(X), classes_of(noise()), names=["a", "b", "c", "d"], scaled=False)
    assert finding.name == "unscaled_features"
    ratio = np.sqrt((X[:, 1] ** 2).mean() / (X[:, 2] ** 2).mean())
    assert f"{ratio:,.0f}-fold" in finding.seen
    assert "'c'" in finding.seen
    assert "'b'" in finding.seen
    assert check_data(Features(X), classes_of(noise())) == []
    assert check_data(Features(noise()), classes_of(noise()), scaled=False) == []


def test_pixels_taken_as_they_are_are_named() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 16)).astype(np.float32)
    [finding] = check_data(
        Features(pixels, picture=(1, 4, 4)), np.arange(100, dtype=np.int32) % 2, scaled=False
    )
    assert finding.name == "unscaled_features"


def test_a_constant_feature_is_named() -> None:
    X = noise()
    X[:, 2] = 7.0
    [finding] = check_data(Features(X), classes_of(X), names=list("abcd"))
    assert finding.name == "constant_features"
    assert "'c' has one value" in finding.seen
    assert 'data.drop = ["c"]' in finding.change


def outside_a_sample(rows: int) -> int:
    """Return a row that a check's sample of 2,000 does not have."""
    return int(np.setdiff1d(np.arange(rows), sample_rows(rows, 2_000))[0])


def test_a_feature_that_changes_outside_the_sample_is_neither_constant_nor_a_copy() -> None:
    X = noise(6_000)
    X[:, 2], X[:, 3] = 7.0, X[:, 1]
    found = check_data(Features(X), classes_of(X), names=list("abcd"))
    assert [finding.seen for finding in found] == [
        "'c' has one value in 6,000 rows",
        "'d' repeats 'b' in 6,000 rows",
    ]
    X[outside_a_sample(6_000), 2:] = 9.0
    assert check_data(Features(X), classes_of(X)) == []


def test_selected_rows_and_codes_are_confirmed_too() -> None:
    rows = np.arange(1, 6_001)
    X = np.concatenate([noise(1), noise(6_000), noise(1)])
    codes = np.random.default_rng(0).integers(0, 5, (6_000, 1), dtype=np.int32)
    codes = np.hstack([codes, codes])
    X[rows, 2] = 7.0
    features = Features(X, codes=codes, cardinalities=(5, 5), rows=rows)
    found = check_data(features, classes_of(X[rows]), names=list("abcdef"))
    assert names(found) == ["constant_features", "duplicated_features"]
    assert "'f' repeats 'e' in 6,000 rows" in found[1].seen
    row = outside_a_sample(6_000)
    X[rows[row], 2], codes[row, 1] = 8.0, 4 - codes[row, 0] if codes[row, 0] != 2 else 0
    assert check_data(features, classes_of(X[rows]), names=list("abcdef")) == []


def test_findings_of_a_sample_say_so(tmp_path: Path) -> None:
    X = noise(6_000)
    y = classes_of(X)
    X[:, 2], X[:, 3] = 7.0, y
    np.save(tmp_path / "X.npy", X)
    mapped = Features(np.load(tmp_path / "X.npy", mmap_mode="r"))
    found = check_data(mapped, y, names=list("abcd"), scaled=False)
    assert names(found) == ["constant_features", "target_leak"]
    for finding in found:
        assert "in a sample of 2,000 of 6,000 rows" in finding.seen
    mapped = Features(mapped.dense, scale=np.full(4, 1e3))
    assert "in a sample of 2,000 of 6,000 rows" in check_data(mapped, y, scaled=False)[0].seen


@pytest.mark.parametrize("factor", [1.0, -2.54])
def test_a_feature_in_another_unit_is_a_duplicate(factor: float) -> None:
    X = np.hstack([noise(), factor * noise()[:, 1:2] + 32])
    [finding] = check_data(Features(X), classes_of(X), names=list("abcde"))
    assert finding.name == "duplicated_features"
    assert "'e' repeats 'b'" in finding.seen


def test_a_feature_that_is_only_close_to_another_is_no_duplicate() -> None:
    X = noise()
    X[:, 3] = X[:, 1] + 0.01 * X[:, 2]
    assert check_data(Features(X), classes_of(X)) == []


def test_flags_of_missing_numbers_are_neither_constants_nor_copies_nor_unscaled() -> None:
    X = noise()
    flags = np.zeros((400, 3), np.float32)
    flags[5, :2] = 1  # missing together, once; the third only in rows outside a sample
    features, columns = Features(np.hstack([X, flags])), [*"abcd", *"abc"]
    assert check_data(features, classes_of(X), names=columns, scaled=False, flags=3) == []


def test_a_flag_that_decides_the_class_is_named_by_its_column() -> None:
    X = noise()
    y = classes_of(X)
    features = Features(np.hstack([X, y[:, None].astype(np.float32)]))
    [finding] = check_data(features, y, names=[*"abcd", "c"], flags=1)
    assert finding.name == "target_leak"
    assert "whether 'c' is missing alone predicts the target" in finding.seen
    assert 'data.drop = ["c"]' in finding.change


def test_duplicated_categories_are_found_among_codes() -> None:
    codes = np.random.default_rng(0).integers(0, 5, (300, 1), dtype=np.int32)
    both = np.hstack([codes, (codes * 3) % 5, codes])
    features = Features(noise(300, 1), codes=both, cardinalities=(5, 5, 5))
    [finding] = check_data(features, classes_of(noise(300)), names=["x", "colour", "shade", "hue"])
    assert finding.name == "duplicated_features"
    assert "'hue' repeats 'colour'" in finding.seen


@pytest.mark.parametrize("kind", ["copy", "threshold", "order of the rows"])
def test_a_feature_that_decides_the_class_is_named(kind: str) -> None:
    X, y = noise(600), classes_of(noise(600))
    if kind == "copy":
        X[:, 2] = y * 3 + 1
    elif kind == "threshold":
        X[:, 2] = np.where(y == 1, np.abs(X[:, 2]), -np.abs(X[:, 2]))
    else:
        y = np.sort(y)
        X = noise(600, seed=3)
        X[:, 2] = np.arange(600)
    [finding] = check_data(Features(X), y, names=list("abcd"))
    assert (finding.name, finding.severity) == ("target_leak", "serious")
    assert "'c' alone" in finding.seen
    assert 'data.drop = ["c"]' in finding.change


def test_a_feature_that_is_the_regressions_target_in_another_scale_is_named() -> None:
    X = noise(500)
    target = (X @ [1.0, 2.0, 0.5, 0.1]).reshape(-1, 1).astype(np.float32)
    assert check_data(Features(X), target) == []
    leaking = np.hstack([X, np.exp(target)])
    [finding] = check_data(Features(leaking), target, names=list("abcde"))
    assert finding.name == "target_leak"
    assert "'e'" in finding.seen


def test_a_single_feature_is_no_leak() -> None:
    X = noise(200, 1)
    assert check_data(Features(X), 2 * X) == []


def test_the_rank_correlation_is_scipys() -> None:
    X, target = noise(300, 3), noise(300, 1, seed=5)[:, 0] + noise(300, 3)[:, 1]
    found = _rank_correlation(target, np.argsort(X, axis=0, kind="stable"))
    assert np.allclose(found, [abs(spearmanr(column, target).statistic) for column in X.T], atol=1e-12)


def test_the_agreement_of_neighbours_is_that_of_a_plain_loop() -> None:
    X, y = noise(200, 2), classes_of(noise(200, 2))
    found = _agreement(y, np.argsort(X, axis=0, kind="stable"))
    for column in range(2):
        ordered = [label for _, label in sorted(zip(X[:, column].tolist(), y.tolist(), strict=True))]
        agree = sum(a == b for a, b in pairwise(ordered)) / 199
        chance = np.mean(y == 0) ** 2 + np.mean(y == 1) ** 2
        assert found[column] == pytest.approx((agree + 1 / 199 - chance) / (1 - chance))


def test_class_imbalance_is_named_with_its_figures() -> None:
    y = np.array([0] * 950 + [1] * 50, np.int32)
    [finding] = check_data(Features(noise(1000)), y, classes=["ham", "spam"])
    assert (finding.name, finding.severity) == ("class_imbalance", "notice")
    assert "class spam has 50 of 1,000 rows (5.00%), class ham 19 times as many" in finding.seen
    # Weighted classes cost log loss; of two, a threshold decides as well without.
    assert "threshold" in finding.change
    assert "log_loss grows" in finding.change
    assert check_data(Features(noise(1000)), y, classes=None) == []
    rare = np.array([0] * 1990 + [1] * 10, np.int32)
    assert check_data(Features(noise(2000)), rare, classes=["a", "b"])[0].severity == "serious"
    assert check_data(Features(noise(1000)), np.arange(1000) % 3, classes=list("abc")) == []
    [finding] = check_data(Features(noise(1000)), y, classes=["ham", "spam", "other"])
    assert "threshold" not in finding.change
    assert "balanced_accuracy" in finding.change


def test_rows_in_both_shares_are_named_with_their_share() -> None:
    X, y = noise(1000), classes_of(noise(1000))
    held, held_y = noise(200, seed=9), classes_of(noise(200, seed=9))
    held[:60], held_y[:60] = X[100:160], y[100:160]
    [finding] = check_data(Features(X), y, (Features(held), held_y))
    assert finding.name == "rows_in_both_shares"
    assert "about 30%" in finding.seen
    held_y[:60] = 1 - held_y[:60]  # the same features of another target are other rows
    assert check_data(Features(X), y, (Features(held), held_y)) == []


def test_texts_in_both_shares_are_found_without_their_columns() -> None:
    def bags(seed: int, rows: int) -> Bags:
        generator = np.random.default_rng(seed)
        starts = np.concatenate([[0], np.cumsum(generator.integers(3, 9, rows))])
        return Bags(generator.integers(0, 500, starts[-1]).astype(np.int32), starts, 500)

    train, held = bags(0, 300), bags(1, 80)
    y, other = np.arange(300, dtype=np.int32) % 2, np.arange(80, dtype=np.int32) % 2
    empty = np.empty((300, 0), np.float32)
    features = Features(empty, bags=(train,))
    assert check_data(features, y, (Features(empty[:80], bags=(held,)), other)) == []
    [finding] = check_data(features, y, (features.take(np.arange(80)), y[:80]))
    assert finding.name == "rows_in_both_shares"


def test_sparse_rows_in_both_shares_are_found() -> None:
    X = features_from(csr_matrix(np.where(noise(300, 30) > 1, noise(300, 30), 0)), np.float32)
    y = np.arange(300, dtype=np.int32) % 2
    assert check_data(X.take(np.arange(200)), y[:200], (X.take(np.arange(200, 300)), y[200:])) == []
    [finding] = check_data(X, y, (X.take(np.arange(50)), y[:50]))
    assert finding.name == "rows_in_both_shares"


def test_the_sample_is_the_same_each_time_and_in_proportion() -> None:
    rows = sample_rows(100_000, 2_000)
    assert np.array_equal(rows, sample_rows(100_000, 2_000))
    assert np.all(np.diff(rows) > 0)
    assert np.array_equal(np.bincount(rows // 1000), np.full(100, 20))
    assert np.array_equal(sample_rows(7, 10), np.arange(7))


def test_a_mapped_file_is_not_walked() -> None:
    class Counted(np.ndarray):
        read = 0

        def __getitem__(self, place):  # type: ignore[no-untyped-def]
            if isinstance(place, np.ndarray):
                Counted.read += len(place)
            return super().__getitem__(place)

    dense = np.zeros((200_000, 2_000), np.uint8).view(Counted)
    some = np.arange(150_000)
    features = Features(dense, rows=some, picture=(1, 40, 50))
    held = Features(dense, rows=np.arange(150_000, 200_000), picture=(1, 40, 50))
    check_data(features, np.zeros(150_000, np.int32), (held, np.ones(50_000, np.int32)))
    assert 0 < Counted.read < 60_000


# --- runs ---


def test_a_run_names_what_its_config_and_data_show(tmp_path: Path) -> None:
    X = noise(300)
    y = np.array(["no", "yes"])[classes_of(X)]
    lines = [
        f"{a},{b * 1e5},{c},{label},{label}"
        for (a, b, c, _), label in zip(X.tolist(), y.tolist(), strict=True)
    ]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["a,b,c,outcome,target", *lines]) + "\n")
    run = run_of(path, "data.scaling=none", "model.hidden=[8, 8, 8]", "model.activation=sigmoid")
    assert names(run.check()) == ["saturating_activation", "unscaled_features", "target_leak"]
    assert names(run_of(path, "data.drop=['outcome']").check()) == []


def test_a_constant_column_of_a_table_is_named_though_it_is_left_out(tmp_path: Path) -> None:
    lines = [f"{a},3,here,{b},{'ab'[a + b > 0]}" for a, b in noise(100, 2).tolist()]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["x,unit,place,z,target", *lines]) + "\n")
    [finding] = run_of(path).check()
    assert finding.name == "constant_features"
    assert "'unit', 'place' have one value each in 90 rows" in finding.seen
    assert 'data.drop = ["unit", "place"]' in finding.change
    assert run_of(path, "data.drop=['unit', 'place']").check() == []


def test_a_validation_file_with_rows_of_the_training_file_is_named(tmp_path: Path) -> None:
    lines = [f"{a},{b},{'ab'[i % 2]}" for i, (a, b) in enumerate(noise(100, 2).tolist())]
    for name, some in (("train.csv", lines), ("held.csv", lines[:40])):
        (tmp_path / name).write_text("\n".join(["x,z,target", *some]) + "\n")
    run = run_of(tmp_path / "train.csv", f"data.validation={tmp_path / 'held.csv'}")
    [finding] = run.check()
    assert finding.name == "rows_in_both_shares"
    assert "100%" in finding.seen


@pytest.mark.parametrize("source", [name for name in BUILT_INS if "mnist" not in name])
def test_the_built_in_data_raise_no_alarm(source: str) -> None:
    assert run_of(source).check() == []


@pytest.mark.parametrize(
    ("source", "target"),
    [("mnist", ""), ("california_housing.csv", "median_house_value"), ("sms_spam.tsv", "0")],
)
def test_real_data_raise_no_alarm(shared_data: Path, source: str, target: str) -> None:
    assert run_of(shared_data / source, *([f"data.target={target}"] if target else [])).check() == []


# --- the file ---


def test_findings_come_back_from_their_file(tmp_path: Path) -> None:
    finding = Finding("flat_loss", "serious", "seen", "why.", "change.")
    path = tmp_path / "findings.json"
    write_findings(path, [finding], [{"epoch": 1, "layers": []}])
    assert read_findings(path) == ([finding], [{"epoch": 1, "layers": []}])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"format": 2}', b'{"format": 1, "findings": [{}], "figures": []}', b"[" * 5000, b"\xff"],
)
def test_a_file_without_findings_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "findings.json"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"findings\.json: holds no findings"):
        read_findings(path)
    with pytest.raises(FileError):
        read_findings(tmp_path / "missing.json")


def test_a_finding_of_an_unknown_severity_is_refused() -> None:
    finding = Finding("a", "serious", "b", "c", "d").to_json()
    assert Finding.from_json(json.loads(json.dumps(finding))).name == "a"
    with pytest.raises(ModelFileError):
        Finding.from_json({**finding, "severity": "grave"})
