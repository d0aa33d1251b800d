"""Aspect-ratio buckets: the shapes that training pictures may have, all of about one area.

- square: one shape.
- kohya: what sd-scripts makes of a resolution (`make_bucket_resolutions` with its defaults at 512): every width from
  256 to 1024 in steps of 64, with the greatest height, a multiple of 64 and at most 1024, that keeps the area within
  resolution²; and each of them turned. At other resolutions the limits keep their relation to it, half and twice;
  the step is 64 from 512 on, 32 from 256 on, and 16 below, so that a small base has a choice too.
- sdxl: the 40 shapes that SDXL was trained on (Podell et al., "SDXL: Improving Latent Diffusion Models for
  High-Resolution Image Synthesis", arXiv 2307.01952, appendix I). At other resolutions their aspect ratios at
  resolution², each side rounded to the step, as diffusers' `generate_aspect_ratio_buckets` does it.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

Shape = tuple[int, int]  # width, height in pixels

# Height → widths, for the wide ones; the paper lists the tall ones likewise, but for 704 × 1344.
_SDXL_WIDE: Final[dict[int, tuple[int, ...]]] = {
    512: (2048, 1984, 1920, 1856),
    576: (1792, 1728, 1664),
    640: (1600, 1536),
    704: (1472, 1408, 1344),
    768: (1344, 1280),
    832: (1216, 1152),
    896: (1152, 1088),
    960: (1088, 1024),
}
_SDXL: Final[tuple[Shape, ...]] = tuple(
    [(width, height) for height, widths in _SDXL_WIDE.items() for width in widths]
    + [(1024, 1024)]
    + [(h, w) for h, widths in reversed(_SDXL_WIDE.items()) for w in reversed(widths) if (w, h) != (1344, 704)]
)
_SDXL_RESOLUTION: Final = 1024


def shapes(kind: Literal["square", "kohya", "sdxl"], resolution: int) -> tuple[Shape, ...]:
    """The shapes (width, height) of a kind of buckets, sorted, each once. ``resolution``² is their area, in pixels."""
    if kind == "square":
        return ((resolution, resolution),)
    if kind == "kohya":
        return _kohya(resolution)
    if resolution == _SDXL_RESOLUTION:
        return tuple(sorted(_SDXL))
    return tuple(sorted({_scaled(width / height, resolution) for width, height in _SDXL}))


def nearest(shapes: Sequence[Shape], width: int, height: int) -> Shape:
    """The shape of which a ``width`` × ``height`` picture, made to cover it, loses the smallest share.

    That is the nearest aspect ratio on a logarithmic scale, the same for a picture and for the picture turned; of
    two equally near ones the first in ``shapes``. A picture that has a shape's exact aspect ratio gets that shape.
    """
    return min(
        shapes, key=lambda shape: max(shape[0] * height, shape[1] * width) / min(shape[0] * height, shape[1] * width)
    )


def step(resolution: int) -> int:
    """What the sides of the buckets are multiples of, in pixels."""
    return 64 if resolution >= 512 else 32 if resolution >= 256 else 16


def _kohya(resolution: int) -> tuple[Shape, ...]:
    unit = step(resolution)
    area = resolution * resolution
    least, most = _down(resolution // 2, unit), _down(resolution * 2, unit)
    square = _down(resolution, unit)
    found = {(square, square)}
    for width in range(least, most + 1, unit):
        height = min(most, _down(area // width, unit))
        if height >= least:
            found |= {(width, height), (height, width)}
    return tuple(sorted(found))


def _down(pixels: int, unit: int) -> int:
    return pixels // unit * unit


def _scaled(aspect: float, resolution: int) -> Shape:
    unit = step(resolution)
    height = math.sqrt(resolution * resolution / aspect)
    return max(unit, round(height * aspect / unit) * unit), max(unit, round(height / unit) * unit)
