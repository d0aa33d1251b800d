"""Bytes → an upright sRGB picture, or a DataError that says what is wrong with the file.

Whatever the file holds (EXIF turn, colour profile, palette, alpha, CMYK, 16 bits, several frames), what comes out is
an 8-bit RGB picture as a viewer shows it, without any metadata.
"""

import io
import re
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, JpegImagePlugin, UnidentifiedImageError

from vez.errors import DataError
from vez.images.metadata import BROKEN, FORMATS, has_places

Background = Literal["white", "black", "grey"]

MAX_PIXELS: Final = 120_000_000  # a medium-format photograph has 102 million
_LONGEST_SIDE: Final = 65_535  # JPEG's; a picture one pixel wide and millions high costs memory per row
_MOST_SCANS: Final = 100  # of a JPEG: as libtiff; each costs a pass over all pixels, however small the scan
_SCAN: Final = re.compile(rb"\xff\xda")
_MOST_FRAMES: Final = 1000  # frames are counted no further: to count is to read
_ORIENTATION: Final = 0x0112  # EXIF 2.32: what to do to a stored picture so that it stands upright
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_BITS, _PHOTOMETRIC = 258, 262  # TIFF 6.0
_SIGNATURES: Final = (b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNKNOWN: Final = "it is not a picture that vez can read (JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF; HEIC with an extra)"


@dataclass(frozen=True)
class Decoded:
    """A picture, and what its file told besides."""

    image: Image.Image
    """Upright 8-bit sRGB, without metadata; what is transparent shows the background."""
    alpha: Image.Image | None
    """8-bit grey, upright, 255 opaque, as large as ``image``; None where nothing is transparent."""
    places: bool
    """The metadata tells where it was taken (`vez.images.metadata.has_places`)."""
    frames: int
    """More than 1: animated, or of several pages; the first was taken. Counted up to 1000."""
    size: tuple[int, int]
    """(Width, height) of the upright picture in the file; larger than ``image`` only where ``at_least`` allowed it."""


def decode(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of a picture as upright 8-bit sRGB, transparent parts over white. Raises as `read_picture`."""
    return read_picture(source, max_pixels=max_pixels).image


def read_picture(
    source: Path | bytes,
    *,
    background: Background = "white",
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
) -> Decoded:
    """The first frame of a picture, and what its file tells besides. The file is not changed.

    The file's colour profile is honoured; a profile that is broken or of another kind of picture is passed over, as
    browsers do. With ``at_least``, a JPEG may come out 2, 4 or 8 times smaller (its own cosine transform then does the
    scaling, several times faster), as long as its short side keeps that many pixels; boxes in pixels of the file must
    be scaled by ``image.width / size[0]``.

    Raises DataError where the file cannot be read, is no picture, is cut short, has more than ``max_pixels`` pixels, or
    holds numbers that have no known brightness (32-bit or floating-point).
    """
    data = _bytes(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a picture can be used or not; Pillow's remarks on its metadata change neither
        if claimed := _webp_size(data):
            _check_size(*claimed, max_pixels)  # its decoder takes memory for them before anyone can ask
        image = _opened(data)
        _check_size(image.width, image.height, max_pixels)
        try:
            smaller = at_least is not None and isinstance(image, JpegImagePlugin.JpegImageFile)
            size = image.size
            if smaller:
                image.draft(None, (at_least or 1, at_least or 1))
            image.load()
            size = size if smaller else image.size  # HEIC's decoder may find another size than the header claims
            _check_size(*size, max_pixels)
            rgb, alpha = _colours(image, data)
            turn = _TURNS.get(_orientation(image))
            frames = _frames(image)
        except DataError:
            raise
        except BROKEN as error:
            raise DataError(f"it is damaged or cut short: {_said(error)}") from error
    if alpha is not None:
        ground = Image.new("RGB", rgb.size, background)
        ground.paste(rgb, mask=alpha)
        rgb = ground
    if turn is not None:
        rgb, alpha = rgb.transpose(turn), alpha.transpose(turn) if alpha is not None else None
        size = size[::-1] if turn.value >= Image.Transpose.ROTATE_90 and turn != Image.Transpose.ROTATE_180 else size
    for part in (rgb, alpha):
        if part is not None:
            part.info = {}
    return Decoded(rgb, alpha, has_places(data), frames, size)


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


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels or max(width, height) > _LONGEST_SIDE:
        most = f"more than {max_pixels:,}" if width * height > max_pixels else f"a side longer than {_LONGEST_SIDE:,}"
        raise DataError(f"it has {width}×{height} pixels, {most}; make it smaller")
    if width < 1 or height < 1:
        raise DataError(f"it is damaged: it has {width}×{height} pixels")


def _opened(data: bytes) -> Image.Image:
    """The picture, its pixels not yet decoded. Raises DataError."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            if sum(1 for _ in _SCAN.finditer(data)) > _MOST_SCANS:
                raise DataError(f"it is a JPEG of more than {_MOST_SCANS} scans, made to cost time; save it again")
            # Not through Image.open: with an index of further pictures (a preview, a depth map), it would be another
            # class, which stumbles over a damaged index that no viewer looks at.
            return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        if _is_heic(data):
            return _heic(data)
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if data.startswith(_SIGNATURES) or data[4:8] == b"ftyp" or data[8:12] == b"WEBP":
            raise DataError(
                "it is damaged or cut short: its first bytes name a format, and the next do not fit"
            ) from error
        raise DataError(_UNKNOWN) from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow's own limit, met before ours can be
        raise DataError(f"it has more than {most:,} pixels; make it smaller") from error
    except BROKEN as error:
        raise DataError(f"it is damaged: {_said(error)}") from error


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """(Width, height) that a WebP claims in its first chunk (RFC 9649, section 2); None where it is none."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    if data[12:16] == b"VP8X":  # 24 bits each, less one
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":  # a byte of signature, then 14 bits each, less one
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":  # RFC 6386, section 9.1: 14 bits each
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _is_heic(data: bytes) -> bool:
    """By the brands in its first box (ISO 14496-12): "mif1" alone can be either, so AVIF's own brands decide."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return not brands & {b"avif", b"avis"} and bool(brands & _HEIC_BRANDS)


def _heic(data: bytes) -> Image.Image:
    # Inside, and without registering it with Pillow: an extra, and other code's Image.open stays as it was.
    try:
        opener: Any = import_module("pillow_heif").HeifImageFile
    except ImportError as error:
        raise DataError('it is a HEIC picture; pip install "vez[heic]", or save it as JPEG or PNG') from error
    image: Image.Image = opener(io.BytesIO(data))
    return image


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except BROKEN:
        return 1  # broken EXIF says nothing about which way is up; the pixels are fine
    return value if isinstance(value, int) else 1


def _frames(image: Image.Image) -> int:
    """How many frames or pages there are; the picture then stands at another one."""
    if image.format == "HEIF" or not getattr(image, "is_animated", False):
        return 1  # a HEIC file's other pictures are no frames of its first
    if image.format not in ("GIF", "TIFF"):
        return int(getattr(image, "n_frames", 1))
    count = 1
    try:
        while count < _MOST_FRAMES:
            image.seek(count)
            count += 1
    except BROKEN:
        pass  # the end, or damage behind the first frame
    return count


def _colours(image: Image.Image, data: bytes) -> tuple[Image.Image, Image.Image | None]:
    """The picture in 8-bit sRGB, and its alpha channel unless all of it is opaque."""
    profile = image.info.get("icc_profile")
    alpha: Image.Image | None = None
    if image.mode in ("I", "F"):
        raise DataError(
            f"its pixels are 32-bit numbers (mode {image.mode}) of unknown brightness; save it as 8-bit PNG"
        )
    if image.mode.startswith("I;16"):
        image, alpha = _eight_bits(image)
    elif image.mode in ("LA", "RGBA"):
        image, alpha = image.convert(image.mode[:-1]), image.getchannel("A")
    elif image.has_transparency_data:
        key = image.info.get("transparency")
        if isinstance(key, tuple) and data[24:25] == b"\x10":  # a PNG of 16 bits: the key is too, the pixels no longer
            image.info["transparency"] = tuple(part >> 8 for part in key)
        image = image.convert("RGBA")  # palette and tRNS transparency become a channel
        image, alpha = image.convert("RGB"), image.getchannel("A")
    elif image.mode in ("P", "1", "RGBX", "HSV"):
        image = image.convert("RGB")
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    return _srgb(image, profile), alpha


def _eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """16-bit grey, scaled (Pillow's own conversion clips), and what a PNG's key makes transparent."""
    wide: NDArray[np.uint32] = np.asarray(image).astype(np.uint32)
    tags: Any = getattr(image, "tag_v2", {})
    most = 4095 if tags.get(_BITS) in (12, (12,)) else 65535
    grey = ((wide * 255 + most // 2) // most).clip(0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds in 8 bits only
        grey = 255 - grey
    key = image.info.get("transparency")
    alpha = Image.fromarray(np.where(wide == key, np.uint8(0), np.uint8(255))) if isinstance(key, int) else None
    return Image.fromarray(grey), alpha


def _srgb(image: Image.Image, profile: object) -> Image.Image:
    """By the file's colour profile where it has one that fits; always a new picture."""
    if image.mode == "LAB" and not profile:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    if isinstance(profile, bytes) and profile and image.mode in ("RGB", "L", "CMYK", "LAB"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
            target = ImageCms.createProfile("sRGB")
            transform = ImageCms.buildTransform(source, target, image.mode, "RGB", renderingIntent=intent)
            if image.mode != "RGB" or not _changes_nothing(transform):
                converted = ImageCms.applyTransform(image, transform)
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # not a profile, or of another kind of picture
    return image.convert("RGB")


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform is sRGB to sRGB but for rounding, as in most files; it would cost more than decoding."""
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(17, -1, 3)  # (17, 289, 3)
    after = ImageCms.applyTransform(Image.fromarray(cube), transform)
    return after is not None and int(np.abs(np.asarray(after, np.int16) - cube).max()) <= 1
