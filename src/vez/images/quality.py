"""Numbers for how much a picture shows: blur, brightness, information, and detail that enlarging cannot invent."""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]

_TILES: Final = 4  # sharpness is looked for in _TILES² parts of the picture
_BOX: Final = 9  # width in pixels of the blur that a sharp picture suffers from
_VARIATION: Final = 0.008  # least mean step between neighbours, as a share of the contrast, for a tile to say anything
_PATCH: Final = 128  # side of the patches whose spectrum is looked at, in the picture's own pixels
_PATCHES: Final = 6  # along either side
_BUSIEST: Final = 4  # of them are looked at
# Radial frequencies, in cycles per pixel (0.5 is the finest): where the slope is learnt, and where it is foretold.
_LEARNT: Final = (1 / 40, 1 / 28, 1 / 20, 1 / 14, 0.10, 0.14)
_FORETOLD: Final = (0.38, 0.42, 0.46, 0.50)
_SLOPES: Final = (2.3, 2.8)  # power falls as frequency^-2.3 … ^-2.8 in sharp pictures, photographed or drawn
_DECADES: Final = 3.0  # so much less than foretold counts as all missing


def training_view(image: Image.Image, resolution: int) -> Array:
    """The picture in grey, 0 to 1, (h, w): short side at the training resolution (never enlarged), long side at most 4
    times that."""
    scale = min(1.0, resolution / min(image.size))
    width, height = (min(4 * resolution, max(1, round(side * scale))) for side in image.size)
    grey = image.convert("L")
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(grey, dtype=np.float32) / np.float32(255)


def blur(grey: Array) -> float:
    """Blur of the sharpest parts: Crete et al., "The Blur Effect" (SPIE 2007), per tile; the lower quartile over the
    tiles.

    A sharp picture loses much of its local variation when it is blurred once more, a blurred one little. By tiles, so
    that a sharp subject before a soft background counts as sharp. A tile with no variation says nothing; if none has
    any, 1.
    """

    from scipy import ndimage

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
            if min(len(rows), len(columns)) == 0:
                continue
            tile = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            if min(float(h[tile].mean()) for h in had) < least:
                continue
            worst.append(max(1 - float(lo[tile].sum()) / float(h[tile].sum()) for lo, h in zip(lost, had, strict=True)))
    return float(np.quantile(worst, 0.25)) if worst else 1.0


def information(grey: Array) -> float:
    """Entropy of the brightness of a picture (0 to 1), in bits: 0 for one shade, 8 for all alike (as CleanVision's
    low-information check)."""
    counts = np.bincount((grey * 255 + 0.5).astype(np.intp).ravel(), minlength=256)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


def missing_detail(image: Image.Image) -> float:
    """How much of the finest detail that a picture of its size should have is missing, 0 to 1, as enlarging leaves it.

    The power in a sharp picture's spectrum falls steadily with frequency; that of an enlarged one breaks off where the
    smaller picture ended. The slope of the coarse frequencies foretells the power of the finest, in the busiest
    patches of the picture; what is missing of it is counted in decades, three being all. 0 where nothing can be told:
    pictures smaller than a patch, and empty ones.

    On the photographs of google/dreambooth: 0.48 at most for the originals, from 0.51 for all of them after an
    enlargement ×2; saved as JPEG after it, half of them stay above 0.55. Less than ×2 is not seen reliably.
    """

    from scipy import fft

    if min(image.size) < _PATCH:
        return 0.0
    corners = [
        np.unique(np.linspace(0, side - _PATCH, min(_PATCHES, -(-side // _PATCH))).astype(int)) for side in image.size
    ]
    boxes = [(x, y, x + _PATCH, y + _PATCH) for y in corners[1] for x in corners[0]]
    patches = np.stack([np.asarray(image.crop(box).convert("L"), dtype=np.float32) for box in boxes])
    patches -= patches.mean(axis=(1, 2), keepdims=True)
    window = np.outer(np.hanning(_PATCH), np.hanning(_PATCH)).astype(np.float32)
    power = np.abs(fft.rfft2(patches * window)) ** 2  # (patches, _PATCH, _PATCH // 2 + 1)
    radius = np.hypot(np.fft.fftfreq(_PATCH)[:, None], np.fft.rfftfreq(_PATCH)[None, :])
    busy = power[:, (radius > 0.06) & (radius < 0.12)].mean(axis=1)
    power = power[np.argsort(-busy, kind="stable")[:_BUSIEST]].mean(axis=0)
    if busy.max() < _PATCH**2:  # less than about one grey level of variation
        return 0.0
    at, learnt = _bands(power, radius, _LEARNT)
    slope = float(np.clip(np.polyfit(at, learnt, 1)[0], -_SLOPES[1], -_SLOPES[0]))
    level = float(np.mean(learnt - slope * at))
    at, measured = _bands(power, radius, _FORETOLD)
    return float(np.clip(np.mean(level + slope * at - measured) / _DECADES, 0, 1))


def _bands(power: Array, radius: NDArray[np.float64], edges: tuple[float, ...]) -> tuple[Array, Array]:
    """The logarithms of the middle of each band of frequencies, and of the mean power in it."""
    pairs = list(pairwise(edges))
    means = [float(power[(radius >= low) & (radius < high)].mean()) for low, high in pairs]
    middles = [(low + high) / 2 for low, high in pairs]
    return np.log10(np.array(middles, dtype=np.float32)), np.log10(np.array(means, dtype=np.float32) + 1)
