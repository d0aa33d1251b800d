"""Two charts more, as inline SVG like those of `charts`: points on two axes with crosses, and curves with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from vez.report import charts
from vez.report.charts import GLYPH, MARKERS, WIDTH, Role, Scale, glyph, nice_ticks, pt

HEIGHT = 300.0
LABELLED = 6
"""Above so many points only those that matter carry their name; the others say it when pointed at."""


@dataclass(frozen=True)
class Point:
    """A value on two axes; a span is (low, high) or None where there is no interval. ``beaten`` draws it hollow."""

    label: str
    x: float
    y: float
    x_span: tuple[float, float] | None
    y_span: tuple[float, float] | None
    title: str
    role: Role = "plain"
    beaten: bool = False


@dataclass(frozen=True)
class Curve:
    """(x, y, span or None) from left to right."""

    label: str
    points: tuple[tuple[float, float, tuple[float, float] | None], ...]
    role: Role = "plain"


def scatter(points: Sequence[Point], *, title: str, x_axis: str, y_axis: str) -> str:
    """Points with a cross of intervals each; both axes hold 0, where no LoRA is.

    Raises ValueError where there is no point, or a number is not finite.
    """
    if not points:
        raise ValueError("a scatter needs at least one point")
    xs = [0.0, *(number for p in points for number in (p.x, *(p.x_span or ())))]
    ys = [0.0, *(number for p in points for number in (p.y, *(p.y_span or ())))]
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs), count=5), nice_ticks(min(ys), max(ys), count=5)
    left, right, top, bottom = 52.0, WIDTH - 18.0, 26.0, HEIGHT - 44
    across, up = Scale(x_ticks[0], x_ticks[-1], left, right), Scale(y_ticks[0], y_ticks[-1], bottom, top)
    parts = [charts.svg_open(title, HEIGHT)]
    parts += _axes(x_ticks, y_ticks, across, up, x_axis=x_axis, y_axis=y_axis)
    parts.append(_line("zero", across(0), across(0), top, bottom))
    parts.append(_line("zero", left, right, up(0), up(0)))
    named = [p for p in points if len(points) <= LABELLED or p.role != "plain" or not p.beaten]
    order = sorted(points, key=lambda p: p.role == "chosen")
    parts += [_point(point, across, up) for point in order]
    return "".join([*parts, *_labels([p for p in order if p in named], across, up, right=right), "</svg>"])


def curves(series: Sequence[Curve], *, title: str, x_axis: str, y_axis: str, zero: bool = False) -> str:
    """Curves with a whisker at each point, their names at their ends. ``zero`` draws the line of no LoRA.

    Raises ValueError where there is no point, or a number is not finite.
    """
    drawn = [curve for curve in series if curve.points]
    if not drawn:
        raise ValueError("a chart of curves needs at least one point")
    xs = [x for curve in drawn for x, _, _ in curve.points]
    ys = [number for curve in drawn for _, y, span in curve.points for number in (y, *(span or ()))]
    y_ticks = nice_ticks(min([*ys, *([0.0] if zero else [])]), max([*ys, *([0.0] if zero else [])]), count=5)
    x_ticks = nice_ticks(min(xs), max(xs), count=4)
    left, top, bottom = 52.0, 26.0, HEIGHT - 84
    right = WIDTH - charts.gutter((curve.label for curve in drawn), least=40.0)
    across, up = Scale(x_ticks[0], x_ticks[-1], left + 12, right - 8), Scale(y_ticks[0], y_ticks[-1], bottom, top)
    parts = [charts.svg_open(title, HEIGHT - 40)]
    parts += _axes(x_ticks, y_ticks, across, up, x_axis=x_axis, y_axis=y_axis)
    if zero:
        parts.append(_line("zero", left, right, up(0), up(0)))
    ends = charts.apart([up(curve.points[-1][1]) for curve in drawn], gap=14, low=top, high=bottom)
    for index, curve in sorted(enumerate(drawn), key=lambda pair: pair[1].role == "chosen"):
        parts.append(_curve(curve, index, across, up, label_at=(right + 10, ends[index])))
    return "".join([*parts, "</svg>"])


def _axes(
    x_ticks: Sequence[float], y_ticks: Sequence[float], across: Scale, up: Scale, *, x_axis: str, y_axis: str
) -> list[str]:
    top, bottom = up.end, up.start
    parts = [charts.tick_at(across(x), top, bottom, charts.number(x, x_ticks)) for x in x_ticks]
    parts += [charts.rung_at(up(y), across.start, across.end, charts.number(y, y_ticks)) for y in y_ticks]
    parts.append(charts.small(y_axis, 4, 12, anchor="start"))
    parts.append(charts.small(x_axis, (across.start + across.end) / 2, bottom + 36, anchor="middle"))
    return parts


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    ends = (f'{name}="{pt(value)}"' for name, value in (("x1", x1), ("x2", x2), ("y1", y1), ("y2", y2)))
    return f'<line class="{kind}" {" ".join(ends)}/>'


def _labels(points: Sequence[Point], across: Scale, up: Scale, *, right: float) -> list[str]:
    """A name beside each point, moved up or down until it covers no other."""
    taken: list[tuple[float, float, float]] = []  # left, right, y
    parts = []
    for point in reversed(points):  # the chosen one first
        wide, x = 7.7 * len(charts.short(point.label)), across(point.x)
        left = x + 9 if x + 9 + wide < right + 14 else x - 9 - wide
        heights = (up(point.y) - 8 + 14 * step for step in (0, -1, 1.8, -2, 2.8, -3, 3.8, -4, 4.8, 5.8))
        y = next((y for y in heights if not _covers(taken, left, left + wide, y)), up(point.y) - 8)
        taken.append((left, left + wide, y))
        where = f'class="label {point.role}" x="{pt(left)}" y="{pt(y)}"'
        parts.append(f"<text {where}>{escape(charts.short(point.label))}</text>")
    return parts


def _covers(taken: Sequence[tuple[float, float, float]], left: float, right: float, y: float) -> bool:
    return any(left < other_right and right > other_left and abs(y - at) < 13 for other_left, other_right, at in taken)


def _point(point: Point, across: Scale, up: Scale) -> str:
    x, y = across(point.x), up(point.y)
    shape = {"base": "square", "chosen": "diamond", "plain": "circle"}[point.role]
    hollow = " beaten" if point.beaten else ""
    parts = [f'<g class="mark {point.role}{hollow}"><title>{escape(point.title)}</title>']
    if point.x_span is not None:
        low, high = (across(limit) for limit in point.x_span)
        parts.append(f'<path class="whisker" d="M{pt(low)} {pt(y)}H{pt(high)}"/>')
    if point.y_span is not None:
        low, high = (up(limit) for limit in point.y_span)
        parts.append(f'<path class="whisker" d="M{pt(x)} {pt(low)}V{pt(high)}"/>')
    parts.append(glyph(shape, x, y, GLYPH))
    return "".join([*parts, "</g>"])


def _curve(curve: Curve, index: int, across: Scale, up: Scale, *, label_at: tuple[float, float]) -> str:
    path = "L".join(f"{pt(across(x))} {pt(up(y))}" for x, y, _ in curve.points)
    told = "; ".join(f"{x:g}: {y:.3f}" for x, y, _ in curve.points)
    parts = [f'<g class="curve {curve.role}"><title>{escape(f"{curve.label}: {told}")}</title>']
    parts.append(f'<path class="trace" d="M{path}"/>')
    for x, y, span in curve.points:
        # Curves share their x: each stands a little aside, so that whiskers do not cover each other.
        at = across(x) + 3.0 * (index % 5 - 2)
        if span is not None:
            low, high = (up(limit) for limit in span)
            parts.append(f'<path class="whisker" d="M{pt(at)} {pt(low)}V{pt(high)}"/>')
        parts.append(glyph(MARKERS[index % len(MARKERS)], at, up(y), 3.6))
    text = f'<text x="{pt(label_at[0])}" y="{pt(label_at[1] + 4)}">{escape(charts.short(curve.label))}'
    return "".join([*parts, text, "</text></g>"])
