"""Charts as inline SVG: dots with intervals, and lines. Pure functions from numbers to text.

A chart here must still be read in ten years, on paper, offline and by someone who sees no red: so no script, no file,
no font of its own; every mark carries a <title>, every series a label beside it and a shape besides its colour.
Colours and type come from the page's style sheet by class name, so that light, dark and print need no second drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH = 440  # drawing units; close to a phone's width in pixels, so that 12-unit type stays legible there
ROW = 30
GLYPH = 5.0
Role = Literal["base", "chosen", "plain"]
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "plus")
MARKS_PER_LINE = 5


@dataclass(frozen=True)
class Dot:
    """One row of a dot chart: a value, its interval, and what a reader who hovers or listens is told."""

    label: str
    value: float
    low: float | None
    high: float | None
    title: str
    role: Role = "plain"


@dataclass(frozen=True)
class Line:
    """One curve: (x, y) points from left to right."""

    label: str
    points: tuple[tuple[float, float], ...]
    role: Role = "plain"


def dots(rows: Sequence[Dot], *, title: str, axis: str, zero: float | None = None, zero_label: str = "") -> str:
    """Values with intervals, one row each, on one axis.

    Args:
        rows: from top to bottom; not empty.
        title: what the chart shows, for people who listen to it.
        axis: name and unit of the axis.
        zero: where to draw the line that everything is compared with; None for no such line.
        zero_label: the word beside that line.
    Returns:
        An `<svg>` element.
    Raises:
        ValueError: no rows, or a number that is not finite.
    """
    if not rows:
        raise ValueError("a dot chart needs at least one row")
    numbers = [number for row in rows for number in (row.value, row.low, row.high) if number is not None]
    ticks = nice_ticks(min([*numbers, *_given(zero)]), max([*numbers, *_given(zero)]), count=5)
    left, right, top = gutter(row.label for row in rows), WIDTH - 18.0, 22.0
    bottom = top + ROW * len(rows)
    scale = Scale(ticks[0], ticks[-1], left, right)
    parts = [svg_open(title, bottom + 40)]
    parts += [tick_at(scale(tick), top, bottom, number(tick, ticks)) for tick in ticks]
    if zero is not None:
        x = scale(zero)
        parts.append(f'<line class="zero" x1="{pt(x)}" x2="{pt(x)}" y1="{pt(top - 6)}" y2="{pt(bottom)}"/>')
        parts.append(small(zero_label, x, top - 10, anchor="middle"))
    for index, row in enumerate(rows):
        parts.append(_dot_row(row, scale, left - 10, top + ROW * (index + 0.5)))
    parts.append(small(axis, (left + right) / 2, bottom + 34, anchor="middle"))
    return "".join([*parts, "</svg>"])


def lines(series: Sequence[Line], *, title: str, x_axis: str, y_axis: str) -> str:
    """Curves with their names at their ends; each carries its own marker, so that no colour is needed to follow it.

    Args:
        series: curves; one without points is left out.
        title: what the chart shows, for people who listen to it.
        x_axis: name and unit.
        y_axis: name and unit.
    Returns:
        An `<svg>` element.
    Raises:
        ValueError: no points at all, or a number that is not finite.
    """
    drawn = [line for line in series if line.points]
    if not drawn:
        raise ValueError("a line chart needs at least one point")
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x_ticks, y_ticks = nice_ticks(0.0, max(xs), count=4), nice_ticks(min(ys), max(ys), count=5)
    left, top, bottom = 46.0, 26.0, 236.0
    right = WIDTH - gutter((line.label for line in drawn), least=40.0)
    across, up = Scale(0.0, max(max(xs), 1e-12), left, right), Scale(y_ticks[0], y_ticks[-1], bottom, top)
    parts = [svg_open(title, bottom + 42)]
    parts += [tick_at(across(tick), top, bottom, number(tick, x_ticks)) for tick in x_ticks if tick <= max(xs) * 1.0001]
    parts += [rung_at(up(tick), left, right, number(tick, y_ticks)) for tick in y_ticks]
    parts.append(small(y_axis, 4, 12, anchor="start"))
    parts.append(small(x_axis, (left + right) / 2, bottom + 36, anchor="middle"))
    at_right = [line for line in drawn if across(line.points[-1][0]) > right - 24]
    ends = apart([up(line.points[-1][1]) for line in at_right], gap=14.0, low=top, high=bottom)
    label_y = dict(zip((line.label for line in at_right), ends, strict=True))
    for index, line in sorted(
        enumerate(drawn), key=lambda pair: pair[1].role == "chosen"
    ):  # the chosen one lies on top
        label_at = (right + 10, label_y[line.label]) if line.label in label_y else None
        parts.append(_curve(line, index, across, up, label_at=label_at))
    return "".join([*parts, "</svg>"])


def smooth(values: Sequence[float], *, half_life: float) -> list[float]:
    """Exponential moving average whose weight halves every `half_life` values, without a bias to the first value.

    Args:
        values: in order.
        half_life: in values; greater than 0.
    Returns:
        As many values as came in. (Adam's bias correction: Kingma & Ba 2015, §3.)
    """
    keep = 0.5 ** (1.0 / half_life)
    total, weight, result = 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(total / weight)
    return result


def thin(points: Sequence[tuple[float, float]], *, most: int) -> tuple[tuple[float, float], ...]:
    """At most `most` of the points, evenly spread, the first and the last always among them."""
    if len(points) <= most:
        return tuple(points)
    return tuple(points[round(i * (len(points) - 1) / (most - 1))] for i in range(most))


def nice_ticks(low: float, high: float, *, count: int) -> list[float]:
    """Round numbers that enclose [low, high], about `count` of them (steps of 1, 2 or 5 times a power of ten).

    Raises:
        ValueError: a bound is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"an axis from {low} to {high} cannot be drawn")
    if high - low < 1e-12 * max(1.0, abs(low), abs(high)):  # less than the numbers themselves can tell apart
        margin = max(abs(low) * 0.05, 1e-6)
        low, high = low - margin, high + margin
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


@dataclass(frozen=True)
class Scale:
    """A straight map from numbers to drawing units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a number lies. Raises ValueError for one that is not finite."""
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be drawn")
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _given(number: float | None) -> list[float]:
    return [] if number is None else [number]


def pt(number: float) -> str:
    """A pt with one decimal: enough for the eye, and the same text on every machine."""
    return f"{number:.1f}"


def number(value: float, ticks: Sequence[float]) -> str:
    """A tick's text with as many decimals as the step between ticks needs."""
    step = ticks[1] - ticks[0]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{0.0 if abs(value) < step / 1e6 else value:,.{decimals}f}".replace("-", "−")


def gutter(labels: Iterable[str], *, least: float = 64.0) -> float:
    """Room for the longest label at 12 units of type, within reason; `_short` cuts what would not fit."""
    longest = max(len(short(label)) for label in labels)
    return max(least, 7.7 * longest + 22)


def short(label: str) -> str:
    """A label of at most 22 characters: of a longer one its beginning and its end, where names of a search differ."""
    return label if len(label) <= 22 else f"{label[:10]}…{label[-11:]}"


def svg_open(title: str, height: float) -> str:
    """The opening tag with its title."""
    name = escape(title, quote=True)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {pt(height)}" role="img" aria-label="{name}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{name}</title>'
    )


def small(text: str, x: float, y: float, *, anchor: str) -> str:
    """Quiet text."""
    return f'<text class="small" x="{pt(x)}" y="{pt(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def tick_at(x: float, top: float, bottom: float, text: str) -> str:
    """An upright line of the lattice, its number below."""
    return f'<line class="rule" x1="{pt(x)}" x2="{pt(x)}" y1="{pt(top)}" y2="{pt(bottom)}"/>' + small(
        text, x, bottom + 16, anchor="middle"
    )


def rung_at(y: float, left: float, right: float, text: str) -> str:
    """A level line of the lattice, its number at the left."""
    return f'<line class="rule" x1="{pt(left)}" x2="{pt(right)}" y1="{pt(y)}" y2="{pt(y)}"/>' + small(
        text, left - 6, y + 4, anchor="end"
    )


def _dot_row(row: Dot, scale: Scale, label_x: float, y: float) -> str:
    shape = {"base": "square", "chosen": "diamond", "plain": "circle"}[row.role]
    parts = [f'<g class="mark {row.role}"><title>{escape(row.title)}</title>']
    parts.append(f'<text x="{pt(label_x)}" y="{pt(y + 4)}" text-anchor="end">{escape(short(row.label))}</text>')
    if row.low is not None and row.high is not None:
        low, high = scale(row.low), scale(row.high)
        parts.append(f'<path class="whisker" d="M{pt(low)} {pt(y)}H{pt(high)}M{pt(low)} {pt(y - 4)}V{pt(y + 4)}')
        parts.append(f'M{pt(high)} {pt(y - 4)}V{pt(y + 4)}"/>')
    return "".join([*parts, glyph(shape, scale(row.value), y, GLYPH), "</g>"])


def _curve(line: Line, index: int, across: Scale, up: Scale, *, label_at: tuple[float, float] | None) -> str:
    """One curve; `label_at` is where its name goes, None for beside its last point."""
    path = "L".join(f"{pt(across(x))} {pt(up(y))}" for x, y in line.points)
    told = f"{line.label}: from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}"
    shape = MARKERS[index % len(MARKERS)]
    # Each line's markers start a little later than those of the line before it, so that they do not cover each other.
    count = len(line.points)
    marked = {min(count - 1, round((k + 0.17 * (index % 6)) * count / MARKS_PER_LINE)) for k in range(MARKS_PER_LINE)}
    glyphs = "".join(
        glyph(shape, across(line.points[i][0]), up(line.points[i][1]), 3.2) for i in sorted(marked | {count - 1})
    )
    x, y = label_at or (across(line.points[-1][0]) + 8, up(line.points[-1][1]))
    return (
        f'<g class="curve {line.role}"><title>{escape(told)}</title><path class="trace" d="M{path}"/>{glyphs}'
        f'<text x="{pt(x)}" y="{pt(y + 4)}">{escape(short(line.label))}</text></g>'
    )


def glyph(shape: str, x: float, y: float, r: float) -> str:
    """A marker of radius ``r``."""
    if shape == "circle":
        return f'<circle class="glyph" cx="{pt(x)}" cy="{pt(y)}" r="{pt(r)}"/>'
    if shape == "cross":
        strokes = f"M{pt(x - r)} {pt(y - r)}L{pt(x + r)} {pt(y + r)}M{pt(x - r)} {pt(y + r)}L{pt(x + r)} {pt(y - r)}"
        return f'<path class="glyph open" d="{strokes}"/>'
    if shape == "plus":
        return f'<path class="glyph open" d="M{pt(x - r)} {pt(y)}H{pt(x + r)}M{pt(x)} {pt(y - r)}V{pt(y + r)}"/>'
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0.0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
        "diamond": ((0.0, -1.4), (1.4, 0.0), (0.0, 1.4), (-1.4, 0.0)),
    }[shape]
    return f'<path class="glyph" d="M{"L".join(f"{pt(x + dx * r)} {pt(y + dy * r)}" for dx, dy in corners)}Z"/>'


def apart(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Label positions at least `gap` apart and as near to where they are wanted as that allows, in the given order."""
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    placed = [0.0] * len(wanted)
    floor = low - gap
    for index in order:
        floor = max(wanted[index], floor + gap)
        placed[index] = floor
    ceiling = high + gap
    for index in reversed(order):  # push back up whatever ran past the bottom
        ceiling = min(placed[index], ceiling - gap)
        placed[index] = ceiling
    return placed
