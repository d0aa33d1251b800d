"""Pictures for the page: decoded under a pixel cap, made small, written again as WebP data URIs within a budget.

Pictures are other people's data: what is embedded is always our own encoding of decoded pixels, never the file itself,
so that no metadata and no malformed byte travels along.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from vez.errors import DataError
from vez.images.decode import decode

MAX_PIXELS = 64_000_000
SMALL = 160  # up to this many pixels a side a picture is kept lossless: enlarged on the page, artefacts would show
LADDER = (1.0, 0.65, 0.5, 0.3, 0.2)  # how much smaller everything gets until it fits the budget
LOWEST = 0.5  # what may stay out as well gets no smaller than this: a picture that shows nothing helps nobody
QUALITY = 82
CHANGED = (138, 26, 34)  # the colour of what differs between two pictures
VISIBLE = 0.06  # a difference, of the range of a channel, below which nothing is painted
WHOLE = 0.4  # the difference from which on a place is painted wholly


@dataclass(frozen=True)
class Wanted:
    """A picture on the page: `edge` is the most pixels its longer side may have there.

    With `against` it is a map of where the two pictures differ (`difference`).
    """

    path: Path
    edge: int
    against: Path | None = None


@dataclass(frozen=True)
class Picture:
    """An embedded picture; width and height in its own pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Album:
    """What was embedded; `failed` says why a picture was not, `left_out` had no room; `size` is bytes of base64.

    `scale` is how much smaller than asked for the pictures are, `spare_scale` those that might have stayed out.
    """

    pictures: Mapping[Wanted, Picture]
    failed: Mapping[Wanted, str]
    left_out: tuple[Wanted, ...]
    size: int
    scale: float
    spare_scale: float = 1.0


def embed(wanted: Iterable[Wanted], *, budget: int, spare: Iterable[Wanted] = ()) -> Album:
    """Encode pictures so that all of them together take at most `budget` bytes.

    Args:
        wanted: in order of importance; one that stands on the page twice is named twice, and takes its room twice.
        budget: in bytes of base64 text.
        spare: pictures that may stay out, in order of importance; they get the room that the others leave.
    Returns:
        The largest of a few scales at which all of `wanted` fits; if even the smallest does not, the last ones are
        left out. Of `spare` as many as have room, not smaller than `LOWEST`, or than the others where these are.
    """
    times, further = Counter(wanted), Counter(spare)
    album = _fitted(times, LADDER, Album({}, {}, (), 0, 1.0), budget)
    if not further:
        return album
    kept = {want: picture for want, picture in album.pictures.items() if want in further}
    again = sum(len(picture.uri) * further[want] for want, picture in kept.items())
    rest = Counter({want: n for want, n in further.items() if want not in album.pictures and want not in album.failed})
    lowest = min(LOWEST, album.scale)
    steps = tuple(scale for scale in LADDER if lowest <= scale <= album.scale)
    full = _fitted(rest, steps, replace(album, size=album.size + again), budget)
    return replace(full, scale=album.scale, spare_scale=full.scale)


def _fitted(times: Mapping[Wanted, int], scales: tuple[float, ...], before: Album, budget: int) -> Album:
    """What was embedded before, and these pictures beside it at the largest of the scales at which they fit."""
    order, album = list(times), before
    for scale in scales:
        album = _embed_at(times, order, before, scale=scale, budget=budget, last=scale == scales[-1])
        if album.left_out == before.left_out:
            break
    return album


def _embed_at(
    times: Mapping[Wanted, int], order: list[Wanted], before: Album, *, scale: float, budget: int, last: bool
) -> Album:
    """One rung of the ladder. Stops at the first picture without room; of the last rung it and the rest are out."""
    pictures, failed, left_out = dict(before.pictures), dict(before.failed), list(before.left_out)
    size = before.size
    for place, want in enumerate(order):
        try:
            picture = _encode(want, scale=scale)
        except DataError as error:
            failed[want] = str(error)
            continue
        if size + len(picture.uri) * times[want] > budget:
            left_out += order[place:] if last else [want]
            break
        pictures[want] = picture
        size += len(picture.uri) * times[want]
    return Album(pictures, failed, tuple(left_out), size, scale)


def difference(before: Image.Image, after: Image.Image) -> Image.Image:
    """Where two pictures differ: the first in faint greys, dark red over it the more a place has changed.

    The second is brought to the first one's size. What differs by less than `VISIBLE` of a channel's range stays grey.
    """
    if after.size != before.size:
        after = after.resize(before.size, Image.Resampling.LANCZOS)
    one, other = (np.asarray(image.convert("RGB"), np.float32) / 255 for image in (before, after))
    changed = np.abs(one - other).max(axis=2, keepdims=True)
    paint = np.clip((changed - VISIBLE) / (WHOLE - VISIBLE), 0, 1)
    faint = 0.72 + 0.26 * one.mean(axis=2, keepdims=True)
    mixed = faint * (1 - paint) + np.array(CHANGED, np.float32) / 255 * paint
    return Image.fromarray(np.round(mixed * 255).astype(np.uint8))


def _encode(want: Wanted, *, scale: float) -> Picture:
    image = decode(want.path, max_pixels=MAX_PIXELS)
    if want.against is not None:
        image = difference(image, decode(want.against, max_pixels=MAX_PIXELS))
    edge = max(32, round(want.edge * scale))
    lossless = max(image.size) <= min(SMALL, edge)
    if max(image.size) > edge:
        ratio = edge / max(image.size)
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    out = BytesIO()
    image.save(out, "WEBP", lossless=lossless, quality=100 if lossless else QUALITY, method=4)
    text = base64.b64encode(out.getvalue()).decode("ascii")
    return Picture(f"data:image/webp;base64,{text}", image.width, image.height)
