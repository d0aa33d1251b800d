"""A brush: flat shapes with soft edges on a supersampled Pillow canvas, and the mask of what is marked.

Coordinates are in *units*: the middle square of every picture is 128 x 128 units, whatever its size in pixels; a
wider or taller picture shows more of the scene around that square.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageDraw

UNITS = 128
"""Side of the middle square, in units."""

Colour = tuple[int, int, int]
Point = tuple[float, float]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Colour `share` of the way from `a` (0) to `b` (1)."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


class Brush:
    """Draws on a canvas of `width` x `height` pixels, `fine` times enlarged while drawing, reduced at the end.

    While `marking` is on, shapes are also drawn into the mask; shapes drawn later with it off cover it again, so the
    mask holds just the marked pixels that are seen.
    """

    def __init__(self, width: int, height: int, *, fine: int = 4) -> None:
        self.fine = fine
        self.image = Image.new("RGB", (width * fine, height * fine))
        self.mask = Image.new("L", self.image.size)
        self._draw = ImageDraw.Draw(self.image)
        self._mask_draw = ImageDraw.Draw(self.mask)
        self._scale = min(width, height) * fine / UNITS
        self._origin = (width * fine / 2 - UNITS / 2 * self._scale, height * fine / 2 - UNITS / 2 * self._scale)
        self.marking = False

    @contextmanager
    def moved(self, dx: float, dy: float, scale: float = 1.0) -> Iterator[None]:
        """Inside, a point (x, y) is drawn at (dx + scale·x, dy + scale·y)."""
        kept = self._scale, self._origin
        self._origin = (self._origin[0] + dx * self._scale, self._origin[1] + dy * self._scale)
        self._scale *= scale
        try:
            yield
        finally:
            self._scale, self._origin = kept

    @contextmanager
    def marked(self, on: bool = True) -> Iterator[None]:
        """Inside, shapes are drawn into the mask too."""
        kept, self.marking = self.marking, on
        try:
            yield
        finally:
            self.marking = kept

    def _pixels(self, points: Iterable[Point]) -> list[Point]:
        (ox, oy), s = self._origin, self._scale
        return [(ox + x * s, oy + y * s) for x, y in points]

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        at = self._pixels(points)
        self._draw.polygon(at, fill)
        self._mask_draw.polygon(at, 255 if self.marking else 0)

    def blob(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled closed Catmull-Rom curve through `points`."""
        p = np.asarray(points, dtype=float)
        before, after, last = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
        t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
        curve = 0.5 * (
            2 * p
            + (after - before) * t
            + (2 * before - 5 * p + 4 * after - last) * t**2
            + (3 * p - before - 3 * after + last) * t**3
        )  # (8, points, 2)
        self.poly([(float(x), float(y)) for x, y in curve.transpose(1, 0, 2).reshape(-1, 2)], fill)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """A filled rectangle."""
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """A filled ellipse around (x, y)."""
        (left, top), (right, bottom) = self._pixels([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.ellipse((left, top, right, bottom), fill)
        self._mask_draw.ellipse((left, top, right, bottom), 255 if self.marking else 0)

    def ring(self, x: float, y: float, r: float, width: float, fill: Colour) -> None:
        """The outline of a circle."""
        (left, top), (right, bottom) = self._pixels([(x - r, y - r), (x + r, y + r)])
        self._draw.ellipse((left, top, right, bottom), None, fill, max(1, round(width * self._scale)))

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """A line with round ends and joints."""
        at = self._pixels(points)
        wide, r = max(1, round(width * self._scale)), width * self._scale / 2
        for draw, ink in ((self._draw, fill), (self._mask_draw, 255 if self.marking else 0)):
            draw.line(at, ink, wide)
            for x, y in at:
                draw.ellipse((x - r, y - r, x + r, y + r), ink)

    def arc(
        self, x: float, y: float, rx: float, ry: float, degrees: tuple[float, float], width: float, fill: Colour
    ) -> None:
        """Part of an ellipse's outline, clockwise from the first angle to the second; 0 degrees is to the right."""
        steps = [math.radians(degrees[0] + (degrees[1] - degrees[0]) * i / 12) for i in range(13)]
        self.line([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in steps], width, fill)

    def sky(self, top: Colour, bottom: Colour, horizon: float) -> None:
        """The whole canvas from `top` to `bottom`, which is reached at the height `horizon` (units)."""
        (_, y0), (_, y1) = self._pixels([(0, 0), (0, horizon)])
        share = np.clip((np.arange(self.image.height) - y0) / (y1 - y0), 0, 1)[:, None]
        rows = np.asarray(top) * (1 - share) + np.asarray(bottom) * share  # (height, 3)
        column = Image.fromarray(rows.round().astype(np.uint8)[:, None])
        self.image.paste(column.resize(self.image.size, Image.Resampling.NEAREST))

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        """The picture (height, width, 3) uint8 and the mask (height, width) bool, at the size asked for."""
        mask = np.asarray(self.mask.reduce(self.fine)) > 127
        return np.asarray(self.image.reduce(self.fine)).copy(), mask
