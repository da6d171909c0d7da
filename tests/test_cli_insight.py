"""`nnkit report` and `nnkit plot` as a user meets them."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import nnkit, succeed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("insight") / "run"
    succeed("train", "digits", "--hidden", "16", "--epochs", "2", "--device", "cpu", "--out", folder)
    return folder


def test_report_writes_its_page_into_the_run_or_to_the_path_given(run: Path, tmp_path: Path) -> None:
    assert f"report   {run / 'report.html'}" in succeed("report", run)
    succeed("report", run, "--out", tmp_path / "page.html")
    pages = [path.read_text() for path in (run / "report.html", tmp_path / "page.html")]
    assert pages[0] == pages[1]


def test_several_labels_are_counted_as_labels_and_drawn_one_by_one(tmp_path: Path) -> None:
    lines = [f"{a},{(a * 7) % 5},{int(a > 9)},{a % 2},{int(a < 5)}" for a in range(40)]
    (tmp_path / "tags.csv").write_text("a,b,warm,wet,dark\n" + "\n".join(lines))
    target = ("--set", "data.target=['warm', 'wet', 'dark']", "--hidden", "4", "--epochs", "1")
    out = succeed("train", tmp_path / "tags.csv", *target, "--device", "cpu", "--out", tmp_path / "run")
    assert "(multilabel, 3 labels)" in out
    picture = tmp_path / "plot.svg"
    assert "right in every label" in succeed("plot", "confusion", tmp_path / "run", "--out", picture)
    assert all(f">{label}</text>" in picture.read_text() for label in ("warm", "wet", "dark"))


def test_plot_says_what_is_to_be_seen(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "plot.svg"
    assert "validation rows are right" in succeed("plot", "confusion", run, "--out", out)
    assert "1,797 given rows" in succeed("plot", "confusion", run, "digits", "--out", out)
    assert "Activations" in succeed("plot", "activations", "--out", out)
    assert out.read_text().startswith("<?xml")


def test_a_plot_has_a_name_of_its_own(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"picture  {run / 'learning.png'}\n" in succeed("plot", "learning", run)
    assert (run / "learning.png").is_file()
    assert "picture  confusion.png\n" in succeed("plot", "confusion", run / "model.safetensors", "digits")
    succeed("plot", "activations")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["activations.png", "confusion.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "nowhere"], "nowhere: there is no such file or run"),
        (["plot", "nothing", "--out", "a.png"], "unknown plot"),
        (["plot", "roc", "--out", "a.png"], "RUN"),
        (["plot", "activations", "--out", "a.gif"], ".png or .svg"),
        (["plot", "roc", "nowhere.safetensors", "digits", "--out", "a.png"], "nowhere.safetensors"),
    ],
)
def test_a_mistake_ends_with_2_and_a_mend(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = nnkit(*arguments)
    assert result.code == 2
    assert words in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


def test_a_plot_that_a_regression_does_not_have_names_those_it_has(tmp_path: Path) -> None:
    (tmp_path / "line.csv").write_text("x,y\n" + "".join(f"{x},{x * 1.5}\n" for x in range(60)))
    succeed("train", tmp_path / "line.csv", "--target", "y", "--epochs", 1, "--out", tmp_path / "run")
    result = nnkit("plot", "roc", tmp_path / "run")
    assert result.code == 2
    assert "a regression has none: draw predicted or residuals" in result.err
    assert f"picture  {tmp_path / 'run/predicted.png'}" in succeed("plot", "predicted", tmp_path / "run")


def test_a_model_for_other_data_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b,class\n1,2,x\n3,4,y\n")
    result = nnkit("plot", "roc", run, tmp_path / "other.csv", "--out", tmp_path / "a.png")
    assert result.code == 2
    assert len(result.err.strip().splitlines()) <= 2
