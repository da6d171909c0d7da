"""Four lanes by one name: what the CUDA templates become before they are inlined."""

from __future__ import annotations

import pytest

from nnkit.kernels.lanes import expand_lanes


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("y4 = x4 * w + LANE", "; ".join(f"y{k} = x{k} * w + {k}" for k in range(4))),
        ("y4 = read4(w, x4)", "y0, y1, y2, y3 = read4(w, x0, x1, x2, x3)"),
        ("w += sum4(x4)", "w += sum4(x0, x1, x2, x3)"),
        ("w = shared((4, 2))", "w = shared((4, 2))"),
        ("return -x4, w", "return ((-x0, -x1, -x2, -x3), w)"),
        ("y4 = read4(w) if w else zero4(w)", "y0, y1, y2, y3 = read4(w) if w else zero4(w)"),
    ],
)
def test_a_statement_is_repeated_unless_it_takes_all_lanes(written: str, expanded: str) -> None:
    found = expand_lanes(f"def f(w, x4):\n    {written}\n")
    assert found.replace("\n    ", "; ") == f"def f(w, x0, x1, x2, x3):; {expanded}"


def test_a_condition_on_a_lane_repeats_its_branch() -> None:
    found = expand_lanes("def f(w, x4):\n    if x4 > w:\n        w = x4\n")
    assert found.count("if ") == 4
    assert "if x3 > w:\n        w = x3" in found
