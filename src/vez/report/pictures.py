"""Pictures for the page: decoded under a pixel cap, made small, written again as WebP data URIs within a budget.

Pictures are other people's data: what is embedded is always our own encoding of decoded pixels, never the file itself,
so that no metadata and no malformed byte travels along.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from vez.errors import DataError
from vez.images.decode import decode

MAX_PIXELS = 64_000_000
SMALL = 160  # up to this many pixels a side a picture is kept lossless: enlarged on the page, artefacts would show
LADDER = (1.0, 0.65, 0.5, 0.3, 0.2)  # how much smaller everything gets until it fits the budget
QUALITY = 82


@dataclass(frozen=True)
class Wanted:
    """A picture on the page: `edge` is the most pixels its longer side may have there."""

    path: Path
    edge: int


@dataclass(frozen=True)
class Picture:
    """An embedded picture; width and height in its own pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Album:
    """What was embedded; `failed` says why a picture was not, `left_out` had no room; `size` is bytes of base64."""

    pictures: Mapping[Wanted, Picture]
    failed: Mapping[Wanted, str]
    left_out: tuple[Wanted, ...]
    size: int
    scale: float


def embed(wanted: Iterable[Wanted], *, budget: int) -> Album:
    """Encode pictures so that all of them together take at most `budget` bytes.

    Args:
        wanted: in order of importance; one that stands on the page twice is named twice, and takes its room twice.
        budget: in bytes of base64 text.
    Returns:
        The largest of a few scales at which everything fits; if even the smallest does not, the last ones are left out.
    """
    times = Counter(wanted)
    order = list(times)
    album = Album({}, {}, (), 0, 1.0)
    for scale in LADDER:
        album = _embed_at(times, order, scale=scale, budget=budget, last=scale == LADDER[-1])
        if not album.left_out:
            break
    return album


def _embed_at(times: Mapping[Wanted, int], order: list[Wanted], *, scale: float, budget: int, last: bool) -> Album:
    """One rung of the ladder. Stops at the first picture without room; of the last rung it and the rest are out."""
    pictures: dict[Wanted, Picture] = {}
    failed: dict[Wanted, str] = {}
    left_out: list[Wanted] = []
    size = 0
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


def _encode(want: Wanted, *, scale: float) -> Picture:
    image = decode(want.path, max_pixels=MAX_PIXELS)
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
