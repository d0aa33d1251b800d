from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vez.report.charts import Dot, Line, dots, lines, nice_ticks, smooth, thin
from vez.report.motif import REPEAT, band

SVG = "{http://www.w3.org/2000/svg}"
numbers = st.floats(-1e6, 1e6, allow_nan=False)
HOSTILE = '"><script>alert(1)</script>&'


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_dots_say_every_value_in_a_title_and_mark_roles_by_shape() -> None:
    rows = [
        Dot("v1", 0.6, 0.5, 0.7, "v1: 0.600", "chosen"),
        Dot("v2", 0.5, None, None, "v2: 0.500"),
        Dot("no LoRA", 0.4, 0.3, 0.5, "no LoRA: 0.400", "base"),
    ]
    root = ElementTree.fromstring(dots(rows, title="scores", axis="mean", zero=0.4, zero_label="no LoRA"))
    marks = [group for group in root.iter(f"{SVG}g") if "mark" in group.get("class", "")]
    assert [mark.findtext(f"{SVG}title") for mark in marks] == ["v1: 0.600", "v2: 0.500", "no LoRA: 0.400"]
    assert len(root.findall(f".//{SVG}path[@class='whisker']")) == 2  # v2 has no interval and shows none
    glyphs = [mark.find(f"{SVG}*[@class='glyph']") for mark in marks]
    assert len({(glyph.tag, len(glyph.get("d", ""))) for glyph in glyphs if glyph is not None}) == 3
    assert root.get("role") == "img" and root.get("aria-label") == "scores"


def test_the_zero_line_is_always_within_the_chart() -> None:
    svg = dots([Dot("v1", 5.0, 4.0, 6.0, "t")], title="t", axis="a", zero=0.0, zero_label="none")
    zero = ElementTree.fromstring(svg).find(f"{SVG}line[@class='zero']")
    assert zero is not None and 0 < float(zero.get("x1", "-1")) < 440


@pytest.mark.parametrize("svg", [
    dots([Dot(HOSTILE, 1.0, 0.5, 1.5, HOSTILE)], title=HOSTILE, axis=HOSTILE, zero=0.0, zero_label=HOSTILE),
    lines([Line(HOSTILE, ((0.0, 1.0), (1.0, 2.0)))], title=HOSTILE, x_axis=HOSTILE, y_axis=HOSTILE),
])  # fmt: skip
def test_labels_are_text_whatever_they_hold(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    assert root.findtext(f"{SVG}title") == HOSTILE


def test_lines_label_every_curve_and_keep_labels_apart() -> None:
    series = [Line(f"v{i}", ((0.0, 1.0), (10.0, 0.5 + i / 1000))) for i in range(5)]
    root = ElementTree.fromstring(lines(series, title="loss", x_axis="pictures", y_axis="error"))
    heights = sorted(float(t.get("y", "0")) for t in root.iter(f"{SVG}text") if (t.text or "").startswith("v"))
    assert len(heights) == 5
    assert min(b - a for a, b in pairwise(heights)) >= 13.9


def test_a_curve_that_ends_early_has_its_name_at_its_end() -> None:
    series = [Line("whole", ((0.0, 1.0), (100.0, 0.5))), Line("cut", ((0.0, 1.0), (20.0, 0.9)))]
    root = ElementTree.fromstring(lines(series, title="loss", x_axis="x", y_axis="y"))
    at = {t.text: float(t.get("x", "0")) for t in root.iter(f"{SVG}text")}
    assert at["cut"] < at["whole"] / 2


def test_the_chosen_curve_is_drawn_last() -> None:
    series = [Line("a", ((0.0, 1.0), (1.0, 0.5)), "chosen"), Line("b", ((0.0, 1.0), (1.0, 0.5)))]
    svg = lines(series, title="t", x_axis="x", y_axis="y")
    assert svg.index("curve chosen") > svg.index("curve plain")


def test_a_long_name_is_cut_in_the_chart_and_whole_in_the_title() -> None:
    name = "a" * 60
    svg = lines([Line(name, ((0.0, 1.0), (1.0, 0.5)))], title="t", x_axis="x", y_axis="y")
    assert name in svg
    assert all(len(text) < 60 for text in texts(svg))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError):
        dots([Dot("v1", value, None, None, "t")], title="t", axis="a")
    with pytest.raises(ValueError):
        lines([Line("v1", ((0.0, value), (1.0, 1.0)))], title="t", x_axis="x", y_axis="y")


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError):
        dots([], title="t", axis="a")
    with pytest.raises(ValueError):
        lines([Line("v1", ())], title="t", x_axis="x", y_axis="y")


@settings(deadline=None)
@given(numbers, numbers)
def test_ticks_enclose_what_they_are_for(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high, count=5)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert ticks == sorted(set(ticks))


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=50), st.floats(0.5, 100))
def test_smoothing_stays_between_the_extremes_and_keeps_the_first(values: list[float], half_life: float) -> None:
    smoothed = smooth(values, half_life=half_life)
    assert len(smoothed) == len(values)
    assert smoothed[0] == pytest.approx(values[0], abs=1e-6)
    assert all(min(values) - 1e-3 <= value <= max(values) + 1e-3 for value in smoothed)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(2, 50))
def test_thinning_keeps_the_ends_and_the_order(count: int, most: int) -> None:
    points = [(float(i), 0.0) for i in range(count)]
    kept = thin(points, most=most)
    assert len(kept) == min(count, most)
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert list(kept) == sorted(set(kept))


def test_the_border_is_hidden_from_listeners_and_symmetric() -> None:
    assert ElementTree.fromstring(band()).get("aria-hidden") == "true"
    assert all(row == row[::-1] for row in REPEAT)
    assert REPEAT[::-1] == REPEAT
