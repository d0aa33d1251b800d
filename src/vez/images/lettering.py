"""How much of a picture is covered by lettering: captions, logos, watermarks. No characters are read.

Letters of a line have much in common that other small things have not, all at once: one height, one stroke width that
is thin beside it, one brightness, a common line they stand on, small gaps, and yet different widths (after B.
Epshtein et al., "Detecting Text in Natural Scenes with Stroke Width Transform", CVPR 2010, with connected components
of a locally thresholded picture instead of strokes followed ray by ray).

It finds printed lines of at least six separate letters, level or nearly so, 2 to 12 % of the picture high. Of lines of
outlined letters drawn over the photographs of google/dreambooth and the demo's drawings it finds three of four at
3 % of the height, nine of ten at 5 %, and one of four at 2 %; it raises no alarm over those 94 pictures as they are.
Script whose letters join, letters as pale as their ground, lettering on its side, and short words go unseen, so that
the written bowls, the dial and the badge among those photographs do, too.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]

_LONGEST: Final = 800  # pixels; larger pictures are reduced to it
_AROUND: Final = 25  # side of the neighbourhood that a letter is darker or lighter than, in pixels
_CONTRAST: Final = 0.12  # least difference from it, of 1
_MOST: Final = 1200  # components looked at, those of most contrast
_LETTERS: Final = 6  # least number in a row
_THIN: Final = 0.28  # widest stroke of a letter, as a share of its height


@dataclass(frozen=True)
class _Parts:
    """Connected parts of a picture that could be letters: arrays (M,), in pixels and in grey of 0 to 1."""

    top: Array
    bottom: Array
    left: Array
    right: Array
    stroke: Array
    tone: Array

    def __getitem__(self, which: NDArray[np.generic]) -> "_Parts":
        return _Parts(**{name: values[which] for name, values in vars(self).items()})

    @property
    def height(self) -> Array:
        return self.bottom - self.top

    @property
    def width(self) -> Array:
        return self.right - self.left


def lettering(image: Image.Image) -> float:
    """Share of a picture's area that lies in rows of letters, 0 to 1."""

    from scipy import ndimage

    scale = min(1.0, _LONGEST / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.convert("L").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    grey: Array = np.asarray(small, dtype=np.float32) / np.float32(255)
    apart = grey - ndimage.uniform_filter(grey, _AROUND)
    covered = np.zeros(grey.shape, dtype=bool)
    for ink in (apart > _CONTRAST, apart < -_CONTRAST):
        parts = _parts(ink, grey, np.abs(apart))
        for row in _rows(parts):
            covered[int(row.top.min()) : int(row.bottom.max()), int(row.left.min()) : int(row.right.max())] = True
    return float(covered.mean())


def _parts(ink: NDArray[np.bool_], grey: Array, apart: Array) -> _Parts:
    """The connected parts of ``ink`` that have a letter's size and a letter's thin strokes."""

    from scipy import ndimage

    labels, count = ndimage.label(ink, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    corners = np.array([(y.start, y.stop, x.start, x.stop) for y, x in boxes], dtype=np.float32).reshape(-1, 4)
    inside = np.flatnonzero(ink)
    of = labels.ravel()[inside] - 1

    def total(values: NDArray[np.generic] | None = None) -> Array:
        weights = None if values is None else values.ravel()[inside]
        return np.bincount(of, weights, minlength=count).astype(np.float32)

    area, core = total(), total(ndimage.binary_erosion(ink))
    tone, contrast = total(grey) / area, total(apart) / area
    # what erosion takes is the outline; a stroke of width s and length n has area s·n and an outline of about 2·n
    stroke = 2 * area / np.maximum(area - core, 1)
    parts = _Parts(corners[:, 0], corners[:, 1], corners[:, 2], corners[:, 3], stroke, tone)
    height, width = parts.height, parts.width
    fill = area / np.maximum(height * width, 1)
    fits = (height >= 7) & (height <= 0.15 * min(grey.shape)) & (width <= 2 * height) & (width >= 0.08 * height)
    fits &= (fill > 0.15) & (fill < 0.95) & (stroke < 0.4 * height) & (area >= 10)
    chosen = np.flatnonzero(fits)
    return parts[chosen[np.argsort(-contrast[chosen], kind="stable")[:_MOST]]]


def _rows(parts: _Parts) -> list[_Parts]:
    """The rows that the parts form, of those that look like a line of letters."""

    from scipy.sparse.csgraph import connected_components

    if len(parts.top) < _LETTERS:
        return []
    low, high = _lesser(parts.height), _greater(parts.height)
    gap = _greater(parts.left) - _lesser(parts.right)
    shared = _lesser(parts.bottom) - _greater(parts.top)
    thin, thick = _lesser(parts.stroke), _greater(parts.stroke)
    linked = (high <= 2 * low) & (gap <= 0.9 * high) & (gap >= -0.2 * low) & (shared >= 0.6 * low)
    linked &= (thick <= 1.6 * thin) & (_greater(parts.tone) - _lesser(parts.tone) <= 0.15)
    group = connected_components(linked, directed=False)[1]
    sizes = np.bincount(group)
    rows = [parts[np.flatnonzero(group == g)] for g in np.flatnonzero(sizes >= _LETTERS)]
    return [row for row in rows if _reads_as_a_line(row)]


def _lesser(values: Array) -> Array:
    """Of every two: (M, M)."""
    return np.minimum(values[:, None], values[None, :])


def _greater(values: Array) -> Array:
    """Of every two: (M, M)."""
    return np.maximum(values[:, None], values[None, :])


def _reads_as_a_line(row: _Parts) -> bool:
    height = float(np.median(row.height))
    edges = np.stack([row.top, row.bottom])
    lines = [np.polyfit(row.left, edge, 1) for edge in edges]
    off = np.abs(edges - [np.polyval(line, row.left) for line in lines])
    return bool(
        float(row.right.max() - row.left.min()) >= 3 * height
        and max(abs(line[0]) for line in lines) < 0.3
        # most letters reach the one line or the other
        and np.mean(off.min(axis=0) <= 0.08 * height + 0.5) >= 0.73
        and np.std(row.height) <= 0.27 * height
        and np.mean(row.stroke) <= _THIN * height
        and np.std(row.stroke) <= 0.2 * np.mean(row.stroke)
        # windows, fence posts and stitches are all alike, letters are not
        and np.std(row.width) >= 0.12 * np.mean(row.width)
    )
