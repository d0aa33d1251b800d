"""Where the subject is → a square box around it → the training picture.

The box has the picture's short side; only its place along the long side is chosen, where most of what draws the eye
lies: spectral-residual saliency (Hou & Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007) plus
edge energy, with a slight preference for the middle.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Array = NDArray[np.float64]

_WORKING: Final = 96  # short side at which the eye is imitated, in pixels
_MIDDLE: Final = 0.35  # how much less the far ends weigh than the middle


def crop_box(image: Image.Image) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels: a square of the picture's short side, placed where the subject is."""
    width, height = image.size
    side = min(width, height)
    room = max(width, height) - side
    if room == 0:
        return (0, 0, side, side)
    interest = _interest(image)  # (h, w)
    along = interest.sum(axis=0 if width > height else 1)  # one number per column (or row) of the working picture
    window = max(1, round(len(along) * side / max(width, height)))
    sums = np.convolve(along, np.ones(window), mode="valid")
    # Ties and near-ties go to the middle: a flat picture is cut in its centre.
    places = np.arange(len(sums))
    good = places[sums >= sums.max() * (1 - 1e-6)]
    middle = (len(sums) - 1) / 2
    best = good[np.argmin(np.abs(good - middle))]
    share = best / max(1, len(sums) - 1)
    start = round(float(share) * room)
    return (start, 0, start + side, side) if width > height else (0, start, side, start + side)


def crop(image: Image.Image, size: int) -> Image.Image:
    """The subject's square of ``image`` at ``size`` × ``size`` pixels (Lanczos)."""
    return image.crop(crop_box(image)).resize((size, size), Image.Resampling.LANCZOS)


def _interest(image: Image.Image) -> Array:
    """How much each place of a small copy of the picture draws the eye; sums to 1 unless all is flat."""
    width, height = image.size
    scale = _WORKING / min(width, height)
    # A very long picture would make a huge working copy: four times the short side is fine enough.
    small = (min(4 * _WORKING, max(1, round(width * scale))), min(4 * _WORKING, max(1, round(height * scale))))
    rgb = np.asarray(image.resize(small, Image.Resampling.BOX), dtype=np.float64) / 255  # (h, w, 3)
    grey = rgb @ np.array([0.299, 0.587, 0.114])
    edges = ndimage.gaussian_filter(np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1)), 2)
    colour = ndimage.gaussian_filter(rgb.max(axis=2) - rgb.min(axis=2), 2)
    total = _share(_saliency(grey)) + _share(edges) + 0.5 * _share(colour)
    h, w = grey.shape
    position = np.linspace(-1, 1, max(h, w)) ** 2
    fall = 1 - _MIDDLE * position
    return total * (fall[None, :] if w > h else fall[:, None])


def _share(values: Array) -> Array:
    total = values.sum()
    return values / total if total > 1e-9 else np.full_like(values, 1 / values.size)


def _saliency(grey: Array) -> Array:
    """Spectral residual: what of the log spectrum its local mean does not foresee, back in space, squared, smoothed."""
    spectrum = np.fft.fft2(grey)
    log = np.log(np.abs(spectrum) + 1e-9)
    residual = log - ndimage.uniform_filter(log, 3, mode="wrap")
    back = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    smooth: Array = ndimage.gaussian_filter(np.abs(back) ** 2, 3)
    return smooth
