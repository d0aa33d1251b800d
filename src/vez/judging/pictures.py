"""Pictures for a judge's eyes: pixels and nothing else, every picture of a pair the same number of bytes.

A PNG tells in its text which LoRA drew it, and by its length how busy it is; an uncompressed bitmap tells neither.
"""

import io
from pathlib import Path
from typing import Final

from PIL import Image

from vez.errors import DataError
from vez.images.decode import decode

LEAST: Final = 448
"""Smaller pictures are enlarged by a whole factor to at least this many pixels a side, all alike."""
REFERENCE: Final = 320
"""Longer side of a real picture on the page."""
TYPE: Final = "image/bmp"


def pair(left: Path, right: Path) -> tuple[bytes, bytes]:
    """Both pictures as bitmaps of equal length. Raises DataError where one cannot be read or their sizes differ."""
    images = [_read(path) for path in (left, right)]
    if images[0].size != images[1].size:
        raise DataError(f"{left} and {right} are of different sizes, which would tell them apart; sample again")
    width, height = images[0].size
    factor = max(1, -(-LEAST // max(width, height)))
    size = (width * factor, height * factor)
    first, second = (_bitmap(image.resize(size, Image.Resampling.LANCZOS)) for image in images)
    return first, second


def reference(path: Path) -> bytes:
    """A real picture as a small bitmap. Raises DataError where it cannot be read."""
    image = _read(path)
    image.thumbnail((REFERENCE, REFERENCE), Image.Resampling.LANCZOS)
    return _bitmap(image)


def _read(path: Path) -> Image.Image:
    try:
        return decode(path)
    except DataError as error:
        raise DataError(f"{path} cannot be shown: {error}") from error


def _bitmap(image: Image.Image) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", image.size, image.convert("RGB").tobytes()).save(file, "BMP")
    return file.getvalue()
