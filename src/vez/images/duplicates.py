"""Which pictures are copies of one another: by a hash of their brightness steps, and by correlation over shifts.

The hash (tier 1) compares every pair and finds copies that are whole, also mirrored, blurred or compressed. The
correlation (tier 2, `vez.images.shifts`) also finds those that were cropped or moved. The third tier, one source page,
needs no pixels and stands in `vez.images.checks`.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vez.images import shifts
from vez.images.shifts import Array, Index

_HASH: Final = 16  # dHash has _HASH² bits
_THUMB: Final = 24  # side of the thumbnail that confirms a near-duplicate
# Least correlation of two thumbnails for a near-duplicate: pictures with flat backgrounds share hash bits by chance.
_SAME_LOOK: Final = 0.98
_FLAT: Final = 2.0  # a thumbnail that varies by less (of 255) shows nothing
_ROWS: Final = 256  # pictures compared with all others at a time, so that memory stays bounded
_MOST_PAIRWISE: Final = 250  # pictures of which tier 2 looks at every pair; of more, at each one's likeliest partners
_PARTNERS: Final = 16
_SPECTRUM: Final = 32  # side of the square whose spectrum says how a picture looks, wherever it is moved
_SHADES: Final = 8  # of each primary colour


@dataclass(frozen=True)
class Look:
    """How a picture looks: all that the search for copies keeps of it (about 13 kB)."""

    bits: bytes
    """dHash, 256 bits."""
    mirrored_bits: bytes
    """dHash of the mirror image."""
    thumb: bytes
    """Thumbnail, _THUMB² RGB pixels, whatever the picture's shape."""
    grey: bytes
    """The picture in grey in its own shape, for the correlation."""
    grey_width: int


@dataclass(frozen=True)
class Copy:
    """Two pictures, by their places in the sequence, that show the same; ``earlier`` < ``later``."""

    earlier: int
    later: int
    mirrored: bool
    whole: bool
    """Found by the hash: ``value`` is the share of differing bits. Otherwise ``value`` is the correlation."""
    value: float


def look(image: Image.Image) -> Look:
    """How an RGB picture looks."""
    small = image.reduce(max(1, min(image.size) // 256))  # the hashes need no more, and photographs are large
    grey = shifts.grey(small)
    return Look(
        bits=_dhash(small),
        mirrored_bits=_dhash(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        thumb=small.resize((_THUMB, _THUMB), Image.Resampling.BOX).tobytes(),
        grey=grey.tobytes(),
        grey_width=grey.shape[1],
    )


def look_to_row(one: Look) -> dict[str, Any]:
    """The look as a JSON object; bytes as base64."""
    return {name: b64encode(v).decode() if isinstance(v, bytes) else v for name, v in vars(one).items()}


def look_from_row(row: dict[str, Any]) -> Look:
    """The look that `look_to_row` wrote. Raises TypeError, KeyError or ValueError for a row that is none."""
    parts = {name: b64decode(row[name], validate=True) for name in ("bits", "mirrored_bits", "thumb", "grey")}
    one = Look(**parts, grey_width=int(row["grey_width"]))
    lengths = [(one.bits, _HASH**2 // 8), (one.mirrored_bits, _HASH**2 // 8), (one.thumb, _THUMB**2 * 3)]
    if any(len(part) != length for part, length in lengths) or one.grey_width < 1 or len(one.grey) % one.grey_width:
        raise ValueError("its parts have wrong lengths")
    return one


def copies(looks: Sequence[Look], *, most_bits: float, least_correlation: float) -> list[Copy]:
    """The pairs that are copies of one another, in order; a pair found by the hash is not correlated any more.

    ``most_bits`` is a share of differing hash bits, 0 to 1; ``least_correlation`` that of brightness and detail where
    two pictures overlap. Time grows with the square of the number only by some 10 ns a pair.
    """
    if len(looks) < 2:
        return []
    thumbs = np.stack([np.frombuffer(one.thumb, np.uint8) for one in looks]).reshape(-1, _THUMB, _THUMB, 3)
    found = {(copy.earlier, copy.later): copy for copy in _whole(looks, thumbs, most_bits)}
    greys = [np.frombuffer(one.grey, np.uint8).reshape(-1, one.grey_width) for one in looks]
    if len(looks) <= _MOST_PAIRWISE:
        pairs = np.stack(np.triu_indices(len(looks), 1), axis=1)
    else:
        pairs = candidates(_descriptors(greys, thumbs), _PARTNERS)
    rest = np.array([pair for pair in pairs.tolist() if tuple(pair) not in found], dtype=np.intp).reshape(-1, 2)
    for match in shifts.matches(greys, rest, least=least_correlation):
        found[match.earlier, match.later] = Copy(match.earlier, match.later, match.mirrored, False, match.score)
    return [found[pair] for pair in sorted(found)]


def candidates(descriptors: Array, partners: int) -> Index:
    """Every picture's likeliest partners: pairs (P, 2), the lesser place first, by the cosine of rows (N, D)."""
    n = len(descriptors)
    pairs = []
    for start in range(0, n, _ROWS):
        likeness = descriptors[start : start + _ROWS] @ descriptors.T  # (rows, N)
        rows = np.arange(len(likeness))
        likeness[rows, start + rows] = -np.inf
        best = np.argpartition(likeness, -min(partners, n - 1), axis=1)[:, -min(partners, n - 1) :]
        both = np.stack([np.repeat(start + rows, best.shape[1]), best.ravel()], axis=1)
        pairs.append(np.sort(both, axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _whole(looks: Sequence[Look], thumbs: NDArray[np.uint8], most_bits: float) -> Iterator[Copy]:
    """Tier 1: every pair, mirrored or not, whose hashes and whose thumbnails agree."""
    plain, mirrored = (
        np.stack([np.frombuffer(getattr(one, name), np.uint64) for one in looks]) for name in ("bits", "mirrored_bits")
    )  # (N, 4)
    unit = _unit(thumbs)  # (N, t, t, 3)
    for start in range(0, len(looks), _ROWS):
        block = plain[start : start + _ROWS]
        best: dict[tuple[int, int], Copy] = {}
        for flipped, bits in ((False, plain), (True, mirrored)):
            differ = np.zeros((len(block), len(bits)), dtype=np.uint16)
            for word in range(bits.shape[1]):
                differ += np.bitwise_count(block[:, word, None] ^ bits[None, :, word])
            close = np.argwhere(differ <= most_bits * _HASH**2)
            close = close[close[:, 1] > close[:, 0] + start]
            for part in np.array_split(close, max(1, len(close) // 4096)):
                other = unit[part[:, 1]]
                alike = np.einsum("nyxc,nyxc->n", unit[part[:, 0] + start], other[:, :, ::-1] if flipped else other)
                for i, j in part[alike >= _SAME_LOOK].tolist():
                    copy = Copy(i + start, j, flipped, True, float(differ[i, j]) / _HASH**2)
                    known = best.get((i, j))
                    if known is None or copy.value < known.value:
                        best[i, j] = copy
        yield from best.values()


def _unit(thumbs: NDArray[np.uint8]) -> Array:
    """Thumbnails as vectors of length 1 without their mean; flat ones as zero, so that they resemble nothing."""
    unit = thumbs.astype(np.float32)
    unit -= unit.mean(axis=(1, 2, 3), keepdims=True)
    norm = np.sqrt(np.einsum("nyxc,nyxc->n", unit, unit))
    says_something = norm > _FLAT * np.sqrt(unit[0].size)
    unit *= np.where(says_something, 1 / np.maximum(norm, 1e-6), 0).astype(np.float32)[:, None, None, None]
    return unit


def _descriptors(greys: Sequence[shifts.Grey], thumbs: NDArray[np.uint8]) -> Array:
    """Rows (N, D) of length 1 that change little when a picture is moved, cropped by a quarter or mirrored.

    The magnitude of a spectrum stays when a picture moves; added to its mirror image's it stays when it is mirrored.
    Colours stay nearly the same in a crop.
    """
    window = np.outer(np.hanning(_SPECTRUM), np.hanning(_SPECTRUM)).astype(np.float32)
    spectra = []
    for small in shifts.coarse(greys):
        square = np.zeros((_SPECTRUM, _SPECTRUM), dtype=np.float32)
        h, w = (min(side, _SPECTRUM) for side in small.shape)
        top, left = (small.shape[0] - h) // 2, (small.shape[1] - w) // 2
        part = small[top : top + h, left : left + w]
        square[:h, :w] = part - part.mean()
        size = np.abs(np.fft.fft2(np.roll(square, ((_SPECTRUM - h) // 2, (_SPECTRUM - w) // 2), (0, 1)) * window))
        half = (
            size[: _SPECTRUM // 2, : _SPECTRUM // 2]
            + np.roll(size[:, ::-1], 1, axis=1)[: _SPECTRUM // 2, : _SPECTRUM // 2]
        )
        spectra.append(np.log1p(half[:12, :12]).ravel())
    spectrum = np.stack(spectra).astype(np.float32)
    spectrum -= spectrum.mean(axis=0)
    colours = _colours(thumbs)
    colours -= colours.mean(axis=0)
    parts = [p / np.maximum(np.linalg.norm(p, axis=1, keepdims=True), 1e-6) for p in (spectrum, colours)]
    joined = np.concatenate(parts, axis=1)
    unit: Array = joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-6)
    return unit


def _colours(thumbs: NDArray[np.uint8]) -> Array:
    """Square roots of soft colour histograms, (N, _SHADES³), whatever the exposure."""

    from scipy import ndimage

    flat = thumbs.reshape(len(thumbs), -1, 3).astype(np.float32)
    flat *= 110 / np.maximum(flat.mean(axis=(1, 2), keepdims=True), 8)
    shades = np.clip(flat * (_SHADES / 256), 0, _SHADES - 1).astype(np.intp)
    places = shades @ np.array([_SHADES**2, _SHADES, 1])
    counts = np.stack([np.bincount(row, minlength=_SHADES**3) for row in places]).astype(np.float32)
    cube = counts.reshape(-1, _SHADES, _SHADES, _SHADES)
    for axis in (1, 2, 3):
        cube = ndimage.convolve1d(cube, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    return np.sqrt(cube.reshape(len(thumbs), -1))


def _dhash(image: Image.Image) -> bytes:
    """Difference hash: is each of _HASH² places darker than its right neighbour? (N. Krawetz, 2013.)"""
    small = np.asarray(image.convert("L").resize((_HASH + 1, _HASH), Image.Resampling.BOX), dtype=np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()
