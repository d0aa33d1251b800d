"""Findings about pictures, before anything is trained on them. Nothing here deletes or changes a picture.

`measure` looks at one picture (so that only one is in memory), `check` at the measures of all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vez.config import Checks
from vez.images.findings import Finding
from vez.images.pixels import pixels_sha256

Array = NDArray[np.float64]

_HASH: Final = 16  # dHash has _HASH² bits
_THUMB: Final = 24  # side of the thumbnail that confirms a near-duplicate
_TILES: Final = 4  # sharpness is looked for in _TILES² parts of the picture
_BOX: Final = 9  # width in pixels of the blur that a sharp picture suffers from
_VARIATION: Final = 0.008  # least mean step between neighbours, as a share of the contrast, for a tile to say anything
# Least correlation of two thumbnails for a near-duplicate: pictures with flat backgrounds share hash bits by chance.
_SAME_LOOK: Final = 0.98


@dataclass(frozen=True)
class Picture:
    """What the checks need to know of one picture. ``error`` is set, and the rest empty, where it cannot be read."""

    file: str
    error: str = ""
    width: int = 0
    height: int = 0
    pixels: str = ""
    """SHA-256 of the decoded pixels and their shape."""
    blur: float = 0.0
    """Blur of the sharpest part of the picture, 0 (sharp) to 1 (blurred or empty)."""
    darkest: float = 0.0
    """Brightness that 2 % of the picture stay below, 0 black to 1 white."""
    brightest: float = 1.0
    """Brightness that 2 % of the picture exceed."""
    bits: bytes = b""
    """dHash."""
    mirrored_bits: bytes = b""
    """dHash of the mirror image."""
    thumb: bytes = b""
    """Thumbnail, _THUMB² RGB pixels."""


def measure(file: str, image: Image.Image, *, resolution: int) -> Picture:
    """What the checks need to know of a decoded RGB picture, to be trained on at ``resolution`` pixels."""
    grey = _training_view(image, resolution)
    small = image.reduce(max(1, min(image.size) // 256))  # the hashes need no more, and photographs are large
    return Picture(
        file=file,
        width=image.width,
        height=image.height,
        pixels=pixels_sha256(image),
        blur=_blur(grey),
        darkest=float(np.quantile(grey, 0.02)),
        brightest=float(np.quantile(grey, 0.98)),
        bits=_dhash(small),
        mirrored_bits=_dhash(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        thumb=small.resize((_THUMB, _THUMB), Image.Resampling.BOX).tobytes(),
    )


def check(pictures: Sequence[Picture], *, resolution: int, thresholds: Checks) -> list[Finding]:
    """The findings about a set of pictures, in their order; of two duplicates the later one gets the finding."""
    findings: list[Finding] = []
    for i, picture in enumerate(pictures):
        if picture.error:
            fix = "save it again as JPEG or PNG, or remove it"
            findings.append(Finding(picture.file, "unreadable", picture.error, "", "it cannot be trained on", fix))
            continue
        findings += _alone(picture, resolution, thresholds)
        for earlier in pictures[:i]:
            if not earlier.error and (found := _pair(earlier, picture, thresholds.near_duplicate)) is not None:
                findings.append(found)
    return findings


def _alone(picture: Picture, resolution: int, limits: Checks) -> list[Finding]:
    def found(check: str, value: float, threshold: float, why: str, fix: str) -> Finding:
        return Finding(picture.file, check, round(value, 3), threshold, why, fix)

    findings = []
    short, long = sorted((picture.width, picture.height))
    if short < resolution:
        why = "its short side is less than the training resolution, so it would be enlarged and teaches softness"
        findings.append(found("tiny", short, resolution, why, "find a larger copy, or lower the dataset's resolution"))
    if picture.blur > limits.blurred:
        why = "even its sharpest part is soft, or it shows next to nothing; the LoRA learns blur as part of the concept"
        findings.append(found("blurred", picture.blur, limits.blurred, why, "use a sharper picture"))
    if picture.brightest < limits.dark:
        why = "it is nearly black; details of the concept cannot be seen"
        findings.append(found("dark", picture.brightest, limits.dark, why, "brighten it, or leave it out"))
    if picture.darkest > limits.light:
        why = "it is nearly white; details of the concept cannot be seen"
        findings.append(found("light", picture.darkest, limits.light, why, "darken it, or leave it out"))
    if long / short > limits.aspect:
        why = "a square crop loses most of it"
        findings.append(found("odd-aspect", long / short, limits.aspect, why, "crop it by hand around the subject"))
    return findings


def _pair(earlier: Picture, later: Picture, limit: float) -> Finding | None:
    if earlier.pixels == later.pixels:
        why = f"it shows the same pixels as {earlier.file}, which then counts twice"
        return Finding(later.file, "exact-duplicate", 0.0, 0.0, why, "remove one of the two", other=earlier.file)
    plain, mirrored = _distance(earlier.bits, later.bits), _distance(earlier.bits, later.mirrored_bits)
    plain_look, mirrored_look = _looks(earlier.thumb, later.thumb)
    close = [
        (distance, how)
        for distance, look, how in ((plain, plain_look, ""), (mirrored, mirrored_look, " mirrored"))
        if distance <= limit and look >= _SAME_LOOK
    ]
    if not close:
        return None
    distance, how = min(close)
    why = f"it is nearly the same picture as {earlier.file}{how}; copies are what a LoRA memorises first"
    return Finding(later.file, "near-duplicate", round(distance, 3), limit, why, "keep the better one", earlier.file)


def _grey(image: Image.Image) -> Array:
    return np.asarray(image.convert("L"), dtype=np.float64) / 255


def _training_view(image: Image.Image, resolution: int) -> Array:
    """The picture in grey, short side at the training resolution (never enlarged), long side at most 4 times that."""
    scale = min(1.0, resolution / min(image.size))
    width, height = (min(4 * resolution, max(1, round(side * scale))) for side in image.size)
    return _grey(image.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else image)


def _blur(grey: Array) -> float:
    """Blur of the sharpest parts: Crete et al., "The Blur Effect" (SPIE 2007), per tile; the lower quartile over the
    tiles.

    A sharp picture loses much of its local variation when it is blurred once more, a blurred one little. By tiles, so
    that a sharp subject before a soft background counts as sharp. A tile with no variation says nothing; if none has
    any, 1.
    """
    worst = []
    # relative to the picture's own contrast: a dark picture is dark, not blurred
    least = _VARIATION * max(float(np.ptp(np.quantile(grey, (0.02, 0.98)))), 16 / 255)
    lost, had = [], []
    for axis in (0, 1):
        again = ndimage.uniform_filter1d(grey, _BOX, axis=axis)
        variation = np.abs(np.diff(grey, axis=axis))
        lost.append(np.maximum(0, variation - np.abs(np.diff(again, axis=axis))))
        had.append(variation)
    for rows in np.array_split(np.arange(grey.shape[0] - 1), _TILES):
        for columns in np.array_split(np.arange(grey.shape[1] - 1), _TILES):
            tile = np.ix_(rows, columns)
            if min(len(rows), len(columns)) == 0 or min(h[tile].mean() for h in had) < least:
                continue
            worst.append(max(1 - lo[tile].sum() / h[tile].sum() for lo, h in zip(lost, had, strict=True)))
    return float(np.quantile(worst, 0.25)) if worst else 1.0


def _dhash(image: Image.Image) -> bytes:
    """Difference hash: is each of _HASH² places darker than its right neighbour? (N. Krawetz, 2013.)"""
    small = np.asarray(image.convert("L").resize((_HASH + 1, _HASH), Image.Resampling.BOX), dtype=np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def _distance(a: bytes, b: bytes) -> float:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count() / _HASH**2


def _looks(a: bytes, b: bytes) -> tuple[float, float]:
    """Correlation of two thumbnails, as they are and with one mirrored."""
    one, two = (np.frombuffer(t, np.uint8).reshape(_THUMB, _THUMB, 3).astype(np.float64) for t in (a, b))
    return _correlation(one, two), _correlation(one, two[:, ::-1])


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 1.0
