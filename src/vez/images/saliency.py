"""How much each place of a picture draws the eye, seen on a small copy of it; numpy and scipy only.

Four maps, each with sum 1, weighted: how far a colour is from those along the border (a subject seldom fills the
border; Wei et al., "Geodesic Saliency Using Background Priors", ECCV 2012, give the prior), edges, colourfulness, and
the spectral residual (Hou & Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007). A mirrored picture
has the mirrored map.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

_WORKING: Final = 96  # short side at which the eye is imitated, in pixels
_LONGEST: Final = 4 * _WORKING  # a very long picture would make a huge working copy
_RING: Final = 16  # side of the still smaller copy whose outermost pixels stand for the border
_ALIKE: Final = 0.1  # a place is as strange as its distance to the border colours that are nearest, this share of them
_BORDER, _EDGES, _COLOUR, _RESIDUAL = 2.0, 1.0, 0.5, 0.5


def interest(image: Image.Image) -> Array:
    """(h, w) weights ≥ 0 of a small copy, short side 96 pixels, sum 1; all alike where the picture is flat."""

    from scipy import ndimage

    small = _small(image if image.mode == "RGB" else image.convert("RGB"))
    rgb = np.asarray(small, dtype=np.float64) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114])
    edges = ndimage.gaussian_filter(np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)), 2)
    colour = ndimage.gaussian_filter(rgb.max(axis=2) - rgb.min(axis=2), 2)
    total: Array = (
        _BORDER * share(_strange(small, rgb))
        + _EDGES * share(edges)
        + _COLOUR * share(colour)
        + _RESIDUAL * share(_residual(grey))
    )
    return share(total)


def small_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the working copy of a picture of ``size``."""
    scale = _WORKING / min(size)
    return min(_LONGEST, max(1, round(size[0] * scale))), min(_LONGEST, max(1, round(size[1] * scale)))


def _small(image: Image.Image) -> Image.Image:
    """The working copy, the mirrored one of a mirrored picture to the last bit.

    Most of the way down goes by whole factors, several times faster; the columns that are left over are left out once
    on the right and once on the left.
    """
    target = small_size(image.size)
    by = max(1, image.width // (2 * target[0])), max(1, image.height // (2 * target[1]))
    wide, high = image.width // by[0] * by[0], image.height // by[1] * by[1]
    copies = []
    for left in sorted({0, image.width - wide}):
        reduced = image.reduce(by, box=(left, 0, left + wide, high))
        # not BOX, whose blocks of unequal size fall differently on the mirrored picture
        copies.append(np.asarray(reduced.resize(target, Image.Resampling.BILINEAR), dtype=np.float64))
    return Image.fromarray(np.rint(np.mean(copies, axis=0)).astype(np.uint8))


def share(values: Array) -> Array:
    """``values`` ≥ 0 scaled to the sum 1; even values where there are none above 0."""
    total = values.sum()
    return values / total if total > 1e-9 else np.full_like(values, 1 / values.size)


def _strange(small: Image.Image, rgb: Array) -> Array:
    """Distance of each colour (CIELAB) to the nearest tenth of those along the picture's border."""

    from scipy import ndimage

    ring = np.asarray(small.resize((_RING, _RING), Image.Resampling.BILINEAR), dtype=np.float64) / 255
    border = lab(np.concatenate([ring[0], ring[-1], ring[1:-1, 0], ring[1:-1, -1]]))  # (n, 3)
    here = lab(ndimage.gaussian_filter(rgb, (1, 1, 0))).reshape(-1, 3)
    squared = (here**2).sum(axis=1)[:, None] + (border**2).sum(axis=1) - 2 * here @ border.T
    rank = round(_ALIKE * len(border))
    nearest = np.sqrt(np.maximum(0, np.partition(squared.astype(np.float32), rank, axis=1)[:, rank]))
    # differences below what the eye tells apart (about 2) are noise
    far: Array = np.maximum(0, nearest.astype(np.float64) - 2).reshape(rgb.shape[:2])
    return far


def _residual(grey: Array) -> Array:
    """What of the log spectrum its local mean does not foresee, back in space, squared, smoothed."""

    from scipy import ndimage

    spectrum = np.fft.fft2(grey)
    log = np.log(np.abs(spectrum) + 1e-9)
    residual = log - ndimage.uniform_filter(log, 3, mode="wrap")
    back = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    smooth: Array = ndimage.gaussian_filter(np.abs(back) ** 2, 3)
    return smooth


def lab(rgb: Array) -> Array:
    """sRGB 0 to 1, (…, 3) → CIELAB (D65)."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ np.array([[0.4339, 0.2126, 0.0178], [0.3762, 0.7152, 0.1095], [0.1899, 0.0722, 0.8730]])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
