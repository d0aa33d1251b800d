"""Bytes → an upright sRGB picture, or a DataError that says what is wrong with the file.

Whatever the file holds (EXIF turn, colour profile, palette, alpha, CMYK, 16 bits, several frames), what comes out is
an 8-bit RGB picture as a viewer shows it, without any metadata.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from vez.errors import DataError

MAX_PIXELS: Final = 120_000_000  # a medium-format photograph has 102 million
# What is read, by Pillow's names; a list, so that a file cannot reach a rarely tested decoder by its content.
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
# What Pillow's decoders raise on broken files.
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# EXIF 2.32, tag 0x0112: what to do to a stored picture so that it stands upright.
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIC_BRANDS: Final = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def decode(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of a picture as upright 8-bit sRGB, transparent parts over white.

    The file's colour profile is honoured; a profile that is broken or of another kind of picture is passed over, as
    browsers do. Raises DataError where the file cannot be read, is no picture, is cut short, has more than
    ``max_pixels`` pixels, or holds numbers that have no known brightness (32-bit or floating-point).
    """
    data = _bytes(source)
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        raise DataError("it is a HEIC picture, which vez does not read; save it as JPEG or PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a picture can be used or not; Pillow's remarks on its metadata change neither
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise DataError("it is not a picture that vez can read (JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF)") from error
        except _BROKEN as error:
            raise DataError(f"it is damaged: {_said(error)}") from error
        if image.width * image.height > max_pixels:
            raise DataError(f"it has {image.width}×{image.height} pixels, more than {max_pixels:,}; make it smaller")
        try:
            image.load()
            return _turned(_flat(image), _orientation(image))
        except DataError:
            raise
        except _BROKEN as error:
            raise DataError(f"it is damaged or cut short: {_said(error)}") from error


def _bytes(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = source.read_bytes()
        except OSError as error:
            raise DataError(f"{source} cannot be read: {error.strerror}") from error
    if not data:
        raise DataError("the file is empty")
    return data


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1  # broken EXIF says nothing about which way is up; the pixels are fine
    return value if isinstance(value, int) else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _flat(image: Image.Image) -> Image.Image:
    """Colours to sRGB, alpha over white; a new picture without metadata."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F"):
        raise DataError(
            f"its pixels are 32-bit numbers (mode {image.mode}) of unknown brightness; save it as 8-bit PNG"
        )
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 instead of scaling.
        wide = np.asarray(image).astype(np.uint16)
        image = Image.fromarray((wide // 257).astype(np.uint8))
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")  # palette and tRNS transparency become a channel
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode in ("P", "1", "PA", "La", "RGBX", "HSV"):
        image = image.convert("RGB")
    rgb = _srgb(image, profile)
    if alpha is not None:
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
    return Image.fromarray(np.asarray(rgb))


def _srgb(image: Image.Image, profile: object) -> Image.Image:
    if isinstance(profile, bytes) and profile and image.mode in ("RGB", "L", "CMYK", "LAB"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, renderingIntent=intent, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None  # not a profile, or of another kind of picture
        if converted is not None:
            return converted
    return image.convert("RGB")
