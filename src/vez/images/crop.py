"""Which part of a picture becomes a training picture, and the cutting itself.

- full: as much of the picture as a training shape holds; only its place along the surplus is chosen, where most of
  what draws the eye lies (`vez.images.saliency`), with a preference for the middle.
- upper and lower: head and upper body, and what is below. From a face where one was found (a standing body is about
  seven and a half heads tall); otherwise from how far the subject reaches. They are extras: left out where they would
  have to be enlarged, or would show nearly what another crop shows.

Boxes drawn by hand win over all of this. Boxes are (left, top, right, bottom) in pixels of the upright picture.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from PIL import Image

from vez.config import CropName
from vez.errors import DataError
from vez.images.buckets import Shape, nearest
from vez.images.saliency import Array, interest, share, small_size

Box = tuple[int, int, int, int]

_ORDER: Final[tuple[CropName, ...]] = ("full", "upper", "lower")  # of two that are alike the first is made
_MIDDLE: Final = 0.65  # how much less the far ends weigh than the middle
_FITS: Final = 1.03  # a hand box of a shape's aspect ratio within 3 % is taken as it is; nobody sees that stretch
_ALIKE: Final = 0.7  # two boxes that overlap by more (intersection over union) show nearly the same
_PART: Final = 0.6  # of the subject's height: what upper or lower shows of it
_BODILY: Final = 1.5  # longest side over shortest of an upper or lower crop, where a bucket allows it
_MOST: Final = 0.7  # of the full box's sides: an upper or lower crop reaches no further
_PLACES: Final = 512  # places tried along a picture
_PULL: Final = 0.01  # how much less a place counts for each picture's length away from the middle
_TRIM: Final = 0.03  # share of the interest left outside the subject's reach on either side
_AIR: Final = 0.06  # of the subject's reach: room beyond a head, whose hair may look like the background, and feet
_HEADS_UP: Final = 0.1  # how far above the middle the preferred place lies in a tall picture, in half heights
_SMOOTHLY: Final = 3.0  # Pillow's reducing_gap: from 3 on no different to the eye from Lanczos over all pixels


@dataclass(frozen=True)
class Cut:
    """One training picture to be: which part of the picture, who chose it, and the size it gets."""

    crop: CropName
    box: Box
    """(left, top, right, bottom) in pixels of the upright picture."""
    boxed: Literal["auto", "hand", "face"]
    """Who chose the box."""
    size: tuple[int, int]
    """(width, height) of the training picture in pixels."""


def plan_cuts(
    image: Image.Image,
    *,
    shapes: Sequence[Shape],
    crops: Sequence[CropName],
    by_hand: Mapping[CropName, Box] | None = None,
    faces: Sequence[Box] = (),
    subject: Image.Image | None = None,
    file: str = "the picture",
) -> list[Cut]:
    """The training pictures of one upright picture, in the order of ``crops``; upper and lower may be missing.

    ``shapes`` are the sizes a training picture may have (`vez.images.buckets.shapes`); ``subject`` is a mask of the
    picture's size, white where the subject is. A hand box whose aspect ratio fits none of the shapes is extended (or
    shrunk, where the picture ends) around its centre. Hand boxes of crops that are not asked for are not used.
    Raises DataError where a hand box does not lie inside the picture; ``file`` names the picture in that sentence.
    """
    by_hand = by_hand or {}
    size = image.size
    for name, box in by_hand.items():
        _check_inside(name, box, size, file)
    planned = {name: _hand(name, by_hand[name], size, shapes) for name in crops if name in by_hand}
    rest = [name for name in _ORDER if name in crops and name not in by_hand]
    if rest:
        weights = weights_of(image, subject)
        heads = [box for box in (_inside(face, size) for face in faces) if box is not None]
        full = _full(weights, size, nearest(shapes, *size), heads)
    for name in rest:
        cut = full if name == "full" else _part(name, weights, size, shapes, full, heads)
        others = [full.box, *(other.box for other in planned.values())]
        if cut is not None and (name == "full" or all(overlap(cut.box, box) <= _ALIKE for box in others)):
            planned[name] = cut
    return [planned[name] for name in crops if name in planned]


def apply(image: Image.Image, cut: Cut) -> Image.Image:
    """The training picture: ``cut.box`` of ``image`` at ``cut.size`` (Lanczos)."""
    return image.crop(cut.box).resize(cut.size, Image.Resampling.LANCZOS, reducing_gap=_SMOOTHLY)


def apply_to_mask(mask: Image.Image, cut: Cut) -> Image.Image:
    """The training picture's mask, 8-bit grey: edges become grey and never ring, as they would with Lanczos."""
    return mask.convert("L").crop(cut.box).resize(cut.size, Image.Resampling.BILINEAR)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / (_area(a) + _area(b) - both)


def crop_box(image: Image.Image) -> Box:
    """The largest square of ``image``, placed where the subject is."""
    side = min(image.size)
    return plan_cuts(image, shapes=[(side, side)], crops=["full"])[0].box


def crop(image: Image.Image, size: int) -> Image.Image:
    """The subject's square of ``image`` at ``size`` × ``size`` pixels (Lanczos)."""
    return apply(image, plan_cuts(image, shapes=[(size, size)], crops=["full"])[0])


def weights_of(image: Image.Image, subject: Image.Image | None) -> Array:
    """(h, w) interest of a small copy, sum 1: the mask where there is one with anything in it."""
    if subject is not None:
        small = subject.convert("L").resize(small_size(image.size), Image.Resampling.BOX)
        mask = np.asarray(small, dtype=np.float64)
        if mask.max() > 0:
            return share(mask)
    return interest(image)


def _full(weights: Array, size: tuple[int, int], shape: Shape, heads: Sequence[Box]) -> Cut:
    """The largest box of the shape's aspect ratio, along the surplus where most interest is and all heads fit."""
    width, height = largest(shape, size)
    across = width < size[0]
    room = size[0] - width if across else size[1] - height
    if room == 0:
        return Cut("full", (0, 0, width, height), "auto", shape)
    length, whole = (width, size[0]) if across else (height, size[1])
    along = weights.sum(axis=0 if across else 1)
    # the middles of the working pixels, so that the preference is the same from both sides
    position = (np.arange(len(along)) + 0.5) / len(along) * 2 - 1
    if not across:
        position = (position + _HEADS_UP) / (1 + _HEADS_UP)
    low, high, boxed = 0, room, False
    if heads:
        edges = _heads_reach(heads, 0 if across else 1, whole)
        if edges[1] - edges[0] <= length:
            low, high, boxed = max(0, math.ceil(edges[1] - length)), min(room, math.floor(edges[0])), True
    start = _best(along * (1 - _MIDDLE * position**2), length, whole, low, high)
    box = (start, 0, start + width, height) if across else (0, start, width, start + height)
    return Cut("full", box, "face" if boxed else "auto", shape)


def _heads_reach(heads: Sequence[Box], axis: int, whole: int) -> tuple[float, float]:
    """From where to where the heads reach: a detector's face goes from brow to chin, without hair and hat."""
    more = [(box[axis + 2] - box[axis]) * 0.5 for box in heads]
    return (
        max(0.0, min(box[axis] - m for box, m in zip(heads, more, strict=True))),
        min(float(whole), max(box[axis + 2] + m for box, m in zip(heads, more, strict=True))),
    )


def _best(along: Array, length: float, whole: int, low: int, high: int) -> int:
    """Start of the stretch of ``length`` of ``whole`` pixels with the greatest sum of ``along``, from low to high."""
    if high <= low:
        return low
    summed = np.concatenate([[0.0], np.cumsum(along)])
    at = np.linspace(0, whole, len(summed))
    starts = np.linspace(low, high, min(high - low, _PLACES) + 1)
    sums = np.interp(starts + length, at, summed) - np.interp(starts, at, summed)
    # On a plateau the place nearest the middle wins: a flat picture is cut in its centre.
    away = np.abs(starts - (whole - length) / 2) / whole
    return round(float(starts[np.argmax(sums - _PULL * sums.max() * away)]))


def _part(
    name: CropName, weights: Array, size: tuple[int, int], shapes: Sequence[Shape], full: Cut, heads: Sequence[Box]
) -> Cut | None:
    """The upper or lower crop; None where there is nothing to show, or it would have to be enlarged."""
    reach = _reach(weights, size)
    most = (full.box[2] - full.box[0]) * _MOST, (full.box[3] - full.box[1]) * _MOST
    head = max(heads, key=_area, default=None)
    if head is None:
        tall = reach[3] - reach[1]
        height = min(_PART * tall, most[1])
        top = reach[1] - _AIR * tall if name == "upper" else reach[3] + _AIR * tall - height
        width, middle = min(reach[2] - reach[0], most[0]), None
    else:
        air = _AIR * (reach[3] - reach[1])
        span = _body(name, head, min(float(size[1]), max(reach[3] + air, head[3])))
        if span is None:
            return None
        top, height = span[0], min(span[1] - span[0], most[1])
        if name == "lower":
            top = span[1] - height
        width, middle = min(3.0 * (head[2] - head[0]), most[0]), (head[0] + head[2]) / 2
    bodily = [shape for shape in shapes if max(shape) <= _BODILY * min(shape)] or shapes
    shape = nearest(bodily, max(1, round(width)), max(1, round(height)))
    # at least the training size: never enlarged
    scale = max(width / shape[0], height / shape[1], 1.0)
    wide, high = round(shape[0] * scale), round(shape[1] * scale)
    if wide > size[0] or high > size[1]:
        return None
    # what it is taller than wanted goes to the side of the body's end: above the head, below the feet
    start = _between(top - (high - height) * (0.25 if name == "upper" else 0.75), 0, size[1] - high)
    if middle is None:
        rows = slice(int(start / size[1] * len(weights)), max(1, math.ceil((start + high) / size[1] * len(weights))))
        middle = _middle(weights[rows], size[0])
    left = _between(middle - wide / 2, 0, size[0] - wide)
    return Cut(name, (left, start, left + wide, start + high), "auto" if head is None else "face", shape)


def _body(name: CropName, face: Box, bottom: float) -> tuple[float, float] | None:
    """From where to where the upper or lower part of the body under a face reaches; None where it is not in sight.

    ``bottom``: where the picture or the subject ends.

    A face (brow to chin) is about three quarters of a head: the crown is half a face above it, the waist three heads
    below the crown, the soles seven and a half.
    """
    tall = face[3] - face[1]
    crown = face[1] - 0.6 * tall
    waist = crown + 4 * tall
    if name == "upper":
        return max(0.0, crown), max(min(bottom, waist), face[3] + 0.5 * tall)
    start, end = waist - 0.5 * tall, min(bottom, crown + 10.4 * tall)
    return (start, end) if end - start >= 1.5 * tall else None


def _reach(weights: Array, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of what stands out from the rest, in pixels of the picture."""
    strong = share(np.maximum(0, weights - weights.mean()))
    ends = []
    for axis, whole in ((0, size[0]), (1, size[1])):
        summed = np.concatenate([[0.0], np.cumsum(strong.sum(axis=axis))])
        at = np.linspace(0, whole, len(summed))
        ends.append((float(np.interp(_TRIM, summed, at)), float(np.interp(1 - _TRIM, summed, at))))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def _middle(band: Array, width: int) -> float:
    """The column, in pixels of the picture, with half of what stands out of a band of it on either side.

    Unlike the place with the most interest, it does not lean towards whatever else is in sight.
    """
    strong = share(np.maximum(0, band - band.mean())).sum(axis=0)
    summed = np.concatenate([[0.0], np.cumsum(strong)])
    return float(np.interp(0.5, summed, np.linspace(0, width, len(summed))))


def _hand(name: CropName, box: Box, size: tuple[int, int], shapes: Sequence[Shape]) -> Cut:
    """The box as it was drawn where its aspect ratio fits a shape; otherwise extended, or shrunk at the border."""
    width, height = box[2] - box[0], box[3] - box[1]
    shape = nearest(shapes, width, height)
    stretch = width * shape[1] / (height * shape[0])
    if max(stretch, 1 / stretch) <= _FITS:
        return Cut(name, box, "hand", shape)
    if stretch < 1:
        wide, high = round(height * shape[0] / shape[1]), height
    else:
        wide, high = width, round(width * shape[1] / shape[0])
    if wide > size[0] or high > size[1]:
        wide, high = largest(shape, size)
    left = _between((box[0] + box[2] - wide) / 2, 0, size[0] - wide)
    top = _between((box[1] + box[3] - high) / 2, 0, size[1] - high)
    return Cut(name, (left, top, left + max(1, wide), top + max(1, high)), "hand", shape)


def largest(shape: Shape, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the largest box of the shape's aspect ratio inside a picture of ``size``; at least 1 × 1."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    return min(size[0], max(1, round(shape[0] * scale))), min(size[1], max(1, round(shape[1] * scale)))


def _check_inside(name: CropName, box: Box, size: tuple[int, int], file: str) -> None:
    left, top, right, bottom = box
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise DataError(
            f"the {name} box {list(box)} of {file} in boxes.toml does not lie inside its {size[0]} × {size[1]} pixels; "
            "write [left, top, right, bottom] of the upright picture"
        )


def _inside(box: Box, size: tuple[int, int]) -> Box | None:
    """What of a box lies inside the picture; None: nothing."""
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(size[0], box[2]), min(size[1], box[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _between(value: float, least: int, most: int) -> int:
    return min(most, max(least, round(value)))


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
