"""The page of a result: valid HTML, a plot for each dimension, nothing from elsewhere; and comparisons."""

from __future__ import annotations

import pytest
from html_pages import check

from nnkit.benchmarks import page as page_module
from nnkit.benchmarks.compare import compare
from nnkit.benchmarks.page import page
from nnkit.benchmarks.records import Quantity, Record
from nnkit.benchmarks.suite import Result
from nnkit.benchmarks.tables import markdown, section_table
from nnkit.insight import drawing as drawing_module


def quantity(value: float, unit: str = "samples/s", spread: float = 0.05, repeats: int = 5) -> Quantity:
    return Quantity(unit, value, value * (1 - spread), value * (1 + spread), repeats)


def result(factor: float = 1.0, devices: tuple[str, ...] = ("cpu", "cuda:0"), size: str = "full") -> Result:
    records = []
    for device in devices:
        speed = factor * (1 if device == "cpu" else 30)
        for width in (64, 512):
            for batch in (1, 128):
                throughput = quantity(speed * 1e6 * batch**0.5 / width)
                figures = {"step": quantity(batch / throughput.median, "s"), "throughput": throughput}
                parameters = {"width": width, "batch": batch}
                ratios = {"step / floor": quantity(1.4, "")}
                records.append(Record("step", "784-w-w-10", device, "fp32", parameters, figures, ratios))
        for precision in ("fp64", "fp32"):
            figures = {"throughput": quantity(speed * 1e4)}
            parameters = {"width": 512, "batch": 128}
            records.append(Record("precision", "784-w-w-10", device, precision, parameters, figures))
        records.append(Record("precision", "<b>&", device, "bf16", parameters, skipped="has none & <never>"))
        for name in ("nnkit", "JAX, an epoch a call"):
            figures = {"step": quantity(3e-3, "s")}
            records.append(Record("peers", name, device, "fp32", {"network": "20-1", "batch": 2}, figures))
    seconds = {"step": 12.0, "precision": 1.0, "peers": 3.0}
    return Result({"processor": "P & Q", "numpy": "2"}, size, "2026-01-01 00:00", records, seconds)


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cuda:0")])
def test_the_page_is_valid_and_has_a_plot_for_each_dimension(devices: tuple[str, ...]) -> None:
    text = page(result(devices=devices))
    checker = check(text)
    for dimension in ("device", "precision", "batch", "width"):
        figure = text[text.index(f'<figure id="plot-{dimension}"') :]
        figure = figure[: figure.index("</figure>")]
        assert figure.count("<svg ") == 1
        assert 'role="img"' in figure
        # Both axes have a label, the numbers stand there as text, and the colours are the page's.
        assert "samples a second" in figure
        assert dimension in figure
        assert "<details>" in figure
        assert "var(--series-0)" in figure
        assert "var(--ink)" in figure
    assert checker.names.count("plot-device") == 1
    assert "&lt;b&gt;&amp;" in text
    assert "not measured: has none &amp; &lt;never&gt;" in text


def test_without_matplotlib_the_page_has_tables_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (drawing_module, page_module):
        monkeypatch.setattr(module, "have_matplotlib", lambda: False)
    text = page(result())
    check(text)
    assert "<svg" not in text
    assert "matplotlib is not installed" in text
    assert "<summary>The numbers</summary>" in text


def test_an_empty_result_has_a_page_too() -> None:
    nothing = Result({"processor": "P"}, "quick", "2026-01-01 00:00", [], {})
    check(page(nothing, compare(nothing, nothing)))


def test_differences_larger_than_the_spreads_are_marked() -> None:
    comparison = compare(result(), result(factor=1.2))
    verdicts = {(change.section, change.figure, change.verdict) for change in comparison.changes}
    assert ("step", "throughput", "better") in verdicts
    assert ("step", "step", "better") in verdicts  # fewer seconds
    assert ("step", "step / floor", "within the spread") in verdicts
    assert {change.figure for change in comparison.marked} == {"throughput", "step"}
    assert not compare(result(), result(factor=1.05)).marked
    assert {change.verdict for change in compare(result(factor=2), result()).marked} == {"worse"}
    check(page(result(factor=1.2), comparison))


def test_the_verdict_follows_the_unit_and_one_measurement_has_none() -> None:
    def verdict(unit: str, repeats: int = 5) -> str:
        before, now = (
            Result(
                {},
                "full",
                "",
                [Record("step", "x", "cpu", figures={"y": quantity(v, unit, repeats=repeats)})],
                {},
            )
            for v in (1.0, 2.0)
        )
        return compare(before, now).changes[0].verdict

    assert verdict("s") == verdict("B") == "worse"
    assert verdict("samples/s") == verdict("B/s") == "better"
    assert verdict("") == "higher"
    assert verdict("s", repeats=1) == "measured once"


def test_a_comparison_says_what_else_is_not_the_same() -> None:
    before, now = result(), result(devices=("cpu",), size="quick")
    now.machine["numpy"] = "3"
    now.machine["load before"] = "9"
    comparison = compare(before, now)
    assert comparison.machine == {"numpy": ("2", "3")}
    assert comparison.sizes == ("full", "quick")
    assert comparison.only_now == []
    assert "step: 784-w-w-10, width 64, batch 1" in comparison.only_before
    only_steps = Result(now.machine, now.size, now.measured, now.section("step"), {"step": 1.0})
    assert all(name.startswith("step") for name in compare(before, only_steps).only_before)
    text = page(now, comparison)
    check(text)
    assert "numpy: 2 → 3" in text
    assert "The sizes are not the same: full before, quick now." in text


def test_a_table_has_a_column_for_whatever_occurs() -> None:
    records = [
        Record("step", "a", "cpu", "fp32", {"width": 1024}, {"step": quantity(1e-3, "s", 0.1)}),
        Record("step", "b|", "cuda:0", "fp32", {}, {}, {"ratio": quantity(2, "", 0)}),
        Record("step", "c", "cpu", "fp32", {"width": 4096}, skipped="too large"),
    ]
    assert markdown(section_table(records)).splitlines() == [
        "| what | width | device | step | ratio |",
        "| --- | --- | --- | --- | --- |",
        "| a | 1,024 | cpu | 1.00 (0.90 to 1.10) ms |  |",
        "| b∣ |  | cuda:0 |  | 2.00 (2.00 to 2.00) |",
        "| c | 4,096 | cpu | not measured: too large |  |",
    ]
    assert section_table(records[2:]).headers == ["what", "width", ""]
