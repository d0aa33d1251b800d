"""Other places at which a training picture may be cut, drawn about the one that was chosen.

They have its size and its shape. A crop of the whole picture moves along what the picture has too much of; an upper or
lower one by an eighth of its sides at most. Whatever is drawn, at least nine tenths of what stands out in the chosen
crop is in every other one (of the subject, where there is a mask), and no face loses what the chosen crop shows of it.
A box drawn by hand is not moved.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from PIL import Image

from vez.images.crop import Box, Cut, weights_of
from vez.images.saliency import Array, share

KEPT: Final = 0.9
"""Share of what stands out in the chosen crop that every other one shows."""
_STEPS: Final = 32  # of a side: places nearer to one another than this are not told apart
_PART: Final = 4  # steps by which an upper or lower crop moves at most, to each side


def elsewhere(
    image: Image.Image,
    cut: Cut,
    *,
    count: int,
    seed: str,
    faces: Sequence[Box] = (),
    subject: Image.Image | None = None,
) -> list[Box]:
    """Up to ``count`` boxes in pixels of the upright picture, all different, none of them ``cut.box``; in order.

    Fewer where there is no room for more. The same for the same picture, cut and ``seed``; spread over where the crop
    may go. ``faces`` and ``subject`` are those of `vez.images.crop.plan_cuts`.
    """
    if count < 1 or cut.boxed == "hand":
        return []
    free = [box for box in _about(cut, image.size) if box != cut.box]
    if free:
        shown = [part for face in faces if (part := _both(_head(face), cut.box)) is not None]
        sums = _summed(weights_of(image, subject))
        least = KEPT * _inside(sums, cut.box, image.size)
        free = [
            box
            for box in free
            if all(_both(part, box) == part for part in shown)
            and _inside(sums, _both(box, cut.box), image.size) >= least
        ]
    if len(free) <= count:
        return free
    key = int.from_bytes(hashlib.sha256(f"{seed} {cut.crop}".encode()).digest(), "big")
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    ends = np.linspace(0, len(free), count + 1).round().astype(int)
    return [free[int(random.integers(a, b))] for a, b in pairwise(ends)]


def _about(cut: Cut, size: tuple[int, int]) -> Iterator[Box]:
    """Every place of the cut's box, a step apart, inside the picture."""
    left, top, right, bottom = cut.box
    starts = []
    for start, side, whole in ((left, right - left, size[0]), (top, bottom - top, size[1])):
        step = max(1, side // _STEPS)
        back, on = start // step, (whole - side - start) // step
        if cut.crop != "full":
            back, on = min(back, _PART), min(on, _PART)
        starts.append([start + n * step for n in range(-back, on + 1)])
    for y in starts[1]:
        for x in starts[0]:
            yield x, y, x + right - left, y + bottom - top


def _head(face: Box) -> Box:
    """The head of a face: a detector's box goes from brow to chin, without hair and hat."""
    wide, high = (face[2] - face[0]) // 2, (face[3] - face[1]) // 2
    return face[0] - wide, face[1] - high, face[2] + wide, face[3] + high


def _both(a: Box, b: Box) -> Box | None:
    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _summed(weights: Array) -> Array:
    """(h + 1, w + 1): of what stands out from the rest, how much lies above and to the left of each corner."""
    strong = share(np.maximum(0, weights - weights.mean()))
    sums: Array = np.pad(strong, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return sums


def _inside(sums: Array, box: Box | None, size: tuple[int, int]) -> float:
    """How much of what stands out lies in a box, 0 to 1."""
    if box is None:
        return 0.0
    rows, columns = (np.linspace(0, whole, count) for whole, count in zip(size[::-1], sums.shape, strict=True))

    def corner(x: int, y: int) -> float:
        line = [float(np.interp(x, columns, row)) for row in sums[_near(y, rows)]]
        return float(np.interp(y, rows[_near(y, rows)], line))

    left, top, right, bottom = box
    return corner(right, bottom) - corner(left, bottom) - corner(right, top) + corner(left, top)


def _near(at: int, places: Array) -> slice:
    first = max(0, min(len(places) - 2, int(np.searchsorted(places, at)) - 1))
    return slice(first, first + 2)
